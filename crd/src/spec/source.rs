//! `spec.source`: the files that a build can copy from.

#![allow(
    unreachable_pub,
    reason = "KubeSchema repeats each type inside a function body"
)]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rules;

/// The files that a build can copy from. Exactly one field is given.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new(rules::ONE_SOURCE.0).message(rules::ONE_SOURCE.1))]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// The files are the keys of a ConfigMap of the same namespace; for small sources, up to 1 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapSource>,
}

/// A ConfigMap as source: one file for each key.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapSource {
    /// The ConfigMap's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Which keys become which files; every key becomes a file of its own name when left out. A key has no `/` in it, so
    /// this is how files in folders are made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub items: Vec<KeyToPath>,
}

/// A key of a ConfigMap and the file that it becomes.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyToPath {
    /// The key.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
    /// The file's path, relative to the source's root.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new(rules::ITEM_PATH.0).message(rules::ITEM_PATH.1))]
    pub path: String,
}
