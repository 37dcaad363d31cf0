//! What Slipway keeps in a repository: contexts, plans, stage results, steps.
//!
//! ```text
//!  slipway-step-<key>[.<scope>]  ─▶ manifest{annotations: created, used, build} ─▶ blobs
//! ```
//! Everything has a tag, because a registry's garbage collector takes what has none; and every tag leads to a manifest
//! that says when it was made, when it was last used and by which build, so that it can be listed ([`usage`]) and
//! removed by age ([`prune`]) without knowing anything else. `used` is written again at most once a day.

use std::{collections::BTreeMap, fmt};

use jiff::{SignedDuration, Timestamp};

use crate::{
    error::{Class, Error, Result},
    manifest::Manifest,
    repository::Repository,
};

mod inventory;

pub use inventory::{Policy, Row, prune, usage};

/// When a manifest was made (image specification, "Pre-Defined Annotation Keys").
const CREATED: &str = "org.opencontainers.image.created";
/// When it was last used, to the day.
const USED: &str = "build.slipway.used";
/// Which build made it, as `namespace/name`.
const BUILD: &str = "build.slipway.build";
/// The beginning of every tag.
const PREFIX: &str = "slipway-";
/// Digits of a key in a tag.
const DIGITS: usize = 40;
/// A use is noted when the last note is older than this.
const NOTED: SignedDuration = SignedDuration::from_hours(24);

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The files that the steps of a build read.
    Context,
    /// What a build does, and why; also under a tag that names the build, for the next one to compare with.
    Plan,
    /// The finished root of a stage, or the image.
    Stage,
    /// The layer of one step.
    Step,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Context, Self::Plan, Self::Stage, Self::Step];

    /// The word in tags.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Context => "context",
            Self::Plan => "plan",
            Self::Stage => "stage",
            Self::Step => "step",
        }
    }

    /// The kind of a tag; none for a tag that is not Slipway's.
    fn of_tag(tag: &str) -> Option<Self> {
        let rest = tag.strip_prefix(PREFIX)?;
        Self::ALL.into_iter().find(|kind| {
            rest.strip_prefix(kind.as_str())
                .is_some_and(|rest| rest.starts_with('-'))
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The tag of a thing: its kind, the first 40 digits of its key, and the scope that it is kept in, if it is in one.
pub fn tag(kind: Kind, key: &str, scope: Option<&str>) -> String {
    let key = key.get(..DIGITS).unwrap_or(key);
    match scope {
        Some(scope) => format!("{PREFIX}{kind}-{key}.{scope}"),
        None => format!("{PREFIX}{kind}-{key}"),
    }
}

/// When a thing was made and last used, and by which build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// When it was made.
    pub created: Timestamp,
    /// When it was last used, at most a day ago if it is used all the time.
    pub used: Timestamp,
    /// Namespace and name of the build that made it, with a slash between.
    pub build: String,
}

impl Stamp {
    /// Made now, by this build.
    pub fn now(build: impl Into<String>) -> Self {
        let now = whole_seconds(Timestamp::now());
        Self {
            created: now,
            used: now,
            build: build.into(),
        }
    }

    /// As annotations of a manifest.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (CREATED.to_owned(), self.created.to_string()),
            (USED.to_owned(), self.used.to_string()),
            (BUILD.to_owned(), self.build.clone()),
        ])
    }

    /// From the annotations of a manifest; none if it is not Slipway's.
    pub fn read(annotations: &BTreeMap<String, String>) -> Option<Self> {
        let time = |key| annotations.get(key)?.parse().ok();
        Some(Self {
            created: time(CREATED)?,
            used: time(USED)?,
            build: annotations.get(BUILD)?.clone(),
        })
    }

    /// Whether a use is to be noted ([`Repository::note_use`]).
    pub fn is_stale(&self) -> bool {
        Timestamp::now().duration_since(self.used) > NOTED
    }
}

fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

impl Repository {
    /// Notes that what stands under `tag` was used now: writes its manifest again with another annotation. Gives the new
    /// manifest.
    ///
    /// # Errors
    /// [`Class::InvalidResponse`] if the manifest has no annotations; those of writing.
    pub async fn note_use(&self, tag: &str, manifest: &Manifest) -> Result<Manifest> {
        let document = || -> Option<Vec<u8>> {
            let mut document: serde_json::Value = serde_json::from_slice(&manifest.bytes).ok()?;
            let annotations = document.get_mut("annotations")?.as_object_mut()?;
            let now = whole_seconds(Timestamp::now()).to_string();
            annotations.insert(USED.to_owned(), now.into());
            serde_json::to_vec(&document).ok()
        };
        let bytes = document().ok_or_else(|| {
            let error = Error::new(Class::InvalidResponse, "it is no manifest of Slipway");
            self.failed(|| format!("note the use of {tag}"))(error)
        })?;
        let put = self
            .put_manifest(tag, &manifest.media_type, bytes.clone())
            .await?;
        Ok(Manifest {
            bytes: bytes.into(),
            media_type: manifest.media_type.clone(),
            digest: put.digest,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_says_what_it_is_for() {
        let key = "a".repeat(64);
        let short = "a".repeat(40);
        assert_eq!(tag(Kind::Step, &key, None), format!("slipway-step-{short}"));
        let scoped = tag(Kind::Stage, &key, Some("pr-17"));
        assert_eq!(scoped, format!("slipway-stage-{short}.pr-17"));
        assert!(tag(Kind::Context, &key, Some(&"s".repeat(40))).len() <= 128);
        assert_eq!(Kind::of_tag(&scoped), Some(Kind::Stage));
        for other in [
            "v1",
            "slipway-",
            "slipway-stages-x",
            "slipway-log-x",
            "my-slipway-step-x",
        ] {
            assert_eq!(Kind::of_tag(other), None, "{other}");
        }
    }

    #[test]
    fn a_stamp_is_read_as_it_was_written() {
        let mut stamp = Stamp::now("team/shop");
        assert_eq!(Stamp::read(&stamp.annotations()), Some(stamp.clone()));
        assert!(!stamp.is_stale());
        stamp.used -= SignedDuration::from_hours(25);
        assert!(stamp.is_stale());
        let mut annotations = stamp.annotations();
        annotations.remove(BUILD);
        assert_eq!(Stamp::read(&annotations), None);
    }
}
