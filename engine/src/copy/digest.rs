//! The content of a selection as one digest: names, kinds, modes, owners, bytes. Times are left out, so that a fresh
//! checkout of the same files is the same.

use super::{Filter, Match, Node, Request, gather, select};
use crate::{
    context::{Context, Kind},
    error::{BuildError, Result},
};
use sha2::{Digest as _, Sha256};
use slipway_oci::Digest;
use std::{
    io::{self, Read},
    os::unix::ffi::OsStrExt as _,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

/// Digest of what a request selects; fails as the copy would where something is missing.
pub(crate) fn digest(context: &dyn Context, request: &Request<'_>) -> Result<Digest> {
    let filter = Filter::of(request)?;
    let matches = select(context, request)?;
    let mut hash = Sha256::new();
    for one in &matches {
        let nodes = gather(context, one, &filter)
            .map_err(|error| BuildError::io(format!("read {}", context.describe()), error))?;
        let contents = contents(context, &nodes)
            .map_err(|error| BuildError::io(format!("hash the files of {}", context.describe()), error))?;
        add(&mut hash, context, one, &nodes, &contents)
            .map_err(|error| BuildError::io(format!("read {}", context.describe()), error))?;
    }
    Ok(Digest::from_sha256(hash.finalize().into()))
}

fn add(
    hash: &mut Sha256,
    context: &dyn Context,
    one: &Match,
    nodes: &[Node],
    contents: &[Option<Digest>],
) -> io::Result<()> {
    let mut field = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    field(one.named.as_os_str().as_bytes());
    for (node, content) in nodes.iter().zip(contents) {
        let entry = &node.entry;
        let top = node.below.as_os_str().is_empty();
        field(node.below.as_os_str().as_bytes());
        match &entry.kind {
            // A directory that is copied as its contents gives nothing of itself away.
            Kind::Dir if top => field(b"top"),
            Kind::Dir => field(b"dir"),
            Kind::File(_) => field(b"file"),
            Kind::Symlink(target) => {
                field(b"link");
                field(target.as_os_str().as_bytes());
            }
            Kind::Fifo => field(b"fifo"),
            Kind::Char(major, minor) => field(format!("char {major} {minor}").as_bytes()),
            Kind::Block(major, minor) => field(format!("block {major} {minor}").as_bytes()),
            Kind::Socket => field(b"socket"),
        }
        if entry.is_dir() && top {
            continue;
        }
        if !matches!(entry.kind, Kind::Symlink(_)) {
            field(&entry.mode.to_le_bytes());
        }
        field(&entry.uid.to_le_bytes());
        field(&entry.gid.to_le_bytes());
        if let Some(content) = content {
            field(content.hex().as_bytes());
        }
        for (name, value) in context.xattrs(&node.source)? {
            field(name.as_bytes());
            field(&value);
        }
    }
    Ok(())
}

/// Digests of the regular files, by several threads: with many small files the system calls cost more than the bytes.
fn contents(context: &dyn Context, nodes: &[Node]) -> io::Result<Vec<Option<Digest>>> {
    let files: Vec<usize> = (0..nodes.len())
        .filter(|index| matches!(nodes[*index].entry.kind, Kind::File(_)))
        .collect();
    let mut digests = vec![None; nodes.len()];
    let workers = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(files.len().div_ceil(16))
        .max(1);
    let next = AtomicUsize::new(0);
    let work = || -> io::Result<Vec<(usize, Digest)>> {
        let mut done = Vec::new();
        while let Some(index) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push((*index, digest_file(context, &nodes[*index].source)?));
        }
        Ok(done)
    };
    let results = if workers == 1 {
        vec![work()]
    } else {
        thread::scope(|scope| {
            let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            threads
                .into_iter()
                .map(|thread| {
                    thread
                        .join()
                        .unwrap_or_else(|_| Err(io::Error::other("a hashing thread died")))
                })
                .collect()
        })
    };
    for result in results {
        for (index, digest) in result? {
            digests[index] = Some(digest);
        }
    }
    Ok(digests)
}

/// Digest of one regular file's content.
fn digest_file(context: &dyn Context, path: &std::path::Path) -> io::Result<Digest> {
    if let Some(known) = context.known_digest(path) {
        return Ok(known);
    }
    let mut content = context.open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match content.read(&mut buffer)? {
            0 => return Ok(Digest::from_sha256(hash.finalize().into())),
            n => hash.update(&buffer[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::DirContext;
    use std::{fs, os::unix::fs::PermissionsExt as _};

    fn of(dir: &std::path::Path, path: &str) -> Digest {
        let context = DirContext::open(dir, "test").unwrap().owned_by_root();
        digest(
            &context,
            &Request {
                path,
                wildcard: true,
                follow: true,
                ..Request::default()
            },
        )
        .unwrap()
    }

    #[test]
    fn content_mode_and_name_count_and_time_does_not() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        let file = dir.path().join("d/f1");
        fs::write(&file, "one").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let first = of(dir.path(), "/d");
        fs::File::open(&file)
            .unwrap()
            .set_modified(std::time::SystemTime::UNIX_EPOCH)
            .unwrap();
        assert_eq!(of(dir.path(), "/d"), first);
        fs::write(dir.path().join("other"), "x").unwrap();
        assert_eq!(of(dir.path(), "/d"), first);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        assert_ne!(of(dir.path(), "/d"), first);
        let wild = of(dir.path(), "/d/f*");
        fs::rename(&file, dir.path().join("d/f2")).unwrap();
        assert_ne!(of(dir.path(), "/d/f*"), wild);
    }
}
