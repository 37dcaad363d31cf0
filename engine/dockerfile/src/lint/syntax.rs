//! The checks that need only the file.

use std::collections::BTreeSet;

use super::{LintConfig, Rule, Warning, rules};
use crate::ast::{CommandForm, Dockerfile, Instruction, InstructionKind, Stage};

/// Checks of the whole file.
pub(super) fn file(dockerfile: &Dockerfile, config: &LintConfig) -> Vec<Warning> {
    let mut found = Vec::new();
    for span in &dockerfile.empty_continuations {
        if config.enabled(Rule::NoEmptyContinuation) {
            let mut warning = Warning::new(
                Rule::NoEmptyContinuation,
                *span,
                "Empty continuation line".to_owned(),
            );
            // Reported where the instruction ends.
            warning.line = span.last_line;
            found.push(warning);
        }
    }
    for instruction in &dockerfile.global_args {
        found.extend(description_of_arg(config, instruction));
    }
    let mut names = BTreeSet::new();
    for stage in &dockerfile.stages {
        let mut report = |rule, detail: String| {
            if config.enabled_at(rule, &stage.comments) {
                found.push(Warning::new(rule, stage.span, detail));
            }
        };
        if let Some(name) = &stage.name_as_written
            && name.text != name.text.to_lowercase()
        {
            report(
                Rule::StageNameCasing,
                format!("Stage name '{}' should be lowercase", name.text),
            );
        }
        if let Some(keyword) = &stage.as_keyword
            && !same_case(&stage.keyword, keyword)
        {
            let detail = format!(
                "'{keyword}' and '{}' keywords' casing do not match",
                stage.keyword
            );
            report(Rule::FromAsCasing, detail);
        }
        if let Some(name) = &stage.name {
            if let Some(detail) = description("FROM", &[name], &stage.comments) {
                report(Rule::InvalidDefinitionDescription, detail);
            }
            if matches!(name.as_str(), "scratch" | "context") {
                let detail = format!("Stage name should not use the same name as reserved stage {name:?}");
                report(Rule::ReservedStageName, detail);
            }
            if !names.insert(name) {
                let detail = format!("Duplicate stage name {name:?}, stage names should be unique");
                report(Rule::DuplicateStageName, detail);
            }
        }
        for instruction in &stage.instructions {
            found.extend(description_of_arg(config, instruction));
            if matches!(instruction.kind, InstructionKind::Maintainer(_)) {
                let detail = "Maintainer instruction is deprecated in favor of using label";
                found.extend(rules::report(
                    config,
                    Rule::MaintainerDeprecated,
                    instruction,
                    detail,
                ));
            }
        }
    }
    found.extend(casing(dockerfile, config));
    found
}

/// Checks of one stage.
pub(super) fn stage(stage: &Stage, config: &LintConfig, shell_is_set: bool) -> Vec<Warning> {
    let mut found = Vec::new();
    let mut shell_is_set = shell_is_set;
    let mut last: [Option<&Instruction>; 3] = [None; 3];
    for instruction in &stage.instructions {
        let once = match &instruction.kind {
            InstructionKind::Cmd(_) => Some(0),
            InstructionKind::Entrypoint(_) => Some(1),
            InstructionKind::Healthcheck(_) => Some(2),
            _ => None,
        };
        if let Some(slot) = once
            && let Some(earlier) = last[slot].replace(instruction)
        {
            // The earlier one is reported, because it is the one without effect. Whether it may be is asked of the
            // comment above the later one, which is where the second one was written.
            let rule = Rule::MultipleInstructionsDisallowed;
            if config.enabled_at(rule, &instruction.comments) {
                let detail = format!(
                    "Multiple {} instructions should not be used in the same stage because only the last one will be used",
                    instruction.keyword
                );
                found.push(Warning::new(rule, earlier.span, detail));
            }
        }
        match &instruction.kind {
            InstructionKind::Shell(_) => shell_is_set = true,
            InstructionKind::Cmd(command) | InstructionKind::Entrypoint(command)
                if !shell_is_set && matches!(command.form, CommandForm::Shell(_)) =>
            {
                let detail = format!(
                    "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
                    instruction.keyword
                );
                found.extend(rules::report(
                    config,
                    Rule::JSONArgsRecommended,
                    instruction,
                    detail,
                ));
            }
            _ => {}
        }
        found.extend(rules::legacy_key_value(config, instruction));
        found.extend(rules::secrets(config, instruction));
    }
    found
}

/// `AS` has to be in the case of `FROM`, if that one has a case.
fn same_case(from: &str, keyword: &str) -> bool {
    match from {
        _ if from == from.to_lowercase() => keyword == keyword.to_lowercase(),
        _ if from == from.to_uppercase() => keyword == keyword.to_uppercase(),
        _ => true,
    }
}

fn description_of_arg(config: &LintConfig, instruction: &Instruction) -> Option<Warning> {
    let InstructionKind::Arg(args) = &instruction.kind else {
        return None;
    };
    let names: Vec<&str> = args.iter().map(|arg| arg.name.text.as_str()).collect();
    let detail = description("ARG", &names, &instruction.comments)?;
    rules::report(config, Rule::InvalidDefinitionDescription, instruction, detail)
}

/// The last line of the comment above has to begin with one of the names.
fn description(keyword: &str, names: &[impl AsRef<str>], comments: &[String]) -> Option<String> {
    let first = comments.last()?.split(' ').next()?;
    if names.iter().any(|name| name.as_ref() == first) {
        return None;
    }
    let example = match names {
        [] => return None,
        [name] => name.as_ref(),
        _ => "<arg_key>",
    };
    Some(format!(
        "Comment for {keyword} should follow the format: `# {example} <description>`"
    ))
}

/// Keywords are to be in the case that most of them have; upper on a tie.
fn casing(dockerfile: &Dockerfile, config: &LintConfig) -> Vec<Warning> {
    let keywords = dockerfile.stages.iter().flat_map(|stage| {
        let own = (&stage.keyword, stage.span, &stage.comments);
        let below = stage.instructions.iter();
        std::iter::once(own)
            .chain(below.map(|instruction| (&instruction.keyword, instruction.span, &instruction.comments)))
    });
    let (mut lower, mut upper) = (0, 0);
    for (keyword, ..) in keywords.clone() {
        lower += usize::from(*keyword == keyword.to_lowercase());
        upper += usize::from(*keyword == keyword.to_uppercase());
    }
    let (majority, fold): (_, fn(&str) -> String) = if lower > upper {
        ("lowercase", str::to_lowercase)
    } else {
        ("uppercase", str::to_uppercase)
    };
    let rule = Rule::ConsistentInstructionCasing;
    keywords
        .filter(|(keyword, _, comments)| **keyword != fold(keyword) && config.enabled_at(rule, comments))
        .map(|(keyword, span, _)| {
            let detail =
                format!("Command '{keyword}' should match the case of the command majority ({majority})");
            Warning::new(rule, span, detail)
        })
        .collect()
}
