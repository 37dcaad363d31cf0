//! Directories that a layer uses without describing them.

use std::{
    ffi::CString,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use rustix::fs::{
    Gid, Mode as Bits, OFlags, ResolveFlags, Uid, XattrFlags, fchmod, fchown, fsetxattr, openat, openat2,
};

use super::place::{failed, set_times};
use crate::{
    Error, Lower,
    overlay::{is_directory, kept_xattrs},
    pack::LowerDir,
};

/// Gives the implied directories of an unpacked layer the attributes that the layers below have for them, as if the
/// layer had been unpacked over those. `lower` has the topmost layer first; what is in none of them stays as it is.
///
/// # Errors
/// [`Error::Entry`] when a directory cannot be read or changed.
pub fn adopt_implied_parents(layer: &Path, implied: &[PathBuf], lower: &[PathBuf]) -> Result<(), Error> {
    if implied.is_empty() {
        return Ok(());
    }
    let root = rustix::fs::open(
        layer,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Bits::empty(),
    )
    .map_err(|errno| Error::entry("open the layer", layer, errno))?;
    for path in implied {
        let bytes = path.as_os_str().as_bytes();
        let fail = |errno: rustix::io::Errno| failed("adopt the attributes of", bytes, errno);
        let Some(mut below) = LowerDir::open(Lower::Stack(lower))? else {
            return Ok(());
        };
        let mut last = None;
        for part in bytes.split(|byte| *byte == b'/') {
            let Ok(name) = CString::new(part) else { break };
            last = None;
            let next = match below.find(&name).map_err(fail)? {
                Some(found) if is_directory(&found.stat) => {
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    last = Some((
                        found.stat,
                        openat(found.dir, &name, flags, Bits::empty()).map_err(fail)?,
                    ));
                    below.enter(&name, &found).map_err(fail)?
                }
                _ => break,
            };
            below = next;
        }
        let Some((stat, model)) = last else { continue };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let dir = openat2(&root, bytes, flags, Bits::empty(), resolve).map_err(fail)?;
        fchown(
            &dir,
            Some(Uid::from_raw(stat.st_uid)),
            Some(Gid::from_raw(stat.st_gid)),
        )
        .map_err(fail)?;
        fchmod(&dir, Bits::from(stat.st_mode & 0o7777)).map_err(fail)?;
        for (name, value) in kept_xattrs(&model).map_err(fail)? {
            fsetxattr(&dir, &name[..], &value, XattrFlags::empty()).map_err(fail)?;
        }
        set_times(&dir, (stat.st_mtime, stat.st_mtime_nsec as u32)).map_err(fail)?;
    }
    Ok(())
}
