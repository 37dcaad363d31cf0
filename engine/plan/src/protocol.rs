//! The contract of operator and runner: what a runner pod is told, where it finds its files, and what it answers.
//!
//! ```text
//! operator ── request.json (ConfigMap) ──▶ plan pod  ── Planned{plan}   (termination message) ──▶ operator
//! operator ── the same + stage id ───────▶ stage pod ── Finished{..}    (termination message) ──▶ operator
//! ```
//! A termination message is bounded by the kubelet at 4096 bytes; [`TerminationMessage::to_bounded_json`] keeps it there.

use crate::model::Sharing;
use serde::{Deserialize, Serialize};
use slipway_oci::{Digest, Platform, Reference};
use std::collections::BTreeMap;

/// Folder with `request.json`, from a ConfigMap.
pub const REQUEST_DIR: &str = "/slipway/request";
/// Name of the request's file in [`REQUEST_DIR`].
pub const REQUEST_FILE: &str = "request.json";
/// Where a source that is a volume (ConfigMap, PersistentVolumeClaim) is mounted, read-only; plan pods only.
pub const SOURCE_DIR: &str = "/slipway/source";
/// One folder `<n>` for each credential Secret, each with a `.dockerconfigjson`.
pub const CREDENTIALS_DIR: &str = "/slipway/credentials";
/// One folder `<n>` for each host of [`Request::registries`] that wants a certificate, by its place there: `tls.crt` and
/// `tls.key`, absent where the namespace has no such Secret.
pub const CERTIFICATES_DIR: &str = "/slipway/certificates";
/// One file `<id>` for each build secret that a step of this stage names; stage pods only.
pub const SECRETS_DIR: &str = "/slipway/secrets";
/// One folder `<n>` for each cache mount of the stage that has a volume: `n` is its place in
/// [`ScheduledStage::caches`]. What has none is kept in the store, and lost with the pod.
pub const CACHES_DIR: &str = "/slipway/caches";
/// An emptyDir: the layer store, overlay work directories and temporary files.
pub const STORE_DIR: &str = "/slipway/store";
/// An image with QEMU's user mode emulators, if the chart names one; pods that emulate only.
pub const EMULATORS_DIR: &str = "/slipway/emulators";
/// Where the kubelet reads the termination message from (Kubernetes' default `terminationMessagePath`).
pub const TERMINATION_LOG: &str = "/dev/termination-log";
/// The kubelet keeps this many bytes of a termination message.
pub const TERMINATION_LIMIT: usize = 4096;

/// What a build asks for, as given to each of its pods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The ImageBuild that this pod works for; for log lines and labels.
    pub build: BuildName,
    /// The Dockerfile: a path in the source, or its text.
    pub dockerfile: DockerfileFrom,
    /// The stage to build; the last one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Stages that must succeed before anything is named, though the target does not need them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<String>,
    /// The platforms to build for; never empty.
    pub platforms: Vec<Platform>,
    /// Build arguments (`--build-arg`).
    #[serde(default)]
    pub args: BTreeMap<String, String>,
    /// Labels for the image's config.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Annotations for the manifest of each platform.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Ids of the build secrets that the ImageBuild offers.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// The kind of source mounted at [`SOURCE_DIR`].
    pub source: SourceFrom,
    /// Where contexts, plans, stage results and cache entries are kept.
    pub cache_repository: Reference,
    /// Which of them are used and kept.
    #[serde(default)]
    pub cache: CacheRequest,
    /// What the finished image is to be called; blobs go to each of these repositories, tags are the operator's.
    pub outputs: Vec<Reference>,
    /// Per-host settings: mirrors, plain HTTP.
    #[serde(default)]
    pub registries: Vec<RegistryHost>,
    /// What images the Dockerfile may name: registries and repositories with all below them, `docker.io/library/debian`
    /// for Docker Hub's. Any when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_bases: Vec<String>,
    /// Ignore cached results: all, or those of named stages.
    #[serde(default)]
    pub no_cache: NoCache,
}

/// Which cached results are used, and which new ones are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CacheRequest {
    /// Further repositories to take results from, in order; nothing is written there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Reference>,
    /// The name under which results are kept, apart from others. What is kept without a scope is read too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Keep only those steps whose layers are in the image.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub result_only: bool,
}

