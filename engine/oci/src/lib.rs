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
pub use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
pub use platform::{Platform, PlatformError};
pub use reference::{Reference, ReferenceError};

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
