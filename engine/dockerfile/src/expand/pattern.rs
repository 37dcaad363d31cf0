//! Patterns of `${a#p}`, `${a%p}` and `${a/p/r}`: `*`, `?` and a backslash that escapes these two and itself.

use regex::Regex;

/// Removes the shortest or longest match at the start.
pub(super) fn trim_prefix(pattern: &str, value: &str, longest: bool) -> Result<String, String> {
    let regex = compile(pattern, longest, true)?;
    Ok(match regex.find(value) {
        Some(found) => value[found.end()..].to_owned(),
        None => value.to_owned(),
    })
}

/// Removes the shortest or longest match at the end. A regular expression finds the leftmost match first, so both
/// pattern and value are turned around.
pub(super) fn trim_suffix(pattern: &str, value: &str, longest: bool) -> Result<String, String> {
    let turned: String = value.chars().rev().collect();
    let rest = trim_prefix(&reverse(pattern), &turned, longest)?;
    Ok(rest.chars().rev().collect())
}

/// Replaces the first or every match.
pub(super) fn replace(pattern: &str, value: &str, replacement: &str, all: bool) -> Result<String, String> {
    let regex = compile(pattern, true, false)?;
    if all {
        let matches = regex.find_iter(value).count();
        if matches
            .saturating_mul(replacement.len())
            .saturating_add(value.len())
            > super::MAX_LENGTH
        {
            return Err(format!("the result is longer than {} bytes", super::MAX_LENGTH));
        }
        return Ok(regex.replace_all(value, replacement).into_owned());
    }
    Ok(match regex.find(value) {
        Some(found) => format!(
            "{}{replacement}{}",
            &value[..found.start()],
            &value[found.end()..]
        ),
        None => value.to_owned(),
    })
}

/// Turns a pattern around; an escape stays in front of what it escapes.
fn reverse(pattern: &str) -> String {
    let mut units: Vec<String> = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        let mut unit = c.to_string();
        if c == '\\'
            && let Some(escaped) = chars.next()
        {
            unit.push(escaped);
        }
        units.push(unit);
    }
    units.reverse();
    units.concat()
}

fn compile(pattern: &str, longest: bool, anchored: bool) -> Result<Regex, String> {
    let bad = |reason: &str| format!("invalid pattern ({pattern}) in substitution: {reason}");
    let mut out = String::with_capacity(pattern.len() + 4);
    if anchored {
        out.push('^');
    }
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' => out.push_str(if longest { ".*" } else { ".*?" }),
            '?' => out.push('.'),
            '\\' => match chars.peek().copied() {
                // These two had to be escaped to get through `${…}`; the escape is not part of the pattern.
                Some('}' | '/') => {}
                Some(escaped @ ('*' | '?' | '\\')) => {
                    chars.next();
                    out.push('\\');
                    out.push(escaped);
                }
                Some(other) => return Err(bad(&format!("invalid escape '\\{other}'"))),
                None => return Err(bad("it ends with an escape")),
            },
            _ => out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    Regex::new(&out).map_err(|error| bad(&error.to_string()))
}
