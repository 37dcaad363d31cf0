//! Who makes a stage that several builds need at the same time. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use slipway_crd::{StageState, StageStatus};

/// Where equal keys mean the same result.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    /// Only within one: what another namespace's build makes is not for this one to trust.
    pub namespace: String,
    /// The cache repository that the result goes to.
    pub repository: String,
    /// The scope in it: what an untrusted build makes is not for a trusted one to read.
    pub scope: Option<String>,
}

/// A stage that another build makes, or has just made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedStage {
    /// The name of that build, in the same namespace.
    pub build: String,
    /// The stage's id there.
    pub id: String,
    /// How far it is. A final state without result is never given: the claim has passed on then.
    pub state: StageState,
    /// Its pod.
    pub pod: Option<String>,
    /// Its result, once it is there.
    pub digest: Option<String>,
}

/// What a build's status tells.
#[derive(Clone, Copy)]
pub(super) struct Told<'a> {
    pub uid: &'a str,
    pub name: &'a str,
    /// The number of its newest run.
    pub run: i64,
    /// That run is under way.
    pub running: bool,
    pub rows: &'a [StageStatus],
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct StageKey {
    place: Place,
    key: String,
}

struct Claim {
    owner: String,
    run: i64,
    stage: SharedStage,
    waiters: BTreeSet<String>,
    /// The owner's run is over: the claim is kept for those who wait, and goes with the last of them.
    left: bool,
}

impl Claim {
    fn is_dead(&self) -> bool {
        self.stage.state.is_final() && !self.stage.state.has_result()
    }
}

/// All claims.
#[derive(Default)]
pub(super) struct Claims {
    by_key: HashMap<StageKey, Claim>,
    /// By owner.
    owned: HashMap<String, BTreeSet<StageKey>>,
    /// By waiter.
    waited: HashMap<String, BTreeSet<StageKey>>,
}

impl Claims {
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty() && self.owned.is_empty() && self.waited.is_empty()
    }

    /// Claims stages, by id and key; gives those that another build has.
    pub(super) fn claim<'a>(
        &mut self,
        uid: &str,
        name: &str,
        run: i64,
        place: &Place,
        stages: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> BTreeMap<String, SharedStage> {
        let mut others = BTreeMap::new();
        for (id, key) in stages {
            let key = StageKey {
                place: place.clone(),
                key: key.to_owned(),
            };
            match self.by_key.get_mut(&key) {
                Some(claim) if claim.owner == uid => {
                    if claim.run != run || claim.is_dead() {
                        claim.run = run;
                        claim.left = false;
                        claim.stage = fresh(name, id);
                    }
                }
                Some(claim) if !claim.is_dead() => {
                    claim.waiters.insert(uid.to_owned());
                    others.insert(key.key.clone(), claim.stage.clone());
                    self.waited.entry(uid.to_owned()).or_default().insert(key);
                }
                _ => self.give(key, uid, run, fresh(name, id)),
            }
        }
        others
    }

    fn give(&mut self, key: StageKey, uid: &str, run: i64, stage: SharedStage) {
        let waiters = self.by_key.remove(&key).map_or_else(BTreeSet::new, |old| {
            self.forget_owned(&old.owner, &key);
            old.waiters
        });
        self.owned.entry(uid.to_owned()).or_default().insert(key.clone());
        let mut claim = Claim {
            owner: uid.to_owned(),
            run,
            stage,
            waiters,
            left: false,
        };
        claim.waiters.remove(uid);
        self.by_key.insert(key, claim);
    }

    fn forget_owned(&mut self, owner: &str, key: &StageKey) {
        if let Some(keys) = self.owned.get_mut(owner) {
            keys.remove(key);
            if keys.is_empty() {
                self.owned.remove(owner);
            }
        }
    }

    /// Learns a build's status; gives those who waited for what has changed.
    pub(super) fn tell(&mut self, told: &Told<'_>, place: &Place) -> Vec<String> {
        let mut woken = BTreeSet::new();
        let concerned = told.running || self.owned.contains_key(told.uid);
        let rows = if concerned { told.rows } else { &[] };
        for (row, key) in rows.iter().filter_map(|row| Some((row, row.key.as_ref()?))) {
            let key = StageKey {
                place: place.clone(),
                key: key.clone(),
            };
            let stage = SharedStage {
                build: told.name.to_owned(),
                id: row.id.clone(),
                state: row.state,
                pod: row.pod.clone(),
                digest: row.digest.clone(),
            };
            match self.by_key.get_mut(&key) {
                // A build may have two stages of one key; the first of them is the one that is told.
                Some(claim)
                    if claim.owner == told.uid
                        && claim.run == told.run
                        && claim.stage.id == stage.id
                        && claim.stage != stage =>
                {
                    claim.stage = stage;
                    woken.extend(claim.waiters.iter().cloned());
                }
                // Its pod is there: so it was before this operator began.
                None if told.running && matches!(row.state, StageState::Starting | StageState::Running) => {
                    self.give(key, told.uid, told.run, stage);
                }
                _ => {}
            }
        }
        if told.running {
            woken.extend(self.void(told.uid, |claim| claim.run != told.run));
        } else {
            woken.extend(self.leave(told.uid));
        }
        woken.into_iter().collect()
    }

    /// The build makes and waits for nothing any more; gives those who waited for it.
    pub(super) fn leave(&mut self, uid: &str) -> Vec<String> {
        for key in self.waited.remove(uid).unwrap_or_default() {
            if let Some(claim) = self.by_key.get_mut(&key) {
                claim.waiters.remove(uid);
                if claim.waiters.is_empty() && claim.left {
                    let owner = claim.owner.clone();
                    self.by_key.remove(&key);
                    self.forget_owned(&owner, &key);
                }
            }
        }
        let woken = self.void(uid, |claim| !claim.stage.state.has_result());
        for key in self.owned.get(uid).cloned().unwrap_or_default() {
            match self.by_key.get_mut(&key) {
                Some(claim) if !claim.waiters.is_empty() => claim.left = true,
                _ => {
                    self.by_key.remove(&key);
                    self.forget_owned(uid, &key);
                }
            }
        }
        woken
    }

    /// Ends the claims of a build that `which` picks, without result.
    fn void(&mut self, uid: &str, which: impl Fn(&Claim) -> bool) -> Vec<String> {
        let mut woken = Vec::new();
        for key in self.owned.get(uid).into_iter().flatten() {
            if let Some(claim) = self.by_key.get_mut(key).filter(|claim| which(claim))
                && !claim.is_dead()
            {
                claim.stage.state = StageState::Cancelled;
                woken.extend(claim.waiters.iter().cloned());
            }
        }
        woken
    }
}

fn fresh(build: &str, id: &str) -> SharedStage {
    SharedStage {
        build: build.to_owned(),
        id: id.to_owned(),
        state: StageState::Waiting,
        pod: None,
        digest: None,
    }
}
