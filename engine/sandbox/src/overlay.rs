//! Overlay mounts that end with their guard.

use std::{
    ffi::CString,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags, open},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
        fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, move_mount, unmount,
    },
};

use crate::Error;

/// The kernel takes 500 lower directories (OVL_MAX_STACK); one is kept for the mount below a deeper stack.
const MOST_LOWER: usize = 499;

/// What to mount. All paths absolute.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OverlaySpec {
    /// Lower directories, the topmost first. May be empty if there is an upper one.
    pub lower: Vec<PathBuf>,
    /// Upper directory, where changes go; without it the mount is read-only.
    pub upper: Option<PathBuf>,
    /// Work directory, empty and on the upper directory's filesystem; needed with `upper`.
    pub work: Option<PathBuf>,
    /// Existing directory on which to mount.
    pub target: PathBuf,
}

/// A mounted overlay. Dropping it unmounts.
#[derive(Debug)]
pub struct Overlay {
    target: PathBuf,
    mounted: bool,
    /// Detached mounts of the lowest layers of a very deep stack; they end with their descriptors.
    _below: Vec<OwnedFd>,
}

impl Overlay {
    /// Mounts it, with `userxattr` (so that the marks in the directories are the same with and without a user
    /// namespace) and with everything off that would make the upper directory depend on this mount: redirects, metadata
    /// copies, the index. Where the kernel can, it is `volatile`: nothing is synced, since a layer is finished when it is
    /// packed and not when a disk has it.
    ///
    /// # Errors
    /// When the kernel refuses, with the reason where one is known.
    pub fn mount(spec: &OverlaySpec) -> Result<Self, Error> {
        let mut lower = open_all(&spec.lower)?;
        let mut below = Vec::new();
        if lower.len() > MOST_LOWER {
            let deep = lower.split_off(MOST_LOWER - 1);
            if deep.len() > MOST_LOWER + 1 {
                return Err(Error::Invalid(format!(
                    "{} layers; at most {} can be mounted",
                    spec.lower.len(),
                    2 * MOST_LOWER
                )));
            }
            let merged = mount_detached(&deep, None, false).map_err(|errno| refused(spec, errno))?;
            lower.push(
                open(
                    format!("/proc/self/fd/{}", merged.as_raw_fd()),
                    PATH,
                    Mode::empty(),
                )
                .map_err(|errno| refused(spec, errno))?,
            );
            below.push(merged);
        }
        // An overlay without upper directory needs two lower ones; an empty one changes nothing.
        let empty;
        if spec.upper.is_none() && lower.len() < 2 {
            empty = open_empty(&spec.target)?;
            lower.push(empty);
        }
        let upper = match (&spec.upper, &spec.work) {
            (Some(upper), Some(work)) => Some((open_one(upper)?, open_one(work)?)),
            (None, _) => None,
            (Some(_), None) => {
                return Err(Error::Invalid(
                    "an overlay with an upper directory needs a work directory".into(),
                ));
            }
        };
        let mounted = mount_detached(&lower, upper.as_ref(), true)
            // A filesystem or kernel that does not know `volatile`.
            .or_else(|errno| match errno {
                Errno::INVAL => mount_detached(&lower, upper.as_ref(), false),
                other => Err(other),
            })
            .and_then(|detached| {
                move_mount(
                    &detached,
                    "",
                    CWD,
                    &spec.target,
                    MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
                )
            });
        match mounted {
            Ok(()) => {}
            // No `lowerdir+` before Linux 6.7.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                mount_by_string(&lower, upper.as_ref(), &spec.target)
                    .map_err(|errno| refused(spec, errno))?;
            }
            Err(errno) => return Err(refused(spec, errno)),
        }
        Ok(Self {
            target: spec.target.clone(),
            mounted: true,
            _below: below,
        })
    }

    /// Where the merged tree is.
    pub fn path(&self) -> &Path {
        &self.target
    }

    /// Unmounts now and tells how that went; dropping does the same and keeps silent.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn unmount(mut self) -> Result<(), Error> {
        self.end()
    }

    fn end(&mut self) -> Result<(), Error> {
        if !std::mem::take(&mut self.mounted) {
            return Ok(());
        }
        match unmount(&self.target, UnmountFlags::NOFOLLOW) {
            // Someone has a file open (a reader of an export, say): the tree disappears now, the rest with the last file.
            Err(Errno::BUSY) => unmount(&self.target, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH),
            other => other,
        }
        .map_err(|errno| Error::path("unmount", &self.target, errno))
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(%error, "an overlay stays mounted");
        }
    }
}

