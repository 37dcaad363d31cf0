//! The conditions and the progress, from the state of the draft.

use slipway_crd::{Phase, StageState, conditions, conditions::Status, reasons};

use super::{Draft, life::one_line};

/// Reasons for waiting that are worth an event when they appear.
const WORTH_AN_EVENT: [&str; 9] = [
    reasons::USER_NAMESPACES_UNAVAILABLE,
    reasons::NO_NODE_FOR_PLATFORM,
    reasons::UNSCHEDULABLE,
    reasons::RUNNER_IMAGE_UNAVAILABLE,
    reasons::POD_CANNOT_START,
    reasons::QUOTA_EXCEEDED,
    reasons::REGISTRY_UNREACHABLE,
    reasons::REGISTRY_ERROR,
    reasons::REGISTRY_RATE_LIMITED,
];

impl Draft<'_> {
    /// Sets every condition anew.
    pub(super) fn tell(&mut self) {
        let phase = self.phase();
        let (done, needed) = self.counts();
        self.status.progress = (needed > 0).then(|| format!("{done}/{needed}"));
        let before =
            conditions::get(&self.status.conditions, conditions::READY).map(|ready| ready.reason.clone());
        let (reason, message) = self.word(done, needed);
        if before.as_deref() != Some(&reason)
            && WORTH_AN_EVENT.contains(&reason.as_str())
            && !phase.is_final()
        {
            self.turn(&reason.clone(), true, None, message.clone());
        }
        let (ready, reconciling, stalled) = match phase {
            Phase::Succeeded => (Status::True, Status::False, Status::False),
            Phase::Failed | Phase::Cancelled => (Status::False, Status::False, Status::True),
            // Suspended: a person has stopped it, and a person starts it; nothing is on its way.
            _ if self.o.build.spec.suspend => (Status::False, Status::False, Status::False),
            _ => (Status::Unknown, Status::True, Status::False),
        };
        self.set(conditions::READY, ready, &reason, message.clone());
        self.set(conditions::RECONCILING, reconciling, &reason, message.clone());
        if stalled == Status::True {
            self.set(conditions::STALLED, stalled, &reason, message);
        } else {
            self.set(
                conditions::STALLED,
                stalled,
                reasons::NOT_STALLED,
                "nothing waits for a person",
            );
        }
        self.tell_steps(phase, done, needed);
        self.tell_caches();
    }

    /// The one word and sentence that say how the build is.
    fn word(&self, done: usize, needed: usize) -> (String, String) {
        let say = |reason: &str, message: String| (reason.to_owned(), message);
        if let Some((reason, message)) = &self.held {
            return say(reason, message.clone());
        }
        match self.phase() {
            Phase::Pending => say(reasons::PENDING, "the build has not begun".to_owned()),
            Phase::Planning => say(
                reasons::PLANNING,
                "the plan pod reads the source and the Dockerfile".to_owned(),
            ),
            Phase::Running => say(reasons::RUNNING, format!("{done} of {needed} stages are done")),
            Phase::Assembling => say(
                reasons::ASSEMBLING,
                "all stages are done; the tags are being written".to_owned(),
            ),
            Phase::Succeeded => {
                let image = self.status.image.as_ref();
                let names = image.map(|image| image.names.join(", ")).unwrap_or_default();
                let digest = image.map(|image| image.digest.clone()).unwrap_or_default();
                match &self.status.failure {
                    None => say(reasons::SUCCEEDED, format!("{names} is {digest}")),
                    Some(failure) => say(
                        reasons::PLATFORMS_MISSING,
                        format!(
                            "{names} is {digest}, with {} of {} platforms; the first failure: {}: {}",
                            image.map_or(0, |image| image.platforms.len()),
                            self.o.build.spec.platforms.len(),
                            failure.reason,
                            one_line(failure)
                        ),
                    ),
                }
            }
            Phase::Failed => self.status.failure.as_ref().map_or_else(
                || say(reasons::FAILED, "the build failed".to_owned()),
                |failure| (failure.reason.clone(), one_line(failure)),
            ),
            // Told when it was, and true ever since.
            Phase::Cancelled => conditions::get(&self.status.conditions, conditions::READY).map_or_else(
                || say(reasons::CANCELLED, "the build was cancelled".to_owned()),
                |ready| (ready.reason.clone(), ready.message.clone()),
            ),
        }
    }

    fn tell_steps(&mut self, phase: Phase, done: usize, needed: usize) {
        let planned = self.planned().is_some();
        let cached = self
            .status
            .stages
            .iter()
            .filter(|stage| stage.state == StageState::Cached)
            .count();
        let reached = [
            (
                conditions::SOURCE_RESOLVED,
                planned,
                "the plan pod has read the source".to_owned(),
            ),
            (
                conditions::PLANNED,
                planned && !self.status.stages.is_empty(),
                format!("{needed} stages must run, {cached} are cached"),
            ),
            (
                conditions::STAGES_COMPLETE,
                matches!(phase, Phase::Assembling | Phase::Succeeded)
                    || (phase == Phase::Failed && needed == done && !self.status.stages.is_empty()),
                format!("{done} of {needed} stages are done"),
            ),
            (
                conditions::PUSHED,
                phase == Phase::Succeeded,
                "every tag was written, read back and verified".to_owned(),
            ),
        ];
        for (kind, reached, message) in reached {
            let failed_here = phase == Phase::Failed
                && conditions::get(&self.status.conditions, kind).is_some_and(|condition| {
                    condition.status == Status::False.as_str()
                        && condition.observed_generation == self.status.observed_generation
                });
            if reached {
                self.set(kind, Status::True, reasons::DONE, message);
            } else if !failed_here {
                self.set(
                    kind,
                    Status::Unknown,
                    reasons::NOT_YET,
                    "the build has not come that far",
                );
            }
        }
    }

    pub(super) fn set(&mut self, kind: &str, status: Status, reason: &str, message: impl Into<String>) {
        let generation = self.status.observed_generation;
        conditions::set(
            &mut self.status.conditions,
            kind,
            status,
            reason,
            message,
            generation,
            self.o.now,
        );
    }

    /// Stages done and needed; cached and skipped ones need nothing.
    fn counts(&self) -> (usize, usize) {
        let done = self
            .status
            .stages
            .iter()
            .filter(|stage| stage.state == StageState::Succeeded)
            .count();
        let idle = [StageState::Cached, StageState::Skipped];
        let needed = self
            .status
            .stages
            .iter()
            .filter(|stage| !idle.contains(&stage.state))
            .count();
        (done, needed)
    }
}
