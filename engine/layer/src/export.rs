//! The merged root filesystem, given away: as one tar (`--output type=tar`) or as a directory (`type=local`).

use std::{io::Write, path::Path};

use crate::{
    Compression, Digest, Error, Mode, UnmappedIds, UnpackOptions, Unpacked,
    pack::{Pipeline, Through, TreeKind, Walker},
};

/// How to export.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExportOptions {
    /// No modification time is written that is later than this (seconds since 1970).
    pub clamp_mtime: Option<i64>,
    /// Owners that cannot be given to a file of the destination directory become the caller's own, as an ordinary user
    /// expects of a local export. Not used for a tar.
    pub squash_owners: bool,
}

/// A tar that was exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Digest of the tar.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Number of entries.
    pub entries: u64,
}

/// Writes the tree below `root` (a merged overlay mount, or any directory) as a plain tar. Nothing in it is taken for a
/// whiteout.
///
/// # Errors
/// [`Error::Entry`] and [`Error::Changed`] when the tree cannot be read, [`Error::Sink`] when `sink` fails.
pub fn export_tar<W: Write + Send>(
    root: &Path,
    sink: W,
    options: &ExportOptions,
) -> Result<(Exported, W), Error> {
    let through = Through {
        compression: Compression::Uncompressed,
        threads: 1,
    };
    let (entries, done, sink) = Pipeline::run(sink, through, |tar| {
        let mut walker = Walker::new(tar, options.clamp_mtime, TreeKind::Merged);
        walker.walk(root, None)?;
        walker.finish()
    })?;
    Ok((
        Exported {
            digest: done.digest,
            size: done.size,
            entries,
        },
        sink,
    ))
}

/// Copies the tree below `root` into the existing directory `dest`, over what is there, with owners, modes, times,
/// hard links and extended attributes.
///
/// # Errors
/// As [`export_tar`] and [`crate::unpack`] have them.
pub fn export_dir(root: &Path, dest: &Path, options: &ExportOptions) -> Result<Unpacked, Error> {
    let (reader, writer) = std::io::pipe().map_err(Error::Sink)?;
    let unmapped_ids = if options.squash_owners {
        UnmappedIds::Squash
    } else {
        UnmappedIds::Fail
    };
    std::thread::scope(|scope| {
        let export = scope.spawn(move || export_tar(root, writer, options).map(|_| ()));
        let unpack_options = UnpackOptions {
            mode: Mode::Apply,
            unmapped_ids,
            whiteouts: false,
            ..UnpackOptions::default()
        };
        let unpacked = crate::unpack(reader, dest, &unpack_options);
        let exported = export.join().map_err(|_| Error::Worker)?;
        match (exported, unpacked) {
            // A reader that stopped early makes the writer fail with a broken pipe: the reader's reason is the cause.
            (Err(Error::Sink(_)) | Ok(()), Err(error)) | (Err(error), _) => Err(error),
            (Ok(()), Ok(unpacked)) => Ok(unpacked),
        }
    })
}
