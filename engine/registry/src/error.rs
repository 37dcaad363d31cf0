//! The one error of this crate: what was being done, where, what the registry said, and what to do about it.
//!
//! Nothing here may hold a secret: URLs are stored without their query (uploads and redirects carry signatures there)
//! and every text that came from the network is passed through [`crate::secret::Secret::redact`] by its caller.

use std::{error::Error as StdError, fmt, time::Duration};

use oci_client::errors::{OciEnvelope, OciErrorCode};

/// The kinds of failure a caller can act upon. `as_str` gives the stable word for conditions, events and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
    /// No connection: refused, name not found, timed out, cut off more often than the retries allow.
    Unreachable,
    /// No credentials, or the registry (or its token service) does not accept them.
    Unauthorized,
    /// Credentials were accepted but do not allow this.
    Denied,
    /// The manifest, blob, tag, repository or platform does not exist there.
    NotFound,
    /// Too many requests, still so after waiting as the registry asked.
    RateLimited,
    /// Bytes do not have the digest or the size they were promised to have.
    DigestMismatch,
    /// More bytes than this client or the registry takes.
    TooLarge,
    /// The registry (or this client) does not do that.
    Unsupported,
    /// The registry failed by itself (5xx), still so after retries.
    Server,
    /// The certificate or the TLS handshake was not acceptable.
    Tls,
    /// The answer is not what the distribution specification says.
    InvalidResponse,
    /// The request itself was refused as wrong, or a setting of ours is wrong (a broken docker config, a bad CA).
    Invalid,
    /// Reading or writing a local file or stream failed.
    Local,
}

impl Class {
    /// The stable name, as used in condition reasons and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "Unreachable",
            Self::Unauthorized => "Unauthorized",
            Self::Denied => "Denied",
            Self::NotFound => "NotFound",
            Self::RateLimited => "RateLimited",
            Self::DigestMismatch => "DigestMismatch",
            Self::TooLarge => "TooLarge",
            Self::Unsupported => "Unsupported",
            Self::Server => "Server",
            Self::Tls => "Tls",
            Self::InvalidResponse => "InvalidResponse",
            Self::Invalid => "Invalid",
            Self::Local => "Local",
        }
    }

    /// Whether the same call may succeed later without anybody changing anything.
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::Unreachable | Self::RateLimited | Self::Server)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One entry of a registry's `{"errors": [...]}` answer (distribution specification, "Error codes").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryMessage {
    /// The code as sent, for instance `MANIFEST_UNKNOWN`.
    pub code: String,
    /// The text as sent; may be empty.
    pub message: String,
}

/// A failed call. `Display` is one line that can be shown to a user as it is.
pub struct Error(Box<Inner>);

