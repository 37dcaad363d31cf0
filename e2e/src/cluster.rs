//! A handle on the cluster that tests and commands work with: the embedded one, or one that the user brought.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::{
    command,
    config::{Layout, Spec},
    process::Record,
    registry::Registry,
    tools::Tools,
};

mod addons;
mod control;
mod down;
mod node;
mod status;
mod up;

pub use addons::CLAIMED_ARCHITECTURE;
pub use down::down;
pub use status::status;
pub use up::{Options, up};

/// A running cluster and its registry.
#[derive(Clone)]
pub struct Cluster {
    /// Talks to the API server as administrator.
    pub client: Client,
    /// The administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// The registry as image references name it from inside the cluster.
    pub registry: String,
    /// The registry's base URL as this machine reaches it.
    pub registry_url: String,
    /// The embedded cluster's folders; `None` for a cluster of the user's.
    pub embedded: Option<Layout>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("kubeconfig", &self.kubeconfig)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// The cluster of `KUBECONFIG` with the registry of `SLIPWAY_REGISTRY` when the user set them, else the embedded one.
    ///
    /// # Errors
    /// When there is none: the message says how to get one.
    pub async fn from_env_or_embedded() -> Result<Self> {
        install_tls_provider();
        let layout = Layout::from_env()?;
        let own = std::env::var_os("KUBECONFIG")
            .map(PathBuf::from)
            .filter(|f| !f.as_os_str().is_empty());
        match own {
            Some(kubeconfig) if kubeconfig != layout.kubeconfig() => {
                let registry = std::env::var("SLIPWAY_REGISTRY").ok().filter(|r| !r.is_empty());
                let registry = registry.context(
                    "KUBECONFIG is set: set SLIPWAY_REGISTRY too, to a registry that this machine and the cluster's nodes reach",
                )?;
                let url = std::env::var("SLIPWAY_REGISTRY_URL")
                    .ok()
                    .filter(|u| !u.is_empty());
                let registry_url = url.unwrap_or_else(|| format!("https://{registry}"));
                let client = client(&kubeconfig).await?;
                Ok(Self {
                    client,
                    kubeconfig,
                    registry,
                    registry_url,
                    embedded: None,
                })
            }
            _ => Self::embedded(layout).await,
        }
    }

    /// The embedded cluster, which must run.
    async fn embedded(layout: Layout) -> Result<Self> {
        let spec = Spec::load(&layout)?;
        let alive = Record::load(&layout, "kube-apiserver").is_some_and(|r| r.alive());
        let Some(spec) = spec.filter(|_| alive) else {
            bail!(
                "no cluster runs: start one with `make cluster-up`, or set KUBECONFIG and SLIPWAY_REGISTRY"
            );
        };
        Ok(Self {
            client: client(&layout.kubeconfig()).await?,
            kubeconfig: layout.kubeconfig(),
            registry: Spec::registry_name(),
            registry_url: spec.registry_url(),
            embedded: Some(layout),
        })
    }

    /// The registry, as this machine sees it.
    pub fn registry(&self) -> Result<Registry> {
        Registry::new(&self.registry_url)
    }

    /// Runs kubectl against this cluster.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        command::finish(self.program("kubectl")?.args(args))
    }

    /// Applies manifests (YAML or JSON, several documents) from text.
    pub fn apply(&self, manifests: &str) -> Result<String> {
        let kubeconfig = self.kubeconfig.display().to_string();
        let args = ["--kubeconfig", &kubeconfig, "apply", "-f", "-"];
        command::with_input(self.program_file("kubectl")?, &args, manifests)
    }

    /// Runs helm against this cluster.
    pub fn helm(&self, args: &[&str]) -> Result<String> {
        command::finish(self.program("helm")?.args(args))
    }

    fn program(&self, name: &str) -> Result<Command> {
        let mut command = Command::new(self.program_file(name)?);
        command
            .env("KUBECONFIG", &self.kubeconfig)
            .stdin(std::process::Stdio::null());
        Ok(command)
    }

    /// The embedded cluster's program, else the user's own, else the one from the cache.
    fn program_file(&self, name: &str) -> Result<PathBuf> {
        if let Some(layout) = &self.embedded {
            return Ok(layout.bin().join(name));
        }
        match command::find(name) {
            Some(file) => Ok(file),
            None => Tools::build(false)?.file(name),
        }
    }

    /// Serves `name.slipway.test` as `address` to pods, from about a second later on.
    pub fn add_host(&self, name: &str, address: std::net::IpAddr) -> Result<()> {
        let layout = self
            .embedded
            .as_ref()
            .context("names can be added to the embedded cluster's DNS only")?;
        addons::add_host(layout, &format!("{name}.slipway.test"), &address.to_string())
    }

    /// The machine's address that pods and nodes reach, for servers that a test starts; the embedded cluster's only.
    pub fn host_address(&self) -> Result<std::net::Ipv4Addr> {
        let layout = self
            .embedded
            .as_ref()
            .context("only the embedded cluster has an address of this machine")?;
        Ok(Spec::load(layout)?.context("the cluster has no spec")?.host())
    }
}

/// Loads an archive's images into every node of the embedded cluster.
pub fn load(layout: &Layout, archive: &std::path::Path) -> Result<()> {
    let spec = Spec::load(layout)?.context("the cluster has no spec")?;
    (1..=spec.nodes).try_for_each(|number| node::load(layout, &layout.bin().join("ctr"), number, archive))
}

/// A client for a kubeconfig file.
pub async fn client(kubeconfig: &std::path::Path) -> Result<Client> {
    install_tls_provider();
    let file = Kubeconfig::read_from(kubeconfig)
        .with_context(|| format!("failed to read {}", kubeconfig.display()))?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Makes ring this process's one TLS provider. A second call changes nothing.
pub fn install_tls_provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
