//! From one graph for each platform to the plan: equal stages become one, indices become those of the plan.

use super::{
    Planned,
    stages::{Node, NodeId},
    text,
};
use crate::{
    model::{BuildPlan, CopySource, Mount, Op, PLAN_VERSION, PlanResult, StagePlan, Step},
    request::PlanRequest,
    source::{Source, StageIndex},
};
use slipway_dockerfile::lint::Warning;
use slipway_oci::{Digest, ImageConfig, Platform};
use std::collections::{BTreeMap, BTreeSet};

/// Kubernetes' limit for the value of a label.
const LABEL_LIMIT: usize = 63;

pub(super) fn merge(request: &PlanRequest, planned: &[Planned<'_>], warnings: Vec<Warning>) -> BuildPlan {
    let mut stages: Vec<StagePlan> = Vec::new();
    let mut index: Vec<BTreeMap<NodeId, StageIndex>> = vec![BTreeMap::new(); planned.len()];
    let needed: Vec<BTreeSet<NodeId>> = planned.iter().map(needed).collect();
    let most = planned.iter().map(|one| one.nodes.len()).max().unwrap_or(0);
    // Node by node, so that the same stage of two platforms stands together; a node's sources have smaller numbers.
    for id in 0..most {
        for ((own, one), needed) in index.iter_mut().zip(planned).zip(&needed) {
            let Some(node) = one.nodes.get(id) else { continue };
            let Some(stage) = needed.contains(&id).then(|| stage_plan(node, own)).flatten() else {
                continue;
            };
            let place = stages
                .iter()
                .position(|other| *other == stage)
                .unwrap_or_else(|| {
                    stages.push(stage);
                    stages.len() - 1
                });
            own.insert(id, place);
        }
    }
    let mut ids = BTreeSet::new();
    for stage in &mut stages {
        stage.id = unique_id(&stage.name, &stage.platform, &mut ids);
    }
    let gates: BTreeSet<StageIndex> = planned
        .iter()
        .zip(&index)
        .flat_map(|(one, own)| one.gates.iter().filter_map(|gate| own.get(gate).copied()))
        .collect();
    let epoch = planned.first().and_then(|one| one.epoch);
    let results = planned
        .iter()
        .zip(&index)
        .filter_map(|(one, own)| {
            let stage = *own.get(&one.target)?;
            let built = one.nodes[one.target].built.as_deref()?;
            Some(PlanResult {
                platform: one.platform.clone(),
                stage,
                config: result_config(request, one, &built.config),
                base: built.image.clone(),
                annotations: BTreeMap::new(),
            })
        })
        .collect();
    BuildPlan {
        version: PLAN_VERSION,
        dockerfile: request.dockerfile.name.clone(),
        source: request.dockerfile.source.clone(),
        stages,
        results,
        gates: gates.into_iter().collect(),
        warnings,
        epoch,
    }
}

/// The target, the gates and the stages that are read for them. A node can be named without being read: by `COPY --from` that has
/// only heredocs, or for a stage without layers.
fn needed(planned: &Planned<'_>) -> BTreeSet<NodeId> {
    let (mut seen, mut todo) = (BTreeSet::new(), planned.gates.clone());
    todo.push(planned.target);
    while let Some(id) = todo.pop() {
        if !seen.insert(id) {
            continue;
        }
        if let Some(built) = &planned.nodes[id].built {
            if let Source::Stage(base) = built.base {
                todo.push(base);
            }
            todo.extend(built.steps.iter().flat_map(Step::stages));
        }
    }
    seen
}

/// The plan of a node that is a stage, without an id.
fn stage_plan(node: &Node<'_>, index: &BTreeMap<NodeId, StageIndex>) -> Option<StagePlan> {
    let (stage, built) = (node.stage?, node.built.as_deref()?);
    let mut steps = built.steps.clone();
    for step in &mut steps {
        match &mut step.op {
            Op::Copy(copy) => {
                for CopySource { source, .. } in &mut copy.sources {
                    renumber(source, index);
                }
            }
            Op::Run(run) => {
                for mount in &mut run.mounts {
                    if let Mount::Bind { source, .. } | Mount::Cache { source, .. } = mount {
                        renumber(source, index);
                    }
                }
            }
            Op::Metadata | Op::Mkdir(_) => {}
        }
    }
    let mut base = built.base.clone();
    renumber(&mut base, index);
    Some(StagePlan {
        id: String::new(),
        name: node.name.clone(),
        index: stage.index,
        platform: built.platform.clone(),
        base,
        span: stage.span,
        instruction: stage.original.clone(),
        steps,
        base_config: built.base_config.clone(),
        config: built.config.clone(),
        no_cache: node.no_cache,
    })
}

fn renumber(source: &mut Source, index: &BTreeMap<NodeId, StageIndex>) {
    if let Source::Stage(stage) = source
        && let Some(place) = index.get(stage)
    {
        *stage = *place;
    }
}

/// The config of the image: the labels of the request on top, and the platform that was asked for.
fn result_config(request: &PlanRequest, planned: &Planned<'_>, config: &ImageConfig) -> ImageConfig {
    let mut config = config.clone();
    config.config.labels.extend(request.labels.clone());
    config.created = planned.epoch.map(text::timestamp);
    let platform = &planned.platform;
    if !planned.implicit {
        let same = (&platform.os, &platform.architecture) == (&config.os, &config.architecture);
        config.os.clone_from(&platform.os);
        config.architecture.clone_from(&platform.architecture);
        if platform.variant.is_some() || !same {
            config.variant.clone_from(&platform.variant);
        }
        if platform.os_version.is_some() || !same {
            config.os_version.clone_from(&platform.os_version);
        }
        if !platform.os_features.is_empty() {
            config.os_features.clone_from(&platform.os_features);
        }
    }
    let normal = config.platform();
    (config.os, config.architecture, config.variant) = (normal.os, normal.architecture, normal.variant);
    config
}

/// `build-linux-amd64`: letters that a label value takes, at most [`LABEL_LIMIT`] of them, not taken yet.
pub(crate) fn unique_id(name: &str, platform: &Platform, taken: &mut BTreeSet<String>) -> String {
    let whole = format!("{name}-{}", platform.to_string().replace('/', "-"));
    let plain: String = whole
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect();
    let plain = plain.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    let id = if plain.len() <= LABEL_LIMIT {
        plain.to_owned()
    } else {
        let hash = Digest::of(whole.as_bytes());
        format!("{}-{}", &plain[..LABEL_LIMIT - 13], hash.short())
    };
    let mut candidate = id.clone();
    for number in 2.. {
        if taken.insert(candidate.clone()) {
            break;
        }
        let suffix = format!("-{number}");
        let keep = id.len().min(LABEL_LIMIT - suffix.len());
        candidate = format!("{}{suffix}", &id[..keep]);
    }
    candidate
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_label_values_and_unique() {
        let platform = Platform::new("linux", "arm", "v7");
        let mut taken = BTreeSet::new();
        let long = "x".repeat(100);
        let names = ["build", "build", "Build", &long, &long, "a_b.c", "ü"];
        let ids: Vec<String> = names
            .iter()
            .map(|name| unique_id(name, &platform, &mut taken))
            .collect();
        assert_eq!(
            ids[..3],
            [
                "build-linux-arm-v7",
                "build-linux-arm-v7-2",
                "build-linux-arm-v7-3"
            ]
        );
        assert_eq!(taken.len(), names.len());
        for id in ids {
            assert!(id.len() <= LABEL_LIMIT, "{id}");
            assert!(id.starts_with(|c: char| c.is_ascii_alphanumeric()), "{id}");
            assert!(id.ends_with(|c: char| c.is_ascii_alphanumeric()), "{id}");
        }
    }
}
