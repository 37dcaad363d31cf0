//! Names and documents of the OCI and Docker image formats.
//!
//! ```text
//! "debian"      ─▶ Reference  docker.io/library/debian:latest
//! "linux/armhf" ─▶ Platform   linux/arm/v7 ── choose ──▶ a Descriptor of an ImageIndex
//! bytes         ─▶ Digest     sha256:…
//! config blob   ⇄  ImageConfig (with what Docker adds to the OCI one)
//! ```
//! Every name is checked and normalised once, when it is parsed; after that it is a value that can be compared. In JSON
//! a name is its string. This room does no input or output, and it knows nothing of builds.

mod config;
mod digest;
pub mod media_type;
mod platform;
mod reference;

pub use config::{ContainerConfig, Healthcheck, History, ImageConfig, RootFs};
pub use digest::{Digest, DigestError};
pub use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, Platform as OciPlatform};
pub use platform::{Platform, PlatformError};
pub use reference::{Reference, ReferenceError};

/// Reads an image's manifest. One without layers is written with `"layers": null` by BuildKit and by us, which the
/// specification's own type refuses.
///
/// # Errors
/// What is not JSON, or no manifest.
pub fn parse_manifest(bytes: &[u8]) -> Result<ImageManifest, serde_json::Error> {
    let mut document: serde_json::Value = serde_json::from_slice(bytes)?;
    if let Some(layers) = document.get_mut("layers").filter(|layers| layers.is_null()) {
        *layers = serde_json::Value::Array(Vec::new());
    }
    serde_json::from_value(document)
}

/// Serde by `Display` and `FromStr`, for the names that are strings in JSON.
macro_rules! serde_as_string {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use serde_as_string;

#[cfg(test)]
mod tests {
    use super::parse_manifest;

    #[test]
    fn a_manifest_may_have_no_layers() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for (layers, count) in [("null", 0), ("[]", 0)] {
            let text = format!(
                r#"{{"schemaVersion": 2, "config": {{"mediaType": "a/b", "digest": "{digest}", "size": 1}}, "layers": {layers}}}"#
            );
            assert_eq!(
                parse_manifest(text.as_bytes())
                    .map(|manifest| manifest.layers().len())
                    .ok(),
                Some(count)
            );
        }
        assert!(parse_manifest(b"{}").is_err());
    }
}
