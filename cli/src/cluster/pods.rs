//! The pods of a build, as far as the command line wants to know them.

use k8s_openapi::api::core::v1::{ContainerState, Pod};
use slipway_crd::names;

/// What a pod does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// It makes the plan.
    Plan,
    /// It runs the stage of this id.
    Stage(String),
}

/// A pod of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildPod {
    /// Its name.
    pub name: String,
    /// What it does.
    pub work: Work,
    /// Which attempt at it, from 1.
    pub attempt: u32,
    /// The number of the run that it was made for.
    pub run: i64,
    /// Its node.
    pub node: Option<String>,
    /// Its container has been started, so there is a log.
    pub started: bool,
    /// Its container has ended.
    pub ended: bool,
    /// The container that does the work.
    pub container: String,
}

impl BuildPod {
    /// Reads a pod; none if it is no pod of a build.
    pub fn of(pod: &Pod) -> Option<Self> {
        let label = |name: &str| pod.metadata.labels.as_ref()?.get(name);
        let work = match label(names::LABEL_STAGE) {
            Some(stage) => Work::Stage(stage.clone()),
            None if label(names::LABEL_KIND)? == "plan" => Work::Plan,
            None => return None,
        };
        let container = pod.spec.as_ref()?.containers.first()?.name.clone();
        let statuses = pod
            .status
            .as_ref()
            .and_then(|status| status.container_statuses.as_ref());
        let status = statuses.and_then(|list| list.iter().find(|status| status.name == container));
        let state = status.and_then(|status| status.state.as_ref());
        let is = |of: fn(&ContainerState) -> bool| state.is_some_and(of);
        let ended = is(|state| state.terminated.is_some());
        Some(Self {
            name: pod.metadata.name.clone()?,
            work,
            attempt: label(names::LABEL_ATTEMPT)
                .and_then(|attempt| attempt.parse().ok())
                .unwrap_or(1),
            run: label(names::LABEL_RUN)?.parse().ok()?,
            node: pod.spec.as_ref()?.node_name.clone(),
            started: ended || is(|state| state.running.is_some()),
            ended,
            container,
        })
    }
}

/// Selects the pods of a build. The label's value is the build's name, shortened where that is too long for a label: then
/// the caller has to look at the owner, which [`owned`] does.
pub fn selector(build: &str) -> String {
    if build.len() <= 63 && !build.contains('.') {
        format!("{}={build}", names::LABEL_BUILD)
    } else {
        format!("{}={}", names::LABEL_MANAGED_BY, names::MANAGED_BY)
    }
}

/// Whether a pod belongs to the build of this uid.
pub fn owned(pod: &Pod, uid: &str) -> bool {
    let owners = pod.metadata.owner_references.iter().flatten();
    owners.into_iter().any(|owner| owner.uid == uid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(labels: &serde_json::Value, state: &serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "shop-3-build-linux-amd64-2", "labels": labels},
            "spec": {"containers": [{"name": "runner"}], "nodeName": "n1"},
            "status": {"containerStatuses": [{
                "name": "runner", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state,
            }]},
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_is_known_by_its_labels() {
        let labels = json!({
            "slipway.build/kind": "stage", "slipway.build/stage": "build-linux-amd64",
            "slipway.build/run": "3", "slipway.build/attempt": "2",
        });
        let running = BuildPod::of(&pod(&labels, &json!({"running": {}}))).unwrap();
        assert_eq!(running.work, Work::Stage("build-linux-amd64".into()));
        assert_eq!((running.attempt, running.run), (2, 3));
        assert!(running.started && !running.ended);
        let waiting = BuildPod::of(&pod(&labels, &json!({"waiting": {}}))).unwrap();
        assert!(!waiting.started);
        let ended = BuildPod::of(&pod(&labels, &json!({"terminated": {"exitCode": 0}}))).unwrap();
        assert!(ended.started && ended.ended);
        assert_eq!(BuildPod::of(&pod(&json!({}), &json!({}))), None);
    }
}
