//! Trees of files that steps read: a build context, the finished root of a stage, files inside the plan.
//!
//! ```text
//!  Context (trait) ─┬─ DirContext   a directory, ignore rules applied; read only where something is asked for
//!                   └─ MemContext   a few files in memory (heredocs)
//!  resolve(context, path) follows symbolic links inside the tree, never out of it
//! ```
//! Paths are relative to the root of the tree; the empty path is the root.

use slipway_oci::Digest;
use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read},
    os::unix::ffi::OsStrExt as _,
    path::{Component, Path, PathBuf},
};

mod dir;

pub use crate::copy::archive::{Plain, open as open_archive};
pub use dir::DirContext;

/// More links than this in one path are taken for a loop, as the kernel does.
const LINK_LIMIT: usize = 255;

/// A read-only tree. All calls may block; they come from threads where that is allowed.
pub trait Context: Send + Sync {
    /// What is at a path that holds no symbolic links (see [`resolve`]); the last part is not followed. `None`: nothing,
    /// or nothing that the ignore rules let through.
    fn lookup(&self, path: &Path) -> io::Result<Option<Entry>>;

    /// The entries of a directory, sorted by the bytes of their names.
    fn list(&self, path: &Path) -> io::Result<Vec<(OsString, Entry)>>;

    /// Opens a regular file.
    fn open(&self, path: &Path) -> io::Result<Content>;

    /// The extended attributes of an entry that mean something in an image.
    fn xattrs(&self, path: &Path) -> io::Result<Vec<(OsString, Vec<u8>)>> {
        let _ = path;
        Ok(Vec::new())
    }

    /// The digest of a regular file's content, where it is known without reading it.
    fn known_digest(&self, path: &Path) -> Option<Digest> {
        let _ = path;
        None
    }

    /// For advice: the ignore pattern that hides a path which is there otherwise.
    fn hidden_by(&self, path: &Path) -> Option<String> {
        let _ = path;
        None
    }

    /// A directory of this machine that is exactly this tree, owners included, so that it can be mounted as it is.
    fn directory(&self) -> Option<&Path> {
        None
    }

    /// What messages call it: `the build context`.
    fn describe(&self) -> String;
}

/// What kind of file an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Regular file of this many bytes.
    File(u64),
    /// Directory.
    Dir,
    /// Symbolic link to this target.
    Symlink(PathBuf),
    /// Named pipe.
    Fifo,
    /// Character device.
    Char(u32, u32),
    /// Block device.
    Block(u32, u32),
    /// Socket.
    Socket,
}

/// One file of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// The twelve permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time: seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    /// Device and inode, for a file with several names.
    pub hardlink: Option<(u64, u64)>,
}

impl Entry {
    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == Kind::Dir
    }
}

/// An opened file's content.
pub enum Content {
    /// A real file: copied by the kernel.
    File(File),
    /// Anything else.
    Reader(Box<dyn Read + Send>),
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(buffer),
            Self::Reader(reader) => reader.read(buffer),
        }
    }
}

/// `..` and links resolved inside the tree: a path without symbolic links. What does not exist is kept as written. With
/// `follow_last` unset, a link at the very end stays.
pub fn resolve(context: &dyn Context, path: &Path, follow_last: bool) -> io::Result<PathBuf> {
    resolve_with(path, follow_last, |path| {
        Ok(context.lookup(path)?.and_then(|entry| match entry.kind {
            Kind::Symlink(target) => Some(target),
            _ => None,
        }))
    })
}

/// [`resolve`] over any way of reading links.
pub(crate) fn resolve_with(
    path: &Path,
    follow_last: bool,
    read_link: impl Fn(&Path) -> io::Result<Option<PathBuf>>,
) -> io::Result<PathBuf> {
    let mut todo: Vec<OsString> = parts(path).rev().map(OsStr::to_owned).collect();
    let mut done = PathBuf::new();
    let mut links = 0;
    while let Some(part) = todo.pop() {
        if part == ".." {
            done.pop();
            continue;
        }
        let next = done.join(&part);
        let last = todo.is_empty();
        let target = if last && !follow_last {
            None
        } else {
            read_link(&next)?
        };
        let Some(target) = target else {
            done = next;
            continue;
        };
        links += 1;
        if links > LINK_LIMIT {
            return Err(io::Error::other(format!(
                "too many symbolic links in {}",
                path.display()
            )));
        }
        if target.is_absolute() {
            done = PathBuf::new();
        }
        todo.extend(parts(&target).rev().map(OsStr::to_owned));
    }
    Ok(done)
}

/// The parts of a path, `/` and `.` left out, `..` kept.
fn parts(path: &Path) -> impl DoubleEndedIterator<Item = &OsStr> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name),
        Component::ParentDir => Some(OsStr::new("..")),
        _ => None,
    })
}

/// A path cleaned by its text alone, `..` not going above the root: relative, without `.` and `..`.
pub fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in parts(path) {
        if part == ".." {
            clean.pop();
        } else {
            clean.push(part);
        }
    }
    clean
}

