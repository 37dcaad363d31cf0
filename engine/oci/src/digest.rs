//! The name of some bytes: `sha256:` and 64 hex digits.

use crate::serde_as_string;
use sha2::{Digest as _, Sha256};
use std::{fmt, str::FromStr};

const PREFIX: &str = "sha256:";

/// A SHA-256 digest in the form of the OCI image specification ("Digests"). Other algorithms are refused: no registry in
/// use hands them out, and two names for the same bytes would defeat every cache.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(String);

/// Why a text is no [`Digest`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Another algorithm than SHA-256, or none.
    #[error("digest {0:?} does not start with \"sha256:\"; other algorithms are not supported")]
    Algorithm(String),
    /// Not 64 lower-case hex digits.
    #[error("digest {0:?} must have 64 lower-case hex digits after \"sha256:\"")]
    Hex(String),
}

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_sha256(Sha256::digest(bytes).into())
    }

    /// The digest whose 32 raw bytes a hasher has produced.
    pub fn from_sha256(raw: [u8; 32]) -> Self {
        Self(format!("{PREFIX}{}", hex::encode(raw)))
    }

    /// The whole text, `sha256:…`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 64 hex digits.
    pub fn hex(&self) -> &str {
        &self.0[PREFIX.len()..]
    }

    /// The first 12 hex digits, for people.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let hex = text
            .strip_prefix(PREFIX)
            .ok_or_else(|| DigestError::Algorithm(text.to_owned()))?;
        if hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            Ok(Self(text.to_owned()))
        } else {
            Err(DigestError::Hex(text.to_owned()))
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<&oci_spec::image::Digest> for Digest {
    type Error = DigestError;

    fn try_from(digest: &oci_spec::image::Digest) -> Result<Self, DigestError> {
        digest.as_ref().parse()
    }
}

serde_as_string!(Digest);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_nothing_is_the_known_one() {
        let digest = Digest::of(b"");
        assert_eq!(
            digest.as_str(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(digest.short(), "e3b0c44298fc");
        assert_eq!(serde_json::to_string(&digest).unwrap(), format!("\"{digest}\""));
        assert_eq!(
            serde_json::from_str::<Digest>(&format!("\"{digest}\"")).unwrap(),
            digest
        );
    }

    #[test]
    fn what_is_no_sha256_digest_is_refused() {
        let upper = format!("sha256:{}", "A".repeat(64));
        for text in [
            "",
            "sha256",
            "sha256:",
            "sha256:abc",
            "sha512:00",
            "md5:00",
            &upper,
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }
}
