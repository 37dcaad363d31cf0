//! Files into a root: the destination side of a copy.

use super::{Filter, Match, Node, archive, base_name, chmod, gather, is_file};
use crate::{
    context::{Content, Context, Entry, Kind, resolve_with},
    error::{BuildError, Result},
};
use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid},
    io::Errno,
};
use slipway_plan::model::Chmod;
use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStringExt as _,
    },
    path::{Path, PathBuf},
};

/// Who is to own what is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// How files are placed.
#[derive(Debug, Clone, Default)]
pub(crate) struct PlaceOptions {
    /// `--chown`
    pub owner: Option<Owner>,
    /// `--chmod`
    pub chmod: Option<Chmod>,
    /// A directory gives its contents, not itself.
    pub contents_only: bool,
    /// Archives are unpacked.
    pub unpack: bool,
}

impl PlaceOptions {
    /// Of directories that lead to the copy: as with BuildKit, without the set-id and sticky bits.
    fn made_mode(&self) -> u32 {
        match self.chmod {
            Some(Chmod::Octal(mode)) => mode & 0o777,
            _ => 0o755,
        }
    }
}

/// A root into which files are placed. Nothing outside is ever touched: names are resolved inside it, and each system
/// call is made below its descriptor without following links.
pub(crate) struct Destination {
    root: OwnedFd,
    path: PathBuf,
}

type Step<T> = io::Result<T>;

