//! `key=value,key=value` with fields in double quotes where a value holds a comma: what `--output` and friends take.

/// The fields, in order; a field without `=` has no value.
pub(crate) fn fields(text: &str) -> Result<Vec<(String, Option<String>)>, String> {
    let mut fields = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let field;
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut value = String::new();
            let mut characters = quoted.char_indices();
            let end = loop {
                match characters.next() {
                    None => return Err(format!("{text:?} has a quote that does not end")),
                    Some((at, '"')) if quoted[at + 1..].starts_with('"') => {
                        characters.next();
                        value.push('"');
                    }
                    Some((at, '"')) => break at + 1,
                    Some((_, character)) => value.push(character),
                }
            };
            field = value;
            rest = quoted[end..].strip_prefix(',').unwrap_or(&quoted[end..]);
        } else {
            let (head, tail) = rest.split_once(',').unwrap_or((rest, ""));
            field = head.to_owned();
            rest = tail;
        }
        match field.split_once('=') {
            Some((key, value)) => fields.push((key.trim().to_owned(), Some(value.to_owned()))),
            None => fields.push((field.trim().to_owned(), None)),
        }
    }
    Ok(fields)
}

/// A boolean as Go's `ParseBool` reads it; a key without a value is true.
pub(crate) fn boolean(key: &str, value: Option<&str>) -> Result<bool, String> {
    match value {
        None | Some("" | "1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(other) => Err(format!("{key}={other}: true or false is expected")),
    }
}

#[cfg(test)]
mod tests {
    use super::fields;

    #[test]
    fn quoted_fields_may_hold_commas() {
        let read = fields(r#"type=oci,"name=a,b",tar=false,push,"x=""q""""#).unwrap();
        let read: Vec<_> = read
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_deref()))
            .collect();
        let expected = [
            ("type", Some("oci")),
            ("name", Some("a,b")),
            ("tar", Some("false")),
            ("push", None),
            ("x", Some("\"q\"")),
        ];
        assert_eq!(read, expected);
        assert!(fields("\"a").is_err());
    }
}
