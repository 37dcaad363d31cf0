//! A directory as a tree, with or without ignore rules.

use super::{Content, Context, Entry, Kind};
use crate::progress::lock;
use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat},
    io::Errno,
};
use slipway_dockerfile::ignore::{Matcher, ParentState};
use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

/// A directory. Each path is opened from the root's descriptor with `RESOLVE_BENEATH` and without links, so that a tree
/// that changes meanwhile cannot lead out of it.
pub struct DirContext {
    root: OwnedFd,
    path: PathBuf,
    /// Kept alive with it: a temporary directory, a mount.
    keep: Option<Arc<dyn std::any::Any + Send + Sync>>,
    ignore: Option<Ignore>,
    as_root: bool,
    name: String,
}

struct Ignore {
    matcher: Matcher,
    dirs: Mutex<HashMap<PathBuf, DirState>>,
}

#[derive(Clone)]
struct DirState {
    excluded: bool,
    state: ParentState,
    /// For an excluded directory: whether something in it is taken back in.
    shown: Option<bool>,
}

impl DirContext {
    /// The tree at `path` as it is, owners included.
    pub fn open(path: impl Into<PathBuf>, name: impl Into<String>) -> io::Result<Self> {
        let path = path.into();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&path, flags, Mode::empty())?;
        Ok(Self {
            root,
            path,
            keep: None,
            ignore: None,
            as_root: false,
            name: name.into(),
        })
    }

    /// Everything belongs to root, as in a build context that was sent from somewhere.
    #[must_use]
    pub fn owned_by_root(mut self) -> Self {
        self.as_root = true;
        self
    }

    /// Hides what the ignore patterns exclude.
    #[must_use]
    pub fn ignoring(mut self, matcher: Option<Matcher>) -> Self {
        self.ignore = matcher.map(|matcher| Ignore {
            matcher,
            dirs: Mutex::new(HashMap::new()),
        });
        self
    }

    /// Keeps something alive as long as this tree.
    #[must_use]
    pub fn keeping(mut self, keep: impl std::any::Any + Send + Sync) -> Self {
        self.keep = Some(Arc::new(keep));
        self
    }

    fn open_at(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        loop {
            match rustix::fs::openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                // "The kernel could not make sure": something was renamed just now. Documented to be tried again.
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }

    fn raw_lookup(&self, path: &Path) -> io::Result<Option<Entry>> {
        let (dir, name) = match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => match self.open_at(parent, OFlags::PATH | OFlags::DIRECTORY) {
                Ok(dir) => (dir, name),
                Err(error) if missing(&error) => return Ok(None),
                Err(error) => return Err(error),
            },
            _ => return Ok(Some(self.entry(self.root.as_fd(), OsStr::new(""))?)),
        };
        match self.entry(dir.as_fd(), name) {
            Ok(entry) => Ok(Some(entry)),
            Err(error) if missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn entry(&self, dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<Entry> {
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Dir,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(dir, name, Vec::new())?;
                Kind::Symlink(PathBuf::from(OsString::from_vec(target.into_bytes())))
            }
            FileType::Fifo => Kind::Fifo,
            FileType::CharacterDevice => {
                Kind::Char(rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))
            }
            FileType::BlockDevice => {
                Kind::Block(rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))
            }
            // A context is sent as files; a socket arrives as an empty one.
            FileType::Socket if self.as_root => Kind::File(0),
            FileType::Socket => Kind::Socket,
            _ => Kind::File(stat.st_size as u64),
        };
        Ok(self.fill(&stat, kind))
    }

    fn fill(&self, stat: &Stat, kind: Kind) -> Entry {
        let several = stat.st_nlink > 1 && kind != Kind::Dir;
        Entry {
            kind,
            mode: stat.st_mode & 0o7777,
            uid: if self.as_root { 0 } else { stat.st_uid },
            gid: if self.as_root { 0 } else { stat.st_gid },
            mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
            hardlink: several.then_some((stat.st_dev, stat.st_ino)),
        }
    }

    fn raw_list(&self, path: &Path) -> io::Result<Vec<(OsString, Entry)>> {
        let dir = self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut entries = Vec::new();
        for item in Dir::read_from(&dir)? {
            let name = OsStr::from_bytes(item?.file_name().to_bytes()).to_owned();
            if name == "." || name == ".." {
                continue;
            }
            let entry = self.entry(dir.as_fd(), &name)?;
            entries.push((name, entry));
        }
        entries.sort_by(|one, two| one.0.as_bytes().cmp(two.0.as_bytes()));
        Ok(entries)
    }

    /// What the ignore rules say about a directory, its parents asked first.
    fn dir_state(ignore: &Ignore, path: &Path) -> io::Result<DirState> {
        if path.as_os_str().is_empty() {
            return Ok(DirState {
                excluded: false,
                state: ParentState::default(),
                shown: None,
            });
        }
        if let Some(state) = lock(&ignore.dirs).get(path) {
            return Ok(state.clone());
        }
        let parent = Self::dir_state(ignore, path.parent().unwrap_or(Path::new("")))?;
        let verdict = ignore
            .matcher
            .matches_with_parents(&path.to_string_lossy(), &parent.state)
            .map_err(io::Error::other)?;
        let state = DirState {
            excluded: verdict.excluded,
            state: verdict.state,
            shown: None,
        };
        lock(&ignore.dirs).insert(path.to_owned(), state.clone());
        Ok(state)
    }

    fn is_shown(&self, path: &Path, entry: &Entry) -> io::Result<bool> {
        let Some(ignore) = &self.ignore else {
            return Ok(true);
        };
        if path.as_os_str().is_empty() {
            return Ok(true);
        }
        if !entry.is_dir() {
            let parent = Self::dir_state(ignore, path.parent().unwrap_or(Path::new("")))?;
            let verdict = ignore
                .matcher
                .matches_with_parents(&path.to_string_lossy(), &parent.state)
                .map_err(io::Error::other)?;
            return Ok(!verdict.excluded);
        }
        let state = Self::dir_state(ignore, path)?;
        if !state.excluded {
            return Ok(true);
        }
        if let Some(shown) = state.shown {
            return Ok(shown);
        }
        let mut shown = false;
        if ignore.matcher.might_include_below(&path.to_string_lossy()) {
            for (name, child) in self.raw_list(path)? {
                if self.is_shown(&path.join(name), &child)? {
                    shown = true;
                    break;
                }
            }
        }
        lock(&ignore.dirs).insert(
            path.to_owned(),
            DirState {
                shown: Some(shown),
                ..state
            },
        );
        Ok(shown)
    }
}

