//! Starts BuildKit: daemons with stores of their own, for tests only. One proves the harness: with BuildKit itself every
//! recorded case holds. A second has an empty cache, for what is said about imported ones.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::builder::clean_environment;

/// The running daemons; they end when dropped.
pub(crate) struct Peer {
    daemons: Vec<Child>,
    pub(crate) buildctl: PathBuf,
    /// As many as there are daemons.
    pub(crate) addresses: Vec<String>,
}

/// What each daemon keeps its layers with: the second one's way needs no mounts.
const SNAPSHOTTERS: [&str; 2] = ["overlayfs", "native"];

impl Peer {
    /// Starts `count` of them below `work`.
    pub(crate) fn start(work: &Path, count: usize) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!("the peer needs root");
        }
        let (buildkitd, buildctl) = (find("buildkitd", "buildkit")?, find("buildctl", "buildkit")?);
        let runc = find("runc", "runc")?;
        let mut peer = Self {
            daemons: Vec::new(),
            buildctl,
            addresses: Vec::new(),
        };
        for (at, snapshotter) in SNAPSHOTTERS.into_iter().enumerate().take(count) {
            let root = work.join(format!("daemon{at}"));
            fs::create_dir_all(&root)?;
            let address = format!("unix://{}", root.join("socket").display());
            let mut command = Command::new(&buildkitd);
            command
                .arg("--root")
                .arg(&root)
                .args([
                    "--addr",
                    &address,
                    "--oci-worker-snapshotter",
                    snapshotter,
                    "--oci-worker-net",
                    "host",
                ])
                .arg("--oci-worker-binary")
                .arg(&runc)
                .args(["--oci-worker-gc=false", "--containerd-worker=false"])
                .args(["--allow-insecure-entitlement", "security.insecure"])
                .args(["--allow-insecure-entitlement", "network.host"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .process_group(0);
            clean_environment(&mut command, &root);
            // It looks for a runc on the path, too, before it looks at the one it is given.
            let path = env::var_os("PATH").unwrap_or_default();
            let folders = runc.parent().map(Path::to_owned).into_iter();
            command.env("PATH", env::join_paths(folders.chain(env::split_paths(&path)))?);
            let mut daemon = command
                .spawn()
                .with_context(|| format!("failed to start {}", buildkitd.display()))?;
            let log = daemon.stderr.take().context("no pipe")?;
            peer.daemons.push(daemon);
            wait_until_it_listens(log, &root.join("log"))?;
            peer.addresses.push(address);
        }
        Ok(peer)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        for daemon in &mut self.daemons {
            if let Some(pid) = i32::try_from(daemon.id()).ok().and_then(Pid::from_raw) {
                // It takes its mounts away on this signal.
                let _ = kill_process(pid, Signal::TERM);
            }
            let _ = daemon.wait();
        }
    }
}

/// Reads the daemon's log until it listens, then goes on writing it to a file.
fn wait_until_it_listens(log: impl std::io::Read + Send + 'static, path: &Path) -> Result<()> {
    let (send, receive) = mpsc::channel();
    let copy = path.to_owned();
    thread::spawn(move || {
        let mut kept = String::new();
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            kept.push_str(&line);
            kept.push('\n');
            let _ = fs::write(&copy, &kept);
            if line.contains("running server on") {
                let _ = send.send(());
            }
        }
    });
    receive.recv_timeout(Duration::from_mins(1)).map_err(|_| {
        anyhow::anyhow!(
            "buildkitd does not listen: {}",
            fs::read_to_string(path).unwrap_or_default()
        )
    })
}

/// Finds a program: in `$SLIPWAY_PEER`, in the cache of built programs by its module's name, or in the path.
fn find(program: &str, module: &str) -> Result<PathBuf> {
    let cache = env::var_os("SLIPWAY_CACHE").map(PathBuf::from).or_else(|| {
        let home = env::var_os("HOME")?;
        Some(Path::new(&home).join(".cache/slipway"))
    });
    let mut places: Vec<PathBuf> = env::var_os("SLIPWAY_PEER")
        .map(PathBuf::from)
        .into_iter()
        .collect();
    if let Some(tools) = cache.and_then(|cache| fs::read_dir(cache.join("tools")).ok()) {
        let mut versions: Vec<PathBuf> = tools
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                path.file_name()
                    .is_some_and(|name| name.display().to_string().starts_with(&format!("{module}-")))
            })
            .collect();
        versions.sort();
        places.extend(versions.into_iter().rev().flat_map(|dir| [dir.join("bin"), dir]));
    }
    places.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    places
        .iter()
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
        .with_context(|| {
            format!("{program} is not here; `slipway-e2e tools --peer` builds it, or set SLIPWAY_PEER")
        })
}
