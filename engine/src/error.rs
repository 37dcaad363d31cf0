//! The one error of a build: why, where, and what was said last.

use slipway_dockerfile::{Diagnostic, Severity, Span};
use slipway_plan::protocol::{Failure, FailureReason};
use std::{error::Error as StdError, fmt, io};

/// A failed build. `Display` is the message; [`BuildError::render`] adds place, excerpt and log.
#[derive(Debug)]
pub struct BuildError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    reason: FailureReason,
    message: String,
    stage: Option<String>,
    place: Option<Place>,
    diagnostics: Vec<Diagnostic>,
    text: Option<std::sync::Arc<str>>,
    exit_code: Option<i32>,
    retry_after: Option<u32>,
    log: Vec<String>,
    cancelled: bool,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The instruction that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The Dockerfile's name.
    pub file: String,
    /// The Dockerfile's text, for the excerpt.
    pub source: std::sync::Arc<str>,
    /// Where the instruction stands.
    pub span: Span,
    /// The instruction as written, continuation lines joined.
    pub instruction: String,
}

/// `Result` with [`BuildError`].
pub type Result<T, E = BuildError> = std::result::Result<T, E>;

impl BuildError {
    /// An error of this kind.
    pub fn new(reason: FailureReason, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            reason,
            message: message.into(),
            stage: None,
            place: None,
            diagnostics: Vec::new(),
            text: None,
            exit_code: None,
            retry_after: None,
            log: Vec::new(),
            cancelled: false,
            source: None,
        }))
    }

    /// A file of the context or of another stage that is not there.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(FailureReason::FileNotFound, message)
    }

    /// The Dockerfile of this text cannot be built, as these diagnostics say: it is wrong, or an image that it names cannot
    /// be had. Warnings among them are not part of the message.
    pub fn dockerfile(diagnostics: Vec<Diagnostic>, source: &str) -> Self {
        let errors = || diagnostics.iter().filter(|one| one.severity == Severity::Error);
        let message = errors()
            .map(|one| one.message.clone())
            .collect::<Vec<_>>()
            .join("\n");
        let reason = errors().next().map_or(FailureReason::DockerfileInvalid, |one| {
            slipway_plan::failure_reason(&one.code)
        });
        let mut error = Self::new(reason, message);
        error.0.diagnostics = diagnostics;
        error.0.text = Some(source.into());
        error
    }

    /// Another part of the build failed first; this one was stopped.
    pub fn cancelled() -> Self {
        let mut error = Self::new(FailureReason::Internal, "the build was cancelled");
        error.0.cancelled = true;
        error
    }

    /// An input or output failure while doing `action` (an infinitive: "read /x").
    pub fn io(action: impl fmt::Display, error: io::Error) -> Self {
        let reason = match error.raw_os_error() {
            Some(code) if code == rustix::io::Errno::NOSPC.raw_os_error() => FailureReason::NoSpace,
            _ => FailureReason::Internal,
        };
        Self::new(reason, format!("failed to {action}: {error}")).because(error)
    }

    /// Adds where it happened, unless something deeper has said so.
    #[must_use]
    pub fn at(mut self, stage: &str, place: &Place) -> Self {
        if self.0.place.is_none() && !self.0.cancelled {
            self.0.place = Some(place.clone());
            self.0.stage = Some(stage.to_owned());
        }
        self
    }

    /// Adds the exit code of a step.
    #[must_use]
    pub fn with_exit_code(mut self, code: i32) -> Self {
        self.0.exit_code = Some(code);
        self
    }

    /// Adds for how many seconds a registry asked to be left alone.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: Option<u32>) -> Self {
        self.0.retry_after = seconds.or(self.0.retry_after);
        self
    }

    /// Adds the last lines of the step's log.
    #[must_use]
    pub fn with_log(mut self, log: Vec<String>) -> Self {
        self.0.log = log;
        self
    }

    /// Adds diagnostics that explain it.
    #[must_use]
    pub fn with_diagnostics(mut self, diagnostics: Vec<Diagnostic>) -> Self {
        self.0.diagnostics.extend(diagnostics);
        self
    }

    /// Adds what caused it.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Why, as a stable word.
    pub fn reason(&self) -> FailureReason {
        self.0.reason
    }

    /// What happened, without the place.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Whether it only stopped because something else failed.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled
    }

    /// The place, if an instruction failed.
    pub fn place(&self) -> Option<&Place> {
        self.0.place.as_ref()
    }

    /// The stage that failed.
    pub fn stage(&self) -> Option<&str> {
        self.0.stage.as_deref()
    }

    /// The exit code of the step that failed.
    pub fn exit_code(&self) -> Option<i32> {
        self.0.exit_code
    }

    /// For how many seconds a registry asked to be left alone.
    pub fn retry_after(&self) -> Option<u32> {
        self.0.retry_after
    }

    /// Diagnostics of the Dockerfile.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.0.diagnostics
    }

    /// The last lines of the failed step's log.
    pub fn log(&self) -> &[String] {
        &self.0.log
    }

    /// For people: log, excerpt with the lines marked, message.
    pub fn render(&self) -> String {
        use fmt::Write as _;
        let mut text = String::new();
        if !self.0.log.is_empty() {
            let _ = writeln!(text, "------");
            for line in &self.0.log {
                let _ = writeln!(text, " > {line}");
            }
            let _ = writeln!(text, "------");
        }
        if let Some(place) = &self.0.place {
            text.push_str(&place.excerpt());
        }
        let errors = || {
            self.0
                .diagnostics
                .iter()
                .filter(|one| one.severity == Severity::Error)
        };
        for (diagnostic, source) in errors().zip(self.0.text.iter().cycle()) {
            if let Some(span) = diagnostic.span {
                let place = Place {
                    file: diagnostic.file.clone(),
                    source: source.clone(),
                    span,
                    instruction: String::new(),
                };
                text.push_str(&place.excerpt());
            }
        }
        let _ = write!(text, "error: {}", self.0.message);
        for advice in errors().flat_map(|one| &one.advice) {
            let _ = write!(text, "\n  help: {advice}");
        }
        for url in errors().filter_map(|one| one.url.as_ref()) {
            let _ = write!(text, "\n  see: {url}");
        }
        text
    }

    /// The form for an ImageBuild's status.
    pub fn to_failure(&self) -> Failure {
        let diagnostic = self.0.diagnostics.iter().find(|one| one.span.is_some());
        let (file, line, instruction) = match (&self.0.place, diagnostic) {
            (Some(place), _) => (
                Some(place.file.clone()),
                Some(place.span.first_line),
                Some(shorten(&place.instruction, 200)),
            ),
            (None, Some(one)) => (Some(one.file.clone()), one.span.map(|span| span.first_line), None),
            (None, None) => (None, None, None),
        };
        Failure {
            reason: self.0.reason,
            message: self.0.message.clone(),
            stage: self.0.stage.clone(),
            file,
            line,
            instruction,
            exit_code: self.0.exit_code,
            log: self.0.log.iter().flat_map(|line| [line.as_str(), "\n"]).collect(),
            retry_after: self.0.retry_after,
        }
    }
}

