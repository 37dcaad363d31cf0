//! A published context, read pack by pack as its files are asked for.

use super::index::{ContextIndex, IndexEntry, IndexKind};
use slipway_engine::context::{Content, Context, Entry};
use slipway_oci::Digest;
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::File,
    io::{self, Read, Seek as _, SeekFrom},
    ops::Bound,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
};

/// Brings a pack: its content, verified against its digest while it is read.
pub(crate) type FetchPack = dyn Fn(&Digest, u64) -> io::Result<Box<dyn Read + Send>> + Send + Sync;

/// A [`Context`] over a published one.
pub(crate) struct RemoteContext {
    entries: BTreeMap<PathBuf, IndexEntry>,
    packs: Vec<RemotePack>,
    fetch: Box<FetchPack>,
    dir: PathBuf,
}

struct RemotePack {
    digest: Digest,
    size: u64,
    /// The unpacked file once it is there.
    file: OnceLock<PathBuf>,
    /// Held by whoever fetches it, so that it is fetched once.
    fetching: Mutex<()>,
}

impl RemoteContext {
    /// A context with these packs (digest and stored size of each), which are unpacked into `dir` when they are needed.
    pub(crate) fn new(
        index: ContextIndex,
        packs: Vec<(Digest, u64)>,
        dir: PathBuf,
        fetch: Box<FetchPack>,
    ) -> io::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        let packs = packs
            .into_iter()
            .map(|(digest, size)| RemotePack {
                digest,
                size,
                file: OnceLock::new(),
                fetching: Mutex::new(()),
            })
            .collect();
        Ok(Self {
            entries: index.by_path(),
            packs,
            fetch,
            dir,
        })
    }

    /// The unpacked file of a pack, fetched at most once.
    fn pack(&self, number: usize) -> io::Result<&Path> {
        let pack = self
            .packs
            .get(number)
            .ok_or_else(|| io::Error::other(format!("the context has no pack {number}")))?;
        if let Some(file) = pack.file.get() {
            return Ok(file);
        }
        let _guard = pack.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = pack.file.get() {
            return Ok(file);
        }
        let path = self.dir.join(format!("pack-{number}"));
        let mut decoder = zstd::Decoder::new((self.fetch)(&pack.digest, pack.size)?)?;
        io::copy(&mut decoder, &mut File::create(&path)?)?;
        // The reader verifies the digest when it meets the end of the blob, which the decoder does not always ask for.
        io::copy(&mut decoder.finish(), &mut io::sink())?;
        Ok(pack.file.get_or_init(|| path))
    }
}

