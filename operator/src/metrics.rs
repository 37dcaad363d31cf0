//! What `/metrics` shows, in the OpenMetrics text form.

use std::{collections::BTreeMap, sync::Mutex, sync::PoisonError, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use slipway_crd::{ImageBuildStatus, Phase, conditions};

/// Label of the builds by phase.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PhaseLabel {
    phase: &'static str,
}

/// Label of the builds that wait for others.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct QueueLabel {
    /// `group`, or the limit of the chart.
    behind: String,
}

/// Label of the runs that ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    reason: String,
}

/// Label of the API and registry errors.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ErrorLabel {
    kind: &'static str,
}

/// Every metric.
pub struct Metrics {
    registry: Registry,
    builds: Family<PhaseLabel, Gauge>,
    queued: Family<QueueLabel, Gauge>,
    finished: Family<ReasonLabel, Counter>,
    queue_seconds: Histogram,
    build_seconds: Histogram,
    stage_seconds: Histogram,
    reconcile_seconds: Histogram,
    errors: Family<ErrorLabel, Counter>,
    working: Gauge,
    leader: Gauge,
    seen: Mutex<BTreeMap<String, Seen>>,
}

/// What a build is counted as.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    phase: Phase,
    queue: Option<String>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("slipway"),
            builds: Family::default(),
            queued: Family::default(),
            finished: Family::default(),
            queue_seconds: Histogram::new([
                1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 21_600.0,
            ]),
            build_seconds: Histogram::new([
                1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
            ]),
            stage_seconds: Histogram::new([
                1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
            ]),
            reconcile_seconds: Histogram::new([
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
            ]),
            errors: Family::default(),
            working: Gauge::default(),
            leader: Gauge::default(),
            seen: Mutex::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("builds", "ImageBuilds by phase", metrics.builds.clone());
        registry.register(
            "builds_queued",
            "ImageBuilds that wait for others, by what they wait for: group, or a limit of the chart",
            metrics.queued.clone(),
        );
        registry.register(
            "queue_seconds",
            "Seconds that builds waited for others before they began",
            metrics.queue_seconds.clone(),
        );
        registry.register(
            "builds_finished",
            "Runs that ended, by the reason of their Ready condition",
            metrics.finished.clone(),
        );
        registry.register(
            "build_seconds",
            "Seconds from the beginning of a run to its end",
            metrics.build_seconds.clone(),
        );
        registry.register(
            "stage_seconds",
            "Seconds from the creation of a stage's first pod to its result",
            metrics.stage_seconds.clone(),
        );
        registry.register(
            "reconcile_seconds",
            "Seconds that a reconcile took",
            metrics.reconcile_seconds.clone(),
        );
        registry.register(
            "errors",
            "Failed reconciles (api) and failed requests to registries (registry)",
            metrics.errors.clone(),
        );
        registry.register(
            "reconciles_running",
            "Reconciles that run right now",
            metrics.working.clone(),
        );
        registry.register(
            "leader",
            "1 if this replica is the one at work",
            metrics.leader.clone(),
        );
        metrics
    }
}

