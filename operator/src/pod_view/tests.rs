use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::*;
use crate::fixtures;

/// A stage pod with this status.
fn pod(status: &Value) -> Pod {
    let mut pod: Pod = serde_json::from_value(json!({
        "metadata": {
            "name": "shop-1-build-linux-amd64-2",
            "labels": {
                "slipway.build/kind": "stage", "slipway.build/stage": "build-linux-amd64",
                "slipway.build/run": "1", "slipway.build/attempt": "2",
            },
        },
        "spec": {"containers": [], "nodeName": "n1"},
        "status": status,
    }))
    .unwrap();
    pod.metadata.creation_timestamp = Some(Time(fixtures::at(0)));
    pod
}

fn state_of(status: &Value) -> PodState {
    PodView::of(&pod(status)).unwrap().state
}

fn waiting(reason: &str) -> Value {
    json!({"phase": "Pending", "containerStatuses": [container(json!({"waiting": {"reason": reason, "message": "m"}}))]})
}

#[allow(clippy::needless_pass_by_value, reason = "takes what json! gives")]
fn container(state: Value) -> Value {
    json!({"name": "runner", "image": "i", "imageID": "i", "ready": false, "restartCount": 0, "state": state})
}

fn ended(phase: &str, code: i32, reason: &str, message: &str) -> Value {
    json!({
        "phase": phase,
        "containerStatuses": [container(json!({"terminated": {
            "exitCode": code, "reason": reason, "message": message, "finishedAt": "2023-11-14T22:13:50Z",
        }}))],
    })
}

#[test]
fn what_a_pod_is_for_stands_in_its_labels() {
    let view = PodView::of(&pod(&json!({"phase": "Running"}))).unwrap();
    assert_eq!(view.kind, Kind::Stage("build-linux-amd64".to_owned()));
    assert_eq!((view.run, view.attempt, view.node.as_deref()), (1, 2, Some("n1")));
    assert_eq!(view.state, PodState::Running);
    assert!(PodView::of(&Pod::default()).is_none());
}

#[test]
fn a_pod_that_waits_says_why() {
    let unschedulable = json!({"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"},
    ]});
    for (status, expected) in [
        (json!({}), Wait::Starting),
        (waiting("ContainerCreating"), Wait::Starting),
        (unschedulable, Wait::Unschedulable("0/1 nodes".to_owned())),
        (
            waiting("ImagePullBackOff"),
            Wait::ImagePull("ImagePullBackOff: m".to_owned()),
        ),
        (
            waiting("ErrImageNeverPull"),
            Wait::ImagePull("ErrImageNeverPull: m".to_owned()),
        ),
        (
            waiting("CreateContainerConfigError"),
            Wait::CannotStart("CreateContainerConfigError: m".to_owned()),
        ),
    ] {
        assert_eq!(state_of(&status), PodState::Waiting(expected), "{status}");
    }
}

