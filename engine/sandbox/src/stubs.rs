//! Mount points that a step needs and the image has not: noted before the step, removed after it.
//!
//! The runtime makes a missing mount point in the overlay's upper directory, and from there it would get into the layer.
//! As BuildKit does, what did not exist before and is an empty file or directory afterwards is removed, with the parents
//! that were made for it; what the step filled stays.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Timestamps, openat2, statat, unlinkat},
    io::Errno,
};

use crate::{Error, Step, mount_point};

/// The mount points of one step that were missing.
#[derive(Debug)]
pub(crate) struct Stubs {
    root: OwnedFd,
    /// Paths below the root, the deepest of each mount point first.
    missing: Vec<PathBuf>,
}

impl Stubs {
    /// Looks before the step runs, and puts the places that the targets really have into the step. Gives the places of
    /// /etc/resolv.conf and /etc/hosts.
    pub(crate) fn note(step: &mut Step) -> Result<(Self, [String; 2]), Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&step.rootfs, flags, Mode::empty())
            .map_err(|errno| Error::path("open the root filesystem", &step.rootfs, errno))?;
        let mut stubs = Self {
            root,
            missing: Vec::new(),
        };
        let own = [stubs.place("/etc/resolv.conf")?, stubs.place("/etc/hosts")?];
        for mount in &mut step.mounts {
            // What lies below these lies in the runtime's own mounts, whatever the image has there.
            let covered = ["/proc", "/sys", "/dev"]
                .iter()
                .any(|dir| Path::new(&mount.target).starts_with(dir));
            if !covered {
                mount.target = stubs.place(&mount.target)?;
            }
        }
        for target in own.iter().chain(step.mounts.iter().map(|mount| &mount.target)) {
            stubs.note_one(Path::new(target));
        }
        Ok((stubs, own))
    }

    fn place(&self, target: &str) -> Result<String, Error> {
        let place = mount_point::resolve(&self.root, Path::new(target))
            .map_err(|errno| Error::path("find the mount point", target, errno))?;
        place.into_os_string().into_string().map_err(|place| {
            Error::Invalid(format!(
                "the mount point {target:?} leads to {}, which is no UTF-8",
                place.display()
            ))
        })
    }

    fn note_one(&mut self, target: &Path) {
        let mut path = target.strip_prefix("/").unwrap_or(target);
        while path != Path::new("") {
            match self.open(path, OFlags::PATH) {
                Err(Errno::NOENT | Errno::NOTDIR) => self.missing.push(path.to_owned()),
                // It exists, or is nothing that could be made.
                _ => break,
            }
            let Some(parent) = path.parent() else { break };
            path = parent;
        }
    }

    fn open(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        loop {
            match openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
    }

    /// Removes what is empty. Failures are left alone: a stub too many is no reason to fail a build.
    pub(crate) fn clean(&self) {
        for path in &self.missing {
            if let Err(errno) = self.clean_one(path) {
                tracing::debug!(path = %path.display(), %errno, "mount point left in place");
            }
        }
    }

    fn clean_one(&self, path: &Path) -> rustix::io::Result<()> {
        let Some(name) = path.file_name() else {
            return Ok(());
        };
        let dir = match path.parent() {
            Some(parent) if parent != Path::new("") => {
                self.open(parent, OFlags::RDONLY | OFlags::DIRECTORY)?
            }
            _ => self.open(Path::new("."), OFlags::RDONLY | OFlags::DIRECTORY)?,
        };
        let stat = match statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            other => other?,
        };
        let flags = match FileType::from_raw_mode(stat.st_mode) {
            // A directory that the step filled is not empty and stays, with the error that says so.
            FileType::Directory => AtFlags::REMOVEDIR,
            FileType::RegularFile if stat.st_size == 0 => AtFlags::empty(),
            _ => return Ok(()),
        };
        let before = rustix::fs::fstat(&dir)?;
        unlinkat(&dir, name, flags)?;
        // The removal is ours, not the step's: the directory keeps its time.
        let time = |seconds, nanoseconds| rustix::fs::Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds,
        };
        rustix::fs::futimens(
            &dir,
            &Timestamps {
                last_access: time(before.st_atime, before.st_atime_nsec as _),
                last_modification: time(before.st_mtime, before.st_mtime_nsec as _),
            },
        )
    }
}
