//! The stages: which are needed, which may start, what became of them, and the image from their results.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use slipway_crd::{FailureStatus, Phase, StageState, StageStatus, StepCounts, conditions, reasons};
use slipway_oci::Digest;
use slipway_plan::protocol::{FailureReason, Schedule, ScheduledStage};

use super::{Action, Draft, backoff, plain, plan::Attempt};
use crate::{
    facts::{Fault, Lookup, Publication},
    naming,
    pod_view::{Kind, PodState, PodView},
    pods::HOLD_CONTAINER,
    validate::Valid,
};

/// The status holds this many stages; the CRD says the same.
const STAGE_LIMIT: usize = 512;

/// Which stages must run: those that a result or a gate needs, over every path that no cached result cuts off.
pub(super) fn needed(schedule: &Schedule) -> Vec<bool> {
    let mut needed = vec![false; schedule.stages.len()];
    let results = schedule.results.iter().map(|result| result.stage);
    let mut open: Vec<usize> = results.chain(schedule.gates.iter().copied()).collect();
    while let Some(index) = open.pop() {
        let (Some(stage), Some(mark)) = (schedule.stages.get(index), needed.get_mut(index)) else {
            continue;
        };
        if stage.cached.is_none() && !std::mem::replace(mark, true) {
            open.extend(&stage.needs);
        }
    }
    needed
}

