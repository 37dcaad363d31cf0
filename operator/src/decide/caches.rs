//! The claims of a stage's cache mounts: all that it needs, or a wait.
//!
//! | sharing | which claim | waits while |
//! |---|---|---|
//! | `shared` | number 0, with others | a pod has it locked |
//! | `locked` | number 0, alone | any pod uses it, or an older build waits for it |
//! | `private` | the first from 1 that nobody uses | never |
//!
//! Nobody waits for ever, whatever builds run together:
//! * A stage takes all of its claims at once or none, so it holds none while it waits for another.
//! * A stage that has a claim locked never waits inside its pod for other stages: it starts when all that it reads from is
//!   done. So what waits for a locked claim waits for a pod that ends by itself.
//! * A stage that shares a claim waits inside its pod only for stages that lock none, and those wait, if at all, for a
//!   locked claim. The pods that a locking stage waits for therefore end too.
//! * Among those that want to lock, the oldest build comes first; the order is one for all claims.

use std::{collections::BTreeSet, time::Duration};

use slipway_crd::{StageState, conditions, conditions::Status, reasons};
use slipway_plan::{
    Sharing,
    protocol::{Schedule, ScheduledStage},
};

use super::Draft;
use crate::{
    claims::{Grant, Use, Which, age},
    facts::Lookup,
    naming,
};

/// A waiting build is woken when a pod changes; this is for a wake that was lost with an operator.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// A condition names so many ids.
const NAMED: usize = 5;

/// Why a stage cannot have its claims now.
struct Busy<'a> {
    id: &'a str,
    by: String,
}

