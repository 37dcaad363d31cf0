//! Build checks, by BuildKit's names. The rules that need only the file run in [`check`]; those that need the state of
//! a stage are functions that planning calls when it gets there.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::ast::{Dockerfile, Instruction, Span};

/// A build check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "Rule::description says it")]
pub enum Rule {
    StageNameCasing,
    FromAsCasing,
    NoEmptyContinuation,
    ConsistentInstructionCasing,
    DuplicateStageName,
    ReservedStageName,
    JSONArgsRecommended,
    MaintainerDeprecated,
    UndefinedArgInFrom,
    WorkdirRelativePath,
    UndefinedVar,
    MultipleInstructionsDisallowed,
    LegacyKeyValueFormat,
    InvalidBaseImagePlatform,
    RedundantTargetPlatform,
    SecretsUsedInArgOrEnv,
    InvalidDefaultArgInFrom,
    FromPlatformFlagConstDisallowed,
    CopyIgnoredFile,
    InvalidDefinitionDescription,
    ExposeProtoCasing,
    ExposeInvalidFormat,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// The check.
    pub rule: Rule,
    /// The line it is reported for, from 1.
    pub line: u32,
    /// Where it is.
    pub span: Span,
    /// What was found.
    pub detail: String,
    /// The check's page, if it has one.
    pub url: Option<String>,
}

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
    /// Reads `skip=…;error=…;experimental=…`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let _ = text;
        Ok(Self::default())
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
        let _ = comments;
        self.clone()
    }

    /// Whether a check runs.
    pub fn enabled(&self, rule: Rule) -> bool {
        let _ = rule;
        !self.skip_all
    }
}

/// Runs the checks that need only the file.
pub fn check(dockerfile: &Dockerfile, config: &LintConfig) -> Vec<Warning> {
    let _ = (dockerfile, config);
    Vec::new()
}

/// `UndefinedVar`: an instruction used a variable that is not set. `known` are the names that are.
pub fn undefined_var<'a>(
    config: &LintConfig,
    instruction: &Instruction,
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<Warning> {
    let _ = (config, instruction, name, known.into_iter().next());
    None
}
