//! Ends the cluster and removes all that it made: processes, mounts, namespaces, links, cgroups, files.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::mount::{UnmountFlags, unmount};
use serde_json::Value;

use super::up::lock;
use crate::{
    binfmt, cgroup,
    config::{Layout, Spec},
    network,
    process::Record,
};

/// Takes the cluster down. Harmless when there is none, and after a crash or a reboot.
///
/// # Errors
/// When something cannot be removed; what comes before it has been.
pub fn down() -> Result<()> {
    let layout = Layout::from_env()?;
    if !rustix::process::geteuid().is_root() {
        bail!("not root: run it with sudo -E");
    }
    let existed = layout.root.exists();
    let lock = lock(&layout)?;
    // A damaged record of the decisions must not keep the rest from being removed.
    let spec = Spec::load(&layout).unwrap_or_default();
    stop_programs(&layout)?;
    let cgroup = layout.cgroup();
    let killed = cgroup::kill(&cgroup, Duration::from_secs(30))?;
    let sockets = shim_sockets(&layout);
    unmount_below(&layout.root)?;
    network::remove(&layout, spec.as_ref())?;
    cgroup::remove(&cgroup)?;
    clean_foreign(&layout, spec.as_ref(), &sockets);
    if let Some(spec) = &spec {
        for (name, value) in &spec.sysctls {
            if network::read_sysctl(name).is_some_and(|now| now != *value) {
                network::write_sysctl(name, value)?;
            }
        }
    }
    remove_state(&layout.root)?;
    binfmt::remove(&layout);
    let _ = fs::remove_file(layout.lock_file());
    drop(lock);
    // Gone only when this was the last cluster.
    let _ = fs::remove_dir(layout.state());
    if existed {
        println!(
            "cluster {} is down ({killed} container processes ended); nothing of it is left",
            layout.name
        );
    } else {
        println!("no cluster {} here", layout.name);
    }
    Ok(())
}

/// Ends the recorded programs: first who would start pods anew, last who the others still write to.
fn stop_programs(layout: &Layout) -> Result<()> {
    let order = [
        "kubelet",
        "local-path",
        "coredns",
        "kube-scheduler",
        "kube-controller",
        "kube-proxy",
        "containerd",
    ];
    let rank = |name: &str| {
        order
            .iter()
            .position(|prefix| name.starts_with(prefix))
            .unwrap_or(order.len())
    };
    let mut records = Record::all(layout);
    records.sort_by_key(|r| (rank(&r.name), r.name == "etcd"));
    for record in records {
        record.stop(layout, Duration::from_secs(5))?;
    }
    Ok(())
}

/// The sockets of the nodes' shims, which lie in a folder that all containerds of the machine share.
fn shim_sockets(layout: &Layout) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for node in fs::read_dir(layout.root.join("nodes"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let tasks = node
            .path()
            .join("run/containerd/io.containerd.runtime.v2.task/k8s.io");
        for task in fs::read_dir(tasks).into_iter().flatten().flatten() {
            let text = fs::read_to_string(task.path().join("bootstrap.json")).unwrap_or_default();
            let params: Value = serde_json::from_str(&text).unwrap_or_default();
            let address = params["address"].as_str().map(str::to_owned);
            let address = address.or_else(|| fs::read_to_string(task.path().join("address")).ok());
            if let Some(path) = address.as_deref().and_then(|a| a.trim().strip_prefix("unix://")) {
                found.push(PathBuf::from(path));
            }
        }
    }
    found
}

/// Unmounts all that is mounted below `folder`, the newest first, until nothing is.
fn unmount_below(folder: &Path) -> Result<()> {
    for _ in 0..10 {
        let mounts = mounts_below(&fs::read_to_string("/proc/self/mountinfo")?, folder);
        if mounts.is_empty() {
            return Ok(());
        }
        for mount in mounts.iter().rev() {
            // Every process of the cluster has ended, so nothing holds a mount; a stranger's shell in it shall not either.
            let _ = unmount(mount, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        }
    }
    bail!("mounts below {} cannot be removed: see findmnt", folder.display())
}

fn mounts_below(mountinfo: &str, folder: &Path) -> Vec<PathBuf> {
    let mounts = mountinfo.lines().filter_map(|l| l.split(' ').nth(4));
    mounts
        .map(|m| PathBuf::from(unescape(m)))
        .filter(|m| m.starts_with(folder))
        .collect()
}

/// Undoes the kernel's `\040` and the like.
fn unescape(path: &str) -> String {
    let mut out = Vec::new();
    let bytes = path.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let octal = path
            .get(at + 1..at + 4)
            .and_then(|o| u8::from_str_radix(o, 8).ok());
        match octal {
            Some(value) if *byte == b'\\' => {
                out.push(value);
                at += 4;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Removes the cluster's own files from folders that it shares with others, and those folders that it made.
fn clean_foreign(layout: &Layout, spec: Option<&Spec>, sockets: &[PathBuf]) {
    for socket in sockets.iter().filter(|s| s.starts_with("/run/containerd")) {
        let _ = fs::remove_file(socket);
    }
    for entry in fs::read_dir("/var/log/containers")
        .into_iter()
        .flatten()
        .flatten()
    {
        if fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(&layout.root)) {
            let _ = fs::remove_file(entry.path());
        }
    }
    // The plug-in library's cache: each file holds the network namespace's path, which lies in the state folder.
    let root = format!("{}/", layout.root.display());
    for entry in fs::read_dir("/var/lib/cni/results")
        .into_iter()
        .flatten()
        .flatten()
    {
        if fs::read_to_string(entry.path()).is_ok_and(|text| text.contains(&root)) {
            let _ = fs::remove_file(entry.path());
        }
    }
    let mine = |folder: &str| spec.is_some_and(|s| s.foreign.iter().any(|f| f == Path::new(folder)));
    let others = layout.others();
    if mine("/var/lib/kubelet/device-plugins") && !others {
        for file in ["kubelet.sock", "kubelet_internal_checkpoint", "DEPRECATION"] {
            let _ = fs::remove_file(Path::new("/var/lib/kubelet/device-plugins").join(file));
        }
    }
    // Empty folders only: what another cluster still uses stays.
    let folders = [
        "/run/containerd/s",
        "/run/containerd",
        "/var/lib/cni/results",
        "/var/lib/cni/cache",
        "/var/lib/cni",
        "/var/log/containers",
        "/var/lib/kubelet/device-plugins",
        "/var/lib/kubelet",
    ];
    for folder in folders {
        if spec.is_some_and(|s| s.foreign.iter().any(|f| Path::new(folder).starts_with(f))) {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Deletes the state, once nothing is mounted in it.
fn remove_state(root: &Path) -> Result<()> {
    if !root.exists() {
        return Ok(());
    }
    let mounts = mounts_below(&fs::read_to_string("/proc/self/mountinfo")?, root);
    if let Some(mount) = mounts.first() {
        bail!(
            "{} is still mounted: not deleting {}",
            mount.display(),
            root.display()
        );
    }
    fs::remove_dir_all(root).with_context(|| format!("failed to delete {}", root.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_below_the_folder_are_taken() {
        let info = "1 0 0:1 / / rw - ext4 a rw\n2 1 0:2 / /x/dev/a rw - tmpfs t rw\n\
                    3 1 0:3 / /x/dev2/a rw - tmpfs t rw\n4 1 0:4 / /x/dev/b\\040c rw - tmpfs t rw\n";
        let found = mounts_below(info, Path::new("/x/dev"));
        assert_eq!(found, [PathBuf::from("/x/dev/a"), PathBuf::from("/x/dev/b c")]);
    }
}