impl Place {
    /// The instruction's lines, marked, with two lines around them.
    pub fn excerpt(&self) -> String {
        use fmt::Write as _;
        let (first, last) = (self.span.first_line, self.span.last_line);
        let mut text = format!("{}:{first}\n", self.file);
        for (number, line) in (1_u32..).zip(self.source.lines()) {
            if number + 2 < first || number > last + 2 {
                continue;
            }
            let mark = if (first..=last).contains(&number) {
                ">>>"
            } else {
                "   "
            };
            let _ = writeln!(text, "{number:4} | {mark} {line}");
        }
        text
    }
}

fn shorten(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(limit)])
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl StdError for BuildError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|error| error as _)
    }
}

impl From<slipway_registry::Error> for BuildError {
    fn from(error: slipway_registry::Error) -> Self {
        use slipway_registry::Class;
        let reason = match error.class() {
            Class::Unreachable | Class::Tls => FailureReason::RegistryUnreachable,
            Class::Unauthorized | Class::Denied => FailureReason::RegistryUnauthorized,
            Class::NotFound => FailureReason::ImageNotFound,
            Class::RateLimited => FailureReason::RegistryRateLimited,
            Class::Local => FailureReason::Internal,
            _ => FailureReason::RegistryError,
        };
        let wait = error
            .retry_after()
            .map(|wait| u32::try_from(wait.as_secs()).unwrap_or(u32::MAX));
        Self::new(reason, error.to_string())
            .with_retry_after(wait)
            .because(error)
    }
}

impl From<slipway_layer::Error> for BuildError {
    fn from(error: slipway_layer::Error) -> Self {
        let mut text = error.to_string();
        let mut full = false;
        let mut cause: Option<&dyn StdError> = error.source();
        while let Some(inner) = cause {
            text.push_str(": ");
            text.push_str(&inner.to_string());
            full |= inner
                .downcast_ref::<io::Error>()
                .is_some_and(|io| io.kind() == io::ErrorKind::StorageFull);
            cause = inner.source();
        }
        Self::new(
            if full {
                FailureReason::NoSpace
            } else {
                FailureReason::Internal
            },
            text,
        )
        .because(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_marks_the_lines_of_the_instruction() {
        let place = Place {
            file: "Dockerfile".into(),
            source: "FROM x\nENV a=b\nRUN a \\\n  b\nENV c=d\nENV e=f\nENV g=h\n".into(),
            span: Span {
                first_line: 3,
                last_line: 4,
                start: 0,
                end: 0,
            },
            instruction: "RUN a b".into(),
        };
        let excerpt = place.excerpt();
        assert!(excerpt.contains("   3 | >>> RUN a"), "{excerpt}");
        assert!(excerpt.contains("   4 | >>>   b"), "{excerpt}");
        assert!(
            excerpt.contains("   5 |     ENV c=d") && !excerpt.contains("g=h"),
            "{excerpt}"
        );
    }
}
