//! Names, folders and addresses of one embedded cluster: all that is decided before anything starts.

use std::{
    collections::BTreeMap,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// The name by which pods, nodes and image references know the cluster's registry.
pub const REGISTRY_HOST: &str = "registry.slipway.test";
/// The registry's port, the same in every cluster since references hold it.
pub const REGISTRY_PORT: u16 = 5000;
/// Cluster addresses of services: routed nowhere outside a node's network namespace, so every cluster may have the same.
pub const SERVICE_RANGE: &str = "10.96.0.0/16";
/// The `kubernetes` service: the first of [`SERVICE_RANGE`].
pub const SERVICE_FIRST: &str = "10.96.0.1";

/// Where programs and base images are kept over clusters and checkouts: `$SLIPWAY_CACHE` or `~/.cache/slipway`.
pub fn cache_dir() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("SLIPWAY_CACHE").filter(|d| !d.is_empty()) {
        return std::path::absolute(dir).context("failed to read SLIPWAY_CACHE");
    }
    let home = std::env::var_os("HOME")
        .context("HOME is not set; set SLIPWAY_CACHE to a folder for built programs")?;
    Ok(PathBuf::from(home).join(".cache/slipway"))
}

/// The folders of one cluster.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The cluster's name: `$SLIPWAY_CLUSTER` or `dev`.
    pub name: String,
    /// All of the cluster's state: `$SLIPWAY_STATE/NAME`, by default `/var/lib/slipway-e2e/NAME`.
    pub root: PathBuf,
}

impl Layout {
    /// The cluster that the environment names.
    pub fn from_env() -> Result<Self> {
        let name = std::env::var("SLIPWAY_CLUSTER")
            .ok()
            .filter(|n| !n.is_empty())
            .unwrap_or_else(|| "dev".into());
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.len() > 20 || !name.chars().all(fits) || name.starts_with('-') || name.ends_with('-') {
            bail!(
                "SLIPWAY_CLUSTER={name}: use at most 20 of a-z, 0-9 and '-', with a letter or digit at each end"
            );
        }
        let state = std::env::var_os("SLIPWAY_STATE")
            .filter(|d| !d.is_empty())
            .map_or_else(|| PathBuf::from("/var/lib/slipway-e2e"), PathBuf::from);
        let root = std::path::absolute(state)
            .context("failed to read SLIPWAY_STATE")?
            .join(&name);
        // The longest socket below is nodes/NN/run/containerd.sock.ttrpc; the kernel takes 107 bytes.
        if root.as_os_str().len() > 60 {
            bail!(
                "{}: too long for the sockets below it; set SLIPWAY_STATE to a shorter folder",
                root.display()
            );
        }
        Ok(Self { name, root })
    }

    /// The state folder of all clusters of this machine.
    pub fn state(&self) -> &Path {
        self.root.parent().unwrap_or(Path::new("/"))
    }
    /// Whether this machine has state of other embedded clusters.
    pub fn others(&self) -> bool {
        let entries = fs::read_dir(self.state()).into_iter().flatten().flatten();
        entries
            .map(|e| e.path())
            .any(|p| p != self.root && p.join("cluster.json").exists())
    }
    /// Held while a cluster starts or stops.
    pub fn lock_file(&self) -> PathBuf {
        self.state().join(format!("{}.lock", self.name))
    }
    /// The decisions of [`Spec`].
    pub fn spec_file(&self) -> PathBuf {
        self.root.join("cluster.json")
    }
    /// One log file a program.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }
    /// One record a running program.
    pub fn processes(&self) -> PathBuf {
        self.root.join("processes")
    }
    /// Certificates and keys.
    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }
    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }
    /// A component's kubeconfig.
    pub fn component_kubeconfig(&self, component: &str) -> PathBuf {
        self.root.join("kubeconfigs").join(component)
    }
    /// Names that CoreDNS serves below `slipway.test`, in the format of `/etc/hosts`, read anew each second.
    pub fn hosts_file(&self) -> PathBuf {
        self.root.join("dns/hosts")
    }
    /// Links to kubectl, helm and the like.
    pub fn bin(&self) -> PathBuf {
        self.root.join("bin")
    }
    /// What belongs to node number `number`, counted from 1.
    pub fn node(&self, number: u8) -> NodeLayout {
        NodeLayout {
            root: self.root.join(format!("nodes/{number}")),
            name: format!("slipway-{}-{number}", self.name),
        }
    }
    /// The cgroup below which everything of the cluster runs, in each hierarchy.
    pub fn cgroup(&self) -> String {
        format!("slipway-{}", self.name)
    }
}

/// The folders of one node.
#[derive(Debug, Clone)]
pub struct NodeLayout {
    /// All of the node's state.
    pub root: PathBuf,
    /// Name of the node, its network namespace and its CNI network.
    pub name: String,
}

