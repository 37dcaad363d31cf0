//! What to run: plain data that travels to the helper as JSON.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

/// The host name of a step that asks for none; BuildKit's, because Dockerfiles see it.
pub const DEFAULT_HOSTNAME: &str = "buildkitsandbox";

/// One command in one root filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The merged root filesystem, usually an [`crate::Overlay`]'s. Absolute.
    pub rootfs: PathBuf,
    /// The command and its arguments; the command is looked up in the `PATH` of `env`, inside the root filesystem.
    pub argv: Vec<String>,
    /// Environment as `NAME=value`, in order; of a name given twice the last one counts.
    pub env: Vec<String>,
    /// Working directory inside the root filesystem. It must exist there.
    pub cwd: String,
    /// Who runs it.
    pub user: User,
    /// Host name.
    pub hostname: String,
    /// Mounts in the order in which they are made; a later one may lie in an earlier one.
    pub mounts: Vec<Mount>,
    /// Network.
    pub network: Network,
    /// Privileges.
    pub security: Security,
    /// Size of /dev/shm in bytes; 64 MiB when absent.
    pub shm_size: Option<u64>,
    /// Resource limits by name without `RLIMIT_`, in lower case: `nofile`.
    pub ulimits: BTreeMap<String, Ulimit>,
    /// Further lines of /etc/hosts: (host name, address).
    pub extra_hosts: Vec<(String, String)>,
    /// Content of /etc/resolv.conf; the builder's own when absent.
    pub resolv_conf: Option<String>,
    /// A writable directory for the step's generated files; each step makes a directory of its own in it and removes it.
    pub state_dir: PathBuf,
}

impl Step {
    /// A step with everything at its default: root in `/`, the host's network, no mounts.
    pub fn new(rootfs: impl Into<PathBuf>, argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            rootfs: rootfs.into(),
            argv: argv.into_iter().map(Into::into).collect(),
            env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()],
            cwd: "/".to_owned(),
            user: User::default(),
            hostname: DEFAULT_HOSTNAME.to_owned(),
            mounts: Vec::new(),
            network: Network::Host,
            security: Security::Sandbox,
            shm_size: None,
            ulimits: BTreeMap::new(),
            extra_hosts: Vec::new(),
            resolv_conf: None,
            state_dir: std::env::temp_dir(),
        }
    }
}

/// Numeric identity of a step; [`crate::passwd::lookup`] finds it for a name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups; the primary one is added by the sandbox.
    pub additional_gids: Vec<u32>,
}

/// One mount of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where, inside the root filesystem; absolute. What is missing of it is made, and removed again after the step.
    pub target: String,
    /// What.
    pub kind: MountKind,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MountKind {
    /// A file, directory or socket of the builder. Changes in it (when writable) stay in the source.
    Bind {
        /// Path on the builder's side, absolute. The last component is not followed when it is a symbolic link.
        source: PathBuf,
        /// Refuse writes.
        readonly: bool,
    },
    /// An empty directory in memory.
    Tmpfs {
        /// Largest size in bytes.
        size: Option<u64>,
    },
    /// A file in memory with this content, readable by its owner: a secret. It never touches a disk.
    Secret {
        /// The bytes.
        content: SecretBytes,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

/// Bytes that show up in no log: `Debug` prints their number alone.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretBytes(pub Vec<u8>);

impl std::fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretBytes({} bytes)", self.0.len())
    }
}

/// Which network a step sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Network {
    /// The builder's: in a cluster that is the pod's, with its policies.
    #[default]
    Host,
    /// A loopback interface and nothing else.
    None,
}

/// What a step may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Security {
    /// The default capabilities of Docker, masked and read-only parts of /proc and /sys.
    #[default]
    Sandbox,
    /// Every capability that the builder has in its user namespace, and an unmasked, writable /proc and /sys.
    Insecure,
}

/// A resource limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// The limit that the kernel enforces.
    pub soft: u64,
    /// How far the step may raise it.
    pub hard: u64,
}