#[test]
fn the_containers_end_counts_before_the_pods_phase_follows() {
    let message =
        json!({"kind": "finished", "manifest": fixtures::digest(1), "size": 5, "executed": 2, "cached": 1});
    for phase in ["Running", "Succeeded"] {
        let state = state_of(&ended(phase, 0, "Completed", &message.to_string()));
        let at = fixtures::at(30);
        assert_eq!(
            state,
            PodState::Finished {
                manifest: fixtures::digest(1),
                executed: 2,
                cached: 1,
                at
            }
        );
    }
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn every_failure_has_its_class() {
    let told = |reason: &str| json!({"kind": "failed", "reason": reason, "message": "m"}).to_string();
    let with = |mut status: Value, more: Value| {
        status
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        status
    };
    let disrupted = json!({"conditions": [
        {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "drain"},
    ]});
    for (name, status, reason, transient) in [
        (
            "a RUN failed",
            ended("Failed", 1, "Error", &told("StepFailed")),
            "StepFailed",
            false,
        ),
        (
            "syntax",
            ended("Failed", 1, "Error", &told("DockerfileInvalid")),
            "DockerfileInvalid",
            false,
        ),
        (
            "password",
            ended("Failed", 1, "Error", &told("RegistryUnauthorized")),
            "RegistryUnauthorized",
            false,
        ),
        (
            "registry away",
            ended("Failed", 1, "Error", &told("RegistryUnreachable")),
            "RegistryUnreachable",
            true,
        ),
        (
            "memory, told",
            ended("Failed", 1, "Error", &told("OutOfMemory")),
            "OutOfMemory",
            true,
        ),
        (
            "memory, untold",
            ended("Failed", 137, "OOMKilled", ""),
            "OutOfMemory",
            true,
        ),
        (
            "deleted",
            ended("Failed", 1, "Error", &told("Stopped")),
            "PodLost",
            true,
        ),
        (
            "disk full",
            ended("Failed", 1, "Error", &told("NoSpace")),
            "NoSpace",
            true,
        ),
        ("killed", ended("Failed", 137, "Error", ""), "PodLost", true),
        (
            "no message",
            ended("Failed", 101, "Error", "thread panicked"),
            "Internal",
            false,
        ),
        (
            "no message, code 0",
            ended("Succeeded", 0, "Completed", ""),
            "Internal",
            false,
        ),
        (
            "the work of another",
            ended(
                "Succeeded",
                0,
                "Completed",
                &json!({"kind": "planned", "plan": fixtures::digest(1), "warnings": 0}).to_string(),
            ),
            "Internal",
            false,
        ),
        (
            "no start",
            ended("Failed", 128, "StartError", "exec format error"),
            "PodCannotStart",
            false,
        ),
        (
            "unknown",
            ended("Failed", 137, "ContainerStatusUnknown", ""),
            "PodLost",
            true,
        ),
        (
            "evicted",
            json!({"phase": "Failed", "reason": "Evicted", "message": "disk"}),
            "PodEvicted",
            true,
        ),
        (
            "refused by the node",
            json!({"phase": "Failed", "reason": "OutOfcpu"}),
            "PodLost",
            true,
        ),
        (
            "drained",
            with(ended("Failed", 143, "Error", ""), disrupted.clone()),
            "PodEvicted",
            true,
        ),
        (
            "drained, with a last word",
            with(ended("Failed", 1, "Error", &told("Internal")), disrupted),
            "PodEvicted",
            true,
        ),
    ] {
        let PodState::Failed(failed) = state_of(&status) else {
            panic!("{name}: did not fail")
        };
        assert_eq!(
            (failed.failure.reason.as_str(), failed.transient),
            (reason, transient),
            "{name}"
        );
    }
}

#[test]
fn a_stage_has_failed_while_another_container_holds_its_files() {
    let mut status = ended(
        "Running",
        1,
        "Error",
        &json!({"kind": "failed", "reason": "StepFailed", "message": "m"}).to_string(),
    );
    let runner = status["containerStatuses"][0].clone();
    let mut holder = container(json!({"running": {}}));
    holder["name"] = "hold".into();
    status["containerStatuses"] = json!([holder, runner]);
    let view = PodView::of(&pod(&status)).unwrap();
    assert!(matches!(view.state, PodState::Failed(_)), "{view:?}");
    assert!(!view.is_alive(), "so that it is not deleted with the others");
}

#[test]
fn what_a_node_says_of_a_pod_that_does_not_start_is_told_apart() {
    for (reason, message, expected) in [
        (
            "FailedCreatePodSandBox",
            "can't set `spec.hostUsers: false`, runtime does not support user namespaces",
            Some(true),
        ),
        (
            "FailedCreatePodSandBox",
            "the handler \"\" does not support user namespaces",
            Some(true),
        ),
        (
            "FailedCreatePodSandBox",
            "failed to set MOUNT_ATTR_IDMAP on /var/lib: invalid argument",
            Some(true),
        ),
        (
            "FailedCreatePodSandBox",
            "plugin type=\"bridge\" failed (add)",
            Some(false),
        ),
        ("FailedMount", "secret \"npm\" not found", Some(false)),
        ("BackOff", "user namespace", None),
        ("FailedScheduling", "0/1 nodes", None),
    ] {
        let found = of_event(reason, message).map(|wait| matches!(wait, Wait::NoUserNamespaces(_)));
        assert_eq!(found, expected, "{reason}: {message}");
    }
}

#[test]
fn only_a_pod_that_has_its_node_and_does_not_start_is_stuck() {
    let view = |status: Value, node: bool| {
        let mut pod = pod(&status);
        if !node {
            pod.spec.as_mut().unwrap().node_name = None;
        }
        PodView::of(&pod).unwrap()
    };
    let creating = || waiting("ContainerCreating");
    for (view, second, stuck) in [
        (view(creating(), true), 15, true),
        (view(creating(), true), 14, false),
        (view(creating(), false), 15, false),
        (view(waiting("ErrImagePull"), true), 15, false),
        (view(json!({"phase": "Running"}), true), 15, false),
    ] {
        assert_eq!(view.is_stuck(fixtures::at(second)), stuck, "{view:?}");
    }
}

#[test]
fn a_failure_keeps_its_place_and_its_log() {
    let message = json!({
        "kind": "failed", "reason": "StepFailed", "message": "exit code 2", "file": "Dockerfile", "line": 7,
        "instruction": "RUN make", "exitCode": 2, "log": "a\nb",
    });
    let PodState::Failed(failed) = state_of(&ended("Failed", 1, "Error", &message.to_string())) else {
        panic!()
    };
    let failure = failed.failure;
    assert_eq!(
        (failure.file.as_deref(), failure.line, failure.exit_code),
        (Some("Dockerfile"), Some(7), Some(2))
    );
    assert_eq!(
        (failure.instruction.as_deref(), failure.log.as_deref()),
        (Some("RUN make"), Some("a\nb"))
    );
    let PodState::Failed(failed) = state_of(&ended("Failed", 101, "Error", "thread panicked")) else {
        panic!()
    };
    assert_eq!(
        (failed.failure.log.as_deref(), failed.failure.exit_code),
        (Some("thread panicked"), Some(101))
    );
}
