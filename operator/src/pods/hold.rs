//! `spec.debug.holdFailed`: the second container of a stage's pod, which holds the files of a `RUN` that failed.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{
    api::core::v1::{Container, Pod, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};

use super::CONTAINER;

/// Name of the container that holds.
pub const HOLD_CONTAINER: &str = "hold";
/// What it has in common with the runner.
const SHARED: [&str; 2] = ["store", "tmp"];
/// It sleeps; what a person does in it has the runner's limits.
const REQUESTS: [(&str, &str); 2] = [("cpu", "10m"), ("memory", "16Mi")];

/// Adds the container to a stage's pod. `last_attempt`: no other follows, so want of memory is final too.
pub(super) fn add(pod: &mut Pod, time: Duration, last_attempt: bool) {
    let Some(spec) = &mut pod.spec else { return };
    let Some(runner) = spec.containers.first_mut() else {
        return;
    };
    let holder = holder(runner, time);
    let args = runner.args.get_or_insert_default();
    args.push("--hold".to_owned());
    if last_attempt {
        args.push("--last-attempt".to_owned());
    }
    spec.containers.push(holder);
    // So that `kubectl logs` need not ask which.
    pod.metadata
        .annotations
        .get_or_insert_default()
        .entry("kubectl.kubernetes.io/default-container".to_owned())
        .or_insert_with(|| CONTAINER.to_owned());
}

/// Image and rights are the runner's, since it mounts what the runner mounts; secrets and credentials are not.
fn holder(runner: &Container, time: Duration) -> Container {
    let mounts = runner.volume_mounts.iter().flatten();
    let requests: BTreeMap<String, Quantity> = REQUESTS
        .into_iter()
        .map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned())))
        .collect();
    let limits = runner.resources.as_ref().and_then(|all| all.limits.clone());
    Container {
        name: HOLD_CONTAINER.to_owned(),
        args: Some(vec![
            "hold".to_owned(),
            "--seconds".to_owned(),
            time.as_secs().to_string(),
        ]),
        env: None,
        volume_mounts: Some(
            mounts
                .filter(|mount| SHARED.contains(&mount.name.as_str()))
                .cloned()
                .collect(),
        ),
        resources: Some(ResourceRequirements {
            requests: Some(requests),
            limits: limits.map(|limits| {
                let usual = |name: &String| ["cpu", "memory", "ephemeral-storage"].contains(&name.as_str());
                limits.into_iter().filter(|(name, _)| usual(name)).collect()
            }),
            claims: None,
        }),
        ..runner.clone()
    }
}