impl Destination {
    /// The root at `path`.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|error| BuildError::io(format!("open {}", path.display()), error.into()))?;
        Ok(Self {
            root,
            path: path.to_owned(),
        })
    }

    fn dir(&self, path: &Path) -> Step<OwnedFd> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        loop {
            match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }

    fn parent(&self, path: &Path) -> Step<(OwnedFd, OsString)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        Ok((self.dir(path.parent().unwrap_or(Path::new("")))?, name))
    }

    fn stat(&self, path: &Path) -> Step<Option<Stat>> {
        if path.as_os_str().is_empty() {
            return Ok(Some(rustix::fs::statat(&self.root, "", AtFlags::EMPTY_PATH)?));
        }
        match self.parent(path) {
            Ok((dir, name)) => stat_at(dir.as_fd(), &name),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The path inside the root that `path` names, links followed; what is missing is kept as written.
    fn resolve(&self, path: &Path) -> Step<PathBuf> {
        resolve_with(path, true, |path| {
            let Some(stat) = self.stat(path)? else {
                return Ok(None);
            };
            if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                return Ok(None);
            }
            let (dir, name) = self.parent(path)?;
            let target = rustix::fs::readlinkat(&dir, &name, Vec::new())?;
            Ok(Some(PathBuf::from(OsString::from_vec(target.into_bytes()))))
        })
    }

    /// Makes a directory and its missing parents, each with this mode, owner and modification time. A parent's time then
    /// is that at which the next one was made in it, as with BuildKit.
    pub(crate) fn make_dirs(
        &self,
        path: &str,
        mode: u32,
        owner: Option<Owner>,
        time: Option<i64>,
    ) -> Result<()> {
        let shown = format!("/{}", path.trim_matches('/'));
        let resolved = self
            .resolve(Path::new(path))
            .map_err(|error| BuildError::io(format!("mkdir {shown}"), error))?;
        self.make_resolved(&resolved, mode, owner, time).map_err(|error| {
            // The wording that people search for.
            let what = if error.raw_os_error() == Some(Errno::NOTDIR.raw_os_error()) {
                "not a directory".to_owned()
            } else {
                error.to_string()
            };
            BuildError::new(
                slipway_plan::protocol::FailureReason::Internal,
                format!("mkdir {shown}: {what}"),
            )
            .because(error)
        })
    }

    fn make_resolved(&self, path: &Path, mode: u32, owner: Option<Owner>, time: Option<i64>) -> Step<()> {
        match self.stat(path)? {
            Some(stat) if is_dir(&stat) => return Ok(()),
            Some(_) => return Err(Errno::NOTDIR.into()),
            None => {}
        }
        if let Some(parent) = path.parent() {
            self.make_resolved(parent, mode, owner, time)?;
        }
        let (dir, name) = self.parent(path)?;
        match rustix::fs::mkdirat(&dir, &name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        if let Some(owner) = owner {
            chown_at(dir.as_fd(), &name, owner)?;
        }
        // After chown, which takes set-id bits away; and not by mkdir, which minds the umask.
        rustix::fs::chmodat(&dir, &name, Mode::from_raw_mode(mode), AtFlags::empty())?;
        match time {
            Some(time) => set_times(dir.as_fd(), &name, (time, 0)),
            None => Ok(()),
        }
    }

    /// Copies one match to `dest` (absolute; ends in `/` if it is to be a directory).
    pub(crate) fn place(
        &self,
        context: &dyn Context,
        one: &Match,
        dest: &str,
        filter: &Filter,
        options: &PlaceOptions,
    ) -> Result<()> {
        let shown = format!("/{}", one.named.display());
        let failed = |error: io::Error| {
            // A message of our own stands alone; a bare system error gets its place.
            if error.get_ref().is_some() {
                BuildError::new(slipway_plan::protocol::FailureReason::Internal, error.to_string())
                    .because(error)
            } else {
                BuildError::io(format!("copy {shown} to {dest}"), error)
            }
        };
        if options.unpack && is_file(context, one).map_err(failed)? {
            let content = context.open(&one.source).map_err(failed)?;
            if let Some(plain) = archive::open(content).map_err(failed)? {
                let target = self.resolve(Path::new(dest)).map_err(failed)?;
                self.make_resolved(&target, 0o755, options.owner, None)
                    .map_err(failed)?;
                return archive::unpack(plain, &self.path.join(target), options.owner);
            }
        }
        self.copy(context, one, dest, filter, options).map_err(failed)
    }

    fn copy(
        &self,
        context: &dyn Context,
        one: &Match,
        dest: &str,
        filter: &Filter,
        options: &PlaceOptions,
    ) -> Step<()> {
        // The parents first: `/a/b/` is a directory itself, of `/a/b` only `/a` is one.
        let as_dir = dest.ends_with('/') || dest.ends_with("/.");
        let parents = if as_dir {
            Path::new(dest)
        } else {
            Path::new(dest).parent().unwrap_or(Path::new("/"))
        };
        let parents = self.resolve(parents)?;
        self.make_resolved(&parents, options.made_mode(), options.owner, None)?;

        let source_is_dir = context.lookup(&one.source)?.is_some_and(|entry| entry.is_dir());
        let mut target = self.resolve(Path::new(dest))?;
        let existing = self.stat(&target)?;
        let into = match &existing {
            Some(stat) if source_is_dir => !options.contents_only && is_dir(stat),
            Some(stat) => is_dir(stat),
            None => false,
        };
        if into {
            target.push(base_name(one));
        }
        if options.contents_only && source_is_dir && existing.is_none() {
            self.make_resolved(&target, options.made_mode(), options.owner, None)?;
        } else if let Some(parent) = target.parent() {
            self.make_resolved(parent, options.made_mode(), options.owner, None)?;
        }

        let nodes = gather(context, one, filter)?;
        let mut copier = Copier {
            destination: self,
            context,
            options,
            links: HashMap::new(),
            dir: None,
            times: Vec::new(),
        };
        for node in &nodes {
            copier.node(node, &target)?;
        }
        copier.finish()
    }
}

struct Copier<'a> {
    destination: &'a Destination,
    context: &'a dyn Context,
    options: &'a PlaceOptions,
    links: HashMap<(u64, u64), PathBuf>,
    dir: Option<(PathBuf, OwnedFd)>,
    /// Times of directories, set when all that is in them is there.
    times: Vec<(PathBuf, (i64, u32))>,
}

