//! What steps read: which part of which source. For content digests, and to publish only what is needed of a context.

use crate::{
    model::{BuildPlan, Mount, Op, StagePlan, Step},
    source::Source,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A part of a source that something reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// Where.
    pub source: Source,
    /// What of it.
    pub selection: Selection,
}

/// A part of a source. A directory means all that is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Selection {
    /// Absolute path; `/` is all of it.
    pub path: String,
    /// `path` may have `*`, `?` and `[…]`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wildcard: bool,
    /// Only what matches this below `path`, `**` for any number of levels (`--parents`). The names of the directories
    /// between `path` and a match count too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include: Option<String>,
    /// Not what matches these ignore patterns, relative to each selected directory; selected files are not filtered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// If `path` is a symbolic link, what it points to is read (and has to be published with it).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follow: bool,
}

impl Selection {
    /// All of a source.
    pub fn all() -> Self {
        Self {
            path: "/".to_owned(),
            ..Self::default()
        }
    }
}

impl Step {
    /// What the step reads, in the order in which it names it. Nothing for inline files, which are in the plan itself.
    pub fn inputs(&self) -> Vec<Input> {
        let mut inputs: Vec<Input> = Vec::new();
        match &self.op {
            Op::Metadata | Op::Mkdir(_) => {}
            Op::Copy(copy) => inputs.extend(copy.sources.iter().map(|source| Input {
                source: source.source.clone(),
                selection: Selection {
                    path: source.path.clone(),
                    wildcard: source.wildcard,
                    include: source.include.clone(),
                    exclude: copy.exclude.clone(),
                    follow: source.follow,
                },
            })),
            Op::Run(run) => inputs.extend(run.mounts.iter().filter_map(|mount| match mount {
                Mount::Bind { source, path, .. } | Mount::Cache { source, path, .. } => Some(Input {
                    source: source.clone(),
                    selection: Selection {
                        path: path.clone(),
                        follow: true,
                        ..Selection::default()
                    },
                }),
                Mount::Tmpfs { .. } | Mount::Secret { .. } | Mount::Ssh { .. } => None,
            })),
        }
        inputs.retain(|input| !matches!(input.source, Source::Inline(_) | Source::Scratch));
        inputs
    }

    /// The stages that the step reads from.
    pub fn stages(&self) -> BTreeSet<usize> {
        self.inputs()
            .into_iter()
            .filter_map(|input| match input.source {
                Source::Stage(stage) => Some(stage),
                _ => None,
            })
            .collect()
    }
}

impl StagePlan {
    /// What the stage starts from, as an input; nothing for a base that is a stage, an image or nothing.
    pub fn base_input(&self) -> Option<Input> {
        match &self.base {
            Source::Scratch | Source::Stage(_) | Source::Image(_) | Source::Inline(_) => None,
            source => Some(Input {
                source: source.clone(),
                selection: Selection::all(),
            }),
        }
    }

    /// All that the stage reads: its base's files where they are no image, and what its steps read.
    pub fn inputs(&self) -> impl Iterator<Item = Input> + '_ {
        self.base_input()
            .into_iter()
            .chain(self.steps.iter().flat_map(Step::inputs))
    }
}

/// What the needed stages can read of the build context ([`Source::Context`]) and of named local contexts
/// ([`Source::Named`]). Selections within another one of the same source are left out.
pub fn context_needs(plan: &BuildPlan) -> BTreeMap<Source, Vec<Selection>> {
    let mut needs: BTreeMap<Source, BTreeSet<Selection>> = BTreeMap::new();
    for input in plan.stages.iter().flat_map(StagePlan::inputs) {
        if matches!(input.source, Source::Context | Source::Named(_)) {
            needs.entry(input.source).or_default().insert(input.selection);
        }
    }
    needs
        .into_iter()
        .map(|(source, selections)| {
            let kept = selections
                .iter()
                .filter(|inner| {
                    !selections
                        .iter()
                        .any(|outer| outer != *inner && covers(outer, inner))
                })
                .cloned()
                .collect();
            (source, kept)
        })
        .collect()
}

/// Whether `outer` is a plain directory or file that `inner` lies in.
fn covers(outer: &Selection, inner: &Selection) -> bool {
    let plain = !outer.wildcard && outer.include.is_none() && outer.exclude.is_empty();
    let same = outer.path == inner.path;
    let below = inner
        .path
        .strip_prefix(outer.path.trim_end_matches('/'))
        .is_some_and(|rest| rest.starts_with('/') || outer.path == "/");
    // A link outside of `outer` would be followed to somewhere else, so only what stays below counts.
    plain && (outer.follow || !inner.follow || outer.path == "/") && (same || below)
}
