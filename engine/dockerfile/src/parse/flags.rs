//! Flags of instructions: which there are, what they take, and whether they may repeat.

use super::error;
use crate::{
    ast::{Span, Word},
    diagnostic::Diagnostic,
    distance,
    nodes::Node,
};

/// What a flag takes.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Takes {
    /// Nothing, `true` or `false`.
    Bool,
    /// One value.
    Value,
    /// One value each time; may repeat.
    Values,
}

/// The flags of one instruction.
#[derive(Default)]
pub(super) struct Flags {
    found: Vec<(&'static str, Word, Option<bool>)>,
}

/// Reads an instruction's flags by its list of names.
pub(super) fn read(node: &Node, known: &[(&'static str, Takes)]) -> Result<Flags, Diagnostic> {
    let mut flags = Flags::default();
    for flag in &node.flags {
        let body = flag.text.strip_prefix("--").unwrap_or(&flag.text);
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (body, None),
        };
        let Some((name, takes)) = known.iter().copied().find(|(known, _)| *known == name) else {
            let mut names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            names.sort_unstable();
            let near = distance::suggestion(distance::closest(name, names.iter().copied()));
            let message = format!("unknown flag: --{name}{near}");
            let list: Vec<String> = names.iter().map(|name| format!("--{name}")).collect();
            let advice = match list.as_slice() {
                [] => format!("{} takes no flags", node.name()),
                list => format!("{} takes {}", node.name(), list.join(", ")),
            };
            return Err(error("unknown-flag", message, flag.span).advise(advice));
        };
        if takes != Takes::Values && flags.is_set(name) {
            return Err(error(
                "duplicate-flag",
                format!("duplicate flag specified: --{name}"),
                flag.span,
            ));
        }
        let truth = match (takes, value.map(str::to_lowercase).as_deref()) {
            (Takes::Bool, None | Some("true")) => Some(true),
            (Takes::Bool, Some("false")) => Some(false),
            (Takes::Bool, Some("")) | (Takes::Value | Takes::Values, None) => {
                return Err(error(
                    "flag-value",
                    format!("missing a value on flag: --{name}"),
                    flag.span,
                )
                .advise(format!("write --{name}=value, without a blank")));
            }
            (Takes::Bool, Some(_)) => {
                let value = value.unwrap_or_default();
                let message = format!("expecting boolean value for flag --{name}, not: {value}");
                return Err(error("flag-value", message, flag.span));
            }
            (Takes::Value | Takes::Values, Some(_)) => None,
        };
        let word = Word {
            text: value.unwrap_or_default().to_owned(),
            span: flag.span,
        };
        flags.found.push((name, word, truth));
    }
    Ok(flags)
}

impl Flags {
    fn is_set(&self, name: &str) -> bool {
        self.found.iter().any(|(found, ..)| *found == name)
    }

    /// Whether a flag of type bool is given and true.
    pub(super) fn is_true(&self, name: &str) -> bool {
        self.truth(name) == Some(true)
    }

    /// The value of a flag of type bool.
    pub(super) fn truth(&self, name: &str) -> Option<bool> {
        self.found
            .iter()
            .find(|(found, ..)| *found == name)
            .and_then(|(.., truth)| *truth)
    }

    /// The value of a flag; an empty one is the same as none.
    pub(super) fn value(&self, name: &str) -> Option<Word> {
        self.written(name).filter(|word| !word.text.is_empty())
    }

    /// The value of a flag, even if it is empty.
    pub(super) fn written(&self, name: &str) -> Option<Word> {
        self.found
            .iter()
            .find(|(found, ..)| *found == name)
            .map(|(_, word, _)| word.clone())
    }

    /// All values of a flag that may repeat.
    pub(super) fn values(&self, name: &str) -> Vec<Word> {
        self.found
            .iter()
            .filter(|(found, ..)| *found == name)
            .map(|(_, word, _)| word.clone())
            .collect()
    }

    /// The names that are used, each once.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for (name, ..) in &self.found {
            if !names.iter().any(|known| known == name) {
                names.push((*name).to_owned());
            }
        }
        names
    }

    /// Where a flag stands, for messages.
    pub(super) fn span(&self, name: &str, otherwise: Span) -> Span {
        self.written(name).map_or(otherwise, |word| word.span)
    }
}