impl Context for RemoteContext {
    fn lookup(&self, path: &Path) -> io::Result<Option<Entry>> {
        if path.as_os_str().is_empty() {
            return Ok(Some(root()));
        }
        Ok(self.entries.get(path).map(IndexEntry::to_entry))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<(OsString, Entry)>> {
        let below = self
            .entries
            .range::<Path, _>((Bound::Excluded(path), Bound::Unbounded));
        let mut names: Vec<_> = below
            .take_while(|(entry, _)| entry.starts_with(path))
            .filter(|(entry, _)| entry.parent() == Some(path))
            .filter_map(|(entry, what)| Some((entry.file_name()?.to_owned(), what.to_entry())))
            .collect();
        names.sort_by(|one, two| one.0.as_bytes().cmp(two.0.as_bytes()));
        Ok(names)
    }

    fn open(&self, path: &Path) -> io::Result<Content> {
        match self.entries.get(path).map(|entry| &entry.kind) {
            Some(&IndexKind::File {
                size, pack, offset, ..
            }) => {
                let mut file = File::open(self.pack(pack)?)?;
                let whole = offset == 0 && file.metadata()?.len() == size;
                if whole {
                    return Ok(Content::File(file));
                }
                file.seek(SeekFrom::Start(offset))?;
                Ok(Content::Reader(Box::new(file.take(size))))
            }
            Some(_) => Err(io::Error::other(format!(
                "{} is not a regular file",
                path.display()
            ))),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn xattrs(&self, path: &Path) -> io::Result<Vec<(OsString, Vec<u8>)>> {
        Ok(self.entries.get(path).map(IndexEntry::xattrs).unwrap_or_default())
    }

    fn known_digest(&self, path: &Path) -> Option<Digest> {
        match &self.entries.get(path)?.kind {
            IndexKind::File { digest, .. } => Some(digest.clone()),
            _ => None,
        }
    }

    fn describe(&self) -> String {
        "the build context".into()
    }
}

/// The root of a context has no entry of its own: what it is never shows in an image.
fn root() -> Entry {
    Entry {
        kind: slipway_engine::context::Kind::Dir,
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: (0, 0),
        hardlink: None,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::write_packs, *};
    use slipway_engine::context::DirContext;
    use std::{
        collections::HashMap,
        fs,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    /// Packs a directory, and reads it back with a count of the packs that were fetched.
    fn published(dir: &Path, tmp: &Path) -> (RemoteContext, Arc<AtomicUsize>) {
        let context = DirContext::open(dir, "test").unwrap();
        let (index, packs) = write_packs(&context, &|_, _| true, &tmp.join("out")).unwrap();
        let stored: HashMap<Digest, PathBuf> = packs
            .iter()
            .map(|pack| (pack.digest.clone(), pack.file.clone()))
            .collect();
        let fetched = Arc::new(AtomicUsize::new(0));
        let counter = fetched.clone();
        let fetch = move |digest: &Digest, _size: u64| -> io::Result<Box<dyn Read + Send>> {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok(Box::new(File::open(&stored[digest])?))
        };
        let packs = packs.into_iter().map(|pack| (pack.digest, pack.size)).collect();
        (
            RemoteContext::new(index, packs, tmp.join("in"), Box::new(fetch)).unwrap(),
            fetched,
        )
    }

    fn read(context: &RemoteContext, path: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        context
            .open(Path::new(path))
            .unwrap()
            .read_to_end(&mut bytes)
            .unwrap();
        bytes
    }

    #[test]
    fn what_was_packed_is_read_back_and_only_needed_packs_move() {
        let (dir, tmp) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(dir.path().join("src/deep")).unwrap();
        fs::write(dir.path().join("a"), "first").unwrap();
        fs::write(dir.path().join("src/deep/b"), "second").unwrap();
        fs::write(dir.path().join("big"), vec![7; 5 << 20]).unwrap();
        fs::write(dir.path().join("empty"), "").unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("link")).unwrap();
        let (context, fetched) = published(dir.path(), tmp.path());

        let names: Vec<_> = context
            .list(Path::new(""))
            .unwrap()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["a", "big", "empty", "link", "src"]);
        assert_eq!(context.list(Path::new("src")).unwrap().len(), 1);
        assert_eq!(fetched.load(Ordering::SeqCst), 0, "listing moves nothing");
        assert_eq!(read(&context, "a"), b"first");
        assert_eq!(read(&context, "a"), b"first");
        assert_eq!(fetched.load(Ordering::SeqCst), 1);
        assert_eq!(read(&context, "src/deep/b"), b"second");
        assert_eq!(read(&context, "big").len(), 5 << 20);
        assert_eq!(read(&context, "empty"), b"");
        assert!(context.open(Path::new("absent")).is_err());
    }

    #[test]
    fn equal_trees_give_equal_packs() {
        let (dir, tmp) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(dir.path().join("a"), "first").unwrap();
        let context = DirContext::open(dir.path(), "test").unwrap();
        let one = write_packs(&context, &|_, _| true, &tmp.path().join("1")).unwrap();
        let two = write_packs(&context, &|_, _| true, &tmp.path().join("2")).unwrap();
        assert_eq!(one.1[0].digest, two.1[0].digest);
    }
}
