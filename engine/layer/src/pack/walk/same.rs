//! Whether an entry in the upper directory says anything new. A copy-up without a change (`chmod` to the same mode, a
//! file moved away and back, a directory in which something changed) leaves an entry that is the same as below.
//!
//! The rules are those of containerd's and BuildKit's overlay differ, so that layers hold the same entries: type, mode,
//! owner, device and attributes always count; of anything but a directory also size and time. Where all of that is equal
//! the content decides. (The others trust a time with a fraction of a second there; but the kernel's clock for files
//! ticks every few milliseconds, and two quick instructions can write different bytes in one tick.)

use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::fs::{FileType, Mode, Stat, openat, readlinkat};

use super::{DIRECTORY, FILE};
use crate::{
    overlay::{file_type, kept_xattrs},
    pack::lower::Found,
};

pub(super) fn directory(upper: &OwnedFd, stat: &Stat, name: &CStr, found: &Found<'_>) -> io::Result<bool> {
    if !same_stat(stat, &found.stat) {
        return Ok(false);
    }
    let lower = openat(found.dir, name, DIRECTORY, Mode::empty())?;
    Ok(kept_xattrs(upper)? == kept_xattrs(&lower)?)
}

pub(super) fn leaf(
    dir: BorrowedFd<'_>,
    file: Option<&OwnedFd>,
    stat: &Stat,
    name: &CStr,
    found: &Found<'_>,
) -> io::Result<bool> {
    let below = &found.stat;
    if !same_stat(stat, below) || stat.st_size != below.st_size || stat.st_mtime != below.st_mtime {
        return Ok(false);
    }
    if stat.st_mtime_nsec != below.st_mtime_nsec {
        return Ok(false);
    }
    match (file, file_type(stat)) {
        (Some(upper), FileType::RegularFile) => {
            let lower = openat(found.dir, name, FILE, Mode::empty())?;
            if kept_xattrs(upper)? != kept_xattrs(&lower)? {
                return Ok(false);
            }
            Ok(same_content(upper, &lower)?)
        }
        (_, FileType::Symlink) => {
            Ok(readlinkat(dir, name, Vec::new())? == readlinkat(found.dir, name, Vec::new())?)
        }
        _ => Ok(true),
    }
}

fn same_stat(a: &Stat, b: &Stat) -> bool {
    (a.st_mode, a.st_uid, a.st_gid, a.st_rdev) == (b.st_mode, b.st_uid, b.st_gid, b.st_rdev)
}

/// Reads at explicit offsets, so that the upper file can be read again for the archive.
fn same_content(a: impl AsFd, b: impl AsFd) -> io::Result<bool> {
    let (mut left, mut right) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let mut offset = 0;
    loop {
        let n = fill(&a, &mut left, offset)?;
        let m = fill(&b, &mut right, offset)?;
        if left[..n] != right[..m] {
            return Ok(false);
        }
        if n == 0 {
            return Ok(true);
        }
        offset += n as u64;
    }
}

fn fill(file: impl AsFd, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::pread(&file, &mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(filled)
}
