//! Build checks, by BuildKit's names.
//!
//! Three kinds, by what they need:
//! * the file alone, all stages: [`check`];
//! * the file alone, but only for stages that are built: [`check_stage`];
//! * the state of a stage (its environment, its base): one function each, in [`rules`], called by planning.
//!
//! All of them ask the [`LintConfig`] and the comment above the instruction whether they may speak.

use serde::{Deserialize, Serialize};

use crate::{
    ast::{Dockerfile, Span, Stage},
    diagnostic::Diagnostic,
};

mod config;
pub mod rules;
mod syntax;
#[cfg(test)]
mod tests;

pub use config::LintConfig;

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

impl Rule {
    /// All checks.
    pub const ALL: [Self; 22] = [
        Self::StageNameCasing,
        Self::FromAsCasing,
        Self::NoEmptyContinuation,
        Self::ConsistentInstructionCasing,
        Self::DuplicateStageName,
        Self::ReservedStageName,
        Self::JSONArgsRecommended,
        Self::MaintainerDeprecated,
        Self::UndefinedArgInFrom,
        Self::WorkdirRelativePath,
        Self::UndefinedVar,
        Self::MultipleInstructionsDisallowed,
        Self::LegacyKeyValueFormat,
        Self::InvalidBaseImagePlatform,
        Self::RedundantTargetPlatform,
        Self::SecretsUsedInArgOrEnv,
        Self::InvalidDefaultArgInFrom,
        Self::FromPlatformFlagConstDisallowed,
        Self::CopyIgnoredFile,
        Self::InvalidDefinitionDescription,
        Self::ExposeProtoCasing,
        Self::ExposeInvalidFormat,
    ];

