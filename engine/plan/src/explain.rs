//! Why a step runs: what differs from the plan of the build before, and what the cache has. Pure.
//!
//! ```text
//!  plan, keys ─┬─ of this build ─────┐
//!              └─ of the one before ─┴─ explain ─▶ Explanation ─▶ log of the plan pod, `slipway explain`
//!  what the cache has ───────────────┘
//! ```

use crate::{
    keys::{Change, Keys, StepKey, fresh},
    model::{BuildPlan, Step},
};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// Media type of an [`Explanation`] as JSON: a layer of the plan's artifact.
pub const EXPLANATION_TYPE: &str = "application/vnd.slipway.explanation.v1+json";

/// Why each step of a build runs or does not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The Dockerfile's name.
    pub dockerfile: String,
    /// Whether an earlier plan of the same build was there to compare with.
    pub compared: bool,
    /// One for each stage of the plan, in its order.
    pub stages: Vec<StageExplanation>,
}

/// Why a stage runs or does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StageExplanation {
    /// Its id in the plan, the same as in `status.stages`.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its platform.
    pub platform: String,
    /// What becomes of it.
    pub outcome: Outcome,
    /// One for each step that makes a layer.
    pub steps: Vec<StepExplanation>,
}

/// What becomes of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// Its result is there: no pod.
    Cached,
    /// A pod runs it; steps that are cached are taken from there.
    Runs,
    /// No stage that runs reads it: no pod.
    Skipped,
}

/// Why a step runs or does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepExplanation {
    /// The line in the Dockerfile, from 1.
    pub line: u32,
    /// The instruction, variables replaced.
    pub instruction: String,
    /// Its key.
    pub key: String,
    /// Its layer is in the cache. If not, it may still be found by content once its inputs are there.
    pub cached: bool,
    /// Why it is not; empty if it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub why: Vec<Why>,
}

/// A reason for a step to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Why {
    /// The build ignores the cache for its stage.
    NoCache,
    /// It reads files of a stage for which the build ignores the cache, or stands behind a step that does.
    Fresh,
    /// What it downloads has no checksum, so nobody knows beforehand whether it has changed.
    Unknown,
    /// There was no such step in the build before.
    New,
    /// Nothing has changed since the build before, but the cache has it no more.
    Gone,
    /// The cache does not have it, and there is no earlier build to compare with.
    First,
    /// A step before it runs.
    Follows,
    /// What has changed since the build before.
    Changed(Change),
}

/// What the cache has of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Had {
    /// What becomes of it.
    pub outcome: Outcome,
    /// For each of its steps, whether its layer is there; shorter if the search ended before.
    pub steps: Vec<bool>,
}

/// Explains a build. `had` has one entry for each stage of the plan.
pub fn explain(
    plan: &BuildPlan,
    keys: &Keys,
    had: &[Had],
    before: Option<(&BuildPlan, &Keys)>,
) -> Explanation {
    let fresh = fresh(plan);
    let stages = plan.stages.iter().zip(&keys.stages).zip(had).enumerate();
    let stages = stages.map(|(index, ((stage, stage_keys), had))| {
        let old = before.and_then(|(plan, keys)| {
            let index = plan.stages.iter().position(|old| old.id == stage.id)?;
            Some(steps_of(
                &plan.stages[index].steps,
                &keys.stages.get(index)?.steps,
            ))
        });
        let new = steps_of(&stage.steps, &stage_keys.steps);
        let partners = old.as_ref().map(|old| align(old, &new));
        let mut runs_before = false;
        let steps = new.iter().enumerate().map(|(at, (number, step, key))| {
            let cached =
                had.outcome == Outcome::Cached || had.steps.get(*number).copied().unwrap_or_default();
            let why = if cached {
                Vec::new()
            } else if stage.no_cache {
                vec![Why::NoCache]
            } else {
                let partner = || Some(old.as_ref()?.get(partners.as_ref()?[at]?)?.2);
                let old = match (&old, partner()) {
                    (None, _) => Old::Unknown,
                    (Some(_), None) => Old::Absent,
                    (Some(_), Some(key)) => Old::Was(key),
                };
                why(key, old, runs_before, fresh[index])
            };
            runs_before |= !cached;
            StepExplanation {
                line: step.span.first_line,
                instruction: step.display.clone(),
                key: key.key.as_str().to_owned(),
                cached,
                why,
            }
        });
        StageExplanation {
            id: stage.id.clone(),
            name: stage.name.clone(),
            platform: stage.platform.to_string(),
            outcome: had.outcome,
            steps: steps.collect(),
        }
    });
    Explanation {
        dockerfile: plan.dockerfile.clone(),
        compared: before.is_some(),
        stages: stages.collect(),
    }
}

/// What a step was in the build before.
#[derive(Clone, Copy)]
enum Old<'a> {
    /// There is nothing to compare with.
    Unknown,
    /// It was not there.
    Absent,
    /// Its key.
    Was(&'a StepKey),
}

