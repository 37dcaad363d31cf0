//! The other ImageBuilds, as far as a decision about one of them needs them.
//!
//! ```text
//! watch of ImageBuilds ──see──▶ ┌───────┐ ──may_begin, newer, claim_stages──▶ facts.peers ──▶ decide
//! status just written ─wrote──▶ │ Peers │
//!                               └───────┘ ──wakes──▶ reconciles of the builds that waited for what has changed
//! ```
//! A build that waits for another is woken when that one changes; nobody polls. A change costs what it concerns: the
//! builds that run or wait when one of them begins or ends, and never those that are over.
//!
//! All of it may be lost: an operator that starts learns it anew from the statuses of the first list, before the first
//! decision (the controller holds every reconcile back until its store is complete).

mod admit;
mod index;
mod stages;

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use jiff::Timestamp;
use kube::{
    ResourceExt as _,
    core::DeserializeGuard,
    runtime::{reflector::ObjectRef, watcher},
};
use slipway_crd::ImageBuild;

use crate::policy::Policies;

pub use admit::{Admission, Behind, Limits, Waiting};
use admit::{Candidate, admit};
use index::Index;
pub use stages::SharedStage;

/// An ImageBuild that may not be what the CRD says.
pub type Guarded = DeserializeGuard<ImageBuild>;

/// What a decision knows of the other builds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Others {
    /// Whether the build may begin; asked only when it wants to. Nothing holds it back when nobody was asked.
    pub admission: Option<Admission>,
    /// How many have ended since this one did; asked only when it has ended.
    pub newer: Newer,
    /// By key: the stages that another build makes, or has just made, and this one needs.
    pub stages: BTreeMap<String, SharedStage>,
}

/// How many builds have ended since one did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Newer {
    /// Of its concurrency group, with the same outcome: an image, or none.
    pub in_group: u32,
    /// Of its namespace.
    pub in_namespace: u32,
}

/// What of the settings this depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// How many builds may run.
    pub limits: Limits,
    /// Of how many finished builds of a namespace the pods are kept.
    pub keep_pods_of: u32,
    /// Where results are kept.
    pub policies: Policies,
}

/// All ImageBuilds.
pub struct Peers {
    index: Mutex<Index>,
    wakes: UnboundedSender<ObjectRef<Guarded>>,
}

impl Peers {
    /// Knows of none yet. The stream gives the builds that are to be looked at again.
    pub fn new(settings: Settings) -> (Self, UnboundedReceiver<ObjectRef<Guarded>>) {
        let (wakes, woken) = unbounded();
        let index = Mutex::new(Index::new(settings));
        (Self { index, wakes }, woken)
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Learns what the watch shows.
    pub fn see(&self, event: &watcher::Event<Guarded>) {
        let mut index = self.lock();
        match event {
            watcher::Event::Init => index.list_begins(),
            watcher::Event::InitApply(build) => {
                index.listed(&build.uid().unwrap_or_default());
                see_one(&mut index, build);
            }
            watcher::Event::InitDone => index.list_ends(),
            watcher::Event::Apply(build) => see_one(&mut index, build),
            watcher::Event::Delete(build) => index.gone(&build.uid().unwrap_or_default()),
        }
        self.wake(&mut index);
    }

    /// Learns a status that was just written, before the watch shows it.
    pub fn wrote(&self, build: &ImageBuild) {
        let mut index = self.lock();
        if index.knows(build) {
            index.update(build);
            self.wake(&mut index);
        }
    }

    /// Whether a build that wants to begin may. Its place is taken with the answer: of two that ask at the same moment the
    /// second is told so. Nothing of a build that is not known, or not any more.
    pub fn may_begin(&self, build: &ImageBuild, now: Timestamp) -> Option<Admission> {
        let mut index = self.lock();
        if !index.knows(build) {
            return None;
        }
        index.update(build);
        let admission = index.may_begin(&build.uid().unwrap_or_default(), now);
        self.wake(&mut index);
        admission
    }

    /// How many builds have ended since this one.
    pub fn newer(&self, build: &ImageBuild) -> Newer {
        self.lock().newer(&build.uid().unwrap_or_default())
    }

    /// Claims stages of a running build, by id and key: each is then this build's to make. Gives those that another build
    /// has claimed before in the same namespace and cache repository, by key; this build is woken when they change. A
    /// claim passes on when its build has failed at the stage, has ended, or is gone.
    ///
    /// Claims are made here and not read from statuses because two builds that are decided at the same moment cannot see
    /// each other's decision.
    pub fn claim_stages<'a>(
        &self,
        build: &ImageBuild,
        stages: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> BTreeMap<String, SharedStage> {
        let mut index = self.lock();
        if index.knows(build) {
            index.claim_stages(build, stages)
        } else {
            BTreeMap::new()
        }
    }

    fn wake(&self, index: &mut Index) {
        for name in index.woken() {
            // Nobody listens any more: the controller has ended.
            let _ = self.wakes.unbounded_send(name);
        }
    }
}

fn see_one(index: &mut Index, build: &Guarded) {
    match &build.0 {
        Ok(build) => index.update(build),
        // Left alone until it changes; whoever waits for it must not.
        Err(_) => index.gone(&build.uid().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests;
