//! The recorded cuts, row by row.

use serde::Deserialize;

use super::*;
use crate::testdata;

#[derive(Deserialize)]
struct Case {
    input: String,
    #[serde(default)]
    generated: bool,
    expect: Expect,
}

#[derive(Deserialize)]
struct Expect {
    #[serde(default)]
    escape: Option<char>,
    #[serde(default)]
    nodes: Vec<Recorded>,
    #[serde(default)]
    warnings: Vec<String>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Recorded {
    args: Vec<String>,
    comments: Option<Vec<String>>,
    end: u32,
    start: u32,
    flags: Option<Vec<String>>,
    heredocs: Vec<RecordedHeredoc>,
    json: bool,
    original: String,
    value: String,
}

#[derive(Deserialize)]
struct RecordedHeredoc {
    chomp: bool,
    content: String,
    expand: bool,
    fd: u64,
    name: String,
}

/// BuildKit's list of arguments: pairs as name, value and separator, a sub-instruction as a dump in parentheses.
fn recorded_args(args: &Args) -> Vec<String> {
    match args {
        Args::Pairs(pairs) => pairs
            .iter()
            .flat_map(|pair| {
                let separator = if pair.legacy { "" } else { "=" };
                [
                    pair.key.text.clone(),
                    pair.value.text.clone(),
                    separator.to_owned(),
                ]
            })
            .collect(),
        Args::Sub(node) => vec![format!("({})", dump(node))],
        Args::Unknown => vec![String::new()],
        Args::Health { kind, command } => std::iter::once(kind.text.clone())
            .chain(recorded_args(command))
            .collect(),
        _ => flatten(args),
    }
}

fn dump(node: &Node) -> String {
    let mut out = node.keyword.text.to_lowercase();
    if !node.flags.is_empty() {
        let flags: Vec<String> = node.flags.iter().map(|flag| quote(&flag.text)).collect();
        out.extend([" [", &flags.join(" "), "]"]);
    }
    for arg in recorded_args(&node.args) {
        let sub = matches!(node.args, Args::Sub(_));
        out.push(' ');
        out.push_str(&if sub { arg } else { quote(&arg) });
    }
    out
}

/// As Go's `%q` writes the strings of these files.
fn quote(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\0' => out.push_str("\\x00"),
            _ => out.push(c),
        }
    }
    out.push('"');
    out
}

#[test]
fn files_are_cut_as_recorded() {
    let cases: Vec<Case> = testdata::cases("ast.json");
    assert_eq!(cases.len(), 83);
    for case in cases {
        let input = if case.generated {
            format!("FROM a\nLABEL x={}", "a".repeat(65536))
        } else {
            case.input.clone()
        };
        let got = scan("Dockerfile", &input);
        if let Some(error) = case.expect.error {
            let message = got
                .errors
                .first()
                .map(|error| error.message.as_str())
                .unwrap_or_default();
            assert!(
                message.contains(&error),
                "{input:?}: got {message:?}, want {error:?}"
            );
            continue;
        }
        assert_eq!(got.errors, [], "{input:?}");
        assert_eq!(Some(got.escape), case.expect.escape);
        assert_eq!(
            got.empty_continuations.len(),
            case.expect.warnings.len(),
            "{input:?}"
        );
        assert_eq!(got.nodes.len(), case.expect.nodes.len(), "{input:?}");
        for (node, want) in got.nodes.iter().zip(case.expect.nodes) {
            assert_eq!(node.keyword.text, want.value);
            assert_eq!(recorded_args(&node.args), want.args, "{input:?}");
            assert_eq!(node.comments, want.comments.unwrap_or_default(), "{input:?}");
            assert_eq!(
                (node.span.first_line, node.span.last_line),
                (want.start, want.end),
                "{input:?}"
            );
            let flags: Vec<String> = node.flags.iter().map(|flag| flag.text.clone()).collect();
            assert_eq!(flags, want.flags.unwrap_or_default());
            let json = match &node.args {
                Args::Health { command, .. } => matches!(**command, Args::Json { .. }),
                args => matches!(args, Args::Json { .. }),
            };
            assert_eq!(json, want.json, "{input:?}");
            assert_eq!(node.original, want.original);
            assert_eq!(node.heredocs.len(), want.heredocs.len(), "{input:?}");
            for (got, want) in node.heredocs.iter().zip(want.heredocs) {
                let want = Heredoc {
                    name: want.name,
                    content: want.content,
                    fd: want.fd,
                    expand: want.expand,
                    chomp: want.chomp,
                    span: got.span,
                };
                assert_eq!(*got, want);
            }
        }
    }
}