fn missing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw_os_error),
        Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG)
    )
}

impl Context for DirContext {
    fn lookup(&self, path: &Path) -> io::Result<Option<Entry>> {
        match self.raw_lookup(path)? {
            Some(entry) if self.is_shown(path, &entry)? => Ok(Some(entry)),
            _ => Ok(None),
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<(OsString, Entry)>> {
        let mut entries = Vec::new();
        for (name, entry) in self.raw_list(path)? {
            if self.is_shown(&path.join(&name), &entry)? {
                entries.push((name, entry));
            }
        }
        Ok(entries)
    }

    fn open(&self, path: &Path) -> io::Result<Content> {
        if self.as_root
            && let Some(entry) = self.raw_lookup(path)?
            && entry.kind == Kind::File(0)
        {
            // May be a socket, which cannot be opened.
            return Ok(Content::Reader(Box::new(io::empty())));
        }
        // NONBLOCK: a file that became a pipe meanwhile must not hang the build.
        let file = self.open_at(path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK)?;
        Ok(Content::File(File::from(file)))
    }

    fn xattrs(&self, path: &Path) -> io::Result<Vec<(OsString, Vec<u8>)>> {
        // There is no llistxattr that takes a directory descriptor; the magic link of procfs stands for one.
        let full = Path::new("/proc/self/fd")
            .join(self.root.as_raw_fd().to_string())
            .join(path);
        read_xattrs(&full)
    }

    fn hidden_by(&self, path: &Path) -> Option<String> {
        let ignore = self.ignore.as_ref()?;
        self.raw_lookup(path).ok()??;
        let index = ignore.matcher.explain(&path.to_string_lossy()).ok()??;
        ignore.matcher.pattern(index).map(ToOwned::to_owned)
    }

    fn directory(&self) -> Option<&Path> {
        (self.ignore.is_none() && !self.as_root).then_some(self.path.as_path())
    }

    fn describe(&self) -> String {
        self.name.clone()
    }
}

/// The extended attributes of a file that belong into an image: capabilities, ACLs, the user's own.
pub(crate) fn read_xattrs(path: &Path) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    let mut names: Vec<u8> = Vec::with_capacity(256);
    match rustix::fs::llistxattr(path, rustix::buffer::spare_capacity(&mut names)) {
        Ok(_) => {}
        Err(Errno::RANGE) => {
            names.reserve(64 << 10);
            rustix::fs::llistxattr(path, rustix::buffer::spare_capacity(&mut names))?;
        }
        // No attributes on this file system, or none readable: none to keep.
        Err(Errno::NOTSUP | Errno::ACCESS | Errno::PERM) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    }
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let skip: [&[u8]; 4] = [
            b"system.nfs4",
            b"security.selinux",
            b"trusted.overlay.",
            b"user.overlay.",
        ];
        if skip.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        let name = OsStr::from_bytes(name);
        let mut value: Vec<u8> = Vec::with_capacity(64 << 10);
        if rustix::fs::lgetxattr(path, name, rustix::buffer::spare_capacity(&mut value)).is_ok() {
            found.push((name.to_owned(), value));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn names(context: &DirContext, path: &str) -> Vec<String> {
        let list = context.list(Path::new(path)).unwrap();
        list.into_iter()
            .map(|(name, _)| name.into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_directory_is_listed_in_order_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("b"), "xy").unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("c")).unwrap();
        let context = DirContext::open(dir.path(), "test").unwrap().owned_by_root();
        assert_eq!(names(&context, ""), ["a", "b", "c"]);
        let link = context.lookup(Path::new("c")).unwrap().unwrap();
        assert_eq!(link.kind, Kind::Symlink("/etc".into()));
        assert_eq!(context.lookup(Path::new("c/passwd")).unwrap(), None);
        assert!(context.open(Path::new("c/passwd")).is_err());
    }

    #[test]
    fn what_is_ignored_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["docs/README.md", "docs/x", "src/a", "none/x"] {
            fs::create_dir_all(dir.path().join(path).parent().unwrap()).unwrap();
            fs::write(dir.path().join(path), "1").unwrap();
        }
        let matcher = Matcher::new(["docs", "!docs/README.md", "none"]).unwrap();
        let context = DirContext::open(dir.path(), "test")
            .unwrap()
            .ignoring(Some(matcher));
        assert_eq!(names(&context, ""), ["docs", "src"]);
        assert_eq!(names(&context, "docs"), ["README.md"]);
        assert_eq!(context.lookup(Path::new("docs/x")).unwrap(), None);
        assert_eq!(context.hidden_by(Path::new("docs/x")).as_deref(), Some("docs"));
    }
}
