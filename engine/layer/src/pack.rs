//! Overlay upper directory → layer stream, in one pass.
//!
//! ```text
//!   this thread                              worker thread
//!   walk ─▶ tar ─▶ sha256 (diff id) ─ 1 MiB buffers, at most 4 ─▶ compress ─▶ sha256 (digest) ─▶ sink
//! ```

use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
};

use crate::{Compression, Digest, Error};

mod lower;
mod pipeline;
mod walk;

pub(crate) use lower::LowerDir;
pub(crate) use pipeline::{Pipeline, Through};
pub(crate) use walk::{TreeKind, Walker};

/// What lies below the upper directory. With it known, a layer holds only what really differs, as BuildKit's does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Lower<'a> {
    /// Not known: everything in the upper directory is written; an opaque directory becomes a `.wh..wh..opq`.
    #[default]
    Unknown,
    /// Nothing: the first layer of an image.
    Empty,
    /// One directory that shows the merged lower layers.
    Merged(&'a Path),
    /// The lower layers in overlay format, the topmost first (the order of overlayfs' `lowerdir`).
    Stack(&'a [PathBuf]),
}

/// How to pack.
#[derive(Debug, Clone, Copy)]
pub struct PackOptions<'a> {
    /// Compression of the layer.
    pub compression: Compression,
    /// Use Docker's media types and not OCI's.
    pub docker_media_types: bool,
    /// Threads that compress; the bytes do not depend on it. 0 asks for as many as there are cores.
    pub threads: usize,
    /// No modification time is written that is later than this (seconds since 1970): `rewrite-timestamp` with
    /// SOURCE_DATE_EPOCH.
    pub clamp_mtime: Option<i64>,
    /// What lies below.
    pub lower: Lower<'a>,
}

impl Default for PackOptions<'_> {
    fn default() -> Self {
        Self {
            compression: Compression::GZIP,
            docker_media_types: false,
            threads: 0,
            clamp_mtime: None,
            lower: Lower::Unknown,
        }
    }
}

/// A layer that was written.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PackedLayer {
    /// Digest of the uncompressed tar, for the config's `rootfs.diff_ids`.
    pub diff_id: Digest,
    /// Digest of the bytes as written, for the manifest.
    pub digest: Digest,
    /// Number of bytes written.
    pub size: u64,
    /// Media type for the manifest.
    pub media_type: String,
    /// Length of the uncompressed tar in bytes.
    pub uncompressed_size: u64,
    /// Entries in the archive; 0 for a step that changed nothing.
    pub entries: u64,
}

/// Writes the changes that an overlay's upper directory holds as a layer to `sink`, and gives the sink back.
///
/// Character devices 0:0 (and files with `user.overlay.whiteout`) become whiteouts. A directory that hides its lower
/// one becomes a `.wh..wh..opq`, or, when `lower` is known, one whiteout for each entry that it hides. Entries come
/// sorted by name, parents first; a directory that did not change itself is written only when something below it was.
/// Times are whole seconds. Sockets are left out, as they mean nothing in an image.
///
/// The overlay must have been mounted with `redirect_dir` and `metacopy` off (`userxattr` implies it).
///
/// # Errors
/// [`Error::Entry`] and [`Error::Changed`] when the tree cannot be read, [`Error::OverlayFeature`] when it was written
/// with other overlay features, [`Error::Sink`] when `sink` fails.
pub fn pack<W: Write + Send>(
    upper: &Path,
    sink: W,
    options: &PackOptions<'_>,
) -> Result<(PackedLayer, W), Error> {
    let lower = lower::LowerDir::open(options.lower)?;
    let through = Through {
        compression: options.compression,
        threads: options.threads,
    };
    let (entries, done, sink) = Pipeline::run(sink, through, |tar| {
        let mut walker = Walker::new(tar, options.clamp_mtime, TreeKind::Upper);
        walker.walk(upper, lower.as_ref())?;
        walker.finish()
    })?;
    let layer = PackedLayer {
        diff_id: done.diff_id,
        digest: done.digest,
        size: done.size,
        media_type: crate::media_type(options.compression, options.docker_media_types).to_owned(),
        uncompressed_size: done.uncompressed_size,
        entries,
    };
    Ok((layer, sink))
}

/// Reads a layer of any compression and writes it to `sink` with another; the tar inside is not touched, so the diff id
/// stays. `entries` of the result is 0, because nobody looked.
///
/// # Errors
/// [`Error::Source`] when the layer cannot be read or decompressed, [`Error::Sink`] when `sink` fails.
pub fn recompress<R: Read, W: Write + Send>(
    layer: R,
    sink: W,
    compression: Compression,
    docker_media_types: bool,
    threads: usize,
) -> Result<(PackedLayer, W), Error> {
    let mut plain =
        crate::compress::Decompressor::new(crate::compress::WholeHead::new(layer)).map_err(Error::Source)?;
    let ((), done, sink) = Pipeline::run(sink, Through { compression, threads }, |tar| {
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let n = plain.read(&mut buffer).map_err(Error::Source)?;
            if n == 0 {
                return Ok(());
            }
            tar.write_all(&buffer[..n])?;
        }
    })?;
    let layer = PackedLayer {
        diff_id: done.diff_id,
        digest: done.digest,
        size: done.size,
        media_type: crate::media_type(compression, docker_media_types).to_owned(),
        uncompressed_size: done.uncompressed_size,
        entries: 0,
    };
    Ok((layer, sink))
}
