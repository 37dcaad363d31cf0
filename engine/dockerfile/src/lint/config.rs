//! Which checks run.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Rule;
use crate::{ast::Dockerfile, units};

/// Which checks run and what a finding does: `# check=skip=A,B;error=true;experimental=C`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LintConfig {
    /// Checks by name that do not run.
    pub skip: BTreeSet<String>,
    /// No check runs.
    pub skip_all: bool,
    /// Experimental checks by name that run.
    pub experimental: BTreeSet<String>,
    /// All experimental checks run.
    pub experimental_all: bool,
    /// A finding fails the build.
    pub error: bool,
}

impl LintConfig {
    /// Reads `skip=…;error=…;experimental=…`. The error is a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut config = Self::default();
        let text = text.trim();
        if text.is_empty() {
            return Ok(config);
        }
        for option in text.split(';') {
            let (key, value) = option
                .split_once('=')
                .ok_or_else(|| format!("invalid check option {option:?}"))?;
            let value = value.trim();
            match key.trim() {
                "skip" if value == "all" => config.skip_all = true,
                "skip" => config.skip = names(value),
                "experimental" if value == "all" => config.experimental_all = true,
                "experimental" => config.experimental = names(value),
                "error" => {
                    let parsed = units::boolean(value);
                    config.error =
                        parsed.ok_or_else(|| format!("failed to parse check option {option:?}"))?;
                }
                key => return Err(format!("invalid check option {key:?}")),
            }
        }
        Ok(config)
    }

    /// The configuration of a file: its `check` directive, replaced by the build argument `BUILDKIT_DOCKERFILE_CHECK`
    /// when that is given.
    pub fn of(dockerfile: &Dockerfile, build_arg: Option<&str>) -> Result<Self, String> {
        match (build_arg, dockerfile.directive("check")) {
            (Some(text), _) => Self::parse(text),
            (None, Some(directive)) => Self::parse(&directive.value),
            (None, None) => Ok(Self::default()),
        }
    }

    /// This configuration with what `# check=skip=…` in the comment above an instruction takes away.
    #[must_use]
    pub fn for_comments(&self, comments: &[String]) -> Self {
        let mut config = self.clone();
        for comment in comments {
            let Some(text) = comment.trim().strip_prefix("check=") else {
                continue;
            };
            // A comment that cannot be read is a comment.
            let Ok(local) = Self::parse(text) else { continue };
            config.skip.extend(local.skip);
            config.skip_all |= local.skip_all;
            config.experimental.extend(local.experimental);
            config.experimental_all |= local.experimental_all;
        }
        config
    }

    /// Whether a check runs.
    pub fn enabled(&self, rule: Rule) -> bool {
        if rule.is_experimental() {
            return self.experimental_all || self.experimental.contains(rule.name());
        }
        !self.skip_all && !self.skip.contains(rule.name())
    }

    /// Whether a check runs for what stands below these comments.
    pub(super) fn enabled_at(&self, rule: Rule, comments: &[String]) -> bool {
        self.enabled(rule) && (comments.is_empty() || self.for_comments(comments).enabled(rule))
            || (rule.is_experimental() && self.for_comments(comments).enabled(rule))
    }
}

fn names(text: &str) -> BTreeSet<String> {
    text.split(',').map(|name| name.trim().to_owned()).collect()
}
