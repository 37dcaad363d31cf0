//! What a selection of a plan means in a tree: its digest for the key, and the paths that have to be published so that
//! the same selection finds the same files elsewhere.

use crate::{
    context::{Content, Context, Entry},
    copy::{self, Filter, Request},
    error::{BuildError, Result},
    progress::lock,
};
use slipway_oci::Digest;
use slipway_plan::Selection;
use std::{
    collections::BTreeSet,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::Mutex,
};

fn request(selection: &Selection) -> Request<'_> {
    Request {
        path: &selection.path,
        wildcard: selection.wildcard,
        follow: selection.follow,
        include: selection.include.as_deref(),
        required: None,
        exclude: &selection.exclude,
    }
}

/// Digest of the selected content: names, kinds, modes, owners, bytes; no times. Fails as the copy would where a file is
/// missing.
pub fn digest(context: &dyn Context, selection: &Selection) -> Result<Digest> {
    copy::digest(context, &request(selection))
}

/// Every path that reading the selection touches: the selected files, the links that lead to them, and the directories
/// above.
pub fn paths(context: &dyn Context, selection: &Selection) -> Result<BTreeSet<PathBuf>> {
    let request = request(selection);
    let filter = Filter::of(&request)?;
    let seen = Recording { inner: context, seen: Mutex::default() };
    let mut paths = BTreeSet::new();
    for one in copy::select(&seen, &request)? {
        let nodes = copy::gather(context, &one, &filter)
            .map_err(|error| BuildError::io(format!("read {}", context.describe()), error))?;
        paths.extend(nodes.into_iter().map(|node| node.source));
    }
    paths.append(&mut lock(&seen.seen));
    let parents: Vec<PathBuf> =
        paths.iter().flat_map(|path| path.ancestors().skip(1)).map(Path::to_owned).collect();
    paths.extend(parents);
    paths.remove(Path::new(""));
    Ok(paths)
}

/// Notes what is looked up: a link is looked up by whoever follows it.
struct Recording<'a> {
    inner: &'a dyn Context,
    seen: Mutex<BTreeSet<PathBuf>>,
}

impl Context for Recording<'_> {
    fn lookup(&self, path: &Path) -> io::Result<Option<Entry>> {
        let entry = self.inner.lookup(path)?;
        if entry.is_some() {
            lock(&self.seen).insert(path.to_owned());
        }
        Ok(entry)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<(OsString, Entry)>> {
        self.inner.list(path)
    }

    fn open(&self, path: &Path) -> io::Result<Content> {
        self.inner.open(path)
    }

    fn hidden_by(&self, path: &Path) -> Option<String> {
        self.inner.hidden_by(path)
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::DirContext;
    use std::fs;

    #[test]
    fn links_and_parents_of_what_is_selected_are_published() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("real/deep")).unwrap();
        fs::write(dir.path().join("real/deep/file"), "x").unwrap();
        fs::write(dir.path().join("other"), "x").unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("alias")).unwrap();
        let context = DirContext::open(dir.path(), "the build context").unwrap();
        let selection =
            Selection { path: "/alias/deep".into(), follow: true, ..Selection::default() };
        let paths: Vec<_> =
            paths(&context, &selection).unwrap().into_iter().map(|path| path.display().to_string()).collect();
        assert_eq!(paths, ["alias", "real", "real/deep", "real/deep/file"]);
    }

    #[test]
    fn a_wildcard_publishes_only_its_matches() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.c", "b.c", "c.h"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        let context = DirContext::open(dir.path(), "the build context").unwrap();
        let selection =
            Selection { path: "/*.c".into(), wildcard: true, follow: true, ..Selection::default() };
        assert_eq!(paths(&context, &selection).unwrap().len(), 2);
    }
}
