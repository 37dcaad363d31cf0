//! When a run is over: what is cleared away, and when the ImageBuild itself goes.

use jiff::{SignedDuration, Timestamp};
use slipway_crd::{Phase, reasons};

use super::{Action, Draft, life};

impl Draft<'_> {
    /// The run is over: nothing may be left running, and what is left over goes in time.
    pub(super) fn rest(&mut self) {
        self.stop_pods();
        if life::waits_for_input(&self.status) {
            self.look_in(life::LOOK_FOR_MISSING);
        }
        self.clear_finished_pods();
        self.look_for_expiry();
    }

    pub(super) fn stop_pods(&mut self) {
        let alive: Vec<_> = self
            .pods()
            .filter(|pod| pod.is_alive() && !pod.deleting)
            .map(|pod| pod.name.clone())
            .collect();
        self.delete_pods(alive);
    }

    fn delete_pods(&mut self, names: Vec<String>) {
        self.actions
            .extend(names.into_iter().map(|name| Action::DeletePod { name }));
    }

    fn ended(&self) -> Option<Timestamp> {
        Some(self.status.run.as_ref()?.finished_at.as_ref()?.0)
    }

    /// Finished pods are kept for their logs: for a while, and of so many builds.
    fn clear_finished_pods(&mut self) {
        let finished: Vec<_> = self
            .pods()
            .filter(|pod| !pod.is_alive() && !pod.deleting)
            .map(|pod| pod.name.clone())
            .collect();
        let Some(ended) = self.ended().filter(|_| !finished.is_empty()) else {
            return;
        };
        let keep = SignedDuration::try_from(self.o.keep_pods).unwrap_or(SignedDuration::MAX);
        let until = ended.checked_add(keep).unwrap_or(Timestamp::MAX);
        if self.o.now >= until || self.o.facts.peers.newer.in_namespace >= self.o.keep_pods_of {
            self.delete_pods(finished);
        } else {
            self.look_at(until);
        }
    }

    /// Deletes the ImageBuild when its time is over or enough newer ones of its group are there.
    pub(super) fn look_for_expiry(&mut self) {
        let Some(why) = self.expired() else { return };
        let ended_before = self.o.build.status.as_ref().is_some_and(|status| {
            status.phase.unwrap_or_default().is_final() && status.run == self.status.run
        });
        if ended_before {
            self.turn(reasons::EXPIRED, false, None, why);
            self.actions.push(Action::DeleteBuild);
        } else {
            // Not in the decision that ends the run: its end is written down first, for whoever waits for it.
            self.look_in(std::time::Duration::from_secs(1));
        }
    }

    /// Why the ImageBuild is to be deleted, if so; else looks again when its time is over.
    fn expired(&mut self) -> Option<String> {
        let spec = &self.o.build.spec;
        let ended = self.ended()?;
        if let Some(concurrency) = &spec.concurrency {
            let (limit, field) = match self.phase() {
                Phase::Succeeded => (concurrency.successful_history_limit, "successfulHistoryLimit"),
                _ => (concurrency.failed_history_limit, "failedHistoryLimit"),
            };
            let newer = self.o.facts.peers.newer.in_group;
            if let Some(limit) = limit.filter(|limit| newer >= *limit) {
                return Some(format!(
                    "deleted because {newer} newer ones of the group {} have ended alike and spec.concurrency.{field} is {limit}",
                    concurrency.group
                ));
            }
        }
        let seconds = spec.ttl_seconds_after_finished?;
        let expiry = ended
            .checked_add(SignedDuration::from_secs(seconds.into()))
            .ok()?;
        if self.o.now < expiry {
            self.look_at(expiry);
            return None;
        }
        Some(format!(
            "deleted {seconds} s after it ended, as spec.ttlSecondsAfterFinished says"
        ))
    }
}
