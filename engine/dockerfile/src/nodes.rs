//! The file cut into instructions: continuations joined, comments dropped, flags and heredocs taken out, arguments split
//! by each instruction's way of splitting. Nothing is judged yet; that is `parse`'s work.

use serde::{Deserialize, Serialize};

use crate::{
    ast::{Heredoc, KeyValue, Span, Word},
    diagnostic::Diagnostic,
    directive, heredoc,
    source::{Joined, Line, Slice, Source},
};

mod args;
#[cfg(test)]
mod tests;
mod words;

/// The longest line that is read, in bytes with its line end; BuildKit's bound.
pub const MAX_LINE: usize = 64 * 1024;

/// The most instructions that are read, so that a file of a few megabytes cannot take hundreds of megabytes of memory.
/// An image cannot have so many layers, by far.
pub const MAX_INSTRUCTIONS: usize = 50_000;

/// After so many errors the rest is most likely noise.
pub(crate) const MAX_ERRORS: usize = 50;

/// One instruction, not yet judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The keyword as written.
    pub keyword: Word,
    /// The flags in front of the arguments, quotes and backslashes removed.
    pub flags: Vec<Word>,
    /// The arguments.
    pub args: Args,
    /// The heredocs with their bodies.
    pub heredocs: Vec<Heredoc>,
    /// The instruction's text, continuation lines joined; a blank at its end is kept.
    pub original: String,
    /// Where it stands, heredoc bodies included.
    pub span: Span,
    /// The lines of comment above, without `#`. An empty comment line cuts off what is above it.
    pub comments: Vec<String>,
}

/// How the arguments came out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Args {
    /// There are none.
    None,
    /// Words between blanks.
    Words(Vec<Word>),
    /// The names of `ARG`, perhaps with defaults.
    Declarations(Vec<Declaration>),
    /// The whole text.
    Text(Word),
    /// A JSON array of strings.
    Json {
        /// The strings.
        strings: Vec<String>,
        /// Where the array stands.
        span: Span,
    },
    /// Names with values.
    Pairs(Vec<KeyValue>),
    /// `HEALTHCHECK`'s first word and what follows it.
    Health {
        /// `CMD` or `NONE`, or a mistake.
        kind: Word,
        /// The command.
        command: Box<Args>,
    },
    /// `ONBUILD`'s instruction.
    Sub(Box<Node>),
    /// The keyword is not known, so neither is how to split.
    Unknown,
}

/// A word of `ARG`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declaration {
    /// What is in front of the first `=`.
    pub name: Word,
    /// What is behind it.
    pub default: Option<Word>,
}

/// A file cut into instructions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nodes {
    /// The escape character.
    pub escape: char,
    /// The instructions that could be cut.
    pub nodes: Vec<Node>,
    /// Instructions with a blank line inside a continuation.
    pub empty_continuations: Vec<Span>,
    /// What could not be cut.
    pub errors: Vec<Diagnostic>,
}

/// Cuts a file into instructions. `name` is used in messages.
pub fn scan(name: &str, text: &str) -> Nodes {
    let source = Source::new(text);
    let mut scanner = Scanner {
        name,
        source: &source,
        next: 1,
        directives: Some(Vec::new()),
        comments: Vec::new(),
        out: Nodes {
            escape: '\\',
            nodes: Vec::new(),
            empty_continuations: Vec::new(),
            errors: Vec::new(),
        },
    };
    // An error that ends the scan has put itself into `errors`.
    let _ = scanner.run();
    let mut out = scanner.out;
    if out.nodes.is_empty() && out.errors.is_empty() {
        let message = if text.trim_start_matches('\u{feff}').is_empty() {
            "the Dockerfile cannot be empty: file with no instructions"
        } else {
            "file with no instructions"
        };
        let last = source.line(source.line_count()).map_or(0, |line| line.start);
        out.errors.push(
            Diagnostic::error("no-instructions", message)
                .at(name, text, source.span(last, text.len()))
                .advise("begin with FROM: `FROM debian:stable`"),
        );
    }
    out
}

/// The scan cannot go on.
struct Stop;

struct Scanner<'a> {
    name: &'a str,
    source: &'a Source<'a>,
    /// Number of the next line to read.
    next: u32,
    /// Names of directives seen, as long as there may be more.
    directives: Option<Vec<String>>,
    comments: Vec<String>,
    out: Nodes,
}

