//! First step: what is there. Reads Secrets and ConfigMaps that the spec names, by name and never by list.

pub mod stuck;

use std::{collections::HashSet, sync::Arc};

use futures::future::{try_join, try_join_all};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::{Api, Client, ResourceExt as _, api::ListParams, runtime::reflector};
use slipway_crd::{ImageBuild, names, reasons};
use slipway_plan::protocol::RegistryHost;
use zeroize::Zeroizing;

use crate::{
    claims::{self, Use},
    facts::{Args, Fault},
    memory::Memory,
    naming,
    pod_view::PodView,
    registry::Identity,
};

/// The key of a `kubernetes.io/dockerconfigjson` Secret.
const DOCKER_CONFIG: &str = ".dockerconfigjson";

/// The pods of a build: as the watch shows them, and those just created.
pub fn pods(store: &reflector::Store<Pod>, memory: &Memory, build: &ImageBuild) -> Vec<PodView> {
    let uid = build.uid().unwrap_or_default();
    let label = naming::build_label(&build.name_any());
    let mut pods: Vec<Arc<Pod>> = store
        .state()
        .into_iter()
        .filter(|pod| {
            pod.metadata.namespace == build.metadata.namespace
                && pod.labels().get(names::LABEL_BUILD) == Some(&label)
                // Not the pods of a build of the same name that was deleted.
                && pod.owner_references().iter().any(|owner| owner.uid == uid)
        })
        .collect();
    memory.complete(&uid, &mut pods);
    pods.iter().filter_map(|pod| PodView::of(pod)).collect()
}

/// Who uses the claims of cache mounts in a namespace: pods of any build that have not ended.
pub fn claim_uses(store: &reflector::Store<Pod>, memory: &Memory, namespace: &str) -> Vec<Use> {
    let shown: Vec<Arc<Pod>> = store
        .state()
        .into_iter()
        .filter(|pod| pod.metadata.namespace.as_deref() == Some(namespace))
        .collect();
    let names: HashSet<&str> = shown
        .iter()
        .filter_map(|pod| pod.metadata.name.as_deref())
        .collect();
    let created = memory.just_created(namespace, &names);
    shown
        .iter()
        .map(AsRef::as_ref)
        .chain(&created)
        .filter(|pod| PodView::of(pod).is_some_and(|view| view.is_alive()))
        .flat_map(|pod| {
            claims::of_labels(pod.labels()).map(|(claim, sharing)| Use {
                claim,
                sharing,
                build: pod.labels().get(names::LABEL_BUILD).cloned().unwrap_or_default(),
                pod: pod.name_any(),
            })
        })
        .collect()
}

/// What a build refers to.
#[derive(Debug, Default)]
pub struct Inputs {
    /// The first thing that is not there.
    pub missing: Option<Fault>,
    /// Values of the arguments.
    pub args: Args,
}

/// Looks whether everything that the spec refers to is there, and reads the arguments.
pub async fn inputs(client: &Client, build: &ImageBuild) -> Result<Inputs, kube::Error> {
    let namespace = build.namespace().unwrap_or_default();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    let spec = &build.spec;

    let mut secret_names: Vec<&str> = spec
        .secrets
        .iter()
        .map(|secret| secret.secret_ref.name.as_str())
        .collect();
    secret_names.extend(
        spec.output
            .credentials
            .iter()
            .map(|reference| reference.name.as_str()),
    );
    secret_names.sort_unstable();
    secret_names.dedup();
    let mut map_names: Vec<&str> = spec
        .args
        .iter()
        .filter_map(|arg| Some(arg.value_from.as_ref()?.config_map_key_ref.name.as_str()))
        .chain(
            spec.source
                .iter()
                .filter_map(|source| Some(source.config_map.as_ref()?.name.as_str())),
        )
        .collect();
    map_names.sort_unstable();
    map_names.dedup();
    let (found_secrets, found_maps) = try_join(
        try_join_all(secret_names.iter().map(|name| secrets.get_opt(name))),
        try_join_all(map_names.iter().map(|name| maps.get_opt(name))),
    )
    .await?;
    let secret = |name: &str| {
        secret_names
            .iter()
            .position(|known| *known == name)
            .and_then(|at| found_secrets.get(at)?.as_ref())
    };
    let map = |name: &str| {
        map_names
            .iter()
            .position(|known| *known == name)
            .and_then(|at| found_maps.get(at)?.as_ref())
    };
    let mut inputs = Inputs::default();
    inputs.missing = check(build, &namespace, secret, map, &mut inputs.args).err();
    Ok(inputs)
}

fn check<'a>(
    build: &ImageBuild,
    namespace: &str,
    secret: impl Fn(&str) -> Option<&'a Secret>,
    map: impl Fn(&str) -> Option<&'a ConfigMap>,
    args: &mut Args,
) -> Result<(), Fault> {
    check_secrets(build, namespace, secret)?;
    check_maps(build, namespace, map, args)
}

fn absent(reason: &'static str, message: String) -> Result<(), Fault> {
    Err(Fault {
        reason,
        message,
        transient: false,
        retry_after: None,
    })
}

