//! Cache mounts: directories that outlive builds, shared by the rules of `sharing=`.
//!
//! ```text
//! <root>/<digest of id and first content>/id
//!                                         generation           raised when the cache begins anew
//!                                         g<generation>-<n>    what is mounted; n counts the private copies
//!                                         g<generation>-<n>.{lock,fill,ready}
//! ```

use super::{Lock, Store, flock, remove_all};
use crate::error::{BuildError, Result};
use rustix::fs::FlockOperation;
use slipway_oci::Digest;
use slipway_plan::Sharing;
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
    /// Held by the one that gives a new directory its first content; `None` once it is there.
    filling: Option<Lock>,
    _lock: Lock,
}

impl CacheMount {
    /// The directory to mount.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether nobody used it before: the caller gives it its first content.
    pub fn is_fresh(&self) -> bool {
        self.filling.is_some()
    }

    /// The first content is there.
    pub fn filled(&mut self) -> Result<()> {
        let marker = self.path.with_extension("ready");
        fs::write(&marker, b"")
            .map_err(|error| BuildError::io(format!("write {}", marker.display()), error))?;
        self.filling = None;
        Ok(())
    }
}

/// Where cache mounts are kept: a folder of a store, or of a volume that outlives the store.
#[derive(Debug, Clone)]
pub struct Caches {
    root: PathBuf,
}

impl Store {
    /// The cache mounts of this store.
    pub fn caches(&self) -> Caches {
        Caches::at(self.root.join("caches"))
    }
}

impl Caches {
    /// Those in a folder; it need not exist.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn dir(&self, key: &CacheKey) -> PathBuf {
        let name = Digest::of(format!("{}\0{}", key.id, key.initial).as_bytes());
        self.root.join(name.hex())
    }

    /// Takes a cache directory. `Locked` waits for the others, `Private` takes one that nobody uses, `Shared` does
    /// neither; but all wait while another one gives a new directory its first content. Blocks.
    pub fn take(&self, key: &CacheKey, sharing: Sharing) -> Result<CacheMount> {
        let dir = self.dir(key);
        let take = || -> io::Result<CacheMount> {
            fs::create_dir_all(&dir)?;
            fs::write(dir.join("id"), &key.id)?;
            loop {
                let generation = generation(&dir);
                let (path, lock) = lock_one(&dir, &generation, sharing)?;
                // A reset meanwhile may have removed what has just been locked.
                if self::generation(&dir) != generation {
                    continue;
                }
                match fs::create_dir(&path) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                    _ => {}
                }
                let filling = filling(&path)?;
                return Ok(CacheMount {
                    path,
                    filling,
                    _lock: lock,
                });
            }
        };
        take().map_err(|error| BuildError::io(format!("take the cache mount {:?}", key.id), error))
    }

    /// From now on the cache begins anew; steps that use it already keep what they have, and what nobody uses any more
    /// goes.
    pub fn reset(&self, key: &CacheKey) -> Result<()> {
        let dir = self.dir(key);
        let reset = || -> io::Result<()> {
            fs::create_dir_all(&dir)?;
            let next = generation(&dir).parse::<u64>().unwrap_or(0) + 1;
            let temporary = dir.join(format!("generation.{}.new", std::process::id()));
            fs::write(&temporary, next.to_string())?;
            fs::rename(&temporary, dir.join("generation"))?;
            remove_unused(&dir, next)
        };
        reset().map_err(|error| BuildError::io(format!("reset the cache mount {:?}", key.id), error))
    }
}

/// The current generation; empty for the first.
fn generation(dir: &Path) -> String {
    fs::read_to_string(dir.join("generation")).unwrap_or_default()
}

/// Locks a directory of a generation as the sharing asks.
fn lock_one(dir: &Path, generation: &str, sharing: Sharing) -> io::Result<(PathBuf, Lock)> {
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
        return Ok((dir.join(name), Lock(file)));
    }
    Err(io::Error::other("too many private copies"))
}

