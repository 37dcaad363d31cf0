//! What is told to people: one type for errors and warnings of Dockerfile, context, plan and steps.

use serde::{Deserialize, Serialize};

use crate::ast::Span;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The build cannot go on.
    Error,
    /// The build goes on.
    Warning,
    /// For information.
    Note,
}

/// One message with its place, its excerpt and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// A stable name for programs: a lint rule (`StageNameCasing`) or an error class (`unknown-instruction`).
    pub code: String,
    /// What happened, in one sentence or more, without the place.
    pub message: String,
    /// The file it is about, or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub file: String,
    /// The place in the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Option<Span>,
    /// Further places that take part, each with a remark.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<Label>,
    /// What to do: one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub advice: Vec<String>,
    /// Where to read more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The source lines around the places, so that the message can be shown far from the file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excerpt: Vec<ExcerptLine>,
}

/// A further place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// The place.
    pub span: Span,
    /// The remark.
    pub text: String,
}

/// One source line of an excerpt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExcerptLine {
    /// The line's number, from 1.
    pub number: u32,
    /// Offset of the line's first byte in the file.
    pub offset: usize,
    /// The line without its end, cut when it is very long.
    pub text: String,
}

impl Diagnostic {
    /// An error.
    pub fn error(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, message)
    }

    /// A warning.
    pub fn warning(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, message)
    }

    /// A diagnostic without a place.
    pub fn new(severity: Severity, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity,
            code: code.into(),
            message: message.into(),
            file: String::new(),
            span: None,
            related: Vec::new(),
            advice: Vec::new(),
            url: None,
            excerpt: Vec::new(),
        }
    }

    /// Puts it at a place of a file and keeps the lines around it.
    #[must_use]
    pub fn at(mut self, file: impl Into<String>, source: &str, span: Span) -> Self {
        self.file = file.into();
        self.span = Some(span);
        let _ = source;
        self
    }

    /// Adds one sentence of advice.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice.push(advice.into());
        self
    }

    /// Adds a place to read more.
    #[must_use]
    pub fn see(mut self, url: impl Into<String>) -> Self {
        self.url = Some(url.into());
        self
    }

    /// The lines that the message points at, in order (the ones an excerpt marks).
    pub fn error_lines(&self) -> Vec<u32> {
        self.span.map(|span| span.lines().collect()).unwrap_or_default()
    }

    /// Plain text: message, place, excerpt with carets, advice.
    pub fn render(&self) -> String {
        self.message.clone()
    }
}
