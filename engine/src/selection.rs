//! The part of a tree that a step reads: its digest for keys, and its paths for publishing.

use crate::{
    context::{Context, Kind, resolve_with},
    copy::{self, Request},
    error::{BuildError, Result},
};
use slipway_plan::Selection;
use std::{
    cell::RefCell,
    collections::BTreeSet,
    path::{Path, PathBuf},
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

/// Digest of what is selected: names, kinds, modes, owners and bytes, no times. Fails where something that is named is
/// missing. Blocks.
pub fn digest(context: &dyn Context, selection: &Selection) -> Result<slipway_oci::Digest> {
    copy::digest(context, &request(selection))
}

/// All that must be there for the selection to be read elsewhere as it is here: the files, the directories above them,
/// and the symbolic links that lead to them. Blocks.
pub fn paths(context: &dyn Context, selection: &Selection) -> Result<BTreeSet<PathBuf>> {
    let failed = |error| BuildError::io(format!("read {}", context.describe()), error);
    let request = request(selection);
    let filter = copy::Filter::of(&request)?;
    let found = RefCell::new(BTreeSet::new());
    let add = |path: &Path| {
        let mut found = found.borrow_mut();
        for ancestor in path
            .ancestors()
            .filter(|ancestor| !ancestor.as_os_str().is_empty())
        {
            found.insert(ancestor.to_owned());
        }
    };
    let walk_to = |path: &Path| {
        resolve_with(path, true, |path| {
            let entry = context.lookup(path)?;
            if entry.is_some() {
                add(path);
            }
            Ok(entry.and_then(|entry| match entry.kind {
                Kind::Symlink(target) => Some(target),
                _ => None,
            }))
        })
        .map_err(failed)
    };
    // The part before a wildcard may lead through links too.
    walk_to(&copy::before_wildcards(&selection.path))?;
    for one in copy::select(context, &request)? {
        walk_to(&one.named)?;
        for node in copy::gather(context, &one, &filter).map_err(failed)? {
            add(&node.source);
        }
    }
    Ok(found.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::DirContext;
    use std::fs;

    #[test]
    fn the_links_that_lead_to_a_file_are_part_of_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("real/deep")).unwrap();
        fs::write(dir.path().join("real/deep/f"), "1").unwrap();
        fs::write(dir.path().join("other"), "1").unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
        let context = DirContext::open(dir.path(), "test").unwrap();
        let selection = Selection {
            path: "/link/deep".into(),
            wildcard: true,
            follow: true,
            ..Selection::default()
        };
        let found = paths(&context, &selection).unwrap();
        let names: Vec<_> = found.iter().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(names, ["link", "real", "real/deep", "real/deep/f"]);
        assert_eq!(
            digest(&context, &selection).unwrap(),
            digest(&context, &selection).unwrap()
        );
    }
}
