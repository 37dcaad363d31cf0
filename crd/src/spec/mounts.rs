//! `spec.cache.mounts`: the volumes of cache mounts.

#![allow(
    unreachable_pub,
    reason = "KubeSchema repeats each type inside a function body"
)]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rules;

/// The volumes of cache mounts: one PersistentVolumeClaim of the namespace for each id and architecture, made at the first
/// use and kept when the build is deleted. What is left out is the chart's `cache.mounts`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheMounts {
    /// Storage class of a claim that is made; the cluster's default if neither spec nor chart names one. A claim that is
    /// there keeps its class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(rules::STORAGE_CLASS.0).message(rules::STORAGE_CLASS.1))]
    pub storage_class_name: Option<String>,
    /// Size of each claim, like `10Gi`. A claim that is there is grown to it if its class allows that, and never made
    /// smaller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new(rules::CACHE_MOUNT_SIZE.0).message(rules::CACHE_MOUNT_SIZE.1))]
    pub size: Option<String>,
    /// Access mode of a claim that is made. With `ReadWriteOnce` the stages that share a cache mount at the same time run
    /// on one node; with `ReadWriteMany`, which few storage classes have, on any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_mode: Option<AccessMode>,
}

/// From how many nodes a volume can be used at the same time.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AccessMode {
    /// From one.
    #[default]
    ReadWriteOnce,
    /// From any number.
    ReadWriteMany,
}

impl AccessMode {
    /// The word as it stands in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadWriteOnce => "ReadWriteOnce",
            Self::ReadWriteMany => "ReadWriteMany",
        }
    }
}
