//! The directory in which layers, results and caches are kept; several builds, also of several processes, share it.
//!
//! ```text
//! store/
//! ├── lock                       shared by builds, exclusive for gc
//! ├── blobs/sha256/<hex>         configs, manifests, packed layers
//! ├── snapshots/<id>/fs          one layer in overlay format
//! │                 /packed-*    how it was packed: diff id, digest, size
//! ├── steps/<xx>/<key>           result of an instruction: which snapshot
//! ├── caches/<id>/…              cache mounts
//! ├── locks/<name>               so that equal work is done once
//! └── tmp/                       all that is not finished; renamed when it is
//! ```
//! Nothing is visible before it is whole: a file or directory is made in `tmp` and renamed. What a killed build left in
//! `tmp` is removed by the next [`Store::gc`].

use crate::error::{BuildError, Result};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use slipway_oci::Digest;
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

mod caches;
mod gc;

pub use caches::{CacheKey, CacheMount, Caches};
pub use gc::{Collected, Usage};

/// A layer store.
pub struct Store {
    root: PathBuf,
    // Held for life: gc wants it exclusively.
    _shared: File,
    next: AtomicU64,
}

/// The name of a snapshot in its store.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SnapshotId(String);

impl SnapshotId {
    /// The name of files that are kept by their content.
    pub(crate) fn tree(digest: &str) -> Self {
        Self(format!("tree-{}", digest.rsplit(':').next().unwrap_or(digest)))
    }
}

impl std::fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A packed layer, as manifest and config name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerDesc {
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Digest of the blob.
    pub digest: Digest,
    /// Bytes of the blob.
    pub size: u64,
    /// The blob's media type.
    pub media_type: String,
}

/// What an instruction left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The layer that it made.
    pub snapshot: SnapshotId,
    /// Key by content of the state after it: equal for equal files, however they were made.
    pub content_key: String,
    /// When it ran, seconds since 1970.
    pub created: i64,
    /// All keys that it was recorded under.
    #[serde(default)]
    pub keys: Vec<String>,
}

