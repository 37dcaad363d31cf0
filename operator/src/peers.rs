//! The other ImageBuilds, as far as a decision about one of them needs them.
//!
//! ```text
//! watch of ImageBuilds ──see──▶ ┌───────┐ ──claim_stages──▶ facts.peers ──▶ decide
//! status just written ─wrote──▶ │ Peers │
//!                               └───────┘ ──wakes──▶ reconciles of the builds that waited for what has changed
//! ```
//! A change costs what has changed, however many builds there are: nothing here walks over all of them. A build that waits
//! for another is woken when that one changes; nobody polls.
//!
//! All of it may be lost: an operator that starts learns it anew from the statuses of the first list, before the first
//! decision (the controller holds every reconcile back until its store is complete).

mod stages;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use kube::{
    ResourceExt as _,
    core::DeserializeGuard,
    runtime::{reflector::ObjectRef, watcher},
};
use slipway_crd::{ImageBuild, ImageBuildStatus};

use crate::{memory::version, validate};

pub use stages::SharedStage;
use stages::{Claims, Place, Told};

/// An ImageBuild that may not be what the CRD says.
pub type Guarded = DeserializeGuard<ImageBuild>;

/// What a decision knows of the other builds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Others {
    /// By key: the stages that another build makes, or has just made, and this one needs.
    pub stages: BTreeMap<String, SharedStage>,
}

/// All ImageBuilds.
pub struct Peers {
    index: Mutex<Index>,
    wakes: UnboundedSender<ObjectRef<Guarded>>,
}

#[derive(Default)]
struct Index {
    builds: HashMap<String, Peer>,
    claims: Claims,
    /// While the watch lists anew: those that it has listed.
    listed: Option<HashSet<String>>,
}

/// What is kept of a build.
struct Peer {
    version: u128,
    namespace: String,
    name: String,
}

impl Peers {
    /// Knows of none yet. The stream gives the builds that are to be looked at again.
    pub fn new() -> (Self, UnboundedReceiver<ObjectRef<Guarded>>) {
        let (wakes, woken) = unbounded();
        let index = Mutex::default();
        (Self { index, wakes }, woken)
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Learns what the watch shows.
    pub fn see(&self, event: &watcher::Event<Guarded>) {
        let mut index = self.lock();
        let woken = match event {
            watcher::Event::Init => {
                index.listed = Some(HashSet::new());
                return;
            }
            watcher::Event::InitApply(build) => {
                let uid = build.uid().unwrap_or_default();
                if let Some(listed) = &mut index.listed {
                    listed.insert(uid);
                }
                index.seen(build)
            }
            watcher::Event::Apply(build) => index.seen(build),
            watcher::Event::Delete(build) => index.gone(&build.uid().unwrap_or_default()),
            watcher::Event::InitDone => {
                let Some(listed) = index.listed.take() else { return };
                let gone: Vec<String> = index
                    .builds
                    .keys()
                    .filter(|uid| !listed.contains(*uid))
                    .cloned()
                    .collect();
                gone.iter().flat_map(|uid| index.gone(uid)).collect()
            }
        };
        self.wake(&index, woken);
    }

    /// Learns a status that was just written, before the watch shows it.
    pub fn wrote(&self, build: &ImageBuild) {
        let mut index = self.lock();
        // A build that is not known has been deleted meanwhile: the watch tells of each before its first reconcile.
        if index.builds.contains_key(&build.uid().unwrap_or_default()) {
            let woken = index.update(build);
            self.wake(&index, woken);
        }
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
        let uid = build.uid().unwrap_or_default();
        let mut index = self.lock();
        match place(build) {
            Some(place) if index.builds.contains_key(&uid) => {
                let run = build.status.as_ref().map_or(0, |status| status.runs);
                index.claims.claim(&uid, &build.name_any(), run, &place, stages)
            }
            _ => BTreeMap::new(),
        }
    }

    fn wake(&self, index: &Index, uids: impl IntoIterator<Item = String>) {
        for peer in uids.into_iter().filter_map(|uid| index.builds.get(&uid)) {
            // Nobody listens any more: the controller has ended.
            let _ = self
                .wakes
                .unbounded_send(ObjectRef::new(&peer.name).within(&peer.namespace));
        }
    }
}

impl Index {
    fn seen(&mut self, build: &Guarded) -> Vec<String> {
        match &build.0 {
            Ok(build) => self.update(build),
            // Left alone until it changes; whoever waits for it must not.
            Err(_) => self.gone(&build.uid().unwrap_or_default()),
        }
    }

    /// Gives those to be woken.
    fn update(&mut self, build: &ImageBuild) -> Vec<String> {
        let uid = build.uid().unwrap_or_default();
        let version = version(build);
        if self.builds.get(&uid).is_some_and(|known| known.version > version) {
            return Vec::new();
        }
        let peer = Peer {
            version,
            namespace: build.namespace().unwrap_or_default(),
            name: build.name_any(),
        };
        self.builds.insert(uid.clone(), peer);
        let nothing = ImageBuildStatus::default();
        let status = build.status.as_ref().unwrap_or(&nothing);
        let told = Told {
            uid: &uid,
            name: &build.name_any(),
            run: status.runs,
            running: is_running(status),
            rows: &status.stages,
        };
        match place(build) {
            Some(place) => self.claims.tell(&told, &place),
            None => Vec::new(),
        }
    }

    /// Gives those to be woken.
    fn gone(&mut self, uid: &str) -> Vec<String> {
        self.builds.remove(uid);
        self.claims.leave(uid)
    }
}

/// Whether a run is under way.
fn is_running(status: &ImageBuildStatus) -> bool {
    status.run.is_some() && !status.phase.unwrap_or_default().is_final()
}

/// Where equal keys mean the same result that both can read.
fn place(build: &ImageBuild) -> Option<Place> {
    Some(Place {
        namespace: build.namespace().unwrap_or_default(),
        repository: validate::cache_repository(&build.spec)?,
    })
}

#[cfg(test)]
mod tests;
