//! Layer stream → directory.
//!
//! ```text
//!   worker thread                                          this thread
//!   source ─▶ sha256 (digest) ─▶ decompress ─ buffers ─▶ sha256 (diff id) ─▶ tar entries ─▶ openat2 below the root
//! ```

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use crate::{Digest, Error, tar};

mod implied;
mod place;
mod stream;

pub use implied::adopt_implied_parents;

/// Into what a layer is unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// An empty directory that overlayfs (mounted with `userxattr`) will take as a lower one: whiteouts become character
    /// devices 0:0, opaque directories get `user.overlay.opaque=y`.
    #[default]
    Overlay,
    /// A directory that holds the layers below already: whiteouts delete.
    Apply,
}

/// What to do with owners that the user namespace does not map.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UnmappedIds {
    /// Fail with [`Error::UnmappedOwner`].
    #[default]
    Fail,
    /// Leave the file to the caller and count it: what an ordinary user with one mapped id can have.
    Squash,
}

/// What an archive may ask for before it is refused as hostile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of an entry's name or link target. Linux itself allows 4096.
    pub name: usize,
    /// Bytes of one extended header (PAX or GNU), which is held in memory.
    pub header: u64,
    /// Number of entries.
    pub entries: u64,
    /// Bytes of the uncompressed stream.
    pub uncompressed: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            name: 4096,
            header: 1 << 20,
            entries: 50_000_000,
            uncompressed: 1 << 44,
        }
    }
}

/// How to unpack.
#[derive(Debug, Clone, Default)]
pub struct UnpackOptions {
    /// What the manifest promises of the bytes.
    pub digest: Option<Digest>,
    /// How many bytes the manifest promises.
    pub size: Option<u64>,
    /// What the config promises of the uncompressed tar.
    pub diff_id: Option<Digest>,
    /// Into what.
    pub mode: Mode,
    /// Owners outside the user namespace.
    pub unmapped_ids: UnmappedIds,
    /// Read `.wh.` names as whiteouts. Only a layer has them; in any other tar (`ADD` of an archive) they are names.
    pub whiteouts: bool,
    /// Give every entry this owner, whatever the archive says (`ADD --chown`).
    pub owner: Option<(u32, u32)>,
    /// Bounds against hostile archives.
    pub limits: Limits,
}

impl UnpackOptions {
    /// For a layer of an image, into overlay format.
    pub fn layer() -> Self {
        Self {
            whiteouts: true,
            ..Self::default()
        }
    }
}

/// What was unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// Digest of the bytes as they came.
    pub digest: Digest,
    /// How many they were.
    pub size: u64,
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Its length in bytes.
    pub uncompressed_size: u64,
    /// Number of entries.
    pub entries: u64,
    /// Device nodes that the kernel did not let us make (it never does in a user namespace) and that are missing.
    pub skipped_devices: u64,
    /// Extended attributes that the filesystem or the kernel refused.
    pub skipped_xattrs: u64,
    /// Entries whose owner was replaced by the caller ([`UnmappedIds::Squash`]).
    pub squashed_owners: u64,
    /// Directories that the archive uses but does not describe, made with mode 0755 and owner 0:0, relative to the
    /// destination and parents first. In an overlay they would hide the attributes of a lower directory:
    /// [`adopt_implied_parents`] mends that once the lower layers are known.
    pub implied_parents: Vec<PathBuf>,
}

/// Unpacks a layer (gzip, Zstandard or plain: told from its bytes, because media types lie) below the existing directory
/// `dest`, and checks what was promised of it.
///
/// Names are resolved by the kernel with `RESOLVE_IN_ROOT` below a descriptor of `dest`: absolute names, `..`, and
/// symbolic or hard links made earlier by the same archive all stay inside. On an error the directory is left as it is,
/// half full; the caller removes it.
///
/// # Errors
/// [`Error::Source`], [`Error::Archive`], [`Error::Escape`], [`Error::Mismatch`], [`Error::UnmappedOwner`],
/// [`Error::Entry`].
pub fn unpack<R: Read + Send>(layer: R, dest: &Path, options: &UnpackOptions) -> Result<Unpacked, Error> {
    let mut placer = place::Placer::open(dest, options)?;
    let (counts, sums) = stream::run(layer, options.limits, |plain| {
        let mut archive = tar::Reader::new(plain, options.limits);
        while let Some(entry) = archive.next_entry()? {
            placer.place(&entry, &mut archive)?;
        }
        placer.finish()
    })?;
    let checks = [
        (
            "size",
            options.size.map(|size| size.to_string()),
            sums.size.to_string(),
        ),
        (
            "digest",
            options.digest.as_ref().map(ToString::to_string),
            sums.digest.to_string(),
        ),
        (
            "diff id",
            options.diff_id.as_ref().map(ToString::to_string),
            sums.diff_id.to_string(),
        ),
    ];
    for (what, expected, actual) in checks {
        if let Some(expected) = expected.filter(|expected| *expected != actual) {
            return Err(Error::Mismatch {
                what,
                expected,
                actual,
            });
        }
    }
    Ok(Unpacked {
        digest: sums.digest,
        size: sums.size,
        diff_id: sums.diff_id,
        uncompressed_size: sums.uncompressed_size,
        entries: counts.entries,
        skipped_devices: counts.skipped_devices,
        skipped_xattrs: counts.skipped_xattrs,
        squashed_owners: counts.squashed_owners,
        implied_parents: counts.implied_parents,
    })
}
