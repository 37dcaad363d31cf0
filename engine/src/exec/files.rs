//! `COPY`, `ADD` and `WORKDIR`: layers that are made by writing files.

use super::{Runner, key};
use crate::{
    context::{Context, DirContext},
    copy::{self, Destination, PlaceOptions},
    error::{BuildError, Result},
    owner,
    root::{Root, join},
    store::{SnapshotId, Store},
};
use slipway_plan::{CopyOp, MkdirOp};
use std::path::Path;

impl Runner {
    pub(super) async fn mkdir(&mut self, op: &MkdirOp) -> Result<SnapshotId> {
        let op = op.clone();
        self.change(false, move |destination, root| {
            let owner = op
                .owner
                .as_deref()
                .map(|spec| owner::find(spec, root))
                .transpose()?;
            destination.make_dirs(&op.path, 0o755, owner, op.time)
        })
        .await
    }

    pub(super) async fn copy(&mut self, op: &CopyOp) -> Result<SnapshotId> {
        let mut trees = Vec::new();
        for source in &op.sources {
            trees.push(self.sources.tree(&source.source).await?);
        }
        let op = op.clone();
        self.change(op.link, move |destination, root| {
            let owner = op
                .chown
                .as_deref()
                .map(|spec| owner::find(spec, root))
                .transpose()?;
            for (source, tree) in op.sources.iter().zip(&trees) {
                let request = key::request(source, &op.exclude);
                let filter = copy::Filter::of(&request)?;
                let options = PlaceOptions {
                    owner,
                    chmod: op.chmod.clone(),
                    contents_only: source.contents_only,
                    unpack: source.unpack,
                };
                for one in copy::select(&**tree, &request)? {
                    destination.place(&**tree, &one, &op.dest, &filter, &options)?;
                }
            }
            Ok(())
        })
        .await
    }

    /// Makes a layer by writing files; `alone` writes onto nothing instead of the root. The work gets the root as it
    /// was, for names of owners, or `None` if there is none.
    async fn change(
        &mut self,
        alone: bool,
        work: impl FnOnce(&Destination, Option<&dyn Context>) -> Result<()> + Send + 'static,
    ) -> Result<SnapshotId> {
        let store = self.environment.store.clone();
        if !alone {
            self.root.materialise(&store, &self.environment.progress).await?;
        }
        let root = self.root.clone();
        tokio::task::spawn_blocking(move || {
            let draft = store.new_snapshot()?;
            if alone || root.layers.is_empty() {
                work(&Destination::open(&draft.fs())?, None)?;
                draft.mark_linked()?;
                return draft.commit();
            }
            adopt_root(&store, &root, &draft.fs())?;
            let mounted = root.mount_over(&store, &draft.fs(), &draft.work())?;
            {
                let view = DirContext::open(mounted.path(), "the stage")
                    .map_err(|error| BuildError::io("open the stage's root", error))?;
                work(&Destination::open(mounted.path())?, Some(&view))?;
            }
            mounted.unmount()?;
            draft.commit()
        })
        .await
        .map_err(join)?
    }
}

/// An upper directory's own attributes hide those of the root below: make them the same.
pub(super) fn adopt_root(store: &Store, root: &Root, upper: &Path) -> Result<()> {
    match root.lower(store).into_iter().next() {
        Some(top) => adopt_dir(&top, upper),
        None => Ok(()),
    }
}

pub(super) fn adopt_dir(top: &Path, upper: &Path) -> Result<()> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let adopt = || -> std::io::Result<()> {
        let metadata = std::fs::metadata(top)?;
        std::os::unix::fs::chown(upper, Some(metadata.uid()), Some(metadata.gid()))?;
        std::fs::set_permissions(upper, std::fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
        std::fs::File::open(upper)?.set_modified(metadata.modified()?)
    };
    adopt().map_err(|error| BuildError::io("prepare a layer", error))
}
