//! Cache mounts: directories that outlive builds, shared by the rules of `sharing=`.

use super::{Lock, Store, flock};
use crate::error::{BuildError, Result};
use rustix::fs::FlockOperation;
use slipway_dockerfile::ast::Sharing;
use slipway_oci::Digest;
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// What makes two cache mounts the same: the id, and what a fresh one looks like.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CacheKey {
    /// `id=`, or the target.
    pub id: String,
    /// What a fresh directory begins with: `from=` and `source=`, mode and owner; empty for a plain one.
    pub initial: String,
}

/// A cache directory for one step; in use until dropped.
pub struct CacheMount {
    path: PathBuf,
    fresh: bool,
    _lock: Lock,
}

impl CacheMount {
    /// The directory to mount.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether nobody used it before: the caller gives it its first content.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// The first content is there.
    pub fn filled(&mut self) -> Result<()> {
        self.fresh = false;
        let marker = self.path.with_extension("ready");
        fs::write(&marker, b"").map_err(|error| BuildError::io(format!("write {}", marker.display()), error))
    }
}

impl Store {
    fn cache_dir(&self, key: &CacheKey) -> PathBuf {
        let name = Digest::of(format!("{}\0{}", key.id, key.initial).as_bytes());
        self.root.join("caches").join(name.hex())
    }

    /// Takes a cache directory. `Locked` waits for the others, `Private` takes one that nobody uses, `Shared` does
    /// neither. Blocks.
    pub fn cache_mount(&self, key: &CacheKey, sharing: Sharing) -> Result<CacheMount> {
        let dir = self.cache_dir(key);
        let take = || -> io::Result<CacheMount> {
            fs::create_dir_all(&dir)?;
            fs::write(dir.join("id"), &key.id)?;
            let generation = fs::read_to_string(dir.join("generation")).unwrap_or_default();
            for number in 0_u32.. {
                let name = format!("g{generation}-{number}");
                let file = File::create(dir.join(format!("{name}.lock")))?;
                match sharing {
                    Sharing::Shared => flock(&file, FlockOperation::LockShared)?,
                    Sharing::Locked => flock(&file, FlockOperation::LockExclusive)?,
                    Sharing::Private => match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                        Ok(()) => {}
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                        Err(error) => return Err(error),
                    },
                }
                let path = dir.join(&name);
                match fs::create_dir(&path) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                    _ => {}
                }
                let fresh = !path.with_extension("ready").exists();
                return Ok(CacheMount {
                    path,
                    fresh,
                    _lock: Lock(file),
                });
            }
            Err(io::Error::other("too many private copies"))
        };
        take().map_err(|error| BuildError::io(format!("take the cache mount {:?}", key.id), error))
    }

    /// From now on the cache begins anew; steps that use it already keep what they have.
    pub fn reset_cache(&self, key: &CacheKey) -> Result<()> {
        let dir = self.cache_dir(key);
        let reset = || -> io::Result<()> {
            fs::create_dir_all(&dir)?;
            let old = fs::read_to_string(dir.join("generation")).unwrap_or_default();
            let next = old.parse::<u64>().unwrap_or(0) + 1;
            let temporary = self.temporary("generation");
            fs::write(&temporary, next.to_string())?;
            fs::rename(&temporary, dir.join("generation"))
        };
        reset().map_err(|error| BuildError::io(format!("reset the cache mount {:?}", key.id), error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> CacheKey {
        CacheKey {
            id: "/c".into(),
            initial: String::new(),
        }
    }

    #[test]
    fn a_private_mount_that_is_in_use_gives_a_second_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let one = store.cache_mount(&key(), Sharing::Private).unwrap();
        let two = store.cache_mount(&key(), Sharing::Private).unwrap();
        assert_ne!(one.path(), two.path());
        let first = one.path().to_owned();
        drop(one);
        assert_eq!(store.cache_mount(&key(), Sharing::Private).unwrap().path(), first);
    }

    #[test]
    fn shared_mounts_are_one_directory_and_survive() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut one = store.cache_mount(&key(), Sharing::Shared).unwrap();
        assert!(one.is_fresh());
        one.filled().unwrap();
        let two = store.cache_mount(&key(), Sharing::Shared).unwrap();
        assert_eq!(one.path(), two.path());
        assert!(!two.is_fresh());
    }

    #[test]
    fn a_reset_cache_begins_empty() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let one = store.cache_mount(&key(), Sharing::Shared).unwrap();
        std::fs::write(one.path().join("f"), "x").unwrap();
        store.reset_cache(&key()).unwrap();
        let two = store.cache_mount(&key(), Sharing::Shared).unwrap();
        assert!(two.is_fresh() && !two.path().join("f").exists());
    }
}
