//! The pods that build, and the request that they are given. Pure: from an ImageBuild and the settings to objects.
//!
//! Nothing of the spec but `spec.pods` changes the shape of a pod, and nothing at all weakens it.

mod request;

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        AppArmorProfile, Capabilities, ConfigMapVolumeSource, Container, EmptyDirVolumeSource, KeyToPath,
        LocalObjectReference, Pod, PodSecurityContext, PodSpec, ProjectedVolumeSource, SeccompProfile,
        SecretProjection, SecretVolumeSource, SecurityContext, Volume, VolumeMount, VolumeProjection,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use kube::Resource as _;
use slipway_crd::{ImageBuild, names};
use slipway_oci::{Digest, Platform};
use slipway_plan::protocol::{self, ScheduledStage};

use crate::{config::Config, naming};

pub use request::{request, request_config_map};

/// The capabilities of a runner. They act inside the pod's user namespace only: on the node the pod's root is nobody.
const CAPABILITIES: [&str; 14] = [
    // Mounts the overlay of a step, its /proc and /dev.
    "SYS_ADMIN",
    // Enters the step's root: seccomp's RuntimeDefault refuses pivot_root.
    "SYS_CHROOT",
    // Makes whiteouts (a character device 0/0) in an overlay.
    "MKNOD",
    // Gives files the owners that an image or COPY --chown says.
    "CHOWN",
    // Reads and writes files of owners other than root in a layer.
    "DAC_OVERRIDE",
    // Sets modes, times and attributes of files of other owners.
    "FOWNER",
    // Keeps setuid and setgid bits when a file of another owner is written.
    "FSETID",
    // USER, and su and the like in a RUN.
    "SETUID",
    // The same for groups.
    "SETGID",
    // Layers hold files with capabilities (ping).
    "SETFCAP",
    // Takes capabilities away from a step.
    "SETPCAP",
    // Stops a step's processes of other users.
    "KILL",
    // Programs like useradd and sudo write audit records and fail if they may not.
    "AUDIT_WRITE",
    // Tests in a RUN bind ports below 1024, as they can under Docker.
    "NET_BIND_SERVICE",
];

/// Seconds between SIGTERM and SIGKILL: a cancelled build has nothing to save.
const GRACE_SECONDS: i64 = 2;
/// Name of the one container.
pub const CONTAINER: &str = "runner";

/// What pods are made from.
#[derive(Debug, Clone, Copy)]
pub struct Maker<'a> {
    /// The settings.
    pub config: &'a Config,
    /// The build.
    pub build: &'a ImageBuild,
    /// The number of its run.
    pub run: i64,
}

