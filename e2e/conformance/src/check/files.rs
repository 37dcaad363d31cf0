//! Comparison of file systems and of what layers hold.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;

use crate::{
    base,
    expect::{FileWant, LayerWant, Short},
    image::{Entry, FileSystem, normal},
    tree,
};

/// Bytes as they can be read in a report.
pub(crate) fn quote(data: &[u8]) -> String {
    const LIMIT: usize = 400;
    let text = String::from_utf8_lossy(&data[..data.len().min(LIMIT)]).into_owned();
    let rest = if data.len() > LIMIT {
        format!("… ({} bytes)", data.len())
    } else {
        String::new()
    };
    format!("{text:?}{rest}")
}

/// Checks paths of a result.
pub(super) fn check(
    want: &BTreeMap<String, Short<FileWant>>,
    found: &FileSystem,
    first: Option<&FileSystem>,
    errors: &mut Vec<String>,
) {
    for (path, Short(want)) in want {
        let path = normal(path);
        match found.get(&path) {
            Some(entry) if want.absent => errors.push(format!(
                "{path}: expected it absent, got a {} {}",
                entry.kind,
                entry.data.as_deref().map(quote).unwrap_or_default()
            )),
            None if want.absent => {}
            None => errors.push(format!(
                "{path}: expected it, it is missing{}",
                neighbours(&path, found)
            )),
            Some(entry) => check_one(&path, want, entry, found, first, errors),
        }
    }
}

/// What lies in the folder where a path was expected.
fn neighbours(path: &str, found: &FileSystem) -> String {
    let dir = &path[..=path.rfind('/').unwrap_or(0)];
    let names: Vec<&str> = found
        .keys()
        .filter_map(|other| other.strip_prefix(dir))
        .filter(|name| !name.is_empty() && !name.contains('/'))
        .take(12)
        .collect();
    if names.is_empty() {
        format!(" ({dir} is empty or missing)")
    } else {
        format!(" ({dir} has {})", names.join(" "))
    }
}

fn check_one(
    path: &str,
    want: &FileWant,
    entry: &Entry,
    found: &FileSystem,
    first: Option<&FileSystem>,
    errors: &mut Vec<String>,
) {
    let mut differs = |what: &str, want: String, got: String| {
        errors.push(format!("{path}: expected {what} {want}, got {got}"));
    };
    let data = entry.data.as_deref();
    let shown = || match (&entry.link, data) {
        (Some(link), _) => format!("a symlink to {link}"),
        (None, Some(data)) => quote(data),
        (None, None) => format!("a {}", entry.kind),
    };
    if let Some(kind) = want.kind.as_deref().filter(|kind| *kind != entry.kind) {
        differs("type", kind.to_owned(), entry.kind.to_owned());
    }
    if let Some(content) = want
        .content
        .as_deref()
        .filter(|content| data != Some(content.as_bytes()))
    {
        differs("content", quote(content.as_bytes()), shown());
    }
    if let Some(pattern) = &want.content_matches {
        let text = String::from_utf8_lossy(data.unwrap_or_default());
        match Regex::new(&format!("(?sm){pattern}")) {
            Ok(regex) if regex.is_match(&text) => {}
            Ok(_) => differs("content that matches", format!("{pattern:?}"), shown()),
            Err(error) => differs("a valid pattern", pattern.clone(), error.to_string()),
        }
    }
    if let Some(sum) = &want.sha256 {
        let got = base::digest(data.unwrap_or_default());
        if got.trim_start_matches("sha256:") != sum {
            differs("sha256", sum.clone(), got);
        }
    }
    if let Some(size) = want.size.filter(|size| *size != entry.size) {
        differs("size", size.to_string(), entry.size.to_string());
    }
    if let Some(mode) = &want.mode
        && tree::octal(Some(mode), 0).ok() != Some(entry.mode)
    {
        differs("mode", mode.clone(), format!("{:04o}", entry.mode));
    }
    if let Some(uid) = want.uid.filter(|uid| *uid != entry.uid) {
        differs("uid", uid.to_string(), entry.uid.to_string());
    }
    if let Some(gid) = want.gid.filter(|gid| *gid != entry.gid) {
        differs("gid", gid.to_string(), entry.gid.to_string());
    }
    if let Some(mtime) = want.mtime.filter(|mtime| *mtime != entry.mtime) {
        differs("mtime", mtime.to_string(), entry.mtime.to_string());
    }
    if let Some(link) = want
        .link
        .as_deref()
        .filter(|link| entry.link.as_deref() != Some(*link))
    {
        differs("link to", link.to_owned(), shown());
    }
    if let Some(other) = &want.same_inode_as {
        let other = normal(other);
        let back = found.get(&other).and_then(|entry| entry.hardlink.as_deref());
        if entry.hardlink.as_deref() != Some(other.as_str()) && back != Some(path) {
            differs("a hard link of", other, format!("{:?}", entry.hardlink));
        }
    }
    if want.same_as_first || want.differs_from_first {
        let before = first
            .and_then(|first| first.get(path))
            .and_then(|entry| entry.data.as_deref());
        if before.is_none() {
            differs(
                "it in the first build too",
                "something".to_owned(),
                "nothing".to_owned(),
            );
        } else if want.same_as_first && before != data {
            differs(
                "the first build's content (a cache hit):",
                quote(before.unwrap_or_default()),
                shown(),
            );
        } else if want.differs_from_first && before == data {
            differs(
                "content other than the first build's (a cache miss):",
                "another".to_owned(),
                shown(),
            );
        }
    }
}

/// Checks the paths of one layer's archive.
pub(super) fn check_layer(at: usize, want: &LayerWant, found: &[String], errors: &mut Vec<String>) {
    let has = |path: &String| found.contains(&normal(path));
    for path in want.has.iter().filter(|path| !has(path)) {
        errors.push(format!("layer {at}: expected {path} in it, got {found:?}"));
    }
    for path in want.lacks.iter().filter(|path| has(path)) {
        errors.push(format!("layer {at}: expected no {path} in it, got {found:?}"));
    }
    if let Some(only) = &want.only {
        exactly(&format!("layer {at}"), only, found.iter(), errors);
    }
}

/// Checks a complete list of paths.
pub(super) fn exactly<'a>(
    what: &str,
    want: &[String],
    found: impl Iterator<Item = &'a String>,
    errors: &mut Vec<String>,
) {
    let mut found: Vec<String> = found.cloned().collect();
    let mut want: Vec<String> = want.iter().map(|path| normal(path)).collect();
    found.sort_unstable();
    want.sort_unstable();
    if found != want {
        let (a, b) = (
            want.iter().collect::<BTreeSet<_>>(),
            found.iter().collect::<BTreeSet<_>>(),
        );
        let (missing, more) = (
            a.difference(&b).collect::<Vec<_>>(),
            b.difference(&a).collect::<Vec<_>>(),
        );
        errors.push(format!(
            "{what}: expected exactly {want:?}, got {found:?} (missing {missing:?}, more {more:?})"
        ));
    }
}
