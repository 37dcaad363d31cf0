//! Variable expansion of single words: `$a`, `${a:-b}`, quotes and escapes.

//!
//! The grammar is that of BuildKit's shell lexer, which is a small part of a shell's: no command substitution, no
//! arithmetic, no assignment. Input from strangers is bounded: nesting by [`MAX_DEPTH`], results by [`MAX_LENGTH`].

use std::collections::{BTreeMap, BTreeSet, HashMap};

mod pattern;
mod scan;
#[cfg(test)]
mod tests;

/// How deep `${a:-${b:-…}}` may nest.
pub const MAX_DEPTH: usize = 64;

/// How long an expanded word may get, in bytes. `ENV A=$A$A` thirty times over must not take the machine's memory.
pub const MAX_LENGTH: usize = 4 << 20;

/// Where variables come from.
pub trait Env {
    /// The value of a variable; `None` when it is unset (an empty value is set).
    fn get(&self, name: &str) -> Option<&str>;
}

impl<S: std::hash::BuildHasher> Env for HashMap<String, String, S> {
    fn get(&self, name: &str) -> Option<&str> {
        HashMap::get(self, name).map(String::as_str)
    }
}

impl Env for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<&str> {
        BTreeMap::get(self, name).map(String::as_str)
    }
}

/// Pairs in order; the last one of a name counts.
impl Env for [(String, String)] {
    fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .rev()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

impl Env for Vec<(String, String)> {
    fn get(&self, name: &str) -> Option<&str> {
        self.as_slice().get_env(name)
    }
}

trait SliceEnv {
    fn get_env(&self, name: &str) -> Option<&str>;
}

impl SliceEnv for [(String, String)] {
    fn get_env(&self, name: &str) -> Option<&str> {
        Env::get(self, name)
    }
}

impl<E: Env + ?Sized> Env for &E {
    fn get(&self, name: &str) -> Option<&str> {
        (**self).get(name)
    }
}

/// How words are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lexer {
    /// The escape character.
    pub escape: char,
    /// Keep quotes in the result.
    pub raw_quotes: bool,
    /// Keep escape characters in the result.
    pub raw_escapes: bool,
    /// Quotes are ordinary characters.
    pub skip_process_quotes: bool,
    /// Leave unset variables as they are written.
    pub skip_unset_env: bool,
}

/// An expanded word.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expansion {
    /// The text.
    pub text: String,
    /// Names of variables that were found.
    pub matched: BTreeSet<String>,
    /// Names of variables that were not found, including those with a default.
    pub unmatched: BTreeSet<String>,
}

/// A word expanded and split at blanks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Words {
    /// The words.
    pub words: Vec<String>,
    /// Names of variables that were found.
    pub matched: BTreeSet<String>,
    /// Names of variables that were not found.
    pub unmatched: BTreeSet<String>,
}

/// Why a word cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to process {word:?}: {reason}")]
pub struct ExpandError {
    /// The word.
    pub word: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Lexer {
    /// The usual mode: quotes and escapes are removed, unset variables are empty.
    pub const fn new(escape: char) -> Self {
        Self {
            escape,
            raw_quotes: false,
            raw_escapes: false,
            skip_process_quotes: false,
            skip_unset_env: false,
        }
    }

    /// The mode for bodies of COPY and ADD heredocs: quotes are text, the escape is always a backslash.
    pub const fn heredoc() -> Self {
        Self {
            skip_process_quotes: true,
            ..Self::new('\\')
        }
    }

    /// The mode for names shown to people: only set variables are replaced.
    pub const fn display(escape: char) -> Self {
        Self {
            raw_quotes: true,
            raw_escapes: true,
            skip_unset_env: true,
            ..Self::new(escape)
        }
    }

    /// Expands one word; blanks in it and in values are kept.
    pub fn process(&self, word: &str, env: &dyn Env) -> Result<Expansion, ExpandError> {
        let (text, _, scan) = self.run(word, env)?;
        Ok(Expansion {
            text,
            matched: scan.matched,
            unmatched: scan.unmatched,
        })
    }

    /// Expands a word and splits the result at unquoted blanks (what `EXPOSE` does).
    pub fn process_words(&self, word: &str, env: &dyn Env) -> Result<Words, ExpandError> {
        let (_, words, scan) = self.run(word, env)?;
        Ok(Words {
            words,
            matched: scan.matched,
            unmatched: scan.unmatched,
        })
    }

    fn run<'a>(
        self,
        word: &str,
        env: &'a dyn Env,
    ) -> Result<(String, Vec<String>, scan::Scan<'a>), ExpandError> {
        let mut scan = scan::Scan::new(self, word, env);
        match scan.all() {
            Ok((text, words)) => Ok((text, words, scan)),
            Err(reason) => Err(ExpandError {
                word: word.to_owned(),
                reason,
            }),
        }
    }
}
