//! From one joined line to a node.

use serde_json::Value;

use super::{
    Args, Declaration, Node,
    words::{self, Piece},
};
use crate::{
    ast::{KeyValue, Span, Word},
    diagnostic::Diagnostic,
    source::{Joined, Slice, Source},
};

pub(super) struct Cutter<'a> {
    pub(super) source: &'a Source<'a>,
    pub(super) joined: &'a Joined,
    pub(super) escape: char,
    pub(super) span: Span,
}

impl Cutter<'_> {
    /// Cuts an instruction. `depth` counts the `ONBUILD`s around it.
    pub(super) fn node(&self, line: Slice<'_>, depth: usize) -> Result<Node, Diagnostic> {
        let original = line.text.to_owned();
        let (keyword, rest) = line.trim().split_blank();
        let keyword = self.word(keyword);
        let (flags, rest) = match rest {
            Some(rest) => words::flags(rest),
            None => (Vec::new(), line.from(line.text.len())),
        };
        let flags = flags.into_iter().map(|piece| self.piece(piece)).collect();
        let rest = rest.trim();
        let args = match keyword.text.to_ascii_uppercase().as_str() {
            "ADD" | "COPY" | "VOLUME" => match self.json(rest)? {
                Some(args) => args,
                None => self.blank_separated(rest),
            },
            "CMD" | "ENTRYPOINT" | "RUN" | "SHELL" => self.maybe_json(rest)?,
            "EXPOSE" | "FROM" => self.blank_separated(rest),
            "ARG" => self.declarations(rest),
            name @ ("ENV" | "LABEL") => self.pairs(rest, name)?,
            "HEALTHCHECK" => self.health(rest)?,
            "MAINTAINER" | "STOPSIGNAL" | "USER" | "WORKDIR" => self.text(rest),
            "ONBUILD" if rest.text.is_empty() => Args::None,
            // An ONBUILD in an ONBUILD is refused later; how it goes on does not matter, and must not cost stack.
            "ONBUILD" if depth == 0 => Args::Sub(Box::new(self.node(rest, depth + 1)?)),
            _ => Args::Unknown,
        };
        let span = if depth == 0 { self.span } else { self.range(line) };
        Ok(Node {
            keyword,
            flags,
            args,
            heredocs: Vec::new(),
            original,
            span,
            comments: Vec::new(),
        })
    }

    fn range(&self, slice: Slice<'_>) -> Span {
        self.joined
            .span(self.source, slice.at, slice.at + slice.text.len())
    }

    fn word(&self, slice: Slice<'_>) -> Word {
        Word {
            text: slice.text.to_owned(),
            span: self.range(slice),
        }
    }

    fn piece(&self, piece: Piece) -> Word {
        Word {
            text: piece.text,
            span: self.joined.span(self.source, piece.start, piece.end),
        }
    }

    fn declarations(&self, rest: Slice<'_>) -> Args {
        let words = words::shell_words(rest, self.escape);
        if words.is_empty() {
            return Args::None;
        }
        let declarations = words.into_iter().map(|word| match word.text.find('=') {
            None => Declaration {
                name: self.piece(word),
                default: None,
            },
            Some(at) => {
                let (name, default) = self.split(&word, at);
                Declaration {
                    name,
                    default: Some(default),
                }
            }
        });
        Args::Declarations(declarations.collect())
    }

    /// Splits a word at its `=`. Up to there word and line are the same: only an escape at the very end is dropped.
    fn split(&self, word: &Piece, at: usize) -> (Word, Word) {
        let middle = word.start + at;
        let span = |start, end| self.joined.span(self.source, start, end);
        let name = Word {
            text: word.text[..at].to_owned(),
            span: span(word.start, middle),
        };
        let value = Word {
            text: word.text[at + 1..].to_owned(),
            span: span(middle + 1, word.end),
        };
        (name, value)
    }

    fn text(&self, rest: Slice<'_>) -> Args {
        if rest.text.is_empty() {
            Args::None
        } else {
            Args::Text(self.word(rest))
        }
    }

    fn blank_separated(&self, rest: Slice<'_>) -> Args {
        if rest.text.is_empty() {
            return Args::None;
        }
        Args::Words(
            rest.split_blanks()
                .into_iter()
                .map(|word| self.word(word))
                .collect(),
        )
    }

    fn maybe_json(&self, rest: Slice<'_>) -> Result<Args, Diagnostic> {
        Ok(self.json(rest)?.unwrap_or_else(|| self.text(rest)))
    }

    /// A JSON array, if it is one. An array of other things than strings is a mistake, not shell text.
    fn json(&self, rest: Slice<'_>) -> Result<Option<Args>, Diagnostic> {
        if !rest.text.starts_with('[') {
            return Ok(None);
        }
        let Ok(values) = serde_json::from_str::<Vec<Value>>(rest.text) else {
            return Ok(None);
        };
        let mut strings = Vec::with_capacity(values.len());
        for value in values {
            let Value::String(string) = value else {
                let message = "when using JSON array syntax, arrays must be comprised of strings only";
                return Err(Diagnostic::error("json-array", message)
                    .focus(self.range(rest))
                    .advise(format!("write {value} as a string in double quotes")));
            };
            strings.push(string);
        }
        Ok(Some(Args::Json {
            strings,
            span: self.range(rest),
        }))
    }

    fn pairs(&self, rest: Slice<'_>, name: &str) -> Result<Args, Diagnostic> {
        let words = words::shell_words(rest, self.escape);
        let Some(first) = words.first() else {
            return Ok(Args::None);
        };
        if !first.text.contains('=') {
            // The old form: one name, and the rest of the line is its value.
            let (key, value) = rest.split_blank();
            let Some(value) = value else {
                return Err(
                    Diagnostic::error("key-value", format!("{name} must have two arguments"))
                        .focus(self.range(rest))
                        .advise(format!(
                            "write {name} {0}=value, or {name} {0}= for an empty value",
                            key.text
                        )),
                );
            };
            let pair = KeyValue {
                key: self.word(key),
                value: self.word(value),
                legacy: true,
            };
            return Ok(Args::Pairs(vec![pair]));
        }
        let mut pairs = Vec::with_capacity(words.len());
        for word in words {
            let Some(at) = word.text.find('=') else {
                let message = format!(
                    "Syntax error - can't find = in {:?}. Must be of the form: name=value",
                    word.text
                );
                return Err(Diagnostic::error("key-value", message)
                    .focus(self.joined.span(self.source, word.start, word.end))
                    .advise("put a value that holds blanks into double quotes: name=\"two words\""));
            };
            let (key, value) = self.split(&word, at);
            pairs.push(KeyValue {
                key,
                value,
                legacy: false,
            });
        }
        Ok(Args::Pairs(pairs))
    }

    fn health(&self, rest: Slice<'_>) -> Result<Args, Diagnostic> {
        if rest.text.is_empty() {
            return Ok(Args::None);
        }
        let end = rest
            .text
            .find(|c: char| c.is_ascii_whitespace())
            .unwrap_or(rest.text.len());
        let command = Box::new(self.maybe_json(rest.from(end).trim_start())?);
        Ok(Args::Health {
            kind: self.word(rest.to(end)),
            command,
        })
    }
}
