//! The OCI distribution client: images, blobs and artifacts in and out of any registry.
//!
//! ```text
//!  Config{hosts, credentials, retry} ─▶ Registries ─┬─ repository(&reference) ─▶ Repository ── reads and writes the registry
//!                                                   ├─ mirrored(&reference)   ─▶ Repository ── reads: mirrors first
//!                                                   └─ resolve(&reference, &platform) ─▶ ResolvedImage
//!
//!  Repository ─┬─ manifests: head, get, put, delete, tags, referrers          (bytes in, bytes out, digest checked)
//!              ├─ blobs out: open_blob ─▶ BlobReader: Stream + AsyncRead      (verified while streaming, resumes)
//!              ├─ blobs in:  put_blob (known digest: mount, monolithic)
//!              │             start_upload ─▶ BlobUpload (digest unknown: begins before the layer ends)
//!              ├─ artifacts: put_artifact, get_artifact                       (plans, contexts, schedules)
//!              └─ kept: tag, usage, prune                                     (what Slipway leaves, by age)
//!  every call ─▶ transport: credentials of that path ▸ token ▸ request ▸ retry, Retry-After ▸ redirect
//! ```
//! The wire is spoken here directly, on `reqwest`: oci-client 0.18 can neither drop a refused token, retry, resume, nor
//! hold two credentials for one host. From oci-client come the specification's error envelope and codes; its client is
//! the independent second reader in this room's tests.
//!
//! This room knows nothing of builds and layers, runs no program (except credential helpers when the command line asks
//! for them), and never shows a secret: they live in a type that wipes itself and prints as `[redacted]`.

pub mod artifact;
mod auth;
mod blob;
mod config;
mod copy;
mod credentials;
mod error;
pub mod kept;
mod manifest;
mod referrers;
mod registries;
mod repository;
mod resolve;
mod secret;
mod transport;
mod upload;

pub use artifact::{Artifact, ArtifactLayer, NewArtifact, NewLayer};
pub use blob::BlobReader;
pub use config::{ClientCertificate, Config, HostConfig, Mirror, RetryPolicy, UploadConfig};
pub use copy::copy_image;
pub use credentials::Credentials;
pub use error::{Class, Error, RegistryMessage, Result};
pub use manifest::{Manifest, ManifestInfo, ManifestName, PutManifest};
pub use registries::Registries;
pub use repository::Repository;
pub use resolve::ResolvedImage;
pub use upload::{BlobSource, BlobUpload, BlobWriter, Put, PutOptions, Reopen, UploadedBlob};