/// The ignore patterns of a context: those of the file that lies beside the Dockerfile (`NAME.dockerignore`) if there is
/// one, else of `.dockerignore`. `tree` is the context with nothing ignored yet, `dockerfile` the Dockerfile's path in it.
pub fn ignore_file(tree: &dyn Context, dockerfile: &str) -> crate::Result<Vec<String>> {
    for name in [format!("{dockerfile}.dockerignore"), ".dockerignore".to_owned()] {
        let read = || -> io::Result<Option<Vec<u8>>> {
            let path = resolve(tree, Path::new(&name), true)?;
            if !matches!(tree.lookup(&path)?, Some(entry) if matches!(entry.kind, Kind::File(_))) {
                return Ok(None);
            }
            let mut text = Vec::new();
            tree.open(&path)?.take(16 << 20).read_to_end(&mut text)?;
            Ok(Some(text))
        };
        let text = read().map_err(|error| crate::BuildError::io(format!("read {name}"), error))?;
        if let Some(text) = text {
            return Ok(slipway_dockerfile::ignore::read(&text)
                .into_iter()
                .map(|line| line.pattern)
                .collect());
        }
    }
    Ok(Vec::new())
}

/// Ignore patterns, ready for [`DirContext::ignoring`]; none where there are none.
pub fn matcher(patterns: &[String]) -> crate::Result<Option<slipway_dockerfile::ignore::Matcher>> {
    if patterns.is_empty() {
        return Ok(None);
    }
    slipway_dockerfile::ignore::Matcher::new(patterns)
        .map(Some)
        .map_err(|error| {
            crate::BuildError::new(
                slipway_plan::protocol::FailureReason::DockerfileInvalid,
                format!("the ignore file of the build context: {error}"),
            )
        })
}

/// A few files in memory, all of them root's.
#[derive(Debug, Clone, Default)]
pub struct MemContext {
    files: BTreeMap<PathBuf, (Vec<u8>, u32)>,
    mtime: (i64, u32),
}

impl MemContext {
    /// Files by path, with their modes, all of this time.
    pub fn new(files: impl IntoIterator<Item = (PathBuf, Vec<u8>, u32)>, mtime: (i64, u32)) -> Self {
        let files = files
            .into_iter()
            .map(|(path, data, mode)| (clean(&path), (data, mode)))
            .collect();
        Self { files, mtime }
    }

    fn entry(&self, kind: Kind, mode: u32) -> Entry {
        Entry {
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: self.mtime,
            hardlink: None,
        }
    }
}

impl Context for MemContext {
    fn lookup(&self, path: &Path) -> io::Result<Option<Entry>> {
        if let Some((data, mode)) = self.files.get(path) {
            return Ok(Some(self.entry(Kind::File(data.len() as u64), *mode)));
        }
        let is_dir = path.as_os_str().is_empty() || self.files.keys().any(|file| file.starts_with(path));
        Ok(is_dir.then(|| self.entry(Kind::Dir, 0o755)))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<(OsString, Entry)>> {
        let mut names: Vec<OsString> = self
            .files
            .keys()
            .filter_map(|file| {
                Some(
                    file.strip_prefix(path)
                        .ok()?
                        .components()
                        .next()?
                        .as_os_str()
                        .to_owned(),
                )
            })
            .collect();
        names.sort_by(|one, two| one.as_bytes().cmp(two.as_bytes()));
        names.dedup();
        names
            .into_iter()
            .filter_map(|name| match self.lookup(&path.join(&name)) {
                Ok(Some(entry)) => Some(Ok((name, entry))),
                Ok(None) => None,
                Err(error) => Some(Err(error)),
            })
            .collect()
    }

    fn open(&self, path: &Path) -> io::Result<Content> {
        let (data, _) = self.files.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Content::Reader(Box::new(io::Cursor::new(data.clone()))))
    }

    fn describe(&self) -> String {
        "the inline files".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_never_lead_out_of_the_tree() {
        let links: BTreeMap<&str, &str> = [
            ("a", "/x/y"),
            ("up", "../../../etc"),
            ("x/y", "../z"),
            ("loop", "loop"),
        ]
        .into();
        let read = |path: &Path| Ok(links.get(path.to_str().unwrap()).map(PathBuf::from));
        let cases = [
            ("/a/f", "z/f"),
            ("up/passwd", "etc/passwd"),
            ("../../q", "q"),
            ("x/./y/../w", "w"),
            ("plain/file", "plain/file"),
        ];
        for (path, resolved) in cases {
            assert_eq!(
                resolve_with(Path::new(path), true, read).unwrap(),
                Path::new(resolved),
                "{path}"
            );
        }
        assert_eq!(resolve_with(Path::new("a"), false, read).unwrap(), Path::new("a"));
        assert!(resolve_with(Path::new("loop"), true, read).is_err());
    }
}
