//! The recorded examples, with as much of planning as they need.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{rules, *};
use crate::{
    ast::InstructionKind,
    expand::{Expansion, Lexer},
    ignore::{self, Matcher},
    parse, testdata,
};

#[derive(Deserialize)]
struct File {
    rules: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    rule: Rule,
    url: Option<String>,
    experimental: bool,
    trips: Example,
    clean: Example,
    #[serde(default)]
    more_clean: Vec<String>,
    #[serde(default)]
    more_trips: Vec<Example>,
    #[serde(default)]
    files: BTreeMap<String, String>,
    verifiable: Option<String>,
}

#[derive(Deserialize)]
struct Example {
    dockerfile: String,
    #[serde(default)]
    warnings: Vec<Recorded>,
}

#[derive(Deserialize)]
struct Recorded {
    rule: Rule,
    line: u32,
    detail_contains: String,
}

/// A stand-in for planning, just able enough for the examples: literals, global and stage variables, no images.
#[allow(clippy::too_many_lines, reason = "one arm for each rule that needs planning")]
fn all_warnings(text: &str, files: &BTreeMap<String, String>) -> Vec<Warning> {
    let dockerfile = parse("Dockerfile", text).unwrap();
    let config = LintConfig::of(&dockerfile, None).unwrap();
    let ignored = files
        .get(".dockerignore")
        .map(|text| ignore::read(text.as_bytes()))
        .unwrap_or_default();
    let ignored = Matcher::new(ignored.iter().map(|line| &line.pattern)).unwrap();
    let mut found = check(&dockerfile, &config);
    let lexer = Lexer::new(dockerfile.escape);
    let platform: BTreeMap<String, String> = ["TARGETPLATFORM", "BUILDPLATFORM"]
        .map(|name| (name.to_owned(), "linux/amd64".to_owned()))
        .into();
    let mut globals = platform.clone();
    for instruction in &dockerfile.global_args {
        let InstructionKind::Arg(args) = &instruction.kind else {
            panic!()
        };
        for arg in args {
            if let Some(default) = &arg.default {
                globals.insert(
                    arg.name.text.clone(),
                    lexer.process(&default.text, &globals).unwrap().text,
                );
            }
        }
    }
    let declared: Vec<String> = dockerfile
        .global_args
        .iter()
        .flat_map(|instruction| match &instruction.kind {
            InstructionKind::Arg(args) => args.iter().map(|arg| arg.name.text.clone()).collect(),
            _ => Vec::new(),
        })
        .collect();
    let mut shells: Vec<bool> = Vec::new();
    for stage in &dockerfile.stages {
        let base = lexer.process(&stage.base.text, &globals).unwrap();
        if base.text.is_empty() {
            found.extend(rules::invalid_default_arg_in_from(&config, stage));
        }
        for name in base.unmatched.iter().filter(|name| !declared.contains(name)) {
            found.extend(rules::undefined_arg_in_from(
                &config,
                stage,
                name,
                declared.iter().map(String::as_str),
            ));
        }
        if let Some(word) = &stage.platform {
            let expansion: Expansion = lexer.process(&word.text, &globals).unwrap();
            found.extend(rules::redundant_target_platform(
                &config,
                stage,
                &expansion,
                "linux/amd64",
            ));
            let (os, architecture) = expansion.text.split_once('/').unwrap();
            found.extend(rules::from_platform_const(
                &config,
                stage,
                &expansion,
                os,
                architecture,
            ));
        }
        let parent = dockerfile
            .stages
            .iter()
            .find(|other| other.name.as_deref() == Some(base.text.as_str()));
        let shell = parent.is_some_and(|parent| shells[parent.index]);
        found.extend(check_stage(stage, &config, shell));
        shells.push(
            shell
                || stage
                    .instructions
                    .iter()
                    .any(|i| matches!(i.kind, InstructionKind::Shell(_))),
        );
        let mut env: BTreeMap<String, String> = BTreeMap::new();
        let mut workdir = false;
        for instruction in &stage.instructions {
            match &instruction.kind {
                InstructionKind::Arg(args) => {
                    env.extend(args.iter().map(|arg| (arg.name.text.clone(), String::new())));
                }
                InstructionKind::Label(pairs) => {
                    for name in pairs
                        .iter()
                        .flat_map(|pair| lexer.process(&pair.value.text, &env).unwrap().unmatched)
                    {
                        let known = env.keys().map(String::as_str);
                        found.extend(rules::undefined_var(&config, instruction, &name, known));
                    }
                }
                InstructionKind::Workdir(path) => {
                    found.extend(rules::workdir_relative(&config, instruction, &path.text, workdir));
                    workdir = true;
                }
                InstructionKind::Expose(words) => {
                    for word in words {
                        found.extend(rules::expose(&config, instruction, &word.text));
                    }
                }
                InstructionKind::Copy(copy) => {
                    for source in copy
                        .files
                        .paths
                        .iter()
                        .filter(|source| !source.text.contains('*'))
                    {
                        found.extend(rules::copy_ignored(&config, instruction, &source.text, &ignored));
                    }
                }
                _ => {}
            }
        }
    }
    found
}