impl Draft<'_> {
    /// Sees to the stages, and in the end to the image.
    pub(super) fn stages_step(&mut self, plan: &Digest, valid: &Valid) {
        let schedule = match &self.o.facts.schedule {
            Lookup::Done(schedule) => Arc::clone(schedule),
            Lookup::Untried => return self.actions.push(Action::FetchSchedule { plan: plan.clone() }),
            Lookup::Failed(fault) => {
                let fault = fault.clone();
                let again = Action::FetchSchedule { plan: plan.clone() };
                return self.registry_failed(conditions::PLANNED, &fault, "read the plan", again);
            }
        };
        let count = schedule.stages.len();
        if count > STAGE_LIMIT {
            let message = format!(
                "the plan has {count} stages over all platforms, and a status holds {STAGE_LIMIT}; build fewer platforms in one ImageBuild, or split the Dockerfile"
            );
            return self.fail(conditions::PLANNED, plain(reasons::TOO_MANY_STAGES, message));
        }
        if let Err(message) = check(&schedule, valid) {
            return self.fail(conditions::PLANNED, plain(reasons::INTERNAL, message));
        }
        self.status.phase = Some(Phase::Running);
        self.list_stages(&schedule);
        let held_back = self.make_room(&schedule);
        let mut failures: Vec<(Timestamp, FailureStatus)> = Vec::new();
        for (index, (stage, held_back)) in schedule.stages.iter().zip(held_back).enumerate() {
            self.stage_step(index, stage, &schedule, held_back, &mut failures);
        }
        // The first that failed is the one that is told; others may have failed because of it. Times are whole seconds of
        // different nodes' clocks, so a pod that was taken away comes after one that failed by itself.
        let order = |(at, failure): &(Timestamp, FailureStatus)| (was_taken_away(failure), *at);
        if let Some((_, failure)) = failures.into_iter().min_by_key(order) {
            let failure = self.status.failure.take().unwrap_or(failure);
            if !self.goes_on_without_lost(&schedule) {
                return self.fail(conditions::STAGES_COMPLETE, failure);
            }
            self.status.failure = Some(failure);
        }
        self.publish_step(&schedule, valid);
    }

    /// Puts every stage of the schedule into the status, with what is known without looking at pods.
    fn list_stages(&mut self, schedule: &Schedule) {
        if self.status.stages.len() == schedule.stages.len() {
            return;
        }
        self.tell_unknown_stages(schedule);
        self.status.stages = schedule
            .stages
            .iter()
            .zip(needed(schedule))
            .map(|(stage, needed)| {
                let state = match (&stage.cached, needed) {
                    (Some(_), _) => StageState::Cached,
                    (None, true) => StageState::Waiting,
                    (None, false) => StageState::Skipped,
                };
                let steps = match state {
                    StageState::Cached => StepCounts {
                        done: stage.steps,
                        cached: stage.steps,
                        total: stage.steps,
                    },
                    _ => StepCounts {
                        total: stage.steps,
                        ..StepCounts::default()
                    },
                };
                StageStatus {
                    id: stage.id.clone(),
                    key: stage.shared.then(|| stage.key.clone()),
                    name: stage.name.clone(),
                    platform: stage.platform.to_string(),
                    state,
                    steps,
                    digest: stage.cached.as_ref().map(ToString::to_string),
                    needs: ids(schedule, &stage.needs),
                    ..StageStatus::default()
                }
            })
            .collect();
    }

    /// A misspelt name in `spec.pods.stages` would otherwise do nothing, in silence.
    fn tell_unknown_stages(&mut self, schedule: &Schedule) {
        let is_there = |name: &str| {
            schedule
                .stages
                .iter()
                .any(|stage| stage.name.eq_ignore_ascii_case(name))
        };
        let unknown: Vec<&str> = self
            .o
            .build
            .spec
            .pods
            .stages
            .keys()
            .map(String::as_str)
            .filter(|name| !is_there(name))
            .collect();
        if unknown.is_empty() {
            return;
        }
        let note = format!(
            "spec.pods.stages: the plan has no stage {}: misspelt, or not needed by the target",
            unknown.join(", ")
        );
        self.turn(reasons::STAGE_UNKNOWN, true, None, note);
    }

    fn stage_step(
        &mut self,
        index: usize,
        stage: &ScheduledStage,
        schedule: &Schedule,
        held_back: bool,
        failures: &mut Vec<(Timestamp, FailureStatus)>,
    ) {
        let Some(mut row) = self
            .status
            .stages
            .get(index)
            .cloned()
            .filter(|row| !row.state.is_final())
        else {
            return;
        };
        let latest = self.newest_pod(&stage.id);
        row.attempts = row.attempts.max(latest.map_or(0, |pod| pod.attempt));
        if let Some(pod) = latest {
            row.pod = Some(pod.name.clone());
            row.node.clone_from(&pod.node);
            row.started_at = row.started_at.or(Some(Time(pod.created)));
            row.state = match &pod.state {
                PodState::Waiting(_) => StageState::Starting,
                PodState::Running | PodState::Planned { .. } => StageState::Running,
                PodState::Failed(_) => StageState::Waiting,
                PodState::Finished { .. } => StageState::Succeeded,
            };
            if let PodState::Finished {
                manifest,
                executed,
                cached,
                at,
            } = &pod.state
            {
                row.digest = Some(manifest.to_string());
                row.finished_at = Some(Time(*at));
                row.steps = StepCounts {
                    done: executed + cached,
                    cached: *cached,
                    total: row.steps.total,
                };
                let note = format!(
                    "{} ({}): {executed} steps executed, {cached} cached",
                    row.name, row.platform
                );
                self.turn(reasons::STAGE_FINISHED, false, Some(&pod.name), note);
                return self.put(index, row);
            }
        } else if row.attempts == 0
            && (held_back || !self.may_start(stage) || !self.may_hold_claims(schedule, stage))
        {
            return self.put(index, row);
        }
        if self.is_made_elsewhere(stage, latest, &mut row) {
            return self.put(index, row);
        }
        if row.gave_way_to.is_some() && !latest.is_some_and(PodView::failed_for_good) {
            row.state = StageState::Waiting;
            if !held_back && self.all_there(stage) {
                let next = row.attempts + 1;
                self.start_stage(index, stage, &mut row, next);
            }
            return self.put(index, row);
        }
        if !self.has_node(stage, latest) {
            return self.put(index, row);
        }
        let what = format!("stage {} ({})", row.name, row.platform);
        match self.attempt(&what, latest, row.attempts, row.gave_way) {
            Attempt::Going => {}
            Attempt::Start(attempt) => self.start_stage(index, stage, &mut row, attempt),
            Attempt::Failed(mut failure, at) => {
                row.state = StageState::Failed;
                row.finished_at = Some(Time(at));
                failure.stage = Some(row.name.clone());
                failure.platform = Some(row.platform.clone());
                failure.pod.clone_from(&row.pod);
                self.tell_how_to_enter(&mut failure);
                failures.push((at, *failure));
            }
        }
        self.put(index, row);
    }

    /// How many pods of the stage are there that ran out of memory.
    fn out_of_memory(&self, stage: &ScheduledStage) -> u32 {
        let count = self
            .pods()
            .filter(|pod| matches!(&pod.kind, Kind::Stage(id) if *id == stage.id))
            .filter(|pod| pod.ran_out_of_memory())
            .count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Where the files of a failed step are held, as `spec.debug.holdFailed` asks.
    fn tell_how_to_enter(&self, failure: &mut FailureStatus) {
        let spec = &self.o.build.spec;
        let time = spec.debug.as_ref().and_then(|debug| debug.hold_failed.as_ref());
        let is_step = [FailureReason::StepFailed, FailureReason::OutOfMemory]
            .iter()
            .any(|reason| reason.as_str() == failure.reason);
        if let (Some(time), true, Some(_), Some(pod)) = (time, is_step, &failure.instruction, &failure.pod) {
            let namespace = self.o.build.metadata.namespace.as_deref().unwrap_or_default();
            failure.message = format!(
                "{}; its files are held for {time}: kubectl exec -n {namespace} -it {pod} -c {HOLD_CONTAINER} -- slipway-runner enter",
                failure.message
            );
        }
    }

    fn put(&mut self, index: usize, row: StageStatus) {
        if let Some(place) = self.status.stages.get_mut(index) {
            *place = row;
        }
    }

    /// Begins an attempt at a stage, unless pods are being refused.
    fn start_stage(&mut self, index: usize, stage: &ScheduledStage, row: &mut StageStatus, attempt: u32) {
        row.state = StageState::Waiting;
        if !self.o.facts.refused.is_empty() {
            return;
        }
        let Some(claims) = self.take_claims(stage) else {
            return;
        };
        // Counted where it is acted upon; the pods tell what a status that was never written did not.
        let again = self.newest_pod(&stage.id).is_some_and(PodView::ran_out_of_memory);
        row.out_of_memory = (row.out_of_memory + u32::from(again)).max(self.out_of_memory(stage));
        let build = self.o.build.metadata.name.as_deref().unwrap_or_default();
        let name = naming::stage_pod(build, self.run_number(), &stage.id, attempt);
        self.actions.push(Action::StartStage {
            stage: index,
            attempt,
            out_of_memory: row.out_of_memory,
            claims,
        });
        let note = format!("{} ({})", row.name, row.platform);
        self.turn(reasons::STAGE_STARTED, false, Some(&name), note);
        row.state = StageState::Starting;
        row.attempts = attempt;
        row.gave_way_to = None;
        row.pod = Some(name);
        row.node = None;
        row.started_at = row.started_at.clone().or(Some(Time(self.o.now)));
    }

    /// Whether everything that a stage reads is there.
    fn all_there(&self, stage: &ScheduledStage) -> bool {
        let has_result = |row: &StageStatus| row.state.has_result();
        let rows = &self.status.stages;
        stage
            .needs
            .iter()
            .all(|&index| rows.get(index).is_some_and(has_result))
    }

    /// Whether the first step of a stage has its inputs. For later ones it waits inside its pod.
    pub(super) fn may_start(&self, stage: &ScheduledStage) -> bool {
        stage.start_after.iter().all(|&index| {
            self.status
                .stages
                .get(index)
                .is_some_and(|row| row.state.has_result())
        })
    }

    fn publish_step(&mut self, schedule: &Schedule, valid: &Valid) {
        let digest = |stage: usize| {
            self.status
                .stages
                .get(stage)?
                .digest
                .as_ref()?
                .parse::<Digest>()
                .ok()
        };
        let results: Vec<_> = schedule
            .results
            .iter()
            .filter_map(|result| Some((result.platform.clone(), digest(result.stage)?)))
            .collect();
        // A stage that no result and no gate needs does not hold the image up: `needed` has left it out.
        let done = self.status.stages.iter().all(|stage| stage.state.is_final());
        let lost = self.lost_platforms(schedule);
        if results.len() + lost.iter().filter(|lost| **lost).count() < schedule.results.len() || !done {
            return;
        }
        self.status.phase = Some(Phase::Assembling);
        let publication = Publication {
            images: valid.images.clone(),
            results,
            several: schedule.results.len() > 1,
            annotations: self.o.build.spec.output.annotations.clone(),
        };
        match &self.o.facts.published {
            Lookup::Untried => self.actions.push(Action::Publish(publication)),
            Lookup::Done(published) => self.succeed(&publication, published),
            Lookup::Failed(fault) => {
                let fault = fault.clone();
                self.registry_failed(
                    conditions::PUSHED,
                    &fault,
                    "push the image",
                    Action::Publish(publication),
                );
            }
        }
    }

    /// What to do after the registry failed the operator: wait, ask once more, or give up.
    fn registry_failed(&mut self, condition: &str, fault: &Fault, what: &str, again: Action) {
        let attempts = self.o.facts.registry_attempts;
        let message = format!("failed to {what}: {}", fault.message);
        if !fault.transient || attempts > self.o.build.spec.retries {
            return self.fail(condition, plain(fault.reason, message));
        }
        self.hold(
            fault.reason,
            format!("{message} (attempt {attempts}; trying again)"),
        );
        let failed_at = self.o.facts.registry_failed_at.unwrap_or(self.o.now);
        let wait = backoff(attempts).max(fault.retry_after.unwrap_or_default());
        let due = failed_at.checked_add(wait).unwrap_or(self.o.now);
        // Whatever asks for this decision meanwhile (the status just written does), the registry is left in peace.
        if self.o.now < due {
            self.look_at(due);
        } else {
            self.actions.push(again);
        }
    }
}