impl<'a> Scanner<'a> {
    fn run(&mut self) -> Result<(), Stop> {
        while let Some(line) = self.line()? {
            let start = line.start + if line.number == 1 { bom(line.raw) } else { 0 };
            let raw = &self.source.text[start..line.start + line.raw.len()];
            let text = raw.trim_end_matches(['\r', '\n']);
            let trimmed = text.trim_start();
            let offset = start + text.len() - trimmed.len();
            if let Some(rest) = trimmed.strip_prefix('#') {
                let comment = text
                    .chars()
                    .next()
                    .map_or("", |first| &text[first.len_utf8()..])
                    .trim();
                if self.directive(line, rest)? {
                    continue;
                }
                if comment.is_empty() {
                    self.comments.clear();
                } else {
                    self.comments.push(comment.to_owned());
                }
                continue;
            }
            self.directives = None;
            let mut joined = Joined::default();
            let (piece, mut goes_on) = continuation(trimmed, self.out.escape);
            if piece.is_empty() && !goes_on {
                continue;
            }
            joined.push(piece, offset);
            let mut empty_line = false;
            let mut last = line;
            while goes_on {
                let Some(line) = self.line()? else { break };
                last = line;
                let text = line.text();
                let trimmed = text.trim_start();
                if trimmed.starts_with('#') {
                    continue;
                }
                if trimmed.is_empty() {
                    empty_line = true;
                    continue;
                }
                let (piece, more) = continuation(text, self.out.escape);
                joined.push(piece, line.start);
                goes_on = more;
            }
            self.instruction(&joined, line, last, empty_line)?;
        }
        Ok(())
    }

    /// The next line, if it is not too long to be one.
    fn line(&mut self) -> Result<Option<Line<'a>>, Stop> {
        let Some(line) = self.source.line(self.next) else {
            return Ok(None);
        };
        self.next += 1;
        if line.raw.len() > MAX_LINE {
            let message = format!(
                "dockerfile line greater than max allowed size of {}",
                MAX_LINE - 1
            );
            let span = self.source.span(line.start, line.start + line.raw.len());
            self.error(
                Diagnostic::error("line-too-long", message)
                    .at(self.name, self.source.text, span)
                    .advise("put long content into a file and COPY it"),
            )?;
            return Err(Stop);
        }
        Ok(Some(line))
    }

    fn error(&mut self, error: Diagnostic) -> Result<(), Stop> {
        self.out.errors.push(error);
        if self.out.errors.len() < MAX_ERRORS {
            Ok(())
        } else {
            Err(Stop)
        }
    }

    /// Reads a comment as a directive; whether it was one.
    fn directive(&mut self, line: Line<'_>, comment: &str) -> Result<bool, Stop> {
        let Some(seen) = &mut self.directives else {
            return Ok(false);
        };
        let Some(entry) = directive::entry(comment) else {
            self.directives = None;
            return Ok(false);
        };
        let problem = if seen.contains(&entry.name) {
            Some(format!("only one {} parser directive can be used", entry.name))
        } else if entry.name == "escape" && !matches!(entry.value, "\\" | "`") {
            Some(format!(
                "invalid escape token '{}' does not match ` or \\",
                entry.value
            ))
        } else {
            None
        };
        if let Some(message) = problem {
            let span = self.source.span(line.start, line.start + line.text().len());
            self.error(Diagnostic::error("directive", message).at(self.name, self.source.text, span))?;
            return Ok(true);
        }
        if entry.name == "escape" {
            self.out.escape = if entry.value == "`" { '`' } else { '\\' };
        }
        seen.push(entry.name);
        Ok(true)
    }

    fn instruction(
        &mut self,
        joined: &Joined,
        first: Line<'_>,
        last: Line<'_>,
        empty_line: bool,
    ) -> Result<(), Stop> {
        let comments = std::mem::take(&mut self.comments);
        if self.out.nodes.len() >= MAX_INSTRUCTIONS {
            let message = format!("the file has more than {MAX_INSTRUCTIONS} instructions");
            let span = self.source.span(first.start, first.start + first.text().len());
            self.error(Diagnostic::error("too-many-instructions", message).at(
                self.name,
                self.source.text,
                span,
            ))?;
            return Err(Stop);
        }
        let mut span = joined.span(self.source, 0, joined.text.trim_end().len());
        span.first_line = first.number;
        span.last_line = last.number;
        span.end = span.end.max(last.start + last.text().trim_end().len());
        if empty_line {
            self.out.empty_continuations.push(span);
        }
        let cutter = args::Cutter {
            source: self.source,
            joined,
            escape: self.out.escape,
            span,
        };
        let mut node = match cutter.node(Slice::new(&joined.text), 0) {
            Ok(node) => node,
            Err(problem) => return self.error(problem.at(self.name, self.source.text, span)),
        };
        node.comments = comments;
        if node.may_hold_heredocs() && joined.text.contains("<<") {
            let markers = match heredoc::markers(&joined.text) {
                Ok(markers) => markers,
                Err(problem) => {
                    let error = Diagnostic::error("heredoc", problem.to_string());
                    return self.error(error.at(self.name, self.source.text, span));
                }
            };
            for marker in markers {
                let body = self.body(marker, node.span)?;
                node.span = node.span.join(body.span);
                node.heredocs.push(body);
            }
        }
        self.out.nodes.push(node);
        Ok(())
    }

    /// Reads a heredoc's body up to the line that ends it.
    fn body(&mut self, marker: heredoc::Marker, opened: Span) -> Result<Heredoc, Stop> {
        let first = self.next;
        let start = self
            .source
            .line(first)
            .map_or(self.source.text.len(), |line| line.start);
        let mut content = String::new();
        while let Some(line) = self.line()? {
            let text = line.text();
            let end = if marker.chomp {
                text.trim_start_matches('\t')
            } else {
                text
            };
            if end == marker.name {
                let span = Span {
                    first_line: first,
                    last_line: line.number,
                    start,
                    end: line.start + text.len(),
                };
                let heredoc::Marker {
                    name,
                    fd,
                    expand,
                    chomp,
                } = marker;
                return Ok(Heredoc {
                    name,
                    content,
                    fd,
                    expand,
                    chomp,
                    span,
                });
            }
            content.push_str(line.raw);
        }
        let span = Span {
            last_line: self.source.line_count().max(opened.first_line),
            end: self.source.text.len(),
            ..opened
        };
        let error = Diagnostic::error("unterminated-heredoc", "unterminated heredoc")
            .at(self.name, self.source.text, span)
            .focus(opened)
            .advise(format!("end it with a line that holds only {}", marker.name))
            .advise("if `<<` is not meant to open a heredoc, put it into quotes");
        self.error(error)?;
        Err(Stop)
    }
}

