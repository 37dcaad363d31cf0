//! The graph for Graphviz.

use super::{Graph, Node, count, word};
use slipway_crd::StageState;
use std::fmt::Write as _;

/// The text, with a line end.
pub fn dot(graph: &Graph) -> String {
    let mut out = String::from(
        "digraph build {\n  rankdir=LR;\n  node [shape=box, style=rounded, fontname=\"sans-serif\"];\n  edge [fontname=\"sans-serif\", fontsize=10];\n",
    );
    let platforms = graph.platforms();
    if platforms.len() > 1 {
        for (number, platform) in platforms.iter().enumerate() {
            let _ = writeln!(
                out,
                "  subgraph cluster_{number} {{\n    label=\"{}\";",
                escape(platform)
            );
            for (place, stage) in graph.stages.iter().enumerate() {
                if stage.platform.as_deref() == Some(*platform) {
                    let _ = writeln!(out, "    {}", declare(place, stage));
                }
            }
            out.push_str("  }\n");
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
                by => format!(" [label=\"{}\"]", by.join(", ")),
            };
            let _ = writeln!(out, "  s{} -> s{place}{label};", edge.stage);
        }
    }
    out.push_str("}\n");
    out
}

fn declare(place: usize, stage: &Node) -> String {
    let mut label = escape(&stage.name);
    if let Some(base) = &stage.base {
        let _ = write!(label, "\\nfrom {}", escape(base));
    }
    if stage.needed {
        let _ = write!(label, "\\n{}", count(stage.steps));
    }
    if let Some(state) = stage.state {
        let _ = write!(label, "\\n{}", word(state));
    }
    let mut attributes = format!("label=\"{label}\"");
    if stage.result {
        attributes.push_str(", peripheries=2");
    }
    let colour = match stage.state {
        Some(StageState::Succeeded | StageState::Cached) => Some("#2da44e"),
        Some(StageState::Failed) => Some("#cf222e"),
        Some(StageState::Starting | StageState::Running) => Some("#0969da"),
        _ => None,
    };
    if let Some(colour) = colour {
        let _ = write!(attributes, ", color=\"{colour}\"");
    }
    if !stage.needed {
        attributes.push_str(", style=\"rounded,dashed\"");
    }
    format!("s{place} [{attributes}];")
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}
