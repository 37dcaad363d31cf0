//! What two builds of the same case may not differ in: everything that a user of the image can see, save times of
//! things that the build itself made.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use serde_json::Value;

use crate::{
    case::Case,
    check::{Outcome, quote},
    image::{Entry, FileSystem, Layout, list},
    run::Runner,
};

/// Times later than this many seconds ago are the build's own.
const FRESH: i64 = 24 * 3600;

/// Comments of history entries that an exporter adds for layers without one.
const MADE_UP: [&str; 2] = ["buildkit.exporter.image.v0", "slipway: no history"];

/// A finished build.
pub(super) struct Built {
    pub(super) success: bool,
    pub(super) log: String,
    pub(super) broken: Option<String>,
    /// By platform.
    images: BTreeMap<String, Picture>,
}

struct Picture {
    config: Value,
    files: FileSystem,
    layers: Vec<BTreeSet<String>>,
}

impl Built {
    /// Builds the case in `work`.
    pub(super) fn of(runner: &Runner<'_>, case: &Case, work: &Path) -> Result<Self> {
        let _ = fs::remove_dir_all(work);
        fs::create_dir_all(work)?;
        let out = work.join("out");
        let bases = match runner.images(case, work, &[])? {
            Ok(bases) => bases,
            Err(outcome) => return Ok(Self::without_images(outcome)),
        };
        let outcome = runner.build(&case.first, work, &out, &bases, &[])?;
        if !outcome.success {
            return Ok(Self::without_images(outcome));
        }
        let layout = Layout::open(&out)?;
        let mut images = BTreeMap::new();
        for image in layout.images()? {
            let (files, layers) = layout.flatten(&image)?;
            let picture = Picture {
                config: image.config,
                files,
                layers: layers.into_iter().map(BTreeSet::from_iter).collect(),
            };
            images.insert(image.platform, picture);
        }
        Ok(Self {
            images,
            ..Self::without_images(outcome)
        })
    }

    fn without_images(outcome: Outcome) -> Self {
        Self {
            success: outcome.success,
            log: outcome.log,
            broken: outcome.broken,
            images: BTreeMap::new(),
        }
    }

    /// Why it failed, in the last words, without what differs from case to case.
    pub(super) fn reason(&self) -> String {
        let last = self.log.lines().rfind(|line| !line.trim().is_empty());
        let text: String = last
            .unwrap_or_default()
            .chars()
            .filter(|c| !c.is_ascii_digit())
            .take(110)
            .collect();
        text.rsplit("failed to solve: ")
            .next()
            .unwrap_or_default()
            .to_owned()
    }

    fn tail(&self) -> String {
        let lines: Vec<&str> = self.log.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(6)..].join(" / ")
    }
}

/// All differences, the most telling first.
pub(super) fn differences(theirs: &Built, ours: &Built) -> Vec<String> {
    let mut found = Vec::new();
    for (who, built) in [("BuildKit", theirs), ("ours", ours)] {
        if let Some(broken) = &built.broken {
            found.push(format!("broken: {who}: {broken}: {}", built.tail()));
        }
    }
    match (theirs.success, ours.success) {
        (true, false) => found.push(format!(
            "refused: BuildKit builds it, ours does not: {}",
            ours.tail()
        )),
        (false, true) => found.push(format!(
            "accepted: ours builds it, BuildKit does not: {}",
            theirs.tail()
        )),
        _ => {}
    }
    for platform in theirs
        .images
        .keys()
        .chain(ours.images.keys())
        .collect::<BTreeSet<_>>()
    {
        match (theirs.images.get(platform), ours.images.get(platform)) {
            (Some(theirs), Some(ours)) => compare_images(theirs, ours, &mut found),
            (Some(_), None) if ours.success => found.push(format!("platform: ours lacks {platform}")),
            (None, Some(_)) if theirs.success => found.push(format!("platform: ours has {platform} too")),
            _ => {}
        }
    }
    found
}

fn compare_images(theirs: &Picture, ours: &Picture, found: &mut Vec<String>) {
    compare_files(&theirs.files, &ours.files, found);
    compare_json(&strip(&theirs.config), &strip(&ours.config), "config", found);
    if theirs.layers.len() != ours.layers.len() {
        let (theirs, ours) = (theirs.layers.len(), ours.layers.len());
        found.push(format!("layers: BuildKit has {theirs}, ours {ours}"));
        return;
    }
    for (at, (theirs, ours)) in theirs.layers.iter().zip(&ours.layers).enumerate() {
        if theirs != ours {
            let lacks: Vec<_> = theirs.difference(ours).take(8).collect();
            let more: Vec<_> = ours.difference(theirs).take(8).collect();
            found.push(format!("layer{at}: ours lacks {lacks:?} and has more {more:?}"));
        }
    }
}

/// The config without what must differ: times, and digests of layers that hold times.
fn strip(config: &Value) -> Value {
    let mut config = config.clone();
    if let Some(fields) = config.as_object_mut() {
        fields.remove("created");
        if let Some(rootfs) = fields.get_mut("rootfs").and_then(Value::as_object_mut) {
            let count = rootfs
                .get("diff_ids")
                .and_then(Value::as_array)
                .map_or(0, Vec::len);
            rootfs.insert("diff_ids".into(), count.into());
        }
    }
    let history: Vec<Value> = list(&config, "history")
        .iter()
        .map(|entry| {
            let mut entry = entry.clone();
            if let Some(fields) = entry.as_object_mut() {
                fields.remove("created");
                // Made up for a layer that no instruction made: what a base that is a folder has.
                if fields
                    .get("comment")
                    .is_some_and(|comment| MADE_UP.iter().any(|made_up| comment == made_up))
                {
                    fields.clear();
                }
            }
            entry
        })
        .collect();
    config["history"] = Value::Array(history);
    config
}

