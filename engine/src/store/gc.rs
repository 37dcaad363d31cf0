//! What may go: unfinished work of dead builds, results that nobody asked for lately, and then what no result names.

use super::{StepRecord, Store, flock, read_json, remove_all};
use crate::error::{BuildError, Result};
use rustix::fs::FlockOperation;
use std::{
    collections::BTreeSet,
    fs, io,
    path::Path,
    time::{Duration, SystemTime},
};

/// What a collection removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Results forgotten.
    pub steps: u64,
    /// Snapshots removed.
    pub snapshots: u64,
    /// Blobs removed.
    pub blobs: u64,
    /// Bytes of the removed blobs.
    pub blob_bytes: u64,
}

/// What a store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Snapshots kept.
    pub snapshots: u64,
    /// Blobs kept.
    pub blobs: u64,
    /// Bytes of the blobs.
    pub blob_bytes: u64,
    /// Cache mounts kept.
    pub caches: u64,
}

impl Store {
    /// Counts what is kept.
    pub fn usage(&self) -> Result<Usage> {
        let count = || -> io::Result<Usage> {
            let mut usage = Usage {
                snapshots: fs::read_dir(self.root.join("snapshots"))?.count() as u64,
                caches: fs::read_dir(self.root.join("caches"))?.count() as u64,
                ..Usage::default()
            };
            for blob in fs::read_dir(self.root.join("blobs/sha256"))? {
                usage.blobs += 1;
                usage.blob_bytes += blob?.metadata()?.len();
            }
            Ok(usage)
        };
        count().map_err(|error| BuildError::io("look through the store", error))
    }

    /// Removes what was not used for `age`, and cache mounts too if `caches`. Fails if a build uses the store.
    pub fn gc(root: &Path, age: Duration, caches: bool) -> Result<Collected> {
        let collect = || -> io::Result<Collected> {
            let lock = fs::File::create(root.join("lock"))?;
            flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
            let mut collected = Collected::default();
            for entry in fs::read_dir(root.join("tmp"))? {
                remove_all(&entry?.path())?;
            }
            let deadline = SystemTime::now()
                .checked_sub(age)
                .unwrap_or(SystemTime::UNIX_EPOCH);
            let mut live = BTreeSet::new();
            for prefix in fs::read_dir(root.join("steps"))? {
                for step in fs::read_dir(prefix?.path())? {
                    let step = step?;
                    if step.metadata()?.modified()? < deadline {
                        fs::remove_file(step.path())?;
                        collected.steps += 1;
                    } else if let Some(record) = read_json::<StepRecord>(&step.path()) {
                        live.insert(record.snapshot.0);
                    }
                }
            }
            for snapshot in fs::read_dir(root.join("snapshots"))? {
                let snapshot = snapshot?;
                let name = snapshot.file_name().to_string_lossy().into_owned();
                let old = snapshot.metadata()?.modified()? < deadline;
                // A base's layer has no record of its own: its age decides.
                if old && !live.contains(&name) {
                    remove_all(&snapshot.path())?;
                    collected.snapshots += 1;
                }
            }
            for blob in fs::read_dir(root.join("blobs/sha256"))? {
                let blob = blob?;
                let metadata = blob.metadata()?;
                if metadata.modified()? < deadline {
                    fs::remove_file(blob.path())?;
                    collected.blobs += 1;
                    collected.blob_bytes += metadata.len();
                }
            }
            if caches {
                for cache in fs::read_dir(root.join("caches"))? {
                    remove_all(&cache?.path())?;
                }
            }
            Ok(collected)
        };
        collect()
            .map_err(|error| BuildError::io("collect garbage in the store (does a build use it?)", error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gc_waits_for_no_build_and_removes_what_is_old() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.put_blob(b"x").unwrap();
        store.new_snapshot().unwrap().commit().unwrap();
        assert!(
            Store::gc(dir.path(), Duration::ZERO, false).is_err(),
            "a build uses it"
        );
        drop(store);
        assert_eq!(
            Store::gc(dir.path(), Duration::from_mins(1), false).unwrap(),
            Collected::default()
        );
        let all = Store::gc(dir.path(), Duration::ZERO, true).unwrap();
        assert_eq!((all.blobs, all.snapshots), (1, 1));
    }
}
