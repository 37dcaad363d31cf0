//! A diagnostic as plain text.

use std::fmt::Write as _;

use unicode_width::UnicodeWidthChar as _;

use super::{Diagnostic, ExcerptLine};
use crate::ast::Span;

pub(super) fn render(diagnostic: &Diagnostic) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_all(&mut out, diagnostic);
    out
}

fn write_all(out: &mut String, diagnostic: &Diagnostic) -> std::fmt::Result {
    let message = visible(&diagnostic.message);
    writeln!(
        out,
        "{}[{}]: {message}",
        diagnostic.severity.name(),
        diagnostic.code
    )?;
    let last = diagnostic.excerpt.last().map_or(0, |line| line.number);
    let gutter = last.to_string().len();
    if let Some(place) = place(diagnostic) {
        writeln!(out, "{:gutter$}--> {place}", "")?;
    }
    if !diagnostic.excerpt.is_empty() {
        excerpt(out, diagnostic, gutter)?;
    }
    for advice in &diagnostic.advice {
        writeln!(out, "{:gutter$} = help: {}", "", visible(advice))?;
    }
    if let Some(url) = &diagnostic.url {
        writeln!(out, "{:gutter$} = see: {}", "", visible(url))?;
    }
    Ok(())
}

fn place(diagnostic: &Diagnostic) -> Option<String> {
    let span = diagnostic.focus.or(diagnostic.span);
    let file = visible(&diagnostic.file);
    match (span, file.is_empty()) {
        (None, true) => None,
        (None, false) => Some(file),
        (Some(span), _) => {
            let line = diagnostic
                .excerpt
                .iter()
                .find(|line| line.number == span.first_line);
            let column = line.filter(|line| span.start >= line.offset).map_or(1, |line| {
                let end = (span.start - line.offset).min(line.text.len());
                line.cut + line.text.char_indices().take_while(|(at, _)| *at < end).count() + 1
            });
            Some(format!("{file}:{}:{column}", span.first_line))
        }
    }
}

fn excerpt(out: &mut String, diagnostic: &Diagnostic, gutter: usize) -> std::fmt::Result {
    writeln!(out, "{:gutter$} |", "")?;
    let mut previous = None;
    for line in &diagnostic.excerpt {
        if previous.is_some_and(|previous| previous + 1 < line.number) {
            writeln!(out, "{:gutter$} :", "")?;
        }
        previous = Some(line.number);
        let ellipsis = if line.cut > 0 { "…" } else { "" };
        let text = format!("{ellipsis}{}", visible(&line.text));
        writeln!(out, "{:>gutter$} | {text}", line.number)?;
        let shift = usize::from(line.cut > 0);
        let main = diagnostic
            .focus
            .or_else(|| diagnostic.span.map(|span| first_line_of(span, line)));
        if let Some((indent, width)) = main.and_then(|span| carets(span, line)) {
            let indent = " ".repeat(indent + shift);
            writeln!(out, "{:gutter$} | {indent}{}", "", "^".repeat(width))?;
        }
        for label in &diagnostic.related {
            if label.span.first_line == line.number
                && let Some((indent, width)) = carets(label.span, line)
            {
                let indent = " ".repeat(indent + shift);
                writeln!(
                    out,
                    "{:gutter$} | {indent}{} {}",
                    "",
                    "-".repeat(width),
                    visible(&label.text)
                )?;
            }
        }
    }
    Ok(())
}

/// Without a focus the first line of the span is marked, whatever the span's length.
fn first_line_of(span: Span, line: &ExcerptLine) -> Span {
    let end = if line.number == span.first_line {
        (line.offset + line.text.len()).min(span.end)
    } else {
        span.end
    };
    Span {
        end,
        last_line: span.first_line,
        ..span
    }
}

/// Where the carets of a span begin on a line and how many there are, in columns.
fn carets(span: Span, line: &ExcerptLine) -> Option<(usize, usize)> {
    if line.number < span.first_line || line.number > span.last_line {
        return None;
    }
    let start = span.start.saturating_sub(line.offset).min(line.text.len());
    let end = span.end.saturating_sub(line.offset).min(line.text.len());
    let width = |from: usize, to: usize| -> usize {
        line.text
            .char_indices()
            .filter(|(at, _)| *at >= from && *at < to)
            .map(|(_, c)| columns(c))
            .sum()
    };
    // The blanks that a continuation line begins with are not part of what is meant.
    let blanks = line.text.len() - line.text.trim_start().len();
    let start = if line.number > span.first_line {
        start.max(blanks)
    } else {
        start
    };
    if end < start || (end == start && line.number > span.first_line) {
        return None;
    }
    Some((width(0, start), width(start, end).max(1)))
}

fn columns(c: char) -> usize {
    match c {
        '\t' => 4,
        _ => visible_char(c).width().unwrap_or(1),
    }
}

/// A control character must not reach a terminal; a change of writing direction would show another text than runs.
fn visible_char(c: char) -> char {
    match c {
        '\0'..='\u{1f}' => char::from_u32(0x2400 + u32::from(c)).unwrap_or(' '),
        '\u{7f}' => '␡',
        '\u{80}'..='\u{9f}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            '\u{fffd}'
        }
        _ => c,
    }
}

fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => out.push_str("    "),
            '\n' => out.push('\n'),
            _ => out.push(visible_char(c)),
        }
    }
    out
}
