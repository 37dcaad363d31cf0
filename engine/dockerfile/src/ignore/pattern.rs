//! One pattern with `**`, made ready to match.

use regex::Regex;

use crate::glob::{Token, tokens};

/// How a pattern is matched. A comparison of strings is taken wherever it does.
#[derive(Debug, Clone)]
enum Way {
    Exact(String),
    /// `dir/**`
    Prefix(String),
    /// `**/name`
    Suffix(String),
    Regex(Regex),
    /// It can be read but not matched, such as `[z-a]`. That is an error only when the pattern is tried.
    Broken,
}

/// A pattern without `!`.
#[derive(Debug, Clone)]
pub(crate) struct Compiled {
    way: Way,
    /// The parts between slashes, for the question what may match below a directory.
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
enum Part {
    /// Only this name.
    Name(String),
    /// Some names, but one part of a path.
    Wild,
    /// Any number of parts.
    Deep,
}

impl Compiled {
    pub(crate) fn new(pattern: &str) -> Self {
        Self {
            way: way(pattern).unwrap_or(Way::Broken),
            parts: parts(pattern),
        }
    }

    /// Whether the whole path matches; `None` for a pattern that cannot be matched.
    pub(crate) fn matches(&self, path: &str) -> Option<bool> {
        match &self.way {
            Way::Exact(text) => Some(path == text),
            Way::Prefix(text) => Some(path.starts_with(text.as_str())),
            Way::Suffix(text) => Some(path.ends_with(text.as_str()) || text.strip_prefix('/') == Some(path)),
            Way::Regex(regex) => Some(regex.is_match(path)),
            Way::Broken => None,
        }
    }

    /// Whether a path below a directory may match which the directory does not. Never wrongly `false`.
    pub(crate) fn may_match_below(&self, dir: &str) -> bool {
        let mut parts = self.parts.iter();
        for name in dir.split('/').filter(|name| !name.is_empty() && *name != ".") {
            match parts.next() {
                Some(Part::Deep) => return true,
                Some(Part::Wild) => {}
                Some(Part::Name(own)) if own == name => {}
                Some(Part::Name(_)) | None => return false,
            }
        }
        parts.next().is_some()
    }
}

/// Finds the way. The order of the cases is that of moby/patternmatcher, so that `a**`, `**b` and `***` come out as
/// there: the first is a prefix, the second a suffix, the third takes everything.
fn way(pattern: &str) -> Option<Way> {
    let tokens = tokens(pattern).ok()?;
    let is_literal = |tokens: &[Token]| tokens.iter().all(|token| matches!(token, Token::Char(_)));
    // An escape makes text and pattern differ, so the comparison has to be of the tokens' characters; moby takes a
    // regular expression then, with the same outcome.
    let literal = |tokens: &[Token]| -> String {
        tokens
            .iter()
            .filter_map(|token| {
                if let Token::Char(c) = token {
                    Some(*c)
                } else {
                    None
                }
            })
            .collect()
    };
    if is_literal(&tokens) {
        return Some(Way::Exact(literal(&tokens)));
    }
    if let Some(rest) = tokens.strip_prefix(&[Token::Star, Token::Star])
        && is_literal(rest)
    {
        return Some(Way::Suffix(literal(rest)));
    }
    if let Some(rest) = tokens.strip_suffix(&[Token::Star, Token::Star])
        && is_literal(rest)
    {
        return Some(Way::Prefix(literal(rest)));
    }
    let mut out = String::from("^");
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            Token::Star if tokens.next_if_eq(&Token::Star).is_some() => {
                tokens.next_if_eq(&Token::Char('/'));
                out.push_str(if tokens.peek().is_none() { ".*" } else { "(?:.*/)?" });
            }
            Token::Star => out.push_str("[^/]*"),
            Token::Any => out.push_str("[^/]"),
            Token::Class { negated, ranges } => class(&mut out, negated, &ranges)?,
            Token::Char(c) => escape(&mut out, c),
        }
    }
    out.push('$');
    Regex::new(&out).ok().map(Way::Regex)
}

fn class(out: &mut String, negated: bool, ranges: &[(char, char)]) -> Option<()> {
    out.push_str(if negated { "[^" } else { "[" });
    for (first, last) in ranges {
        if first > last {
            return None;
        }
        escape(out, *first);
        out.push('-');
        escape(out, *last);
    }
    out.push(']');
    Some(())
}

fn escape(out: &mut String, c: char) {
    out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
}

fn parts(pattern: &str) -> Vec<Part> {
    pattern
        .split('/')
        .map(|part| match part {
            // A class may match a slash.
            part if part.contains("**") || part.contains(['[', ']']) => Part::Deep,
            part if part.contains(['*', '?', '\\']) => Part::Wild,
            part => Part::Name(part.to_owned()),
        })
        .collect()
}