/// The length of a byte order mark at the start.
fn bom(text: &str) -> usize {
    if text.starts_with('\u{feff}') {
        '\u{feff}'.len_utf8()
    } else {
        0
    }
}

/// Cuts an escape character at the end of a line off; whether there was one. An escaped escape character is text.
fn continuation(line: &str, escape: char) -> (&str, bool) {
    match line.trim_end_matches([' ', '\t']).strip_suffix(escape) {
        Some(rest) if !rest.ends_with(escape) => (rest, true),
        _ => (line, false),
    }
}

impl Node {
    /// The keyword in upper case.
    pub fn name(&self) -> String {
        self.keyword.text.to_ascii_uppercase()
    }

    fn may_hold_heredocs(&self) -> bool {
        let node = match &self.args {
            Args::Sub(node) if self.name() == "ONBUILD" => node,
            _ => self,
        };
        matches!(node.name().as_str(), "ADD" | "COPY" | "RUN") && !matches!(node.args, Args::Json { .. })
    }

    /// The arguments in one list: the strings of an array, a text as one string, names and values one after another,
    /// an instruction's keyword and arguments.
    pub fn flat_args(&self) -> Vec<String> {
        flatten(&self.args)
    }
}

fn flatten(args: &Args) -> Vec<String> {
    match args {
        Args::None | Args::Unknown => Vec::new(),
        Args::Words(words) => words.iter().map(|word| word.text.clone()).collect(),
        Args::Text(text) => vec![text.text.clone()],
        Args::Json { strings, .. } => strings.clone(),
        Args::Declarations(declarations) => declarations
            .iter()
            .map(|declaration| match &declaration.default {
                Some(default) => format!("{}={}", declaration.name.text, default.text),
                None => declaration.name.text.clone(),
            })
            .collect(),
        Args::Pairs(pairs) => pairs
            .iter()
            .flat_map(|pair| [pair.key.text.clone(), pair.value.text.clone()])
            .collect(),
        Args::Health { kind, command } => std::iter::once(kind.text.clone())
            .chain(flatten(command))
            .collect(),
        Args::Sub(node) => std::iter::once(node.keyword.text.clone())
            .chain(node.flat_args())
            .collect(),
    }
}