/// Which ImageBuild, at which generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BuildName {
    /// Namespace of the ImageBuild.
    pub namespace: String,
    /// Name of the ImageBuild.
    pub name: String,
    /// `metadata.generation` that this pod was made for.
    pub generation: i64,
}

/// Where the Dockerfile's text comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DockerfileFrom {
    /// A path in the source.
    Path(String),
    /// The text itself.
    Inline(String),
}

/// The kind of the build's source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SourceFrom {
    /// No files at all: an inline Dockerfile that copies nothing from a context.
    Empty,
    /// The files at [`SOURCE_DIR`].
    Directory,
}

/// Settings for one registry host, from the chart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegistryHost {
    /// `docker.io` or `registry.example.com:5000`.
    pub host: String,
    /// Hosts asked first, in order, when reading from `host`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<String>,
    /// Speak plain HTTP to this host.
    #[serde(default)]
    pub insecure: bool,
    /// Speak HTTPS, and take any certificate.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skip_tls_verify: bool,
    /// PEM certificates that are trusted for this host beside the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Name of a Secret of type `kubernetes.io/tls` in the namespace of the build: the certificate shown to this host. A
    /// namespace without it shows none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<String>,
}

/// Which cached results to ignore.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NoCache {
    /// Use the cache.
    #[default]
    No,
    /// Ignore it for all stages.
    All,
    /// Ignore it for these stages.
    Stages(Vec<String>),
}

/// What the operator needs to know of a plan, published beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// Digest of the manifest of the plan artifact that this schedule belongs to is the pod's answer; this is its form.
    pub version: u32,
    /// The stages that the target and the gates need, each after those that it reads from.
    pub stages: Vec<ScheduledStage>,
    /// One result for each requested platform, in the order of the request.
    pub results: Vec<ScheduledResult>,
    /// Indices in [`Schedule::stages`] of those that must be done before the results are named, though no result needs them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<usize>,
}

/// One stage of one platform, as the operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScheduledStage {
    /// Unique in the plan and fit for a label value: `build-linux-amd64`.
    pub id: String,
    /// The stage's name in the Dockerfile, or `stage-N`.
    pub name: String,
    /// The platform that its programs are for.
    pub platform: Platform,
    /// It runs programs of its platform. One that only copies files and sets metadata is built on any node.
    #[serde(default = "yes")]
    pub runs: bool,
    /// The key of the stage's result: 64 hex digits; equal keys mean equal results.
    pub key: String,
    /// Another build that has this key makes the same, and can do so in this one's place. Not so for a stage that ignores the
    /// cache, whose inputs are known only when it runs, or whose result is an image with repositories of its own.
    #[serde(default)]
    pub shared: bool,
    /// Indices of the stages whose results its *first* step needs: its pod starts when they are done.
    pub start_after: Vec<usize>,
    /// Indices of all stages that it reads from; it waits inside its pod for those not in `start_after`.
    pub needs: Vec<usize>,
    /// The manifest of its result, if the cache has it: then it needs no pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached: Option<Digest>,
    /// Ids of the build secrets that its steps mount.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// The cache mounts of its steps, each id and sharing once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub caches: Vec<ScheduledCache>,
    /// Number of its instructions that make a step.
    pub steps: u32,
}

const fn yes() -> bool {
    true
}

/// A cache mount of a stage's steps.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScheduledCache {
    /// What caches are told apart by: `id=`, or the target.
    pub id: String,
    /// Who may use it at the same time.
    pub sharing: Sharing,
}

/// Which stage is the result for a platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScheduledResult {
    /// The requested platform.
    pub platform: Platform,
    /// Index in [`Schedule::stages`].
    pub stage: usize,
}

/// What a runner pod leaves in its termination message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum TerminationMessage {
    /// The plan pod is done.
    #[serde(rename_all = "camelCase")]
    Planned {
        /// Manifest of the plan artifact in the cache repository.
        plan: Digest,
        /// How many warnings the Dockerfile got.
        warnings: u32,
    },
    /// The stage pod is done; its result is in the cache repository and, for a result stage, in each output repository.
    #[serde(rename_all = "camelCase")]
    Finished {
        /// Manifest of the stage's result.
        manifest: Digest,
        /// Bytes of its layers and config as stored in the registry.
        size: u64,
        /// Steps executed.
        executed: u32,
        /// Steps taken from the cache.
        cached: u32,
    },
    /// A node was looked at.
    #[serde(rename_all = "camelCase")]
    Probed {
        /// Architectures, in OCI's words, whose programs run there although they are not its own.
        emulates: Vec<String>,
    },
    /// It failed, for a reason that a person or the operator can act on.
    Failed(Failure),
}

