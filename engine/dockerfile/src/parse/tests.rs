//! The recorded judgements, row by row.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::*;
use crate::{
    ast::{CommandForm, Healthcheck, SourcesAndDest, Word},
    mount, testdata,
};

#[derive(Deserialize)]
struct Case {
    input: String,
    outcome: String,
    expect: Value,
}

/// Where our words differ from the recorded ones; ours carry the same facts.
const OUR_WORDS: &[(&str, &str)] = &[(
    "strconv.ParseInt: parsing \"x\": invalid syntax",
    "parsing \"x\": invalid syntax",
)];

fn ours(recorded: &str) -> &str {
    OUR_WORDS
        .iter()
        .find(|(theirs, _)| *theirs == recorded)
        .map_or(recorded, |(_, ours)| ours)
}

#[test]
fn instructions_are_judged_as_recorded() {
    let cases: Vec<Case> = testdata::cases("instructions.json");
    assert_eq!(cases.len(), 226);
    for case in cases {
        let outcome = parse("Dockerfile", &case.input);
        match case.outcome.as_str() {
            "accepted" | "rejected-on-dispatch" => {
                let dockerfile = outcome.unwrap_or_else(|errors| panic!("{:?}: {errors:#?}", case.input));
                compare(&case.input, &dockerfile, &case.expect);
            }
            _ => {
                let errors = outcome.expect_err(&case.input);
                let recorded = case.expect["error"].as_str().unwrap();
                let (line, recorded) = match recorded.strip_prefix("dockerfile parse error on line ") {
                    Some(rest) => {
                        let (line, rest) = rest.split_once(": ").unwrap();
                        (Some(line.parse().unwrap()), rest)
                    }
                    None => (None, recorded),
                };
                assert_eq!(errors[0].message, ours(recorded), "{:?}", case.input);
                if let Some(line) = line {
                    assert_eq!(errors[0].error_lines().first(), Some(&line), "{:?}", case.input);
                }
            }
        }
    }
}

fn compare(input: &str, dockerfile: &Dockerfile, expect: &Value) {
    let global: Vec<Value> = dockerfile
        .global_args
        .iter()
        .map(|instruction| match &instruction.kind {
            InstructionKind::Arg(args) => Value::Array(args.iter().map(arg).collect()),
            other => panic!("{other:?} is no ARG"),
        })
        .collect();
    assert_eq!(Value::Array(global), expect["meta_args"], "{input:?}");
    let stages: Vec<Value> = dockerfile
        .stages
        .iter()
        .map(|stage| {
            json!({
                "base": stage.base.text,
                "name": stage.name.clone().unwrap_or_default(),
                "platform": text(stage.platform.as_ref()),
                "doc": stage.doc,
                "commands": stage.instructions.iter().map(command).collect::<Vec<_>>(),
            })
        })
        .collect();
    assert_eq!(Value::Array(stages), expect["stages"], "{input:?}");
}

fn text(word: Option<&Word>) -> &str {
    word.map_or("", |word| &word.text)
}

fn texts(words: &[Word]) -> Vec<&str> {
    words.iter().map(|word| word.text.as_str()).collect()
}

/// A list as Go prints it: an empty one that was never made is null.
fn list(words: &[Word]) -> Value {
    if words.is_empty() {
        Value::Null
    } else {
        json!(texts(words))
    }
}

fn arg(arg: &crate::ast::ArgDeclaration) -> Value {
    json!({"DocComment": arg.doc, "Key": arg.name.text, "Value": arg.default.as_ref().map(|word| &word.text)})
}

fn pairs(pairs: &[crate::ast::KeyValue]) -> Value {
    pairs
        .iter()
        .map(|pair| json!({"Key": pair.key.text, "Value": pair.value.text, "NoDelim": pair.legacy}))
        .collect()
}

fn shell_dependent(command: &crate::ast::Command, entrypoint: bool) -> Map<String, Value> {
    let (argv, prepend) = match &command.form {
        CommandForm::Shell(text) if text.is_empty() => (vec![], true),
        CommandForm::Shell(text) => (vec![text.clone()], true),
        CommandForm::Exec(argv) => (argv.clone(), false),
    };
    let files: Vec<Value> = command
        .heredocs
        .iter()
        .map(|heredoc| json!({"Name": heredoc.name, "Data": heredoc.content, "Chomp": heredoc.chomp}))
        .collect();
    let fields = json!({
        "CmdLine": if entrypoint && argv.is_empty() { Value::Null } else { json!(argv) },
        "Files": if files.is_empty() { Value::Null } else { Value::Array(files) },
        "PrependShell": prepend,
    });
    fields.as_object().unwrap().clone()
}

fn sources(files: &SourcesAndDest, fields: &mut Map<String, Value>) {
    let contents: Vec<Value> = files
        .contents
        .iter()
        .map(|file| json!({"Path": file.path, "Data": file.data, "Expand": file.expand}))
        .collect();
    fields.insert("SourcePaths".to_owned(), list(&files.paths));
    fields.insert("DestPath".to_owned(), json!(files.dest.text));
    let contents = if contents.is_empty() {
        Value::Null
    } else {
        Value::Array(contents)
    };
    fields.insert("SourceContents".to_owned(), contents);
}

