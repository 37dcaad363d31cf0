//! One entry after the other, put where it belongs below the root's descriptor.

use std::{
    collections::{BTreeSet, HashSet},
    ffi::OsStr,
    io::Read,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{
        AtFlags, FileType, Mode as Bits, OFlags, Stat, linkat, mkdirat, mknodat, openat, statat, symlinkat,
        unlinkat,
    },
    io::Errno,
};

use super::{Mode, UnmappedIds, UnpackOptions};
use crate::{
    Error,
    overlay::{OPAQUE, file_type, is_directory},
    tar::{Entry, Kind, Reader},
};

mod attributes;
mod path;
mod remove;

pub(super) use attributes::set_times;
use path::{clean, split};
use remove::remove_tree;

/// What happened, besides the entries themselves.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) entries: u64,
    pub(super) skipped_devices: u64,
    pub(super) skipped_xattrs: u64,
    pub(super) squashed_owners: u64,
    pub(super) implied_parents: Vec<PathBuf>,
}

pub(super) struct Placer<'a> {
    root: OwnedFd,
    options: &'a UnpackOptions,
    counts: Counts,
    /// Made because something below them came first.
    implied: BTreeSet<Vec<u8>>,
    /// Set at the end: writing into a directory changes its time.
    directory_times: Vec<(Vec<u8>, (i64, u32))>,
    /// The last parent; archives are sorted, so the next entry has it too.
    parent: Option<(Vec<u8>, Arc<OwnedFd>)>,
    /// What this archive placed; only for [`Mode::Apply`], where the disk cannot tell it from what was there before.
    placed: HashSet<Vec<u8>>,
    buffer: Vec<u8>,
}

impl<'a> Placer<'a> {
    pub(super) fn open(dest: &Path, options: &'a UnpackOptions) -> Result<Self, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(dest, flags, Bits::empty())
            .map_err(|errno| Error::entry("open the destination", dest, errno))?;
        Ok(Self {
            root,
            options,
            counts: Counts::default(),
            implied: BTreeSet::new(),
            directory_times: Vec::new(),
            parent: None,
            placed: HashSet::new(),
            buffer: vec![0; 256 * 1024],
        })
    }

    pub(super) fn place<R: Read>(&mut self, entry: &Entry, archive: &mut Reader<R>) -> Result<(), Error> {
        self.counts.entries += 1;
        let full = clean(&entry.path);
        let Some((parent, name)) = split(&full) else {
            // The root itself: `./` stands at the head of many archives. A layer's is the image's root; any other archive
            // (`ADD`) is unpacked into a directory that has its own attributes.
            if entry.kind == Kind::Directory && self.options.whiteouts {
                self.set_directory_attributes(None, &full, entry)?;
            }
            return Ok(());
        };
        if self.options.whiteouts
            && let Some(gone) = name.strip_prefix(b".wh.")
        {
            return self.whiteout(parent, gone, &full);
        }
        let dir = self.parent(parent, &full)?;
        let existing = Self::look(&dir, name, &full)?;
        if entry.kind == Kind::Directory {
            self.directory(&dir, name, existing.as_ref(), &full, entry)?;
        } else {
            if let Some(existing) = &existing {
                self.remove(&dir, name, existing, &full)?;
            }
            self.leaf(&dir, name, &full, entry, archive)?;
        }
        if self.options.mode == Mode::Apply {
            self.placed.insert(full);
        }
        Ok(())
    }

    /// Sets the times of directories, and gives the account.
    pub(super) fn finish(mut self) -> Result<Counts, Error> {
        // In the archive's order: where it describes a directory twice, the later entry holds.
        for (path, mtime) in &std::mem::take(&mut self.directory_times) {
            let opened = if path.is_empty() {
                openat(
                    &self.root,
                    ".",
                    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                    Bits::empty(),
                )
            } else {
                self.open_in_root(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)
            };
            match opened {
                Ok(dir) => set_times(&dir, *mtime).map_err(|errno| failed("set the time of", path, errno))?,
                // A later entry replaced it.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(failed("open", path, errno)),
            }
        }
        self.counts.implied_parents = self
            .implied
            .into_iter()
            .map(|path| PathBuf::from(OsStr::from_bytes(&path)))
            .collect();
        Ok(self.counts)
    }

