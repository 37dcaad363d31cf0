//! What the operator answers. The operator reads it back: together with the pods and the registry it is all that a
//! restarted operator needs to go on.

#![allow(
    unreachable_pub,
    reason = "KubeSchema repeats each type inside a function body"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How far a build is, in one word for people. Programs use the conditions.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Seen, not begun; in a queue, or suspended.
    #[default]
    Pending,
    /// The plan pod is at work.
    Planning,
    /// Stage pods are at work.
    Running,
    /// The tags are being written.
    Assembling,
    /// The image is at every tag.
    Succeeded,
    /// It ended without an image.
    Failed,
    /// It was stopped: by the annotation `slipway.build/cancel`, or because a newer build of its group took its place.
    Cancelled,
}

impl Phase {
    /// The word as it stands in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Planning => "Planning",
            Self::Running => "Running",
            Self::Assembling => "Assembling",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Cancelled => "Cancelled",
        }
    }

    /// Whether the run has ended.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// What the operator knows of a build.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageBuildStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How far the build is, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Stages done of those that the target needs, like `2/5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// Why this run began, or is in the queue: `Created`, `SpecChanged`, `RebuildRequested`, `Resumed` or `InputAppeared`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `Ready`, `Reconciling` and `Stalled` as kstatus has them, and one for each step of a build.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Its place among the builds that wait, while it waits for others to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueStatus>,
    /// The value of the annotation `slipway.build/rebuild` that the newest run has honoured; another value builds again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebuild: Option<String>,
    /// The value of the annotation `slipway.build/cancel` that has been honoured; another value cancels again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<String>,
    /// How many runs this ImageBuild has begun: the number of the newest, and the pods' label `slipway.build/run`.
    #[serde(default)]
    pub runs: i64,
    /// The run that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
    /// The plan and the pod that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanStatus>,
    /// The stages that the target needs, each after those that it reads from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".into()]))]
    pub stages: Vec<StageStatus>,
    /// The image that was pushed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageStatus>,
    /// Why there is no image, or why it lacks a platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureStatus>,
}

/// A build's place among those that wait.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueStatus {
    /// 1 for the one that is next. Exact for the first 20; those further back are told anew once a minute.
    #[schemars(extend("format" = "int32"))]
    pub position: u32,
    /// The concurrency group that it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The chart's limit that it waits for: `limits.maxRunning` or `limits.maxRunningPerNamespace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// Since when it waits.
    pub since: Time,
    /// What the order goes by: the resource version at which the run was asked for. Kept here so that another operator
    /// finds the same order.
    pub ticket: i64,
}

/// One run of a build, from its beginning to an image or a failure.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// The generation of the spec that this run began with.
    pub generation: i64,
    /// A digest of the part of the spec that the image depends on: a change of the rest (`ttlSecondsAfterFinished`,
    /// `suspend` of a finished build…) builds nothing again.
    pub inputs: String,
    /// When it began.
    pub started_at: Time,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
}

/// The plan and the pod that made it.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanStatus {
    /// The plan's manifest in the cache repository, once it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The plan pod of the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// How many pods have tried.
    #[serde(default)]
    #[schemars(extend("format" = "int32"))]
    pub attempts: u32,
    /// How many warnings the Dockerfile got; the plan pod's log has them.
    #[serde(default)]
    #[schemars(extend("format" = "int32"))]
    pub warnings: u32,
}

/// How far a stage is.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StageState {
    /// It waits for the results of other stages, or to be tried again.
    #[default]
    Waiting,
    /// Its pod is there and does not run yet.
    Starting,
    /// Its pod runs.
    Running,
    /// Its result is in the registry.
    Succeeded,
    /// Its result was in the cache: no pod was needed.
    Cached,
    /// No stage that runs reads it: no pod was needed.
    Skipped,
    /// It failed.
    Failed,
    /// It was stopped because another stage failed, or the build was cancelled.
    Cancelled,
}

impl StageState {
    /// Whether the stage's result is in the registry.
    pub const fn has_result(self) -> bool {
        matches!(self, Self::Succeeded | Self::Cached)
    }

    /// Whether nothing more will happen to the stage in this run.
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Waiting | Self::Starting | Self::Running)
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A stage of one platform.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StageStatus {
    /// Unique in the build: `build-linux-amd64`; the pods' label `slipway.build/stage`.
    pub id: String,
    /// The key of its result, if another build may make it as well: stages of the same key are the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The stage's name in the Dockerfile, or `stage-N`.
    pub name: String,
    /// The platform that its programs are for.
    pub platform: String,
    /// How far it is.
    pub state: StageState,
    /// The pod of the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The node of that pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Steps done, taken from the cache, and in all.
    #[serde(default)]
    pub steps: StepCounts,
    /// How many pods have tried.
    #[serde(default)]
    #[schemars(extend("format" = "int32"))]
    pub attempts: u32,
    /// How many of its pods ran out of memory; with `spec.retryMemoryFactor` each of them gave the next one more.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(extend("format" = "int32"))]
    pub out_of_memory: u32,
    /// How many of its pods made room for a stage that they could only wait for; they do not count against `spec.retries`.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(extend("format" = "int32"))]
    pub gave_way: u32,
    /// The id of the stage that its pod made room for. It starts again when all that it reads is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gave_way_to: Option<String>,
    /// The build of the same namespace that makes the same stage, or has made it, so that this one needs no pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_with: Option<SharedWith>,
    /// When its first pod was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// The manifest of its result in the cache repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Ids of the stages that it reads from: the edges of the graph.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512))]
    pub needs: Vec<String>,
}

/// Another build that makes a stage in this one's place.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SharedWith {
    /// Its name.
    pub build: String,
    /// Since when this build has relied on it.
    pub since: Time,
}

/// Steps of a stage.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepCounts {
    /// Steps whose result is there, executed or cached; known when the stage ends.
    #[schemars(extend("format" = "int32"))]
    pub done: u32,
    /// Steps whose result came from the cache.
    #[schemars(extend("format" = "int32"))]
    pub cached: u32,
    /// All steps.
    #[schemars(extend("format" = "int32"))]
    pub total: u32,
}

/// The image that was pushed.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageStatus {
    /// The digest at every tag: of the manifest for one platform, of the index for several.
    pub digest: String,
    /// The names that were written, each as `REGISTRY/REPOSITORY:TAG`.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub names: Vec<String>,
    /// Bytes of all layers and configs in the registry; absent where the cache did not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
    /// The image of each platform.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub platforms: Vec<PlatformImage>,
}

/// The image of one platform.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlatformImage {
    /// The platform.
    pub platform: String,
    /// Its manifest.
    pub digest: String,
    /// Bytes of its layers and config in the registry; absent where the cache did not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
}

/// Why there is no image: the first failure, in the words of the pod that had it.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailureStatus {
    /// The stable word, the same as in the condition `Ready`.
    pub reason: String,
    /// What happened and what to do.
    pub message: String,
    /// The stage that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// Its platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The pod that failed; `kubectl logs` of it has more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The Dockerfile's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line in it, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "int32"))]
    pub line: Option<u32>,
    /// The instruction as written, shortened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instruction: Option<String>,
    /// The exit code of the `RUN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The last log lines, bounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
}
