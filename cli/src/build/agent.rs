//! `--ssh`: an agent's socket, or keys for which an agent is started that lives as long as the build.

use anyhow::{Context as _, Result, bail};
use slipway_engine::driver::Offers;
use std::{
    env, fs,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// An agent that was started; it ends with this.
pub(super) struct Agent {
    child: Child,
    dir: PathBuf,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Puts the agents into the offers.
pub(super) fn offer(specs: &[String], offers: &mut Offers) -> Result<Vec<Agent>> {
    let mut agents = Vec::new();
    for spec in specs {
        let (id, paths) = match spec.split_once('=') {
            Some((id, paths)) => (id, paths.split(',').map(PathBuf::from).collect::<Vec<_>>()),
            None => (spec.as_str(), Vec::new()),
        };
        let id = if id.is_empty() { "default" } else { id };
        if paths.is_empty() {
            let socket = env::var_os("SSH_AUTH_SOCK").with_context(|| {
                format!("--ssh {id}: no agent runs (SSH_AUTH_SOCK is not set); name a key: {id}=PATH")
            })?;
            offers.ssh.insert(id.into(), socket.into());
            continue;
        }
        let is_socket =
            |path: &Path| fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
        if let [only] = paths.as_slice()
            && is_socket(only)
        {
            offers.ssh.insert(id.into(), std::path::absolute(only)?);
            continue;
        }
        let (agent, socket) = start(&paths).with_context(|| format!("--ssh {id}"))?;
        offers.ssh.insert(id.into(), socket);
        agents.push(agent);
    }
    Ok(agents)
}

fn start(keys: &[PathBuf]) -> Result<(Agent, PathBuf)> {
    let dir = env::temp_dir().join(format!("slipway-agent-{}-{}", std::process::id(), keys.len()));
    fs::create_dir(&dir).with_context(|| format!("failed to create {}", dir.display()))?;
    let socket = dir.join("socket");
    let child = Command::new("ssh-agent")
        .arg("-D")
        .arg("-a")
        .arg(&socket)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("failed to start ssh-agent; is OpenSSH's client installed?")?;
    let mut agent = Agent { child, dir };
    while !socket.exists() {
        if agent.child.try_wait()?.is_some() {
            bail!("ssh-agent ended at once");
        }
        // There is nothing to wait on: the socket's appearance is all that the agent tells.
        std::thread::park_timeout(Duration::from_millis(5));
    }
    for key in keys {
        let output = Command::new("ssh-add")
            .arg(key)
            .env("SSH_AUTH_SOCK", &socket)
            .env("SSH_ASKPASS_REQUIRE", "never")
            .stdin(Stdio::null())
            .output()
            .context("failed to run ssh-add")?;
        if !output.status.success() {
            bail!(
                "key {}: {}",
                key.display(),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
    }
    Ok((agent, socket))
}
