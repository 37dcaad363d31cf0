//! One line of comma-separated values, as `--mount` and `--device` have them.

/// Why a line is not a list of values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CsvError {
    #[error("EOF")]
    Empty,
    #[error("bare \" in non-quoted field")]
    BareQuote,
    #[error("extraneous or missing \" in quoted field")]
    Quote,
}

/// Splits at commas. A field may stand in double quotes, with `""` for a quote in it.
pub(crate) fn fields(line: &str) -> Result<Vec<String>, CsvError> {
    if line.is_empty() {
        return Err(CsvError::Empty);
    }
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let mut field = String::new();
        if let Some(mut quoted) = rest.strip_prefix('"') {
            loop {
                let (text, after) = quoted.split_once('"').ok_or(CsvError::Quote)?;
                field.push_str(text);
                quoted = after;
                match quoted.strip_prefix('"') {
                    Some(after) => {
                        field.push('"');
                        quoted = after;
                    }
                    None => break,
                }
            }
            rest = quoted;
            if !rest.is_empty() && !rest.starts_with(',') {
                return Err(CsvError::Quote);
            }
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            if rest[..end].contains('"') {
                return Err(CsvError::BareQuote);
            }
            field.push_str(&rest[..end]);
            rest = &rest[end..];
        }
        fields.push(field);
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None => return Ok(fields),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_may_be_quoted() {
        assert_eq!(fields("a,b=c"), Ok(vec!["a".to_owned(), "b=c".to_owned()]));
        assert_eq!(
            fields("\"a,\"\"b\"\"\",c,"),
            Ok(vec!["a,\"b\"".to_owned(), "c".to_owned(), String::new()])
        );
        assert_eq!(fields(""), Err(CsvError::Empty));
        assert_eq!(fields("a\"b"), Err(CsvError::BareQuote));
        assert_eq!(fields("\"a\"b"), Err(CsvError::Quote));
        assert_eq!(fields("\"a"), Err(CsvError::Quote));
    }
}