#[test]
fn the_original_files_are_cut_as_recorded() {
    let mut files = 0;
    for entry in std::fs::read_dir(testdata::path("testfiles")).unwrap() {
        let dir = entry.unwrap().path();
        let text = std::fs::read_to_string(dir.join("Dockerfile")).unwrap();
        let want = std::fs::read_to_string(dir.join("result")).unwrap();
        let got = scan("Dockerfile", &text);
        assert_eq!(got.errors, [], "{}", dir.display());
        let got: Vec<String> = got.nodes.iter().map(|node| format!("({})", dump(node))).collect();
        let want: Vec<&str> = want.trim().lines().collect();
        assert_eq!(got, want, "{}", dir.display());
        files += 1;
    }
    assert_eq!(files, 33);
}

#[test]
fn the_original_bad_files_are_refused() {
    for entry in std::fs::read_dir(testdata::path("testfiles-negative")).unwrap() {
        let dir = entry.unwrap().path();
        let text = std::fs::read_to_string(dir.join("Dockerfile")).unwrap();
        assert!(!scan("Dockerfile", &text).errors.is_empty(), "{}", dir.display());
    }
}

#[test]
fn line_ranges_are_as_recorded() {
    #[derive(Deserialize)]
    struct Ranges {
        file: String,
        ast: [u32; 2],
        children: Vec<[u32; 2]>,
    }
    let cases: Vec<Ranges> = testdata::cases("line_ranges.json");
    for case in cases {
        let got = scan("Dockerfile", &testdata::text(&case.file));
        let lines: Vec<[u32; 2]> = got
            .nodes
            .iter()
            .map(|node| [node.span.first_line, node.span.last_line])
            .collect();
        assert_eq!(lines, case.children);
        assert_eq!([lines[0][0], lines[lines.len() - 1][1]], case.ast);
    }
}

#[test]
fn json_is_told_from_shell_text_as_recorded() {
    #[derive(Deserialize)]
    struct Json {
        input: String,
        expect: JsonExpect,
    }
    #[derive(Deserialize)]
    struct JsonExpect {
        #[serde(default)]
        json: bool,
        strings: Option<Vec<String>>,
        error: Option<String>,
    }
    let cases: Vec<Json> = testdata::cases("json_form.json");
    assert_eq!(cases.len(), 23);
    for case in cases {
        let got = scan("Dockerfile", &format!("CMD {}", case.input));
        if let Some(error) = case.expect.error {
            assert_eq!(got.errors[0].message, error, "{}", case.input);
            continue;
        }
        match &got.nodes[0].args {
            Args::Json { strings, .. } => {
                assert_eq!(Some(strings), case.expect.strings.as_ref(), "{}", case.input);
            }
            _ => assert!(!case.expect.json, "{}", case.input),
        }
    }
}

#[test]
fn every_mistake_is_reported_and_the_rest_is_kept() {
    let got = scan(
        "Dockerfile",
        "FROM a\nENV A\nRUN x\nCMD [1]\nLABEL x=y z\nUSER u\n",
    );
    let lines: Vec<u32> = got.errors.iter().flat_map(Diagnostic::error_lines).collect();
    assert_eq!(lines, [2, 4, 5]);
    assert_eq!(got.nodes.len(), 3);
}

#[test]
fn chained_onbuild_costs_no_stack() {
    let text = format!("FROM a\n{}RUN x\n", "ONBUILD ".repeat(8000));
    assert_eq!(scan("Dockerfile", &text).nodes.len(), 2);
}
