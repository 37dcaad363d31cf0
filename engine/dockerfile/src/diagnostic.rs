//! What is told to people: one type for errors and warnings of Dockerfile, context, plan and steps.

use serde::{Deserialize, Serialize};

use crate::ast::Span;

mod excerpt;
mod render;
#[cfg(test)]
mod tests;

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
    /// The whole instruction (or other thing) that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Option<Span>,
    /// The part of it that the carets point at; the first line of `span` when it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub focus: Option<Span>,
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
    /// Offset in the file of the first byte of `text`.
    pub offset: usize,
    /// How many characters are cut off in front of `text`.
    #[serde(default)]
    pub cut: usize,
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

    /// Adds a further place. To be in the excerpt it has to be added before [`Diagnostic::at`].
    #[must_use]
    pub fn relate(mut self, span: Span, text: impl Into<String>) -> Self {
        self.related.push(Label {
            span,
            text: text.into(),
        });
        self
    }

    /// A diagnostic without a place.
    pub fn new(severity: Severity, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity,
            code: code.into(),
            message: message.into(),
            file: String::new(),
            span: None,
            focus: None,
            related: Vec::new(),
            advice: Vec::new(),
            url: None,
            excerpt: Vec::new(),
        }
    }

    /// Puts it at a place of a file and keeps the lines around it. A focus has to be set before, or lie within the first
    /// lines of the span, to be in the excerpt.
    #[must_use]
    pub fn at(mut self, file: impl Into<String>, source: &str, span: Span) -> Self {
        self.file = file.into();
        self.span = Some(span);
        self.excerpt = excerpt::cut(source, span, self.focus, &self.related);
        self
    }

    /// Points the carets at a part of the span.
    #[must_use]
    pub fn focus(mut self, span: Span) -> Self {
        self.focus = Some(span);
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

    /// Plain text: message, place, excerpt with carets, advice. Control characters of the source are made visible, so the
    /// text is safe to print on a terminal.
    pub fn render(&self) -> String {
        render::render(self)
    }
}

/// One line: `Dockerfile:3: message`.
impl std::fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.file.is_empty() {
            write!(f, "{}:", self.file)?;
            if let Some(span) = self.span {
                write!(f, "{}:", span.first_line)?;
            }
            f.write_str(" ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Diagnostic {}

impl Severity {
    /// As it is shown.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}
