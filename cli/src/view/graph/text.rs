//! The graph as a tree for people: the image at the root, below each stage what it reads from.

use super::{Graph, count, word};
use crate::view::tree::symbol;
use slipway_engine::progress::{Line, Paint};
use std::collections::HashSet;

/// The lines.
pub fn text(graph: &Graph) -> Vec<Line> {
    let mut tree = Tree {
        graph,
        platforms: graph.has_platforms(),
        shown: HashSet::new(),
        lines: Vec::new(),
    };
    let read: HashSet<usize> = graph
        .stages
        .iter()
        .flat_map(|stage| stage.needs.iter().map(|edge| edge.stage))
        .collect();
    for (place, stage) in graph.stages.iter().enumerate() {
        if stage.needed && (stage.result || !read.contains(&place)) {
            tree.node(place, "", "", "");
        }
    }
    let unneeded = graph
        .stages
        .iter()
        .enumerate()
        .filter(|(place, stage)| !stage.needed && !tree.shown.contains(place));
    let names: Vec<&str> = unneeded.map(|(_, stage)| stage.name.as_str()).collect();
    let mut lines = tree.lines;
    if !names.is_empty() {
        lines.push(Line::new().with(Paint::Faint, format!("not needed: {}", names.join(", "))));
    }
    lines
}

struct Tree<'a> {
    graph: &'a Graph,
    platforms: bool,
    shown: HashSet<usize>,
    lines: Vec<Line>,
}

impl Tree<'_> {
    fn node(&mut self, place: usize, branch: &str, below: &str, by: &str) {
        let Some(stage) = self.graph.stages.get(place) else {
            return;
        };
        let mut line = Line::new().with(Paint::Faint, branch);
        if let Some(state) = stage.state {
            let (paint, symbol) = symbol(state);
            line.push(paint, format!("{symbol} "));
        }
        line.push(Paint::Strong, &stage.name);
        if let Some(platform) = stage.platform.as_ref().filter(|_| self.platforms) {
            line.push(Paint::Faint, format!(" {platform}"));
        }
        if !by.is_empty() {
            line.push(Paint::Faint, format!("  by {by}"));
        }
        if !self.shown.insert(place) {
            line.push(Paint::Faint, "  (above)");
            return self.lines.push(line);
        }
        line.push(Paint::Plain, format!("  {}", count(stage.steps)));
        if let Some(state) = stage.state {
            line.push(Paint::Faint, format!(", {}", word(state)));
        }
        self.lines.push(line);
        let leaves = usize::from(stage.base.is_some());
        let children = stage.needs.len() + leaves;
        for (number, edge) in stage.needs.iter().enumerate() {
            let (branch, next) = arms(number + 1 == children);
            // A status from elsewhere must not make a circle.
            if edge.stage < place {
                let by = edge.by.join(", ");
                self.node(
                    edge.stage,
                    &format!("{below}{branch}"),
                    &format!("{below}{next}"),
                    &by,
                );
            }
        }
        if let Some(base) = &stage.base {
            let (branch, _) = arms(true);
            self.lines
                .push(Line::new().with(Paint::Faint, format!("{below}{branch}{base}")));
        }
    }
}

const fn arms(last: bool) -> (&'static str, &'static str) {
    if last {
        ("└─ ", "   ")
    } else {
        ("├─ ", "│  ")
    }
}