struct Inner {
    class: Class,
    action: String,
    registry: String,
    repository: Option<String>,
    reason: String,
    status: Option<u16>,
    messages: Vec<RegistryMessage>,
    advice: Option<String>,
    retry_after: Option<Duration>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `class` with the plain `reason`; the rest is filled in by the `with_` methods on the way up.
    pub(crate) fn new(class: Class, reason: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            class,
            action: String::new(),
            registry: String::new(),
            repository: None,
            reason: reason.into(),
            status: None,
            messages: Vec::new(),
            advice: None,
            retry_after: None,
            source: None,
        }))
    }

    /// What was being done, as an infinitive: "read manifest 1.4". Kept if an inner call has already said it.
    pub(crate) fn doing(mut self, action: impl Into<String>) -> Self {
        if self.0.action.is_empty() {
            self.0.action = action.into();
        }
        self
    }

    /// Replaces what was being done by the larger thing that failed with it.
    pub(crate) fn while_doing(mut self, action: impl Into<String>) -> Self {
        self.0.action = action.into();
        self
    }

    /// The registry as the user writes it, and the repository in it.
    pub(crate) fn at(mut self, registry: &str, repository: Option<&str>) -> Self {
        if self.0.registry.is_empty() {
            registry.clone_into(&mut self.0.registry);
            self.0.repository = repository.map(ToOwned::to_owned);
        }
        self
    }

    pub(crate) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.0.advice = Some(advice.into());
        self
    }

    pub(crate) fn advise_if_none(mut self, advice: impl FnOnce() -> String) -> Self {
        if self.0.advice.is_none() {
            self.0.advice = Some(advice());
        }
        self
    }

    pub(crate) fn answered(mut self, status: u16, messages: Vec<RegistryMessage>) -> Self {
        self.0.status = Some(status);
        self.0.messages = messages;
        self
    }

    pub(crate) fn after(mut self, wait: Option<Duration>) -> Self {
        self.0.retry_after = wait;
        self
    }

    pub(crate) fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Notes that this is the last of several failures.
    pub(crate) fn after_tries(mut self, tries: u32) -> Self {
        self.0.reason = format!("{} ({tries} tries)", self.0.reason);
        self
    }

    pub(crate) fn reclassify(mut self, class: Class) -> Self {
        self.0.class = class;
        self
    }

    /// The kind of failure.
    pub fn class(&self) -> Class {
        self.0.class
    }

    /// The registry's host (and port) as it stands in references; empty for an error of local settings.
    pub fn registry(&self) -> &str {
        &self.0.registry
    }

    /// The repository's path within the registry, where the failure belongs to one.
    pub fn repository(&self) -> Option<&str> {
        self.0.repository.as_deref()
    }

    /// The HTTP status, if there was an answer.
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// What the registry itself said, entry by entry.
    pub fn messages(&self) -> &[RegistryMessage] {
        &self.0.messages
    }

    /// What the user can do about it.
    pub fn advice(&self) -> Option<&str> {
        self.0.advice.as_deref()
    }

    /// How long the registry asked to be left alone (429 and 503 with `Retry-After`).
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        self.0.class.is_transient()
    }

    /// Shorthand for `class() == Class::NotFound`.
    pub fn is_not_found(&self) -> bool {
        self.0.class == Class::NotFound
    }

    pub(crate) fn has_code(&self, code: &str) -> bool {
        self.0
            .messages
            .iter()
            .any(|message| message.code.eq_ignore_ascii_case(code))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            action,
            registry,
            repository,
            reason,
            messages,
            advice,
            source,
            ..
        } = &*self.0;
        if !action.is_empty() {
            write!(f, "cannot {action}")?;
            match (registry.is_empty(), repository) {
                (false, Some(repository)) => write!(f, " in {registry}/{repository}")?,
                (false, None) => write!(f, " at {registry}")?,
                (true, _) => {}
            }
            f.write_str(": ")?;
        }
        f.write_str(reason)?;
        if !messages.is_empty() {
            f.write_str(" (")?;
            for (index, RegistryMessage { code, message }) in messages.iter().enumerate() {
                if index > 0 {
                    f.write_str("; ")?;
                }
                f.write_str(code)?;
                if !message.is_empty() {
                    write!(f, ": {message}")?;
                }
            }
            f.write_str(")")?;
        }
        // Only the innermost cause says something new; the layers between it and us repeat the URL and "error sending".
        if let Some(source) = source {
            let mut root: &dyn StdError = &**source;
            while let Some(next) = root.source() {
                root = next;
            }
            let root = root.to_string();
            if !reason.contains(&root) {
                write!(f, ": {root}")?;
            }
        }
        if let Some(advice) = advice {
            write!(f, "; {advice}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("class", &self.0.class)
            .field("status", &self.0.status)
            .field("text", &self.to_string())
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

impl From<Error> for std::io::Error {
    /// For the `AsyncRead` and `Write` faces of this crate; [`Error::from_io`] gets it back.
    fn from(error: Error) -> Self {
        let kind = match error.class() {
            Class::NotFound => std::io::ErrorKind::NotFound,
            Class::Denied | Class::Unauthorized => std::io::ErrorKind::PermissionDenied,
            Class::DigestMismatch | Class::InvalidResponse => std::io::ErrorKind::InvalidData,
            _ => std::io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

impl Error {
    /// The registry error inside an `io::Error` that came out of this crate's readers or writers, or the `io::Error`
    /// itself as [`Class::Local`].
    pub fn from_io(error: std::io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(own) => own,
            Err(error) => Self::new(Class::Local, error.to_string()).because(error),
        }
    }
}

/// Reads the registry's error body, whatever it is: the specified JSON, another JSON or a page of a proxy.
///
/// Returns the entries, or a short plain excerpt when the body is something else.
pub(crate) fn parse_body(body: &[u8]) -> (Vec<RegistryMessage>, Option<String>) {
    if let Ok(envelope) = serde_json::from_slice::<OciEnvelope>(body) {
        let messages = envelope.errors.into_iter().map(|error| RegistryMessage {
            code: code_name(&error.code),
            // `detail` often has the real reason (Docker Hub's limits, Harbor's policies) when it is a plain text.
            message: match (error.message.trim(), error.detail.as_str()) {
                ("", Some(detail)) => clip(detail),
                (message, Some(detail)) if !detail.is_empty() && detail != message => {
                    clip(&format!("{message}: {detail}"))
                }
                (message, _) => clip(message),
            },
        });
        return (messages.take(5).collect(), None);
    }
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    // A proxy's HTML page says nothing that its status does not.
    if text.is_empty() || text.starts_with('<') {
        return (Vec::new(), None);
    }
    (Vec::new(), Some(clip(text)))
}

fn code_name(code: &OciErrorCode) -> String {
    match serde_json::to_value(code) {
        Ok(serde_json::Value::String(name)) => name,
        _ => format!("{code:?}"),
    }
}

/// One line of at most 300 characters, without control characters: it goes into terminals and Kubernetes conditions.
pub(crate) fn clip(text: &str) -> String {
    let mut out: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(300)
        .collect();
    if text.chars().nth(300).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_as_one_sentence_with_place_reason_and_advice() {
        let (messages, _) =
            parse_body(br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#);
        let error = Error::new(Class::NotFound, "the registry answered 404")
            .doing("read manifest 1.4")
            .at("registry.example.com", Some("shop/web"))
            .answered(404, messages)
            .advise("check the tag");
        assert_eq!(
            error.to_string(),
            "cannot read manifest 1.4 in registry.example.com/shop/web: the registry answered 404 \
             (MANIFEST_UNKNOWN: manifest unknown); check the tag"
        );
        assert_eq!(error.class().as_str(), "NotFound");
    }

    #[test]
    fn bodies_of_all_sorts_become_something_readable() {
        type Case = (
            &'static str,
            &'static [(&'static str, &'static str)],
            Option<&'static str>,
        );
        let cases: &[Case] = &[
            (r#"{"errors":[{"code":"DENIED"}]}"#, &[("DENIED", "")], None),
            (
                r#"{"errors":[{"code":"ARTIFACT_LOCKED","message":"locked"}]}"#,
                &[("ARTIFACT_LOCKED", "locked")],
                None,
            ),
            (
                r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"limit","detail":"come back at noon"}]}"#,
                &[("TOOMANYREQUESTS", "limit: come back at noon")],
                None,
            ),
            (
                r#"{"errors":[{"code":"DENIED","message":"no","detail":{"a":1}}]}"#,
                &[("DENIED", "no")],
                None,
            ),
            ("<html>502</html>", &[], None),
            ("", &[], None),
            ("upstream\nfailed", &[], Some("upstream failed")),
        ];
        for (body, messages, text) in cases {
            let (got, excerpt) = parse_body(body.as_bytes());
            let got: Vec<_> = got
                .iter()
                .map(|m| (m.code.as_str(), m.message.as_str()))
                .collect();
            assert_eq!((&got[..], excerpt.as_deref()), (*messages, *text), "{body}");
        }
    }

    #[test]
    fn a_registry_error_survives_the_way_through_io_error() {
        let io: std::io::Error = Error::new(Class::DigestMismatch, "wrong bytes").into();
        assert_eq!(io.kind(), std::io::ErrorKind::InvalidData);
        assert_eq!(Error::from_io(io).class(), Class::DigestMismatch);
        assert_eq!(
            Error::from_io(std::io::Error::other("disk")).class(),
            Class::Local
        );
    }
}
