//! What `COPY` and `ADD` do: select files of a tree, and place them in a root. The rules are BuildKit's.
//!
//! ```text
//!  Request{path, wildcard, include, exclude…} ── select ──▶ matches, each a file or a directory
//!      a match ── gather ──▶ [Node] parents first ─┬─ digest ──▶ the key's part (names, modes, owners, bytes; no times)
//!                                                  └─ place  ──▶ files below the destination
//! ```

use crate::{
    context::{Context, Entry, Kind, clean, resolve},
    error::{BuildError, Result},
};
use slipway_dockerfile::{
    glob,
    ignore::{Matcher, ParentState},
};
use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

pub(crate) mod archive;
pub(crate) mod chmod;
mod digest;
mod place;

pub(crate) use digest::digest;
pub(crate) use place::{Destination, Owner, PlaceOptions, give};

/// What is to be copied from one tree.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request<'a> {
    /// The path as asked for, absolute.
    pub path: &'a str,
    /// It may hold wildcards.
    pub wildcard: bool,
    /// Follow links of the source itself.
    pub follow: bool,
    /// `--parents`: the pattern below `path`.
    pub include: Option<&'a str>,
    /// `--parents`: must exist.
    pub required: Option<&'a str>,
    /// `--exclude`
    pub exclude: &'a [String],
}

/// One file or directory that is copied as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Match {
    /// Where it is, links resolved.
    pub source: PathBuf,
    /// As it was named: its last part names the copy.
    pub named: PathBuf,
}

/// A file below a match that is copied; the match itself has an empty `below`.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Where it is in the source.
    pub source: PathBuf,
    /// Its path below the match.
    pub below: PathBuf,
    /// What it is.
    pub entry: Entry,
    /// A directory that no pattern includes: it is copied for what lies in it.
    pub leads: bool,
}

/// The matches of a request, in order.
pub(crate) fn select(context: &dyn Context, request: &Request<'_>) -> Result<Vec<Match>> {
    if let Some(required) = request.required {
        // As BuildKit, to which the root is no path that could be found; where there is nothing it does not look.
        let root = clean(Path::new(required)).as_os_str().is_empty();
        let is_nothing = || Ok(context.list(Path::new(""))?.is_empty());
        if root && !is_nothing().map_err(reading(context, required))? {
            return Err(not_found(context, required));
        }
        let path = resolve(context, Path::new(required), true).map_err(reading(context, required))?;
        if context
            .lookup(&path)
            .map_err(reading(context, required))?
            .is_none()
        {
            return Err(not_found(context, required));
        }
    }
    let (base, pattern) = if request.wildcard {
        split_wildcards(request.path)
    } else {
        (PathBuf::from(request.path), None)
    };
    let mut named = Vec::new();
    if let Some(pattern) = pattern {
        let base = resolve(context, &base, request.follow).map_err(reading(context, request.path))?;
        match context.lookup(&base).map_err(reading(context, request.path))? {
            Some(entry) if entry.is_dir() => {
                expand(context, &base, &pattern, &mut named).map_err(reading(context, request.path))?;
            }
            Some(_) => {}
            None => return Err(not_found(context, &format!("/{}", base.display()))),
        }
    } else {
        named.push(clean(&base));
    }
    let mut matches = Vec::new();
    for name in named {
        let source = resolve(context, &name, request.follow).map_err(reading(context, request.path))?;
        if context
            .lookup(&source)
            .map_err(reading(context, request.path))?
            .is_none()
        {
            return Err(not_found(context, &format!("/{}", name.display())));
        }
        matches.push(Match { source, named: name });
    }
    Ok(matches)
}

fn reading<'a>(context: &'a dyn Context, path: &'a str) -> impl Fn(io::Error) -> BuildError + 'a {
    move |error| BuildError::io(format!("read {path} of {}", context.describe()), error)
}

/// A source that is not there, with what may have been meant.
fn not_found(context: &dyn Context, path: &str) -> BuildError {
    let shown = format!("/{}", path.trim_start_matches('/'));
    let mut message = format!("{shown:?}: not found in {}", context.describe());
    if let Some(pattern) = context.hidden_by(&clean(Path::new(path))) {
        message =
            format!("{message}; it is there, but the ignore file hides it with the pattern {pattern:?}");
    } else if let Some(close) = close_name(context, &clean(Path::new(path))) {
        message = format!("{message}; did you mean {close:?}?");
    }
    BuildError::not_found(message)
}

