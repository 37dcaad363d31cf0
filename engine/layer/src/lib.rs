//! Overlay directories to layer archives and back.
//!
//! ```text
//!   upper/ (kernel overlayfs, userxattr)            OCI layer
//!   ├── etc/            unchanged ─┐                 etc/
//!   │   └── conf        changed    ├── pack ──▶      etc/conf                 ──▶ sha256 = diff_id
//!   ├── gone  c 0:0     deleted   ─┘                 .wh.gone                 ──▶ gzip | zstd ──▶ sha256 = digest
//!   └── ...
//!
//!   layer stream ── sniff ── decompress ── verify ── unpack ──▶  directory in overlay format (or applied in place)
//! ```
//!
//! * [`pack`] writes what an overlay's upper directory says as one layer, in a single pass.
//! * [`unpack`] is its inverse: a layer becomes a directory that overlayfs can take as a lower one.
//! * [`export_tar`] and [`export_dir`] give the merged root filesystem away.
//! * [`recompress`] changes a layer's compression and nothing else.
//!
//! Every read and write below a directory goes through a descriptor of that directory, so no name in an archive can
//! lead outside. This crate mounts nothing, starts no process, speaks to no network and knows no registry; what a
//! step changed is read from the upper directory that `slipway-sandbox` mounted.

mod compress;
mod digest;
mod error;
mod export;
mod overlay;
mod pack;
mod tar;
mod unpack;

pub use compress::{Compression, media_type};
pub use digest::{Digest, HashingReader, HashingWriter};
pub use error::Error;
pub use export::{ExportOptions, Exported, export_dir, export_tar};
pub use pack::{Lower, PackOptions, PackedLayer, pack, recompress};
pub use unpack::{Limits, Mode, UnmappedIds, UnpackOptions, Unpacked, adopt_implied_parents, unpack};
