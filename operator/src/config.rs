//! The operator's settings: a file that the chart writes, and the command line.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use k8s_openapi::{
    api::core::v1::{LocalObjectReference, ResourceRequirements, Toleration},
    apimachinery::pkg::api::resource::Quantity,
};
use serde::{Deserialize, Serialize};
use slipway_crd::{AccessMode, claims};
use slipway_plan::protocol::RegistryHost;

use crate::{
    peers::{self, Limits},
    policy::Policies,
};

/// The command line; each flag has an environment variable.
#[derive(Debug, Clone, clap::Parser)]
#[command(
    name = "slipway-operator",
    version,
    about = "Builds container images from ImageBuilds"
)]
pub struct Options {
    /// The settings file.
    #[arg(long, env = "SLIPWAY_CONFIG", default_value = "/etc/slipway/config.yaml")]
    pub config: PathBuf,
    /// Where /healthz, /readyz and /metrics listen.
    #[arg(long, env = "SLIPWAY_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// How log lines look.
    #[arg(long, env = "SLIPWAY_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// What is logged, as a tracing filter: `info`, `slipway_operator=debug,info`.
    #[arg(long, env = "SLIPWAY_LOG", default_value = "info,kube=warn")]
    pub log: String,
    /// Namespace of the lease; that of the kubeconfig or pod when left out.
    #[arg(long, env = "SLIPWAY_LEASE_NAMESPACE")]
    pub lease_namespace: Option<String>,
    /// Name of the lease that the replicas elect a leader by.
    #[arg(long, env = "SLIPWAY_LEASE_NAME", default_value = "slipway-operator")]
    pub lease_name: String,
    /// Who this replica is in the lease and in events: the pod's name.
    #[arg(long, env = "SLIPWAY_IDENTITY")]
    pub identity: Option<String>,
    /// Watch one namespace only; all when left out.
    #[arg(long, env = "SLIPWAY_NAMESPACE")]
    pub namespace: Option<String>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One readable line each.
    Text,
    /// One JSON object each.
    Json,
}

/// The settings file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The pods that build.
    pub runner: Runner,
    /// What separates a build from its node.
    #[serde(default)]
    pub isolation: Isolation,
    /// Registries that need settings.
    #[serde(default)]
    pub registries: Vec<RegistryHost>,
    /// What is kept from build to build.
    #[serde(default)]
    pub cache: Cache,
    /// How many builds may run at the same time.
    #[serde(default)]
    pub limits: Limits,
    /// What the platform team wants of every build.
    #[serde(default)]
    pub policies: Policies,
    /// The pods of builds that are over.
    #[serde(default)]
    pub finished_pods: FinishedPods,
    /// Programs of other architectures.
    #[serde(default)]
    pub emulation: Emulation,
}

/// Programs of other architectures than a node's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Emulation {
    /// Find out what each node can emulate, and label it.
    #[serde(default)]
    pub enabled: bool,
    /// An image with QEMU's static user mode emulators, for nodes that have none of their own.
    #[serde(default)]
    pub image: Option<String>,
}

impl Config {
    /// What nodes are probed with, as the value of a label; `None` if they are not.
    pub fn probe(&self) -> Option<String> {
        use sha2::{Digest as _, Sha256};
        let with = format!(
            "{}\n{}",
            self.runner.image,
            self.emulation.image.as_deref().unwrap_or_default()
        );
        let hash = hex::encode(Sha256::digest(with));
        self.emulation
            .enabled
            .then(|| hash.get(..16).unwrap_or_default().to_owned())
    }
}

/// How cache repositories are pruned.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Prune {
    /// How often: `24h`; at least `1h`.
    pub interval: kube::core::Duration,
    /// What was not used for so long goes: `720h`; at least `48h`, because uses are noted once a day.
    pub max_age: kube::core::Duration,
}

impl Prune {
    fn check(self) -> Result<(), String> {
        let least = |name, is: kube::core::Duration, hours| {
            if Duration::from(is) < Duration::from_hours(hours) {
                return Err(format!("cache.prune.{name} is less than {hours}h"));
            }
            Ok(())
        };
        least("interval", self.interval, 1)?;
        least("maxAge", self.max_age, 48)
    }
}

/// How long the pods of builds that are over are kept, for their logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FinishedPods {
    /// Seconds after the end of the run.
    pub keep_seconds: u32,
    /// Of this many builds of each namespace, those that ended last.
    pub keep_builds_per_namespace: u32,
}

