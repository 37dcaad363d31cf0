//! The one error type of this crate.

use std::{io, path::PathBuf};

/// What went wrong between a directory and a layer archive.
///
/// The messages name the path inside the image where one is known, because that is what the author of a Dockerfile can
/// act on; paths of the machine appear only where the machine is at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call on an entry of the tree failed.
    #[error("failed to {action} {}", .path.display())]
    Entry {
        /// What was tried, as a verb: "read", "create directory".
        action: &'static str,
        /// The entry, relative to the root of the image.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The stream that delivers the layer failed.
    #[error("failed to read the layer")]
    Source(#[source] io::Error),
    /// The sink that takes the layer failed (disk full, upload broken).
    #[error("failed to write the layer")]
    Sink(#[source] io::Error),
    /// The archive breaks its format's rules or a limit.
    #[error("the layer is not a valid archive: {reason} (at byte {offset} of the uncompressed stream)")]
    Archive {
        /// Which rule, in words.
        reason: String,
        /// Offset of the offending header in the uncompressed stream.
        offset: u64,
    },
    /// An entry of the archive would have to be written outside the destination, or through something that is no
    /// directory.
    #[error("the layer's entry {} does not stay inside the image: {reason}", .path.display())]
    Escape {
        /// The entry's name as the archive has it.
        path: PathBuf,
        /// Why it was refused.
        reason: String,
    },
    /// The bytes are not those that the manifest promised.
    #[error(
        "the layer's {what} is {actual}, but {expected} was promised: the content is damaged or was replaced"
    )]
    Mismatch {
        /// `digest`, `diff id` or `size`.
        what: &'static str,
        /// What the manifest or config says.
        expected: String,
        /// What arrived.
        actual: String,
    },
    /// An owner of a file has no counterpart in the user namespace.
    #[error(
        "{} belongs to {uid}:{gid}, which this user namespace does not map. In a pod, raise the kubelet's \
         `userNamespaces.idsPerPod` (a multiple of 65536, with a wide enough subordinate id range for the kubelet's \
         user in /etc/subuid and /etc/subgid); on a machine, give your user more subordinate ids there", .path.display()
    )]
    UnmappedOwner {
        /// The entry, relative to the root of the image.
        path: PathBuf,
        /// The owner that the archive asks for.
        uid: u64,
        /// The group that the archive asks for.
        gid: u64,
    },
    /// A file changed its length while it was being packed.
    #[error("{} changed while it was read: {expected} bytes were announced, {actual} came", .path.display())]
    Changed {
        /// The entry, relative to the root of the image.
        path: PathBuf,
        /// Size by the first look.
        expected: u64,
        /// Bytes that could be read.
        actual: u64,
    },
    /// The overlay was mounted with a feature whose upper directory cannot be packed.
    #[error("{} carries the overlay attribute {attribute}: the overlay must be mounted with {remedy}", .path.display())]
    OverlayFeature {
        /// The entry, relative to the upper directory.
        path: PathBuf,
        /// The attribute found.
        attribute: &'static str,
        /// The mount option that prevents it.
        remedy: &'static str,
    },
    /// A worker thread ended without a result; only possible after a panic.
    #[error("a worker of the layer pipeline stopped unexpectedly")]
    Worker,
}

impl Error {
    pub(crate) fn entry(
        action: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Entry {
            action,
            path: path.into(),
            source: source.into(),
        }
    }
}