fn command(instruction: &Instruction) -> Value {
    let mut out = json!({"name": instruction.keyword});
    let fields = match &instruction.kind {
        InstructionKind::Add(add) => {
            let fields = json!({
                "Checksum": text(add.checksum.as_ref()), "Chmod": text(add.chmod.as_ref()),
                "Chown": text(add.chown.as_ref()), "ExcludePatterns": list(&add.exclude),
                "KeepGitDir": add.keep_git_dir, "Link": add.link, "Unpack": add.unpack,
            });
            let mut fields = fields.as_object().unwrap().clone();
            sources(&add.files, &mut fields);
            Value::Object(fields)
        }
        InstructionKind::Copy(copy) => {
            let fields = json!({
                "Chmod": text(copy.chmod.as_ref()), "Chown": text(copy.chown.as_ref()),
                "ExcludePatterns": list(&copy.exclude), "From": text(copy.from.as_ref()),
                "Link": copy.link, "Parents": copy.parents,
            });
            let mut fields = fields.as_object().unwrap().clone();
            sources(&copy.files, &mut fields);
            Value::Object(fields)
        }
        InstructionKind::Arg(args) => json!({"Args": args.iter().map(arg).collect::<Vec<_>>()}),
        InstructionKind::Cmd(command) => Value::Object(shell_dependent(command, false)),
        InstructionKind::Entrypoint(command) => Value::Object(shell_dependent(command, true)),
        InstructionKind::Env(env) => json!({"Env": pairs(env)}),
        InstructionKind::Label(labels) => json!({"Labels": pairs(labels)}),
        InstructionKind::Expose(ports) => json!({"Ports": texts(ports)}),
        InstructionKind::Healthcheck(check) => json!({"Health": health(check)}),
        InstructionKind::Maintainer(word) => json!({"Maintainer": word.text}),
        InstructionKind::Onbuild(onbuild) => json!({"Expression": onbuild.expression}),
        InstructionKind::Shell(argv) => json!({"Shell": argv}),
        InstructionKind::StopSignal(word) => json!({"Signal": word.text}),
        InstructionKind::User(word) => json!({"User": word.text}),
        InstructionKind::Volume(words) => json!({"Volumes": texts(words)}),
        InstructionKind::Workdir(word) => json!({"Path": word.text}),
        InstructionKind::Run(run) => {
            let mut fields = shell_dependent(&run.command, false);
            fields.insert("FlagsUsed".to_owned(), json!(run.flags_used));
            let mounts: Result<Vec<Value>, _> = run
                .mounts
                .iter()
                .map(|word| {
                    mount::parse(&word.text, &mut |text| Ok(text.to_owned())).map(|mount| mounted(&mount))
                })
                .collect();
            match mounts {
                Ok(mounts) => {
                    out["mounts"] = Value::Array(mounts);
                    out["network"] = json!(run.network);
                    out["security"] = json!(run.security);
                }
                Err(error) => out["expand_error"] = json!(error.to_string()),
            }
            if !run.mounts.is_empty() {
                out["mounts_unexpanded"] = json!(run.mounts.len());
            }
            Value::Object(fields)
        }
    };
    out["fields"] = fields;
    out
}

fn mounted(mount: &mount::Mount) -> Value {
    json!({
        "Type": mount.kind, "From": mount.from.clone().unwrap_or_default(),
        "Source": mount.source.clone().unwrap_or_default(), "Target": mount.target.clone().unwrap_or_default(),
        "ReadOnly": mount.readonly, "SizeLimit": mount.size.unwrap_or(0),
        "CacheID": mount.id.clone().unwrap_or_default(),
        "CacheSharing": mount.sharing.map_or(json!(""), |sharing| json!(sharing)),
        "Required": mount.required, "Env": mount.env, "Mode": mount.mode, "UID": mount.uid, "GID": mount.gid,
    })
}

fn health(check: &Healthcheck) -> Value {
    let Healthcheck::Check(check) = check else {
        return json!({"Test": ["NONE"]});
    };
    let mut test = Vec::new();
    match &check.command.form {
        CommandForm::Shell(text) => test.extend(["CMD-SHELL".to_owned(), text.clone()]),
        CommandForm::Exec(argv) => {
            test.push("CMD".to_owned());
            test.extend(argv.clone());
        }
    }
    let mut out = json!({"Test": test});
    for (key, value) in [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
        ("Retries", check.retries),
    ] {
        if value != 0 {
            out[key] = json!(value);
        }
    }
    out
}