/// Why a pod failed, in a form fit for the ImageBuild's status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// A stable word; see [`FailureReason`].
    pub reason: FailureReason,
    /// What happened and what to do about it.
    pub message: String,
    /// The stage's name, for a failure of a stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// The Dockerfile's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line in it, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The instruction as written, shortened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instruction: Option<String>,
    /// The exit code of a failed `RUN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The last log lines, bounded.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub log: String,
    /// For how many seconds a registry asked to be left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u32>,
}

/// The stable reason words of a failure that a runner can tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FailureReason {
    /// The Dockerfile does not parse or means nothing.
    DockerfileInvalid,
    /// The Dockerfile, or a file that it copies, is not in the source.
    FileNotFound,
    /// A base image (or an image copied from) does not exist.
    ImageNotFound,
    /// A policy of the platform team does not allow a base image.
    PolicyViolation,
    /// A registry refused the credentials, or wants some.
    RegistryUnauthorized,
    /// A registry did not answer.
    RegistryUnreachable,
    /// A registry answered with an error.
    RegistryError,
    /// A registry has had too many requests.
    RegistryRateLimited,
    /// The source could not be fetched.
    SourceUnreachable,
    /// A `RUN` ended with a code other than 0.
    StepFailed,
    /// A `RUN` was killed for want of memory.
    OutOfMemory,
    /// A build secret that a step requires is not there.
    SecretNotFound,
    /// The node does not let a pod do what a build needs.
    SandboxUnavailable,
    /// The store is full.
    NoSpace,
    /// The pod was told to stop (SIGTERM) before it was done: deleted, evicted, or its node shuts down.
    Stopped,
    /// Anything else: a fault of Slipway.
    #[default]
    Internal,
}

impl FailureReason {
    /// The word, as it stands in conditions and events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DockerfileInvalid => "DockerfileInvalid",
            Self::FileNotFound => "FileNotFound",
            Self::ImageNotFound => "ImageNotFound",
            Self::PolicyViolation => "PolicyViolation",
            Self::RegistryUnauthorized => "RegistryUnauthorized",
            Self::RegistryUnreachable => "RegistryUnreachable",
            Self::RegistryError => "RegistryError",
            Self::RegistryRateLimited => "RegistryRateLimited",
            Self::SourceUnreachable => "SourceUnreachable",
            Self::StepFailed => "StepFailed",
            Self::OutOfMemory => "OutOfMemory",
            Self::SecretNotFound => "SecretNotFound",
            Self::SandboxUnavailable => "SandboxUnavailable",
            Self::NoSpace => "NoSpace",
            Self::Stopped => "Stopped",
            Self::Internal => "Internal",
        }
    }
}

impl TerminationMessage {
    /// The JSON of this message within [`TERMINATION_LIMIT`] bytes: the log loses its oldest lines first, then the
    /// message its end.
    pub fn to_bounded_json(&self) -> String {
        let mut message = self.clone();
        loop {
            let text = serde_json::to_string(&message).unwrap_or_default();
            if text.len() <= TERMINATION_LIMIT {
                return text;
            }
            let Self::Failed(failure) = &mut message else {
                return text;
            };
            if failure.log.is_empty() {
                let cut = failure.message.floor_char_boundary(failure.message.len() / 2);
                failure.message.truncate(cut);
            } else if let Some(newline) = failure.log.find('\n') {
                failure.log.drain(..=newline);
            } else {
                failure.log.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_loses_its_oldest_lines() {
        let log = (0..1000)
            .map(|n| format!("line {n}"))
            .collect::<Vec<_>>()
            .join("\n");
        let text = TerminationMessage::Failed(Failure {
            log,
            message: "failed".into(),
            ..Failure::default()
        })
        .to_bounded_json();
        assert!(text.len() <= TERMINATION_LIMIT);
        assert!(text.contains("line 999") && !text.contains("line 1\\n"));
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let message = "é".repeat(10_000);
        let text = TerminationMessage::Failed(Failure {
            message,
            ..Failure::default()
        })
        .to_bounded_json();
        assert!(text.len() <= TERMINATION_LIMIT && serde_json::from_str::<TerminationMessage>(&text).is_ok());
    }
}