const PATH: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

fn open_one(path: &Path) -> Result<OwnedFd, Error> {
    open(path, PATH, Mode::empty()).map_err(|errno| Error::path("open", path, errno))
}

fn open_all(paths: &[PathBuf]) -> Result<Vec<OwnedFd>, Error> {
    paths.iter().map(|path| open_one(path)).collect()
}

/// An empty directory that nobody sees: a tmpfs of its own, never attached.
fn open_empty(target: &Path) -> Result<OwnedFd, Error> {
    fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)
        .and_then(|config| {
            fsconfig_create(&config)?;
            fsmount(
                &config,
                FsMountFlags::FSMOUNT_CLOEXEC,
                MountAttrFlags::MOUNT_ATTR_RDONLY,
            )
        })
        .map_err(|errno| Error::path("make an empty directory for", target, errno))
}

/// Directories are named by their descriptors: short (a stack of layers must fit into what the kernel takes), and
/// free of the characters that separate options.
fn name(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn mount_detached(
    lower: &[OwnedFd],
    upper: Option<&(OwnedFd, OwnedFd)>,
    volatile: bool,
) -> rustix::io::Result<OwnedFd> {
    let config = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&config, "source", "overlay")?;
    for dir in lower {
        fsconfig_set_string(&config, "lowerdir+", name(dir))?;
    }
    if let Some((upper, work)) = upper {
        fsconfig_set_string(&config, "upperdir", name(upper))?;
        fsconfig_set_string(&config, "workdir", name(work))?;
        if volatile {
            fsconfig_set_flag(&config, "volatile")?;
        }
    }
    fsconfig_set_flag(&config, "userxattr")?;
    // `userxattr` turns redirects off by itself, and refuses to be told so.
    for option in ["metacopy", "index", "xino"] {
        fsconfig_set_string(&config, option, "off")?;
    }
    fsconfig_create(&config)?;
    fsmount(&config, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

fn mount_by_string(
    lower: &[OwnedFd],
    upper: Option<&(OwnedFd, OwnedFd)>,
    target: &Path,
) -> rustix::io::Result<()> {
    let lower: Vec<String> = lower.iter().map(name).collect();
    let mut options = format!(
        "userxattr,metacopy=off,index=off,xino=off,lowerdir={}",
        lower.join(":")
    );
    if let Some((upper, work)) = upper {
        options.extend([",upperdir=", &name(upper), ",workdir=", &name(work)]);
    }
    let options = CString::new(options).map_err(|_| Errno::INVAL)?;
    mount(
        "overlay",
        target,
        "overlay",
        MountFlags::empty(),
        options.as_c_str(),
    )
}

fn refused(spec: &OverlaySpec, errno: Errno) -> Error {
    let advice = match errno {
        Errno::PERM => {
            "; the process needs CAP_SYS_ADMIN in its user namespace (in a pod: hostUsers: false and the capability \
             added), and no AppArmor profile that denies mounts"
        }
        Errno::INVAL | Errno::NODEV => {
            "; overlayfs with userxattr needs Linux 5.11, and an upper directory on a filesystem with user extended \
             attributes that is not itself an overlay"
        }
        _ => return Error::path("mount an overlay on", &spec.target, errno),
    };
    Error::Environment(format!(
        "failed to mount an overlay of {} layers on {}: {}{advice}",
        spec.lower.len(),
        spec.target.display(),
        std::io::Error::from(errno)
    ))
}
