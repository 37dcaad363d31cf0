//! Updates of a cluster's build into the events of one build. Pure.

use super::{
    footer,
    replay::{Replay, Said},
};
use crate::{
    cluster::{
        follow::Update,
        pods::{BuildPod, Work},
    },
    view::status::Status,
};
use jiff::Timestamp;
use slipway_crd::{ImageBuild, StageState};
use slipway_engine::progress::{Event, Line, Paint};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Duration,
};

/// What is known of the run.
#[derive(Debug, Default)]
pub(super) struct Board {
    build: Option<ImageBuild>,
    /// Numbers of steps, over all pods, from 1.
    steps: u32,
    logs: HashMap<String, PodLog>,
    /// Stages of which it was told that they needed no pod.
    cached: HashSet<String>,
    /// The nodes on which something ran.
    nodes: BTreeSet<String>,
    cached_steps: usize,
    note: Option<String>,
}

/// The log of a pod, as far as it was read.
#[derive(Debug, Default)]
struct PodLog {
    replay: Replay,
    /// Running steps: the runner's number to ours.
    open: HashMap<u32, u32>,
}

impl Board {
    /// The build as it was seen last.
    pub(super) fn into_build(self) -> Option<ImageBuild> {
        self.build
    }

    /// Shows a remark below.
    pub(super) fn note(&mut self, text: &str) {
        self.note = Some(text.to_owned());
    }

    /// What an update means.
    pub(super) fn update(&mut self, update: Update) -> Vec<Event> {
        match update {
            Update::Build(build) => {
                let events = self.cached_stages(&build);
                self.build = Some(*build);
                events
            }
            Update::Pod(pod) => {
                if let Some(node) = &pod.node {
                    self.nodes.insert(node.clone());
                }
                Vec::new()
            }
            Update::Line { pod, text } => self.line(&pod, &text),
            Update::LogEnded(pod) => {
                // A pod that was stopped has not told how its steps ended.
                let open = self
                    .logs
                    .get_mut(&pod.name)
                    .map(|log| std::mem::take(&mut log.open));
                let mut ids: Vec<u32> = open.into_iter().flatten().map(|(_, id)| id).collect();
                ids.sort_unstable();
                ids.into_iter().map(|id| Event::Cancelled { id }).collect()
            }
            Update::Blind(text) => {
                self.note(&text);
                Vec::new()
            }
            Update::Gone => Vec::new(),
        }
    }

    /// Stages that needed no pod are steps without a log.
    fn cached_stages(&mut self, build: &ImageBuild) -> Vec<Event> {
        let status = build.status.as_ref();
        let mut events = Vec::new();
        for stage in status.map(|status| status.stages.as_slice()).unwrap_or_default() {
            if stage.state == StageState::Cached && self.cached.insert(stage.id.clone()) {
                self.steps += 1;
                self.cached_steps += 1;
                let steps = match stage.steps.total {
                    1 => "1 step".to_owned(),
                    n => format!("{n} steps"),
                };
                events.push(Event::Started {
                    id: self.steps,
                    name: format!("[{}] {steps}", stage.name),
                    place: None,
                });
                events.push(Event::Done {
                    id: self.steps,
                    cached: true,
                    took: Duration::ZERO,
                });
            }
        }
        events
    }

    fn line(&mut self, pod: &BuildPod, text: &str) -> Vec<Event> {
        let place = self.place(pod);
        let log = self.logs.entry(pod.name.clone()).or_default();
        let event = match log.replay.line(text) {
            Said::Started { number, name } => {
                self.steps += 1;
                log.open.insert(number, self.steps);
                let attempt = match pod.attempt {
                    0 | 1 => String::new(),
                    n => format!(" (attempt {n})"),
                };
                Event::Started {
                    id: self.steps,
                    name: format!("{name}{attempt}"),
                    place,
                }
            }
            Said::Log { number, after, text } => match log.open.get(&number) {
                Some(id) => Event::Log {
                    id: *id,
                    stderr: false,
                    line: text,
                    after,
                },
                None => return Vec::new(),
            },
            Said::Done { number, cached, took } => match log.open.remove(&number) {
                Some(id) => {
                    self.cached_steps += usize::from(cached);
                    Event::Done { id, cached, took }
                }
                None => return Vec::new(),
            },
            Said::Failed { number, error } => match log.open.remove(&number) {
                Some(id) => Event::Failed { id, error },
                None => return Vec::new(),
            },
            Said::Cancelled { number } => match log.open.remove(&number) {
                Some(id) => Event::Cancelled { id },
                None => return Vec::new(),
            },
            Said::Warning { rule, detail, line } => Event::Warning { rule, detail, line },
            // The end of a failed pod's log repeats what the status tells in the end.
            Said::Nothing | Said::Other(_) => return Vec::new(),
        };
        vec![event]
    }

    /// Where a pod runs, and for which platform where that is not clear.
    fn place(&self, pod: &BuildPod) -> Option<String> {
        let stages = self
            .build
            .as_ref()
            .and_then(|build| build.status.as_ref())
            .map(|status| &status.stages);
        let platform = match (&pod.work, stages) {
            (Work::Stage(id), Some(stages))
                if stages.iter().any(|stage| stage.platform != stages[0].platform) =>
            {
                stages
                    .iter()
                    .find(|stage| stage.id == *id)
                    .map(|stage| stage.platform.clone())
            }
            _ => None,
        };
        match (pod.node.clone(), platform) {
            (Some(node), Some(platform)) => Some(format!("{node} {platform}")),
            (node, platform) => node.or(platform),
        }
    }

    /// What stands below the running steps.
    pub(super) fn footer(&self, now: Timestamp) -> Vec<Line> {
        let mut lines = match &self.build {
            Some(build) => footer::lines(&Status::of(build, now), self.nodes.len(), self.cached_steps),
            None => vec![Line::new().with(Paint::Faint, "            waiting for the ImageBuild")],
        };
        if let Some(note) = &self.note {
            lines.push(Line::new().with(Paint::Warn, format!(" ! {note}")));
        }
        lines
    }
}

#[cfg(test)]
mod tests;