/// An advisory lock, held until it is dropped; the kernel drops it when the process dies.
pub struct Lock(#[expect(dead_code, reason = "held, not read")] File);

impl Store {
    /// Opens the store at `root`, or makes one.
    pub fn open(root: impl Into<PathBuf>) -> Result<Arc<Self>> {
        let root = root.into();
        let open = || -> io::Result<File> {
            for dir in ["blobs/sha256", "snapshots", "steps", "caches", "locks", "tmp"] {
                fs::create_dir_all(root.join(dir))?;
            }
            let lock = File::create(root.join("lock"))?;
            flock(&lock, FlockOperation::LockShared)?;
            Ok(lock)
        };
        let shared =
            open().map_err(|error| BuildError::io(format!("open the store {}", root.display()), error))?;
        Ok(Arc::new(Self {
            root,
            _shared: shared,
            next: AtomicU64::new(0),
        }))
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file of a blob, which may not exist.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// Whether the blob is here.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.blob_path(digest).exists()
    }

    /// Opens a blob that is here.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        File::open(self.blob_path(digest))
            .map_err(|error| BuildError::io(format!("read blob {digest}"), error))
    }

    /// Reads a small blob that is here.
    pub fn read_blob(&self, digest: &Digest) -> Result<Vec<u8>> {
        fs::read(self.blob_path(digest)).map_err(|error| BuildError::io(format!("read blob {digest}"), error))
    }

    /// Keeps a small blob.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if !self.has_blob(&digest) {
            let mut blob = self.new_blob()?;
            blob.write_all(bytes)
                .map_err(|error| BuildError::io("write a blob", error))?;
            blob.commit(&digest)?;
        }
        Ok(digest)
    }

    /// A blob to be written; nothing is visible before [`BlobWriter::commit`].
    pub fn new_blob(&self) -> Result<BlobWriter<'_>> {
        let path = self.temporary("blob");
        let file = File::create_new(&path).map_err(|error| BuildError::io("create a blob", error))?;
        Ok(BlobWriter {
            store: self,
            file,
            temporary: Temporary(path),
        })
    }

    /// A fresh path in `tmp`. The caller makes what it wants there and removes it.
    pub fn temporary(&self, what: &str) -> PathBuf {
        let serial = self.next.fetch_add(1, Ordering::Relaxed);
        let nanos = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos());
        self.root
            .join("tmp")
            .join(format!("{what}-{}-{nanos:x}-{serial}", std::process::id()))
    }

    /// A fresh directory in `tmp` that goes when the guard does.
    pub fn temporary_dir(&self, what: &str) -> Result<Temporary> {
        let path = self.temporary(what);
        fs::create_dir(&path).map_err(|error| BuildError::io(format!("create {}", path.display()), error))?;
        Ok(Temporary(path))
    }

    /// A snapshot to be filled.
    pub fn new_snapshot(&self) -> Result<Draft<'_>> {
        let path = self.temporary("snapshot");
        let make = || -> io::Result<()> {
            fs::create_dir(&path)?;
            create_dir_with_mode(&path.join("fs"), 0o755)?;
            fs::create_dir(path.join("work"))
        };
        make().map_err(|error| BuildError::io("create a snapshot", error))?;
        Ok(Draft {
            store: self,
            temporary: Temporary(path),
        })
    }

    /// The directory of a snapshot, in overlay format.
    pub fn snapshot_dir(&self, id: &SnapshotId) -> PathBuf {
        self.root.join("snapshots").join(&id.0).join("fs")
    }

    /// Whether the snapshot is here.
    pub fn has_snapshot(&self, id: &SnapshotId) -> bool {
        self.snapshot_dir(id).is_dir()
    }

    /// The name that the snapshot of a base's layer has.
    pub fn layer_id(diff_id: &Digest) -> SnapshotId {
        SnapshotId(format!("layer-{}", diff_id.hex()))
    }

    /// The snapshot of a base's layer, if it was unpacked before.
    pub fn layer(&self, diff_id: &Digest) -> Option<SnapshotId> {
        let id = Self::layer_id(diff_id);
        self.has_snapshot(&id).then_some(id)
    }

    /// A directory that this store's [`Store::temporary_dir`] made becomes a snapshot.
    pub fn adopt_snapshot(&self, upper: &Temporary) -> Result<SnapshotId> {
        let draft = self.new_snapshot()?;
        let adopt = || -> io::Result<()> {
            fs::remove_dir(draft.fs())?;
            fs::rename(upper.path(), draft.fs())
        };
        adopt().map_err(|error| BuildError::io("keep a snapshot", error))?;
        draft.commit()
    }

    /// Whether a snapshot was made without looking at what is below it.
    pub fn is_linked(&self, id: &SnapshotId) -> bool {
        self.root.join("snapshots").join(&id.0).join("linked").exists()
    }

    /// How a snapshot was packed before with these settings.
    pub fn packed(&self, id: &SnapshotId, settings: &str) -> Option<LayerDesc> {
        let desc: LayerDesc = read_json(&self.packed_path(id, settings))?;
        self.has_blob(&desc.digest).then_some(desc)
    }

    /// Remembers how a snapshot was packed.
    pub fn put_packed(&self, id: &SnapshotId, settings: &str, desc: &LayerDesc) -> Result<()> {
        self.write_json(&self.packed_path(id, settings), desc)
    }

    fn packed_path(&self, id: &SnapshotId, settings: &str) -> PathBuf {
        self.root
            .join("snapshots")
            .join(&id.0)
            .join(format!("packed-{settings}.json"))
    }

    /// The result under a key, if its snapshot is still here.
    pub fn step(&self, key: &str) -> Option<StepRecord> {
        let record: StepRecord = read_json(&self.step_path(key))?;
        self.has_snapshot(&record.snapshot).then_some(record)
    }

    /// Remembers a result under a key.
    pub fn put_step(&self, key: &str, record: &StepRecord) -> Result<()> {
        self.write_json(&self.step_path(key), record)
    }

    fn step_path(&self, key: &str) -> PathBuf {
        self.root
            .join("steps")
            .join(key.get(..2).unwrap_or("xx"))
            .join(key)
    }

    /// A small remembered value; `kind` is a file-name-safe word, `key` is hashed.
    pub fn memo<T: DeserializeOwned>(&self, kind: &str, key: &str) -> Option<T> {
        read_json(&self.memo_path(kind, key))
    }

    /// Remembers a small value.
    pub fn put_memo<T: Serialize>(&self, kind: &str, key: &str, value: &T) -> Result<()> {
        self.write_json(&self.memo_path(kind, key), value)
    }

    fn memo_path(&self, kind: &str, key: &str) -> PathBuf {
        self.root
            .join("steps")
            .join(kind)
            .join(Digest::of(key.as_bytes()).hex())
    }

    /// Waits for the lock of this name. Blocks: call it where blocking is allowed.
    pub fn lock(&self, name: &str) -> Result<Lock> {
        let path = self.root.join("locks").join(name);
        let lock = || -> io::Result<File> {
            let file = File::create(&path)?;
            flock(&file, FlockOperation::LockExclusive)?;
            Ok(file)
        };
        lock()
            .map(Lock)
            .map_err(|error| BuildError::io(format!("lock {}", path.display()), error))
    }

    fn write_json<T: Serialize>(&self, path: &Path, value: &T) -> Result<()> {
        let write = || -> io::Result<()> {
            if let Some(dir) = path.parent() {
                fs::create_dir_all(dir)?;
            }
            let temporary = self.temporary("json");
            fs::write(&temporary, serde_json::to_vec(value)?)?;
            fs::rename(&temporary, path)
        };
        write().map_err(|error| BuildError::io(format!("write {}", path.display()), error))
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    // A file of another version, or none: the same as never recorded.
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn flock(file: &File, operation: FlockOperation) -> io::Result<()> {
    loop {
        match rustix::fs::flock(file, operation) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.map_err(io::Error::from),
        }
    }
}

