//! The cluster's cgroups: everything that the cluster starts stays below `/slipway-NAME`, however it forks, so that
//! `down` finds every process. Works with cgroup v1, v2 and both at once.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::process::wait_pidfd;

/// One mounted cgroup hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Whether it is version 2.
    pub unified: bool,
    /// Whether it is the v1 hierarchy that owns processors and memory nodes.
    pub cpuset: bool,
}

/// The hierarchies that this process sees.
pub fn hierarchies() -> Result<Vec<Hierarchy>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("failed to read /proc/self/mounts")?;
    let found = parse(&mounts);
    if found.is_empty() {
        bail!("no cgroup hierarchy is mounted; mount one: mount -t cgroup2 none /sys/fs/cgroup");
    }
    Ok(found)
}

fn parse(mounts: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(1);
        let (Some(mount), Some(kind), Some(options)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let unified = kind == "cgroup2";
        if (unified || kind == "cgroup") && !found.iter().any(|h| h.mount == Path::new(mount)) {
            let cpuset = !unified && options.split(',').any(|o| o == "cpuset");
            found.push(Hierarchy {
                mount: mount.into(),
                unified,
                cpuset,
            });
        }
    }
    found
}

/// Creates `path` (relative, such as `slipway-dev/node-1`) in every hierarchy, ready to hold processes.
pub fn create(path: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let mut folder = hierarchy.mount.clone();
        for part in path.split('/') {
            let parent = folder.clone();
            folder.push(part);
            if hierarchy.unified {
                delegate(&parent);
            }
            match fs::create_dir(&folder) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(error)
                        .with_context(|| format!("failed to create cgroup {}", folder.display()));
                }
                _ => {}
            }
            if hierarchy.cpuset {
                inherit_cpuset(&parent, &folder)?;
            }
        }
    }
    Ok(())
}

/// Hands the controllers of a v2 cgroup to its children, one by one: a kernel without one of them refuses only that.
fn delegate(parent: &Path) {
    let Ok(controllers) = fs::read_to_string(parent.join("cgroup.controllers")) else {
        return;
    };
    for controller in controllers.split_whitespace() {
        let _ = fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// A new v1 cpuset has no processor, and a process cannot enter it before it has.
fn inherit_cpuset(parent: &Path, child: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let read = |folder: &Path| fs::read_to_string(folder.join(file)).unwrap_or_default();
        if read(child).trim().is_empty() {
            fs::write(child.join(file), read(parent))
                .with_context(|| format!("failed to write {}", child.join(file).display()))?;
        }
    }
    Ok(())
}

/// Moves the calling process into `path` in every hierarchy.
pub fn join(path: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let file = hierarchy.mount.join(path).join("cgroup.procs");
        fs::write(&file, "0").with_context(|| format!("failed to enter cgroup {}", file.display()))?;
    }
    Ok(())
}

/// The processes in `path` and below, in any hierarchy.
pub fn processes(path: &str) -> Result<BTreeSet<i32>> {
    let mut pids = BTreeSet::new();
    for hierarchy in hierarchies()? {
        for folder in below(&hierarchy.mount.join(path)) {
            let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            pids.extend(
                text.lines()
                    .filter_map(|l| l.parse::<i32>().ok())
                    .filter(|p| *p > 1),
            );
        }
    }
    Ok(pids)
}

/// Ends every process in `path` and below, and waits for their end.
///
/// # Errors
/// When one is still there after `limit` (a process in an uninterruptible system call).
pub fn kill(path: &str, limit: Duration) -> Result<usize> {
    let end = std::time::Instant::now() + limit;
    let mut killed = 0;
    loop {
        let pids = processes(path)?;
        if pids.is_empty() {
            return Ok(killed);
        }
        if std::time::Instant::now() > end {
            bail!(
                "processes {pids:?} in cgroup {path} did not end within {} s",
                limit.as_secs()
            );
        }
        let mut ended = Vec::new();
        for pid in pids {
            let Some(handle) = Pid::from_raw(pid).and_then(|p| pidfd_open(p, PidfdFlags::empty()).ok())
            else {
                continue;
            };
            // Once the handle is held the number cannot be recycled, so look again whose it is.
            let member = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            if member.lines().any(|l| is_below(l, path)) {
                let _ = pidfd_send_signal(&handle, Signal::KILL);
                killed += 1;
                ended.push(handle);
            }
        }
        for handle in ended {
            wait_pidfd(&handle, end.saturating_duration_since(std::time::Instant::now()));
        }
    }
}

/// Whether a line of `/proc/PID/cgroup` is in `path` or below.
fn is_below(line: &str, path: &str) -> bool {
    let place = line
        .splitn(3, ':')
        .nth(2)
        .unwrap_or_default()
        .trim_start_matches('/');
    place
        .strip_prefix(path)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Removes `path` and what is below it from every hierarchy.
pub fn remove(path: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        for folder in below(&hierarchy.mount.join(path)).into_iter().rev() {
            match fs::remove_dir(&folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error)
                        .with_context(|| format!("failed to remove cgroup {}", folder.display()));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// The folder and all below, parents first.
fn below(folder: &Path) -> Vec<PathBuf> {
    if !folder.is_dir() {
        return Vec::new();
    }
    let mut all = vec![folder.to_owned()];
    let mut next = 0;
    while let Some(folder) = all.get(next).cloned() {
        next += 1;
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                all.push(entry.path());
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_found_in_the_mount_table() {
        let found = parse(
            "cgroup /sys/fs/cgroup/cpuset cgroup rw,relatime,cpuset 0 0\n\
             cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n\
             tmpfs /tmp tmpfs rw 0 0\n",
        );
        assert_eq!(found.len(), 2);
        assert!(found[0].cpuset && !found[0].unified);
        assert!(found[1].unified);
    }

    #[test]
    fn a_cluster_whose_name_starts_alike_is_another_cluster() {
        assert!(is_below("4:memory:/slipway-dev/system", "slipway-dev"));
        assert!(is_below("0::/slipway-dev", "slipway-dev"));
        assert!(!is_below("0::/slipway-dev2/system", "slipway-dev"));
        assert!(!is_below("0::/", "slipway-dev"));
    }

    #[test]
    fn folders_come_before_what_is_in_them() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b/c")).unwrap();
        let all = below(dir.path());
        assert_eq!(all.len(), 4);
        assert!(all[3].ends_with("a/b/c"));
    }
}
