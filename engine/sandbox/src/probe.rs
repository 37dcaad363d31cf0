//! What this machine or pod permits.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Stdio,
};

use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    thread::UnshareFlags,
};
use serde::{Deserialize, Serialize};

use crate::{Error, Overlay, OverlaySpec, helper::Task, sys};

/// What this machine or pod permits; `None` is a yes, a text says why not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// The process is inside a user namespace (its uid 0 is not the machine's).
    pub in_user_namespace: bool,
    /// Number of user ids that exist here.
    pub mapped_uids: u64,
    /// A further user namespace can be made.
    pub user_namespace: Option<String>,
    /// A mount namespace can be made.
    pub mount_namespace: Option<String>,
    /// overlayfs with `userxattr` on the directory given.
    pub overlay: Option<String>,
    /// Character device 0:0, a whiteout, can be made.
    pub whiteout: Option<String>,
    /// A procfs of its own in a new pid namespace.
    pub fresh_proc: Option<String>,
    /// `pivot_root`; without it steps use a moved mount and chroot.
    pub pivot_root: Option<String>,
    /// The seccomp mode of this process: 0 none, 2 filtered.
    pub seccomp_mode: u32,
    /// `no_new_privs` is set: setuid programs in steps cannot work.
    pub no_new_privs: bool,
    /// Effective capabilities as the kernel's bit mask.
    pub capabilities: u64,
}

impl Probe {
    /// Whether steps can run here, in the process as it is ([`crate::enter`] may make more possible).
    pub fn can_build(&self) -> bool {
        [
            &self.mount_namespace,
            &self.overlay,
            &self.whiteout,
            &self.fresh_proc,
        ]
        .iter()
        .all(|why_not| why_not.is_none())
    }
}

/// Tries everything that a build needs, each in a process of its own, below `dir` (a directory on the filesystem that
/// layers will be stored on).
///
/// # Errors
/// When the probing process cannot be started.
pub fn probe(dir: &Path) -> Result<Probe, Error> {
    Ok(Probe {
        in_user_namespace: sys::in_user_namespace(),
        mapped_uids: sys::ranges("/proc/self/uid_map")
            .iter()
            .map(|(_, count)| u64::from(*count))
            .sum(),
        user_namespace: ask("user-namespace", dir)?,
        mount_namespace: ask("mount-namespace", dir)?,
        overlay: ask("overlay", dir)?,
        whiteout: ask("whiteout", dir)?,
        fresh_proc: ask("proc", dir)?,
        pivot_root: ask("pivot-root", dir)?,
        seccomp_mode: sys::status_field("Seccomp")
            .and_then(|mode| mode.parse().ok())
            .unwrap_or(0),
        no_new_privs: sys::status_field("NoNewPrivs").is_some_and(|value| value == "1"),
        capabilities: sys::capabilities("CapEff"),
    })
}

fn ask(what: &str, dir: &Path) -> Result<Option<String>, Error> {
    let output = Task::Probe
        .command()
        .arg(what)
        .arg(dir)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Error::system("start the probing helper", error))?;
    let words = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok(match output.status.code() {
        Some(0) => None,
        _ if words.is_empty() => Some(output.status.to_string()),
        _ => Some(words),
    })
}

/// Entry of the helper: `WHAT DIR`; ends with 0 for a yes, or prints why not.
pub(crate) fn main(arguments: &[String]) -> i32 {
    let [what, dir] = arguments else { return 2 };
    let answer = match what.as_str() {
        "user-namespace" => sys::unshare(UnshareFlags::NEWUSER).map_err(|error| error.to_string()),
        "mount-namespace" => own_mounts().map_err(|error| error.to_string()),
        "overlay" => overlay(Path::new(dir)),
        "whiteout" => whiteout(Path::new(dir)).map_err(|error| error.to_string()),
        "proc" => proc(Path::new(dir)),
        "mount-proc" => own_mounts()
            .and_then(|()| Ok(mount("proc", Path::new(dir), "proc", MountFlags::empty(), None)?))
            .map_err(|error| error.to_string()),
        "pivot-root" => match rustix::process::pivot_root("/proc/self/fd/-1", "/proc/self/fd/-1") {
            Err(rustix::io::Errno::PERM) => Err(io::Error::from(rustix::io::Errno::PERM).to_string()),
            _ => Ok(()),
        },
        _ => return 2,
    };
    match answer {
        Ok(()) => 0,
        Err(reason) => {
            use io::Write;
            let _ = writeln!(io::stdout(), "{reason}");
            1
        }
    }
}

fn own_mounts() -> io::Result<()> {
    sys::unshare(UnshareFlags::NEWNS)?;
    Ok(mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?)
}

/// A directory for one probe, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(dir: &Path) -> io::Result<Self> {
        let path = dir.join(format!("slipway-probe-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn overlay(dir: &Path) -> Result<(), String> {
    own_mounts().map_err(|error| error.to_string())?;
    let scratch = Scratch::new(dir).map_err(|error| error.to_string())?;
    let path = |name: &str| scratch.0.join(name);
    for name in ["lower", "upper", "work", "merged"] {
        fs::create_dir(path(name)).map_err(|error| error.to_string())?;
    }
    let spec = OverlaySpec {
        lower: vec![path("lower")],
        upper: Some(path("upper")),
        work: Some(path("work")),
        target: path("merged"),
    };
    let overlay = Overlay::mount(&spec).map_err(|error| crate::helper::chain(&error))?;
    fs::write(overlay.path().join("file"), "x").map_err(|error| error.to_string())?;
    overlay.unmount().map_err(|error| error.to_string())
}

fn whiteout(dir: &Path) -> io::Result<()> {
    let scratch = Scratch::new(dir)?;
    Ok(mknodat(
        CWD,
        scratch.0.join("whiteout"),
        FileType::CharacterDevice,
        Mode::empty(),
        0,
    )?)
}

fn proc(dir: &Path) -> Result<(), String> {
    let scratch = Scratch::new(dir).map_err(|error| error.to_string())?;
    // The next process is the first of the new pid namespace, and its proc shows that.
    sys::unshare(UnshareFlags::NEWPID).map_err(|error| error.to_string())?;
    match ask("mount-proc", &scratch.0) {
        Ok(None) => Ok(()),
        Ok(Some(reason)) => Err(reason),
        Err(error) => Err(error.to_string()),
    }
}