#[test]
fn spans_lead_to_the_source() {
    let text = "FROM debian \\\n  AS b\nCOPY --from=x \\\n  a \"$B\" \\\n  /c\nARG A=1 B\nENV C=\"d e\"\n";
    let dockerfile = parse("Dockerfile", text).unwrap();
    let at = |span: Span| &text[span.start..span.end];
    let stage = &dockerfile.stages[0];
    assert_eq!(at(stage.span), "FROM debian \\\n  AS b");
    assert_eq!(at(stage.name_as_written.as_ref().unwrap().span), "b");
    let InstructionKind::Copy(copy) = &stage.instructions[0].kind else {
        panic!()
    };
    assert_eq!(at(copy.from.as_ref().unwrap().span), "--from=x");
    assert_eq!(
        copy.files
            .paths
            .iter()
            .map(|word| at(word.span))
            .collect::<Vec<_>>(),
        ["a", "\"$B\""]
    );
    assert_eq!(copy.files.dest.span.first_line, 5);
    let InstructionKind::Arg(args) = &stage.instructions[1].kind else {
        panic!()
    };
    assert_eq!(at(args[0].name.span), "A");
    assert_eq!(at(args[0].default.as_ref().unwrap().span), "1");
    let InstructionKind::Env(env) = &stage.instructions[2].kind else {
        panic!()
    };
    assert_eq!((at(env[0].key.span), at(env[0].value.span)), ("C", "\"d e\""));
}

#[test]
fn every_mistake_is_reported_once() {
    let text = "FROM a AS 1\nRUN x\nCOPPY a b\nFROM b\nCOPY x\nENV A\nRUN --network=foo x\n";
    let errors = parse("Dockerfile", text).unwrap_err();
    let lines: Vec<u32> = errors.iter().map(|error| error.error_lines()[0]).collect();
    assert_eq!(lines, [1, 3, 5, 6, 7]);
    let errors = parse("Dockerfile", "RUN a\nRUN b\nFROM c\n").unwrap_err();
    assert_eq!(errors.len(), 1);
}

#[test]
fn warnings_survive_an_error() {
    let (dockerfile, errors) = parse_lenient("Dockerfile", "FROM a as B\nMAINTAINER x\nFOO\nUSER y\n");
    assert_eq!(errors.len(), 1);
    assert_eq!(dockerfile.stages[0].instructions.len(), 2);
}

#[test]
fn triggers_are_read_back() {
    let dockerfile = parse("D", "FROM a\nONBUILD RUN <<-E <<'F' cat\n\tx\n\tE\ny\nF\n").unwrap();
    let InstructionKind::Onbuild(onbuild) = &dockerfile.stages[0].instructions[0].kind else {
        panic!()
    };
    assert_eq!(onbuild.expression, "RUN <<-E <<'F' cat\n\tx\nE\ny\nF");
    let instruction = parse_onbuild("base", &onbuild.expression).unwrap();
    let InstructionKind::Run(run) = instruction.kind else {
        panic!()
    };
    assert_eq!(run.command.heredocs.len(), 2);
    assert!(
        parse_onbuild("base", "RUN a\nRUN b").unwrap_err()[0]
            .message
            .contains("single expression")
    );
    assert!(parse_onbuild("base", "FROM a").is_err());
    assert!(
        parse_onbuild("base", "FOO a").unwrap_err()[0]
            .message
            .contains("unknown instruction")
    );
}

#[test]
fn onbuild_nested_spans_stay_inside() {
    let text = "FROM a\nONBUILD COPY --nope a \\\n b\n";
    assert!(parse("D", text).is_ok(), "a trigger is judged when it runs");
}

/// Each of these would take minutes, or the stack, if anything in the way were quadratic or recursive.
#[test]
fn hostile_files_are_read_in_linear_time() {
    let size = super::MAX_FILE / 8;
    let fill = |line: &str| format!("FROM a\n{}", line.repeat(size / line.len()));
    for text in [
        fill("\\\n"),
        fill("#\n"),
        fill("RUN x\n"),
        fill("FOO\n"),
        fill("ENV A=b\n"),
        format!("FROM a\nRUN {}", "cat <<A \\\n".repeat(size / 10)),
        format!("FROM a\nENV {}", "A=b \\\n".repeat(size / 6)),
        format!("FROM a\nCOPY {}b\n", "--link \\\n".repeat(size / 9)),
        format!("FROM a\nRUN {}b\n", "--mount=type=bind \\\n".repeat(size / 20)),
        format!("FROM a\nCMD {}", "[\\\n".repeat(size / 3)),
        format!("FROM a\nLABEL A={}\"", "\"\"'\\\n".repeat(size / 5)),
        format!("FROM a\nRUN <<{}\n", "\"'<<\\\n".repeat(size / 6)),
        format!("FROM a\nONBUILD {}", "ONBUILD \\\n".repeat(size / 10)),
        fill("RUN <<A\nA\n"),
        fill("FROM b AS c\n"),
        fill("USER x\n"),
    ] {
        let (dockerfile, errors) = parse_lenient("D", &text);
        for error in &errors {
            assert!(error.render().len() < 20_000);
        }
        assert!(crate::lint::check(&dockerfile, &crate::lint::LintConfig::default()).len() <= size);
    }
}

#[test]
fn the_number_of_instructions_is_bounded() {
    let errors = parse(
        "D",
        &format!("FROM a\n{}", "USER b\n".repeat(nodes::MAX_INSTRUCTIONS)),
    )
    .unwrap_err();
    assert!(errors[0].message.contains("more than"), "{}", errors[0]);
}
