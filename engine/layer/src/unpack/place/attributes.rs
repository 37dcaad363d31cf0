//! Owner, mode, extended attributes and times. In this order: a change of owner takes the setuid bits and the file
//! capabilities away, and every change but the last moves the times.

use std::os::fd::{AsFd, OwnedFd};

use rustix::{
    fs::{
        AtFlags, FileType, Gid, Mode as Bits, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chownat,
        fchmod, fchown, fremovexattr, fsetxattr, futimens, openat, utimensat,
    },
    io::Errno,
};

use super::{Placer, failed, show};
use crate::{
    Error,
    overlay::{file_type, kept_xattrs},
    tar::{Entry, Kind},
};

/// Removes the attributes that a layer could carry and this entry does not.
fn forget_xattrs(dir: &OwnedFd, entry: &Entry) -> Result<(), Errno> {
    for (name, _) in kept_xattrs(dir)? {
        if entry.xattrs.iter().all(|(wanted, _)| *wanted != name) {
            fremovexattr(dir, &name[..])?;
        }
    }
    Ok(())
}

impl Placer<'_> {
    pub(super) fn set_file_attributes(
        &mut self,
        file: &OwnedFd,
        full: &[u8],
        entry: &Entry,
    ) -> Result<(), Error> {
        self.set_by_descriptor(file, full, entry)?;
        set_times(file, entry.mtime).map_err(|errno| failed("set the time of", full, errno))
    }

    /// `place` is `None` for the root.
    pub(super) fn set_directory_attributes(
        &mut self,
        place: Option<(&OwnedFd, &[u8])>,
        full: &[u8],
        entry: &Entry,
    ) -> Result<(), Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = match place {
            Some((dir, name)) => openat(dir, name, flags, Bits::empty()),
            None => openat(&self.root, ".", flags, Bits::empty()),
        }
        .map_err(|errno| failed("open", full, errno))?;
        // A layer's entry is all that is true of its directory, as an overlay of layers shows it; the directory that
        // was here before may have said more. Any other archive (`ADD`) adds to what is there.
        if self.options.whiteouts {
            forget_xattrs(&dir, entry).map_err(|errno| failed("clear the attributes of", full, errno))?;
        }
        self.set_by_descriptor(&dir, full, entry)?;
        self.directory_times.push((full.to_vec(), entry.mtime));
        Ok(())
    }

    /// For what must not be opened: links, fifos, devices. They have no attributes that a layer could carry.
    pub(super) fn set_leaf_attributes(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        full: &[u8],
        entry: &Entry,
    ) -> Result<(), Error> {
        let (uid, gid) = self.owner(full, entry)?;
        let changed = chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
        self.check_owner(changed, full, entry)?;
        if entry.kind != Kind::Symlink {
            rustix::fs::chmodat(dir, name, Bits::from(entry.mode), AtFlags::empty())
                .map_err(|errno| failed("set the mode of", full, errno))?;
        }
        utimensat(dir, name, &timestamps(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| failed("set the time of", full, errno))
    }

    /// A hard link's entry speaks of the file that it shares: what the last one says holds, as with containerd and
    /// Docker. `stat` is the file as the entries before left it.
    pub(super) fn set_link_attributes(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        full: &[u8],
        entry: &Entry,
        stat: &Stat,
    ) -> Result<(), Error> {
        match file_type(stat) {
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                match openat(dir, name, flags, Bits::empty()) {
                    Ok(file) => self.set_file_attributes(&file, full, entry),
                    // Not even its owner may read it, where the owner is not root.
                    Err(Errno::ACCESS) => self.set_leaf_attributes(dir, name, full, entry),
                    Err(errno) => Err(failed("open the hard link", full, errno)),
                }
            }
            // Of a link to a symbolic link only the owner is the file's own.
            FileType::Symlink => {
                let (uid, gid) = self.owner(full, entry)?;
                let changed = chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
                self.check_owner(changed, full, entry)
            }
            _ => self.set_leaf_attributes(dir, name, full, entry),
        }
    }

    fn set_by_descriptor(&mut self, file: &OwnedFd, full: &[u8], entry: &Entry) -> Result<(), Error> {
        let (uid, gid) = self.owner(full, entry)?;
        self.check_owner(fchown(file, Some(uid), Some(gid)), full, entry)?;
        fchmod(file, Bits::from(entry.mode)).map_err(|errno| failed("set the mode of", full, errno))?;
        for (name, value) in &entry.xattrs {
            // Overlay marks in an archive would steer the overlay: `redirect` shows one path's content at another.
            // Labels belong to the machine.
            let wanted = name == b"security.capability"
                || name.starts_with(b"user.") && !name.starts_with(b"user.overlay.")
                || name.starts_with(b"trusted.") && !name.starts_with(b"trusted.overlay.");
            if !wanted {
                self.counts.skipped_xattrs += 1;
                continue;
            }
            match fsetxattr(file, &name[..], value, XattrFlags::empty()) {
                Ok(()) => {}
                Err(Errno::OPNOTSUPP | Errno::PERM | Errno::RANGE | Errno::INVAL) => {
                    self.counts.skipped_xattrs += 1;
                }
                Err(errno) => return Err(failed("set an extended attribute of", full, errno)),
            }
        }
        Ok(())
    }

    fn owner(&self, full: &[u8], entry: &Entry) -> Result<(Uid, Gid), Error> {
        if let Some((uid, gid)) = self.options.owner {
            return Ok((Uid::from_raw(uid), Gid::from_raw(gid)));
        }
        // The highest number means "leave it" to the kernel.
        let valid = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX);
        match (valid(entry.uid), valid(entry.gid)) {
            (Some(uid), Some(gid)) => Ok((Uid::from_raw(uid), Gid::from_raw(gid))),
            _ => Err(Error::UnmappedOwner {
                path: show(full),
                uid: entry.uid,
                gid: entry.gid,
            }),
        }
    }

    fn check_owner(
        &mut self,
        changed: rustix::io::Result<()>,
        full: &[u8],
        entry: &Entry,
    ) -> Result<(), Error> {
        match changed {
            Ok(()) => Ok(()),
            Err(Errno::INVAL | Errno::PERM) if self.squash() => {
                self.counts.squashed_owners += 1;
                Ok(())
            }
            Err(Errno::INVAL) => {
                let (uid, gid) = match self.options.owner {
                    Some((uid, gid)) => (u64::from(uid), u64::from(gid)),
                    None => (entry.uid, entry.gid),
                };
                Err(Error::UnmappedOwner {
                    path: show(full),
                    uid,
                    gid,
                })
            }
            Err(errno) => Err(failed("set the owner of", full, errno)),
        }
    }
}

pub(in crate::unpack) fn set_times(file: impl AsFd, mtime: (i64, u32)) -> rustix::io::Result<()> {
    futimens(file, &timestamps(mtime))
}

fn timestamps((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