/// A name in the same directory that is nearly the one asked for.
fn close_name(context: &dyn Context, path: &Path) -> Option<String> {
    let dir = resolve(context, path.parent()?, true).ok()?;
    let wanted = path.file_name()?.to_string_lossy().to_lowercase();
    let entries = context.list(&dir).ok()?;
    let names = entries
        .into_iter()
        .map(|(name, _)| name.to_string_lossy().into_owned());
    names
        .map(|name| (edits(&name.to_lowercase(), &wanted), name))
        .filter(|(edits, _)| *edits <= 1 + wanted.len() / 5)
        .min()
        .map(|(_, name)| format!("/{}", path.with_file_name(name).display()))
}

/// Levenshtein's distance.
fn edits(one: &str, two: &str) -> usize {
    let two: Vec<char> = two.chars().collect();
    let mut row: Vec<usize> = (0..=two.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, b) in two.iter().enumerate() {
            let change = corner + usize::from(a != *b);
            corner = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[two.len()]
}

/// The part of a path before the first wildcard, and the parts from there on.
fn split_wildcards(path: &str) -> (PathBuf, Option<Vec<String>>) {
    let parts: Vec<String> = clean(Path::new(path))
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    match parts.iter().position(|part| glob::has_wildcards(part)) {
        // Without a wildcard nothing is matched, so that backslashes stay what they are.
        None => (parts.iter().collect(), None),
        Some(first) => (parts[..first].iter().collect(), Some(parts[first..].to_vec())),
    }
}

/// The part of a path before its first part with a wildcard.
pub(crate) fn before_wildcards(path: &str) -> PathBuf {
    split_wildcards(path).0
}

/// Everything below `dir` that matches, level by level: a wildcard never crosses a `/`. Links are not followed.
fn expand(context: &dyn Context, dir: &Path, pattern: &[String], found: &mut Vec<PathBuf>) -> io::Result<()> {
    let Some((first, rest)) = pattern.split_first() else {
        return Ok(());
    };
    for (name, entry) in context.list(dir)? {
        if !glob::matches(first, &name.to_string_lossy()).unwrap_or(false) {
            continue;
        }
        let path = dir.join(name);
        if rest.is_empty() {
            found.push(path);
        } else if entry.is_dir() {
            expand(context, &path, rest, found)?;
        }
    }
    Ok(())
}

/// Include and exclude patterns of one copy.
#[derive(Default)]
pub(crate) struct Filter {
    include: Option<(Matcher, Vec<String>)>,
    exclude: Option<(Matcher, bool)>,
}

impl Filter {
    /// The filter of a request.
    pub(crate) fn of(request: &Request<'_>) -> Result<Self> {
        let compile = |patterns: &[&str]| {
            Matcher::new(patterns).map_err(|error| {
                BuildError::new(
                    slipway_plan::protocol::FailureReason::DockerfileInvalid,
                    error.to_string(),
                )
            })
        };
        let include = match request.include {
            Some(pattern) => {
                let parts = pattern
                    .trim_start_matches('/')
                    .split('/')
                    .map(ToOwned::to_owned)
                    .collect();
                Some((compile(&[pattern])?, parts))
            }
            None => None,
        };
        let exclude = if request.exclude.is_empty() {
            None
        } else {
            let patterns: Vec<&str> = request.exclude.iter().map(String::as_str).collect();
            let negated = patterns
                .iter()
                .any(|pattern| pattern.trim_start().starts_with('!'));
            Some((compile(&patterns)?, negated))
        };
        Ok(Self { include, exclude })
    }

    /// Whether something below a directory can still match the include pattern: saves walking what cannot.
    fn may_hold(&self, below: &Path) -> bool {
        let Some((_, pattern)) = &self.include else {
            return true;
        };
        for (index, part) in below.iter().enumerate() {
            let Some(wanted) = pattern.get(index) else {
                return false;
            };
            if wanted.contains("**") {
                return true;
            }
            if !glob::matches(wanted, &part.to_string_lossy()).unwrap_or(true) {
                return false;
            }
        }
        true
    }
}

/// What is copied of one match, parents before children. A directory that only leads to included files comes just
/// before the first of them.
pub(crate) fn gather(context: &dyn Context, one: &Match, filter: &Filter) -> io::Result<Vec<Node>> {
    let entry = context.lookup(&one.source)?.ok_or(io::ErrorKind::NotFound)?;
    let mut gatherer = Gatherer {
        context,
        filter,
        nodes: Vec::new(),
        waiting: Vec::new(),
    };
    gatherer.visit(
        &Node {
            source: one.source.clone(),
            below: PathBuf::new(),
            entry,
            leads: false,
        },
        &ParentState::default(),
        &ParentState::default(),
    )?;
    Ok(gatherer.nodes)
}

struct Gatherer<'a> {
    context: &'a dyn Context,
    filter: &'a Filter,
    nodes: Vec<Node>,
    waiting: Vec<Node>,
}