impl Maker<'_> {
    /// The plan pod.
    pub fn plan_pod(&self, attempt: u32) -> Pod {
        let name = naming::plan_pod(self.name(), self.run, attempt);
        let mut volumes = Volumes::default();
        if let Some(source) = self
            .build
            .spec
            .source
            .as_ref()
            .and_then(|source| source.config_map.as_ref())
        {
            let items = source
                .items
                .iter()
                .map(|item| KeyToPath {
                    key: item.key.clone(),
                    path: item.path.clone(),
                    mode: None,
                })
                .collect::<Vec<_>>();
            volumes.mount(
                "source",
                protocol::SOURCE_DIR,
                Volume {
                    config_map: Some(ConfigMapVolumeSource {
                        name: source.name.clone(),
                        items: (!items.is_empty()).then_some(items),
                        ..ConfigMapVolumeSource::default()
                    }),
                    ..Volume::default()
                },
            );
        }
        // The plan is the same wherever it is made, so any node will do that can run this operator's own kind of binary.
        let platform = Platform::host();
        let labels = [(names::LABEL_KIND, "plan".to_owned())];
        self.pod(name, attempt, &platform, labels, vec!["plan".to_owned()], volumes)
    }

    /// The pod of a stage.
    pub fn stage_pod(&self, plan: &Digest, stage: &ScheduledStage, attempt: u32) -> Pod {
        let name = naming::stage_pod(self.name(), self.run, &stage.id, attempt);
        let mut volumes = Volumes::default();
        let sources: Vec<_> = self
            .build
            .spec
            .secrets
            .iter()
            // Only those that a step of this stage names: a secret is nowhere where it is not used.
            .filter(|secret| stage.secrets.contains(&secret.id))
            .map(|secret| VolumeProjection {
                secret: Some(SecretProjection {
                    name: secret.secret_ref.name.clone(),
                    items: Some(vec![KeyToPath {
                        key: secret.secret_ref.key.clone(),
                        path: secret.id.clone(),
                        mode: None,
                    }]),
                    optional: None,
                }),
                ..VolumeProjection::default()
            })
            .collect();
        if !sources.is_empty() {
            volumes.mount(
                "secrets",
                protocol::SECRETS_DIR,
                Volume {
                    projected: Some(ProjectedVolumeSource {
                        // Readable by the runner's root alone; a step gets a file of its own with the mode that it asks for.
                        default_mode: Some(0o400),
                        sources: Some(sources),
                    }),
                    ..Volume::default()
                },
            );
        }
        let platform = stage.platform.to_string();
        let labels = [
            (names::LABEL_KIND, "stage".to_owned()),
            (names::LABEL_STAGE, stage.id.clone()),
            (names::LABEL_PLATFORM, platform.replace('/', "-")),
        ];
        let args = ["stage", "--plan", plan.as_str(), "--stage", &stage.id]
            .map(ToOwned::to_owned)
            .to_vec();
        self.pod(name, attempt, &stage.platform, labels, args, volumes)
    }

    fn name(&self) -> &str {
        self.build.metadata.name.as_deref().unwrap_or_default()
    }

    /// Name and namespace, labels, annotations and owner of an object of this run.
    fn metadata<const N: usize>(&self, name: String, labels: [(&str, String); N]) -> ObjectMeta {
        let mut all: BTreeMap<String, String> = BTreeMap::from([
            (names::LABEL_MANAGED_BY.to_owned(), names::MANAGED_BY.to_owned()),
            ("app.kubernetes.io/name".to_owned(), "slipway-runner".to_owned()),
            ("app.kubernetes.io/part-of".to_owned(), "slipway".to_owned()),
            (names::LABEL_BUILD.to_owned(), naming::build_label(self.name())),
            (names::LABEL_RUN.to_owned(), self.run.to_string()),
        ]);
        all.extend(labels.into_iter().map(|(key, value)| (key.to_owned(), value)));
        ObjectMeta {
            name: Some(name),
            namespace: self.build.metadata.namespace.clone(),
            labels: Some(all),
            // The garbage collector takes every pod along when the build goes, also while no operator runs.
            owner_references: self.build.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        }
    }

    fn pod<const N: usize>(
        &self,
        name: String,
        attempt: u32,
        platform: &Platform,
        labels: [(&str, String); N],
        args: Vec<String>,
        mut volumes: Volumes,
    ) -> Pod {
        let asked = &self.build.spec.pods;
        let runner = &self.config.runner;
        let mut metadata = self.metadata(name, labels);
        if let Some(all) = &mut metadata.labels {
            all.insert(names::LABEL_ATTEMPT.to_owned(), attempt.to_string());
            for (key, value) in &asked.labels {
                all.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        metadata.annotations = (!asked.annotations.is_empty()).then(|| asked.annotations.clone());
        self.common_volumes(&mut volumes);
        let mut node_selector = runner.node_selector.clone();
        node_selector.extend(asked.node_selector.clone());
        // Last: a stage for arm64 runs on an arm64 node whatever else is asked.
        node_selector.insert("kubernetes.io/os".to_owned(), platform.os.clone());
        node_selector.insert("kubernetes.io/arch".to_owned(), platform.architecture.clone());
        let mut pull_secrets = runner.image_pull_secrets.clone();
        pull_secrets.extend(
            asked
                .image_pull_secrets
                .iter()
                .map(|secret| LocalObjectReference {
                    name: secret.name.clone(),
                }),
        );
        let tolerations: Vec<_> = runner
            .tolerations
            .iter()
            .chain(&asked.tolerations)
            .cloned()
            .collect();
        Pod {
            metadata,
            spec: Some(PodSpec {
                containers: vec![Container {
                    name: CONTAINER.to_owned(),
                    image: Some(runner.image.clone()),
                    image_pull_policy: Some(runner.image_pull_policy.clone()),
                    args: Some(args),
                    resources: Some(
                        asked
                            .resources
                            .clone()
                            .unwrap_or_else(|| runner.resources.clone()),
                    ),
                    security_context: Some(container_security()),
                    // A runner that dies without a message leaves its last lines.
                    termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
                    volume_mounts: Some(volumes.mounts),
                    ..Container::default()
                }],
                volumes: Some(volumes.volumes),
                // An attempt is the operator's to count; a restart in place would hide it.
                restart_policy: Some("Never".to_owned()),
                termination_grace_period_seconds: Some(GRACE_SECONDS),
                // Root in the pod is nobody on the node: what escapes from a step has no rights there.
                host_users: Some(false),
                // A step has no business with the cluster's API, whatever account is chosen.
                automount_service_account_token: Some(false),
                // No addresses of the namespace's services in the environment.
                enable_service_links: Some(false),
                security_context: Some(PodSecurityContext {
                    seccomp_profile: Some(SeccompProfile {
                        type_: "RuntimeDefault".to_owned(),
                        localhost_profile: None,
                    }),
                    ..PodSecurityContext::default()
                }),
                node_selector: Some(node_selector),
                tolerations: (!tolerations.is_empty()).then_some(tolerations),
                affinity: asked.affinity.clone(),
                priority_class_name: asked.priority_class_name.clone(),
                runtime_class_name: asked.runtime_class_name.clone(),
                service_account_name: asked.service_account_name.clone(),
                image_pull_secrets: (!pull_secrets.is_empty()).then_some(pull_secrets),
                ..PodSpec::default()
            }),
            status: None,
        }
    }

    fn common_volumes(&self, volumes: &mut Volumes) {
        volumes.mount(
            "request",
            protocol::REQUEST_DIR,
            Volume {
                config_map: Some(ConfigMapVolumeSource {
                    name: naming::request(self.name(), self.run),
                    ..ConfigMapVolumeSource::default()
                }),
                ..Volume::default()
            },
        );
        for (index, secret) in self.build.spec.output.credentials.iter().enumerate() {
            volumes.mount(
                &format!("credentials-{index}"),
                &format!("{}/{index}", protocol::CREDENTIALS_DIR),
                Volume {
                    secret: Some(SecretVolumeSource {
                        secret_name: Some(secret.name.clone()),
                        // Only the one key, readable by the runner's root alone.
                        items: Some(vec![KeyToPath {
                            key: ".dockerconfigjson".to_owned(),
                            path: ".dockerconfigjson".to_owned(),
                            mode: None,
                        }]),
                        default_mode: Some(0o400),
                        optional: None,
                    }),
                    ..Volume::default()
                },
            );
        }
        let size_limit = self.config.runner.store_size_limit.clone().map(Quantity);
        volumes.empty("store", protocol::STORE_DIR, size_limit);
        volumes.empty("tmp", "/tmp", None);
    }
}

/// The security settings of the one container.
fn container_security() -> SecurityContext {
    SecurityContext {
        privileged: Some(false),
        // Root of the pod's user namespace, not of the node: steps need owners other than their own.
        run_as_user: Some(0),
        run_as_group: Some(0),
        // The image's files cannot be changed by what comes out of a step; the store and /tmp are volumes.
        read_only_root_filesystem: Some(true),
        // With false every step would inherit no_new_privs, and sudo, su and ping fail in a RUN. Inside a user
        // namespace setuid programs gain nothing on the node.
        allow_privilege_escalation: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            add: Some(CAPABILITIES.map(ToOwned::to_owned).to_vec()),
        }),
        // The default AppArmor profile refuses mounts, also inside a user namespace. Means nothing on nodes without it.
        app_armor_profile: Some(AppArmorProfile {
            type_: "Unconfined".to_owned(),
            localhost_profile: None,
        }),
        ..SecurityContext::default()
    }
}

#[derive(Default)]
struct Volumes {
    volumes: Vec<Volume>,
    mounts: Vec<VolumeMount>,
}

impl Volumes {
    /// Everything is read-only but what [`Self::empty`] makes.
    fn mount(&mut self, name: &str, path: &str, volume: Volume) {
        self.volumes.push(Volume {
            name: name.to_owned(),
            ..volume
        });
        self.mounts.push(VolumeMount {
            name: name.to_owned(),
            mount_path: path.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        });
    }

    fn empty(&mut self, name: &str, path: &str, size_limit: Option<Quantity>) {
        self.volumes.push(Volume {
            name: name.to_owned(),
            empty_dir: Some(EmptyDirVolumeSource {
                size_limit,
                medium: None,
            }),
            ..Volume::default()
        });
        self.mounts.push(VolumeMount {
            name: name.to_owned(),
            mount_path: path.to_owned(),
            ..VolumeMount::default()
        });
    }
}

#[cfg(test)]
mod tests;
