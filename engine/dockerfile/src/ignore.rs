//! `.dockerignore`: reading and matching. The same patterns serve `--exclude`.
//!
//! A path is excluded when the last pattern that matches it, or one of the directories above it, is not one that begins
//! with `!`. Matching a big context is linear: each pattern is a string comparison where it can be and a regular
//! expression (of the kind that cannot blow up) where it must, and a walk hands down which patterns already matched the
//! directory, so that no path above is looked at again.

use crate::paths;

pub(crate) mod pattern;
#[cfg(test)]
mod tests;

use pattern::Compiled;

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
    let text = String::from_utf8_lossy(text);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.starts_with('#') {
            continue;
        }
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let (sign, path) = match line.strip_prefix('!') {
            Some(rest) => ("!", rest.trim()),
            None => ("", line),
        };
        let mut path = if path.is_empty() {
            String::new()
        } else {
            paths::clean(path)
        };
        if path.len() > 1 && path.starts_with('/') {
            path.remove(0);
        }
        lines.push(IgnoreLine {
            pattern: format!("{sign}{path}"),
            line: index as u32 + 1,
        });
    }
    lines
}

/// A list of patterns, ready to match. Later patterns win over earlier ones.
#[derive(Debug, Clone, Default)]
pub struct Matcher {
    patterns: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    /// As it was given.
    text: String,
    /// Its place in the list that was given.
    index: usize,
    includes: bool,
    compiled: Compiled,
}

/// What the patterns say about a directory, to be handed down to what is in it. The default is for the root.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ParentState {
    matched: Box<[bool]>,
}

/// What the patterns say about one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the path is excluded.
    pub excluded: bool,
    /// Index in the given list of the pattern that decided, if any did.
    pub pattern: Option<usize>,
    /// For the entries of this path when it is a directory.
    pub state: ParentState,
}

impl Matcher {
    /// Compiles patterns as they come from [`read`] or from `--exclude`. Empty ones are passed over.
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Self, PatternError> {
        let mut entries = Vec::new();
        for (index, given) in patterns.into_iter().enumerate() {
            let text = given.as_ref().trim();
            if text.is_empty() {
                continue;
            }
            let cleaned = paths::clean(text);
            let (includes, path) = match cleaned.strip_prefix('!') {
                Some("") => return Err(PatternError::Exclusion { pattern: cleaned }),
                Some(rest) => (true, rest),
                None => (false, cleaned.as_str()),
            };
            if crate::glob::tokens(path).is_err() {
                return Err(PatternError::Syntax {
                    pattern: text.to_owned(),
                });
            }
            let compiled = Compiled::new(path);
            entries.push(Entry {
                text: text.to_owned(),
                index,
                includes,
                compiled,
            });
        }
        Ok(Self { patterns: entries })
    }

    /// Whether there is no pattern, so that nothing is excluded.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether any pattern begins with `!`.
    pub fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(|entry| entry.includes)
    }

    /// Whether a path (relative, `/` between parts) is excluded, by itself or through one of its parents. The root, `.`,
    /// never is.
    pub fn matches(&self, path: &str) -> Result<bool, PatternError> {
        Ok(self.explain(path)?.is_some_and(|index| !self.includes(index)))
    }

    /// As [`Matcher::matches`], with the index in the given list of the pattern that decided.
    pub fn explain(&self, path: &str) -> Result<Option<usize>, PatternError> {
        let path = paths::clean(path);
        if path == "." {
            return Ok(None);
        }
        self.decide(&path, &ParentState::default(), &mut |_, _| {})
            .map(|(_, pattern)| pattern)
    }

    /// Whether the patterns exclude all that a context holds, as far as a name that is not known can tell.
    pub fn matches_everything(&self) -> Result<bool, PatternError> {
        self.decide("", &ParentState::default(), &mut |_, _| {})
            .map(|(excluded, _)| excluded)
    }

    /// As [`Matcher::matches`], for a walk: `parent` is the state that the path's directory returned (the default one
    /// at the root), so that each pattern is tried once per path however deep it is. The path has to be clean.
    ///
    /// This is what decides which files a context holds. It differs from [`Matcher::matches`] in one corner, as
    /// BuildKit's walk does: a pattern that is passed over for a directory, because it could not change the outcome
    /// there, is not tried against that directory again for its entries (`ab/ab`, `!a*` excludes `ab/ab`).
    pub fn matches_with_parents(&self, path: &str, parent: &ParentState) -> Result<Verdict, PatternError> {
        let mut matched = vec![false; self.patterns.len()].into_boxed_slice();
        let (excluded, pattern) = self.decide(path, parent, &mut |index, value| matched[index] = value)?;
        Ok(Verdict {
            excluded,
            pattern,
            state: ParentState { matched },
        })
    }

    /// As [`Matcher::matches_with_parents`], for what is not a directory.
    pub fn excludes_file(&self, path: &str, parent: &ParentState) -> Result<bool, PatternError> {
        self.decide(path, parent, &mut |_, _| {})
            .map(|(excluded, _)| excluded)
    }

    fn decide(
        &self,
        path: &str,
        parent: &ParentState,
        record: &mut dyn FnMut(usize, bool),
    ) -> Result<(bool, Option<usize>), PatternError> {
        let mut excluded = false;
        let mut pattern = None;
        for (at, entry) in self.patterns.iter().enumerate() {
            let mut matched = parent.matched.get(at).copied().unwrap_or(false);
            if !matched {
                // A pattern that could not change the outcome is not tried.
                if entry.includes != excluded {
                    continue;
                }
                let matches = |path: &str| {
                    let error = || PatternError::Syntax {
                        pattern: entry.text.clone(),
                    };
                    entry.compiled.matches(path).ok_or_else(error)
                };
                matched = matches(path)?;
                if !matched && parent.matched.is_empty() {
                    for (end, _) in path.match_indices('/').filter(|(end, _)| *end > 0) {
                        if matches(&path[..end])? {
                            matched = true;
                            break;
                        }
                    }
                }
            }
            record(at, matched);
            if matched {
                excluded = !entry.includes;
                pattern = Some(entry.index);
            }
        }
        Ok((excluded, pattern))
    }

    /// Whether an excluded directory may hold something that a `!` pattern takes back in; if not, the walk may skip it.
    pub fn might_include_below(&self, dir: &str) -> bool {
        self.patterns
            .iter()
            .any(|entry| entry.includes && entry.compiled.may_match_below(dir))
    }

    /// The pattern at an index that [`Verdict::pattern`] or [`Matcher::explain`] gave.
    pub fn pattern(&self, index: usize) -> Option<&str> {
        self.patterns
            .iter()
            .find(|entry| entry.index == index)
            .map(|entry| entry.text.as_str())
    }

    fn includes(&self, index: usize) -> bool {
        self.patterns
            .iter()
            .any(|entry| entry.index == index && entry.includes)
    }
}
