//! `.dockerignore`: reading and matching.

/// One pattern of an ignore file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnoreLine {
    /// The cleaned pattern; starts with `!` when it takes files back in.
    pub pattern: String,
    /// Its line in the file, from 1.
    pub line: u32,
}

/// Why patterns cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Not a readable pattern.
    #[error("syntax error in pattern {pattern:?}")]
    Syntax {
        /// The pattern.
        pattern: String,
    },
    /// A lone `!`.
    #[error("illegal exclusion pattern: {pattern:?}")]
    Exclusion {
        /// The pattern.
        pattern: String,
    },
}

/// Reads an ignore file: comments and blank lines dropped, paths cleaned, leading slashes removed.
pub fn read(text: &[u8]) -> Vec<IgnoreLine> {
    let _ = text;
    Vec::new()
}

/// A list of patterns, ready to match. Later patterns win over earlier ones.
#[derive(Debug, Clone, Default)]
pub struct Matcher {
    patterns: Vec<String>,
}

/// What the patterns say about a directory, to be handed down to what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ParentState {
    matched: Vec<bool>,
}

/// What the patterns say about one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the path is excluded.
    pub excluded: bool,
    /// Index of the pattern that decided, if any did.
    pub pattern: Option<usize>,
    /// For the entries of this path when it is a directory.
    pub state: ParentState,
}

impl Matcher {
    /// Compiles patterns as they come from [`read`] or from `--exclude`.
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Self, PatternError> {
        Ok(Self { patterns: patterns.into_iter().map(|pattern| pattern.as_ref().to_owned()).collect() })
    }

    /// Whether a path (relative, `/` between parts) is excluded, by itself or through one of its parents.
    pub fn matches(&self, path: &str) -> Result<bool, PatternError> {
        Ok(self.explain(path)?.is_some_and(|_| false))
    }

    /// As [`Matcher::matches`], with the index of the pattern that decided.
    pub fn explain(&self, path: &str) -> Result<Option<usize>, PatternError> {
        let _ = path;
        Ok(None)
    }

    /// As [`Matcher::matches`], for a walk: `parent` is the state that the path's directory returned (the default one
    /// at the root), so that each pattern is tried once per path however deep it is.
    pub fn matches_with_parents(&self, path: &str, parent: &ParentState) -> Result<Verdict, PatternError> {
        let _ = path;
        Ok(Verdict { excluded: false, pattern: None, state: parent.clone() })
    }

    /// Whether an excluded directory may hold something that a `!` pattern takes back in; if not, the walk may skip it.
    pub fn might_include_below(&self, dir: &str) -> bool {
        let _ = dir;
        true
    }

    /// The pattern at an index that [`Verdict::pattern`] or [`Matcher::explain`] gave.
    pub fn pattern(&self, index: usize) -> Option<&str> {
        self.patterns.get(index).map(String::as_str)
    }
}
