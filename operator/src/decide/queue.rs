//! Waiting for other builds, being stopped by a person or by a newer build, and being asked to build again.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use sha2::{Digest as _, Sha256};
use slipway_crd::{ImageBuild, ImageBuildStatus, Phase, QueueStatus, names, reasons};

use super::Draft;
use crate::{
    memory::version,
    peers::{Admission, Behind, Waiting},
};

/// How often those in a queue are looked at although nobody woke them: those far back are not woken at every step.
const LOOK_AT_QUEUE: Duration = Duration::from_mins(1);
/// A longer value of an annotation is remembered by its digest.
const REMEMBERED: usize = 128;
/// So much of why a build was cancelled is told.
const TOLD: usize = 256;

/// The value of an annotation, as the status remembers it.
fn annotation(build: &ImageBuild, name: &str) -> Option<String> {
    let value = build.metadata.annotations.as_ref()?.get(name)?;
    Some(if value.len() <= REMEMBERED {
        value.clone()
    } else {
        format!("sha256:{}", hex::encode(Sha256::digest(value)))
    })
}

/// Whether a rebuild is asked for that no run has honoured.
pub(super) fn asks_for_rebuild(build: &ImageBuild, status: &ImageBuildStatus) -> bool {
    annotation(build, names::ANNOTATION_REBUILD).is_some_and(|value| status.rebuild.as_ref() != Some(&value))
}

/// Whether a cancellation is asked for that has not been honoured.
pub(super) fn asks_for_cancel(build: &ImageBuild, status: &ImageBuildStatus) -> bool {
    annotation(build, names::ANNOTATION_CANCEL).is_some_and(|value| status.cancel.as_ref() != Some(&value))
}

impl Draft<'_> {
    /// The value of the rebuild annotation that a run honours which begins now.
    pub(super) fn honoured_rebuild(&self) -> Option<String> {
        annotation(self.o.build, names::ANNOTATION_REBUILD)
    }

    /// Remembers that the cancel annotation has been seen; gives what it says if that is new.
    pub(super) fn take_cancel(&mut self) -> Option<String> {
        let new = asks_for_cancel(self.o.build, &self.status);
        self.status.cancel = annotation(self.o.build, names::ANNOTATION_CANCEL);
        let annotations = self.o.build.metadata.annotations.as_ref()?;
        let mut text = annotations.get(names::ANNOTATION_CANCEL)?.trim().to_owned();
        text.truncate(text.floor_char_boundary(TOLD));
        new.then_some(text)
    }

    /// What holds a build back that would begin now.
    pub(super) fn held_back(&self) -> Option<Admission> {
        self.o
            .facts
            .peers
            .admission
            .clone()
            .filter(|admission| *admission != Admission::Go)
    }

    /// Waits for other builds. What the run before left is over.
    pub(super) fn wait_in_queue(&mut self, why: &'static str, waiting: &Waiting) {
        let old = std::mem::take(&mut self.status);
        let build = self.o.build;
        let (group, limit, behind) = match &waiting.behind {
            Behind::Group { group, build } => (
                Some(group.clone()),
                None,
                format!("build {build} of the concurrency group {group}"),
            ),
            Behind::MaxRunning(limit) => (
                None,
                Some("limits.maxRunning"),
                format!("one of the {limit} builds that limits.maxRunning of the chart allows in all"),
            ),
            Behind::MaxRunningPerNamespace(limit) => (
                None,
                Some("limits.maxRunningPerNamespace"),
                format!(
                    "one of the {limit} builds that limits.maxRunningPerNamespace of the chart allows in each namespace"
                ),
            ),
        };
        let (since, ticket) = old.queue.as_ref().map_or_else(
            || {
                let ticket = i64::try_from(version(build)).unwrap_or(i64::MAX);
                (Time(self.o.now), ticket)
            },
            |queue| (queue.since.clone(), queue.ticket),
        );
        let message = format!(
            "number {} in the queue: waits for the end of {behind}",
            waiting.position
        );
        if old.queue.is_none() {
            self.turn(reasons::QUEUED, false, None, message.clone());
        }
        self.status = ImageBuildStatus {
            observed_generation: Some(self.generation()),
            phase: Some(Phase::Pending),
            reason: Some(why.to_owned()),
            conditions: old.conditions,
            queue: Some(QueueStatus {
                position: waiting.position,
                group,
                limit: limit.map(ToOwned::to_owned),
                since,
                ticket,
            }),
            rebuild: old.rebuild,
            cancel: old.cancel,
            runs: old.runs,
            ..ImageBuildStatus::default()
        };
        self.hold(reasons::QUEUED, message);
        self.look_in(LOOK_AT_QUEUE);
    }

    /// Ends the run, or the wait for one, because a person wants it so. `text` is what the annotation says.
    pub(super) fn cancel_for_person(&mut self, begins: Option<&'static str>, text: &str) {
        if let Some(reason) = begins {
            self.begin(reason);
        }
        let why = match text {
            "" | "true" => String::new(),
            text => format!(": {text}"),
        };
        let message = format!(
            "cancelled by the annotation {}{why}; to build after all change the spec, or set the annotation {} to a new value",
            names::ANNOTATION_CANCEL,
            names::ANNOTATION_REBUILD
        );
        self.cancel(reasons::CANCELLED, &message);
    }

    /// Ends the wait of a build that is of no use any more.
    pub(super) fn cancel_for_newer(&mut self, begins: &'static str, by: &str) {
        self.begin(begins);
        let message =
            format!("build {by} of the same concurrency group is newer and has taken its place in the queue");
        self.cancel(reasons::REPLACED, &message);
    }

    /// No image, and no failure either. Why stands in the condition `Ready` from then on.
    fn cancel(&mut self, reason: &'static str, message: &str) {
        self.status.observed_generation = Some(self.generation());
        self.clear_other_runs();
        self.stop(Phase::Cancelled);
        self.turn(reason, false, None, message);
        self.held = Some((reason, message.to_owned()));
        self.look_for_expiry();
    }
}
