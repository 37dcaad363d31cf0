//! The build context on its way from the plan pod to the stage pods.
//!
//! ```text
//! plan pod                                   registry                        stage pod
//! files that a step can read ─▶ packs ─▶  artifact: index.json ─────▶  RemoteContext: the index at once,
//!   (small ones together, 4 MiB)                     pack 0 … pack n ┄┄▶  a pack when a file of it is opened
//! ```
//! A pack is the content of its files one behind the other, compressed with zstd, and is addressed by its digest, so that a
//! pack that the registry has is not sent again, and a stage moves only the packs whose files it copies.

mod index;
mod pack;
mod remote;

pub(crate) use index::ContextIndex;
pub(crate) use pack::{Pack, write_packs};
pub(crate) use remote::RemoteContext;

/// Artifact type of a published context.
pub(crate) const ARTIFACT_TYPE: &str = "application/vnd.slipway.context.v1";
/// Media type of the index, the artifact's first layer.
pub(crate) const INDEX_TYPE: &str = "application/vnd.slipway.context.index.v1+json";
/// Media type of a pack.
pub(crate) const PACK_TYPE: &str = "application/vnd.slipway.context.pack.v1+zstd";
