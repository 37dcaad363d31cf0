//! Which heredocs a line opens.

use crate::expand::{Env, ExpandError, Lexer};

/// What `<<` and the word behind it say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// The word, unquoted.
    pub name: String,
    /// The file descriptor in front; 0 when there is none.
    pub fd: u64,
    /// `false` when the word is quoted.
    pub expand: bool,
    /// `<<-`
    pub chomp: bool,
}

/// No variable is set: a heredoc's word is never expanded.
struct Nothing;

impl Env for Nothing {
    fn get(&self, _name: &str) -> Option<&str> {
        None
    }
}

/// Reads one word as a heredoc marker; `None` when it is not one.
pub fn marker(word: &str) -> Result<Option<Marker>, ExpandError> {
    let digits = word.len() - word.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (fd, rest) = word.split_at(digits);
    let Some(rest) = rest.strip_prefix("<<") else {
        return Ok(None);
    };
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace());
    if rest.is_empty() || rest.contains('<') {
        return Ok(None);
    }
    let plain = Lexer {
        skip_unset_env: true,
        ..Lexer::new('\\')
    };
    let quoted = Lexer {
        raw_quotes: true,
        ..plain
    };
    let words = plain.process_words(rest, &Nothing)?.words;
    let words_with_quotes = quoted.process_words(rest, &Nothing)?.words;
    let (Ok([name]), [with_quotes]) = (<[String; 1]>::try_from(words), words_with_quotes.as_slice()) else {
        return Ok(None);
    };
    // The word is quoted if taking it with and without its quotes makes a difference in quotes.
    let expand = quotes(&name) == quotes(with_quotes);
    Ok(Some(Marker {
        name,
        fd: fd.parse().unwrap_or(0),
        expand,
        chomp,
    }))
}

fn quotes(text: &str) -> usize {
    text.matches(['\'', '"']).count()
}

/// All heredocs that a line opens, in order. A line with unbalanced quotes opens none.
pub(crate) fn markers(line: &str) -> Result<Vec<Marker>, ExpandError> {
    let lexer = Lexer {
        raw_quotes: true,
        raw_escapes: true,
        skip_unset_env: true,
        ..Lexer::new('\\')
    };
    let words = lexer
        .process_words(line, &Nothing)
        .map(|words| words.words)
        .unwrap_or_default();
    let mut found = Vec::new();
    for word in words {
        found.extend(marker(&word)?);
    }
    Ok(found)
}

/// A body with the leading tabs of each line removed.
pub fn chomp(body: &str) -> String {
    body.split_inclusive('\n')
        .map(|line| line.trim_start_matches('\t'))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Case {
        input: String,
        expect: Expect,
    }

    #[derive(Deserialize)]
    struct Expect {
        heredoc: Option<Recorded>,
        error: Option<String>,
    }

    #[derive(Deserialize)]
    struct Recorded {
        chomp: bool,
        expand: bool,
        fd: u64,
        name: String,
    }

    #[test]
    fn words_are_taken_for_markers_as_recorded() {
        let cases: Vec<Case> = crate::testdata::cases("heredoc_words.json");
        assert_eq!(cases.len(), 32);
        for case in cases {
            let got = marker(&case.input).map_err(|error| error.to_string());
            let want = match case.expect.error {
                Some(error) => Err(error),
                None => Ok(case.expect.heredoc.map(|want| Marker {
                    name: want.name,
                    fd: want.fd,
                    expand: want.expand,
                    chomp: want.chomp,
                })),
            };
            assert_eq!(got, want, "{:?}", case.input);
        }
    }

    #[test]
    fn chomping_takes_tabs_only() {
        assert_eq!(chomp("\t\ta\n  \tb\n\t c"), "a\n  \tb\n c");
    }
}