fn compare_json(theirs: &Value, ours: &Value, path: &str, found: &mut Vec<String>) {
    match (theirs, ours) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
                let (a, b) = (
                    a.get(key).unwrap_or(&Value::Null),
                    b.get(key).unwrap_or(&Value::Null),
                );
                compare_json(a, b, &format!("{path}.{key}"), found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (at, (a, b)) in a.iter().zip(b).enumerate() {
                compare_json(a, b, &format!("{path}[{at}]"), found);
            }
        }
        (a, b) if a != b => found.push(format!("{path}: BuildKit has {a}, ours {b}")),
        _ => {}
    }
}

fn compare_files(theirs: &FileSystem, ours: &FileSystem, found: &mut Vec<String>) {
    for path in theirs.keys().chain(ours.keys()).collect::<BTreeSet<_>>() {
        match (theirs.get(path), ours.get(path)) {
            (Some(a), None) => found.push(format!("missing: {path}: BuildKit has a {} there", a.kind)),
            (None, Some(b)) => found.push(format!("extra: {path}: ours has a {} there", b.kind)),
            (Some(a), Some(b)) => {
                let fields = entry_differences(a, b);
                if !fields.is_empty() {
                    found.push(format!("file: {path}: {}", fields.join("; ")));
                }
            }
            (None, None) => {}
        }
    }
    let (a, b) = (inodes(theirs), inodes(ours));
    if a != b {
        found.push(format!("hardlinks: BuildKit has {a:?}, ours {b:?}"));
    }
}

/// Groups of paths that share an inode.
fn inodes(files: &FileSystem) -> BTreeSet<BTreeSet<&str>> {
    let mut groups: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (path, entry) in files {
        if let Some(target) = &entry.hardlink {
            groups
                .entry(target)
                .or_insert_with(|| BTreeSet::from([target.as_str()]))
                .insert(path);
        }
    }
    groups.into_values().collect()
}

fn entry_differences(a: &Entry, b: &Entry) -> Vec<String> {
    let mut found = Vec::new();
    let mut field = |name: &str, a: String, b: String| {
        if a != b {
            found.push(format!("{name}: BuildKit {a}, ours {b}"));
        }
    };
    field("type", a.kind.to_owned(), b.kind.to_owned());
    field("mode", format!("{:04o}", a.mode), format!("{:04o}", b.mode));
    field(
        "owner",
        format!("{}:{}", a.uid, a.gid),
        format!("{}:{}", b.uid, b.gid),
    );
    field("link", format!("{:?}", a.link), format!("{:?}", b.link));
    field("device", format!("{:?}", a.device), format!("{:?}", b.device));
    field("xattrs", format!("{:?}", a.xattrs), format!("{:?}", b.xattrs));
    if a.data != b.data {
        field(
            "content",
            a.data.as_deref().map_or("none".into(), quote),
            b.data.as_deref().map_or("none".into(), quote),
        );
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs() as i64);
    let time = |entry: &Entry| {
        if now - entry.mtime < FRESH {
            "the build's".to_owned()
        } else {
            entry.mtime.to_string()
        }
    };
    field("mtime", time(a), time(b));
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn built(config: Value, files: &[(&str, Entry)]) -> Built {
        let files: FileSystem = files
            .iter()
            .map(|(path, entry)| ((*path).to_owned(), entry.clone()))
            .collect();
        let layers = vec![files.keys().cloned().collect()];
        Built {
            success: true,
            log: String::new(),
            broken: None,
            images: BTreeMap::from([(
                "linux/amd64".to_owned(),
                Picture {
                    config,
                    files,
                    layers,
                },
            )]),
        }
    }

    fn file(mode: u32, mtime: i64) -> Entry {
        Entry {
            kind: "file",
            mode,
            mtime,
            data: Some(b"x".to_vec()),
            ..Entry::default()
        }
    }

    #[test]
    fn each_kind_of_difference_is_seen_and_fresh_times_are_not() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
        let config =
            |user: &str, created: &str| json!({"config": {"User": user}, "created": created, "history": []});
        let one = built(config("a", "1"), &[("/f", file(0o644, now))]);
        let cases = [
            (built(config("a", "2"), &[("/f", file(0o644, now - 5))]), 0),
            (built(config("b", "1"), &[("/f", file(0o644, now))]), 1),
            (built(config("a", "1"), &[("/f", file(0o600, now))]), 1),
            (built(config("a", "1"), &[("/f", file(0o644, 7))]), 1),
            (built(config("a", "1"), &[]), 2),
        ];
        for (at, (other, count)) in cases.iter().enumerate() {
            assert_eq!(differences(&one, other).len(), *count, "case {at}");
        }
        let failed = Built {
            success: false,
            log: String::new(),
            broken: None,
            images: BTreeMap::new(),
        };
        assert_eq!(differences(&one, &failed).len(), 1);
        assert_eq!(differences(&failed, &one).len(), 1);
        assert!(differences(&failed, &failed).is_empty());
    }
}
