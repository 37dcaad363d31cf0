//! What bridges the time until the watch shows what was just written. All of it may be lost at any moment.
//!
//! Without it a decision would sometimes see its own past: an event would be told twice, a pod just created would pass
//! for lost.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Pod;
use slipway_crd::ImageBuild;
use slipway_plan::protocol::Schedule;

/// A pod that the watch has not shown after this time has been created and deleted in between.
const UNSEEN: Duration = Duration::from_secs(10);
/// So many schedules are kept; others are read again.
const SCHEDULES: usize = 256;

/// Shared by all reconciles.
#[derive(Default)]
pub struct Memory(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    builds: HashMap<String, ByBuild>,
    schedules: HashMap<String, Arc<Schedule>>,
}

#[derive(Default)]
struct ByBuild {
    /// As the API server returned it when the status was last written.
    written: Option<Arc<ImageBuild>>,
    created: HashMap<String, (Instant, Pod)>,
    /// Failures of the registry one after the other, and the run that had them.
    registry_attempts: (i64, u32),
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

    /// How often the registry has failed this run.
    pub fn registry_attempts(&self, uid: &str, run: i64) -> u32 {
        let inner = self.lock();
        inner
            .builds
            .get(uid)
            .map_or(0, |known| match known.registry_attempts {
                (of, attempts) if of == run => attempts,
                _ => 0,
            })
    }

    /// Counts an answer of the registry.
    pub fn registry_answered(&self, uid: &str, run: i64, failed: bool) {
        let attempts = if failed {
            self.registry_attempts(uid, run) + 1
        } else {
            0
        };
        self.lock()
            .builds
            .entry(uid.to_owned())
            .or_default()
            .registry_attempts = (run, attempts);
    }

    /// The schedule of a plan, if it has been read.
    pub fn schedule(&self, plan: &str) -> Option<Arc<Schedule>> {
        self.lock().schedules.get(plan).cloned()
    }

    /// Keeps a schedule.
    pub fn keep_schedule(&self, plan: &str, schedule: Arc<Schedule>) {
        let mut inner = self.lock();
        if inner.schedules.len() >= SCHEDULES {
            inner.schedules.clear();
        }
        inner.schedules.insert(plan.to_owned(), schedule);
    }

    /// Forgets the builds that are not in `uids`.
    pub fn keep_only(&self, uids: &std::collections::HashSet<String>) {
        self.lock().builds.retain(|uid, _| uids.contains(uid));
    }
}

/// Resource versions of one kind can be compared as numbers (Kubernetes 1.35, KEP-5504).
fn version(build: &ImageBuild) -> u128 {
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
    fn failures_of_the_registry_are_counted_by_run() {
        let memory = Memory::default();
        memory.registry_answered("u", 1, true);
        memory.registry_answered("u", 1, true);
        assert_eq!(
            (memory.registry_attempts("u", 1), memory.registry_attempts("u", 2)),
            (2, 0)
        );
        memory.registry_answered("u", 1, false);
        assert_eq!(memory.registry_attempts("u", 1), 0);
    }
}
