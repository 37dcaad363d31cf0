//! Checks of what a build printed: errors, the lines they point at, warnings, calls.

use std::collections::BTreeSet;

use regex::Regex;

use crate::{
    expect::{Expect, Texts},
    wording::{self, Row},
};

/// A program that floods its output must not flood the report.
const LIMIT: usize = 4000;

/// The last error in the output, to its end; all of the output where there is none.
pub(super) fn error_text(log: &str) -> &str {
    let at = log
        .rfind("\nerror: ")
        .map(|at| at + 1)
        .or_else(|| log.rfind("error: "));
    let text = at.map_or(log, |at| &log[at..]);
    let mut start = text.len().saturating_sub(LIMIT);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

pub(super) fn check(expect: &Expect, log: &str, table: &[Row]) -> Vec<String> {
    let mut errors = Vec::new();
    let message = error_text(log);
    for text in texts(expect.error_contains.as_ref()) {
        if !wording::alternatives(table, text)
            .iter()
            .any(|text| message.contains(text))
        {
            errors.push(format!(
                "error text: expected {text:?} in it, got {:?}",
                message.trim_end()
            ));
        }
    }
    for pattern in texts(expect.error_matches.as_ref()) {
        if !Regex::new(&format!("(?s){pattern}")).is_ok_and(|regex| regex.is_match(message)) {
            errors.push(format!(
                "error text: expected it to match {pattern:?}, got {:?}",
                message.trim_end()
            ));
        }
    }
    for text in expect.log_contains.0.iter().filter(|text| !log.contains(*text)) {
        errors.push(format!("output: expected {text:?} in it"));
    }
    for text in expect.log_lacks.0.iter().filter(|text| log.contains(*text)) {
        errors.push(format!("output: expected no {text:?} in it"));
    }
    for text in expect
        .call_output_contains
        .0
        .iter()
        .filter(|text| !log.contains(*text))
    {
        errors.push(format!("output of the call: expected {text:?} in it"));
    }
    if let Some(want) = &expect.error_lines {
        let want: BTreeSet<usize> = want.iter().copied().collect();
        let found = marked_lines(log);
        if found != want {
            errors.push(format!(
                "lines that the error points at: expected {want:?}, got {found:?}"
            ));
        }
    }
    if let Some(want) = &expect.warnings {
        let found = warnings(log);
        let mut left: Vec<_> = found.iter().collect();
        for want in want {
            let hit = left.iter().position(|(line, rule, detail)| {
                *rule == want.rule
                    && want.line.is_none_or(|want| want == *line)
                    && detail.contains(&want.detail_contains)
            });
            if let Some(hit) = hit {
                left.remove(hit);
            } else {
                errors.push(format!("warning missing: {want:?}; got {found:?}"));
            }
        }
        if !left.is_empty() {
            errors.push(format!("warnings that nobody expected: {left:?}"));
        }
    }
    errors
}

fn texts(texts: Option<&Texts>) -> &[String] {
    texts.map_or(&[], |texts| &texts.0)
}

/// Lines marked in excerpts: `   3 | >>> COPY x y`.
fn marked_lines(log: &str) -> BTreeSet<usize> {
    log.lines()
        .filter_map(|line| {
            let (number, rest) = line.split_once('|')?;
            rest.starts_with(" >>>").then(|| number.trim().parse().ok())?
        })
        .collect()
}

/// Warnings, each once: `WARN: Rule: detail (line 3)`.
fn warnings(log: &str) -> BTreeSet<(usize, String, String)> {
    log.lines()
        .filter_map(|line| {
            let rest = line.split_once("WARN: ")?.1;
            let (rule, rest) = rest.split_once(": ")?;
            let (detail, number) = rest.strip_suffix(')')?.rsplit_once(" (line ")?;
            Some((number.parse().ok()?, rule.to_owned(), detail.to_owned()))
        })
        .collect()
}
