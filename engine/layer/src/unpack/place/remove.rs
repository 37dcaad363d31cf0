//! Deleting below a descriptor, never through a link.

use std::{
    collections::HashSet,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, Dir, Mode as Bits, OFlags, openat, statat, unlinkat},
    io::Result,
};

use crate::overlay::is_directory;

const FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Removes a directory with everything in it.
pub(super) fn remove_tree(dir: &OwnedFd, name: &[u8]) -> Result<()> {
    let tree = openat(dir, name, FLAGS, Bits::empty())?;
    for child in children(&tree)? {
        if is_directory(&statat(&tree, &child[..], AtFlags::SYMLINK_NOFOLLOW)?) {
            remove_tree(&tree, &child)?;
        } else {
            unlinkat(&tree, &child[..], AtFlags::empty())?;
        }
    }
    unlinkat(dir, name, AtFlags::REMOVEDIR)
}

/// Removes what is in a directory, save what this layer put there (and the directories on the way to it). `prefix` is
/// the directory's own name with a slash.
pub(super) fn remove_unplaced(dir: &OwnedFd, prefix: &mut Vec<u8>, placed: &HashSet<Vec<u8>>) -> Result<()> {
    for child in children(dir)? {
        let length = prefix.len();
        prefix.extend_from_slice(&child);
        let directory = is_directory(&statat(dir, &child[..], AtFlags::SYMLINK_NOFOLLOW)?);
        if directory {
            let tree = openat(dir, &child[..], FLAGS, Bits::empty())?;
            prefix.push(b'/');
            remove_unplaced(&tree, prefix, placed)?;
            prefix.pop();
        }
        if !placed.contains(prefix) {
            let flags = if directory {
                AtFlags::REMOVEDIR
            } else {
                AtFlags::empty()
            };
            match unlinkat(dir, &child[..], flags) {
                // Something of this layer is in it.
                Err(rustix::io::Errno::NOTEMPTY) if directory => {}
                other => other?,
            }
        }
        prefix.truncate(length);
    }
    Ok(())
}

fn children(dir: impl AsFd) -> Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}
