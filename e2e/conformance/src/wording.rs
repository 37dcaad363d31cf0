//! Where our error texts differ from BuildKit's: one table, BuildKit's wording to ours.
//!
//! Cases quote BuildKit. A quoted text is first looked for as it is. Where it is not in our message, the rows below
//! are tried: the left side is a regular expression that must match the **whole** quoted text, the right side is the
//! text that our message must contain then, with `$1`, `$2`… standing for what the groups matched. So a row changes
//! words and never facts: a test refuses rows whose right side drops a group, and each row says why it differs.
//! Rows apply to `error_contains` only, and to the program under test only, never to BuildKit.

use regex::Regex;

/// One difference in wording.
pub(crate) struct Row {
    /// BuildKit's wording, a regular expression over the whole quoted text.
    pub(crate) buildkit: &'static str,
    /// Our wording.
    pub(crate) ours: &'static str,
    /// Why ours is better for the reader.
    pub(crate) why: &'static str,
}

/// The table.
pub(crate) const TABLE: &[Row] = &[Row {
    buildkit: r#"no SSH key "" forwarded from the client"#,
    ours: r#"no SSH key "default" forwarded from the client"#,
    why: "a mount without an id means the one called default, and that is the name to offer a key under",
}];

/// The texts of which one must be in our message for a quoted text to count as present.
pub(crate) fn alternatives(table: &[Row], quoted: &str) -> Vec<String> {
    let mut texts = vec![quoted.to_owned()];
    for row in table {
        if let Some(groups) = Regex::new(&format!("^(?s:{})$", row.buildkit))
            .ok()
            .and_then(|regex| {
                let groups = regex.captures(quoted)?;
                let mut text = String::new();
                groups.expand(row.ours, &mut text);
                Some(text)
            })
        {
            texts.push(groups);
        }
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &[Row] = &[Row {
        buildkit: r"mkdir (\S+): not a directory",
        ours: "$1 is a file, not a folder",
        why: "says what it is",
    }];

    #[test]
    fn a_row_carries_the_facts_over() {
        let texts = alternatives(SAMPLE, "mkdir /f: not a directory");
        assert_eq!(texts, ["mkdir /f: not a directory", "/f is a file, not a folder"]);
        assert_eq!(
            alternatives(SAMPLE, "failed to mkdir /f: not a directory").len(),
            1,
            "the whole text must match"
        );
    }

    #[test]
    fn no_row_drops_a_fact_or_goes_without_a_reason() {
        for row in TABLE.iter().chain(SAMPLE) {
            let regex = Regex::new(row.buildkit).unwrap();
            for group in 1..regex.captures_len() {
                assert!(
                    row.ours.contains(&format!("${group}")),
                    "{} loses group {group}",
                    row.buildkit
                );
            }
            assert!(!row.why.is_empty() && row.ours.len() > 8, "{}", row.buildkit);
            assert!(
                !row.buildkit.contains(".*"),
                "{} would match anything",
                row.buildkit
            );
        }
    }
}