fn compare(text: &str, files: &BTreeMap<String, String>, want: &[Recorded]) {
    let mut got = all_warnings(text, files);
    for want in want {
        let at = got.iter().position(|got| {
            got.rule == want.rule && got.line == want.line && got.detail.contains(&want.detail_contains)
        });
        assert!(
            at.is_some(),
            "{text}\n{} {} is missing in {got:#?}",
            want.rule,
            want.detail_contains
        );
        got.remove(at.unwrap());
    }
    assert_eq!(got, [], "{text}");
}

#[test]
fn checks_trip_and_stay_quiet_as_recorded() {
    let file: File = serde_json::from_str(&testdata::text("lint_rules.json")).unwrap();
    assert_eq!(
        file.rules.iter().map(|entry| entry.rule).collect::<Vec<_>>(),
        Rule::ALL
    );
    for entry in file.rules {
        assert_eq!(entry.rule.url(), entry.url);
        assert_eq!(entry.rule.is_experimental(), entry.experimental);
        if entry.verifiable.is_some() {
            continue;
        }
        compare(&entry.trips.dockerfile, &entry.files, &entry.trips.warnings);
        compare(&entry.clean.dockerfile, &entry.files, &[]);
        for text in entry.more_clean {
            compare(&text, &entry.files, &[]);
        }
        for example in entry.more_trips {
            compare(&example.dockerfile, &entry.files, &example.warnings);
        }
    }
}

#[test]
fn checks_can_be_skipped_in_the_file_and_above_an_instruction() {
    let found = |text: &str| -> Vec<Rule> {
        all_warnings(text, &BTreeMap::new())
            .into_iter()
            .map(|warning| warning.rule)
            .collect()
    };
    assert_eq!(
        found("# check=skip=all\nFROM scratch as Base\nlabel a=b\nMAINTAINER x\n"),
        []
    );
    assert_eq!(
        found("# check=skip=FromAsCasing\nFROM scratch as Base\nLABEL a=b\n"),
        [Rule::StageNameCasing]
    );
    let text = "FROM scratch\n# check=skip=MaintainerDeprecated\nMAINTAINER x\n# check=skip=JSONArgsRecommended\nCMD a\n";
    assert_eq!(found(text), []);
    let text = "FROM scratch\n# check=skip=MaintainerDeprecated\nMAINTAINER x\nMAINTAINER y\n";
    assert_eq!(found(text), [Rule::MaintainerDeprecated]);
}

#[test]
fn the_build_argument_replaces_the_directive() {
    let dockerfile = parse("D", "# check=error=true;skip=A, B\nFROM scratch as b\n").unwrap();
    let config = LintConfig::of(&dockerfile, None).unwrap();
    assert!(config.error && config.skip.contains("A"));
    let warnings = check(&dockerfile, &config);
    let error = violation(&config, &warnings).unwrap();
    assert_eq!(error.message, "lint violation found for rules: FromAsCasing");
    let config = LintConfig::of(&dockerfile, Some("skip=all")).unwrap();
    assert!(!config.error && check(&dockerfile, &config).is_empty());
    assert!(LintConfig::parse("skip").is_err());
    assert!(LintConfig::parse("error=perhaps").is_err());
    assert!(LintConfig::parse("foo=bar").is_err());
}

#[test]
fn a_warning_can_be_shown() {
    let dockerfile = parse("D", "FROM scratch as b\n").unwrap();
    let warning = check(&dockerfile, &LintConfig::default()).remove(0);
    let text = warning.diagnostic(&dockerfile).render();
    assert!(
        text.starts_with("warning[FromAsCasing]: 'as' and 'FROM' keywords' casing do not match\n"),
        "{text}"
    );
    assert!(text.contains("^^^") && text.contains("from-as-casing"), "{text}");
}

#[test]
fn the_context_root_is_ignored_only_when_every_name_is() {
    let files = |ignore: &str| BTreeMap::from([(".dockerignore".to_owned(), ignore.to_owned())]);
    let text = "FROM scratch\nCOPY . /\n";
    assert_eq!(all_warnings(text, &files(".*\n")), []);
    assert!(all_warnings(text, &files("*\n"))[0].detail.contains("\".\""));
    assert_eq!(all_warnings(text, &files("*\n!a\n")), []);
}
