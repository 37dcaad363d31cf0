//! A stage of its own for the image of each platform.

use crate::{
    model::{BuildPlan, StagePlan},
    planner::unique_id,
    source::Source,
};
use std::collections::{BTreeMap, BTreeSet};

/// Puts an empty stage on top of a last stage that several platforms share (its `FROM` names a fixed platform), one for
/// each of them: where a stage writes one image, their images must be told apart, for each names its own platform.
pub fn split_results(plan: &mut BuildPlan) {
    let mut readers: BTreeMap<usize, usize> = BTreeMap::new();
    for result in &plan.results {
        *readers.entry(result.stage).or_default() += 1;
    }
    let mut ids: BTreeSet<String> = plan.stages.iter().map(|stage| stage.id.clone()).collect();
    for result in &mut plan.results {
        if readers.get(&result.stage).is_none_or(|count| *count < 2) {
            continue;
        }
        let Some(shared) = plan.stages.get(result.stage) else {
            continue;
        };
        let own = StagePlan {
            id: unique_id(&format!("{}-for", shared.name), &result.platform, &mut ids),
            base: Source::Stage(result.stage),
            steps: Vec::new(),
            base_config: shared.config.clone(),
            ..shared.clone()
        };
        result.stage = plan.stages.len();
        plan.stages.push(own);
    }
}