impl Draft<'_> {
    /// The claims for a stage that is to start: all, or `None` if it waits, which is told.
    pub(super) fn take_claims(&mut self, stage: &ScheduledStage) -> Option<Vec<Grant>> {
        if self.o.facts.caches.no_class {
            return Some(Vec::new());
        }
        match self.claims_for(stage) {
            Ok(grants) => {
                let build = self.o.build.metadata.name.as_deref().unwrap_or_default();
                self.taken.extend(grants.iter().map(|grant| Use {
                    claim: grant.which.name(),
                    sharing: grant.sharing,
                    build: naming::build_label(build),
                    pod: String::new(),
                }));
                Some(grants)
            }
            Err(Busy { id, by }) => {
                let message = format!(
                    "stage {} ({}) waits for the cache mount {id}: {by}",
                    stage.name, stage.platform
                );
                self.hold(reasons::CACHE_MOUNT_IN_USE, message);
                self.look_in(LOOK_AGAIN);
                let locked = stage
                    .caches
                    .iter()
                    .filter(|cache| cache.sharing == Sharing::Locked)
                    .map(|cache| Which::new(&cache.id, &stage.platform, 0).name());
                self.waits.get_or_insert_default().extend(locked);
                None
            }
        }
    }

    fn claims_for<'s>(&self, stage: &'s ScheduledStage) -> Result<Vec<Grant>, Busy<'s>> {
        stage
            .caches
            .iter()
            .enumerate()
            .map(|(place, cache)| {
                let (id, sharing) = (cache.id.as_str(), cache.sharing);
                let which = match sharing {
                    Sharing::Shared | Sharing::Locked => Which::new(id, &stage.platform, 0),
                    Sharing::Private => (1..=u32::MAX)
                        .map(|number| Which::new(id, &stage.platform, number))
                        .find(|which| self.uses(&which.name()).next().is_none())
                        .ok_or_else(|| Busy {
                            id,
                            by: "it has too many private copies".to_owned(),
                        })?,
                };
                let claim = which.name();
                if let Some(by) = self.in_the_way(&claim, sharing) {
                    return Err(Busy { id, by });
                }
                Ok(Grant {
                    place,
                    joins: self.uses(&claim).next().is_some(),
                    which,
                    sharing,
                })
            })
            .collect()
    }

    /// Who uses a claim: pods, and the stages that have just been granted it.
    fn uses<'d>(&'d self, claim: &'d str) -> impl Iterator<Item = &'d Use> {
        self.o
            .facts
            .caches
            .uses
            .iter()
            .chain(&self.taken)
            .filter(move |one| one.claim == claim)
    }

    /// What keeps a stage from a claim, in words.
    fn in_the_way(&self, claim: &str, sharing: Sharing) -> Option<String> {
        let user = self.uses(claim).find(|user| match sharing {
            Sharing::Shared => user.sharing == Sharing::Locked,
            Sharing::Locked | Sharing::Private => true,
        });
        if let Some(user) = user {
            return Some(match user.pod.as_str() {
                "" => "another stage of this build uses it".to_owned(),
                pod => format!("pod {pod} of ImageBuild {} uses it", user.build),
            });
        }
        if sharing != Sharing::Locked {
            return None;
        }
        let own = age(self.o.build);
        let first = self
            .o
            .facts
            .caches
            .waiters
            .iter()
            .filter(|waiter| waiter.since < own && waiter.locked.iter().any(|wanted| wanted == claim))
            .min_by(|a, b| a.since.cmp(&b.since))?;
        Some(format!(
            "ImageBuild {} waits for it since before this one",
            first.name
        ))
    }

    /// Whether a stage that will hold claims may start although it reads from stages that are not done.
    pub(super) fn may_hold_claims(&self, schedule: &Schedule, stage: &ScheduledStage) -> bool {
        if self.o.facts.caches.no_class {
            return true;
        }
        let has = |stage: &ScheduledStage, sharing| stage.caches.iter().any(|cache| cache.sharing == sharing);
        let done = |index: &usize| {
            self.status
                .stages
                .get(*index)
                .is_some_and(|row| row.state.has_result())
        };
        if has(stage, Sharing::Locked) {
            return stage.needs.iter().all(done);
        }
        if !has(stage, Sharing::Shared) {
            return true;
        }
        let mut seen = BTreeSet::new();
        let mut open: Vec<usize> = stage.needs.clone();
        while let Some(index) = open.pop() {
            if done(&index) || !seen.insert(index) {
                continue;
            }
            let Some(needed) = schedule.stages.get(index) else {
                continue;
            };
            if has(needed, Sharing::Locked) {
                return false;
            }
            open.extend(&needed.needs);
        }
        true
    }

    /// Tells whether what the cache mounts hold is kept.
    pub(super) fn tell_caches(&mut self) {
        let before = self.o.build.status.as_ref().and_then(|status| status.phase);
        if before.unwrap_or_default().is_final() && self.phase().is_final() {
            return;
        }
        let Lookup::Done(schedule) = &self.o.facts.schedule else {
            if self.planned().is_none() {
                self.status
                    .conditions
                    .retain(|condition| condition.type_ != conditions::CACHE_MOUNTS_KEPT);
            }
            return;
        };
        let idle = [StageState::Cached, StageState::Skipped];
        let ids: BTreeSet<&str> = schedule
            .stages
            .iter()
            .zip(&self.status.stages)
            .filter(|(_, row)| !idle.contains(&row.state))
            .flat_map(|(stage, _)| stage.caches.iter().map(|cache| cache.id.as_str()))
            .collect();
        if ids.is_empty() {
            return;
        }
        let mut named = ids.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
        if ids.len() > NAMED {
            named = format!("{named} and {} more", ids.len() - NAMED);
        }
        if !self.o.facts.caches.no_class {
            let message = format!("kept in PersistentVolumeClaims: {named}");
            return self.set(
                conditions::CACHE_MOUNTS_KEPT,
                Status::True,
                reasons::DONE,
                message,
            );
        }
        let message = format!(
            "what the cache mounts hold is lost with each pod, so every build begins with empty ones: {named}; the cluster has no default StorageClass: name one in spec.cache.mounts.storageClassName or in the chart's cache.mounts.storageClassName"
        );
        let known = conditions::get(&self.status.conditions, conditions::CACHE_MOUNTS_KEPT)
            .is_some_and(|condition| condition.status == Status::False.as_str());
        if !known {
            self.turn(reasons::NO_STORAGE_CLASS, true, None, message.clone());
        }
        self.set(
            conditions::CACHE_MOUNTS_KEPT,
            Status::False,
            reasons::NO_STORAGE_CLASS,
            message,
        );
    }
}