impl Gatherer<'_> {
    fn visit(&mut self, node: &Node, include: &ParentState, exclude: &ParentState) -> io::Result<()> {
        let (mut included, mut excluded) = (true, false);
        let (mut include, mut exclude) = (include.clone(), exclude.clone());
        if !node.below.as_os_str().is_empty() {
            let name = node.below.to_string_lossy().into_owned();
            if let Some((matcher, _)) = &self.filter.include {
                let verdict = matcher
                    .matches_with_parents(&name, &include)
                    .map_err(io::Error::other)?;
                (included, include) = (verdict.excluded, verdict.state);
            }
            if let Some((matcher, _)) = &self.filter.exclude {
                let verdict = matcher
                    .matches_with_parents(&name, &exclude)
                    .map_err(io::Error::other)?;
                (excluded, exclude) = (verdict.excluded, verdict.state);
                included &= !excluded;
            }
        }
        if included {
            self.nodes.append(&mut self.waiting);
            self.nodes.push(node.clone());
        }
        if !node.entry.is_dir() {
            return Ok(());
        }
        let negated = self.filter.exclude.as_ref().is_some_and(|(_, negated)| *negated);
        if excluded && !negated {
            return Ok(());
        }
        if !included && !self.filter.may_hold(&node.below) {
            return Ok(());
        }
        let list = self.context.list(&node.source)?;
        let depth = self.waiting.len();
        if !included {
            self.waiting.push(Node {
                leads: true,
                ..node.clone()
            });
        }
        for (name, entry) in list {
            let child = Node {
                source: node.source.join(&name),
                below: node.below.join(&name),
                entry,
                leads: false,
            };
            self.visit(&child, &include, &exclude)?;
        }
        self.waiting.truncate(depth.min(self.waiting.len()));
        Ok(())
    }
}

/// The name that a copy of the match gets inside a directory.
pub(crate) fn base_name(one: &Match) -> OsString {
    one.named.file_name().map(ToOwned::to_owned).unwrap_or_default()
}

/// Whether a match is a file that may be an archive.
pub(crate) fn is_file(context: &dyn Context, one: &Match) -> io::Result<bool> {
    Ok(context
        .lookup(&one.source)?
        .is_some_and(|entry| matches!(entry.kind, Kind::File(_))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::MemContext;

    fn tree(paths: &[&str]) -> MemContext {
        MemContext::new(
            paths
                .iter()
                .map(|path| (PathBuf::from(path), b"1".to_vec(), 0o644)),
            (0, 0),
        )
    }

    fn selected(context: &MemContext, path: &str) -> Vec<String> {
        let request = Request {
            path,
            wildcard: true,
            follow: true,
            ..Request::default()
        };
        select(context, &request)
            .unwrap()
            .iter()
            .map(|one| one.named.display().to_string())
            .collect()
    }

    #[test]
    fn wildcards_match_within_one_level() {
        let context = tree(&["a.go", "b.go", "sub/dir/deep", "d/x", "d/e/x", ".h"]);
        assert_eq!(selected(&context, "/*.go"), ["a.go", "b.go"]);
        assert_eq!(selected(&context, "/sub/*/deep"), ["sub/dir/deep"]);
        assert_eq!(selected(&context, "/**/x"), ["d/x"]);
        assert_eq!(selected(&context, "/nothing*"), [""; 0]);
        assert_eq!(selected(&context, "/*h"), [".h"]);
    }

    #[test]
    fn a_missing_source_is_told_with_a_close_name() {
        let request = Request {
            path: "/src/mian.c",
            wildcard: true,
            ..Request::default()
        };
        let error = select(&tree(&["src/main.c"]), &request).unwrap_err().to_string();
        assert_eq!(
            error,
            r#""/src/mian.c": not found in the inline files; did you mean "/src/main.c"?"#
        );
    }

    #[test]
    fn parents_of_included_files_come_first_and_only_once() {
        let context = tree(&["p/q/a.md", "p/q/b.md", "p/c", "z/x"]);
        let request = Request {
            path: "/",
            include: Some("**/*.md"),
            ..Request::default()
        };
        let filter = Filter::of(&request).unwrap();
        let one = select(&context, &request).unwrap().remove(0);
        let nodes = gather(&context, &one, &filter).unwrap();
        let names: Vec<_> = nodes
            .iter()
            .map(|node| node.below.display().to_string())
            .collect();
        assert_eq!(names, ["", "p", "p/q", "p/q/a.md", "p/q/b.md"]);
    }
}
