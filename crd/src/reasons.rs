//! The stable reason words of conditions and events. A word never changes its meaning; scripts may depend on it.
//!
//! A failure that a runner tells has the word of `slipway_plan::protocol::FailureReason`, passed on as it is
//! (`DockerfileInvalid`, `FileNotFound`, `ImageNotFound`, `RegistryUnauthorized`, `RegistryUnreachable`,
//! `RegistryError`, `RegistryRateLimited`, `SourceUnreachable`, `StepFailed`, `OutOfMemory`, `SecretNotFound`, `SandboxUnavailable`, `NoSpace`,
//! `Internal`). The words here are the operator's own.

/// The build has been seen and not begun.
pub const PENDING: &str = "Pending";
/// The plan pod is at work.
pub const PLANNING: &str = "Planning";
/// Stage pods are at work.
pub const RUNNING: &str = "Running";
/// All stages are done; the tags are being written.
pub const ASSEMBLING: &str = "Assembling";
/// The image is at every tag.
pub const SUCCEEDED: &str = "Succeeded";
/// The build ended without an image.
pub const FAILED: &str = "Failed";
/// `spec.suspend` is set.
pub const SUSPENDED: &str = "Suspended";
/// A newer generation took the place of a running one.
pub const SUPERSEDED: &str = "Superseded";
/// The annotation `slipway.build/cancel` has stopped the build.
pub const CANCELLED: &str = "Cancelled";
/// A newer build of the concurrency group has taken the place of one that waited.
pub const REPLACED: &str = "Replaced";
/// The build waits for others to end: of its concurrency group, or because a limit of the chart is reached.
pub const QUEUED: &str = "Queued";
/// No node of the cluster is of a stage's platform, and none can emulate it; the build goes on when one joins.
pub const NO_NODE_FOR_PLATFORM: &str = "NoNodeForPlatform";
/// It is being found out which architectures the nodes can emulate.
pub const PROBING_NODES: &str = "ProbingNodes";
/// The image is at every tag, without the platforms whose stages failed (`spec.platformFailure: PublishRest`).
pub const PLATFORMS_MISSING: &str = "PlatformsMissing";
/// A pod waits for a node that can take it.
pub const UNSCHEDULABLE: &str = "Unschedulable";
/// The namespace's quota or an admission policy refuses a pod; the operator tries again.
pub const POD_REFUSED: &str = "PodRefused";
/// The namespace's ResourceQuota is used up; the operator tries again.
pub const QUOTA_EXCEEDED: &str = "QuotaExceeded";
/// A pod cannot start: its runner image cannot be pulled.
pub const RUNNER_IMAGE_UNAVAILABLE: &str = "RunnerImageUnavailable";
/// A pod cannot start for a reason of its node or its volumes.
pub const POD_CANNOT_START: &str = "PodCannotStart";
/// A pod cannot have a user namespace: its node, or the API server, has none.
pub const USER_NAMESPACES_UNAVAILABLE: &str = "UserNamespacesUnavailable";
/// A pod was evicted, preempted, or its node shut down.
pub const POD_EVICTED: &str = "PodEvicted";
/// A pod or its node vanished.
pub const POD_LOST: &str = "PodLost";
/// A stage is about to run again after a fault that was not its own.
pub const RETRYING: &str = "Retrying";
/// The build took longer than `spec.timeout`.
pub const TIMED_OUT: &str = "TimedOut";
/// The plan has more stages than a status can hold.
pub const TOO_MANY_STAGES: &str = "TooManyStages";
/// The spec says something that the schema's rules cannot see and that cannot be built.
pub const SPEC_INVALID: &str = "SpecInvalid";
/// A Secret, or a key of it, is not there.
pub const SECRET_NOT_FOUND: &str = "SecretNotFound";
/// A ConfigMap, or a key of it, is not there.
pub const CONFIG_MAP_NOT_FOUND: &str = "ConfigMapNotFound";
/// A credentials Secret is not of type `kubernetes.io/dockerconfigjson`, or does not parse.
pub const CREDENTIALS_INVALID: &str = "CredentialsInvalid";
/// A registry refused the credentials, or wants some.
pub const REGISTRY_UNAUTHORIZED: &str = "RegistryUnauthorized";
/// A registry did not answer.
pub const REGISTRY_UNREACHABLE: &str = "RegistryUnreachable";
/// A registry has had too many requests; it is asked again when it allows.
pub const REGISTRY_RATE_LIMITED: &str = "RegistryRateLimited";
/// A registry answered with an error.
pub const REGISTRY_ERROR: &str = "RegistryError";
/// What a registry gave back is not what was written.
pub const DIGEST_MISMATCH: &str = "DigestMismatch";
/// A stage waits for a cache mount with `sharing=locked` that another stage, perhaps of another build, uses.
pub const CACHE_MOUNT_IN_USE: &str = "CacheMountInUse";
/// The API server refuses the claim of a cache mount.
pub const CACHE_CLAIM_REFUSED: &str = "CacheClaimRefused";
/// There is no storage class for cache mounts: what they hold is lost with each pod.
pub const NO_STORAGE_CLASS: &str = "NoStorageClass";
/// A fault of Slipway.
pub const INTERNAL: &str = "Internal";

/// A condition: it holds.
pub const DONE: &str = "Done";
/// A condition: the build has not come that far.
pub const NOT_YET: &str = "NotYet";
/// A condition: nothing keeps the build from going on.
pub const NOT_STALLED: &str = "NotStalled";

/// `status.reason`: the first run of this ImageBuild.
pub const CREATED: &str = "Created";
/// `status.reason`: the spec changed since the last run.
pub const SPEC_CHANGED: &str = "SpecChanged";
/// `status.reason`: the annotation `slipway.build/rebuild` got a new value.
pub const REBUILD_REQUESTED: &str = "RebuildRequested";
/// `status.reason`: `spec.suspend` is false again.
pub const RESUMED: &str = "Resumed";
/// `status.reason`: what was missing has appeared.
pub const INPUT_APPEARED: &str = "InputAppeared";

/// Event: a stage's pod was created.
pub const STAGE_STARTED: &str = "StageStarted";
/// Event: a stage is done.
pub const STAGE_FINISHED: &str = "StageFinished";
/// Event: another build made a stage that this one needs too.
pub const STAGE_SHARED: &str = "StageShared";
/// Event: a stage's pod was deleted because it could only wait for a stage that had no room.
pub const MADE_ROOM: &str = "MadeRoom";
/// Event: `spec.pods.stages` names what is no stage of the plan.
pub const STAGE_UNKNOWN: &str = "StageUnknown";
/// Event: the claim of a cache mount could not be grown to the size that the spec asks for.
pub const CACHE_CLAIM_NOT_GROWN: &str = "CacheClaimNotGrown";
/// Event: the plan is there.
pub const PLANNED: &str = "Planned";
/// Event: a finished ImageBuild was deleted as `spec.ttlSecondsAfterFinished` or a history limit of its concurrency group
/// asks.
pub const EXPIRED: &str = "Expired";
