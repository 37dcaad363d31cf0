//! The graph as a Mermaid flowchart, for Markdown.

use super::{Graph, Node, count, word};
use slipway_crd::StageState;
use std::fmt::Write as _;

/// The text, with a line end.
pub fn mermaid(graph: &Graph) -> String {
    let mut out = String::from("flowchart LR\n");
    let platforms = graph.platforms();
    if platforms.len() > 1 {
        for (number, platform) in platforms.iter().enumerate() {
            let _ = writeln!(out, "  subgraph p{number}[\"{}\"]", escape(platform));
            for (place, stage) in graph.stages.iter().enumerate() {
                if stage.platform.as_deref() == Some(*platform) {
                    let _ = writeln!(out, "    {}", declare(place, stage));
                }
            }
            out.push_str("  end\n");
        }
    }
    for (place, stage) in graph.stages.iter().enumerate() {
        if platforms.len() < 2 || stage.platform.is_none() {
            let _ = writeln!(out, "  {}", declare(place, stage));
        }
    }
    for (place, stage) in graph.stages.iter().enumerate() {
        for edge in &stage.needs {
            let label = match edge.by.as_slice() {
                [] => String::new(),
                by => format!("|{}|", by.join(", ")),
            };
            let _ = writeln!(out, "  s{} -->{label} s{place}", edge.stage);
        }
    }
    for (class, style) in CLASSES {
        let members: Vec<String> = graph
            .stages
            .iter()
            .enumerate()
            .filter(|(_, stage)| class_of(stage) == Some(class))
            .map(|(place, _)| format!("s{place}"))
            .collect();
        if !members.is_empty() {
            let _ = writeln!(
                out,
                "  classDef {class} {style}\n  class {} {class}",
                members.join(",")
            );
        }
    }
    out
}

/// Styles that can be read on light and dark ground.
const CLASSES: [(&str, &str); 4] = [
    ("good", "stroke:#2da44e,stroke-width:2px"),
    ("bad", "stroke:#cf222e,stroke-width:2px"),
    ("busy", "stroke:#0969da,stroke-width:2px"),
    ("idle", "stroke-dasharray:4"),
];

fn class_of(stage: &Node) -> Option<&'static str> {
    match stage.state {
        None if stage.needed => None,
        None | Some(StageState::Skipped | StageState::Cancelled) => Some("idle"),
        Some(StageState::Succeeded | StageState::Cached) => Some("good"),
        Some(StageState::Failed) => Some("bad"),
        Some(StageState::Starting | StageState::Running) => Some("busy"),
        Some(StageState::Waiting) => None,
    }
}

fn declare(place: usize, stage: &Node) -> String {
    let mut label = escape(&stage.name);
    let below: Vec<String> = [
        stage.base.clone().map(|base| format!("from {base}")),
        stage.needed.then(|| count(stage.steps)),
        stage.state.map(word),
        (!stage.needed && stage.state.is_none()).then(|| "not needed".to_owned()),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !below.is_empty() {
        let _ = write!(label, "<br/>{}", escape(&below.join(", ")));
    }
    // The image has round ends.
    if stage.result {
        format!("s{place}([\"{label}\"])")
    } else {
        format!("s{place}[\"{label}\"]")
    }
}

/// Text within quotes: Mermaid has entities of its own, with `#` in the place of `&`.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        match character {
            '"' => out.push_str("#quot;"),
            '#' => out.push_str("#35;"),
            '<' => out.push_str("#lt;"),
            '>' => out.push_str("#gt;"),
            '&' => out.push_str("#amp;"),
            other => out.push(other),
        }
    }
    out
}
