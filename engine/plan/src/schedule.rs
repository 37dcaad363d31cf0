//! From plan and keys to what the operator sees.

use crate::{
    keys::{Keys, StageKeys},
    model::{BuildPlan, Mount, Op, StagePlan, Step},
    protocol::{Schedule, ScheduledCache, ScheduledResult, ScheduledStage},
    source::Source,
};
use slipway_oci::Digest;
use std::collections::BTreeSet;

/// Version of the schedule's JSON.
pub const SCHEDULE_VERSION: u32 = 1;

/// The schedule of a plan. `cached` tells the manifest of a stage's result, if the cache has it under
/// [`StageKeys::result`]; it is not asked for stages whose keys are not certain or that ignore the cache.
pub fn schedule(plan: &BuildPlan, keys: &Keys, cached: &dyn Fn(&StageKeys) -> Option<Digest>) -> Schedule {
    let stages = plan
        .stages
        .iter()
        .zip(&keys.stages)
        .enumerate()
        .map(|(index, (stage, keys))| ScheduledStage {
            id: stage.id.clone(),
            name: stage.name.clone(),
            platform: stage.platform.clone(),
            runs: stage.steps.iter().any(|step| matches!(step.op, Op::Run(_))),
            key: keys.result.as_str().to_owned(),
            shared: keys.certain
                && !stage.no_cache
                && plan.results.iter().all(|result| result.stage != index),
            start_after: start_after(stage).into_iter().collect(),
            needs: needs(stage).into_iter().collect(),
            cached: if keys.certain && !stage.no_cache {
                cached(keys)
            } else {
                None
            },
            secrets: secrets(stage).into_iter().collect(),
            caches: caches(stage).into_iter().collect(),
            steps: u32::try_from(stage.steps.iter().filter(|step| step.makes_layer()).count())
                .unwrap_or(u32::MAX),
        })
        .collect();
    let results = plan
        .results
        .iter()
        .map(|result| ScheduledResult {
            platform: result.platform.clone(),
            stage: result.stage,
        })
        .collect();
    Schedule {
        version: SCHEDULE_VERSION,
        stages,
        results,
        gates: plan.gates.clone(),
    }
}

fn base_stage(stage: &StagePlan) -> BTreeSet<usize> {
    match stage.base {
        Source::Stage(base) => BTreeSet::from([base]),
        _ => BTreeSet::new(),
    }
}

/// What the first step that makes a layer needs. The pod starts then, and waits inside for the rest.
fn start_after(stage: &StagePlan) -> BTreeSet<usize> {
    let mut stages = base_stage(stage);
    if let Some(first) = stage.steps.iter().find(|step| step.makes_layer()) {
        stages.extend(first.stages());
    }
    stages
}

fn needs(stage: &StagePlan) -> BTreeSet<usize> {
    let mut stages = base_stage(stage);
    stages.extend(stage.steps.iter().flat_map(Step::stages));
    stages
}

fn secrets(stage: &StagePlan) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for step in &stage.steps {
        if let Op::Run(run) = &step.op {
            ids.extend(run.mounts.iter().filter_map(|mount| match mount {
                Mount::Secret { id, .. } => Some(id.clone()),
                _ => None,
            }));
        }
    }
    ids
}

fn caches(stage: &StagePlan) -> BTreeSet<ScheduledCache> {
    let mut caches = BTreeSet::new();
    for step in &stage.steps {
        if let Op::Run(run) = &step.op {
            caches.extend(run.mounts.iter().filter_map(|mount| match mount {
                Mount::Cache { id, sharing, .. } => Some(ScheduledCache {
                    id: id.clone(),
                    sharing: *sharing,
                }),
                _ => None,
            }));
        }
    }
    caches
}
