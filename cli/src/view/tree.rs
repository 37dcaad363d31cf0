//! A build as a tree for people: the image at the root, below each stage those that it reads from.
//!
//! ```text
//! shop  Running  12s  because SpecChanged
//!   2 of 4 stages are done
//!
//! ✓ plan           2s            *
//! ▸ final          -   waits for build
//! ├─ ▸ build      10s   7 steps  *  node-2
//! │  └─ ✓ deps     cached
//! └─ ✓ deps (above)
//!
//! critical path: plan 2s → build 10s
//! ```

use super::{
    status::{Stage, Status},
    table::{Table, cell, faint},
};
use slipway_crd::{FailureStatus, StageState};
use slipway_engine::progress::{Line, Paint, duration, size};
use std::{collections::HashSet, time::Duration};

/// The whole of it. `wide` adds pods.
pub fn lines(status: &Status, wide: bool) -> Vec<Line> {
    let mut lines = head(status);
    let stages = stages(status, wide);
    if !stages.is_empty() {
        lines.push(Line::new());
        lines.extend(stages);
    }
    if let Some(path) = path(status) {
        lines.push(Line::new());
        lines.push(path);
    }
    if let Some(failure) = &status.failure {
        lines.push(Line::new());
        lines.extend(self::failure(&status.name, failure));
    }
    lines
}

/// Name, phase, time, cause; the image, or what happens.
fn head(status: &Status) -> Vec<Line> {
    let paint = if status.succeeded {
        Paint::Good
    } else if status.failure.is_some() {
        Paint::Bad
    } else if status.finished {
        Paint::Warn
    } else {
        Paint::Busy
    };
    let mut first = Line::new()
        .with(Paint::Strong, &status.name)
        .with(Paint::Plain, "  ")
        .with(paint, &status.phase);
    if let Some(seconds) = status.seconds {
        first.push(Paint::Plain, format!("  {}", time(seconds)));
    }
    if let Some(cause) = &status.cause {
        first.push(Paint::Faint, format!("  because {cause}"));
    }
    let mut lines = vec![first];
    if let Some(digest) = &status.digest {
        for image in &status.images {
            lines.push(Line::new().with(Paint::Plain, format!("  {image}")));
        }
        let bytes = status.size.and_then(|bytes| u64::try_from(bytes).ok());
        let bytes = bytes
            .map(|bytes| format!("  {}", size(bytes)))
            .unwrap_or_default();
        lines.push(Line::new().with(Paint::Plain, format!("  {digest}{bytes}")));
    } else if status.failure.is_none()
        && let Some(message) = &status.message
    {
        lines.push(Line::new().with(Paint::Plain, format!("  {message}")));
    }
    lines
}

/// The plan and the tree of stages.
fn stages(status: &Status, wide: bool) -> Vec<Line> {
    let mut table = Table::default();
    if let Some(plan) = &status.plan {
        let (paint, symbol) = match (plan.done, status.finished) {
            (true, _) => (Paint::Good, "✓"),
            (false, false) => (Paint::Busy, "▸"),
            (false, true) => (Paint::Bad, "✗"),
        };
        let warnings = match plan.warnings {
            0 => String::new(),
            1 => "1 warning".to_owned(),
            n => format!("{n} warnings"),
        };
        let mut row = vec![
            Line::new().with(paint, symbol).with(Paint::Plain, " plan"),
            cell(plan.seconds.map(time).unwrap_or_default()),
            Line::new().with(Paint::Warn, warnings),
            Line::new().with(Paint::Strong, if plan.seconds.is_some() { "*" } else { "" }),
            cell(""),
        ];
        if wide {
            row.push(faint(plan.pod.as_deref().unwrap_or_default()));
        }
        table.row(row);
    }
    let mut tree = Tree {
        status,
        wide,
        platforms: status.has_platforms(),
        shown: HashSet::new(),
        table,
    };
    let needed: HashSet<&String> = status.stages.iter().flat_map(|stage| &stage.needs).collect();
    let roots = status.stages.iter().filter(|stage| !needed.contains(&stage.id));
    for root in roots {
        tree.node(root, "", "");
    }
    tree.table.lines()
}

struct Tree<'a> {
    status: &'a Status,
    wide: bool,
    platforms: bool,
    shown: HashSet<&'a str>,
    table: Table,
}

impl<'a> Tree<'a> {
    /// A stage and those below it. `branch` stands before it, `below` before what is below it.
    fn node(&mut self, stage: &'a Stage, branch: &str, below: &str) {
        let (paint, symbol) = symbol(stage.state);
        let mut name = Line::new()
            .with(Paint::Faint, branch)
            .with(paint, symbol)
            .with(Paint::Plain, format!(" {}", stage.name));
        if self.platforms {
            name.push(Paint::Faint, format!(" {}", stage.platform));
        }
        if !self.shown.insert(&stage.id) {
            if !stage.needs.is_empty() {
                name.push(Paint::Faint, " (above)");
            }
            return self.table.row(vec![name]);
        }
        let mut row = vec![
            name,
            cell(stage.seconds.map(time).unwrap_or_default()),
            Line::new().with(paint_of_note(stage.state), self.note(stage)),
            Line::new().with(Paint::Strong, if stage.critical { "*" } else { "" }),
            faint(stage.node.as_deref().unwrap_or_default()),
        ];
        if self.wide {
            row.push(faint(stage.pod.as_deref().unwrap_or_default()));
        }
        self.table.row(row);
        let status = self.status;
        let needs: Vec<&Stage> = stage.needs.iter().filter_map(|id| find(status, id)).collect();
        for (place, need) in needs.iter().enumerate() {
            let last = place + 1 == needs.len();
            let (branch, next) = if last {
                ("└─ ", "   ")
            } else {
                ("├─ ", "│  ")
            };
            self.node(need, &format!("{below}{branch}"), &format!("{below}{next}"));
        }
    }

