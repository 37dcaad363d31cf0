//! The recorded matches, and the fast matcher against a slow one.

use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::testdata;

#[derive(Deserialize)]
struct Case {
    patterns: Vec<String>,
    path: String,
    expect: Expect,
}

#[derive(Deserialize)]
struct Expect {
    #[serde(rename = "match")]
    matches: Option<bool>,
    error: Option<String>,
    phase: Option<String>,
}

#[test]
fn paths_match_as_recorded() {
    let cases: Vec<Case> = testdata::cases("patternmatcher.json");
    assert_eq!(cases.len(), 178);
    for case in cases {
        let what = format!("{:?} {:?}", case.patterns, case.path);
        let (error, phase) = match Matcher::new(&case.patterns) {
            Err(error) => (error, "new"),
            Ok(matcher) => match matcher.matches(&case.path) {
                Err(error) => (error, "match"),
                Ok(got) => {
                    assert_eq!(Some(got), case.expect.matches, "{what}");
                    continue;
                }
            },
        };
        let want = case.expect.error.unwrap_or_else(|| panic!("{what}: {error}"));
        assert!(error.to_string().contains(&want), "{what}: {error}");
        assert_eq!(Some(phase), case.expect.phase.as_deref(), "{what}");
    }
}

#[test]
fn files_are_read_as_recorded() {
    #[derive(Deserialize)]
    struct Read {
        input: String,
        expect: ReadExpect,
    }
    #[derive(Deserialize)]
    struct ReadExpect {
        patterns: Option<Vec<String>>,
    }
    let cases: Vec<Read> = testdata::cases("dockerignore_read.json");
    assert_eq!(cases.len(), 12);
    for case in cases {
        let got: Vec<String> = read(case.input.as_bytes())
            .into_iter()
            .map(|line| line.pattern)
            .collect();
        assert_eq!(got, case.expect.patterns.unwrap_or_default(), "{:?}", case.input);
    }
}

#[test]
fn the_pattern_that_decided_is_named() {
    let lines = read(b"# built\n\nnode_modules\n*.md\n!README.md\n");
    let matcher = Matcher::new(lines.iter().map(|line| &line.pattern)).unwrap();
    let named = |path: &str| matcher.explain(path).unwrap().map(|index| lines[index].line);
    assert_eq!(named("node_modules/a/b.js"), Some(3));
    assert_eq!(named("x.md"), Some(4));
    assert_eq!(named("README.md"), Some(5));
    assert_eq!(named("src/main.rs"), None);
    assert_eq!(matcher.pattern(0), Some("node_modules"));
}

#[test]
fn a_walk_may_skip_what_nothing_takes_back() {
    let matcher = |patterns: &[&str]| Matcher::new(patterns).unwrap();
    assert!(!matcher(&["*"]).might_include_below("a"));
    assert!(matcher(&["*", "!a/b"]).might_include_below("a"));
    assert!(!matcher(&["*", "!a/b"]).might_include_below("c"));
    assert!(!matcher(&["*", "!a/b"]).might_include_below("a/b"));
    assert!(matcher(&["*", "!**/*.md"]).might_include_below("a/b/c"));
    assert!(matcher(&["*", "!a/**"]).might_include_below("a/b"));
    assert!(!matcher(&["*", "!a/**"]).might_include_below("b"));
}

#[test]
fn the_root_is_excluded_only_by_what_takes_every_name() {
    let everything = |patterns: &[&str]| Matcher::new(patterns).unwrap().matches_everything().unwrap();
    assert!(everything(&["*"]) && everything(&["**"]));
    assert!(!everything(&[".*"]) && !everything(&["a"]));
}

/// The slow reference: a pattern's parts against a path's parts by trying everything.
fn slow_match(pattern: &[char], path: &[char]) -> bool {
    match pattern {
        [] => path.is_empty(),
        ['*', '*', '/', rest @ ..] if !rest.is_empty() => {
            slow_match(rest, path)
                || (0..path.len()).any(|at| path[at] == '/' && slow_match(rest, &path[at + 1..]))
        }
        ['*', '*'] | ['*', '*', '/'] => true,
        ['*', '*', rest @ ..] => {
            slow_match(rest, path)
                || (0..path.len()).any(|at| path[at] == '/' && slow_match(rest, &path[at + 1..]))
        }
        ['*', rest @ ..] => (0..=path.len())
            .take_while(|end| !path[..*end].contains(&'/'))
            .any(|end| slow_match(rest, &path[end..])),
        ['?', rest @ ..] => path.first().is_some_and(|c| *c != '/') && slow_match(rest, &path[1..]),
        [c, rest @ ..] => path.first() == Some(c) && slow_match(rest, &path[1..]),
    }
}

