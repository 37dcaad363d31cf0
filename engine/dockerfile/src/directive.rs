//! Parser directives: `# name=value` before everything else.

use crate::source::Source;

/// The names that are directives; any other name ends the block.
const NAMES: [&str; 3] = ["syntax", "escape", "check"];

/// One line read as a directive.
pub(crate) struct Entry<'a> {
    pub(crate) name: String,
    pub(crate) value: &'a str,
}

/// Reads the text after the comment sign. `None` ends the block of directives.
pub(crate) fn entry(comment: &str) -> Option<Entry<'_>> {
    let (name, value) = comment.trim_start().split_once('=')?;
    let name = name.trim_end_matches(|c: char| c.is_ascii_whitespace());
    let value = value.trim_matches(|c: char| c.is_ascii_whitespace());
    let valid = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric())
        && !value.is_empty();
    let name = name.to_ascii_lowercase();
    (valid && NAMES.contains(&name.as_str())).then_some(Entry { name, value })
}

/// A directive that [`detect`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The value up to its first blank.
    pub value: String,
    /// The whole value.
    pub text: String,
    /// The line, from 1; 0 when the whole file is a JSON object.
    pub line: u32,
}

/// Looks for a directive without reading the rest of the file. A `#!` line may come first. `syntax` is also found in
/// comments of the form `// syntax=…` and in a file that is a JSON object, because a frontend may read other languages.
pub fn detect(name: &str, text: &str) -> Option<Found> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let first = if text.starts_with("#!") { 2 } else { 1 };
    let source = Source::new(text);
    let scan = |sign: &str| {
        let mut seen = Vec::new();
        for number in first..=source.line_count() {
            let entry = entry(source.line(number)?.text().strip_prefix(sign)?)?;
            if seen.contains(&entry.name) {
                return None;
            }
            if entry.name == name {
                return Some(found(entry.value, number));
            }
            seen.push(entry.name);
        }
        None
    };
    if let Some(found) = scan("#") {
        return Some(found);
    }
    if name != "syntax" {
        return None;
    }
    if let Some(found) = scan("//") {
        return Some(found);
    }
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
    let value = object.get(name)?.as_str()?;
    Some(Found {
        value: value.to_owned(),
        text: value.to_owned(),
        line: 0,
    })
}

fn found(text: &str, line: u32) -> Found {
    let value = text.split(' ').next().unwrap_or(text).to_owned();
    Found {
        value,
        text: text.to_owned(),
        line,
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Case {
        name: String,
        input: String,
        expect: Expect,
    }

    #[derive(Deserialize)]
    struct Expect {
        found: bool,
        #[serde(default)]
        value: String,
        #[serde(default)]
        cmdline: String,
        #[serde(default)]
        line: u32,
    }

    #[test]
    fn directives_are_found_as_recorded() {
        let cases: Vec<Case> = crate::testdata::cases("directives.json");
        assert_eq!(cases.len(), 24);
        for case in cases {
            let want = case.expect.found.then_some(Found {
                value: case.expect.value,
                text: case.expect.cmdline,
                line: case.expect.line,
            });
            assert_eq!(detect(&case.name, &case.input), want, "{:?}", case.input);
        }
    }
}
