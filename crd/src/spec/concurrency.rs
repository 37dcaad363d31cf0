//! `spec.concurrency`: which builds belong together.

#![allow(
    unreachable_pub,
    reason = "KubeSchema repeats each type inside a function body"
)]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rules;

/// Which builds belong together, and what that means.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Concurrency {
    /// The group's name: all ImageBuilds of the namespace that say the same are in it. For instance the branch that a CI
    /// system makes one ImageBuild a commit for.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new(rules::CONCURRENCY_GROUP.0).message(rules::CONCURRENCY_GROUP.1))]
    pub group: String,
    /// What this build does while another of the group runs: `Allow` builds beside it, `Queue` waits for its turn, and
    /// `Latest` waits too but is cancelled when a newer `Latest` build of the group comes. A build that runs is never
    /// stopped by another.
    #[serde(default)]
    pub policy: ConcurrencyPolicy,
    /// Of the group's builds that succeeded keep the newest so many, and delete the older ImageBuilds; the images stay.
    /// What the newest build of the group says holds for all. All are kept when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    #[schemars(extend("format" = "int32"))]
    pub successful_history_limit: Option<u32>,
    /// The same for those that failed or were cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    #[schemars(extend("format" = "int32"))]
    pub failed_history_limit: Option<u32>,
}

/// What a build does while another of its group runs.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ConcurrencyPolicy {
    /// It does not care.
    #[default]
    Allow,
    /// It waits until it is its turn: one of the group at a time, in the order in which they were asked for.
    Queue,
    /// As `Queue`; and one that waits is cancelled when a newer `Latest` build of the group comes.
    Latest,
}
