//! Why each step ran, a row a step.

use super::table::{Table, cell, faint};
use slipway_engine::progress::{Line, Paint};
use slipway_plan::explain::{Explanation, Outcome};

/// The lines. `all` shows the steps of cached stages too.
pub fn lines(explanation: &Explanation, all: bool) -> Vec<Line> {
    let mut lines = Vec::new();
    for stage in &explanation.stages {
        let cached = stage.steps.iter().filter(|step| step.cached).count();
        let (paint, symbol, word) = match stage.outcome {
            Outcome::Cached => (Paint::Good, "✓", "cached".to_owned()),
            Outcome::Skipped => (Paint::Faint, "○", "not needed".to_owned()),
            Outcome::Runs => (
                Paint::Busy,
                "▸",
                format!("{cached} of {} steps cached", stage.steps.len()),
            ),
        };
        if !lines.is_empty() {
            lines.push(Line::new());
        }
        lines.push(
            Line::new()
                .with(paint, symbol)
                .with(Paint::Strong, format!(" {}", stage.name))
                .with(Paint::Faint, format!(" {}", stage.platform))
                .with(Paint::Plain, format!("  {word}")),
        );
        if stage.outcome != Outcome::Runs && !all {
            continue;
        }
        let mut table = Table::default();
        for step in &stage.steps {
            let mark = if step.cached {
                Line::new().with(Paint::Good, "  ✓")
            } else {
                Line::new().with(Paint::Busy, "  ▸")
            };
            let place = faint(format!("{}:{}", explanation.dockerfile, step.line));
            let why = if step.cached {
                faint("cached")
            } else {
                Line::new().with(Paint::Warn, step.reasons())
            };
            table.row(vec![mark, place, cell(&step.instruction), why]);
        }
        lines.extend(table.lines());
    }
    if !explanation.compared {
        lines.push(Line::new());
        lines.push(Line::new().with(
            Paint::Faint,
            "There was no earlier build of this name to compare with.",
        ));
    }
    lines
}