/// Why a step that is not cached runs.
fn why(key: &StepKey, old: Old<'_>, runs_before: bool, fresh: bool) -> Vec<Why> {
    let changes = match old {
        Old::Unknown if runs_before => return vec![Why::Follows],
        Old::Unknown if !key.inputs.certain => return vec![Why::Unknown],
        Old::Unknown => return vec![Why::First],
        Old::Absent => return vec![Why::New],
        Old::Was(old) => key.inputs.changes(&old.inputs),
    };
    let own: Vec<Why> = changes
        .iter()
        .filter(|change| **change != Change::Parent)
        .cloned()
        .map(Why::Changed)
        .collect();
    if !own.is_empty() {
        return own;
    }
    // Only what comes before it has changed, or nothing at all.
    vec![match changes.first() {
        Some(change) if !runs_before => Why::Changed(change.clone()),
        Some(_) => Why::Follows,
        None if runs_before => Why::Follows,
        None if fresh => Why::Fresh,
        None if !key.inputs.certain => Why::Unknown,
        None => Why::Gone,
    }]
}

type Layered<'a> = (usize, &'a Step, &'a StepKey);

/// The steps that make a layer, with their places.
fn steps_of<'a>(steps: &'a [Step], keys: &'a [Option<StepKey>]) -> Vec<Layered<'a>> {
    let pairs = steps.iter().zip(keys).enumerate();
    pairs
        .filter_map(|(at, (step, key))| Some((at, step, key.as_ref()?)))
        .collect()
}

/// Which old step each new one continues: those that read the same, in order, as many as can be; and between two of
/// them, those that begin with the same word.
fn align(old: &[Layered<'_>], new: &[Layered<'_>]) -> Vec<Option<usize>> {
    let same = |o: usize, n: usize| old[o].2.inputs.instruction == new[n].2.inputs.instruction;
    // longest[o][n]: of old[o..] and new[n..].
    let mut longest = vec![vec![0_u32; new.len() + 1]; old.len() + 1];
    for o in (0..old.len()).rev() {
        for n in (0..new.len()).rev() {
            longest[o][n] = if same(o, n) {
                longest[o + 1][n + 1] + 1
            } else {
                longest[o + 1][n].max(longest[o][n + 1])
            };
        }
    }
    let word = |step: &Step| step.display.split_whitespace().next().map(ToOwned::to_owned);
    let mut partners = vec![None; new.len()];
    let (mut o, mut n) = (0, 0);
    while o < old.len() && n < new.len() {
        if same(o, n) {
            partners[n] = Some(o);
            (o, n) = (o + 1, n + 1);
        } else if longest[o + 1][n + 1] == longest[o][n] && word(old[o].1) == word(new[n].1) {
            // An instruction that was edited.
            partners[n] = Some(o);
            (o, n) = (o + 1, n + 1);
        } else if longest[o + 1][n] >= longest[o][n + 1] {
            o += 1;
        } else {
            n += 1;
        }
    }
    partners
}

impl Why {
    /// In words that go on after the step: "runs because …".
    pub fn sentence(&self) -> String {
        match self {
            Self::NoCache => "the cache is not used for this stage".into(),
            Self::Fresh => "it depends on a stage for which the cache is not used".into(),
            Self::Unknown => "what it downloads is known only when it is there".into(),
            Self::New => "the build before did not have it".into(),
            Self::Gone => "the cache has it no more".into(),
            Self::First => "the cache does not have it yet".into(),
            Self::Follows => "a step before it runs".into(),
            Self::Changed(Change::Parent) => "the base, or a step before it, has changed".into(),
            Self::Changed(Change::Instruction) => "the instruction has changed".into(),
            Self::Changed(Change::Platform) => "the platform has changed".into(),
            Self::Changed(Change::Variable(name)) => format!("the variable {name} has changed"),
            Self::Changed(Change::Files(name)) => format!("{name} has changed"),
        }
    }
}

impl StepExplanation {
    /// All its reasons in one sentence; empty if it is cached.
    pub fn reasons(&self) -> String {
        let reasons: Vec<String> = self.why.iter().map(Why::sentence).collect();
        reasons.join(", ")
    }
}

impl Explanation {
    /// A line for each stage that runs: how many steps are cached, which is the first that runs, and why.
    pub fn summary(&self) -> Vec<String> {
        let running = self.stages.iter().filter(|stage| stage.outcome == Outcome::Runs);
        running
            .map(|stage| {
                let cached = stage.steps.iter().filter(|step| step.cached).count();
                let mut line = format!(
                    "{} ({}): {cached} of {} steps in the cache",
                    stage.name,
                    stage.platform,
                    stage.steps.len()
                );
                if let Some(step) = stage.steps.iter().find(|step| !step.cached) {
                    let _ = write!(
                        line,
                        "; {}:{} {} runs because {}",
                        self.dockerfile,
                        step.line,
                        step.instruction,
                        step.reasons()
                    );
                }
                line
            })
            .collect()
    }
}
