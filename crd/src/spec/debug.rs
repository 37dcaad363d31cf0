//! `spec.debug`: help in finding out why a build fails.

#![allow(
    unreachable_pub,
    reason = "KubeSchema repeats each type inside a function body"
)]

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::rules;

/// Help in finding out why a build fails.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DebugOptions {
    /// Keep the pod and the files of a `RUN` that failed for this long, to look at them with `kubectl exec`: `15m`; at most
    /// `24h`. The build has failed all the same, at once; `status.failure` says how to get in. The pod has a second
    /// container for that, and keeps its node's memory and disk until the time is over or the pod is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16))]
    #[x_kube(validation = Rule::new(rules::HOLD_FAILED.0).message(rules::HOLD_FAILED.1))]
    pub hold_failed: Option<String>,
}
