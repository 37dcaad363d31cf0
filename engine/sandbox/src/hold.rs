//! The root of a step that has failed, mounted again for a person to look at.

use std::{
    ffi::CString,
    fs,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags, openat2},
    mount::{mount_bind, mount_bind_recursive},
    process::{Gid, Uid},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

use crate::{Error, Overlay, OverlaySpec, User, helper, sys};

/// Mounts a root and what a shell in it wants to find: `/proc`, `/sys`, `/dev` and `/etc/resolv.conf`, as this process has them.
/// The mounts stay as long as the mount namespace that this process is in.
///
/// # Errors
/// When the kernel refuses the overlay or a mount in it.
pub fn hold(spec: &OverlaySpec) -> Result<(), Error> {
    let overlay = Overlay::mount(spec)?;
    for name in ["proc", "sys", "dev"] {
        let target = overlay.path().join(name);
        // An image may have a link in this place: then it has none of ours.
        let is_dir = fs::symlink_metadata(&target).map(|found| found.is_dir());
        if is_dir.unwrap_or_else(|_| fs::create_dir(&target).is_ok()) {
            // With all that is mounted below: parts of a pod's /proc are masked, and the kernel does not let them be unmasked.
            mount_bind_recursive(Path::new("/").join(name), &target)
                .map_err(|errno| Error::path("mount", &target, errno))?;
        }
    }
    bind_resolv_conf(overlay.path());
    // Not to be unmounted when it goes out of sight here.
    std::mem::forget(overlay);
    Ok(())
}

/// Without names a shell is still of use, so nothing comes of a failure.
fn bind_resolv_conf(root: &Path) {
    let found = rustix::fs::open(root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).and_then(|root| {
        openat2(
            &root,
            "etc/resolv.conf",
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
    });
    if let Ok(file) = found {
        let _ = mount_bind("/etc/resolv.conf", format!("/proc/self/fd/{}", file.as_raw_fd()));
    }
}

/// Becomes a command inside a root that [`hold`] has mounted: with its user, environment and working directory, but without the
/// walls of a step (it shares the namespaces and, as root, the capabilities of this process). To be called while the process
/// has one thread. Comes back only with an error.
pub fn enter_held(root: &Path, user: &User, cwd: &str, env: &[String], argv: &[String]) -> Error {
    match become_command(root, user, cwd, env, argv) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn become_command(
    root: &Path,
    user: &User,
    cwd: &str,
    env: &[String],
    argv: &[String],
) -> Result<std::convert::Infallible, Error> {
    let c_strings = |list: &[String]| {
        list.iter()
            .map(|text| CString::new(text.as_bytes()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| Error::Invalid("an argument or variable contains a NUL byte".to_owned()))
    };
    let (c_argv, c_env) = (c_strings(argv)?, c_strings(env)?);
    let program = argv
        .first()
        .ok_or_else(|| Error::Invalid("no command was given".to_owned()))?;
    rustix::process::chroot(root).map_err(|errno| Error::path("enter", root, errno))?;
    rustix::process::chdir(cwd)
        .or_else(|_| rustix::process::chdir("/"))
        .map_err(|errno| Error::path("enter", Path::new(cwd), errno))?;
    let as_user = || {
        let groups: Vec<Gid> = std::iter::once(user.gid)
            .chain(user.additional_gids.iter().copied())
            .map(Gid::from_raw)
            .collect();
        let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        set_thread_groups(&groups)?;
        set_thread_res_gid(gid, gid, gid)?;
        // Last: from here on this process may do no more than the step could.
        set_thread_res_uid(uid, uid, uid)
    };
    as_user().map_err(|errno| Error::system("become the step's user", errno))?;
    let program_error = |reason: String| Error::Program {
        program: program.clone(),
        reason,
    };
    let path: PathBuf = helper::find(program, env).map_err(program_error)?;
    let error = sys::exec(&path, &c_argv, &c_env);
    Err(program_error(error.to_string()))
}