/// Whether the failure is that of a pod which somebody ended, this operator perhaps.
fn was_taken_away(failure: &FailureStatus) -> bool {
    [reasons::POD_LOST, reasons::POD_EVICTED].contains(&failure.reason.as_str())
}

/// The ids of stages given by their places.
fn ids(schedule: &Schedule, places: &[usize]) -> Vec<String> {
    let stage = |place: &usize| schedule.stages.get(*place);
    places
        .iter()
        .filter_map(stage)
        .map(|stage| stage.id.clone())
        .collect()
}

/// A stage may have this many cache mounts; each is a volume of its pod.
const CACHE_LIMIT: usize = 32;
/// The id of a cache mount may be so long, bytes: it becomes an annotation.
const CACHE_ID_LIMIT: usize = 1024;

fn check_caches(stage: &ScheduledStage) -> Result<(), String> {
    let (name, count) = (&stage.name, stage.caches.len());
    if count > CACHE_LIMIT {
        return Err(format!(
            "stage {name} has {count} different cache mounts; the limit is {CACHE_LIMIT}"
        ));
    }
    for (index, cache) in stage.caches.iter().enumerate() {
        if cache.id.len() > CACHE_ID_LIMIT || cache.id.chars().any(char::is_control) {
            return Err(format!(
                "stage {name} has a cache mount whose id is longer than {CACHE_ID_LIMIT} bytes or holds control characters; give it another id="
            ));
        }
        if stage.caches.iter().take(index).any(|other| other == cache) {
            return Err(format!(
                "the plan has the cache mount {:?} of stage {name} twice",
                cache.id
            ));
        }
    }
    Ok(())
}

