//! What a user asks for. Every doc comment here becomes the text of `kubectl explain imagebuild.spec…`.

#![allow(
    clippy::duplicated_attributes,
    reason = "each printer column has a type of its own"
)]
#![allow(
    unreachable_pub,
    reason = "KubeSchema repeats each type inside a function body"
)]

mod cache;
mod concurrency;
mod debug;
mod mounts;
mod output;
mod platforms;
mod pods;
mod secrets;
mod source;

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{rules, status::ImageBuildStatus};

pub use cache::{Cache, CacheMode};
pub use concurrency::{Concurrency, ConcurrencyPolicy};
pub use debug::DebugOptions;
pub use mounts::{AccessMode, CacheMounts};
pub use output::Output;
pub use platforms::{Emulation, PlatformFailure};
pub use pods::{EnvVar, Pods, StagePods};
pub use secrets::Secret;
pub use source::{ConfigMapSource, KeyToPath, Source};

/// The Dockerfile's path when the spec names none.
pub const DEFAULT_DOCKERFILE: &str = "Dockerfile";
/// The platform when the spec names none. Fixed rather than that of the cluster's nodes, so that one manifest gives the
/// same image on every cluster.
pub const DEFAULT_PLATFORM: &str = "linux/amd64";
/// The time that a build may take when the spec says nothing.
pub const DEFAULT_TIMEOUT: &str = "1h";
/// How often a stage runs again after a transient fault when the spec says nothing.
pub const DEFAULT_RETRIES: u32 = 2;

/// An image to be built from a Dockerfile.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "slipway.build",
    version = "v1alpha1",
    kind = "ImageBuild",
    plural = "imagebuilds",
    shortname = "ib",
    category = "slipway",
    namespaced,
    doc = "An image that Slipway builds from a Dockerfile: each stage in a pod of its own, pushed to every image name. A change of the spec builds again.",
    status = "ImageBuildStatus",
    derive = "PartialEq",
    annotation("helm.sh/resource-policy", "keep"),
    label("app.kubernetes.io/part-of", "slipway"),
    selectable = ".status.phase",
    printcolumn(
        name = "Phase",
        type_ = "string",
        json_path = ".status.phase",
        description = "How far the build is"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status",
        description = "Whether the image is at every tag"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason",
        description = "Why it is, or is not, ready"
    ),
    printcolumn(
        name = "Stages",
        type_ = "string",
        json_path = ".status.progress",
        description = "Stages done of those that the target needs"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Image",
        type_ = "string",
        json_path = ".spec.output.images[0]",
        description = "The first name of the image",
        priority = "1"
    ),
    printcolumn(
        name = "Digest",
        type_ = "string",
        json_path = ".status.image.digest",
        description = "The digest at every tag",
        priority = "1"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        description = "What happens or what to do",
        priority = "1"
    )
)]
#[x_kube(validation = Rule::new(rules::SOURCE_OR_INLINE.0).message(rules::SOURCE_OR_INLINE.1))]
#[serde(rename_all = "camelCase")]
pub struct ImageBuildSpec {
    /// The files that the Dockerfile can copy from: exactly one kind of source. May be left out when
    /// `dockerfile.inline` is given and copies nothing from a context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,

    /// The Dockerfile: a path in the source, or its text.
    #[serde(default)]
    pub dockerfile: Dockerfile,

    /// The stage to build, by its name or number; the last one when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub target: Option<String>,

