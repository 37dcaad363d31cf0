//! What is kept of all builds, and who has to be woken when it changes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use jiff::Timestamp;
use kube::{ResourceExt as _, runtime::reflector::ObjectRef};
use slipway_crd::{ConcurrencyPolicy, ImageBuild, ImageBuildStatus, Phase};

use super::{
    Admission, Candidate, Guarded, Newer, Settings, SharedStage, admit,
    stages::{Claims, Place, Told},
};
use crate::{
    decide::{Standing, standing},
    memory::version,
    policy::Policies,
};

/// Who waits further back than this is not woken each time somebody before it goes: with a thousand builds in a queue
/// each that ends would change a thousand statuses.
pub(super) const TOLD_AT_ONCE: u32 = 20;
/// Nobody keeps more builds than this, so there is no need to count further.
const COUNTED: usize = 1001;

/// All builds.
#[derive(Default)]
pub(super) struct Index {
    settings: Settings,
    builds: HashMap<String, Peer>,
    /// Those that run or wait, if that concerns others.
    active: BTreeSet<String>,
    /// When a build of a namespace began last.
    served: HashMap<String, Timestamp>,
    /// The answers of those that wait, as they are for what was known when they were made.
    answers: HashMap<String, Admission>,
    answers_are_stale: bool,
    ended: HashMap<Shelf, BTreeMap<(Timestamp, String), Option<u32>>>,
    claims: Claims,
    /// While the watch lists anew: those that it has listed.
    listed: Option<HashSet<String>>,
    woken: BTreeSet<String>,
}

/// Builds that are over and are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Shelf {
    Namespace(String),
    Group {
        namespace: String,
        group: String,
        /// They have an image.
        good: bool,
    },
}

/// What is kept of a build.
struct Peer {
    version: u128,
    namespace: String,
    name: String,
    group: Option<(String, ConcurrencyPolicy)>,
    standing: Standing,
    /// It has been told that it may begin, and its status does not say yet that it has.
    admitted: bool,
    /// It wants to begin for a reason that its status does not show.
    asks: bool,
    ticket: i64,
    /// Where it is counted when it is over, and for how many newer ones it is kept.
    shelves: Vec<(Shelf, Option<u32>)>,
    ended: Option<Timestamp>,
}

impl Peer {
    fn runs(&self) -> bool {
        self.standing == Standing::Runs || self.admitted
    }

    fn waits(&self) -> bool {
        !self.runs() && (self.standing == Standing::Waits || self.asks)
    }

    /// All that the answers of others depend on.
    fn concern(&self) -> (bool, bool, i64, &Option<(String, ConcurrencyPolicy)>) {
        (self.runs(), self.waits(), self.ticket, &self.group)
    }
}

