//! The walk over a tree, and which of its entries go into the archive.

use std::{
    collections::HashMap,
    ffi::{CStr, CString},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, openat, readlinkat, statat};

use super::{
    lower::{Found, LowerDir},
    pipeline::TarSink,
};
use crate::{
    Error,
    overlay::{METACOPY, REDIRECT, file_type, is_directory, is_opaque, is_whiteout, kept_xattrs, names},
    tar::{self, Entry, Kind},
};

mod same;

/// What the tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TreeKind {
    /// An overlay's upper directory: marks of the overlay mean something.
    Upper,
    /// A tree as a user sees it.
    Merged,
}

/// Walks a tree and writes it.
pub(crate) struct Walker<'a> {
    tar: &'a mut TarSink,
    clamp: Option<i64>,
    kind: TreeKind,
    entries: u64,
    /// The directories above the current place that did not change and are written only if something below them is.
    waiting: Vec<Option<Entry>>,
    /// First name of each file with several.
    links: HashMap<(u64, u64), Vec<u8>>,
    header: Vec<u8>,
}

impl<'a> Walker<'a> {
    pub(crate) fn new(tar: &'a mut TarSink, clamp: Option<i64>, kind: TreeKind) -> Self {
        Self {
            tar,
            clamp,
            kind,
            entries: 0,
            waiting: Vec::new(),
            links: HashMap::new(),
            header: Vec::new(),
        }
    }

    /// Writes everything below `root`, but not `root` itself: no image has an entry for its own root.
    pub(crate) fn walk(&mut self, root: &Path, lower: Option<&LowerDir>) -> Result<(), Error> {
        let dir = rustix::fs::open(root, DIRECTORY, Mode::empty())
            .map_err(|errno| Error::entry("open the directory", root, errno))?;
        let hides = self.kind == TreeKind::Upper
            && is_opaque(&dir).map_err(|errno| Error::entry("read", root, errno))?;
        self.directory(dir.as_fd(), &mut Vec::new(), lower, hides)
    }

    /// Ends the archive; gives the number of entries.
    pub(crate) fn finish(self) -> Result<u64, Error> {
        self.tar.write_all(&tar::end_of_archive())?;
        Ok(self.entries)
    }

    /// `hides`: nothing that lies below this directory shows through it.
    fn directory(
        &mut self,
        dir: BorrowedFd<'_>,
        path: &mut Vec<u8>,
        lower: Option<&LowerDir>,
        hides: bool,
    ) -> Result<(), Error> {
        let mut names = list(dir).map_err(|errno| failed("list", path, errno))?;
        let mut hidden = Vec::new();
        if let Some(lower) = lower.filter(|_| hides) {
            hidden = lower.names().map_err(|errno| failed("list", path, errno))?;
            hidden.retain(|name| names.binary_search(name).is_err());
            names.extend(hidden.iter().cloned());
            names.sort();
        }
        for name in names {
            let length = path.len();
            path.extend_from_slice(&name);
            if hidden.binary_search(&name).is_ok() {
                self.whiteout(path)?;
            } else if let Ok(c_name) = CString::new(name) {
                self.entry(dir, &c_name, path, lower, hides)?;
            }
            path.truncate(length);
        }
        Ok(())
    }

