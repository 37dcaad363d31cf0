//! The recorded behaviour, row by row.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;
use crate::testdata;

#[derive(Deserialize)]
struct Case {
    input: String,
    env: BTreeMap<String, String>,
    #[serde(default)]
    escape: Option<char>,
    #[serde(default)]
    raw_quotes: bool,
    #[serde(default)]
    raw_escapes: bool,
    #[serde(default)]
    skip_process_quotes: bool,
    #[serde(default)]
    skip_unset_env: bool,
    expect: Expect,
}

#[derive(Deserialize)]
struct Expect {
    #[serde(default)]
    result: Option<String>,
    #[serde(default)]
    words: Option<Vec<String>>,
    #[serde(default)]
    matched: BTreeSet<String>,
    #[serde(default)]
    unmatched: BTreeSet<String>,
    #[serde(default)]
    error: Option<String>,
}

/// Where our words differ from the recorded ones.
const OUR_WORDS: &[(&str, &str)] = &[(
    "failed to process \"${A\": unsupported modifier (\u{fffd}) in substitution",
    "failed to process \"${A\": syntax error: missing '}'",
)];

fn ours(recorded: &str) -> &str {
    OUR_WORDS
        .iter()
        .find(|(theirs, _)| *theirs == recorded)
        .map_or(recorded, |(_, ours)| ours)
}

fn lexer(case: &Case) -> Lexer {
    Lexer {
        escape: case.escape.unwrap_or('\\'),
        raw_quotes: case.raw_quotes,
        raw_escapes: case.raw_escapes,
        skip_process_quotes: case.skip_process_quotes,
        skip_unset_env: case.skip_unset_env,
    }
}

fn check(file: &str, rows: usize) {
    let cases: Vec<Case> = testdata::cases(file);
    assert_eq!(cases.len(), rows, "{file} has another number of rows");
    let mut failures = Vec::new();
    for case in cases {
        let outcome = lexer(&case).process(&case.input, &case.env);
        let good = match (&outcome, &case.expect.error) {
            (Err(error), Some(recorded)) => error.to_string() == ours(recorded),
            (Ok(got), None) => {
                Some(&got.text) == case.expect.result.as_ref()
                    && got.matched == case.expect.matched
                    && got.unmatched == case.expect.unmatched
            }
            _ => false,
        };
        if !good {
            failures.push(format!(
                "{:?}: got {outcome:?}, want {:?} or {:?}",
                case.input, case.expect.result, case.expect.error
            ));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn words_expand_as_recorded() {
    check("shell_expand.json", 93);
}

#[test]
fn other_modes_expand_as_recorded() {
    check("shell_modes.json", 28);
}

#[test]
fn words_split_as_recorded() {
    let cases: Vec<Case> = testdata::cases("shell_split.json");
    assert_eq!(cases.len(), 13);
    for case in cases {
        match (
            lexer(&case).process_words(&case.input, &case.env),
            &case.expect.error,
        ) {
            (Err(error), Some(recorded)) => assert_eq!(error.to_string(), *recorded),
            (outcome, _) => assert_eq!(
                outcome.map(|got| got.words).ok(),
                case.expect.words,
                "{:?}",
                case.input
            ),
        }
    }
}

#[test]
fn the_original_table_of_variables_holds() {
    let env: BTreeMap<String, String> = [
        ("PWD", "/home"),
        ("SHELL", "bash"),
        ("KOREAN", "한국어"),
        ("NULL", ""),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    let mut rows = 0;
    for line in testdata::text("shell/envVarTest").lines() {
        // A `#` begins a comment unless it is escaped.
        let line = line.replace("\\#", "\0");
        let line = line.split('#').next().unwrap_or_default().replace('\0', "#");
        let Some((platform, rest)) = line.split_once('|') else {
            continue;
        };
        let Some((source, expected)) = rest.split_once('|') else {
            continue;
        };
        if platform.trim() == "W" {
            continue;
        }
        rows += 1;
        let (source, expected) = (source.trim(), expected.trim());
        let outcome = Lexer::new('\\').process(source, &env);
        if expected == "error" {
            assert!(outcome.is_err(), "{source}: got {outcome:?}");
        } else {
            assert_eq!(outcome.map(|got| got.text).as_deref(), Ok(expected), "{source}");
        }
    }
    assert!(rows > 200, "only {rows} rows were read");
}

#[test]
fn the_original_table_of_words_holds() {
    let mut env = BTreeMap::new();
    let mut rows = 0;
    for line in testdata::text("shell/wordsTest").lines() {
        if line.starts_with('#') || line.trim().is_empty() {
            continue;
        }
        if let Some(pair) = line.strip_prefix("ENV ") {
            let (key, value) = pair.trim_start().split_once('=').unwrap();
            env.insert(key.to_owned(), value.to_owned());
            continue;
        }
        rows += 1;
        let (source, expected) = line.split_once('|').unwrap();
        let outcome = Lexer::new('\\').process_words(source.trim(), &env);
        let expected = expected.trim_start();
        if expected.trim() == "error" {
            assert!(outcome.is_err(), "{source}: got {outcome:?}");
        } else {
            let want: Vec<&str> = expected.split(',').collect();
            assert_eq!(outcome.map(|got| got.words).unwrap(), want, "{source}");
        }
    }
    assert!(rows > 15, "only {rows} rows were read");
}

#[test]
fn nesting_is_bounded() {
    let deep = format!("{}x{}", "${a:-".repeat(100_000), "}".repeat(100_000));
    let error = Lexer::new('\\').process(&deep, &BTreeMap::new()).unwrap_err();
    assert!(error.reason.contains("nested"), "{}", error.reason);
}

#[test]
fn results_are_bounded() {
    let env: BTreeMap<String, String> = [("A".to_owned(), "x".repeat(1 << 20))].into();
    for word in [
        "$A".repeat(10),
        format!("\"{}\"", "$A".repeat(10)),
        "${A//x/yyyyyyyyyyyyyyyy}".to_owned(),
    ] {
        assert!(Lexer::new('\\').process(&word, &env).is_err(), "{word}");
    }
}

#[test]
fn the_last_pair_of_a_name_counts() {
    let env = vec![("A".to_owned(), "1".to_owned()), ("A".to_owned(), "2".to_owned())];
    assert_eq!(Lexer::new('\\').process("$A", &env).unwrap().text, "2");
}
