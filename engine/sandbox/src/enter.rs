//! The namespaces of the builder itself, entered once, at the start of `main`.

use std::{
    fs,
    io::{self, BufRead, BufReader, Write},
    process::Stdio,
};

use rustix::{
    mount::{MountPropagationFlags, mount_change},
    process::{getegid, geteuid},
    thread::UnshareFlags,
};
use serde::{Deserialize, Serialize};

use crate::{Error, helper::Task, sys};

mod idmap;

pub(crate) use idmap::main as map_ids_main;

/// Who the builder is after [`enter`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The builder started as an ordinary user and is root in a user namespace of its own now.
    pub rootless: bool,
    /// User ids that exist here.
    pub uids: Vec<IdRange>,
    /// Group ids that exist here.
    pub gids: Vec<IdRange>,
    /// Why fewer ids are mapped than an image may need, if so; for a warning.
    pub note: Option<String>,
}

/// A range of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The first.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// Moves this process into a mount namespace of its own, so that no mount outlives it, and an ordinary user (or a root
/// without the right to mount) into a user namespace in which it is root. Call it in `main` after [`crate::init`],
/// before the first thread is started.
///
/// An ordinary user's subordinate ids (/etc/subuid, /etc/subgid) are mapped with the `newuidmap` and `newgidmap`
/// programs; without them there is one id, and images with files of several owners cannot be unpacked exactly.
///
/// # Errors
/// When more than one thread runs, or the kernel refuses the namespaces.
pub fn enter() -> Result<Identity, Error> {
    let mut note = None;
    let mut rootless = false;
    let privileged = geteuid().is_root() && sys::unshare(UnshareFlags::NEWNS).is_ok();
    if !privileged {
        note = enter_user_namespace()?;
        rootless = true;
    }
    // Slave and not private: what an administrator unmounts outside goes away here too and is not kept busy.
    mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )
    .map_err(|errno| Error::system("detach the builder's mounts from the machine's", errno))?;
    let ranges = |file| {
        sys::ranges(file)
            .into_iter()
            .map(|(first, count)| IdRange { first, count })
            .collect()
    };
    Ok(Identity {
        rootless,
        uids: ranges("/proc/self/uid_map"),
        gids: ranges("/proc/self/gid_map"),
        note,
    })
}

fn enter_user_namespace() -> Result<Option<String>, Error> {
    let failed = |source: io::Error| Error::system("start the helper that maps user ids", source);
    // The maps must be written from outside, by a process that is there before this one is inside.
    let mut helper = Task::MapIds
        .command()
        .args([
            std::process::id().to_string(),
            geteuid().as_raw().to_string(),
            getegid().as_raw().to_string(),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let (Some(mut ask), Some(answer)) = (helper.stdin.take(), helper.stdout.take()) else {
        return Err(failed(io::Error::other("no pipes")));
    };
    let unshared = sys::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS);
    if unshared.is_ok() {
        ask.write_all(b"go\n").map_err(failed)?;
    }
    drop(ask);
    let mut line = String::new();
    let read = BufReader::new(answer).read_line(&mut line);
    let _ = helper.wait();
    unshared.map_err(|error| {
        Error::Environment(format!(
            "failed to make a user namespace: {error}. On a machine: allow unprivileged user namespaces \
             (sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0, \
             user.max_user_namespaces above 0). In a pod: set hostUsers: false and add the capability SYS_ADMIN"
        ))
    })?;
    read.map_err(failed)?;
    let outcome: idmap::Outcome = serde_json::from_str(&line).map_err(|_| {
        failed(io::Error::other(format!(
            "it answered {line:?} (is `init` the first line of main?)"
        )))
    })?;
    match outcome {
        idmap::Outcome::Mapped { note } => {
            debug_assert!(fs::metadata("/proc/self").is_ok());
            Ok(note)
        }
        idmap::Outcome::Failed { reason } => {
            Err(Error::Environment(format!("failed to map user ids: {reason}")))
        }
    }
}