fn slow(patterns: &[String], path: &str) -> bool {
    let mut excluded = false;
    for pattern in patterns {
        let (includes, pattern) = match pattern.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, pattern.as_str()),
        };
        let pattern: Vec<char> = pattern.chars().collect();
        let path: Vec<char> = path.chars().collect();
        let above = (0..path.len())
            .filter(|at| path[*at] == '/')
            .map(|at| &path[..at]);
        if above.chain([&path[..]]).any(|path| slow_match(&pattern, path)) {
            excluded = !includes;
        }
    }
    excluded
}

/// The slow walk: from the root down, each directory's matches handed to its entries. As in BuildKit's walk a pattern
/// that could not change the outcome for a directory counts as not matching it, for its entries too.
fn slow_walk(patterns: &[String], path: &str) -> bool {
    let mut state = vec![false; patterns.len()];
    let mut excluded = false;
    for end in path.match_indices('/').map(|(end, _)| end).chain([path.len()]) {
        let path: Vec<char> = path[..end].chars().collect();
        excluded = false;
        for (pattern, matched) in patterns.iter().zip(&mut state) {
            let (includes, pattern) = match pattern.strip_prefix('!') {
                Some(rest) => (true, rest),
                None => (false, pattern.as_str()),
            };
            let pattern: Vec<char> = pattern.chars().collect();
            *matched = *matched || (includes == excluded && slow_match(&pattern, &path));
            if *matched {
                excluded = !includes;
            }
        }
    }
    excluded
}

fn pattern() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("a".to_owned()),
        Just("ab".to_owned()),
        Just("*".to_owned()),
        Just("**".to_owned()),
        Just("a*".to_owned()),
        Just("?b".to_owned()),
        Just("*.c".to_owned()),
    ];
    (any::<bool>(), prop::collection::vec(part, 1..4))
        .prop_map(|(includes, parts)| format!("{}{}", if includes { "!" } else { "" }, parts.join("/")))
}

fn path() -> impl Strategy<Value = String> {
    let part = prop_oneof![Just("a"), Just("ab"), Just("bb"), Just("x.c"), Just("b")];
    prop::collection::vec(part, 1..5).prop_map(|parts| parts.join("/"))
}

proptest! {
    #[test]
    fn the_fast_matcher_agrees_with_the_slow_one(patterns in prop::collection::vec(pattern(), 0..6), path in path()) {
        let matcher = Matcher::new(&patterns).unwrap();
        prop_assert_eq!(matcher.matches(&path).unwrap(), slow(&patterns, &path));

        // The walk never skips a directory that holds a file to keep.
        let want = slow_walk(&patterns, &path);
        let mut state = ParentState::default();
        let mut verdict = None;
        let mut skipped = false;
        let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
        for end in ends {
            let got = matcher.matches_with_parents(&path[..end], &state).unwrap();
            if end < path.len() && got.excluded && !matcher.might_include_below(&path[..end]) {
                skipped = true;
            }
            state = got.state;
            verdict = Some(got.excluded);
        }
        prop_assert_eq!(verdict, Some(want));
        prop_assert!(!skipped || want, "{:?} would be skipped", path);
    }

    #[test]
    fn no_pattern_panics(patterns in prop::collection::vec("[a*?!/\\[\\]\\\\^.-]{0,12}", 0..5), path in "[ab/.\\[-]{0,12}") {
        if let Ok(matcher) = Matcher::new(&patterns) {
            let _ = matcher.matches(&path);
            let _ = matcher.might_include_below(&path);
        }
        for pattern in &patterns {
            let _ = crate::glob::matches(pattern, &path);
            let _ = crate::glob::DeepPattern::new(pattern).map(|pattern| pattern.matches(&path));
        }
    }
}
