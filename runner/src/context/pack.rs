//! Files into packs.

use super::index::{self, ContextIndex, IndexEntry, IndexKind};
use sha2::{Digest as _, Sha256};
use slipway_engine::context::{Context, Entry, Kind};
use slipway_oci::Digest;
use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    io::{self, Read as _, Write},
    path::{Path, PathBuf},
};

/// Small files share a pack until it holds this much; a larger file has one of its own. Small enough that a stage which
/// copies one directory moves little else, large enough that 20,000 files are no 20,000 requests.
const PACK_SIZE: u64 = 4 << 20;
/// Fast: on a cluster's network a better ratio costs more time than it saves.
const LEVEL: i32 = 1;

/// A finished pack in a file of the store.
#[derive(Debug)]
pub(crate) struct Pack {
    /// Digest of the file.
    pub(crate) digest: Digest,
    /// Its bytes.
    pub(crate) size: u64,
    /// Where it is.
    pub(crate) file: PathBuf,
}

/// Writes the wanted files of a context into packs below `dir` and lists them.
pub(crate) fn write_packs(
    context: &dyn Context,
    wanted: &dyn Fn(&Path, bool) -> bool,
    dir: &Path,
) -> io::Result<(ContextIndex, Vec<Pack>)> {
    std::fs::create_dir_all(dir)?;
    let mut writer = Writer {
        dir,
        open: None,
        packs: Vec::new(),
        seen: HashMap::new(),
    };
    let mut entries = Vec::new();
    index::walk(context, wanted, &mut |path, entry| {
        if let Some(kind) = writer.add(context, path, entry)? {
            let xattrs = context.xattrs(path)?;
            entries.push(IndexEntry {
                path: index::encode(path.as_os_str()),
                kind,
                mode: entry.mode,
                uid: entry.uid,
                gid: entry.gid,
                mtime: entry.mtime,
                hardlink: entry.hardlink,
                xattrs: xattrs
                    .into_iter()
                    .map(|(name, value)| {
                        use std::os::unix::ffi::OsStrExt as _;
                        (index::encode(&name), index::encode(OsStr::from_bytes(&value)))
                    })
                    .collect(),
            });
        }
        Ok(())
    })?;
    writer.close()?;
    entries.sort_by(|one, two| one.path.cmp(&two.path));
    Ok((ContextIndex { entries }, writer.packs))
}

struct Writer<'a> {
    dir: &'a Path,
    open: Option<OpenPack>,
    packs: Vec<Pack>,
    /// Where a content is already, so that equal files are packed once.
    seen: HashMap<Digest, (usize, u64)>,
}

struct OpenPack {
    encoder: zstd::Encoder<'static, Hashing>,
    file: PathBuf,
    raw: u64,
}

impl Writer<'_> {
    /// Packs an entry's content; `None` for what a context does not carry (devices).
    fn add(&mut self, context: &dyn Context, path: &Path, entry: &Entry) -> io::Result<Option<IndexKind>> {
        Ok(Some(match &entry.kind {
            Kind::File(size) => self.add_file(context, path, *size)?,
            Kind::Dir => IndexKind::Dir,
            Kind::Symlink(target) => IndexKind::Symlink(index::encode(target.as_os_str())),
            Kind::Fifo => IndexKind::Fifo,
            Kind::Socket => IndexKind::Socket,
            Kind::Char(..) | Kind::Block(..) => return Ok(None),
        }))
    }

    fn add_file(&mut self, context: &dyn Context, path: &Path, size: u64) -> io::Result<IndexKind> {
        if let Some(digest) = context.known_digest(path)
            && let Some(&(pack, offset)) = self.seen.get(&digest)
        {
            return Ok(IndexKind::File {
                size,
                digest,
                pack,
                offset,
            });
        }
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.raw > 0 && open.raw + size > PACK_SIZE)
        {
            self.close()?;
        }
        let pack = self.packs.len();
        let open = match &mut self.open {
            Some(open) => open,
            none => none.insert(OpenPack::create(self.dir.join(format!("pack-{pack}")))?),
        };
        let offset = open.raw;
        let mut content = context.open(path)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 256 << 10];
        let mut size = 0;
        loop {
            let count = content.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            hash.update(&buffer[..count]);
            open.encoder.write_all(&buffer[..count])?;
            size += count as u64;
        }
        open.raw += size;
        let digest = Digest::from_sha256(hash.finalize().into());
        self.seen.insert(digest.clone(), (pack, offset));
        Ok(IndexKind::File {
            size,
            digest,
            pack,
            offset,
        })
    }

    fn close(&mut self) -> io::Result<()> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        let mut output = open.encoder.finish()?;
        output.file.flush()?;
        let digest = Digest::from_sha256(output.hash.finalize().into());
        self.packs.push(Pack {
            digest,
            size: output.size,
            file: open.file,
        });
        Ok(())
    }
}

impl OpenPack {
    fn create(path: PathBuf) -> io::Result<Self> {
        let output = Hashing {
            file: File::create(&path)?,
            hash: Sha256::new(),
            size: 0,
        };
        Ok(Self {
            encoder: zstd::Encoder::new(output, LEVEL)?,
            file: path,
            raw: 0,
        })
    }
}

/// A file that knows its digest.
struct Hashing {
    file: File,
    hash: Sha256,
    size: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