impl Copier<'_> {
    fn node(&mut self, node: &Node, target: &Path) -> Step<()> {
        let top = node.below.as_os_str().is_empty();
        let path = if top {
            target.to_owned()
        } else {
            target.join(&node.below)
        };
        if path.as_os_str().is_empty() {
            // The root itself: it is there, and its owner and mode are not ours to change.
            if !node.entry.is_dir() {
                return Err(io::Error::other("cannot replace to directory / with file"));
            }
            self.times.push((path, node.entry.mtime));
            return Ok(());
        }
        let parent = path.parent().unwrap_or(Path::new("")).to_owned();
        // Taken out and put back: the calls below want all of the copier.
        let open = match self.dir.take() {
            Some((path, dir)) if path == parent => dir,
            _ => self.destination.dir(&parent)?,
        };
        let result = self.node_in(open.as_fd(), node, top, path);
        self.dir = Some((parent, open));
        result
    }

    fn node_in(&mut self, dir: BorrowedFd<'_>, node: &Node, top: bool, path: PathBuf) -> Step<()> {
        let name = path.file_name().unwrap_or_default();
        let there = stat_at(dir, name)?;
        if node.entry.is_dir() {
            let created = match &there {
                None => {
                    rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o755))?;
                    true
                }
                Some(stat) if is_dir(stat) => false,
                Some(_) => {
                    return Err(io::Error::other(format!(
                        "cannot copy to non-directory: /{}",
                        path.display()
                    )));
                }
            };
            match (created, node.leads) {
                // The directory that was named keeps what it was; those below it become what the source's are.
                (false, false) if top => {}
                (_, false) => self.attributes(dir, name, node)?,
                // One that only leads to what is copied gets its time from being written into. Where it is there
                // already, BuildKit gives it the source's mode, whatever `--chmod` says, and nothing else.
                (true, true) => return self.attributes(dir, name, node),
                (false, true) => {
                    let mode = Mode::from_raw_mode(node.entry.mode);
                    return Ok(rustix::fs::chmodat(dir, name, mode, AtFlags::empty())?);
                }
            }
            self.times.push((path, node.entry.mtime));
            return Ok(());
        }
        match &there {
            Some(stat) if is_dir(stat) => {
                return Err(io::Error::other(format!(
                    "cannot replace to directory /{} with file",
                    path.display()
                )));
            }
            Some(_) => rustix::fs::unlinkat(dir, name, AtFlags::empty())?,
            None => {}
        }
        self.create(dir, name, &path, node)?;
        self.attributes(dir, name, node)?;
        set_times(dir, name, node.entry.mtime)
    }

    fn create(&mut self, dir: BorrowedFd<'_>, name: &OsStr, path: &Path, node: &Node) -> Step<()> {
        match &node.entry.kind {
            Kind::File(_) => {
                if let Some(inode) = node.entry.hardlink {
                    if let Some(first) = self.links.get(&inode) {
                        let (from, from_name) = self.destination.parent(first)?;
                        rustix::fs::linkat(&from, &from_name, dir, name, AtFlags::empty())?;
                        return Ok(());
                    }
                    self.links.insert(inode, path.to_owned());
                }
                let flags =
                    OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600))?;
                copy_content(self.context.open(&node.source)?, File::from(file))
            }
            Kind::Symlink(link) => Ok(rustix::fs::symlinkat(link, dir, name)?),
            Kind::Fifo => make_node(dir, name, FileType::Fifo, 0),
            Kind::Socket => make_node(dir, name, FileType::Socket, 0),
            Kind::Char(major, minor) => make_node(
                dir,
                name,
                FileType::CharacterDevice,
                rustix::fs::makedev(*major, *minor),
            ),
            Kind::Block(major, minor) => make_node(
                dir,
                name,
                FileType::BlockDevice,
                rustix::fs::makedev(*major, *minor),
            ),
            Kind::Dir => Ok(()),
        }
    }

    /// Owner, mode and extended attributes, in this order: chown takes set-id bits and capabilities away.
    fn attributes(&self, dir: BorrowedFd<'_>, name: &OsStr, node: &Node) -> Step<()> {
        let Entry {
            kind, mode, uid, gid, ..
        } = &node.entry;
        chown_at(
            dir,
            name,
            self.options.owner.unwrap_or(Owner { uid: *uid, gid: *gid }),
        )?;
        if !matches!(kind, Kind::Symlink(_)) {
            let mode = match &self.options.chmod {
                Some(Chmod::Octal(octal)) => *octal,
                Some(Chmod::Symbolic(symbolic)) => chmod::apply(symbolic, *mode, *kind == Kind::Dir),
                None => *mode,
            };
            rustix::fs::chmodat(dir, name, Mode::from_raw_mode(mode), AtFlags::empty())?;
        }
        for (attribute, value) in self.context.xattrs(&node.source)? {
            let path = Path::new("/proc/self/fd")
                .join(dir.as_raw_fd().to_string())
                .join(name);
            // As BuildKit: what this file system or namespace does not take is left out.
            let _ = rustix::fs::lsetxattr(&path, &*attribute, &value, rustix::fs::XattrFlags::empty());
        }
        Ok(())
    }

    fn finish(self) -> Step<()> {
        for (path, time) in self.times.iter().rev() {
            if path.as_os_str().is_empty() {
                set_times(self.destination.root.as_fd(), OsStr::new("."), *time)?;
            } else {
                let (dir, name) = self.destination.parent(path)?;
                set_times(dir.as_fd(), &name, *time)?;
            }
        }
        Ok(())
    }
}

