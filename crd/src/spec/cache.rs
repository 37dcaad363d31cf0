//! `spec.cache`: where results are kept between builds, and which of them a build uses.

#![allow(
    unreachable_pub,
    reason = "KubeSchema repeats each type inside a function body"
)]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::CacheMounts;
use crate::rules;

/// Where results are kept, and which of them are used.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new(rules::NO_CACHE_ONCE.0).message(rules::NO_CACHE_ONCE.1))]
#[serde(rename_all = "camelCase")]
pub struct Cache {
    /// The repository for contexts, plans, stage results and cache entries; that of the first image when left out. Name
    /// one if the images' names change from build to build, else each repository has a cache of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new(rules::CACHE_REPOSITORY.0).message(rules::CACHE_REPOSITORY.1))]
    pub repository: Option<String>,
    /// Further repositories to take results from, asked in this order after `repository`. Nothing is written there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 512)))]
    #[x_kube(
        validation = Rule::new(rules::CACHE_FROM.0).message(rules::CACHE_FROM.1),
        merge_strategy = ListMerge::Set
    )]
    pub from: Vec<String>,
    /// Whose steps are kept, each by itself: `max` for those of all stages, `min` for those only whose layers are in the
    /// image. What one stage hands to another is in the repository in any case.
    #[serde(default)]
    pub mode: CacheMode,
    /// A name under which this build keeps its results, apart from those of other scopes and of builds without one. It
    /// reads its own scope and what builds without a scope have kept; a build without a scope never reads a scope. For
    /// builds of code that nobody has reviewed, such as pull requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 40))]
    #[x_kube(validation = Rule::new(rules::CACHE_SCOPE.0).message(rules::CACHE_SCOPE.1))]
    pub scope: Option<String>,
    /// Run every step although its result is known. New results are kept all the same.
    #[serde(default)]
    pub no_cache: bool,
    /// Run the steps of these stages although their results are known; names in any case. A stage that reads files of one
    /// of them takes its own results from the cache if those files have come out the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 128)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub no_cache_stages: Vec<String>,
    /// The volumes in which `RUN --mount=type=cache` keeps its files from build to build.
    #[serde(default)]
    pub mounts: CacheMounts,
}

/// Whose steps are kept in the cache, each by itself.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheMode {
    /// Those whose layers are in the image.
    Min,
    /// Those of all stages.
    #[default]
    Max,
}
