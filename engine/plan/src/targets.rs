//! The stages that can be built (`--call targets`).

use serde::{Deserialize, Serialize};
use slipway_dockerfile::Dockerfile;

/// A stage that can be built.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Its name, empty if it has none.
    pub name: String,
    /// What the comment above its `FROM` says.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// It is built when no target is named.
    pub default: bool,
    /// What it starts from, as written.
    pub base: String,
    /// `--platform`, as written.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub platform: String,
    /// Where its `FROM` stands, from 1.
    pub line: u32,
}

/// The stages of a Dockerfile, in its order.
pub fn targets(dockerfile: &Dockerfile) -> Vec<Target> {
    let last = dockerfile.stages.len().wrapping_sub(1);
    dockerfile
        .stages
        .iter()
        .enumerate()
        .map(|(index, stage)| Target {
            name: stage.name.clone().unwrap_or_default(),
            description: stage.doc.clone(),
            default: index == last,
            base: stage.base.text.clone(),
            platform: stage
                .platform
                .as_ref()
                .map(|word| word.text.clone())
                .unwrap_or_default(),
            line: stage.span.first_line,
        })
        .collect()
}
