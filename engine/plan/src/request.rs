//! What a build asks the planner for, and what the planner asks back: configs of base images.

use crate::{
    model::{BuildPlan, HostEntry, Network, Ulimit},
    protocol::{FailureReason, NoCache},
};
use serde::{Deserialize, Serialize};
use slipway_dockerfile::Dockerfile;
use slipway_oci::{Digest, ImageConfig, Platform, Reference};
use std::collections::BTreeMap;

/// What to plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanRequest {
    /// The parsed Dockerfile.
    pub dockerfile: Dockerfile,
    /// The stage to build, by name in any case; the last one when absent.
    pub target: Option<String>,
    /// Names of stages, in any case, that are planned though the target does not need them: it is as good as done only when
    /// they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<String>,
    /// The platforms to build for, in order. None: for `build_platform`, or for what the base image offers.
    pub platforms: Vec<Platform>,
    /// What `BUILDPLATFORM` is.
    pub build_platform: Platform,
    /// `--build-arg`
    pub args: BTreeMap<String, String>,
    /// `--label`
    pub labels: BTreeMap<String, String>,
    /// `--build-context`: name to `docker-image://…`, `oci-layout://…`, `local:…`, or a git or http(s) URL.
    pub contexts: BTreeMap<String, String>,
    /// Which cached results to ignore.
    pub no_cache: NoCache,
    /// `--allow`
    pub allow: Entitlements,
    /// `--network`: for every `RUN` that does not name one itself.
    pub network: Network,
    /// Host name of steps; the build argument `BUILDKIT_SANDBOX_HOSTNAME` wins.
    pub hostname: Option<String>,
    /// `--add-host`
    pub add_hosts: Vec<HostEntry>,
    /// `--shm-size`, bytes.
    pub shm_size: Option<u64>,
    /// `--ulimit`
    pub ulimits: Vec<Ulimit>,
    /// The patterns of the context's ignore file, in order, for `CopyIgnoredFile`.
    pub ignore: Vec<String>,
    /// Times of the sources that `SOURCE_DATE_EPOCH` may name: `context` and named contexts, where they have one (the
    /// commit's, the server's `Last-Modified`), in seconds since 1970.
    pub source_times: BTreeMap<String, i64>,
    /// Check all stages, whether needed or not (`--check` without a target). Stages that are not needed still are not in the plan.
    pub all_stages: bool,
}

impl PlanRequest {
    /// A request for the last stage, for `platform`, with nothing special.
    pub fn new(dockerfile: Dockerfile, platform: Platform) -> Self {
        Self {
            dockerfile,
            target: None,
            gates: Vec::new(),
            platforms: vec![platform.clone()],
            build_platform: platform,
            args: BTreeMap::new(),
            labels: BTreeMap::new(),
            contexts: BTreeMap::new(),
            no_cache: NoCache::No,
            allow: Entitlements::default(),
            network: Network::Default,
            hostname: None,
            add_hosts: Vec::new(),
            shm_size: None,
            ulimits: Vec::new(),
            ignore: Vec::new(),
            source_times: BTreeMap::new(),
            all_stages: false,
        }
    }
}

/// What steps may do beyond the usual (`--allow`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entitlements {
    /// `network.host`
    pub network_host: bool,
    /// `security.insecure`
    pub security_insecure: bool,
}

/// An image whose config the planner needs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BaseRequest {
    /// Its name.
    pub reference: Reference,
    /// The platform that it is wanted for.
    pub platform: Platform,
    /// The OCI image layout to find it in (the store of `oci-layout://store@digest`); a registry when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<String>,
}

/// An image that was looked up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedBase {
    /// Digest of the manifest that was chosen for the platform.
    pub digest: Digest,
    /// Its config.
    pub config: ImageConfig,
}

/// Why an image could not be looked up; the planner adds the place and close names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BaseError {
    /// What happened and what to do.
    pub message: String,
    /// Why: [`FailureReason::ImageNotFound`] if it does not exist (or not for this platform), else what kept the registry
    /// from answering.
    pub reason: FailureReason,
    /// For how many seconds the registry asked to be left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u32>,
}

/// Diagnostic codes of images that could not be had, and the reasons that they stand for. Any other reason is told as
/// the last of them.
const IMAGE_CODES: [(&str, FailureReason); 6] = [
    ("image-not-found", FailureReason::ImageNotFound),
    ("image-not-allowed", FailureReason::PolicyViolation),
    ("registry-unauthorized", FailureReason::RegistryUnauthorized),
    ("registry-unreachable", FailureReason::RegistryUnreachable),
    ("registry-rate-limited", FailureReason::RegistryRateLimited),
    ("image-unavailable", FailureReason::RegistryError),
];

impl BaseError {
    /// The code of the diagnostic that tells it.
    pub(crate) fn code(&self) -> &'static str {
        let known = IMAGE_CODES.iter().find(|(_, reason)| *reason == self.reason);
        known.map_or("image-unavailable", |(code, _)| code)
    }
}

/// What kept a build from being planned, by the code of the diagnostic: an image that could not be had, or else the
/// Dockerfile itself.
pub fn failure_reason(code: &str) -> FailureReason {
    let known = IMAGE_CODES.iter().find(|(known, _)| *known == code);
    known.map_or(FailureReason::DockerfileInvalid, |(_, reason)| *reason)
}

/// The images that were looked up so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bases {
    found: BTreeMap<BaseRequest, Result<ResolvedBase, BaseError>>,
}

impl Bases {
    /// No image yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers a request.
    pub fn insert(&mut self, request: BaseRequest, answer: Result<ResolvedBase, BaseError>) {
        self.found.insert(request, answer);
    }

    /// The answer to a request, if it was given.
    pub fn get(&self, request: &BaseRequest) -> Option<&Result<ResolvedBase, BaseError>> {
        self.found.get(request)
    }
}

/// What planning came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Look these images up, put the answers into the [`Bases`] and plan again. Never empty, never one that was answered.
    Need(Vec<BaseRequest>),
    /// The plan.
    Ready(Box<BuildPlan>),
}
