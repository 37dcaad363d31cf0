//! The list of a context's files: everything about them but their bytes.

use serde::{Deserialize, Serialize};
use slipway_engine::context::{Context, Entry, Kind};
use slipway_oci::Digest;
use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    io,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

/// Directories nested deeper than this are not a context but an attack on the stack.
const DEPTH_LIMIT: usize = 512;

/// All entries of a context that some step can read, parents before children.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ContextIndex {
    /// The entries, sorted by path.
    pub(crate) entries: Vec<IndexEntry>,
}

/// One file of the context.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IndexEntry {
    /// Its path; a name that is no UTF-8 has its odd bytes (and any `%`) as `%XX`.
    pub(crate) path: String,
    pub(crate) kind: IndexKind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: (i64, u32),
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hardlink: Option<(u64, u64)>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) xattrs: BTreeMap<String, String>,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum IndexKind {
    /// A regular file: where its bytes are.
    #[serde(rename_all = "camelCase")]
    File {
        size: u64,
        digest: Digest,
        pack: usize,
        offset: u64,
    },
    Dir,
    Symlink(String),
    Fifo,
    Socket,
}

impl ContextIndex {
    /// The index as a map, for look-ups.
    pub(crate) fn by_path(self) -> BTreeMap<PathBuf, IndexEntry> {
        self.entries
            .into_iter()
            .map(|entry| (decode(&entry.path).into(), entry))
            .collect()
    }
}

impl IndexEntry {
    /// As the engine sees an entry.
    pub(crate) fn to_entry(&self) -> Entry {
        let kind = match &self.kind {
            IndexKind::File { size, .. } => Kind::File(*size),
            IndexKind::Dir => Kind::Dir,
            IndexKind::Symlink(target) => Kind::Symlink(decode(target).into()),
            IndexKind::Fifo => Kind::Fifo,
            IndexKind::Socket => Kind::Socket,
        };
        Entry {
            kind,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            mtime: self.mtime,
            hardlink: self.hardlink,
        }
    }

    /// Its extended attributes.
    pub(crate) fn xattrs(&self) -> Vec<(OsString, Vec<u8>)> {
        self.xattrs
            .iter()
            .map(|(name, value)| (decode(name), decode(value).into_vec()))
            .collect()
    }
}

/// Calls `visit` for each entry of the context that `wanted` lets through, parents first. A directory is entered
/// whenever `wanted` accepts it, so it must accept the parents of what it accepts.
pub(crate) fn walk(
    context: &dyn Context,
    wanted: &dyn Fn(&Path, bool) -> bool,
    visit: &mut dyn FnMut(&Path, &Entry) -> io::Result<()>,
) -> io::Result<()> {
    let mut todo = vec![PathBuf::new()];
    while let Some(dir) = todo.pop() {
        if dir.components().count() > DEPTH_LIMIT {
            return Err(io::Error::other(format!(
                "{} is nested too deeply",
                dir.display()
            )));
        }
        for (name, entry) in context.list(&dir)? {
            let path = dir.join(name);
            if !wanted(&path, entry.is_dir()) {
                continue;
            }
            visit(&path, &entry)?;
            if entry.is_dir() {
                todo.push(path);
            }
        }
    }
    Ok(())
}

/// Bytes as text: UTF-8 as it is, other bytes and `%` as `%XX`.
pub(crate) fn encode(bytes: &OsStr) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.as_bytes().utf8_chunks() {
        text.push_str(&chunk.valid().replace('%', "%25"));
        for byte in chunk.invalid() {
            text = format!("{text}%{byte:02X}");
        }
    }
    text
}

/// What [`encode`] made text of.
pub(crate) fn decode(text: &str) -> OsString {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = (first == b'%')
            .then(|| tail.get(..2))
            .flatten()
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        if let Some(byte) = escaped {
            bytes.push(byte);
            rest = &tail[2..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_name_survives_the_index(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let name = OsString::from_vec(bytes);
            prop_assert_eq!(decode(&encode(&name)), name);
        }
    }

    #[test]
    fn ordinary_names_stay_readable() {
        assert_eq!(encode(OsStr::new("src/größe.c")), "src/größe.c");
        assert_eq!(encode(OsStr::from_bytes(b"a\xff%")), "a%FF%25");
    }
}
