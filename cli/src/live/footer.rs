//! What the live display shows below the running steps: stages that have not begun, and how far the build is. Pure.

use crate::view::{status::Status, tree::time};
use slipway_crd::StageState;
use slipway_engine::progress::{Line, Paint};

/// Stages that have not begun are shown one a line up to this many.
const SHOWN: usize = 4;

/// The lines.
pub(super) fn lines(status: &Status, nodes: usize, cached: usize) -> Vec<Line> {
    let mut lines = waiting(status);
    let clock = format!("   {:>7}  ", status.seconds.map(time).unwrap_or_default());
    let text = if status.stages.is_empty() {
        before_stages(status)
    } else {
        with_stages(status, nodes, cached)
    };
    lines.push(Line::new().with(Paint::Strong, clock + &text));
    lines
}

/// What holds the build up, if something does.
fn holdup(status: &Status) -> Option<&str> {
    let reason = status.reason.as_ref()?;
    if *reason == status.phase || status.finished {
        return None;
    }
    status.message.as_deref()
}

fn before_stages(status: &Status) -> String {
    let phase = status.phase.to_lowercase();
    match holdup(status) {
        Some(message) => format!("{phase}: {message}"),
        None => phase,
    }
}

fn with_stages(status: &Status, nodes: usize, cached: usize) -> String {
    let idle = |state| matches!(state, StageState::Cached | StageState::Skipped);
    let needed: Vec<_> = status.stages.iter().filter(|stage| !idle(stage.state)).collect();
    let done = needed
        .iter()
        .filter(|stage| stage.state == StageState::Succeeded)
        .count();
    let mut parts = vec![format!("{done} of {} stages", needed.len())];
    if cached > 0 {
        parts.push(format!("{cached} cached"));
    }
    match nodes {
        0 => {}
        1 => parts.push("1 node".to_owned()),
        n => parts.push(format!("{n} nodes")),
    }
    if status.phase == "Assembling" {
        parts.push("writing the tags".to_owned());
    }
    let text = parts.join(", ");
    match holdup(status) {
        Some(message) => format!("{text}; {message}"),
        None => text,
    }
}

fn waiting(status: &Status) -> Vec<Line> {
    let platforms = status.has_platforms();
    let idle: Vec<_> = status
        .stages
        .iter()
        .filter(|stage| matches!(stage.state, StageState::Waiting | StageState::Starting))
        .collect();
    let shown = if idle.len() > SHOWN { SHOWN - 1 } else { idle.len() };
    let mut lines: Vec<Line> = idle
        .iter()
        .take(shown)
        .map(|stage| {
            let mut line = match stage.state {
                StageState::Starting => Line::new().with(Paint::Busy, " ▹ "),
                _ => Line::new().with(Paint::Faint, " … "),
            };
            line.push(
                Paint::Faint,
                format!("{:>7}  ", stage.seconds.map(time).unwrap_or_default()),
            );
            line.push(Paint::Plain, format!("[{}]", stage.name));
            if platforms {
                line.push(Paint::Faint, format!(" {}", stage.platform));
            }
            let names: Vec<_> = stage
                .waits_for
                .iter()
                .filter_map(|id| status.stages.iter().find(|other| other.id == *id))
                .map(|other| other.name.as_str())
                .collect();
            let note = match (&stage.node, stage.state) {
                (Some(node), StageState::Starting) => format!("  starting on {node}"),
                (None, StageState::Starting) => "  waits for a node".to_owned(),
                _ if names.is_empty() => "  waits".to_owned(),
                _ => format!("  waits for {}", names.join(", ")),
            };
            line.push(Paint::Faint, note);
            line
        })
        .collect();
    if shown < idle.len() {
        lines.push(Line::new().with(
            Paint::Faint,
            format!("{:12}… and {} more wait", "", idle.len() - shown),
        ));
    }
    lines
}