impl Index {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            ..Self::default()
        }
    }

    pub(super) fn knows(&self, build: &ImageBuild) -> bool {
        self.builds.contains_key(&build.uid().unwrap_or_default())
    }

    pub(super) fn list_begins(&mut self) {
        self.listed = Some(HashSet::new());
    }

    pub(super) fn listed(&mut self, uid: &str) {
        if let Some(listed) = &mut self.listed {
            listed.insert(uid.to_owned());
        }
    }

    pub(super) fn list_ends(&mut self) {
        let Some(listed) = self.listed.take() else { return };
        let gone: Vec<String> = self
            .builds
            .keys()
            .filter(|uid| !listed.contains(*uid))
            .cloned()
            .collect();
        for uid in gone {
            self.gone(&uid);
        }
    }

    /// Learns a build as it is now.
    pub(super) fn update(&mut self, build: &ImageBuild) {
        let uid = build.uid().unwrap_or_default();
        let version = version(build);
        let known = self.builds.get(&uid);
        if known.is_some_and(|known| known.version > version) {
            return;
        }
        let nothing = ImageBuildStatus::default();
        let status = build.status.as_ref().unwrap_or(&nothing);
        let standing = standing(build);
        let first_ticket = status
            .queue
            .as_ref()
            .map(|queue| queue.ticket)
            // Asked for before, and not written down yet.
            .or_else(|| known.filter(|known| known.waits()).map(|known| known.ticket));
        let namespace = build.namespace().unwrap_or_default();
        let group = build
            .spec
            .concurrency
            .as_ref()
            .map(|concurrency| (concurrency.group.clone(), concurrency.policy));
        let peer = Peer {
            version,
            name: build.name_any(),
            standing,
            // Until its status says what became of it.
            admitted: known.is_some_and(|known| {
                known.admitted && (standing == Standing::Waits || known.version == version)
            }),
            asks: known.is_some_and(|known| known.asks && known.version == version),
            ticket: first_ticket.unwrap_or_else(|| i64::try_from(version).unwrap_or(i64::MAX)),
            shelves: shelves(build, status, &namespace, self.settings.keep_pods_of),
            ended: status
                .run
                .as_ref()
                .and_then(|run| Some(run.finished_at.as_ref()?.0)),
            namespace,
            group,
        };
        if let Some(run) = &status.run {
            self.served(&peer.namespace.clone(), run.started_at.0);
        }
        self.replace(&uid, Some(peer));
        let told = Told {
            uid: &uid,
            name: &build.name_any(),
            run: status.runs,
            running: standing == Standing::Runs,
            rows: &status.stages,
        };
        if let Some(place) = place(build, &self.settings.policies) {
            self.woken.extend(self.claims.tell(&told, &place));
        }
    }

    pub(super) fn gone(&mut self, uid: &str) {
        self.replace(uid, None);
        self.woken.extend(self.claims.leave(uid));
    }

    fn served(&mut self, namespace: &str, at: Timestamp) {
        let last = self.served.entry(namespace.to_owned()).or_insert(at);
        *last = at.max(*last);
    }

    /// Puts what is known now in the place of what was, and wakes whom that concerns.
    fn replace(&mut self, uid: &str, new: Option<Peer>) {
        let limited = self.settings.limits.any();
        let concerns = |peer: &Peer| (peer.runs() || peer.waits()) && (limited || peer.group.is_some());
        let active = new.as_ref().is_some_and(concerns);
        let old = self.builds.remove(uid);
        let was_active = self.active.contains(uid);
        let same = old.as_ref().map(Peer::concern) == new.as_ref().map(Peer::concern);
        let left = was_active
            && (!active || old.as_ref().map(|old| &old.group) != new.as_ref().map(|new| &new.group));
        self.unshelve(uid, old.as_ref());
        if let Some(new) = new {
            self.shelve(uid, &new, old.as_ref());
            self.builds.insert(uid.to_owned(), new);
        }
        if active {
            self.active.insert(uid.to_owned());
        } else {
            self.active.remove(uid);
            self.answers.remove(uid);
        }
        self.answers_are_stale |= (active || was_active) && !same;
        // Whoever comes asks for itself; when one goes, or leaves its group, the others must be told.
        if left {
            self.answer(None);
        }
    }

    /// Makes the answers anew if they are stale, and wakes those whose answer is another now, but `asker`.
    fn answer(&mut self, asker: Option<&str>) {
        if !std::mem::take(&mut self.answers_are_stale) {
            return;
        }
        let candidates: Vec<Candidate<'_>> = self
            .active
            .iter()
            .filter_map(|uid| {
                let peer = self.builds.get(uid)?;
                Some(Candidate {
                    uid,
                    namespace: &peer.namespace,
                    name: &peer.name,
                    group: peer
                        .group
                        .as_ref()
                        .map(|(group, policy)| (group.as_str(), *policy)),
                    running: peer.runs(),
                    ticket: peer.ticket,
                })
            })
            .collect();
        let answers = admit(&candidates, &self.served, self.settings.limits);
        let new: HashMap<String, Admission> = candidates
            .iter()
            .zip(answers)
            .filter_map(|(candidate, answer)| Some((candidate.uid.to_owned(), answer?)))
            .collect();
        for (uid, answer) in &new {
            let old = self.answers.get(uid);
            let near = match answer {
                Admission::Go | Admission::Replaced { .. } => true,
                // One that has just come asks for itself.
                Admission::Wait(waiting) => old.is_some() && waiting.position <= TOLD_AT_ONCE,
            };
            if near && old != Some(answer) && asker != Some(uid) {
                self.woken.insert(uid.clone());
            }
        }
        self.answers = new;
    }

    /// Answers a build that wants to begin, and takes its place.
    pub(super) fn may_begin(&mut self, uid: &str, now: Timestamp) -> Option<Admission> {
        let limited = self.settings.limits.any();
        let peer = self.builds.get_mut(uid)?;
        if peer.runs() || (peer.group.is_none() && !limited) {
            return Some(Admission::Go);
        }
        if !peer.waits() {
            peer.asks = true;
            peer.ticket = i64::try_from(peer.version).unwrap_or(i64::MAX);
            self.active.insert(uid.to_owned());
            self.answers_are_stale = true;
        }
        self.answer(Some(uid));
        let answer = self.answers.get(uid).cloned();
        if answer == Some(Admission::Go)
            && let Some(peer) = self.builds.get_mut(uid)
        {
            peer.admitted = true;
            let namespace = peer.namespace.clone();
            self.served(&namespace, now);
            self.answers.remove(uid);
            self.answers_are_stale = true;
        }
        answer
    }

    fn unshelve(&mut self, uid: &str, old: Option<&Peer>) {
        let Some((old, at)) = old.and_then(|old| Some((old, old.ended?))) else {
            return;
        };
        for (shelf, _) in &old.shelves {
            if let Some(ended) = self.ended.get_mut(shelf) {
                ended.remove(&(at, uid.to_owned()));
                if ended.is_empty() {
                    self.ended.remove(shelf);
                }
            }
        }
    }

    /// Counts a build that is over, and wakes those for which it is one too many.
    fn shelve(&mut self, uid: &str, new: &Peer, old: Option<&Peer>) {
        let Some(at) = new.ended else { return };
        for (shelf, keep) in &new.shelves {
            let ended = self.ended.entry(shelf.clone()).or_default();
            ended.insert((at, uid.to_owned()), *keep);
            let is_known = old.is_some_and(|old| {
                old.ended == Some(at) && old.shelves.iter().any(|(known, _)| known == shelf)
            });
            if is_known {
                continue;
            }
            for (newer, ((_, other), keep)) in ended.iter().rev().enumerate().take(COUNTED) {
                if other != uid
                    && keep.is_some_and(|keep| usize::try_from(keep).is_ok_and(|keep| newer == keep))
                {
                    self.woken.insert(other.clone());
                }
            }
        }
    }

    pub(super) fn newer(&self, uid: &str) -> Newer {
        let mut newer = Newer::default();
        let Some((peer, at)) = self.builds.get(uid).and_then(|peer| Some((peer, peer.ended?))) else {
            return newer;
        };
        for (shelf, _) in &peer.shelves {
            let Some(ended) = self.ended.get(shelf) else {
                continue;
            };
            let mine = (at, uid.to_owned());
            let count = ended
                .keys()
                .rev()
                .take(COUNTED)
                .take_while(|other| **other > mine)
                .count();
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            match shelf {
                Shelf::Namespace(_) => newer.in_namespace = count,
                Shelf::Group { .. } => newer.in_group = count,
            }
        }
        newer
    }

    pub(super) fn claim_stages<'a>(
        &mut self,
        build: &ImageBuild,
        stages: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> BTreeMap<String, SharedStage> {
        let Some(place) = place(build, &self.settings.policies) else {
            return BTreeMap::new();
        };
        let run = build.status.as_ref().map_or(0, |status| status.runs);
        let uid = build.uid().unwrap_or_default();
        self.claims.claim(&uid, &build.name_any(), run, &place, stages)
    }

    /// Takes the names of those to be woken.
    pub(super) fn woken(&mut self) -> Vec<ObjectRef<Guarded>> {
        std::mem::take(&mut self.woken)
            .into_iter()
            .filter_map(|uid| self.builds.get(&uid))
            .map(|peer| ObjectRef::new(&peer.name).within(&peer.namespace))
            .collect()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.builds.is_empty()
            && self.active.is_empty()
            && self.answers.is_empty()
            && self.ended.is_empty()
            && self.claims.is_empty()
    }

    #[cfg(test)]
    pub(super) fn claims(&self) -> &Claims {
        &self.claims
    }
}

/// Where a build that is over is counted, and for how many newer ones it is kept.
fn shelves(
    build: &ImageBuild,
    status: &ImageBuildStatus,
    namespace: &str,
    keep_pods_of: u32,
) -> Vec<(Shelf, Option<u32>)> {
    let phase = status.phase.unwrap_or_default();
    if !phase.is_final() {
        return Vec::new();
    }
    let good = phase == Phase::Succeeded;
    let group = build.spec.concurrency.as_ref().map(|concurrency| {
        let keep = if good {
            concurrency.successful_history_limit
        } else {
            concurrency.failed_history_limit
        };
        let shelf = Shelf::Group {
            namespace: namespace.to_owned(),
            group: concurrency.group.clone(),
            good,
        };
        (shelf, keep)
    });
    std::iter::once((Shelf::Namespace(namespace.to_owned()), Some(keep_pods_of)))
        .chain(group)
        .collect()
}

/// Where equal keys mean the same result that both can read.
fn place(build: &ImageBuild, policies: &Policies) -> Option<Place> {
    Some(Place {
        namespace: build.namespace().unwrap_or_default(),
        repository: policies.cache_repository(build)?,
        scope: build.spec.cache.scope.clone(),
    })
}
