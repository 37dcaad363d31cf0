//! One path against one pattern, by the rules of Go's `filepath.Match`: `*` and `?` stop at `/`, `[a-z]`, `[^a]`, `\`
//! escapes; no `**`, no braces. [`DeepPattern`] adds `**` for `COPY --parents`.

use crate::ignore::pattern::Compiled;

/// A pattern that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern {pattern:?}: {reason}")]
pub struct BadPattern {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// A part of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    /// `*`
    Star,
    /// `?`
    Any,
    /// `[a-z]` or `[^a-z]`
    Class {
        /// `^`
        negated: bool,
        /// First and last character of each range.
        ranges: Vec<(char, char)>,
    },
    /// A character that stands for itself.
    Char(char),
}

/// Reads a pattern.
pub(crate) fn tokens(pattern: &str) -> Result<Vec<Token>, BadPattern> {
    let bad = |reason| BadPattern {
        pattern: pattern.to_owned(),
        reason,
    };
    let mut tokens = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' => Token::Star,
            '?' => Token::Any,
            '\\' => Token::Char(chars.next().ok_or_else(|| bad("it ends with a backslash"))?),
            '[' => {
                let negated = chars.next_if_eq(&'^').is_some();
                let mut ranges = Vec::new();
                loop {
                    if !ranges.is_empty() && chars.next_if_eq(&']').is_some() {
                        break;
                    }
                    let first = class_char(&mut chars).map_err(bad)?;
                    let last = match chars.next_if_eq(&'-') {
                        Some(_) => class_char(&mut chars).map_err(bad)?,
                        None => first,
                    };
                    ranges.push((first, last));
                }
                Token::Class { negated, ranges }
            }
            c => Token::Char(c),
        });
    }
    Ok(tokens)
}

fn class_char(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<char, &'static str> {
    const OPEN: &str = "a `[` is not closed";
    let c = match chars.next().ok_or(OPEN)? {
        '-' | ']' => return Err("`-` and `]` inside `[…]` have to be escaped with a backslash"),
        '\\' => chars.next().ok_or(OPEN)?,
        c => c,
    };
    chars.peek().ok_or(OPEN)?;
    Ok(c)
}

/// Whether the whole of `name` matches `pattern`.
pub fn matches(pattern: &str, name: &str) -> Result<bool, BadPattern> {
    let tokens = tokens(pattern)?;
    let name: Vec<char> = name.chars().collect();
    let (mut at, mut next) = (0, 0);
    // The last star and how far it has eaten. Going back to it alone is enough: what stands between two stars has been
    // found at its first place, and a later place leaves less for the rest.
    let mut star: Option<(usize, usize)> = None;
    loop {
        let here = name.get(at).copied();
        match (tokens.get(next), here) {
            (None, None) => return Ok(true),
            (Some(Token::Star), _) => {
                next += 1;
                star = Some((next, at));
                continue;
            }
            (Some(token), Some(c)) if token.accepts(c) => {
                at += 1;
                next += 1;
                continue;
            }
            _ => {}
        }
        match star {
            Some((after, eaten)) if name.get(eaten).is_some_and(|c| *c != '/') => {
                star = Some((after, eaten + 1));
                at = eaten + 1;
                next = after;
            }
            _ => return Ok(false),
        }
    }
}

impl Token {
    fn accepts(&self, c: char) -> bool {
        match self {
            Self::Star => false,
            Self::Any => c != '/',
            Self::Class { negated, ranges } => {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&c)) != *negated
            }
            Self::Char(own) => *own == c,
        }
    }
}

/// Whether the pattern has any of `*`, `?`, `[`, so that it has to be matched against names. A `\` escapes.
pub fn has_wildcards(pattern: &str) -> bool {
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '[' => return true,
            '\\' => {
                chars.next();
            }
            _ => {}
        }
    }
    false
}

/// A pattern in which `**` stands for any number of directories.
#[derive(Debug, Clone)]
pub struct DeepPattern {
    compiled: Compiled,
}

impl DeepPattern {
    /// Reads a pattern. It should be clean, see [`crate::paths::clean`].
    pub fn new(pattern: &str) -> Result<Self, BadPattern> {
        let tokens = tokens(pattern)?;
        for token in &tokens {
            if let Token::Class { ranges, .. } = token
                && ranges.iter().any(|(first, last)| first > last)
            {
                let reason = "a range in `[…]` is upside down";
                return Err(BadPattern {
                    pattern: pattern.to_owned(),
                    reason,
                });
            }
        }
        let compiled = Compiled::new(pattern);
        match compiled.matches("") {
            Some(_) => Ok(Self { compiled }),
            None => Err(BadPattern {
                pattern: pattern.to_owned(),
                reason: "it is too long",
            }),
        }
    }

    /// Whether the whole of a clean relative path matches.
    pub fn matches(&self, path: &str) -> bool {
        self.compiled.matches(path).unwrap_or(false)
    }

    /// Whether anything below a directory may match; if not, a walk may skip it.
    pub fn may_match_below(&self, dir: &str) -> bool {
        self.compiled.may_match_below(dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_whole_names() {
        for (pattern, name, want) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*", "", true),
            ("*c", "abc", true),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[b-d]", "abc", true),
            ("ab[^b-d]", "abc", false),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a?b", "a/b", false),
            ("[\\]a]", "]", true),
            ("**", "a/b", false),
            ("a/**/b", "a/x/b", true),
            ("*x", "xxx", true),
            ("a", "a/", false),
        ] {
            assert_eq!(matches(pattern, name), Ok(want), "{pattern} {name}");
        }
        for pattern in [
            "[]a]", "[-]", "[x-]", "[-x]", "\\", "[a-b-c]", "[", "[^", "[^bc", "a[",
        ] {
            assert!(matches(pattern, "a").is_err(), "{pattern}");
        }
    }

    #[test]
    fn many_stars_do_not_take_long() {
        assert_eq!(matches(&"*a".repeat(2000), &"a".repeat(4000)), Ok(true));
        assert_eq!(
            matches(&format!("{}b", "*a".repeat(2000)), &"a".repeat(4000)),
            Ok(false)
        );
    }

    #[test]
    fn an_escaped_wildcard_is_none() {
        assert!(has_wildcards("a*"));
        assert!(!has_wildcards("a\\*\\[b"));
    }

    #[test]
    fn two_stars_go_deep() {
        let pattern = DeepPattern::new("a/**/*.txt").unwrap();
        assert!(pattern.matches("a/x.txt") && pattern.matches("a/b/c/x.txt") && !pattern.matches("b/x.txt"));
        assert!(pattern.may_match_below("a/b/c") && !pattern.may_match_below("b"));
        assert!(DeepPattern::new("[b-a]").is_err());
    }
}
