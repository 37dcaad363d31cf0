//! The plan pod: one, tried again after a transient fault.

use jiff::SignedDuration;
use slipway_crd::{FailureStatus, Phase, PlanStatus, conditions, reasons};
use slipway_oci::Digest;

use super::{Action, Draft, backoff};
use crate::{
    naming,
    pod_view::{Kind, PodState, PodView, STUCK_AFTER, Wait},
};

/// A pod that was deleted and is still there so long after its grace period is on a node that is no more. Its work may
/// begin elsewhere: results are kept by what they are made from, so two pods that make the same one do no harm.
const LOST_AFTER: SignedDuration = SignedDuration::from_secs(30);

/// Between two questions to the events of a pod that does not start.
const ASK_AGAIN: SignedDuration = SignedDuration::from_secs(10);

/// What became of a pod's attempt at its work.
pub(super) enum Attempt {
    /// It is on its way.
    Going,
    /// Begin with this number, now.
    Start(u32),
    /// It failed for good.
    Failed(Box<FailureStatus>, jiff::Timestamp),
}

impl Draft<'_> {
    /// The plan's digest, once it is known.
    pub(super) fn planned(&self) -> Option<Digest> {
        self.status.plan.as_ref()?.digest.as_ref()?.parse().ok()
    }

    /// Sees to the plan; gives its digest when it is there.
    pub(super) fn plan_step(&mut self) -> Option<Digest> {
        if let Some(plan) = self.planned() {
            return Some(plan);
        }
        self.status.phase = Some(Phase::Planning);
        let latest = self
            .pods()
            .filter(|pod| pod.kind == Kind::Plan)
            .max_by_key(|pod| pod.attempt);
        let known = self.status.plan.as_ref().map_or(0, |plan| plan.attempts);
        let attempts = known.max(latest.map_or(0, |pod| pod.attempt));
        let mut plan = PlanStatus {
            attempts,
            ..self.status.plan.take().unwrap_or_default()
        };
        if let Some(pod) = latest {
            plan.pod = Some(pod.name.clone());
            if let PodState::Planned {
                plan: digest,
                warnings,
            } = &pod.state
            {
                plan.digest = Some(digest.to_string());
                plan.warnings = *warnings;
                self.status.plan = Some(plan);
                let note = match warnings {
                    0 => format!("the plan is {}", digest.short()),
                    _ => format!(
                        "the plan is {}; the Dockerfile got {warnings} warnings, see the plan pod's log",
                        digest.short()
                    ),
                };
                self.turn(reasons::PLANNED, false, Some(&pod.name), note);
                return Some(digest.clone());
            }
        }
        match self.attempt("the plan", latest, attempts, 0) {
            Attempt::Going => self.status.plan = Some(plan),
            Attempt::Start(attempt) => {
                let build = self.o.build.metadata.name.as_deref().unwrap_or_default();
                let name = naming::plan_pod(build, self.run_number(), attempt);
                if self.o.facts.refused.is_empty() {
                    self.actions.push(Action::StartPlan { attempt });
                    self.turn(
                        reasons::PLANNING,
                        false,
                        Some(&name),
                        "reading the source and the Dockerfile",
                    );
                    plan.attempts = attempt;
                    plan.pod = Some(name);
                }
                self.status.plan = Some(plan);
            }
            Attempt::Failed(mut failure, _) => {
                failure.pod.clone_from(&plan.pod);
                self.status.plan = Some(plan);
                let source = ["FileNotFound", "SourceUnreachable"].contains(&failure.reason.as_str());
                self.fail(
                    if source {
                        conditions::SOURCE_RESOLVED
                    } else {
                        conditions::PLANNED
                    },
                    *failure,
                );
            }
        }
        None
    }

    /// What to do about the newest pod of some work, or its absence, when `attempts` are known to have begun, of which `free`
    /// do not count.
    pub(super) fn attempt(
        &mut self,
        what: &str,
        latest: Option<&PodView>,
        attempts: u32,
        free: u32,
    ) -> Attempt {
        let retries = self.o.build.spec.retries.saturating_add(free);
        let Some(pod) = latest.filter(|pod| pod.attempt == attempts) else {
            if attempts == 0 {
                return Attempt::Start(1);
            }
            // It was there and is gone: deleted by somebody, or its node was.
            let message = format!("the pod of attempt {attempts} at {what} is gone");
            return self.lost(&message, attempts, retries);
        };
        if let Some(gone_by) = pod.gone_by.filter(|_| pod.is_alive()) {
            let given_up = gone_by.checked_add(LOST_AFTER).unwrap_or(self.o.now);
            if self.o.now < given_up {
                self.look_at(given_up);
                return Attempt::Going;
            }
            let node = pod.node.as_deref().unwrap_or("?");
            let message = format!(
                "the pod of attempt {attempts} at {what} was deleted and node {node} does not say that it has ended"
            );
            return self.lost(&message, attempts, retries);
        }
        match &pod.state {
            PodState::Failed(failed) if failed.transient && attempts <= retries => {
                let wait = backoff(attempts.saturating_sub(free)).max(failed.retry_after.unwrap_or_default());
                let due = failed.at.checked_add(wait).unwrap_or(self.o.now);
                if self.o.now >= due {
                    let more = pod.ran_out_of_memory() && self.o.build.spec.retry_memory_factor.is_some();
                    let note = format!(
                        "{what}: attempt {attempts} failed: {}; trying again{}",
                        failed.failure.message,
                        if more { " with more memory" } else { "" }
                    );
                    self.turn(reasons::RETRYING, true, Some(&pod.name), note);
                    return Attempt::Start(attempts + 1);
                }
                self.hold(
                    reasons::RETRYING,
                    format!(
                        "{what}: attempt {attempts} failed ({}): {}",
                        failed.failure.reason, failed.failure.message
                    ),
                );
                self.look_at(due);
                Attempt::Going
            }
            PodState::Failed(failed) => {
                let mut failure = failed.failure.clone();
                if failed.transient && attempts > 1 {
                    failure.message = format!("{} (attempt {attempts} of {attempts})", failure.message);
                }
                Attempt::Failed(Box::new(failure), failed.at)
            }
            PodState::Waiting(wait) => self.wait(what, pod, wait),
            PodState::Running | PodState::Planned { .. } | PodState::Finished { .. } => Attempt::Going,
        }
    }

    /// The pod of the last attempt is no more, and has not said how it ended.
    fn lost(&mut self, message: &str, attempts: u32, retries: u32) -> Attempt {
        if attempts > retries {
            let message = format!("{message}, and spec.retries allows no other");
            return Attempt::Failed(Box::new(super::plain(reasons::POD_LOST, message)), self.o.now);
        }
        self.turn(reasons::RETRYING, true, None, format!("{message}; trying again"));
        Attempt::Start(attempts + 1)
    }

    fn wait(&mut self, what: &str, pod: &PodView, wait: &Wait) -> Attempt {
        let (reason, message) = match wait {
            Wait::Starting => {
                // What keeps it is not in the pod: somebody has to ask the node's events.
                if pod.node.is_some() {
                    let due = pod.created.checked_add(STUCK_AFTER).unwrap_or(self.o.now);
                    self.look_at(due.max(self.o.now.checked_add(ASK_AGAIN).unwrap_or(due)));
                }
                return Attempt::Going;
            }
            Wait::NoUserNamespaces(message) => {
                // Not bounded by itself: whoever runs the node can mend it, and the kubelet tries on. `spec.timeout` bounds it.
                let node = pod.node.as_deref().unwrap_or("?");
                let message = format!(
                    "node {node} cannot give the pod of {what} a user namespace: {message}; use nodes that can (Linux 6.3, containerd 2.0 or CRI-O 1.25), keep builds off this one by spec.pods.nodeSelector, or allow weaker isolation for all builds by the chart's isolation.mode"
                );
                self.hold(reasons::USER_NAMESPACES_UNAVAILABLE, message);
                self.look_in(ASK_AGAIN.unsigned_abs());
                return Attempt::Going;
            }
            Wait::Unschedulable(message) => {
                // Not bounded by itself: a node may be on its way. `spec.timeout` bounds it.
                let message = format!(
                    "no node can take {what}: {message}; add such a node or change spec.platforms, spec.pods.nodeSelector, spec.pods.tolerations or spec.pods.resources"
                );
                self.hold(reasons::UNSCHEDULABLE, message);
                return Attempt::Going;
            }
            Wait::ImagePull(message) => (
                reasons::RUNNER_IMAGE_UNAVAILABLE,
                format!(
                    "the runner image cannot be pulled for {what}: {message}; check runner.image of the chart and spec.pods.imagePullSecrets"
                ),
            ),
            Wait::CannotStart(message) => (
                reasons::POD_CANNOT_START,
                format!("the pod of {what} cannot start: {message}"),
            ),
        };
        let deadline = pod
            .created
            .checked_add(self.o.start_timeout)
            .unwrap_or(self.o.now);
        if self.o.now >= deadline {
            return Attempt::Failed(Box::new(super::plain(reason, message)), self.o.now);
        }
        self.look_at(deadline);
        self.hold(reason, message);
        Attempt::Going
    }
}
