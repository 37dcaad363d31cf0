//! Checks that need to know what a stage knows. Planning calls them at the place where it has the facts.

use super::{LintConfig, Rule, Warning};
use crate::{
    ast::{Instruction, InstructionKind, Stage},
    distance,
    expand::Expansion,
    ignore::Matcher,
    paths,
    ports::Spec,
};

/// A finding at an instruction, if the check may speak there.
pub fn report(
    config: &LintConfig,
    rule: Rule,
    instruction: &Instruction,
    detail: impl Into<String>,
) -> Option<Warning> {
    let enabled = config.enabled_at(rule, &instruction.comments);
    enabled.then(|| Warning::new(rule, instruction.span, detail.into()))
}

/// A finding at a `FROM`, if the check may speak there.
pub fn report_from(
    config: &LintConfig,
    rule: Rule,
    stage: &Stage,
    detail: impl Into<String>,
) -> Option<Warning> {
    let enabled = config.enabled_at(rule, &stage.comments);
    enabled.then(|| Warning::new(rule, stage.span, detail.into()))
}

/// `UndefinedVar`: an instruction expanded a variable that is not set. `known` are the names that are.
pub fn undefined_var<'a>(
    config: &LintConfig,
    instruction: &Instruction,
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<Warning> {
    // These are for the builder and are not in the environment.
    if matches!(name, "BUILDKIT_SBOM_SCAN_CONTEXT" | "BUILDKIT_SBOM_SCAN_STAGE") {
        return None;
    }
    let near = distance::closest(name, known).map(|near| format!(" (did you mean ${near}?)"));
    let detail = format!(
        "Usage of undefined variable '${name}'{}",
        near.unwrap_or_default()
    );
    report(config, Rule::UndefinedVar, instruction, detail)
}

/// `UndefinedArgInFrom`: base or platform of a `FROM` uses a variable that no global `ARG` declares. `known` are the
/// names of the global and the platform arguments.
pub fn undefined_arg_in_from<'a>(
    config: &LintConfig,
    stage: &Stage,
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<Warning> {
    let near = distance::suggestion(distance::closest(name, known));
    let detail = format!("FROM argument '{name}' is not declared{near}");
    report_from(config, Rule::UndefinedArgInFrom, stage, detail)
}

/// `InvalidDefaultArgInFrom`: with the defaults of the global arguments alone the base has no valid name. The caller
/// has tried that.
pub fn invalid_default_arg_in_from(config: &LintConfig, stage: &Stage) -> Option<Warning> {
    let base = &stage.base.text;
    let detail = format!("Default value for ARG {base} results in empty or invalid base image name");
    report_from(config, Rule::InvalidDefaultArgInFrom, stage, detail)
}

/// `RedundantTargetPlatform`: `--platform` is just the target platform. `expansion` is what `--platform` expanded to,
/// `target` the value of `TARGETPLATFORM`.
pub fn redundant_target_platform(
    config: &LintConfig,
    stage: &Stage,
    expansion: &Expansion,
    target: &str,
) -> Option<Warning> {
    let platform = stage.platform.as_ref()?;
    let only_target = expansion.unmatched.is_empty()
        && expansion.matched.len() == 1
        && expansion.matched.contains("TARGETPLATFORM")
        && expansion.text == target;
    if !only_target {
        return None;
    }
    let detail = format!(
        "Setting platform to predefined {} in FROM is redundant as this is the default behavior",
        platform.text
    );
    report_from(config, Rule::RedundantTargetPlatform, stage, detail)
}

/// `FromPlatformFlagConstDisallowed`: `--platform` has no variable in it, and the stage's name does not say that the
/// stage is for that platform. `os` and `architecture` are the parts of the platform, which the caller has parsed.
pub fn from_platform_const(
    config: &LintConfig,
    stage: &Stage,
    expansion: &Expansion,
    os: &str,
    architecture: &str,
) -> Option<Warning> {
    if !expansion.matched.is_empty() || !expansion.unmatched.is_empty() {
        return None;
    }
    let name = stage.name.as_deref().unwrap_or_default();
    if name.contains(os) || name.contains(architecture) {
        return None;
    }
    let detail = format!(
        "FROM --platform flag should not use constant value {:?}",
        expansion.text
    );
    report_from(config, Rule::FromPlatformFlagConstDisallowed, stage, detail)
}

/// `InvalidBaseImagePlatform`: the base that was found is for another platform than the stage.
pub fn invalid_base_image_platform(
    config: &LintConfig,
    stage: &Stage,
    image: &str,
    got: &str,
    want: &str,
) -> Option<Warning> {
    let detail =
        format!("Base image {image} was pulled with platform {got:?}, expected {want:?} for current build");
    report_from(config, Rule::InvalidBaseImagePlatform, stage, detail)
}

