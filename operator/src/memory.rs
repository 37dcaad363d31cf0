//! What bridges the time until the watch shows what was just written. All of it may be lost at any moment.
//!
//! Without it a decision would sometimes see its own past: an event would be told twice, a pod just created would pass
//! for lost.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use slipway_crd::ImageBuild;
use slipway_oci::Digest;
use slipway_plan::protocol::Schedule;

use crate::facts::Fault;

/// A pod that the watch has not shown after this time has been created and deleted in between.
const UNSEEN: Duration = Duration::from_secs(10);

/// Shared by all reconciles.
#[derive(Default)]
pub struct Memory(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// The API server has shown that it knows `hostUsers`.
    user_namespaces: bool,
    builds: HashMap<String, ByBuild>,
}

#[derive(Default)]
struct ByBuild {
    /// As the API server returned it when the status was last written.
    written: Option<Arc<ImageBuild>>,
    created: HashMap<String, (Instant, Pod)>,
    trouble: Option<Trouble>,
    schedule: Option<(Digest, Arc<Schedule>)>,
}

/// Failures of the registry in a run, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The run's number.
    pub run: i64,
    /// How many.
    pub attempts: u32,
    /// The last one.
    pub fault: Fault,
    /// When that was.
    pub at: Timestamp,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newer of what the watch shows and what was last written.
    pub fn newest(&self, uid: &str, shown: Arc<ImageBuild>) -> Arc<ImageBuild> {
        let mut inner = self.lock();
        let Some(known) = inner.builds.get_mut(uid) else {
            return shown;
        };
        match &known.written {
            Some(written) if version(written) > version(&shown) => Arc::clone(written),
            _ => {
                known.written = None;
                shown
            }
        }
    }

    /// Remembers what the API server returned.
    pub fn wrote(&self, uid: &str, build: ImageBuild) {
        self.lock().builds.entry(uid.to_owned()).or_default().written = Some(Arc::new(build));
    }

    /// Remembers a pod that was just created.
    pub fn created(&self, uid: &str, pod: Pod) {
        if let Some(name) = pod.metadata.name.clone() {
            self.lock()
                .builds
                .entry(uid.to_owned())
                .or_default()
                .created
                .insert(name, (Instant::now(), pod));
        }
    }

    /// Adds to `shown` the pods that were just created and are not shown yet.
    pub fn complete(&self, uid: &str, shown: &mut Vec<Arc<Pod>>) {
        let mut inner = self.lock();
        let Some(known) = inner.builds.get_mut(uid) else {
            return;
        };
        known.created.retain(|name, (since, _)| {
            since.elapsed() < UNSEEN && !shown.iter().any(|pod| pod.metadata.name.as_ref() == Some(name))
        });
        shown.extend(known.created.values().map(|(_, pod)| Arc::new(pod.clone())));
    }

    /// Whether the API server has kept a pod's user namespace.
    pub fn user_namespaces(&self) -> bool {
        self.lock().user_namespaces
    }

    /// It has.
    pub fn has_user_namespaces(&self) {
        self.lock().user_namespaces = true;
    }

    /// The pods of a namespace that were just created and are not among `shown`, of every build.
    pub fn just_created(&self, namespace: &str, shown: &HashSet<&str>) -> Vec<Pod> {
        let inner = self.lock();
        inner
            .builds
            .values()
            .flat_map(|build| &build.created)
            .filter(|(name, (since, pod))| {
                since.elapsed() < UNSEEN
                    && pod.metadata.namespace.as_deref() == Some(namespace)
                    && !shown.contains(name.as_str())
            })
            .map(|(_, (_, pod))| pod.clone())
            .collect()
    }

    /// What the registry did to this run, unless its last answer was good.
    pub fn trouble(&self, uid: &str, run: i64) -> Option<Trouble> {
        let inner = self.lock();
        inner
            .builds
            .get(uid)?
            .trouble
            .clone()
            .filter(|trouble| trouble.run == run)
    }

    /// Remembers an answer of the registry: a fault, or a good one that ends the count.
    pub fn registry_answered(&self, uid: &str, run: i64, fault: Option<&Fault>, at: Timestamp) {
        let before = self.trouble(uid, run).map_or(0, |trouble| trouble.attempts);
        let trouble = fault.map(|fault| Trouble {
            run,
            attempts: before + 1,
            fault: fault.clone(),
            at,
        });
        self.lock().builds.entry(uid.to_owned()).or_default().trouble = trouble;
    }

    /// The schedule of a plan, if this build has read it. Not shared between builds: what a build may read is for its own
    /// credentials to say.
    pub fn schedule(&self, uid: &str, plan: &Digest) -> Option<Arc<Schedule>> {
        let inner = self.lock();
        let (of, schedule) = inner.builds.get(uid)?.schedule.as_ref()?;
        (of == plan).then(|| Arc::clone(schedule))
    }

    /// Keeps a schedule.
    pub fn keep_schedule(&self, uid: &str, plan: &Digest, schedule: Arc<Schedule>) {
        self.lock().builds.entry(uid.to_owned()).or_default().schedule = Some((plan.clone(), schedule));
    }

    /// Forgets the builds that are not in `uids`.
    pub fn keep_only(&self, uids: &HashSet<String>) {
        self.lock().builds.retain(|uid, _| uids.contains(uid));
    }
}

