//! When a run begins, is stopped, fails and succeeds.

use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use slipway_crd::{
    FailureStatus, ImageBuild, ImageBuildStatus, ImageStatus, Phase, PlatformImage, Run, StageState,
    conditions, reasons,
};

use super::{
    Action, Draft, plain,
    queue::{asks_for_cancel, asks_for_rebuild},
};
use crate::{
    facts::{Publication, Published},
    peers::Admission,
    validate,
};

/// How often to look whether something missing has appeared. There is no watch on Secrets: that would need the right to
/// list them.
pub(super) const LOOK_FOR_MISSING: Duration = Duration::from_secs(5);

/// The reasons that heal by themselves when what is missing appears.
const MISSING: [&str; 3] = [
    reasons::SECRET_NOT_FOUND,
    reasons::CONFIG_MAP_NOT_FOUND,
    reasons::CREDENTIALS_INVALID,
];

/// What a build does, as others see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It wants to begin.
    Waits,
    /// Its run is under way.
    Runs,
    /// It wants nothing.
    Over,
}

/// What a build does, by what is written of it. One that waits for an input to appear wants nothing until it is there.
pub fn standing(build: &ImageBuild) -> Standing {
    let nothing = ImageBuildStatus::default();
    let status = build.status.as_ref().unwrap_or(&nothing);
    if is_running(status) {
        return Standing::Runs;
    }
    if wants_to_begin(build, status, true) {
        Standing::Waits
    } else {
        Standing::Over
    }
}

/// Whether the next decision depends on whether others let the build begin; `missing` says that an input is not there.
pub fn wants_turn(build: &ImageBuild, missing: bool) -> bool {
    let nothing = ImageBuildStatus::default();
    let status = build.status.as_ref().unwrap_or(&nothing);
    !is_running(status) && wants_to_begin(build, status, missing)
}

fn is_running(status: &ImageBuildStatus) -> bool {
    status.run.is_some() && !status.phase.unwrap_or_default().is_final()
}

fn wants_to_begin(build: &ImageBuild, status: &ImageBuildStatus, missing: bool) -> bool {
    let stopped =
        build.metadata.deletion_timestamp.is_some() || build.spec.suspend || asks_for_cancel(build, status);
    !stopped && begins(build, status, missing).is_some()
}

/// Whether the next decision depends on Secrets and ConfigMaps being there: before the first pod of a run.
pub fn wants_inputs(build: &ImageBuild) -> bool {
    if build.metadata.deletion_timestamp.is_some() || build.spec.suspend {
        return false;
    }
    let Some(status) = &build.status else { return true };
    begins(build, status, true).is_some() || waits_for_input(status) || no_pod_yet(status)
}

/// No pod of the run has been created.
fn no_pod_yet(status: &ImageBuildStatus) -> bool {
    !status.phase.unwrap_or_default().is_final() && status.plan.as_ref().is_none_or(|plan| plan.attempts == 0)
}

/// The run failed before its first pod, because something was missing.
pub(super) fn waits_for_input(status: &ImageBuildStatus) -> bool {
    status.phase == Some(Phase::Failed)
        && status.plan.as_ref().is_none_or(|plan| plan.attempts == 0)
        && status
            .failure
            .as_ref()
            .is_some_and(|failure| MISSING.contains(&failure.reason.as_str()))
}

/// Why a new run begins, if it does.
fn begins(build: &ImageBuild, status: &ImageBuildStatus, missing: bool) -> Option<&'static str> {
    let Some(run) = &status.run else {
        return Some(begins_first(status));
    };
    if run.inputs != validate::inputs(&build.spec) {
        return Some(reasons::SPEC_CHANGED);
    }
    if asks_for_rebuild(build, status) {
        return Some(reasons::REBUILD_REQUESTED);
    }
    match status.phase.unwrap_or_default() {
        Phase::Failed if status.observed_generation != build.metadata.generation => {
            Some(reasons::SPEC_CHANGED)
        }
        Phase::Failed if waits_for_input(status) && !missing => Some(reasons::INPUT_APPEARED),
        // An image stays, and a run goes on, when nothing has changed that the image depends on. What was cancelled
        // stays so until somebody asks for more than another time to live.
        _ => None,
    }
}

