//! How much is kept, and the removal of what nobody has used for long.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::{StreamExt as _, TryStreamExt as _};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use slipway_oci::Digest;

use super::{Kind, Stamp};
use crate::{
    error::{Class, Result},
    manifest::Manifest,
    repository::Repository,
};

/// Manifests read at once.
const PARALLEL: usize = 16;

/// What one build keeps of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// What it is.
    pub kind: Kind,
    /// The build that made it, as `namespace/name`; empty where that is not written down.
    pub build: String,
    /// How many there are.
    pub count: u64,
    /// Bytes of manifests and blobs. What several have in common counts once: for the first kind, in the order of
    /// [`Kind`], and the first build by name. So the sum over all rows is what the repository holds for Slipway; in the
    /// answer of [`prune`] it is what nothing else of Slipway needs.
    pub bytes: u64,
    /// When the oldest was made; none where that is not written down.
    pub oldest: Option<Timestamp>,
    /// When one was last used, to the day.
    pub last_used: Option<Timestamp>,
}

/// What [`prune`] removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// What was used since is kept. Uses are noted once a day, so less than two days may remove what is in use.
    pub max_age: Duration,
    /// Of what is older, the most recently used is kept until all that is kept has so many bytes.
    pub keep: u64,
    /// Only say what would be removed.
    pub dry_run: bool,
}

/// What is kept in a repository, by kind and build. A repository that does not exist keeps nothing.
///
/// # Errors
/// Those of reading; what is removed meanwhile is no error.
pub async fn usage(repository: &Repository) -> Result<Vec<Row>> {
    let things = things(repository).await?;
    Ok(rows(things.iter(), BTreeSet::new()))
}

/// Removes what was not used for long, tags and manifests; blobs and the images that stage results lead to are left to
/// the registry's own garbage collection. Gives what was (or would be) removed.
///
/// # Errors
/// [`Class::Unsupported`] where the registry deletes nothing, [`Class::Denied`] where the credentials do not allow it;
/// what was removed before stays so.
pub async fn prune(repository: &Repository, policy: &Policy) -> Result<Vec<Row>> {
    let (removed, kept) = choose(things(repository).await?, policy, Timestamp::now());
    if !policy.dry_run {
        for thing in &removed {
            remove(repository, thing).await?;
        }
    }
    let needed = kept
        .iter()
        .flat_map(|thing| thing.parts.keys().cloned())
        .collect();
    Ok(rows(removed.iter(), needed))
}

/// A manifest with its tags.
#[derive(Debug, Clone)]
struct Thing {
    kind: Kind,
    digest: Digest,
    tags: Vec<String>,
    /// None for a manifest that Slipway's tag leads to and that is not Slipway's: an image of an earlier version, or what
    /// somebody else has put there.
    stamp: Option<Stamp>,
    /// The manifest itself, what it names, and what an index's manifests name: digest and bytes.
    parts: BTreeMap<Digest, u64>,
}

impl Thing {
    fn used(&self) -> Timestamp {
        self.stamp
            .as_ref()
            .map_or(Timestamp::UNIX_EPOCH, |stamp| stamp.used)
    }
}

/// An image manifest, an artifact or an index.
#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    config: Option<Part>,
    #[serde(default)]
    layers: Option<Vec<Part>>,
    #[serde(default)]
    manifests: Option<Vec<Part>>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Part {
    digest: Digest,
    size: u64,
}

impl Document {
    fn parts(&self) -> impl Iterator<Item = (Digest, u64)> {
        let layers = self
            .layers
            .iter()
            .flatten()
            .chain(self.manifests.iter().flatten());
        let parts = self.config.iter().chain(layers);
        parts.map(|part| (part.digest.clone(), part.size))
    }
}