fn create_dir_with_mode(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::create_dir(path)?;
    // Not by the mode of `mkdir`: the umask would be taken from it, and this directory is an image's root.
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// A path that is removed when this goes.
#[derive(Debug)]
pub struct Temporary(PathBuf);

impl Temporary {
    /// The path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The path, which is not removed any more.
    pub fn keep(mut self) -> PathBuf {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            let _ = remove_all(&self.0);
        }
    }
}

/// Removes a file or a whole directory, also one whose permissions are against it.
pub(crate) fn remove_all(path: &Path) -> io::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.is_dir() {
        return fs::remove_file(path);
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            // Without CAP_DAC_OVERRIDE a directory of mode 0 keeps its content from us, though it is ours.
            make_writable(path)?;
            fs::remove_dir_all(path)
        }
        other => other,
    }
}

fn make_writable(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            make_writable(&entry.path())?;
        }
    }
    Ok(())
}

/// A blob that is being written.
pub struct BlobWriter<'a> {
    store: &'a Store,
    file: File,
    temporary: Temporary,
}

impl BlobWriter<'_> {
    /// Makes it visible under its digest, which the caller has computed from the bytes that it wrote.
    pub fn commit(self, digest: &Digest) -> Result<()> {
        fs::rename(self.temporary.path(), self.store.blob_path(digest))
            .map_err(|error| BuildError::io(format!("keep blob {digest}"), error))
    }
}

impl Write for BlobWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A snapshot that is being filled.
pub struct Draft<'a> {
    store: &'a Store,
    temporary: Temporary,
}

impl Draft<'_> {
    /// The directory to fill: an overlay's upper one.
    pub fn fs(&self) -> PathBuf {
        self.temporary.path().join("fs")
    }

    /// An empty directory on the same file system: an overlay's work directory.
    pub fn work(&self) -> PathBuf {
        self.temporary.path().join("work")
    }

    /// Notes that it was made without looking at what is below it.
    pub fn mark_linked(&self) -> Result<()> {
        fs::write(self.temporary.path().join("linked"), b"")
            .map_err(|error| BuildError::io("create a snapshot", error))
    }

    /// Makes it visible under a fresh name. The overlay over it must be gone.
    pub fn commit(self) -> Result<SnapshotId> {
        let nanos = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos());
        let serial = self.store.next.fetch_add(1, Ordering::Relaxed);
        let id = SnapshotId(format!("step-{}-{nanos:x}-{serial}", std::process::id()));
        self.commit_as(id)
    }

    /// Makes it visible under a given name; if that exists already, it is kept and this one dropped.
    pub fn commit_as(self, id: SnapshotId) -> Result<SnapshotId> {
        let _ = remove_all(&self.work());
        let to = self.store.root.join("snapshots").join(&id.0);
        match fs::rename(self.temporary.path(), &to) {
            Ok(()) => Ok(id),
            Err(_) if to.is_dir() => Ok(id),
            Err(error) => Err(BuildError::io(format!("keep snapshot {id}"), error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_visible_only_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let digest = Digest::of(b"text");
        let mut blob = store.new_blob().unwrap();
        blob.write_all(b"text").unwrap();
        assert!(!store.has_blob(&digest));
        blob.commit(&digest).unwrap();
        assert_eq!(store.read_blob(&digest).unwrap(), b"text");
        drop(store.new_blob().unwrap());
        assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn a_record_without_its_snapshot_is_a_miss() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let snapshot = store.new_snapshot().unwrap().commit().unwrap();
        let record = StepRecord {
            snapshot: snapshot.clone(),
            content_key: "c".into(),
            created: 1,
            keys: vec!["abcd".into()],
        };
        store.put_step("abcd", &record).unwrap();
        assert_eq!(store.step("abcd"), Some(record));
        fs::remove_dir_all(store.snapshot_dir(&snapshot)).unwrap();
        assert_eq!(store.step("abcd"), None);
    }
}
