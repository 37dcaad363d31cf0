//! `spec.cache`: where results are kept between builds.

#![allow(
    unreachable_pub,
    reason = "KubeSchema repeats each type inside a function body"
)]

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::rules;

/// Where results are kept, and whether they are used.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cache {
    /// The repository for contexts, plans, stage results and cache entries; that of the first image when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new(rules::CACHE_REPOSITORY.0).message(rules::CACHE_REPOSITORY.1))]
    pub repository: Option<String>,
    /// Run every step although its result is known. New results are kept all the same.
    #[serde(default)]
    pub no_cache: bool,
}