/// `WorkdirRelativePath`: `path` is the expanded path; `workdir_is_set` says whether a `WORKDIR` came before it, in the
/// stage or in a stage below it.
pub fn workdir_relative(
    config: &LintConfig,
    instruction: &Instruction,
    path: &str,
    workdir_is_set: bool,
) -> Option<Warning> {
    if workdir_is_set || path.starts_with('/') {
        return None;
    }
    let detail = format!("Relative workdir {path:?} can have unexpected results if the base image changes");
    report(config, Rule::WorkdirRelativePath, instruction, detail)
}

/// `ExposeProtoCasing` and `ExposeInvalidFormat` of one expanded word of `EXPOSE`.
pub fn expose(config: &LintConfig, instruction: &Instruction, word: &str) -> Vec<Warning> {
    let spec = Spec::split(word);
    let mut found = Vec::new();
    if spec.protocol != spec.protocol.to_lowercase() {
        let detail = format!("Defined protocol '{word}' in EXPOSE instruction should be lowercase");
        found.extend(report(config, Rule::ExposeProtoCasing, instruction, detail));
    }
    if spec.is_mapping() {
        let detail = format!(
            "EXPOSE instruction should not define an IP address or host-port mapping, found '{word}'"
        );
        found.extend(report(config, Rule::ExposeInvalidFormat, instruction, detail));
    }
    found
}

/// `CopyIgnoredFile` of one expanded source of a `COPY` or `ADD` from the context. Sources with wildcards are for the
/// caller to leave out, and so are those of `--from`. With `!` patterns nothing can be said before the files are known.
pub fn copy_ignored(
    config: &LintConfig,
    instruction: &Instruction,
    source: &str,
    ignored: &Matcher,
) -> Option<Warning> {
    if ignored.is_empty() || ignored.has_exceptions() {
        return None;
    }
    let source = paths::clean(source);
    let relative = source.trim_start_matches('/');
    let excluded = match relative {
        // The whole context is excluded when every name would be.
        "" | "." => ignored.matches_everything(),
        path => ignored.matches(path),
    };
    // A pattern that cannot be matched is an error elsewhere.
    if !excluded.unwrap_or(false) {
        return None;
    }
    let verb = if matches!(instruction.kind, InstructionKind::Add(_)) {
        "Add"
    } else {
        "Copy"
    };
    let detail = format!("Attempting to {verb} file {source:?} that is excluded by .dockerignore");
    report(config, Rule::CopyIgnoredFile, instruction, detail)
}

/// `LegacyKeyValueFormat`: `ENV` or `LABEL` in the form `KEY value`.
pub fn legacy_key_value(config: &LintConfig, instruction: &Instruction) -> Option<Warning> {
    let (InstructionKind::Env(pairs) | InstructionKind::Label(pairs)) = &instruction.kind else {
        return None;
    };
    if !pairs.iter().any(|pair| pair.legacy) {
        return None;
    }
    let name = &instruction.keyword;
    let detail = format!("\"{name} key=value\" should be used instead of legacy \"{name} key value\" format");
    report(config, Rule::LegacyKeyValueFormat, instruction, detail)
}

/// `SecretsUsedInArgOrEnv`: a name of `ARG` or `ENV` that looks like a credential's. A name that holds variables is
/// judged when it is known, by [`secret_name`].
pub fn secrets(config: &LintConfig, instruction: &Instruction) -> Vec<Warning> {
    let names: Vec<&str> = match &instruction.kind {
        InstructionKind::Arg(args) => args.iter().map(|arg| arg.name.text.as_str()).collect(),
        InstructionKind::Env(pairs) => pairs.iter().map(|pair| pair.key.text.as_str()).collect(),
        _ => return Vec::new(),
    };
    names
        .into_iter()
        .filter(|name| !name.contains('$'))
        .filter_map(|name| secret_name(config, instruction, name))
        .collect()
}

/// `SecretsUsedInArgOrEnv` for one name that an instruction sets.
pub fn secret_name(config: &LintConfig, instruction: &Instruction, name: &str) -> Option<Warning> {
    if !is_secret_name(name) {
        return None;
    }
    let detail = format!(
        "Do not use ARG or ENV instructions for sensitive data ({} {name:?})",
        instruction.keyword.to_uppercase()
    );
    report(config, Rule::SecretsUsedInArgOrEnv, instruction, detail)
}

/// Parts of a name, between underscores, that say what it holds.
const SECRET: [&str; 10] = [
    "apikey",
    "auth",
    "credential",
    "credentials",
    "key",
    "passwd",
    "password",
    "pword",
    "secret",
    "token",
];

/// Parts that say it holds something about a secret, but not the secret.
const HARMLESS: [&str; 3] = ["public", "file", "version"];

fn is_secret_name(name: &str) -> bool {
    let name = name.to_lowercase();
    let has = |words: &[&str]| name.split('_').any(|part| words.contains(&part));
    has(&SECRET) && !has(&HARMLESS)
}
