//! Builds for the tests of the views.

#![allow(clippy::needless_pass_by_value, reason = "the callers write `json!` in place")]

use jiff::Timestamp;
use serde_json::{Value, json};
use slipway_crd::ImageBuild;
use slipway_engine::progress::Line;

/// So many seconds after the beginning of all fixtures.
pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).unwrap()
}

/// The same as it stands in a status.
pub(crate) fn time(second: i64) -> Value {
    json!(at(second).to_string())
}

/// A stage of a status; `extra` is put over it.
pub(crate) fn stage(name: &str, state: &str, needs: &[&str], extra: Value) -> Value {
    let platform = extra["platform"].as_str().unwrap_or("linux/amd64").to_owned();
    let id = |name: &str| format!("{name}-{}", platform.replace('/', "-"));
    let mut row = json!({
        "id": id(name), "name": name, "platform": platform, "state": state, "attempts": 0,
        "steps": {"done": 0, "cached": 0, "total": 2},
        "needs": needs.iter().map(|need| id(need)).collect::<Vec<_>>(),
    });
    merge(&mut row, extra);
    row
}

/// `{startedAt, finishedAt, attempts, node, pod}` of a stage that ran.
pub(crate) fn ran(from: i64, to: Option<i64>, node: &str) -> Value {
    let mut row = json!({"startedAt": time(from), "attempts": 1, "node": node, "pod": format!("pod-{from}")});
    if let Some(to) = to {
        row["finishedAt"] = time(to);
    }
    row
}

/// A build whose status is this.
pub(crate) fn build(name: &str, status: Value) -> ImageBuild {
    serde_json::from_value(json!({
        "apiVersion": "slipway.build/v1alpha1",
        "kind": "ImageBuild",
        "metadata": {"name": name, "namespace": "web", "uid": "u", "generation": 1, "creationTimestamp": time(0)},
        "spec": {"output": {"images": ["registry.example.com/shop/web:1.4"]}},
        "status": status,
    }))
    .unwrap()
}

/// A condition.
pub(crate) fn condition(kind: &str, status: &str, reason: &str, message: &str, second: i64) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": time(second)})
}

/// A build that is running: a diamond of which one side is done.
pub(crate) fn running() -> ImageBuild {
    build(
        "shop",
        json!({
            "observedGeneration": 1, "phase": "Running", "progress": "1/4", "reason": "SpecChanged",
            "run": {"generation": 1, "inputs": "x", "startedAt": time(1)},
            "plan": {"digest": "sha256:00", "pod": "shop-1-plan-1", "attempts": 1, "warnings": 2},
            "conditions": [
                condition("Ready", "Unknown", "Running", "1 of 4 stages are done", 1),
                condition("Planned", "True", "Done", "", 3),
            ],
            "stages": [
                stage("base", "Cached", &[], json!({})),
                stage("deps", "Succeeded", &["base"], merged(ran(3, Some(7), "node-1"), json!({"steps": {"done": 2, "cached": 1, "total": 2}}))),
                stage("build", "Running", &["deps", "base"], ran(7, None, "node-2")),
                stage("lint", "Starting", &["deps"], merged(ran(8, None, "node-1"), json!({"attempts": 2}))),
                stage("docs", "Skipped", &[], json!({})),
                stage("final", "Waiting", &["build", "lint"], json!({})),
            ],
        }),
    )
}

/// A build that is done.
pub(crate) fn succeeded() -> ImageBuild {
    build(
        "shop",
        json!({
            "observedGeneration": 1, "phase": "Succeeded", "progress": "2/2", "reason": "Created",
            "run": {"generation": 1, "inputs": "x", "startedAt": time(1), "finishedAt": time(80)},
            "plan": {"digest": "sha256:00", "pod": "shop-1-plan-1", "attempts": 1, "warnings": 0},
            "conditions": [
                condition("Ready", "True", "Succeeded", "", 80),
                condition("Planned", "True", "Done", "", 3),
            ],
            "stages": [
                stage("build", "Succeeded", &[], ran(3, Some(70), "node-2")),
                stage("final", "Succeeded", &["build"], ran(70, Some(79), "node-1")),
            ],
            "image": {"digest": "sha256:4be1", "size": 12_300_000, "names": ["registry.example.com/shop/web:1.4"], "platforms": []},
        }),
    )
}

/// A build that failed in a `RUN`.
pub(crate) fn failed() -> ImageBuild {
    build(
        "shop",
        json!({
            "observedGeneration": 1, "phase": "Failed", "progress": "0/2", "reason": "Created",
            "run": {"generation": 1, "inputs": "x", "startedAt": time(1), "finishedAt": time(9)},
            "plan": {"digest": "sha256:00", "pod": "shop-1-plan-1", "attempts": 1, "warnings": 0},
            "conditions": [
                condition("Ready", "False", "StepFailed", "stage build: it failed", 9),
                condition("Planned", "True", "Done", "", 3),
            ],
            "stages": [
                stage("build", "Failed", &[], ran(3, Some(9), "node-2")),
                stage("lint", "Cancelled", &[], ran(3, Some(9), "node-1")),
                stage("final", "Cancelled", &["build", "lint"], json!({"finishedAt": time(9)})),
            ],
            "failure": {
                "reason": "StepFailed", "message": "the command ended with exit code 2", "stage": "build",
                "platform": "linux/amd64", "pod": "pod-3", "file": "Dockerfile", "line": 12,
                "instruction": "RUN make", "exitCode": 2, "log": "cc -c main.c\nmake: *** [all] Error 1",
            },
        }),
    )
}

pub(crate) fn merged(mut into: Value, from: Value) -> Value {
    merge(&mut into, from);
    into
}

fn merge(into: &mut Value, from: Value) {
    if let (Some(into), Value::Object(from)) = (into.as_object_mut(), from) {
        into.extend(from);
    }
}

/// Lines without colour, as one text.
pub(crate) fn plain(lines: &[Line]) -> String {
    lines
        .iter()
        .fold(String::new(), |text, line| text + &line.render(false) + "\n")
}