impl NodeLayout {
    /// containerd's socket.
    pub fn containerd_socket(&self) -> PathBuf {
        self.root.join("run/containerd.sock")
    }
    /// containerd's short-lived state; shims' bundles are in it.
    pub fn containerd_state(&self) -> PathBuf {
        self.root.join("run/containerd")
    }
    /// The file that names the node's network namespace.
    pub fn netns(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }
}

/// Ports that the control plane listens on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ports {
    /// kube-apiserver, on [`Spec::host`].
    pub apiserver: u16,
    /// etcd for clients, on 127.0.0.1.
    pub etcd: u16,
    /// etcd for its peers, on 127.0.0.1.
    pub etcd_peer: u16,
    /// kube-controller-manager, on 127.0.0.1.
    pub controller_manager: u16,
    /// kube-scheduler, on 127.0.0.1.
    pub scheduler: u16,
    /// CoreDNS's readiness, on 127.0.0.1.
    pub dns_ready: u16,
}

/// What one cluster was decided to be. Written once, at its first start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    /// Distinguishes the clusters of a machine; part of bridge and addresses.
    pub index: u8,
    /// Whether pods and nodes may reach the world outside this machine. Not by default: a test that does is a mistake.
    pub internet: bool,
    /// How many nodes.
    pub nodes: u8,
    /// The node that says it is an arm64 one, if there is one.
    #[serde(default)]
    pub arm64_node: Option<u8>,
    /// Ports of the control plane.
    pub ports: Ports,
    /// Kernel settings as they were before the kubelet changed them; put back by `down`.
    pub sysctls: BTreeMap<String, String>,
    /// Folders outside the state folder that did not exist before; removed by `down`.
    pub foreign: Vec<PathBuf>,
}

impl Spec {
    /// The decisions of a cluster that was started before.
    pub fn load(layout: &Layout) -> Result<Option<Self>> {
        let file = layout.spec_file();
        if !file.exists() {
            return Ok(None);
        }
        let text = fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))?;
        let spec = serde_json::from_str(&text)
            .with_context(|| format!("{} is damaged; run slipway-e2e down", file.display()))?;
        Ok(Some(spec))
    }

    /// Writes the decisions down, whole or not at all.
    pub fn save(&self, layout: &Layout) -> Result<()> {
        write_atomically(&layout.spec_file(), &serde_json::to_vec_pretty(self)?)
    }

    /// The machine's address on the cluster's bridge: API server, DNS and registry.
    pub fn host(&self) -> Ipv4Addr {
        Ipv4Addr::new(172, 30, self.index, 1)
    }
    /// Node `number`'s address.
    pub fn node_address(&self, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(172, 30, self.index, number + 1)
    }
    /// The range of the machine and its nodes.
    pub fn node_range(&self) -> String {
        format!("172.30.{}.0/24", self.index)
    }
    /// The range of all pods.
    pub fn pod_range(&self) -> String {
        format!("10.{}.0.0/16", 244 - self.index)
    }
    /// The range of node `number`'s pods.
    pub fn node_pod_range(&self, number: u8) -> String {
        format!("10.{}.{number}.0/24", 244 - self.index)
    }
    /// The bridge between machine and nodes.
    pub fn bridge(&self) -> String {
        format!("swb{}", self.index)
    }
    /// The API server as seen from everywhere.
    pub fn apiserver_url(&self) -> String {
        format!("https://{}:{}", self.host(), self.ports.apiserver)
    }
    /// The registry as the machine reaches it.
    pub fn registry_url(&self) -> String {
        format!("http://{}:{REGISTRY_PORT}", self.host())
    }
    /// The registry as references name it.
    pub fn registry_name() -> String {
        format!("{REGISTRY_HOST}:{REGISTRY_PORT}")
    }
}

/// Replaces a file in one step, so that a reader sees the old or the new text.
pub fn write_atomically(file: &Path, bytes: &[u8]) -> Result<()> {
    let folder = file.parent().context("a file has a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = folder.join(name);
    fs::write(&new, bytes).with_context(|| format!("failed to write {}", new.display()))?;
    fs::rename(&new, file).with_context(|| format!("failed to write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_of_one_machine_share_no_address() {
        let spec = |index| Spec {
            index,
            internet: false,
            nodes: 1,
            arm64_node: None,
            ports: Ports {
                apiserver: 1,
                etcd: 2,
                etcd_peer: 3,
                controller_manager: 4,
                scheduler: 5,
                dns_ready: 6,
            },
            sysctls: BTreeMap::new(),
            foreign: Vec::new(),
        };
        let (a, b) = (spec(0), spec(1));
        assert_ne!(a.host(), b.host());
        assert_ne!(a.pod_range(), b.pod_range());
        assert_ne!(a.bridge(), b.bridge());
        assert_eq!(a.node_address(1).to_string(), "172.30.0.2");
        assert_eq!(b.node_pod_range(2), "10.243.2.0/24");
    }

    #[test]
    fn an_atomic_write_leaves_only_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a/b");
        write_atomically(&file, b"1").unwrap();
        write_atomically(&file, b"2").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"2");
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);
    }
}