    fn directory(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        existing: Option<&Stat>,
        full: &[u8],
        entry: &Entry,
    ) -> Result<(), Error> {
        match existing {
            Some(stat) if is_directory(stat) => {}
            other => {
                if let Some(stat) = other {
                    self.remove(dir, name, stat, full)?;
                }
                mkdirat(dir, name, Bits::from(0o700))
                    .map_err(|errno| failed("create directory", full, errno))?;
                if other.is_some_and(|stat| self.is_our_whiteout(stat)) {
                    self.set_opaque(dir, name, full)?;
                }
            }
        }
        self.implied.remove(full);
        self.set_directory_attributes(Some((dir, name)), full, entry)
    }

    fn leaf<R: Read>(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        full: &[u8],
        entry: &Entry,
        archive: &mut Reader<R>,
    ) -> Result<(), Error> {
        match entry.kind {
            Kind::File => return self.file(dir, name, full, entry, archive),
            Kind::HardLink => return self.hard_link(dir, name, full, entry),
            Kind::Symlink => symlinkat(&entry.link[..], dir, name)
                .map_err(|errno| failed("create symbolic link", full, errno))?,
            Kind::Fifo => mknodat(dir, name, FileType::Fifo, Bits::from(0o600), 0)
                .map_err(|errno| failed("create fifo", full, errno))?,
            Kind::Char | Kind::Block | Kind::Directory => {
                // 0:0 is no device but would be a whiteout, which an archive says by name.
                let made = entry.device != (0, 0) && Self::device(dir, name, full, entry)?;
                if !made {
                    self.counts.skipped_devices += 1;
                    return Ok(());
                }
            }
        }
        self.set_leaf_attributes(dir, name, full, entry)
    }

    fn device(dir: &OwnedFd, name: &[u8], full: &[u8], entry: &Entry) -> Result<bool, Error> {
        let kind = if entry.kind == Kind::Block {
            FileType::BlockDevice
        } else {
            FileType::CharacterDevice
        };
        let device = rustix::fs::makedev(entry.device.0, entry.device.1);
        match mknodat(dir, name, kind, Bits::from(0o600), device) {
            Ok(()) => Ok(true),
            Err(Errno::PERM) => Ok(false),
            Err(errno) => Err(failed("create device", full, errno)),
        }
    }

