//! `spec.output`: where the image goes.

#![allow(
    unreachable_pub,
    reason = "KubeSchema repeats each type inside a function body"
)]

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::NameRef;
use crate::rules;

/// Where the image goes.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// The image's names, each `REGISTRY/REPOSITORY:TAG`. All are written when all stages are done, or none.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 512)))]
    #[x_kube(
        validation = Rule::new(rules::IMAGES_NO_DIGEST.0).message(rules::IMAGES_NO_DIGEST.1),
        validation = Rule::new(rules::IMAGES.0).message(rules::IMAGES.1),
        merge_strategy = ListMerge::Set
    )]
    pub images: Vec<String>,
    /// Annotations for the image: on the manifest of each platform, and on the index over them. Those that tell the base
    /// (`org.opencontainers.image.base.name` and `…digest`) are written by themselves.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 128))]
    #[x_kube(validation = Rule::new(rules::ANNOTATIONS.0).message(rules::ANNOTATIONS.1))]
    pub annotations: BTreeMap<String, String>,
    /// Secrets of type `kubernetes.io/dockerconfigjson` of the same namespace, for all registries that the build reads
    /// from and writes to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub credentials: Vec<NameRef>,
}
