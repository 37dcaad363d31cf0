//! The merged view of the layers below, without mounting them.

use std::{ffi::CStr, os::fd::OwnedFd};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, Stat, openat, statat};

use crate::{
    Error, Lower,
    overlay::{is_directory, is_opaque, is_whiteout},
};

/// One directory of the merged view: the directories of the layers that show in it, the topmost first.
pub(crate) struct LowerDir {
    dirs: Vec<OwnedFd>,
}

/// An entry that shows in the merged view.
pub(crate) struct Found<'a> {
    pub(crate) dir: &'a OwnedFd,
    pub(crate) stat: Stat,
    layer: usize,
}

impl LowerDir {
    /// `None` when nothing is known of what lies below.
    pub(crate) fn open(lower: Lower<'_>) -> Result<Option<Self>, Error> {
        let open = |path: &std::path::Path| {
            rustix::fs::open(
                path,
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .map_err(|errno| Error::entry("open the lower directory", path, errno))
        };
        let dirs = match lower {
            Lower::Unknown => return Ok(None),
            Lower::Empty => Vec::new(),
            Lower::Merged(path) => vec![open(path)?],
            Lower::Stack(paths) => paths.iter().map(|path| open(path)).collect::<Result<_, _>>()?,
        };
        Ok(Some(Self { dirs }))
    }

    pub(crate) fn empty() -> Self {
        Self { dirs: Vec::new() }
    }

    /// Looks a name up.
    pub(crate) fn find(&self, name: &CStr) -> rustix::io::Result<Option<Found<'_>>> {
        for (layer, dir) in self.dirs.iter().enumerate() {
            match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if is_whiteout(dir, name, &stat)? => return Ok(None),
                Ok(stat) => return Ok(Some(Found { dir, stat, layer })),
                Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(None)
    }

    /// The merged view below `name`, which [`LowerDir::find`] found to be a directory in `found`.
    pub(crate) fn enter(&self, name: &CStr, found: &Found<'_>) -> rustix::io::Result<Self> {
        let mut dirs = Vec::new();
        for dir in &self.dirs[found.layer..] {
            match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if is_directory(&stat) => {}
                Err(rustix::io::Errno::NOENT) => continue,
                // A whiteout or a file hides what the layers below it have.
                Ok(_) => break,
                Err(errno) => return Err(errno),
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let dir = openat(dir, name, flags, Mode::empty())?;
            let opaque = is_opaque(&dir)?;
            dirs.push(dir);
            if opaque {
                break;
            }
        }
        Ok(Self { dirs })
    }

    /// The names that show here, sorted.
    pub(crate) fn names(&self) -> rustix::io::Result<Vec<Vec<u8>>> {
        let mut all = std::collections::BTreeSet::new();
        for dir in &self.dirs {
            for entry in Dir::read_from(dir)? {
                all.insert(entry?.file_name().to_owned());
            }
        }
        let mut names = Vec::new();
        for name in all {
            if !matches!(name.to_bytes(), b"." | b"..") && self.find(&name)?.is_some() {
                names.push(name.into_bytes());
            }
        }
        Ok(names)
    }
}
