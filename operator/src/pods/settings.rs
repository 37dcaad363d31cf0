//! What spec and chart say of a pod, put together: the stage's word before the build's, the build's before the chart's.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, EnvVar, LocalObjectReference, ResourceRequirements, Toleration, TopologySpreadConstraint,
};
use slipway_crd::{ImageBuildSpec, StagePods};

use super::resources::{self, Raise};
use crate::{
    config::Runner,
    quantity::{Factor, milli},
};

/// Taints of a node that no longer answers.
const LOST_NODE: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
/// A pod of such a node is given up after this time. Kubernetes' own five minutes suit services, which have other replicas.
const LOST_NODE_SECONDS: i64 = 60;

/// What a pod is made with.
pub(super) struct Settings {
    pub(super) resources: ResourceRequirements,
    pub(super) node_selector: BTreeMap<String, String>,
    pub(super) tolerations: Vec<Toleration>,
    pub(super) affinity: Option<Affinity>,
    pub(super) topology_spread: Vec<TopologySpreadConstraint>,
    pub(super) env: Vec<EnvVar>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) priority_class_name: Option<String>,
    pub(super) runtime_class_name: Option<String>,
    pub(super) pull_secrets: Vec<LocalObjectReference>,
}

impl Settings {
    /// For the pods of a stage, of which `out_of_memory` ran out of memory; or for the plan pod.
    pub(super) fn of(
        spec: &ImageBuildSpec,
        runner: &Runner,
        stage: Option<&str>,
        out_of_memory: u32,
    ) -> Self {
        let pods = &spec.pods;
        let nothing = StagePods::default();
        let own = stage
            .and_then(|stage| {
                pods.stages
                    .iter()
                    .find(|(name, _)| name.eq_ignore_ascii_case(stage))
            })
            .map_or(&nothing, |(_, own)| own);
        let levels = [
            own.resources.as_ref(),
            pods.resources.as_ref(),
            Some(&runner.resources),
        ];
        let pull_secrets = pods.image_pull_secrets.iter().map(|secret| LocalObjectReference {
            name: secret.name.clone(),
        });
        Self {
            resources: resources::resources(&levels, raise(spec, runner, out_of_memory)),
            node_selector: merged([&runner.node_selector, &pods.node_selector, &own.node_selector]),
            tolerations: tolerations([&runner.tolerations, &pods.tolerations, &own.tolerations]),
            affinity: own.affinity.clone().or_else(|| pods.affinity.clone()),
            topology_spread: if own.topology_spread_constraints.is_empty() {
                pods.topology_spread_constraints.clone()
            } else {
                own.topology_spread_constraints.clone()
            },
            env: env([&runner.env, &pods.env, &own.env]),
            labels: merged([&pods.labels, &own.labels]),
            annotations: merged([&pods.annotations, &own.annotations]),
            priority_class_name: own
                .priority_class_name
                .clone()
                .or_else(|| pods.priority_class_name.clone()),
            runtime_class_name: own
                .runtime_class_name
                .clone()
                .or_else(|| pods.runtime_class_name.clone()),
            pull_secrets: runner
                .image_pull_secrets
                .iter()
                .cloned()
                .chain(pull_secrets)
                .collect(),
        }
    }
}

fn raise(spec: &ImageBuildSpec, runner: &Runner, out_of_memory: u32) -> Option<Raise> {
    let factor = spec.retry_memory_factor.as_deref().and_then(Factor::parse)?;
    let max = runner.max_retry_memory.as_ref().and_then(milli);
    Some(Raise {
        factor,
        times: out_of_memory,
        max: max.map(|milli| milli / 1000),
    })
}

