//! The SSH agent's socket as a step sees it: a socket of our own with the mode and owner that were asked for, behind
//! which the bytes go to the real agent. The step never sees a key, nor the agent's directory.

use crate::copy::{self, Owner};
use std::{
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};
use tokio::{
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};

/// A socket that leads to an agent until it is dropped.
pub(super) struct Proxy {
    socket: PathBuf,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Listens on `socket`.
    pub(super) fn start(socket: &Path, agent: PathBuf, mode: u32, owner: Owner) -> io::Result<Self> {
        let listener = UnixListener::bind(socket)?;
        copy::give(socket, owner, "the socket of the SSH agent")?;
        std::fs::set_permissions(socket, std::fs::Permissions::from_mode(mode))?;
        let task = tokio::spawn(async move {
            while let Ok((mut step, _)) = listener.accept().await {
                let agent = agent.clone();
                tokio::spawn(async move {
                    if let Ok(mut agent) = UnixStream::connect(&agent).await {
                        let _ = tokio::io::copy_bidirectional(&mut step, &mut agent).await;
                    }
                });
            }
        });
        Ok(Self {
            socket: socket.to_owned(),
            task,
        })
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}
