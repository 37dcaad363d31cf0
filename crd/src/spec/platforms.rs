//! `spec.emulation` and `spec.platformFailure`: several platforms in one image.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether programs of a foreign architecture are run under emulation.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Emulation {
    /// Stages wait for a node of their own architecture.
    Never,
    /// A stage runs under QEMU where the cluster has no node of its architecture and a node that can emulate it.
    #[default]
    IfNoNativeNode,
    /// A stage of another architecture than the operator's runs under QEMU even where there are nodes of its own.
    Always,
}

/// What becomes of the other platforms when one fails.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PlatformFailure {
    /// The build fails, and nothing is published.
    #[default]
    Fail,
    /// The platforms that succeed are published, and the status names the others.
    PublishRest,
}