/// Resource versions of one kind can be compared as numbers (Kubernetes 1.35, KEP-5504).
pub(crate) fn version(build: &ImageBuild) -> u128 {
    build
        .metadata
        .resource_version
        .as_deref()
        .and_then(|version| version.parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    fn at(version: &str) -> ImageBuild {
        let mut build = fixtures::build();
        build.metadata.resource_version = Some(version.to_owned());
        build
    }

    #[test]
    fn what_was_written_counts_until_the_watch_shows_something_newer() {
        let memory = Memory::default();
        memory.wrote("u", at("10"));
        assert_eq!(version(&memory.newest("u", Arc::new(at("9")))), 10);
        assert_eq!(version(&memory.newest("u", Arc::new(at("10")))), 10);
        assert_eq!(version(&memory.newest("u", Arc::new(at("11")))), 11);
        assert_eq!(version(&memory.newest("other", Arc::new(at("1")))), 1);
    }

    #[test]
    fn a_created_pod_is_there_until_the_watch_shows_it() {
        let memory = Memory::default();
        let mut pod = Pod::default();
        pod.metadata.name = Some("p".into());
        memory.created("u", pod.clone());
        let mut shown = Vec::new();
        memory.complete("u", &mut shown);
        assert_eq!(shown.len(), 1);
        memory.complete("u", &mut shown);
        assert_eq!(shown.len(), 1);
        let mut none = Vec::new();
        memory.complete("u", &mut none);
        assert!(none.is_empty(), "once shown it is the watch's to tell");
    }

    #[test]
    fn failures_of_the_registry_are_counted_by_run_until_it_answers() {
        let memory = Memory::default();
        let fault = Fault {
            reason: "RegistryUnreachable",
            message: "away".into(),
            transient: true,
            retry_after: None,
        };
        memory.registry_answered("u", 1, Some(&fault), fixtures::at(1));
        memory.registry_answered("u", 1, Some(&fault), fixtures::at(2));
        let trouble = memory.trouble("u", 1).unwrap();
        assert_eq!((trouble.attempts, trouble.at), (2, fixtures::at(2)));
        assert_eq!(memory.trouble("u", 2), None);
        memory.registry_answered("u", 1, None, fixtures::at(3));
        assert_eq!(memory.trouble("u", 1), None);
    }

    #[test]
    fn a_schedule_is_its_builds_own() {
        let memory = Memory::default();
        let schedule = Arc::new(fixtures::schedule(vec![fixtures::stage("a", &[])]));
        memory.keep_schedule("u", &fixtures::digest(1), schedule);
        assert!(memory.schedule("u", &fixtures::digest(1)).is_some());
        assert!(memory.schedule("u", &fixtures::digest(2)).is_none());
        assert!(memory.schedule("other", &fixtures::digest(1)).is_none());
    }
}
