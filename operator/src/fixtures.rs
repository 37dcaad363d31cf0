//! Builds, statuses and pods for tests.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;
use slipway_crd::{ImageBuild, ImageBuildStatus, Phase, Run};
use slipway_oci::Digest;
use slipway_plan::protocol::{Schedule, ScheduledResult, ScheduledStage};

pub(crate) const START: i64 = 1_700_000_000;

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(START + second).unwrap()
}

/// A build of generation 1 that nobody has looked at.
pub(crate) fn build() -> ImageBuild {
    serde_json::from_value(json!({
        "apiVersion": "slipway.build/v1alpha1",
        "kind": "ImageBuild",
        "metadata": {"name": "shop", "namespace": "team", "uid": "uid-1", "generation": 1, "resourceVersion": "1"},
        "spec": {
            "source": {"configMap": {"name": "files"}},
            "output": {"images": ["r.example.com/team/shop:1", "r.example.com/team/shop:latest"]},
            "timeout": "10m",
        },
    }))
    .unwrap()
}

/// A status of the first run, of generation 1, that began at second 0.
pub(crate) fn status(phase: Phase) -> ImageBuildStatus {
    ImageBuildStatus {
        observed_generation: Some(1),
        phase: Some(phase),
        runs: 1,
        run: Some(Run {
            generation: 1,
            inputs: crate::validate::inputs(&build().spec),
            started_at: Time(at(0)),
            finished_at: phase.is_final().then(|| Time(at(60))),
        }),
        ..ImageBuildStatus::default()
    }
}

/// A digest that is told apart by `n`.
pub(crate) fn digest(n: u8) -> Digest {
    Digest::from_sha256([n; 32])
}

/// A stage for linux/amd64 that needs `needs` before its first step.
pub(crate) fn stage(name: &str, needs: &[usize]) -> ScheduledStage {
    ScheduledStage {
        id: format!("{name}-linux-amd64"),
        name: name.to_owned(),
        platform: "linux/amd64".parse().unwrap(),
        runs: true,
        key: "0".repeat(64),
        shared: false,
        start_after: needs.to_vec(),
        needs: needs.to_vec(),
        cached: None,
        secrets: Vec::new(),
        caches: Vec::new(),
        steps: 3,
    }
}

/// A schedule whose last stage is the result.
pub(crate) fn schedule(stages: Vec<ScheduledStage>) -> Schedule {
    let stage = stages.len() - 1;
    let results = vec![ScheduledResult {
        platform: "linux/amd64".parse().unwrap(),
        stage,
    }];
    Schedule {
        version: 1,
        stages,
        results,
        gates: Vec::new(),
    }
}