async fn things(repository: &Repository) -> Result<Vec<Thing>> {
    let tags = match repository.tags().await {
        Ok(tags) => tags,
        Err(error) if error.class() == Class::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let ours = tags
        .into_iter()
        .filter_map(|tag| Kind::of_tag(&tag).map(|kind| (kind, tag)));
    let read = futures::stream::iter(ours)
        .map(|(kind, tag)| async move {
            match repository.get_manifest(tag.as_str()).await {
                Ok(manifest) => Ok(Some((kind, tag, manifest))),
                Err(error) if gone_or_broken(error.class()) => Ok(None),
                Err(error) => Err(error),
            }
        })
        .buffered(PARALLEL)
        .try_filter_map(|found| async move { Ok(found) })
        .try_collect::<Vec<_>>()
        .await?;
    let mut things: BTreeMap<Digest, (Thing, Document)> = BTreeMap::new();
    for (kind, tag, manifest) in read {
        let Ok(document) = serde_json::from_slice::<Document>(&manifest.bytes) else {
            continue;
        };
        things
            .entry(manifest.digest.clone())
            .or_insert_with(|| (thing(kind, &manifest, &document), document))
            .0
            .tags
            .push(tag);
    }
    futures::stream::iter(things.into_values())
        .map(|(mut thing, document)| async move {
            for child in document.manifests.into_iter().flatten() {
                match repository.get_manifest(&child.digest).await {
                    Ok(manifest) => {
                        if let Ok(document) = serde_json::from_slice::<Document>(&manifest.bytes) {
                            thing.parts.extend(document.parts());
                        }
                    }
                    Err(error) if gone_or_broken(error.class()) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(thing)
        })
        .buffered(PARALLEL)
        .try_collect()
        .await
}

/// Nothing to count there. A broken manifest is none of ours to judge either.
fn gone_or_broken(class: Class) -> bool {
    matches!(
        class,
        Class::NotFound | Class::DigestMismatch | Class::InvalidResponse | Class::TooLarge
    )
}

fn thing(kind: Kind, manifest: &Manifest, document: &Document) -> Thing {
    let own = (manifest.digest.clone(), manifest.bytes.len() as u64);
    Thing {
        kind,
        digest: manifest.digest.clone(),
        tags: Vec::new(),
        stamp: Stamp::read(&document.annotations),
        parts: document.parts().chain([own]).collect(),
    }
}

/// What goes and what stays.
fn choose(mut things: Vec<Thing>, policy: &Policy, now: Timestamp) -> (Vec<Thing>, Vec<Thing>) {
    let age = SignedDuration::try_from(policy.max_age).unwrap_or(SignedDuration::MAX);
    let limit = now.checked_sub(age).unwrap_or(Timestamp::MIN);
    // The most recently used first.
    things.sort_by_key(|thing| std::cmp::Reverse(thing.used()));
    let mut seen = BTreeSet::new();
    let mut bytes = 0;
    let (mut removed, mut kept) = (Vec::new(), Vec::new());
    for thing in things {
        let new = thing.parts.iter().filter(|(part, _)| !seen.contains(*part));
        let with: u64 = bytes + new.map(|(_, size)| size).sum::<u64>();
        if thing.used() >= limit || with <= policy.keep {
            bytes = with;
            seen.extend(thing.parts.keys().cloned());
            kept.push(thing);
        } else {
            removed.push(thing);
        }
    }
    (removed, kept)
}

async fn remove(repository: &Repository, thing: &Thing) -> Result<()> {
    let gone_is_fine = |result: Result<()>| match result {
        Err(error) if error.class() == Class::NotFound => Ok(()),
        other => other,
    };
    if thing.stamp.is_some() {
        // The manifest is Slipway's alone, and all tags that lead to it go with it.
        return gone_is_fine(repository.delete_manifest(&thing.digest).await);
    }
    // It may be somebody's image: only our names for it go.
    for tag in &thing.tags {
        gone_is_fine(repository.delete_manifest(tag.as_str()).await)?;
    }
    Ok(())
}

/// Summed up by kind and build. What is in `seen` does not count.
fn rows<'a>(things: impl Iterator<Item = &'a Thing>, mut seen: BTreeSet<Digest>) -> Vec<Row> {
    let mut groups: BTreeMap<(Kind, &str), Vec<&Thing>> = BTreeMap::new();
    for thing in things {
        let build = thing.stamp.as_ref().map_or("", |stamp| stamp.build.as_str());
        groups.entry((thing.kind, build)).or_default().push(thing);
    }
    let mut rows = Vec::with_capacity(groups.len());
    for ((kind, build), things) in groups {
        let mut bytes = 0;
        for (part, size) in things.iter().flat_map(|thing| &thing.parts) {
            if seen.insert(part.clone()) {
                bytes += size;
            }
        }
        let stamps = || things.iter().filter_map(|thing| thing.stamp.as_ref());
        rows.push(Row {
            kind,
            build: build.to_owned(),
            count: things.len() as u64,
            bytes,
            oldest: stamps().map(|stamp| stamp.created).min(),
            last_used: stamps().map(|stamp| stamp.used).max(),
        });
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn made(kind: Kind, name: &str, used: i64, parts: &[(&str, u64)]) -> Thing {
        Thing {
            kind,
            digest: Digest::of(name.as_bytes()),
            tags: vec![format!("slipway-{kind}-{name}")],
            stamp: Some(Stamp {
                created: at(used - 1),
                used: at(used),
                build: "a/b".into(),
            }),
            parts: parts
                .iter()
                .map(|(name, size)| (Digest::of(name.as_bytes()), *size))
                .collect(),
        }
    }

    fn names(things: &[Thing]) -> Vec<&str> {
        let tags = things.iter().flat_map(|thing| &thing.tags);
        tags.map(|tag| tag.rsplit('-').next().unwrap()).collect()
    }

    #[test]
    fn what_is_old_goes_from_the_oldest_on_until_little_enough_is_kept() {
        let things = || {
            vec![
                made(Kind::Step, "old", 100, &[("a", 10)]),
                made(Kind::Step, "older", 50, &[("a", 10), ("b", 20)]),
                made(Kind::Step, "new", 900, &[("c", 40)]),
            ]
        };
        let policy = |keep| Policy {
            max_age: Duration::from_secs(500),
            keep,
            dry_run: true,
        };
        for (keep, gone) in [
            (0, vec!["old", "older"]),
            (49, vec!["old", "older"]),
            (50, vec!["older"]),
            (70, vec![]),
        ] {
            assert_eq!(
                names(&choose(things(), &policy(keep), at(1000)).0),
                gone,
                "{keep}"
            );
        }
    }

    #[test]
    fn what_says_nothing_of_its_use_counts_as_never_used() {
        let mut thing = made(Kind::Stage, "x", 999, &[("a", 1)]);
        thing.stamp = None;
        let policy = Policy {
            max_age: Duration::from_secs(500),
            keep: 0,
            dry_run: true,
        };
        assert_eq!(choose(vec![thing], &policy, at(1000)).0.len(), 1);
    }

    #[test]
    fn shared_bytes_count_once() {
        let things = [
            made(Kind::Step, "one", 10, &[("a", 5), ("b", 7)]),
            made(Kind::Stage, "two", 20, &[("a", 5), ("c", 1)]),
        ];
        let all = rows(things.iter(), BTreeSet::new());
        let short: Vec<_> = all.iter().map(|row| (row.kind, row.count, row.bytes)).collect();
        assert_eq!(short, [(Kind::Stage, 1, 6), (Kind::Step, 1, 7)]);
        assert_eq!(all[0].oldest, Some(at(19)));
    }
}