impl Metrics {
    /// The text of `/metrics`.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// A reconcile has begun; it ends when the guard is dropped.
    pub fn reconcile(&self) -> ReconcileGuard<'_> {
        self.working.inc();
        ReconcileGuard {
            metrics: self,
            begun: std::time::Instant::now(),
        }
    }

    /// Something outside failed: `api` or `registry`.
    pub fn error(&self, kind: &'static str) {
        self.errors.get_or_create(&ErrorLabel { kind }).inc();
    }

    /// Whether this replica leads.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
        if !leads {
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).clear();
            self.builds.clear();
            self.queued.clear();
        }
    }

    /// A status has been written in place of another.
    pub fn wrote(&self, uid: &str, old: Option<&ImageBuildStatus>, new: &ImageBuildStatus) {
        self.count(uid, new);
        if let (Some(queue), Some(run)) = (old.and_then(|old| old.queue.as_ref()), &new.run)
            && new.phase != Some(Phase::Cancelled)
        {
            self.queue_seconds
                .observe(seconds(run.started_at.0.duration_since(queue.since.0)));
        }
        let was_final = old.is_some_and(|old| old.phase.unwrap_or_default().is_final() && old.run == new.run);
        if let Some(run) = new
            .run
            .as_ref()
            .filter(|_| new.phase.unwrap_or_default().is_final() && !was_final)
        {
            let reason =
                conditions::get(&new.conditions, conditions::READY).map(|ready| ready.reason.clone());
            self.finished
                .get_or_create(&ReasonLabel {
                    reason: reason.unwrap_or_default(),
                })
                .inc();
            if let (Some(ended), true) = (&run.finished_at, new.phase != Some(Phase::Cancelled)) {
                self.build_seconds
                    .observe(seconds(ended.0.duration_since(run.started_at.0)));
            }
        }
        for stage in &new.stages {
            let known = old.and_then(|old| old.stages.iter().find(|known| known.id == stage.id));
            if let (Some(begun), Some(ended)) = (&stage.started_at, &stage.finished_at)
                && known.is_none_or(|known| known.finished_at.is_none())
            {
                self.stage_seconds
                    .observe(seconds(ended.0.duration_since(begun.0)));
            }
        }
    }

    /// A build that was seen.
    pub fn count(&self, uid: &str, status: &ImageBuildStatus) {
        let now = Seen {
            phase: status.phase.unwrap_or_default(),
            queue: status
                .queue
                .as_ref()
                .map(|queue| queue.limit.clone().unwrap_or_else(|| "group".to_owned())),
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let before = seen.insert(uid.to_owned(), now.clone());
        if before.as_ref() != Some(&now) {
            self.add(&now, 1);
            if let Some(before) = before {
                self.add(&before, -1);
            }
        }
    }

    fn add(&self, seen: &Seen, one: i64) {
        let phase = seen.phase.as_str();
        self.builds.get_or_create(&PhaseLabel { phase }).inc_by(one);
        if let Some(behind) = seen.queue.clone() {
            self.queued.get_or_create(&QueueLabel { behind }).inc_by(one);
        }
    }

    /// Forgets the builds that are not in `uids`.
    pub fn keep_only(&self, uids: &std::collections::HashSet<String>) {
        let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|uid, seen| {
            let stays = uids.contains(uid);
            if !stays {
                self.add(seen, -1);
            }
            stays
        });
    }
}

fn seconds(duration: jiff::SignedDuration) -> f64 {
    duration.as_secs_f64().max(0.0)
}

/// Measures a reconcile.
pub struct ReconcileGuard<'a> {
    metrics: &'a Metrics,
    begun: std::time::Instant,
}

impl Drop for ReconcileGuard<'_> {
    fn drop(&mut self) {
        let took: Duration = self.begun.elapsed();
        self.metrics.reconcile_seconds.observe(took.as_secs_f64());
        self.metrics.working.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn a_run_is_counted_once_when_it_ends() {
        let metrics = Metrics::default();
        let (running, failed) = (fixtures::status(Phase::Running), fixtures::status(Phase::Failed));
        metrics.wrote("u", None, &running);
        metrics.wrote("u", Some(&running), &failed);
        metrics.wrote("u", Some(&failed), &failed);
        let text = metrics.text();
        assert!(text.contains("slipway_builds{phase=\"Failed\"} 1"), "{text}");
        assert!(text.contains("slipway_builds{phase=\"Running\"} 0"), "{text}");
        assert!(
            text.contains("slipway_builds_finished_total{reason=\"\"} 1"),
            "{text}"
        );
        metrics.keep_only(&std::collections::HashSet::new());
        assert!(metrics.text().contains("slipway_builds{phase=\"Failed\"} 0"));
    }

    #[test]
    fn a_queue_is_counted_by_what_it_waits_for_and_its_wait_when_it_ends() {
        let metrics = Metrics::default();
        let mut queued = fixtures::status(Phase::Pending);
        queued.run = None;
        queued.queue = Some(slipway_crd::QueueStatus {
            position: 1,
            group: None,
            limit: Some("limits.maxRunning".into()),
            since: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(fixtures::at(-90)),
            ticket: 1,
        });
        metrics.wrote("u", None, &queued);
        let text = metrics.text();
        assert!(
            text.contains("slipway_builds_queued{behind=\"limits.maxRunning\"} 1"),
            "{text}"
        );
        metrics.wrote("u", Some(&queued), &fixtures::status(Phase::Planning));
        let text = metrics.text();
        assert!(
            text.contains("slipway_builds_queued{behind=\"limits.maxRunning\"} 0"),
            "{text}"
        );
        assert!(text.contains("slipway_queue_seconds_sum 90"), "{text}");
    }
}
