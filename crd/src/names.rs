//! Labels, annotations and other names that Slipway puts on objects. They are part of the API: people select by them.

/// The API group, and the prefix of every label and annotation.
pub const GROUP: &str = "slipway.build";
/// The field manager of everything that the operator applies.
pub const FIELD_MANAGER: &str = "slipway";

/// Label: name of the ImageBuild that an object belongs to (shortened with a hash where it exceeds 63 characters).
pub const LABEL_BUILD: &str = "slipway.build/build";
/// Label: number of the ImageBuild's run that a pod was made for, as `status.runs` counts them.
pub const LABEL_RUN: &str = "slipway.build/run";
/// Label: `plan`, `stage` or `request`; `cache` for the claim of a cache mount.
pub const LABEL_KIND: &str = "slipway.build/kind";
/// Label: id of the stage in the plan, like `build-linux-amd64`; stage pods only.
pub const LABEL_STAGE: &str = "slipway.build/stage";
/// Label: platform of the stage with dashes, like `linux-arm64`; stage pods only.
pub const LABEL_PLATFORM: &str = "slipway.build/platform";
/// Label: which attempt at its work a pod is, from 1.
pub const LABEL_ATTEMPT: &str = "slipway.build/attempt";
/// Prefix of a label for each claim of a cache mount that a stage pod uses, with the claim's name behind it; the value is
/// its sharing: `shared`, `private` or `locked`.
pub const LABEL_CLAIM_PREFIX: &str = "cache.slipway.build/";

/// Label: id of the cache mount that a claim holds, shortened with a hash; claims only.
pub const LABEL_CACHE: &str = "slipway.build/cache";
/// Label: the architecture that a claim's content is for, like `amd64` or `arm-v7`; claims only.
pub const LABEL_ARCHITECTURE: &str = "slipway.build/architecture";
/// Label: which of the claims of an id and architecture it is, from 0; claims only.
pub const LABEL_NUMBER: &str = "slipway.build/number";

/// Prefix of a node's label: it can run programs of the architecture that follows, under emulation, if the value is `true`.
/// The operator sets it where it probes nodes; elsewhere an administrator may.
pub const LABEL_EMULATES: &str = "emulation.slipway.build/";
/// A node's label: what it was probed with; another runner or emulator asks for a new probe.
pub const LABEL_PROBED: &str = "slipway.build/emulation-probed";

/// Annotation of an ImageBuild: stop what it is doing. A value that has not been seen before, best a sentence that says why,
/// cancels the run that is under way or waits; it does nothing to a later one.
pub const ANNOTATION_CANCEL: &str = "slipway.build/cancel";
/// Annotation of an ImageBuild: build again. A value that has not been seen before, for instance the time, begins a run
/// although nothing has changed.
pub const ANNOTATION_REBUILD: &str = "slipway.build/rebuild";

/// Label: what manages an object, with the value [`MANAGED_BY`].
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`LABEL_MANAGED_BY`]: the operator watches the pods that have it.
pub const MANAGED_BY: &str = "slipway";
