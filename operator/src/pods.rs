//! The pods that build, and the request that they are given. Pure: from an ImageBuild and the settings to objects.
//!
//! Nothing of the spec but `spec.pods` changes the shape of a pod, and nothing at all weakens it.

mod caches;
mod hold;
mod isolation;
mod probe;
mod request;
mod resources;
mod settings;

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        ConfigMapVolumeSource, Container, EmptyDirVolumeSource, ImageVolumeSource, KeyToPath, Pod,
        PodSecurityContext, PodSpec, ProjectedVolumeSource, SeccompProfile, SecretProjection,
        SecretVolumeSource, Volume, VolumeMount, VolumeProjection,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use kube::Resource as _;
use slipway_crd::{ImageBuild, names};
use slipway_oci::Digest;
use slipway_plan::protocol::{self, ScheduledStage};

use crate::{
    config::Config,
    naming,
    placement::{Cluster, Place},
    validate,
};
use settings::Settings;

pub use caches::CacheVolume;
pub use hold::HOLD_CONTAINER;
pub use isolation::keeps_user_namespace;
pub use probe::probe_pod;
pub use request::{request, request_config_map};

/// Seconds between SIGTERM and SIGKILL: a cancelled build has nothing to save.
const GRACE_SECONDS: i64 = 2;
/// Name of the container that does the work.
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
    /// The nodes that pods are placed on.
    pub cluster: Cluster<'a>,
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
        // The plan is the same wherever it is made.
        let place = Place::anywhere();
        let labels = [
            (names::LABEL_KIND, "plan".to_owned()),
            (names::LABEL_ATTEMPT, attempt.to_string()),
        ];
        let settings = Settings::of(&self.build.spec, &self.config.runner, None, 0);
        let metadata = self.metadata(name, labels);
        self.pod(metadata, &place, vec!["plan".to_owned()], settings, volumes)
    }

    /// The pod of a stage, of whose pods `out_of_memory` ran out of memory before.
    pub fn stage_pod(
        &self,
        plan: &Digest,
        stage: &ScheduledStage,
        attempt: u32,
        out_of_memory: u32,
        caches: &[CacheVolume],
    ) -> Pod {
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
        caches::mount(&mut volumes, caches);
        let platform = stage.platform.to_string();
        let labels = [
            (names::LABEL_KIND, "stage".to_owned()),
            (names::LABEL_ATTEMPT, attempt.to_string()),
            (names::LABEL_STAGE, stage.id.clone()),
            (names::LABEL_PLATFORM, platform.replace('/', "-")),
        ];
        let mut args = ["stage", "--plan", plan.as_str(), "--stage", &stage.id]
            .map(ToOwned::to_owned)
            .to_vec();
        let settings = Settings::of(
            &self.build.spec,
            &self.config.runner,
            Some(&stage.name),
            out_of_memory,
        );
        let place = Place::of(stage, self.build.spec.emulation, self.cluster);
        if place.emulated {
            args.extend(["--emulate".to_owned(), stage.platform.architecture.clone()]);
            volumes.emulators(self.config);
        }
        let metadata = self.metadata(name, labels);
        let mut pod = self.pod(metadata, &place, args, settings, volumes);
        // One that does not parse has been refused before any pod was made.
        let valid = validate::validate(self.build, &self.config.policies).ok();
        if let Some(time) = valid.and_then(|valid| valid.hold_failed) {
            hold::add(&mut pod, time, attempt > self.build.spec.retries);
        }
        caches::mark(&mut pod, caches);
        pod
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

    fn pod(
        &self,
        mut metadata: ObjectMeta,
        place: &Place,
        args: Vec<String>,
        settings: Settings,
        mut volumes: Volumes,
    ) -> Pod {
        let asked = &self.build.spec.pods;
        let runner = &self.config.runner;
        if let Some(all) = &mut metadata.labels {
            for (key, value) in settings.labels {
                all.entry(key).or_insert(value);
            }
        }
        metadata.annotations = (!settings.annotations.is_empty()).then_some(settings.annotations);
        self.common_volumes(&mut volumes);
        let mut node_selector = settings.node_selector;
        // What is asked for of the architecture says nothing of a stage for another one.
        node_selector.remove("kubernetes.io/arch");
        // Last: a stage for arm64 runs where arm64 runs, whatever else is asked.
        node_selector.extend(place.labels.clone());
        Pod {
            metadata,
            spec: Some(PodSpec {
                containers: vec![Container {
                    name: CONTAINER.to_owned(),
                    image: Some(runner.image.clone()),
                    image_pull_policy: Some(runner.image_pull_policy.clone()),
                    args: Some(args),
                    env: some(settings.env),
                    resources: Some(settings.resources),
                    security_context: Some(isolation::security()),
                    // A runner that dies without a message leaves its last lines.
                    termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
                    volume_mounts: Some(volumes.mounts),
                    ..Container::default()
                }],
                volumes: Some(volumes.volumes),
                // An attempt is the operator's to count; a restart in place would hide it.
                restart_policy: Some("Never".to_owned()),
                termination_grace_period_seconds: Some(GRACE_SECONDS),
                host_users: isolation::host_users(self.config.isolation.mode),
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
                tolerations: some(settings.tolerations),
                affinity: settings.affinity,
                topology_spread_constraints: some(settings.topology_spread),
                priority_class_name: settings.priority_class_name,
                runtime_class_name: settings.runtime_class_name,
                service_account_name: asked.service_account_name.clone(),
                image_pull_secrets: some(settings.pull_secrets),
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
        for (index, host) in self.config.registries.iter().enumerate() {
            let Some(secret) = &host.client_certificate else {
                continue;
            };
            volumes.mount(
                &format!("certificate-{index}"),
                &format!("{}/{index}", protocol::CERTIFICATES_DIR),
                Volume {
                    secret: Some(SecretVolumeSource {
                        secret_name: Some(secret.clone()),
                        default_mode: Some(0o400),
                        // A namespace that does not use this registry need not have it.
                        optional: Some(true),
                        items: Some(
                            ["tls.crt", "tls.key"]
                                .map(|key| KeyToPath {
                                    key: key.to_owned(),
                                    path: key.to_owned(),
                                    mode: None,
                                })
                                .to_vec(),
                        ),
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

/// A list that is left out when nothing is in it.
fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
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

    /// The emulators of the chart, if it names any.
    fn emulators(&mut self, config: &Config) {
        if let Some(image) = &config.emulation.image {
            self.mount(
                "emulators",
                protocol::EMULATORS_DIR,
                Volume {
                    image: Some(ImageVolumeSource {
                        reference: Some(image.clone()),
                        pull_policy: Some(config.runner.image_pull_policy.clone()),
                    }),
                    ..Volume::default()
                },
            );
        }
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