/// The last one that names a key wins.
fn merged<const N: usize>(levels: [&BTreeMap<String, String>; N]) -> BTreeMap<String, String> {
    levels
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn env<const N: usize>(levels: [&Vec<slipway_crd::EnvVar>; N]) -> Vec<EnvVar> {
    let mut all: Vec<EnvVar> = Vec::new();
    for variable in levels.into_iter().flatten() {
        all.retain(|other| other.name != variable.name);
        all.push(EnvVar {
            name: variable.name.clone(),
            value: Some(variable.value.clone()),
            value_from: None,
        });
    }
    all
}

/// All that are asked for, and how long a lost node is waited for, unless that is asked for.
fn tolerations<const N: usize>(levels: [&Vec<Toleration>; N]) -> Vec<Toleration> {
    let mut all: Vec<Toleration> = levels.into_iter().flatten().cloned().collect();
    for taint in LOST_NODE {
        let is_told = all.iter().any(|toleration| {
            let every = toleration.key.as_deref().is_none_or(str::is_empty);
            (every || toleration.key.as_deref() == Some(taint))
                && toleration
                    .effect
                    .as_deref()
                    .is_none_or(|effect| effect == "NoExecute")
        });
        if !is_told {
            all.push(Toleration {
                key: Some(taint.to_owned()),
                operator: Some("Exists".to_owned()),
                effect: Some("NoExecute".to_owned()),
                toleration_seconds: Some(LOST_NODE_SECONDS),
                value: None,
            });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn settings(pods: &Value, stage: Option<&str>) -> Settings {
        let spec = serde_json::from_value(json!({
            "output": {"images": ["r.example.com/a:1"]}, "retryMemoryFactor": "2", "pods": pods,
        }))
        .unwrap();
        let runner: Runner = serde_json::from_value(json!({
            "image": "r", "nodeSelector": {"pool": "builders"}, "env": [{"name": "A", "value": "chart"}],
            "resources": {"limits": {"memory": "1Gi"}}, "maxRetryMemory": "3Gi",
            "tolerations": [{"key": "builders", "operator": "Exists"}],
        }))
        .unwrap();
        Settings::of(&spec, &runner, stage, 2)
    }

    #[test]
    fn a_stage_has_what_is_said_of_it_and_the_others_do_not() {
        let pods = json!({
            "resources": {"limits": {"cpu": "1"}},
            "nodeSelector": {"disk": "hdd"},
            "priorityClassName": "low",
            "env": [{"name": "A", "value": "build"}, {"name": "B", "value": "build"}],
            "labels": {"team": "shop"},
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
            "stages": {"Build": {
                "resources": {"limits": {"memory": "2Gi", "ephemeral-storage": "9Gi"}},
                "nodeSelector": {"disk": "nvme"},
                "tolerations": [{"key": "gpu", "operator": "Exists"}],
                "priorityClassName": "high",
                "runtimeClassName": "kata",
                "affinity": {"nodeAffinity": {}},
                "env": [{"name": "B", "value": "stage"}],
                "labels": {"team": "compilers"},
                "annotations": {"a": "b"},
                "topologySpreadConstraints": [{"maxSkew": 2, "topologyKey": "host", "whenUnsatisfiable": "DoNotSchedule"}],
            }},
        });
        let limits =
            |settings: &Settings| serde_json::to_value(settings.resources.limits.as_ref().unwrap()).unwrap();
        let env = |settings: &Settings| -> Vec<String> {
            let text =
                |variable: &EnvVar| format!("{}={}", variable.name, variable.value.as_deref().unwrap());
            settings.env.iter().map(text).collect()
        };
        for other in [None, Some("test")] {
            let other = settings(&pods, other);
            assert_eq!(limits(&other), json!({"cpu": "1", "memory": "3072Mi"}));
            assert_eq!(other.node_selector["disk"], "hdd");
            assert_eq!(other.node_selector["pool"], "builders");
            assert_eq!(env(&other), ["A=build", "B=build"]);
            assert_eq!(other.priority_class_name.as_deref(), Some("low"));
            assert_eq!(other.topology_spread[0].topology_key, "zone");
            assert!(other.affinity.is_none() && other.runtime_class_name.is_none());
            assert_eq!(other.labels["team"], "shop");
        }
        let own = settings(&pods, Some("build"));
        assert_eq!(
            limits(&own),
            json!({"cpu": "1", "memory": "3072Mi", "ephemeral-storage": "9Gi"})
        );
        assert_eq!(
            own.node_selector,
            json_map(&json!({"disk": "nvme", "pool": "builders"}))
        );
        assert_eq!(env(&own), ["A=build", "B=stage"]);
        assert_eq!(own.priority_class_name.as_deref(), Some("high"));
        assert_eq!(own.runtime_class_name.as_deref(), Some("kata"));
        assert_eq!(own.topology_spread[0].topology_key, "host");
        assert!(own.affinity.is_some());
        assert_eq!(
            (own.labels["team"].as_str(), own.annotations["a"].as_str()),
            ("compilers", "b")
        );
        let keys: Vec<_> = own.tolerations.iter().filter_map(|t| t.key.as_deref()).collect();
        assert_eq!(keys, ["builders", "gpu", LOST_NODE[0], LOST_NODE[1]]);
    }

    fn json_map(value: &Value) -> BTreeMap<String, String> {
        serde_json::from_value(value.clone()).unwrap()
    }

    #[test]
    fn a_lost_node_is_waited_for_as_the_spec_says() {
        for (asked, added) in [
            (json!([]), 2),
            (json!([{"operator": "Exists"}]), 0),
            (json!([{"operator": "Exists", "effect": "NoSchedule"}]), 2),
            (
                json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "tolerationSeconds": 5, "effect": "NoExecute"}]),
                1,
            ),
        ] {
            let seconds = settings(&json!({"tolerations": asked}), None)
                .tolerations
                .iter()
                .filter(|toleration| toleration.toleration_seconds == Some(LOST_NODE_SECONDS))
                .count();
            assert_eq!(seconds, added, "{asked}");
        }
    }
}