impl Default for FinishedPods {
    fn default() -> Self {
        Self {
            keep_seconds: 86_400,
            keep_builds_per_namespace: 50,
        }
    }
}

/// What is kept from build to build.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cache {
    /// The volumes of cache mounts.
    #[serde(default)]
    pub mounts: CacheMounts,
    /// How cache repositories are pruned; not at all when left out.
    #[serde(default)]
    pub prune: Option<Prune>,
}

/// The volumes of cache mounts, for builds whose `spec.cache.mounts` says nothing else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CacheMounts {
    /// Their storage class; the cluster's default when left out.
    #[serde(default)]
    pub storage_class_name: Option<String>,
    /// The size of each, a quantity.
    #[serde(default = "ten_gibibytes")]
    pub size: String,
    /// Their access mode.
    #[serde(default)]
    pub access_mode: AccessMode,
    /// Which of them go by themselves.
    #[serde(default)]
    pub prune: PruneMounts,
}

/// Which claims of cache mounts go by themselves; none when nothing is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PruneMounts {
    /// Those that no stage has used for so long, like `720h`.
    #[serde(default)]
    pub max_age: Option<kube::core::Duration>,
    /// What those of one namespace may have together, a quantity; the longest unused go first.
    #[serde(default)]
    pub max_size: Option<Quantity>,
}

impl PruneMounts {
    /// As the rules of [`slipway_crd::claims`].
    pub fn rules(&self) -> claims::Prune {
        claims::Prune {
            max_age: self.max_age.map(Duration::from),
            max_size: self
                .max_size
                .as_ref()
                .and_then(|size| slipway_crd::quantity::bytes(&size.0)),
            ..claims::Prune::default()
        }
    }
}

impl Default for CacheMounts {
    fn default() -> Self {
        Self {
            storage_class_name: None,
            size: ten_gibibytes(),
            access_mode: AccessMode::default(),
            prune: PruneMounts::default(),
        }
    }
}

fn ten_gibibytes() -> String {
    "10Gi".to_owned()
}

/// What separates a build from its node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Isolation {
    /// For all builds.
    #[serde(default)]
    pub mode: IsolationMode,
}

/// What separates a build from its node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum IsolationMode {
    /// The pod's root is nobody on the node (`hostUsers: false`).
    #[default]
    UserNamespace,
    /// The pod's root is the node's, with the capabilities that a build needs. For nodes without user namespaces.
    Privileged,
}

/// The pods that build, as the chart sets them up; an ImageBuild may say more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Runner {
    /// The runner image.
    pub image: String,
    /// When the kubelet pulls it: `Always`, `IfNotPresent` or `Never`.
    #[serde(default = "if_not_present")]
    pub image_pull_policy: String,
    /// Secrets to pull it with; they must be in the namespace of the build.
    #[serde(default)]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Resources of a pod whose ImageBuild says nothing.
    #[serde(default)]
    pub resources: ResourceRequirements,
    /// The most memory that `spec.retryMemoryFactor` can raise a pod to, as a quantity; no bound when left out.
    #[serde(default)]
    pub max_retry_memory: Option<Quantity>,
    /// Node labels that every pod asks for.
    #[serde(default)]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that every pod tolerates.
    #[serde(default)]
    pub tolerations: Vec<Toleration>,
    /// Environment of every pod's runner: proxies, for instance.
    #[serde(default)]
    pub env: Vec<slipway_crd::EnvVar>,
    /// How long a pod that has its node may take to start (image pull, volumes) before the build fails; seconds.
    #[serde(default = "five_minutes")]
    pub start_timeout_seconds: u32,
    /// Size limit of the store, an emptyDir, as a quantity; none when left out.
    #[serde(default)]
    pub store_size_limit: Option<String>,
}

fn if_not_present() -> String {
    "IfNotPresent".to_owned()
}

const fn five_minutes() -> u32 {
    300
}