/// The right to fill a directory that has no content yet, once nobody else has it.
fn filling(path: &Path) -> io::Result<Option<Lock>> {
    let ready = path.with_extension("ready");
    if ready.exists() {
        return Ok(None);
    }
    let file = File::create(path.with_extension("fill"))?;
    flock(&file, FlockOperation::LockExclusive)?;
    // Somebody may have filled it while this one waited.
    Ok((!ready.exists()).then_some(Lock(file)))
}

/// Removes the directories of generations before `generation` that nobody holds.
fn remove_unused(dir: &Path, generation: u64) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let lock = entry?.path();
        let is_old = lock.extension().is_some_and(|extension| extension == "lock")
            && lock
                .file_stem()
                .and_then(|stem| stem.to_str()?.strip_prefix('g')?.split_once('-'))
                .is_some_and(|(of, _)| of.parse::<u64>().unwrap_or(0) < generation);
        if !is_old {
            continue;
        }
        let file = File::create(&lock)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let path = lock.with_extension("");
            // The marker first: a directory that is half gone must not pass for filled.
            for gone in [path.with_extension("ready"), path.with_extension("fill"), path] {
                remove_all(&gone)?;
            }
            fs::remove_file(&lock)?;
        }
    }
    Ok(())
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
        let one = store.caches().take(&key(), Sharing::Private).unwrap();
        let two = store.caches().take(&key(), Sharing::Private).unwrap();
        assert_ne!(one.path(), two.path());
        let first = one.path().to_owned();
        drop(one);
        assert_eq!(
            store.caches().take(&key(), Sharing::Private).unwrap().path(),
            first
        );
    }

    #[test]
    fn shared_mounts_are_one_directory_and_survive() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut one = store.caches().take(&key(), Sharing::Shared).unwrap();
        assert!(one.is_fresh());
        one.filled().unwrap();
        let two = store.caches().take(&key(), Sharing::Shared).unwrap();
        assert_eq!(one.path(), two.path());
        assert!(!two.is_fresh());
    }

    #[test]
    fn a_reset_cache_begins_empty() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let one = store.caches().take(&key(), Sharing::Shared).unwrap();
        std::fs::write(one.path().join("f"), "x").unwrap();
        store.caches().reset(&key()).unwrap();
        let two = store.caches().take(&key(), Sharing::Shared).unwrap();
        assert!(two.is_fresh() && !two.path().join("f").exists());
    }

    #[test]
    fn only_one_fills_a_new_directory_and_the_others_wait_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let caches = Caches::at(dir.path());
        let mut one = caches.take(&key(), Sharing::Shared).unwrap();
        assert!(one.is_fresh());
        let (sender, receiver) = std::sync::mpsc::channel();
        let other = std::thread::spawn(move || {
            let two = caches.take(&key(), Sharing::Shared).unwrap();
            let seen = (two.is_fresh(), two.path().join("f").exists());
            sender.send(()).unwrap();
            seen
        });
        std::fs::write(one.path().join("f"), "x").unwrap();
        assert!(receiver.try_recv().is_err(), "the second did not wait");
        one.filled().unwrap();
        assert_eq!(other.join().unwrap(), (false, true));
    }

    #[test]
    fn what_was_begun_and_not_filled_is_filled_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let caches = Caches::at(dir.path());
        drop(caches.take(&key(), Sharing::Locked).unwrap());
        assert!(caches.take(&key(), Sharing::Locked).unwrap().is_fresh());
    }

    #[test]
    fn a_reset_frees_what_nobody_uses() {
        let dir = tempfile::tempdir().unwrap();
        let caches = Caches::at(dir.path());
        let mut used = caches.take(&key(), Sharing::Private).unwrap();
        used.filled().unwrap();
        let unused = caches.take(&key(), Sharing::Private).unwrap();
        let (kept, gone) = (used.path().to_owned(), unused.path().to_owned());
        drop(unused);
        caches.reset(&key()).unwrap();
        assert!(kept.exists() && !gone.exists());
        drop(used);
        caches.reset(&key()).unwrap();
        assert!(!kept.exists());
    }
}