/// By the kernel where both ends are files (a reflink where the file system can), else by hand.
fn copy_content(content: Content, mut file: File) -> Step<()> {
    match content {
        Content::File(mut from) => io::copy(&mut from, &mut file)?,
        Content::Reader(mut from) => io::copy(&mut from, &mut file)?,
    };
    Ok(())
}

fn make_node(dir: BorrowedFd<'_>, name: &OsStr, kind: FileType, device: u64) -> Step<()> {
    rustix::fs::mknodat(dir, name, kind, Mode::from_raw_mode(0o600), device).map_err(|error| {
        if error == Errno::PERM && matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
            return io::Error::other(format!(
                "the device {} cannot be made: no process in a user namespace may make devices",
                Path::new(name).display()
            ));
        }
        error.into()
    })
}

fn stat_at(dir: BorrowedFd<'_>, name: &OsStr) -> Step<Option<Stat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw_os_error),
        Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
    )
}

fn chown_at(dir: BorrowedFd<'_>, name: &OsStr, owner: Owner) -> Step<()> {
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(|error| {
        if error == Errno::INVAL {
            return unmapped(&Path::new(name).display().to_string(), owner);
        }
        error.into()
    })
}

/// What the kernel's "invalid argument" means when an owner is given.
fn unmapped(what: &str, owner: Owner) -> io::Error {
    io::Error::other(format!(
        "{what} belongs to {}:{}, which this user namespace does not map; in a pod, raise the kubelet's \
         userNamespaces.idsPerPod, on a machine, give your user more ids in /etc/subuid and /etc/subgid",
        owner.uid, owner.gid
    ))
}

/// Gives a file or directory of our own to the owner that an instruction names; `what` is it, for people.
pub(crate) fn give(path: &Path, owner: Owner, what: &str) -> io::Result<()> {
    std::os::unix::fs::chown(path, Some(owner.uid), Some(owner.gid)).map_err(|error| {
        if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) {
            unmapped(what, owner)
        } else {
            error
        }
    })
}

fn set_times(dir: BorrowedFd<'_>, name: &OsStr, (seconds, nanos): (i64, u32)) -> Step<()> {
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: seconds,
            tv_nsec: nanos.into(),
        },
    };
    Ok(rustix::fs::utimensat(
        dir,
        name,
        &times,
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}
