//! Names of images, normalised as Docker does: the registry, `library/` and the tag are always there.

use crate::{Digest, serde_as_string};
use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
};

/// The name of an image or artifact in a registry: `registry/repository[:tag][@digest]`, with at least one of the two.
///
/// ```
/// let debian: slipway_oci::Reference = "debian".parse().unwrap();
/// assert_eq!(debian.to_string(), "docker.io/library/debian:latest");
/// assert_eq!(debian.familiar(), "debian:latest");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Reference {
    name: oci_spec::distribution::Reference,
    digest: Option<Digest>,
}

/// Why a text is no [`Reference`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// It has the wrong form.
    #[error("invalid reference format: {text:?}: {reason}")]
    Form {
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Its repository has upper-case letters.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    UpperCase(String),
    /// It is the bare id of an image of some Docker daemon.
    #[error("{0:?} is an image id of a Docker daemon, not a name in a registry; write repository@sha256:{0}")]
    ImageId(String),
}

impl Reference {
    /// `docker.io`, `registry.example.com:5000`.
    pub fn registry(&self) -> &str {
        self.name.registry()
    }

    /// `library/debian`.
    pub fn repository(&self) -> &str {
        self.name.repository()
    }

    /// The tag, if any.
    pub fn tag(&self) -> Option<&str> {
        self.name.tag()
    }

    /// The digest, if any. It wins over the tag wherever both are given.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same repository under another tag, without a digest.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        format!("{}:{tag}", self.without_tag_and_digest()).parse()
    }

    /// The same image pinned to `digest`; a tag stays, to tell people where it came from.
    #[must_use]
    pub fn with_digest(&self, digest: &Digest) -> Self {
        let (registry, repository) = (self.registry().to_owned(), self.repository().to_owned());
        let name = match self.tag() {
            Some(tag) => oci_spec::distribution::Reference::with_tag_and_digest(
                registry,
                repository,
                tag.to_owned(),
                digest.to_string(),
            ),
            None => oci_spec::distribution::Reference::with_digest(registry, repository, digest.to_string()),
        };
        Self {
            name,
            digest: Some(digest.clone()),
        }
    }

    /// Registry and repository: `docker.io/library/debian`.
    pub fn without_tag_and_digest(&self) -> String {
        format!("{}/{}", self.registry(), self.repository())
    }

    /// As people write it: without `docker.io/` and `library/`.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        match full.strip_prefix("docker.io/") {
            Some(rest) => rest.strip_prefix("library/").unwrap_or(rest).to_owned(),
            None => full,
        }
    }

    /// What goes into the path of a manifest request: the digest, else the tag.
    pub fn manifest_name(&self) -> &str {
        self.digest
            .as_ref()
            .map_or_else(|| self.tag().unwrap_or("latest"), Digest::as_str)
    }

    /// The same name as oci-spec's type, which oci-client takes.
    pub fn as_oci(&self) -> &oci_spec::distribution::Reference {
        &self.name
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let form = |reason: String| ReferenceError::Form {
            text: text.to_owned(),
            reason,
        };
        if text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ReferenceError::ImageId(text.to_owned()));
        }
        // What comes before the first slash is a registry if it has a dot, a port or an upper-case letter, or is
        // `localhost`. The upper-case rule is missing from oci-spec.
        let (head, rest) = text.split_once('/').unwrap_or(("", text));
        let is_host = head.contains(['.', ':'])
            || head == "localhost"
            || head.bytes().any(|byte| byte.is_ascii_uppercase());
        let path = if is_host { rest } else { text };
        let path = path.split('@').next().unwrap_or_default();
        let path = match path.rsplit_once(':') {
            Some((before, tag)) if !tag.contains('/') => before,
            _ => path,
        };
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(ReferenceError::UpperCase(path.to_owned()));
        }
        let parsed: oci_spec::distribution::Reference = text
            .parse()
            .map_err(|error: oci_spec::distribution::ParseError| form(error.to_string()))?;
        let digest = match parsed.digest() {
            Some(digest) => Some(
                digest
                    .parse::<Digest>()
                    .map_err(|error| form(error.to_string()))?,
            ),
            None => None,
        };
        Ok(Self { name: parsed, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.name, f)
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.name, f)
    }
}

impl Hash for Reference {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl Ord for Reference {
    fn cmp(&self, other: &Self) -> Ordering {
        let parts = |it: &Self| {
            (
                it.registry().to_owned(),
                it.repository().to_owned(),
                it.tag().map(str::to_owned),
                it.digest.clone(),
            )
        };
        parts(self).cmp(&parts(other))
    }
}

impl PartialOrd for Reference {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

serde_as_string!(Reference);

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_are_normalised_as_docker_does() {
        let pinned = format!("debian:12@{DIGEST}");
        let bare = format!("localhost/a/b@{DIGEST}");
        for (text, canonical, familiar) in [
            ("debian", "docker.io/library/debian:latest", "debian:latest"),
            ("debian:12", "docker.io/library/debian:12", "debian:12"),
            (
                "moby/buildkit",
                "docker.io/moby/buildkit:latest",
                "moby/buildkit:latest",
            ),
            (
                "docker.io/debian",
                "docker.io/library/debian:latest",
                "debian:latest",
            ),
            ("index.docker.io/a/b:c", "docker.io/a/b:c", "a/b:c"),
            ("localhost/a", "localhost/a:latest", "localhost/a:latest"),
            ("localhost:5000/a:b", "localhost:5000/a:b", "localhost:5000/a:b"),
            (
                "registry.slipway.test:5000/a/b",
                "registry.slipway.test:5000/a/b:latest",
                "registry.slipway.test:5000/a/b:latest",
            ),
            (&pinned, &format!("docker.io/library/debian:12@{DIGEST}"), &pinned),
            (&bare, &bare, &bare),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), canonical, "{text}");
            assert_eq!(reference.familiar(), familiar, "{text}");
            assert_eq!(canonical.parse::<Reference>().unwrap(), reference, "{text}");
        }
    }

    #[test]
    fn tag_and_digest_can_be_replaced() {
        let debian: Reference = "debian:12".parse().unwrap();
        let digest: Digest = DIGEST.parse().unwrap();
        let pinned = debian.with_digest(&digest);
        assert_eq!(
            pinned.to_string(),
            format!("docker.io/library/debian:12@{DIGEST}")
        );
        assert_eq!(pinned.manifest_name(), DIGEST);
        assert_eq!(debian.manifest_name(), "12");
        assert_eq!(
            pinned.with_tag("13").unwrap().to_string(),
            "docker.io/library/debian:13"
        );
        assert_eq!(pinned.without_tag_and_digest(), "docker.io/library/debian");
        assert!(debian.with_tag("not a tag").is_err());
    }

    #[test]
    fn what_is_no_name_is_refused_with_a_reason() {
        let sha512 = format!("a@sha512:{}", "0".repeat(128));
        for (text, wanted) in [
            ("", "invalid reference format"),
            ("Debian", "must be lowercase"),
            ("a/B:c", "must be lowercase"),
            ("a b", "invalid reference format"),
            ("a:", "invalid reference format"),
            ("a@sha256:00", "invalid reference format"),
            (&sha512, "sha256"),
            (&"0".repeat(64), "image id"),
        ] {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn json_is_the_canonical_text() {
        let debian: Reference = serde_json::from_str("\"debian\"").unwrap();
        assert_eq!(
            serde_json::to_string(&debian).unwrap(),
            "\"docker.io/library/debian:latest\""
        );
    }
}