    /// Stages that must succeed, for every platform, before any tag is written, though the target does not need them: tests and
    /// checks. By their names; a name that the Dockerfile does not have fails the build.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 128)))]
    #[x_kube(
        validation = Rule::new(rules::GATES.0).message(rules::GATES.1),
        merge_strategy = ListMerge::Set
    )]
    pub gates: Vec<String>,

    /// The platforms to build for, as `linux/ARCHITECTURE[/VARIANT]`. Several give one multi-platform image. The default
    /// is `linux/amd64` whatever the cluster's nodes are, so that a manifest means the same on every cluster.
    #[serde(default = "default_platforms")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 32)))]
    #[x_kube(
        validation = Rule::new(rules::PLATFORMS.0).message(rules::PLATFORMS.1),
        merge_strategy = ListMerge::Set
    )]
    pub platforms: Vec<String>,

    /// Whether stages of a platform that no node of the cluster has are run under QEMU: `Never`, `IfNoNativeNode` or
    /// `Always`. Stages that run nothing (`COPY`, metadata) need no node of their platform in any case.
    #[serde(default)]
    pub emulation: Emulation,

    /// What becomes of the image when a platform's stages fail: `Fail` publishes nothing, `PublishRest` publishes the
    /// platforms that succeed and names the others in the status.
    #[serde(default)]
    pub platform_failure: PlatformFailure,

    /// Values for the Dockerfile's `ARG`s. They end up in the image's history: never put a secret here, use `secrets`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub args: Vec<Arg>,

    /// Labels for the image, in addition to the Dockerfile's own; these win.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 128))]
    pub labels: BTreeMap<String, String>,

    /// Secrets that `RUN --mount=type=secret,id=…` can read. A Secret is mounted only into the pods of those stages that
    /// name its id, and its value never enters a layer, a log or the cache.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new(rules::SECRET_IDS.0).message(rules::SECRET_IDS.1))]
    pub secrets: Vec<Secret>,

    /// Where results are kept for the next build, and whether this one uses them.
    #[serde(default)]
    pub cache: Cache,

    /// Where the image goes.
    pub output: Output,

    /// Settings for the pods that build.
    #[serde(default)]
    pub pods: Pods,

    /// How long the build may take in all, waiting for nodes included: `90s`, `30m`, `1h30m`; at most `168h`.
    #[serde(default = "default_timeout")]
    #[schemars(length(min = 2, max = 16))]
    #[x_kube(validation = Rule::new(rules::TIMEOUT.0).message(rules::TIMEOUT.1))]
    pub timeout: String,

    /// How often the plan or a stage is tried again after a fault that is not its own: an evicted pod, a lost node, want
    /// of memory, a registry that does not answer. A `RUN` that fails is not tried again.
    #[serde(default = "default_retries")]
    #[schemars(range(min = 0, max = 10))]
    #[schemars(extend("format" = "int32"))]
    pub retries: u32,

    /// What the memory of a stage's pod (limit and request) is multiplied by each time that it ran out of memory and is tried
    /// again: `"1.5"`; up to 4. It is tried again with the same memory when left out. The chart's `runner.maxRetryMemory` is
    /// the bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4))]
    #[x_kube(validation = Rule::new(rules::RETRY_MEMORY_FACTOR.0).message(rules::RETRY_MEMORY_FACTOR.1))]
    pub retry_memory_factor: Option<String>,

    /// Help in finding out why the build fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debug: Option<DebugOptions>,

    /// How this build goes together with others of its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,

    /// Delete this ImageBuild so many seconds after it ended; the image stays. Kept for ever when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    #[schemars(extend("format" = "int32"))]
    pub ttl_seconds_after_finished: Option<u32>,

    /// Stop: a running build's pods are deleted and none are created until this is false again. Stages that are done
    /// stay in the cache.
    #[serde(default)]
    pub suspend: bool,
}

fn default_platforms() -> Vec<String> {
    vec![DEFAULT_PLATFORM.to_owned()]
}

fn default_timeout() -> String {
    DEFAULT_TIMEOUT.to_owned()
}

const fn default_retries() -> u32 {
    DEFAULT_RETRIES
}

/// The Dockerfile: a path in the source, or its text.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new(rules::PATH_XOR_INLINE.0).message(rules::PATH_XOR_INLINE.1))]
#[serde(rename_all = "camelCase")]
pub struct Dockerfile {
    /// Path of the Dockerfile in the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new(rules::DOCKERFILE_PATH.0).message(rules::DOCKERFILE_PATH.1))]
    pub path: Option<String>,
    /// The text of the Dockerfile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 262_144))]
    pub inline: Option<String>,
}

impl Default for Dockerfile {
    fn default() -> Self {
        Self {
            path: Some(DEFAULT_DOCKERFILE.to_owned()),
            inline: None,
        }
    }
}

/// A value for an `ARG`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new(rules::ARG_VALUE.0).message(rules::ARG_VALUE.1))]
#[serde(rename_all = "camelCase")]
pub struct Arg {
    /// The `ARG`'s name.
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new(rules::ARG_NAME.0).message(rules::ARG_NAME.1))]
    pub name: String,
    /// The value itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8192))]
    pub value: Option<String>,
    /// Where the value comes from; it is read when the build begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<ArgSource>,
}

/// Where an argument's value comes from.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArgSource {
    /// A key of a ConfigMap of the same namespace.
    pub config_map_key_ref: KeyRef,
}

/// A key of a ConfigMap or Secret of the same namespace.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyRef {
    /// Name of the ConfigMap or Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// An object of the same namespace, by its name.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NameRef {
    /// The object's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}