    fn file<R: Read>(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        full: &[u8],
        entry: &Entry,
        archive: &mut Reader<R>,
    ) -> Result<(), Error> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file =
            openat(dir, name, flags, Bits::from(0o600)).map_err(|errno| failed("create", full, errno))?;
        let whole = [(0, entry.size)];
        let pieces = entry.sparse.as_deref().unwrap_or(&whole);
        for (offset, length) in pieces {
            let mut at = *offset;
            let end = offset + length;
            while at < end {
                let wanted = usize::try_from(end - at)
                    .unwrap_or(usize::MAX)
                    .min(self.buffer.len());
                let n = archive.read_data(&mut self.buffer[..wanted])?;
                if n == 0 {
                    return archive.bad("a file that is shorter than its own description");
                }
                write_at(&file, &self.buffer[..n], at).map_err(|errno| failed("write", full, errno))?;
                at += n as u64;
            }
        }
        if entry.sparse.is_some() {
            rustix::fs::ftruncate(&file, entry.size).map_err(|errno| failed("write", full, errno))?;
        }
        self.set_file_attributes(&file, full, entry)
    }

    fn hard_link(&mut self, dir: &OwnedFd, name: &[u8], full: &[u8], entry: &Entry) -> Result<(), Error> {
        let target = clean(&entry.link);
        let missing = |reason: &str| Error::Escape {
            path: show(full),
            reason: format!("it is a hard link to {}, {reason}", show(&target).display()),
        };
        let Some((target_parent, target_name)) = split(&target) else {
            return Err(missing("which is the root"));
        };
        let target_dir = if target_parent.is_empty() {
            openat(
                &self.root,
                ".",
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Bits::empty(),
            )
        } else {
            self.open_in_root(target_parent, OFlags::PATH | OFlags::DIRECTORY)
        };
        let target_dir = match target_dir {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::NOTDIR) => return Err(missing("which the layer does not hold")),
            Err(errno) => return Err(failed("open the target of hard link", full, errno)),
        };
        let stat = match statat(&target_dir, target_name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if is_directory(&stat) => return Err(missing("which is a directory")),
            Ok(stat) if self.is_our_whiteout(&stat) => return Err(missing("which the layer deletes")),
            Ok(stat) => stat,
            Err(_) => return Err(missing("which the layer does not hold")),
        };
        linkat(&target_dir, target_name, dir, name, AtFlags::empty())
            .map_err(|errno| failed("create hard link", full, errno))?;
        self.set_link_attributes(dir, name, full, entry, &stat)
    }

    fn whiteout(&mut self, parent: &[u8], gone: &[u8], full: &[u8]) -> Result<(), Error> {
        if gone == b".wh..opq" {
            return self.opaque(parent, full);
        }
        // Names that aufs kept for itself (`.wh..wh.plnk`).
        if gone.starts_with(b".wh.") {
            return Ok(());
        }
        if matches!(gone, b"" | b"." | b"..") {
            return Err(Error::Escape {
                path: show(full),
                reason: "a whiteout must name an entry".to_owned(),
            });
        }
        let target = [parent, if parent.is_empty() { b"" } else { b"/" }, gone].concat();
        if self.options.mode == Mode::Apply {
            let Ok(dir) = self.existing_parent(parent) else {
                return Ok(());
            };
            if let Some(stat) = Self::look(&dir, gone, &target)?
                && !self.placed.contains(&target)
            {
                self.remove(&dir, gone, &stat, &target)?;
            }
            return Ok(());
        }
        let dir = self.parent(parent, full)?;
        match Self::look(&dir, gone, &target)? {
            // Deleted below and made anew in the same layer, in this order whatever the archive's is.
            Some(stat) if is_directory(&stat) => self.set_opaque(&dir, gone, &target),
            Some(_) => Ok(()),
            None => mknodat(&dir, gone, FileType::CharacterDevice, Bits::empty(), 0)
                .map_err(|errno| failed("create whiteout", &target, errno)),
        }
    }

    fn opaque(&mut self, parent: &[u8], full: &[u8]) -> Result<(), Error> {
        if self.options.mode == Mode::Overlay {
            let dir = self.parent(parent, full)?;
            return self.set_opaque(&dir, b".", parent);
        }
        let Ok(dir) = self.existing_parent(parent) else {
            return Ok(());
        };
        let mut prefix = parent.to_vec();
        if !prefix.is_empty() {
            prefix.push(b'/');
        }
        self.parent = None;
        remove::remove_unplaced(&dir, &mut prefix, &self.placed)
            .map_err(|errno| failed("delete below", parent, errno))
    }

    fn set_opaque(&self, dir: &OwnedFd, name: &[u8], full: &[u8]) -> Result<(), Error> {
        if self.options.mode != Mode::Overlay {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(dir, name, flags, Bits::empty())
            .and_then(|dir| rustix::fs::fsetxattr(&dir, OPAQUE, b"y", rustix::fs::XattrFlags::empty()))
            .map_err(|errno| failed("mark as opaque", full, errno))
    }

    /// In a directory that this archive alone has written, a device 0:0 is a whiteout that it asked for.
    fn is_our_whiteout(&self, stat: &Stat) -> bool {
        self.options.mode == Mode::Overlay
            && file_type(stat) == FileType::CharacterDevice
            && stat.st_rdev == 0
    }

    fn look(dir: &OwnedFd, name: &[u8], full: &[u8]) -> Result<Option<Stat>, Error> {
        match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(failed("look at", full, errno)),
        }
    }

    fn remove(&mut self, dir: &OwnedFd, name: &[u8], stat: &Stat, full: &[u8]) -> Result<(), Error> {
        let removed = if is_directory(stat) {
            // The descriptor of a directory that is gone must not be written into.
            self.parent = None;
            let below = [full, b"/"].concat();
            self.implied
                .retain(|path| path != full && !path.starts_with(&below));
            remove_tree(dir, name)
        } else {
            if file_type(stat) == FileType::Symlink {
                self.parent = None;
            }
            unlinkat(dir, name, AtFlags::empty())
        };
        removed.map_err(|errno| failed("replace", full, errno))
    }

    fn squash(&self) -> bool {
        self.options.unmapped_ids == UnmappedIds::Squash
    }
}

fn write_at(file: impl AsFd, mut data: &[u8], mut offset: u64) -> rustix::io::Result<()> {
    while !data.is_empty() {
        match rustix::io::pwrite(&file, data, offset) {
            Ok(n) => {
                data = &data[n..];
                offset += n as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

pub(super) fn show(path: &[u8]) -> PathBuf {
    Path::new("/").join(OsStr::from_bytes(path))
}

pub(super) fn failed(action: &'static str, path: &[u8], errno: Errno) -> Error {
    Error::entry(action, show(path), errno)
}
