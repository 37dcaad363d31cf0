//! The graph of stages, of a plan or of an ImageBuild, and what it is written as.
//!
//! ```text
//!  BuildPlan  (local Dockerfile) ─┐           ┌─ text     a tree for people
//!                                 ├─▶ Graph ──┼─ mermaid  for Markdown
//!  status.stages (ImageBuild) ────┘           └─ dot      for Graphviz
//! ```

mod dot;
mod mermaid;
mod text;

pub use dot::dot;
pub use mermaid::mermaid;
pub use text::text;

use serde::Serialize;
use slipway_crd::{ImageBuild, StageState};
use slipway_dockerfile::Dockerfile;
use slipway_plan::{BuildPlan, Op, Source, StagePlan, Step};

/// Stages and what they read from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Graph {
    /// The stages, each after those that it reads from; stages that the target does not need are last.
    pub stages: Vec<Node>,
}

/// A stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Its name in the Dockerfile, or `stage-N`.
    pub name: String,
    /// Its platform; none for a stage that is not needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The image that it starts from, if that is no stage; known for a local Dockerfile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Instructions that make a layer.
    pub steps: u32,
    /// How far it is, for an ImageBuild.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<StageState>,
    /// What it reads from.
    pub needs: Vec<Edge>,
    /// It is the image, of its platform.
    pub result: bool,
    /// The target needs it.
    pub needed: bool,
}

/// That a stage reads from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Edge {
    /// Place of the other stage.
    pub stage: usize,
    /// How, in the Dockerfile's words: `FROM`, `COPY`, `RUN`; empty where only the status is known.
    pub by: Vec<&'static str>,
}

impl Graph {
    /// The graph of an ImageBuild, as its status has it.
    pub fn of_build(build: &ImageBuild) -> Self {
        let rows = build
            .status
            .as_ref()
            .map(|status| status.stages.as_slice())
            .unwrap_or_default();
        let place = |id: &String| rows.iter().position(|row| row.id == *id);
        let is_read = |id: &str| rows.iter().any(|row| row.needs.iter().any(|need| need == id));
        let stages = rows
            .iter()
            .map(|row| Node {
                name: row.name.clone(),
                platform: Some(row.platform.clone()),
                base: None,
                steps: row.steps.total,
                state: Some(row.state),
                needs: row
                    .needs
                    .iter()
                    .filter_map(place)
                    .map(|stage| Edge {
                        stage,
                        by: Vec::new(),
                    })
                    .collect(),
                result: !is_read(&row.id) && row.state != StageState::Skipped,
                needed: row.state != StageState::Skipped,
            })
            .collect();
        Self { stages }
    }

    /// The graph of a plan, with the stages of its Dockerfile that the plan does without.
    pub fn of_plan(plan: &BuildPlan, dockerfile: &Dockerfile) -> Self {
        let mut stages: Vec<Node> = plan.stages.iter().map(node).collect();
        for result in &plan.results {
            if let Some(stage) = stages.get_mut(result.stage) {
                stage.result = true;
            }
        }
        for (index, target) in slipway_plan::targets(dockerfile).into_iter().enumerate() {
            if !plan.stages.iter().any(|stage| stage.index == index) {
                stages.push(Node {
                    name: if target.name.is_empty() {
                        format!("stage-{index}")
                    } else {
                        target.name
                    },
                    platform: None,
                    base: None,
                    steps: 0,
                    state: None,
                    needs: Vec::new(),
                    result: false,
                    needed: false,
                });
            }
        }
        Self { stages }
    }

    /// Whether a stage's name alone does not tell which it is.
    fn has_platforms(&self) -> bool {
        let mut platforms = self.stages.iter().filter_map(|stage| stage.platform.as_ref());
        let first = platforms.next();
        platforms.any(|platform| Some(platform) != first)
    }

    /// The different platforms, in the order in which they come.
    fn platforms(&self) -> Vec<&str> {
        let mut platforms: Vec<&str> = Vec::new();
        for platform in self.stages.iter().filter_map(|stage| stage.platform.as_deref()) {
            if !platforms.contains(&platform) {
                platforms.push(platform);
            }
        }
        platforms
    }
}

fn node(stage: &StagePlan) -> Node {
    let mut needs: Vec<Edge> = Vec::new();
    let mut read = |source: &Source, by: &'static str| {
        let Source::Stage(stage) = source else { return };
        match needs.iter_mut().find(|edge| edge.stage == *stage) {
            Some(edge) if edge.by.contains(&by) => {}
            Some(edge) => edge.by.push(by),
            None => needs.push(Edge {
                stage: *stage,
                by: vec![by],
            }),
        }
    };
    read(&stage.base, "FROM");
    for step in &stage.steps {
        let by = match &step.op {
            Op::Run(_) => "RUN",
            _ => "COPY",
        };
        for input in step.inputs() {
            read(&input.source, by);
        }
    }
    let steps = stage.steps.iter().filter(|step| Step::makes_layer(step)).count();
    Node {
        name: stage.name.clone(),
        platform: Some(stage.platform.to_string()),
        base: match &stage.base {
            Source::Scratch => Some("scratch".to_owned()),
            Source::Image(image) => Some(named(&image.reference)),
            _ => None,
        },
        steps: u32::try_from(steps).unwrap_or(u32::MAX),
        state: None,
        needs,
        result: false,
        needed: true,
    }
}

/// An image's name as people write it: without the digest, and without what Docker Hub's names are completed with.
fn named(reference: &slipway_oci::Reference) -> String {
    let text = reference.to_string();
    let text = text.split_once('@').map_or(text.as_str(), |(name, _)| name);
    let text = text.strip_prefix("docker.io/").unwrap_or(text);
    text.strip_prefix("library/").unwrap_or(text).to_owned()
}

/// `3 steps`.
fn count(steps: u32) -> String {
    match steps {
        1 => "1 step".to_owned(),
        n => format!("{n} steps"),
    }
}

/// A state's word in lower case.
fn word(state: StageState) -> String {
    format!("{state:?}").to_lowercase()
}

#[cfg(test)]
mod tests;