/// A plan comes from a pod that works on untrusted input: nothing in it is taken for granted.
fn check(schedule: &Schedule, valid: &Valid) -> Result<(), String> {
    let count = schedule.stages.len();
    let label = |text: &str| {
        !text.is_empty()
            && text.len() <= 63
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.ends_with(|c: char| c.is_ascii_alphanumeric())
    };
    for (index, stage) in schedule.stages.iter().enumerate() {
        check_caches(stage)?;
        if !label(&stage.id) {
            return Err(format!(
                "the plan names a stage {:?}, which is no label value",
                stage.id
            ));
        }
        if stage
            .needs
            .iter()
            .chain(&stage.start_after)
            .any(|&other| other >= index)
        {
            return Err(format!(
                "the plan has stage {} before one that it needs",
                stage.id
            ));
        }
        if schedule
            .stages
            .iter()
            .take(index)
            .any(|other| other.id == stage.id)
        {
            return Err(format!("the plan has stage {} twice", stage.id));
        }
    }
    let platforms: Vec<_> = schedule.results.iter().map(|result| &result.platform).collect();
    if platforms != valid.platforms.iter().collect::<Vec<_>>() {
        return Err("the plan is for other platforms than spec.platforms".to_owned());
    }
    if schedule.results.iter().any(|result| result.stage >= count) {
        return Err("the plan has a result that is no stage".to_owned());
    }
    // An image that skips its gates must not come out of a pod that was talked into leaving them out.
    for gate in &valid.gates {
        let is_there = schedule.gates.iter().any(|&index| {
            let stage = schedule.stages.get(index);
            stage.is_some_and(|stage| stage.name.eq_ignore_ascii_case(gate))
        });
        if !is_there {
            return Err(format!("the plan does not have the gate {gate}"));
        }
    }
    if schedule.gates.iter().any(|&index| index >= count) {
        return Err("the plan has a gate that is no stage".to_owned());
    }
    Ok(())
}