    fn entry(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &CStr,
        path: &mut Vec<u8>,
        lower: Option<&LowerDir>,
        hides: bool,
    ) -> Result<(), Error> {
        let fail = |errno: rustix::io::Errno| failed("read", path, errno);
        let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(fail)?;
        let below = match lower {
            Some(lower) => lower.find(name).map_err(fail)?,
            None => None,
        };
        if self.kind == TreeKind::Upper && is_whiteout(dir, name, &stat).map_err(fail)? {
            // Below nothing there is nothing to delete: the file came and went within the step.
            return if lower.is_none() || below.is_some() {
                self.whiteout(path)
            } else {
                Ok(())
            };
        }
        match file_type(&stat) {
            FileType::Directory => self.subdirectory(dir, name, path, &stat, lower, below.as_ref(), hides),
            FileType::Socket => Ok(()),
            _ => self.leaf(dir, name, path, &stat, below.as_ref()),
        }
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "they are the walk's place, and live on the stack of the recursion"
    )]
    fn subdirectory(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &CStr,
        path: &mut Vec<u8>,
        stat: &Stat,
        lower: Option<&LowerDir>,
        below: Option<&Found<'_>>,
        hides: bool,
    ) -> Result<(), Error> {
        let fail = |errno: rustix::io::Errno| failed("read", path, errno);
        let child = openat(dir, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()).map_err(fail)?;
        let mut opaque = false;
        if self.kind == TreeKind::Upper {
            refuse(&child, &REDIRECT, "redirect_dir=nofollow", path)?;
            opaque = is_opaque(&child).map_err(fail)?;
        }
        let lower_child = match (lower, below) {
            (Some(lower), Some(found)) if is_directory(&found.stat) => {
                Some(lower.enter(name, found).map_err(fail)?)
            }
            (Some(_), _) => Some(LowerDir::empty()),
            (None, _) => None,
        };
        let unchanged = match below {
            Some(found) => same::directory(&child, stat, name, found)
                .map_err(|error| failed_io("compare", path, error))?,
            None => false,
        };
        let mut entry = self.describe(path, Kind::Directory, stat);
        entry.path.push(b'/');
        entry.xattrs = kept_xattrs(&child).map_err(fail)?;
        self.waiting.push(Some(entry));
        if !unchanged {
            self.write_waiting()?;
        }
        path.push(b'/');
        if opaque && lower.is_none() {
            path.extend_from_slice(b".wh..wh..opq");
            self.marker(path)?;
            path.truncate(path.len() - b".wh..wh..opq".len());
        }
        self.directory(child.as_fd(), path, lower_child.as_ref(), hides || opaque)?;
        path.pop();
        self.waiting.pop();
        Ok(())
    }

    fn leaf(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &CStr,
        path: &[u8],
        stat: &Stat,
        below: Option<&Found<'_>>,
    ) -> Result<(), Error> {
        let fail = |errno: rustix::io::Errno| failed("read", path, errno);
        let kind = file_type(stat);
        let file = match kind {
            FileType::RegularFile => Some(openat(dir, name, FILE, Mode::empty()).map_err(fail)?),
            _ => None,
        };
        if let Some(file) = file.as_ref().filter(|_| self.kind == TreeKind::Upper) {
            refuse(file, &METACOPY, "metacopy=off", path)?;
        }
        if let Some(found) = below
            && same::leaf(dir, file.as_ref(), stat, name, found)
                .map_err(|error| failed_io("compare", path, error))?
        {
            return Ok(());
        }
        let mut entry = self.describe(path, Kind::File, stat);
        // A hard link's entry repeats them: who unpacks it sets the owner anew, which takes file capabilities away.
        if let Some(file) = &file {
            entry.xattrs = kept_xattrs(file).map_err(fail)?;
        }
        if stat.st_nlink > 1 {
            let inode = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&inode) {
                entry.kind = Kind::HardLink;
                entry.link.clone_from(first);
                return self.write(&entry);
            }
            self.links.insert(inode, path.to_vec());
        }
        match kind {
            FileType::Symlink => {
                entry.kind = Kind::Symlink;
                // The bits of a symbolic link mean nothing on Linux.
                entry.mode = 0o777;
                entry.link = readlinkat(dir, name, Vec::new()).map_err(fail)?.into_bytes();
            }
            FileType::CharacterDevice | FileType::BlockDevice => {
                entry.kind = if kind == FileType::BlockDevice {
                    Kind::Block
                } else {
                    Kind::Char
                };
                entry.device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
            }
            FileType::Fifo => entry.kind = Kind::Fifo,
            _ => {}
        }
        let Some(file) = file else {
            return self.write(&entry);
        };
        entry.size = stat.st_size as u64;
        self.write(&entry)?;
        self.content(&file, path, entry.size)
    }

    fn content(&mut self, file: &OwnedFd, path: &[u8], size: u64) -> Result<(), Error> {
        let mut left = size;
        while left > 0 {
            match self.tar.read_from(file, left) {
                Ok(0) => {
                    return Err(Error::Changed {
                        path: show(path),
                        expected: size,
                        actual: size - left,
                    });
                }
                Ok(n) => left -= n,
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(Error::Worker),
                Err(error) => return Err(failed_io("read", path, error)),
            }
        }
        self.tar.pad(size)
    }

    /// What all kinds have in common.
    fn describe(&self, path: &[u8], kind: Kind, stat: &Stat) -> Entry {
        let mut entry = Entry::new(path, kind);
        entry.mode = stat.st_mode & 0o7777;
        entry.uid = u64::from(stat.st_uid);
        entry.gid = u64::from(stat.st_gid);
        // Whole seconds, as Docker and BuildKit write them: a layer that was unpacked and packed again stays the same
        // on a filesystem with coarse times, and old readers round what they do not know.
        let seconds = stat.st_mtime;
        entry.mtime = (self.clamp.map_or(seconds, |clamp| seconds.min(clamp)), 0);
        entry
    }

    fn whiteout(&mut self, path: &[u8]) -> Result<(), Error> {
        let slash = path
            .iter()
            .rposition(|byte| *byte == b'/')
            .map_or(0, |slash| slash + 1);
        self.marker(&[&path[..slash], b".wh.", &path[slash..]].concat())
    }

    /// An empty file whose name is all there is to it. Its time is fixed: when a file was deleted is no content.
    fn marker(&mut self, path: &[u8]) -> Result<(), Error> {
        self.write(&Entry::new(path, Kind::File))
    }

    fn write_waiting(&mut self) -> Result<(), Error> {
        for i in 0..self.waiting.len() {
            if let Some(entry) = self.waiting[i].take() {
                self.write_one(&entry)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, entry: &Entry) -> Result<(), Error> {
        self.write_waiting()?;
        self.write_one(entry)
    }

    fn write_one(&mut self, entry: &Entry) -> Result<(), Error> {
        self.header.clear();
        tar::write_header(&mut self.header, entry);
        self.entries += 1;
        self.tar.write_all(&self.header)
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// Non-blocking: between the look at it and the opening a file may have become a fifo.
const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK);

/// The names in a directory, sorted by their bytes.
fn list(dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            all.push(name.to_vec());
        }
    }
    all.sort();
    Ok(all)
}

fn refuse(
    file: &OwnedFd,
    attributes: &[&'static str],
    remedy: &'static str,
    path: &[u8],
) -> Result<(), Error> {
    let present = names(file).map_err(|errno| failed("read", path, errno))?;
    for attribute in attributes {
        if present
            .split(|byte| *byte == 0)
            .any(|name| name == attribute.as_bytes())
        {
            return Err(Error::OverlayFeature {
                path: show(path),
                attribute,
                remedy,
            });
        }
    }
    Ok(())
}

fn show(path: &[u8]) -> PathBuf {
    Path::new("/").join(std::ffi::OsStr::from_bytes(path))
}

fn failed(action: &'static str, path: &[u8], errno: rustix::io::Errno) -> Error {
    Error::entry(action, show(path), errno)
}

fn failed_io(action: &'static str, path: &[u8], error: io::Error) -> Error {
    Error::entry(action, show(path), error)
}