impl Config {
    /// Reads the file.
    pub fn read(path: &std::path::Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text).map_err(|message| ConfigError::Parse {
            path: path.to_owned(),
            message,
        })
    }

    /// Reads a text; the message of an error has line and column.
    pub fn parse(text: &str) -> Result<Self, String> {
        let config: Self = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
        if let Some(prune) = config.cache.prune {
            prune.check()?;
        }
        Ok(config)
    }

    /// What the view of other builds depends on.
    pub fn peers(&self) -> peers::Settings {
        peers::Settings {
            limits: self.limits,
            keep_pods_of: self.finished_pods.keep_builds_per_namespace,
            policies: self.policies.clone(),
        }
    }

    /// How long a pod that has its node may take to start.
    pub fn start_timeout(&self) -> Duration {
        Duration::from_secs(self.runner.start_timeout_seconds.into())
    }
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("failed to read the settings file {path}: give its path by --config", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// The file says something else than settings.
    #[error("failed to understand the settings file {path}: {message}", path = path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        message: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_an_image_is_enough() {
        let config = Config::parse("runner: {image: 'r.example.com/runner:1'}\n").unwrap();
        assert_eq!(config.runner.image_pull_policy, "IfNotPresent");
        assert_eq!(config.start_timeout(), Duration::from_mins(5));
        assert!(!config.limits.any());
        assert_eq!(config.finished_pods.keep_seconds, 24 * 3600);
        assert_eq!(config.cache.mounts.size, "10Gi");
    }

    #[test]
    fn everything_that_the_chart_can_say_is_understood() {
        let config = Config::parse(
            "runner:\n  image: r\n  imagePullPolicy: Never\n  imagePullSecrets: [{name: pull}]\n  resources: {limits: {memory: 1Gi}}\n  maxRetryMemory: 8Gi\n  env: [{name: HTTPS_PROXY, value: 'http://proxy:3128'}]\n  nodeSelector: {a: b}\n  tolerations: [{operator: Exists}]\n  startTimeoutSeconds: 10\n  storeSizeLimit: 20Gi\nregistries:\n- host: docker.io\n  mirrors: [mirror.example.com]\n- host: registry.slipway.test:5000\n  insecure: true\nisolation: {mode: Privileged}\ncache: {prune: {interval: 24h, maxAge: 720h}, mounts: {storageClassName: fast, size: 1Gi, accessMode: ReadWriteMany, prune: {maxAge: 720h, maxSize: 100Gi}}}\nlimits: {maxRunning: 20, maxRunningPerNamespace: 5}\nfinishedPods: {keepSeconds: 60, keepBuildsPerNamespace: 3}\npolicies: {appliesTo: [team-*], allowedBases: [docker.io/library], forcedLabels: {a: b}, defaultCacheRepository: 'r.example.com/cache/{namespace}'}\n",
        )
        .unwrap();
        assert_eq!(config.peers().limits.max_running_per_namespace, 5);
        assert_eq!(config.peers().keep_pods_of, 3);
        let prune = config.cache.prune.unwrap();
        assert_eq!(Duration::from(prune.max_age), Duration::from_hours(720));
        let rules = config.cache.mounts.prune.rules();
        assert_eq!(
            (rules.max_age, rules.max_size),
            (Some(Duration::from_hours(720)), Some(100 << 30))
        );
        assert!(config.registries[1].insecure);
        assert_eq!(config.isolation.mode, IsolationMode::Privileged);
        assert_eq!(config.runner.resources.limits.unwrap()["memory"].0, "1Gi");
    }

    #[test]
    fn nothing_but_a_user_namespace_is_chosen_by_itself() {
        let mode = |text: &str| Config::parse(text).map(|config| config.isolation.mode);
        assert_eq!(mode("runner: {image: r}\n"), Ok(IsolationMode::UserNamespace));
        assert_eq!(
            mode("runner: {image: r}\nisolation: {}\n"),
            Ok(IsolationMode::UserNamespace)
        );
        assert!(mode("runner: {image: r}\nisolation: {mode: Auto}\n").is_err());
    }

    #[test]
    fn what_may_be_in_use_is_not_pruned() {
        for (interval, age, part) in [
            ("1m", "720h", "interval"),
            ("24h", "24h", "maxAge"),
            ("24h", "x", ""),
        ] {
            let text =
                format!("runner: {{image: r}}\ncache: {{prune: {{interval: {interval}, maxAge: {age}}}}}\n");
            let error = Config::parse(&text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_misspelt_setting_is_refused_by_name() {
        let error = Config::parse("runner: {image: r, imagePulPolicy: Never}\n").unwrap_err();
        assert!(error.contains("imagePulPolicy"), "{error}");
    }
}
