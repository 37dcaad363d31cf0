//! The claims of cache mounts in a stage's pod: volumes, the labels by which others see them in use, and the node.

use k8s_openapi::{
    api::core::v1::{
        Affinity, PersistentVolumeClaimVolumeSource, Pod, PodAffinity, PodAffinityTerm, Volume, VolumeMount,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
};
use slipway_plan::{Sharing, protocol};

use super::Volumes;
use crate::claims;

/// A claim for one of a stage's cache mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheVolume {
    /// The mount's place in `ScheduledStage::caches`.
    pub place: usize,
    /// The claim's name.
    pub claim: String,
    /// How the mount is shared.
    pub sharing: Sharing,
    /// Other pods use it, and its volume can be used from one node only.
    pub follows: bool,
}

/// Adds the volumes. Two mounts of one id are one claim, and one volume.
pub(super) fn mount(volumes: &mut Volumes, caches: &[CacheVolume]) {
    for cache in caches {
        let first = caches
            .iter()
            .find(|other| other.claim == cache.claim)
            .map_or(cache.place, |other| other.place);
        let name = format!("cache-{first}");
        if first == cache.place {
            volumes.volumes.push(Volume {
                name: name.clone(),
                persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                    claim_name: cache.claim.clone(),
                    read_only: None,
                }),
                ..Volume::default()
            });
        }
        volumes.mounts.push(VolumeMount {
            name,
            mount_path: format!("{}/{}", protocol::CACHES_DIR, cache.place),
            ..VolumeMount::default()
        });
    }
}

/// Labels a pod with its claims, and brings it to the node where others use them.
pub(super) fn mark(pod: &mut Pod, caches: &[CacheVolume]) {
    let labels = pod.metadata.labels.get_or_insert_default();
    // The stricter of two mounts of one claim is what others see.
    for cache in caches {
        let value = labels.entry(claims::label(&cache.claim)).or_default();
        if value != Sharing::Locked.as_str() {
            cache.sharing.as_str().clone_into(value);
        }
    }
    let terms: Vec<PodAffinityTerm> = caches
        .iter()
        .filter(|cache| cache.follows)
        .map(|cache| PodAffinityTerm {
            label_selector: Some(LabelSelector {
                match_expressions: Some(vec![LabelSelectorRequirement {
                    key: claims::label(&cache.claim),
                    operator: "Exists".to_owned(),
                    values: None,
                }]),
                match_labels: None,
            }),
            topology_key: "kubernetes.io/hostname".to_owned(),
            ..PodAffinityTerm::default()
        })
        .collect();
    if terms.is_empty() {
        return;
    }
    // Required, and yet no dead end: when the others have gone in the meantime, the pod matches its own term.
    if let Some(spec) = &mut pod.spec {
        let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
        let near: &mut PodAffinity = affinity.pod_affinity.get_or_insert_default();
        near.required_during_scheduling_ignored_during_execution
            .get_or_insert_default()
            .extend(terms);
    }
}