fn check_secrets<'a>(
    build: &ImageBuild,
    namespace: &str,
    secret: impl Fn(&str) -> Option<&'a Secret>,
) -> Result<(), Fault> {
    let spec = &build.spec;
    for wanted in &spec.secrets {
        let reference = &wanted.secret_ref;
        let Some(found) = secret(&reference.name) else {
            return absent(
                reasons::SECRET_NOT_FOUND,
                format!(
                    "spec.secrets[{}]: there is no Secret {}/{}; create it and the build begins",
                    wanted.id, namespace, reference.name
                ),
            );
        };
        if !found
            .data
            .as_ref()
            .is_some_and(|data| data.contains_key(&reference.key))
        {
            return absent(
                reasons::SECRET_NOT_FOUND,
                format!(
                    "spec.secrets[{}]: Secret {}/{} has no key {}; add it and the build begins",
                    wanted.id, namespace, reference.name, reference.key
                ),
            );
        }
    }
    for wanted in &spec.output.credentials {
        let Some(found) = secret(&wanted.name) else {
            return absent(
                reasons::SECRET_NOT_FOUND,
                format!(
                    "spec.output.credentials: there is no Secret {}/{}; create it and the build begins",
                    namespace, wanted.name
                ),
            );
        };
        if !found
            .data
            .as_ref()
            .is_some_and(|data| data.contains_key(DOCKER_CONFIG))
        {
            return absent(
                reasons::CREDENTIALS_INVALID,
                format!(
                    "spec.output.credentials: Secret {}/{} has no key {DOCKER_CONFIG}; make it with kubectl create secret docker-registry",
                    namespace, wanted.name
                ),
            );
        }
    }
    Ok(())
}

fn check_maps<'a>(
    build: &ImageBuild,
    namespace: &str,
    map: impl Fn(&str) -> Option<&'a ConfigMap>,
    args: &mut Args,
) -> Result<(), Fault> {
    let spec = &build.spec;
    if let Some(source) = spec.source.as_ref().and_then(|source| source.config_map.as_ref()) {
        let Some(found) = map(&source.name) else {
            return absent(
                reasons::CONFIG_MAP_NOT_FOUND,
                format!(
                    "spec.source.configMap: there is no ConfigMap {}/{}; create it and the build begins",
                    namespace, source.name
                ),
            );
        };
        for item in &source.items {
            if !has_key(found, &item.key) {
                return absent(
                    reasons::CONFIG_MAP_NOT_FOUND,
                    format!(
                        "spec.source.configMap.items: ConfigMap {}/{} has no key {}",
                        namespace, source.name, item.key
                    ),
                );
            }
        }
    }
    for arg in &spec.args {
        let value = match (&arg.value, &arg.value_from) {
            (Some(value), _) => value.clone(),
            (None, Some(from)) => {
                let reference = &from.config_map_key_ref;
                let value =
                    map(&reference.name).and_then(|map| map.data.as_ref()?.get(&reference.key).cloned());
                let Some(value) = value else {
                    return absent(
                        reasons::CONFIG_MAP_NOT_FOUND,
                        format!(
                            "spec.args[{}]: there is no ConfigMap {}/{} with the key {}; create it and the build begins",
                            arg.name, namespace, reference.name, reference.key
                        ),
                    );
                };
                value
            }
            (None, None) => String::new(),
        };
        args.insert(arg.name.clone(), value);
    }
    Ok(())
}

fn has_key(map: &ConfigMap, key: &str) -> bool {
    map.data.as_ref().is_some_and(|data| data.contains_key(key))
        || map
            .binary_data
            .as_ref()
            .is_some_and(|data| data.contains_key(key))
}

/// Who a build is to its registries. A Secret that has gone is left out: the registry will say what is missing.
pub async fn identity(
    client: &Client,
    build: &ImageBuild,
    hosts: &[RegistryHost],
) -> Result<Identity, kube::Error> {
    let namespace = build.namespace().unwrap_or_default();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let credentials = &build.spec.output.credentials;
    let wanted: Vec<(&str, &str)> = hosts
        .iter()
        .filter_map(|host| Some((host.host.as_str(), host.client_certificate.as_deref()?)))
        .collect();
    let (documents, pairs) = try_join(
        try_join_all(
            credentials
                .iter()
                .map(|reference| secrets.get_opt(&reference.name)),
        ),
        try_join_all(wanted.iter().map(|(_, name)| secrets.get_opt(name))),
    )
    .await?;
    Ok(Identity {
        documents: credentials
            .iter()
            .zip(documents)
            .filter_map(|(reference, secret)| {
                let document = secret?.data?.remove(DOCKER_CONFIG)?;
                Some((format!("secret {namespace}/{}", reference.name), document.0))
            })
            .collect(),
        certificates: wanted
            .iter()
            .zip(pairs)
            .filter_map(|((host, _), secret)| {
                let mut data = secret?.data?;
                let pair = (
                    data.remove("tls.crt")?.0,
                    Zeroizing::new(data.remove("tls.key")?.0),
                );
                Some(((*host).to_owned(), pair))
            })
            .collect(),
    })
}

/// Whether the CRD is installed and may be read.
pub async fn api_is_there(client: &Client, namespace: Option<&str>) -> Result<(), kube::Error> {
    let api: Api<ImageBuild> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    api.list_metadata(&ListParams::default().limit(1))
        .await
        .map(|_| ())
}

#[cfg(test)]
mod tests;