    /// The name that `skip=` takes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::StageNameCasing => "StageNameCasing",
            Self::FromAsCasing => "FromAsCasing",
            Self::NoEmptyContinuation => "NoEmptyContinuation",
            Self::ConsistentInstructionCasing => "ConsistentInstructionCasing",
            Self::DuplicateStageName => "DuplicateStageName",
            Self::ReservedStageName => "ReservedStageName",
            Self::JSONArgsRecommended => "JSONArgsRecommended",
            Self::MaintainerDeprecated => "MaintainerDeprecated",
            Self::UndefinedArgInFrom => "UndefinedArgInFrom",
            Self::WorkdirRelativePath => "WorkdirRelativePath",
            Self::UndefinedVar => "UndefinedVar",
            Self::MultipleInstructionsDisallowed => "MultipleInstructionsDisallowed",
            Self::LegacyKeyValueFormat => "LegacyKeyValueFormat",
            Self::InvalidBaseImagePlatform => "InvalidBaseImagePlatform",
            Self::RedundantTargetPlatform => "RedundantTargetPlatform",
            Self::SecretsUsedInArgOrEnv => "SecretsUsedInArgOrEnv",
            Self::InvalidDefaultArgInFrom => "InvalidDefaultArgInFrom",
            Self::FromPlatformFlagConstDisallowed => "FromPlatformFlagConstDisallowed",
            Self::CopyIgnoredFile => "CopyIgnoredFile",
            Self::InvalidDefinitionDescription => "InvalidDefinitionDescription",
            Self::ExposeProtoCasing => "ExposeProtoCasing",
            Self::ExposeInvalidFormat => "ExposeInvalidFormat",
        }
    }

    /// What is wrong with what it finds, in one sentence.
    pub const fn description(self) -> &'static str {
        match self {
            Self::StageNameCasing => "Stage names are compared without case, so they should be lower-case.",
            Self::FromAsCasing => "AS should be written in the same case as FROM.",
            Self::NoEmptyContinuation => "A continued instruction should not have blank lines in it.",
            Self::ConsistentInstructionCasing => "All keywords of a file should be written in one case.",
            Self::DuplicateStageName => "A stage that shares its name hides the earlier one.",
            Self::ReservedStageName => "`scratch` and `context` have a meaning of their own.",
            Self::JSONArgsRecommended => "A process started through a shell does not receive signals.",
            Self::MaintainerDeprecated => {
                "MAINTAINER is out of use; the label org.opencontainers.image.authors says the same."
            }
            Self::UndefinedArgInFrom => "FROM sees only ARGs in front of the first FROM.",
            Self::WorkdirRelativePath => "A relative first WORKDIR depends on what the base image has set.",
            Self::UndefinedVar => "A variable that is not set expands to nothing.",
            Self::MultipleInstructionsDisallowed => "Only the last of these has an effect.",
            Self::LegacyKeyValueFormat => "`KEY value` is the old form; `KEY=value` can hold several pairs.",
            Self::InvalidBaseImagePlatform => "The base image is for another platform than the build.",
            Self::RedundantTargetPlatform => "The target platform is what FROM takes anyway.",
            Self::SecretsUsedInArgOrEnv => "ARG and ENV values can be read by everyone who has the image.",
            Self::InvalidDefaultArgInFrom => "Without a build argument the base image has no valid name.",
            Self::FromPlatformFlagConstDisallowed => {
                "A fixed platform keeps the file from building for others."
            }
            Self::CopyIgnoredFile => "A file that .dockerignore excludes cannot be copied.",
            Self::InvalidDefinitionDescription => {
                "A comment above FROM or ARG is its description when it begins with its name."
            }
            Self::ExposeProtoCasing => "Protocols are written in lower case.",
            Self::ExposeInvalidFormat => "EXPOSE names ports of the container only.",
        }
    }

    /// Whether it runs only when it is asked for.
    pub const fn is_experimental(self) -> bool {
        matches!(self, Self::InvalidDefinitionDescription)
    }

    /// The check's page, if it has one.
    pub fn url(self) -> Option<String> {
        if self == Self::InvalidBaseImagePlatform {
            return None;
        }
        let mut slug = String::new();
        let mut previous = '-';
        let name = self.name().replace("JSON", "Json");
        for c in name.chars() {
            if c.is_ascii_uppercase() && previous != '-' {
                slug.push('-');
            }
            slug.push(c.to_ascii_lowercase());
            previous = c;
        }
        Some(format!("https://docs.docker.com/go/dockerfile/rule/{slug}/"))
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
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

impl Warning {
    fn new(rule: Rule, span: Span, detail: String) -> Self {
        Self {
            rule,
            line: span.first_line,
            span,
            detail,
            url: rule.url(),
        }
    }

    /// As a diagnostic, with the lines of the source.
    pub fn diagnostic(&self, dockerfile: &Dockerfile) -> Diagnostic {
        let mut diagnostic = Diagnostic::warning(self.rule.name(), &self.detail)
            .at(&dockerfile.name, &dockerfile.source, self.span)
            .advise(self.rule.description());
        diagnostic.url.clone_from(&self.url);
        diagnostic
    }
}

/// The error of a build whose checks may not find anything (`error=true`): `None` when they have not.
pub fn violation(config: &LintConfig, warnings: &[Warning]) -> Option<Diagnostic> {
    if !config.error || warnings.is_empty() {
        return None;
    }
    let rules: std::collections::BTreeSet<&str> =
        warnings.iter().map(|warning| warning.rule.name()).collect();
    let rules: Vec<&str> = rules.into_iter().collect();
    let message = format!("lint violation found for rules: {}", rules.join(", "));
    Some(Diagnostic::error("lint", message).advise(
        "correct the warnings, or skip a check with a comment `# check=skip=Rule` above its instruction",
    ))
}

/// Runs the checks that need only the file and look at all of it.
pub fn check(dockerfile: &Dockerfile, config: &LintConfig) -> Vec<Warning> {
    let mut warnings = syntax::file(dockerfile, config);
    warnings.sort_by_key(|warning| warning.span.start);
    warnings
}

/// Runs the checks of one stage that need only the file. `shell_is_set` says whether the stage's base (an image or an
/// earlier stage) has set a `SHELL`.
pub fn check_stage(stage: &Stage, config: &LintConfig, shell_is_set: bool) -> Vec<Warning> {
    let mut warnings = syntax::stage(stage, config, shell_is_set);
    warnings.sort_by_key(|warning| warning.span.start);
    warnings
}
