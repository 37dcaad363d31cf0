//! The pod that finds out which other architectures a node can emulate.

use k8s_openapi::{
    api::core::v1::{
        Container, EmptyDirVolumeSource, Pod, PodSecurityContext, PodSpec, SeccompProfile, Toleration,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use slipway_crd::names;

use super::{CONTAINER, Volumes, isolation};
use crate::{config::Config, naming};

/// Pulling the two images may take its time; the probe itself takes less than a second.
const DEADLINE_SECONDS: i64 = 300;

/// A pod on `node`, with the rights that a stage's pod has, so that it finds what a stage would find.
pub fn probe_pod(config: &Config, namespace: &str, node: &str) -> Pod {
    let mut volumes = Volumes::default();
    volumes.emulators(config);
    volumes.empty("store", slipway_plan::protocol::STORE_DIR, None);
    volumes.empty("tmp", "/tmp", None);
    let runner = &config.runner;
    Pod {
        metadata: ObjectMeta {
            name: Some(naming::bounded(&format!("slipway-probe-{node}"))),
            namespace: Some(namespace.to_owned()),
            labels: Some(
                [
                    (names::LABEL_MANAGED_BY, names::MANAGED_BY),
                    ("app.kubernetes.io/name", "slipway-probe"),
                    ("app.kubernetes.io/part-of", "slipway"),
                    (names::LABEL_KIND, "probe"),
                ]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            ),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            // Not by the scheduler: this node is meant, whatever its taints.
            node_name: Some(node.to_owned()),
            tolerations: Some(vec![Toleration {
                operator: Some("Exists".to_owned()),
                ..Toleration::default()
            }]),
            containers: vec![Container {
                name: CONTAINER.to_owned(),
                image: Some(runner.image.clone()),
                image_pull_policy: Some(runner.image_pull_policy.clone()),
                args: Some(vec!["emulation".to_owned()]),
                security_context: Some(isolation::security()),
                termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
                volume_mounts: Some(volumes.mounts),
                ..Container::default()
            }],
            volumes: Some(volumes.volumes.into_iter().map(bounded).collect()),
            restart_policy: Some("Never".to_owned()),
            active_deadline_seconds: Some(DEADLINE_SECONDS),
            host_users: isolation::host_users(config.isolation.mode),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            security_context: Some(PodSecurityContext {
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".to_owned(),
                    localhost_profile: None,
                }),
                ..PodSecurityContext::default()
            }),
            image_pull_secrets: (!runner.image_pull_secrets.is_empty())
                .then(|| runner.image_pull_secrets.clone()),
            ..PodSpec::default()
        }),
        status: None,
    }
}

/// An emulator is a few megabytes; a probe needs no more of a node's disk.
fn bounded(volume: k8s_openapi::api::core::v1::Volume) -> k8s_openapi::api::core::v1::Volume {
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    let empty_dir = volume.empty_dir.map(|_| EmptyDirVolumeSource {
        size_limit: Some(Quantity("256Mi".to_owned())),
        medium: None,
    });
    k8s_openapi::api::core::v1::Volume { empty_dir, ..volume }
}
