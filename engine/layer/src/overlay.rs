//! How overlayfs (mounted with `userxattr`) marks things in its directories; see the kernel's
//! `Documentation/filesystems/overlayfs.rst`. The `trusted.` names are understood too: a directory may have been
//! written by a mount of real root.

use std::{ffi::CStr, os::fd::AsFd};

use rustix::{
    fs::{FileType, Mode, OFlags, Stat, fgetxattr, flistxattr, openat},
    io::{Errno, Result},
};

/// Attribute of a directory that hides what lies below it.
pub(crate) const OPAQUE: &str = "user.overlay.opaque";
const OPAQUE_TRUSTED: &str = "trusted.overlay.opaque";
/// Attribute of an empty file that is a whiteout where character devices cannot be made.
const WHITEOUT: &str = "user.overlay.whiteout";
const WHITEOUT_TRUSTED: &str = "trusted.overlay.whiteout";
/// Attributes that move or split content; a mount that is to be packed must not make them.
pub(crate) const REDIRECT: [&str; 2] = ["user.overlay.redirect", "trusted.overlay.redirect"];
pub(crate) const METACOPY: [&str; 2] = ["user.overlay.metacopy", "trusted.overlay.metacopy"];

pub(crate) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

pub(crate) fn is_directory(stat: &Stat) -> bool {
    file_type(stat) == FileType::Directory
}

/// Whether the entry says that the one of that name below is gone.
pub(crate) fn is_whiteout(dir: impl AsFd, name: &CStr, stat: &Stat) -> Result<bool> {
    match file_type(stat) {
        FileType::CharacterDevice => Ok(stat.st_rdev == 0),
        FileType::RegularFile if stat.st_size == 0 => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let file = openat(dir, name, flags, Mode::empty())?;
            Ok(value(&file, WHITEOUT)?.is_some() || value(&file, WHITEOUT_TRUSTED)?.is_some())
        }
        _ => Ok(false),
    }
}

/// Whether the directory hides what lies below it.
pub(crate) fn is_opaque(dir: impl AsFd) -> Result<bool> {
    for name in [OPAQUE, OPAQUE_TRUSTED] {
        if value(&dir, name)?.is_some_and(|value| value == b"y") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Value of an extended attribute, `None` when it is not there or cannot be.
pub(crate) fn value(file: impl AsFd, name: &str) -> Result<Option<Vec<u8>>> {
    let mut buffer = vec![0; 256];
    loop {
        match fgetxattr(&file, name, &mut buffer[..]) {
            Ok(n) => {
                buffer.truncate(n);
                return Ok(Some(buffer));
            }
            Err(Errno::RANGE) if buffer.len() < 1 << 16 => buffer.resize(1 << 16, 0),
            // `trusted.` needs real root; who cannot read it did not write it either.
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => return Ok(None),
            Err(errno) => return Err(errno),
        }
    }
}

/// The extended attributes that belong into a layer, sorted by name: the user's own, file capabilities, and `trusted.`
/// ones. Overlay marks are structure, and labels and access lists belong to the machine.
pub(crate) fn kept_xattrs(file: impl AsFd) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut kept = Vec::new();
    for name in names(&file)?.split(|byte| *byte == 0) {
        let keep = name == b"security.capability"
            || ((name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
                || (name.starts_with(b"trusted.") && !name.starts_with(b"trusted.overlay.")))
                // A PAX key ends at its first `=`, so such a name cannot be written.
                && !name.contains(&b'=');
        if !keep {
            continue;
        }
        let Ok(text) = std::str::from_utf8(name) else {
            continue;
        };
        if let Some(value) = value(&file, text)? {
            kept.push((name.to_vec(), value));
        }
    }
    kept.sort();
    Ok(kept)
}

/// The names of all extended attributes, each with a NUL behind it.
pub(crate) fn names(file: impl AsFd) -> Result<Vec<u8>> {
    let mut buffer = vec![0; 256];
    loop {
        match flistxattr(&file, &mut buffer[..]) {
            Ok(n) => {
                buffer.truncate(n);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < 1 << 17 => {
                let larger = buffer.len() * 8;
                buffer.resize(larger, 0);
            }
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(errno) => return Err(errno),
        }
    }
}