    /// What there is to say beside its state.
    fn note(&self, stage: &Stage) -> String {
        let names = |ids: &[String]| {
            let name =
                |id: &String| find(self.status, id).map_or_else(|| id.clone(), |stage| stage.name.clone());
            ids.iter().map(name).collect::<Vec<_>>().join(", ")
        };
        let attempts = match stage.attempts {
            0 | 1 => String::new(),
            n => format!(", attempt {n}"),
        };
        let steps = stage.steps;
        if let Some(build) = stage.shared_with.as_ref().filter(|_| !stage.state.is_final()) {
            return format!("runs in build {build}");
        }
        match stage.state {
            StageState::Waiting if !stage.waits_for.is_empty() => {
                format!("waits for {}{attempts}", names(&stage.waits_for))
            }
            StageState::Waiting => format!("waiting{attempts}"),
            StageState::Starting => format!("starting{attempts}"),
            StageState::Running if !stage.waits_for.is_empty() => {
                format!(
                    "{}, reads from {} later{attempts}",
                    count(steps.total),
                    names(&stage.waits_for)
                )
            }
            StageState::Succeeded if steps.cached > 0 => {
                format!("{}, {} cached{attempts}", count(steps.total), steps.cached)
            }
            StageState::Running | StageState::Succeeded => format!("{}{attempts}", count(steps.total)),
            StageState::Cached => "cached".to_owned(),
            StageState::Skipped => "not needed".to_owned(),
            StageState::Failed => format!("failed{attempts}"),
            StageState::Cancelled => "stopped".to_owned(),
        }
    }
}

fn find<'a>(status: &'a Status, id: &str) -> Option<&'a Stage> {
    status.stages.iter().find(|stage| stage.id == id)
}

fn count(steps: u32) -> String {
    match steps {
        1 => "1 step".to_owned(),
        n => format!("{n} steps"),
    }
}

/// How a state is shown.
pub fn symbol(state: StageState) -> (Paint, &'static str) {
    match state {
        StageState::Waiting => (Paint::Faint, "…"),
        StageState::Starting => (Paint::Busy, "▹"),
        StageState::Running => (Paint::Busy, "▸"),
        StageState::Succeeded | StageState::Cached => (Paint::Good, "✓"),
        StageState::Skipped => (Paint::Faint, "○"),
        StageState::Failed => (Paint::Bad, "✗"),
        StageState::Cancelled => (Paint::Warn, "■"),
    }
}

fn paint_of_note(state: StageState) -> Paint {
    match state {
        StageState::Failed => Paint::Bad,
        StageState::Cancelled => Paint::Warn,
        _ => Paint::Faint,
    }
}

/// Times in a status are whole seconds; below a minute a decimal would say more than is known.
pub fn time(seconds: f64) -> String {
    if seconds < 60.0 {
        format!("{}s", seconds as u64)
    } else {
        duration(Duration::from_secs(seconds as u64))
    }
}

/// The chain that decided the end, marked `*` in the tree.
fn path(status: &Status) -> Option<Line> {
    if status.critical_path.len() < 2 {
        return None;
    }
    let parts: Vec<String> = status
        .critical_path
        .iter()
        .map(|part| format!("{} {}", part.name, time(part.seconds)))
        .collect();
    let running = if status.finished { "" } else { " …" };
    Some(
        Line::new()
            .with(Paint::Strong, "critical path* ")
            .with(Paint::Plain, format!("{}{running}", parts.join(" → "))),
    )
}

/// A failure: what, where, the end of the log, where there is more.
pub fn failure(build: &str, failure: &FailureStatus) -> Vec<Line> {
    let mut first = Line::new().with(Paint::Bad, format!("✗ {}", failure.reason));
    if let Some(stage) = &failure.stage {
        first.push(Paint::Plain, format!(" in stage {stage}"));
        if let Some(platform) = &failure.platform {
            first.push(Paint::Faint, format!(" ({platform})"));
        }
    }
    let mut lines = vec![first];
    let mut text = failure.message.lines();
    let place = match (&failure.file, failure.line) {
        (Some(file), Some(line)) => format!("{file}:{line}: "),
        _ => String::new(),
    };
    let message = text.next().unwrap_or_default();
    lines.push(Line::new().with(Paint::Plain, format!("  {place}{message}")));
    lines.extend(text.map(|line| Line::new().with(Paint::Plain, format!("  {line}"))));
    if let Some(instruction) = &failure.instruction {
        let code = failure
            .exit_code
            .map(|code| format!("  (exit code {code})"))
            .unwrap_or_default();
        lines.push(
            Line::new()
                .with(Paint::Strong, format!("  {instruction}"))
                .with(Paint::Faint, code),
        );
    }
    if let Some(log) = failure.log.as_ref().filter(|log| !log.is_empty()) {
        lines.extend(
            log.lines()
                .map(|line| Line::new().with(Paint::Faint, "  │ ").with(Paint::Plain, line)),
        );
        let stage = failure
            .stage
            .as_ref()
            .map(|stage| format!(" --stage {stage}"))
            .unwrap_or_default();
        lines.push(Line::new().with(
            Paint::Faint,
            format!("  all of it: kubectl slipway logs {build}{stage}"),
        ));
    }
    lines
}
