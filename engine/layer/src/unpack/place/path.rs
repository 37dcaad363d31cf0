//! Names of an archive → descriptors below the root.

use std::{collections::VecDeque, os::fd::OwnedFd, sync::Arc};

use rustix::{
    fs::{
        AtFlags, FileType, Mode as Bits, OFlags, ResolveFlags, mkdirat, openat, openat2, readlinkat, statat,
        unlinkat,
    },
    io::Errno,
};

use super::{Placer, failed, show};
use crate::{
    Error,
    overlay::{file_type, is_directory},
};

/// As many symbolic links as the kernel follows in one name.
const MOST_LINKS: usize = 40;

/// The name without `.`, `..` and needless slashes, and without a leading one; `..` at the root stays there. This is how
/// the clients that read images see names.
pub(super) fn clean(name: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

/// Parent (empty for the root) and last part; `None` for the root itself.
pub(super) fn split(clean: &[u8]) -> Option<(&[u8], &[u8])> {
    if clean.is_empty() {
        return None;
    }
    Some(match clean.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&clean[..slash], &clean[slash + 1..]),
        None => (b"", clean),
    })
}

impl Placer<'_> {
    /// Opens an existing path; the kernel keeps every link on the way below the root.
    pub(super) fn open_in_root(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        loop {
            match openat2(&self.root, path, flags | OFlags::CLOEXEC, Bits::empty(), resolve) {
                // The kernel could not rule out a race with a rename elsewhere on the machine.
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
    }

    /// The directory that holds an entry, made if it is not there.
    pub(super) fn parent(&mut self, path: &[u8], entry: &[u8]) -> Result<Arc<OwnedFd>, Error> {
        if let Some((known, dir)) = &self.parent
            && known == path
        {
            return Ok(Arc::clone(dir));
        }
        let dir = match self.existing_parent(path) {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => self.make_parent(path, entry)?,
            Err(errno) => return Err(failed("open the parent of", entry, errno)),
        };
        let dir = Arc::new(dir);
        self.parent = Some((path.to_vec(), Arc::clone(&dir)));
        Ok(dir)
    }

    pub(super) fn existing_parent(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        if path.is_empty() {
            return openat(&self.root, ".", flags | OFlags::CLOEXEC, Bits::empty());
        }
        self.open_in_root(path, flags)
    }

    /// Goes the path part by part, follows links by itself (a descriptor at a time, so none leads out), and makes what
    /// is missing.
    fn make_parent(&mut self, path: &[u8], entry: &[u8]) -> Result<OwnedFd, Error> {
        let refuse = |reason: &str| Error::Escape {
            path: show(entry),
            reason: reason.to_owned(),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut todo: VecDeque<Vec<u8>> = parts(path).collect();
        // Where the walk is: names and descriptors from the root down.
        let mut here: Vec<(Vec<u8>, OwnedFd)> = Vec::new();
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            if name == b".." {
                here.pop();
                continue;
            }
            let dir = here.last().map_or(&self.root, |(_, dir)| dir);
            let stat = match statat(dir, &name[..], AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Some(stat),
                Err(Errno::NOENT) => None,
                Err(errno) => return Err(failed("open the parent of", entry, errno)),
            };
            let whiteout = stat.as_ref().is_some_and(|stat| self.is_our_whiteout(stat));
            match stat {
                Some(stat) if is_directory(&stat) => {}
                Some(stat) if file_type(&stat) == FileType::Symlink => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(refuse("its parent goes through too many symbolic links"));
                    }
                    let target = readlinkat(dir, &name[..], Vec::new())
                        .map_err(|errno| failed("open the parent of", entry, errno))?
                        .into_bytes();
                    if target.starts_with(b"/") {
                        here.clear();
                    }
                    for part in parts(&target).rev() {
                        todo.push_front(part);
                    }
                    continue;
                }
                Some(_) if !whiteout => return Err(refuse("its parent is no directory")),
                _ => {
                    let made = if whiteout {
                        unlinkat(dir, &name[..], AtFlags::empty())
                    } else {
                        Ok(())
                    };
                    made.and_then(|()| mkdirat(dir, &name[..], Bits::from(0o755)))
                        .and_then(|()| {
                            rustix::fs::chmodat(dir, &name[..], Bits::from(0o755), AtFlags::empty())
                        })
                        .map_err(|errno| failed("create the parent of", entry, errno))?;
                    if whiteout {
                        self.set_opaque(dir, &name, entry)?;
                    }
                    let mut full: Vec<&[u8]> = here.iter().map(|(name, _)| &name[..]).collect();
                    full.push(&name);
                    self.implied.insert(full.join(&b'/'));
                }
            }
            let next = openat(dir, &name[..], flags, Bits::empty())
                .map_err(|errno| failed("open the parent of", entry, errno))?;
            here.push((name, next));
        }
        match here.pop() {
            Some((_, dir)) => Ok(dir),
            None => openat(&self.root, ".", flags, Bits::empty())
                .map_err(|errno| failed("open the parent of", entry, errno)),
        }
    }
}

fn parts(path: &[u8]) -> std::vec::IntoIter<Vec<u8>> {
    let parts: Vec<Vec<u8>> = path
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .map(<[u8]>::to_vec)
        .collect();
    parts.into_iter()
}