/// Why a build begins that has no run.
fn begins_first(status: &ImageBuildStatus) -> &'static str {
    let queued = status
        .queue
        .is_some()
        .then_some(status.reason.as_deref())
        .flatten();
    let known = [
        reasons::CREATED,
        reasons::SPEC_CHANGED,
        reasons::REBUILD_REQUESTED,
        reasons::RESUMED,
        reasons::INPUT_APPEARED,
    ];
    // It has waited in the queue for a reason, and that is still the reason.
    if let Some(reason) = known.into_iter().find(|known| queued == Some(*known)) {
        return reason;
    }
    let ready = conditions::get(&status.conditions, conditions::READY);
    match status.observed_generation {
        None => reasons::CREATED,
        Some(_) if ready.is_some_and(|ready| ready.reason == reasons::SUSPENDED) => reasons::RESUMED,
        Some(_) => reasons::SPEC_CHANGED,
    }
}

impl Draft<'_> {
    /// The whole life, from the beginning.
    pub(super) fn live(&mut self) {
        let build = self.o.build;
        let cancel = self.take_cancel();
        let mut begins = begins(build, &self.status, self.o.facts.missing.is_some());
        let finished = self.phase().is_final();
        if let Some(text) = cancel
            && (begins.is_some() || !finished)
        {
            return self.cancel_for_person(begins, &text);
        }
        if build.spec.suspend {
            if !(finished && self.same_inputs()) {
                self.suspend();
                return self.clear_other_runs();
            }
            // What there is stays as it is, an image or a failure.
            begins = None;
        }
        if let Some(reason) = begins {
            match self.held_back() {
                Some(Admission::Wait(waiting)) => {
                    self.wait_in_queue(reason, &waiting);
                    return self.clear_other_runs();
                }
                Some(Admission::Replaced { by }) => return self.cancel_for_newer(reason, &by),
                Some(Admission::Go) | None => self.begin(reason),
            }
        }
        self.status.observed_generation = Some(self.generation());
        self.clear_other_runs();
        if self.phase().is_final() {
            self.rest();
        } else if let Some(missing) = self.o.facts.missing.as_ref().filter(|_| no_pod_yet(&self.status)) {
            self.fail(
                conditions::SOURCE_RESOLVED,
                plain(missing.reason, missing.message.clone()),
            );
            self.look_in(LOOK_FOR_MISSING);
        } else {
            self.build();
        }
    }

    fn same_inputs(&self) -> bool {
        self.status
            .run
            .as_ref()
            .is_some_and(|run| run.inputs == validate::inputs(&self.o.build.spec))
    }

    pub(super) fn begin(&mut self, reason: &'static str) {
        let generation = self.generation();
        let old = std::mem::take(&mut self.status);
        let why = match reason {
            reasons::REBUILD_REQUESTED => "a rebuild is asked for",
            _ => "the spec has changed",
        };
        if is_running(&old) {
            self.turn(
                reasons::SUPERSEDED,
                false,
                None,
                format!("run {} was stopped: {why}", old.runs),
            );
        } else if reason == reasons::REBUILD_REQUESTED {
            self.turn(reason, false, None, why);
        }
        self.status = ImageBuildStatus {
            observed_generation: Some(generation),
            phase: Some(Phase::Pending),
            reason: Some(reason.to_owned()),
            // Kept for their transition times; `tell` sets every one of them.
            conditions: old.conditions,
            rebuild: self.honoured_rebuild().or(old.rebuild),
            cancel: old.cancel,
            runs: old.runs + 1,
            run: Some(Run {
                generation,
                inputs: validate::inputs(&self.o.build.spec),
                started_at: Time(self.o.now),
                finished_at: None,
            }),
            ..ImageBuildStatus::default()
        };
    }

    /// Pods of runs that are over or have been replaced.
    pub(super) fn clear_other_runs(&mut self) {
        let run = self.run_number();
        for pod in self.o.pods.iter().filter(|pod| pod.run != run && !pod.deleting) {
            self.actions.push(Action::DeletePod {
                name: pod.name.clone(),
            });
        }
    }

    fn suspend(&mut self) {
        if self.status.run.is_some() || self.status.queue.is_some() {
            self.turn(
                reasons::SUSPENDED,
                false,
                None,
                "stopped because spec.suspend is set; finished stages stay in the cache",
            );
        }
        let old = std::mem::take(&mut self.status);
        self.status = ImageBuildStatus {
            observed_generation: Some(self.generation()),
            phase: Some(Phase::Pending),
            conditions: old.conditions,
            rebuild: old.rebuild,
            cancel: old.cancel,
            runs: old.runs,
            ..ImageBuildStatus::default()
        };
        self.hold(
            reasons::SUSPENDED,
            "spec.suspend is set; set it to false to build",
        );
    }

    /// Whether the run has taken too long; then it has been failed.
    pub(super) fn is_late(&mut self, timeout: Duration) -> bool {
        let Some(run) = &self.status.run else { return false };
        let limit = SignedDuration::try_from(timeout).unwrap_or(SignedDuration::MAX);
        let Ok(deadline) = run.started_at.0.checked_add(limit) else {
            return false;
        };
        if self.o.now < deadline {
            self.look_at(deadline);
            return false;
        }
        let waited_for = conditions::get(&self.status.conditions, conditions::READY)
            .map(|ready| format!("; at the end: {} ({})", ready.reason, ready.message))
            .unwrap_or_default();
        let message = format!(
            "the build did not end within {}{waited_for}; raise spec.timeout or remove what it waited for",
            self.o.build.spec.timeout
        );
        let condition = match self.phase() {
            Phase::Running => conditions::STAGES_COMPLETE,
            Phase::Assembling => conditions::PUSHED,
            _ => conditions::PLANNED,
        };
        self.fail(condition, plain(reasons::TIMED_OUT, message));
        true
    }

    /// Ends the run without an image. Nothing has been tagged; whatever is alive is stopped at once.
    pub(super) fn stop(&mut self, phase: Phase) {
        // It ends everything that this decision had begun.
        self.actions
            .retain(|action| matches!(action, Action::DeletePod { .. }));
        self.turns
            .retain(|turn| turn.reason != reasons::STAGE_STARTED && turn.reason != reasons::PLANNING);
        self.again = None;
        self.waits = None;
        self.stop_pods();
        for stage in &mut self.status.stages {
            if !stage.state.is_final() {
                stage.state = StageState::Cancelled;
                stage.finished_at = Some(Time(self.o.now));
            }
        }
        self.status.phase = Some(phase);
        if let Some(run) = &mut self.status.run {
            run.finished_at = Some(Time(self.o.now));
        }
    }

    /// Ends the run with a failure.
    pub(super) fn fail(&mut self, condition: &str, failure: FailureStatus) {
        self.stop(Phase::Failed);
        let generation = self.status.observed_generation;
        conditions::set(
            &mut self.status.conditions,
            condition,
            conditions::Status::False,
            &failure.reason,
            one_line(&failure),
            generation,
            self.o.now,
        );
        let pod = failure.pod.clone();
        self.turn(
            reasons::FAILED,
            true,
            pod.as_deref(),
            format!("{}: {}", failure.reason, one_line(&failure)),
        );
        self.status.failure = Some(failure);
        self.look_for_expiry();
    }

    /// Ends the run with an image.
    pub(super) fn succeed(&mut self, publication: &Publication, published: &Published) {
        let names: Vec<String> = publication.images.iter().map(ToString::to_string).collect();
        let sizes = published
            .sizes
            .iter()
            .map(|size| i64::try_from(*size).ok())
            .chain(std::iter::repeat(None));
        let platforms: Vec<PlatformImage> = publication
            .results
            .iter()
            .zip(sizes)
            .map(|((platform, digest), size)| PlatformImage {
                platform: platform.to_string(),
                digest: digest.to_string(),
                size,
            })
            .collect();
        self.turn(
            reasons::SUCCEEDED,
            false,
            None,
            format!("pushed {} as {}", published.digest, names.join(", ")),
        );
        self.status.image = Some(ImageStatus {
            digest: published.digest.to_string(),
            size: platforms.iter().map(|platform| platform.size).sum(),
            names,
            platforms,
        });
        self.status.phase = Some(Phase::Succeeded);
        if let Some(run) = &mut self.status.run {
            run.finished_at = Some(Time(self.o.now));
        }
        self.again = None;
        self.stop_pods();
        self.look_for_expiry();
    }
}

/// Place and message of a failure in one line.
pub(super) fn one_line(failure: &FailureStatus) -> String {
    let platform = failure
        .platform
        .as_ref()
        .map(|platform| format!(" ({platform})"))
        .unwrap_or_default();
    let stage = failure
        .stage
        .as_ref()
        .map(|stage| format!("stage {stage}{platform}: "))
        .unwrap_or_default();
    let place = match (&failure.file, failure.line) {
        (Some(file), Some(line)) => format!("{file}:{line}: "),
        _ => String::new(),
    };
    format!("{stage}{place}{}", failure.message)
}
