//! Small things around system calls. All unsafe code of the crate is here.

use std::{ffi::CString, fs, io, path::Path};

use rustix::thread::UnshareFlags;

/// Leaves namespaces. The process must have one thread: with more, only the calling one would move, and a user or
/// mount namespace would be refused.
pub(crate) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    let threads = fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!(
            "the process has {threads} threads, but namespaces must be left with one"
        )));
    }
    debug_assert!(!flags.contains(UnshareFlags::FILES));
    // SAFETY: the function is unsafe because of `FILES` alone, which would let threads disagree about descriptors;
    // that flag is never given here, and there is one thread.
    #[allow(unsafe_code)]
    unsafe { rustix::thread::unshare_unsafe(flags) }?;
    Ok(())
}

/// Replaces this process by a program. Comes back only with an error.
pub(crate) fn exec(path: &Path, argv: &[CString], env: &[CString]) -> io::Error {
    use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
    // The Rust runtime ignores SIGPIPE, and that would be inherited: `yes | head` must end silently.
    // SAFETY: no handler of ours is installed, the default action takes its place.
    #[allow(unsafe_code)]
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    let path = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
    match CString::new(path) {
        Ok(path) => match nix::unistd::execve(&path, argv, env) {
            Err(errno) => io::Error::from_raw_os_error(errno as i32),
            Ok(never) => match never {},
        },
        Err(_) => io::Error::from(io::ErrorKind::InvalidInput),
    }
}

/// Whether this process is inside a user namespace that is not the machine's own.
pub(crate) fn in_user_namespace() -> bool {
    fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| {
        let mut words = map.split_whitespace();
        (words.next(), words.next(), words.next()) != (Some("0"), Some("0"), Some("4294967295"))
    })
}

/// Whether `id` exists in the map file (`/proc/self/uid_map` or `gid_map`).
pub(crate) fn is_mapped(map_file: &str, id: u32) -> bool {
    ranges(map_file)
        .iter()
        .any(|(first, count)| id >= *first && u64::from(id) < u64::from(*first) + u64::from(*count))
}

/// The (first, count) ranges of a map file.
pub(crate) fn ranges(map_file: &str) -> Vec<(u32, u32)> {
    let map = fs::read_to_string(map_file).unwrap_or_default();
    map.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let first = words.next()?.parse().ok()?;
            let count = words.nth(1)?.parse().ok()?;
            Some((first, count))
        })
        .collect()
}

/// A field of /proc/self/status.
pub(crate) fn status_field(name: &str) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// A capability set of this process as the kernel's bit mask; `field` is `CapPrm`, `CapEff` or `CapBnd`.
pub(crate) fn capabilities(field: &str) -> u64 {
    status_field(field)
        .and_then(|hex| u64::from_str_radix(&hex, 16).ok())
        .unwrap_or(0)
}

/// Whether `setgroups` is refused, as it is in a user namespace that an ordinary user made without helpers.
pub(crate) fn setgroups_denied() -> bool {
    fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "deny")
}
