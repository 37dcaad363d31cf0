//! The tar format (POSIX.1-2017 pax, "ustar Interchange Format", with the GNU extensions that are met in the wild).
//!
//! Own code and not a crate's, for three reasons: the writer must put extended attributes and big numbers into PAX
//! records and be the same on every machine; the reader must be bounded against hostile input; and both hand whole
//! entries over without touching a filesystem.

mod pax;
mod reader;
mod writer;

pub(crate) use reader::Reader;
pub(crate) use writer::{end_of_archive, write_header};

/// Size of a header and unit of padding.
pub(crate) const BLOCK: usize = 512;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    Char,
    Block,
    Directory,
    Fifo,
}

/// One entry, whatever dialect said it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Name as it stands in the archive.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    /// The twelve permission bits.
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    /// Length of the file; of a sparse one with its holes.
    pub(crate) size: u64,
    /// Seconds and nanoseconds since 1970; the nanoseconds count forward also before it.
    pub(crate) mtime: (i64, u32),
    /// Target of a symbolic link, or name of the earlier entry of a hard one.
    pub(crate) link: Vec<u8>,
    /// Major and minor number of a device.
    pub(crate) device: (u32, u32),
    /// Extended attributes, sorted by name.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// For a sparse file the (offset, length) of its pieces of data, in order.
    pub(crate) sparse: Option<Vec<(u64, u64)>>,
}

impl Entry {
    pub(crate) fn new(path: impl Into<Vec<u8>>, kind: Kind) -> Self {
        Self {
            path: path.into(),
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: (0, 0),
            link: Vec::new(),
            device: (0, 0),
            xattrs: Vec::new(),
            sparse: None,
        }
    }
}

/// Bytes of padding behind `size` bytes of data.
pub(crate) fn padding(size: u64) -> usize {
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

#[cfg(test)]
mod tests;
