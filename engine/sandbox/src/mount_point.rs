//! Where a mount's target really is in the image.
//!
//! The runtime follows the links of a target inside the root filesystem, but gives up at one that leads nowhere; and
//! images are full of those (/etc/resolv.conf → ../run/systemd/resolve/stub-resolv.conf). Container runtimes make what
//! is missing at the place that the link names, so the links are followed here, and the runtime is given that place.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Component, Path, PathBuf},
};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, readlinkat, statat};

/// As many symbolic links as the kernel follows in one name.
const MOST_LINKS: usize = 40;

/// Follows every link of `target`, also the last one, without leaving `root`; what is missing on the way stays as it is
/// named. The result is absolute and has no links and no `..`.
pub(crate) fn resolve(root: impl AsFd, target: &Path) -> rustix::io::Result<PathBuf> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Parts walked so far, each with its directory while there is one.
    let mut here: Vec<(OsString, Option<OwnedFd>)> = Vec::new();
    let mut todo: VecDeque<OsString> = parts(target).collect();
    let mut links = 0;
    while let Some(name) = todo.pop_front() {
        if name == ".." {
            here.pop();
            continue;
        }
        let dir = match here.last() {
            None => Some(root.as_fd()),
            Some((_, dir)) => dir.as_ref().map(AsFd::as_fd),
        };
        let Some(dir) = dir else {
            here.push((name, None));
            continue;
        };
        let kind =
            statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| FileType::from_raw_mode(stat.st_mode));
        match kind {
            Ok(FileType::Symlink) => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(rustix::io::Errno::LOOP);
                }
                let to = PathBuf::from(OsString::from_vec(
                    readlinkat(dir, &name, Vec::new())?.into_bytes(),
                ));
                if to.is_absolute() {
                    here.clear();
                }
                for part in parts(&to).rev().collect::<Vec<_>>() {
                    todo.push_front(part);
                }
            }
            Ok(FileType::Directory) => {
                let next = openat(dir, &name, flags, Mode::empty())?;
                here.push((name, Some(next)));
            }
            _ => here.push((name, None)),
        }
    }
    let mut path = PathBuf::from("/");
    path.extend(here.into_iter().map(|(name, _)| name));
    Ok(path)
}

fn parts(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    let parts: Vec<OsString> = path
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsStr::from_bytes(b"..").to_owned()),
            _ => None,
        })
        .collect();
    parts.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_inside_and_what_is_missing_is_kept() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("etc/real")).unwrap();
        std::fs::write(at("etc/file"), "").unwrap();
        symlink("../run/stub.conf", at("etc/resolv.conf")).unwrap();
        symlink("/etc/real", at("link")).unwrap();
        symlink("../../../../up", at("etc/up")).unwrap();
        symlink("loop", at("loop")).unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        for (target, expected) in [
            ("/etc/resolv.conf", "/run/stub.conf"),
            ("/link/x/y", "/etc/real/x/y"),
            ("/etc/up", "/up"),
            ("/etc/file", "/etc/file"),
            ("/none/../etc/./file", "/etc/file"),
            ("/", "/"),
        ] {
            assert_eq!(
                resolve(&root, Path::new(target)).unwrap(),
                Path::new(expected),
                "{target}"
            );
        }
        assert!(resolve(&root, Path::new("/loop")).is_err());
    }
}
