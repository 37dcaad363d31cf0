//! A root filesystem as a stack of layers, and how layers come to lie in the store.
//!
//! ```text
//!  Root{ layers: [base 0, base 1, step 1, …] }
//!     │  a layer may be known by digest only: nothing is fetched for a stage whose steps are all cached
//!     ├─ materialise ─▶ store/snapshots/<id>/fs, all missing ones side by side
//!     └─ mount ───────▶ overlay of them, read-only or with an upper directory
//! ```

use crate::{
    error::{BuildError, Result},
    progress::Progress,
    store::{LayerDesc, SnapshotId, Store, Temporary},
};
use futures::future::{BoxFuture, try_join_all};
use slipway_layer::UnpackOptions;
use slipway_plan::protocol::FailureReason;
use slipway_sandbox::{Overlay, OverlaySpec};
use std::{
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The bytes of a layer, from wherever they are.
pub type BlobReader = Box<dyn Read + Send>;

/// Where layers that are not in the store come from.
pub trait Blobs: Send + Sync {
    /// Opens a blob. The reader blocks, and is read on a thread where it may; it need not verify what it reads.
    fn open(&self, layer: &LayerDesc) -> BoxFuture<'_, Result<BlobReader>>;

    /// The repository that holds the blobs, so that a push into the same registry can mount instead of copying.
    fn repository(&self) -> Option<slipway_registry::Repository> {
        None
    }
}

/// One layer of a root.
#[derive(Clone)]
pub struct Layer {
    /// Its snapshot's name in the store. It need not be there yet.
    pub snapshot: SnapshotId,
    /// How it is packed already: a base's layer, or one from a cache.
    pub desc: Option<LayerDesc>,
    /// Where its blob is, if not in the store.
    pub blobs: Option<Arc<dyn Blobs>>,
    /// When the step that made it ran, seconds since 1970; unknown for a base's layer, whose history tells.
    pub created: Option<i64>,
}

impl Layer {
    /// A layer that is known by its digest and fetched when somebody needs its files.
    pub fn remote(desc: LayerDesc, blobs: Arc<dyn Blobs>) -> Self {
        Self {
            snapshot: Store::layer_id(&desc.diff_id),
            desc: Some(desc),
            blobs: Some(blobs),
            created: None,
        }
    }

    /// A layer that a step made in this store.
    pub fn local(snapshot: SnapshotId, created: i64) -> Self {
        Self {
            snapshot,
            desc: None,
            blobs: None,
            created: Some(created),
        }
    }
}

impl std::fmt::Debug for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layer")
            .field("snapshot", &self.snapshot)
            .field("desc", &self.desc)
            .finish_non_exhaustive()
    }
}

/// A stack of layers, the lowest first.
#[derive(Debug, Clone, Default)]
pub struct Root {
    /// The layers.
    pub layers: Vec<Layer>,
    /// Names the content: roots with equal keys have equal files.
    pub content_key: String,
}

/// A mounted root. Unmounted and removed when dropped.
pub struct Mounted {
    // Before the directories: they go when it is unmounted.
    overlay: Option<Overlay>,
    dirs: Vec<Temporary>,
    path: PathBuf,
}

impl Mounted {
    /// Where the merged tree is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Unmounts now, so that the upper directory is whole.
    pub fn unmount(mut self) -> Result<()> {
        if let Some(overlay) = self.overlay.take() {
            overlay.unmount().map_err(sandbox)?;
        }
        self.dirs.clear();
        Ok(())
    }
}

pub(crate) fn sandbox(error: slipway_sandbox::Error) -> BuildError {
    use std::error::Error as _;
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    let reason = match &error {
        slipway_sandbox::Error::User(_) | slipway_sandbox::Error::Cwd { .. } => {
            FailureReason::DockerfileInvalid
        }
        _ => FailureReason::SandboxUnavailable,
    };
    BuildError::new(reason, text).because(error)
}

impl Root {
    /// A root of packed layers, the lowest first. Its content key is made of their diff ids.
    pub fn of_layers(layers: Vec<Layer>) -> Self {
        let descs: Vec<LayerDesc> = layers.iter().filter_map(|layer| layer.desc.clone()).collect();
        Self {
            content_key: crate::images::content_key(&descs),
            layers,
        }
    }

    /// Fetches and unpacks what is missing in the store, side by side.
    pub async fn materialise(&self, store: &Arc<Store>, progress: &Progress) -> Result<()> {
        let missing = self
            .layers
            .iter()
            .enumerate()
            .filter(|(_, layer)| !store.has_snapshot(&layer.snapshot));
        let work = missing.map(|(index, layer)| {
            let below: Vec<PathBuf> = self.layers[..index]
                .iter()
                .rev()
                .map(|layer| store.snapshot_dir(&layer.snapshot))
                .collect();
            unpack_layer(store.clone(), layer.clone(), below, progress.clone())
        });
        let unpacked = try_join_all(work).await?;
        // Only now are the layers below there to be looked at.
        for done in unpacked.into_iter().flatten() {
            tokio::task::spawn_blocking(done).await.map_err(join)??;
        }
        Ok(())
    }

    /// Directories of the layers, the topmost first, as overlayfs wants them.
    pub fn lower(&self, store: &Store) -> Vec<PathBuf> {
        self.layers
            .iter()
            .rev()
            .map(|layer| store.snapshot_dir(&layer.snapshot))
            .collect()
    }

    /// Mounts the root read-only. All layers must be there. Blocks.
    pub fn mount(&self, store: &Store) -> Result<Mounted> {
        mount(store, self.lower(store), None, None)
    }

    /// Mounts the root with a directory for the changes. All layers must be there. Blocks.
    pub fn mount_over(&self, store: &Store, upper: &Path, work: &Path) -> Result<Mounted> {
        mount(store, self.lower(store), Some(upper), Some(work))
    }
}

/// Mounts directories in overlay format on a fresh temporary one.
pub(crate) fn mount(
    store: &Store,
    lower: Vec<PathBuf>,
    upper: Option<&Path>,
    work: Option<&Path>,
) -> Result<Mounted> {
    let dir = store.temporary_dir("mount")?;
    let target = dir.path().join("root");
    std::fs::create_dir(&target).map_err(|error| BuildError::io("create a mount point", error))?;
    let mut mounted = mount_at(store, lower, upper, work, &target)?;
    mounted.dirs.push(dir);
    Ok(mounted)
}

/// Mounts directories in overlay format on `target`.
pub(crate) fn mount_at(
    store: &Store,
    mut lower: Vec<PathBuf>,
    upper: Option<&Path>,
    work: Option<&Path>,
    target: &Path,
) -> Result<Mounted> {
    let dir = store.temporary_dir("mount")?;
    // A read-only overlay wants two lower directories at least, a writable one wants one.
    let wanted = if upper.is_some() { 1 } else { 2 };
    while lower.len() < wanted {
        let empty = dir.path().join(format!("empty{}", lower.len()));
        std::fs::create_dir(&empty).map_err(|error| BuildError::io("create a mount point", error))?;
        lower.push(empty);
    }
    let spec = OverlaySpec {
        lower,
        upper: upper.map(Path::to_owned),
        work: work.map(Path::to_owned),
        target: target.to_owned(),
    };
    let overlay = Overlay::mount(&spec).map_err(sandbox)?;
    Ok(Mounted {
        overlay: Some(overlay),
        dirs: vec![dir],
        path: target.to_owned(),
    })
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(crate) fn join(error: tokio::task::JoinError) -> BuildError {
    if error.is_cancelled() {
        return BuildError::cancelled();
    }
    BuildError::new(
        FailureReason::Internal,
        format!("a worker of the build died: {error}"),
    )
}

type Adopt = Box<dyn FnOnce() -> Result<()> + Send>;

/// One layer into the store. Returns what is left to do once the layers below are there.
async fn unpack_layer(
    store: Arc<Store>,
    layer: Layer,
    below: Vec<PathBuf>,
    progress: Progress,
) -> Result<Option<Adopt>> {
    let desc = layer.desc.clone().ok_or_else(|| {
        BuildError::new(
            FailureReason::Internal,
            format!(
                "the layer {} is gone from the store; build again with --no-cache",
                layer.snapshot
            ),
        )
    })?;
    // Two builds that want the same layer: one fetches it, the other waits.
    let guard = {
        let (store, name) = (store.clone(), layer.snapshot.to_string());
        tokio::task::spawn_blocking(move || store.lock(&name))
            .await
            .map_err(join)??
    };
    if store.has_snapshot(&layer.snapshot) {
        return Ok(None);
    }
    let reader: BlobReader = if store.has_blob(&desc.digest) {
        Box::new(store.open_blob(&desc.digest)?)
    } else if let Some(blobs) = &layer.blobs {
        blobs.open(&desc).await?
    } else {
        return Err(BuildError::new(
            FailureReason::Internal,
            format!("nobody has the layer {}", desc.digest),
        ));
    };
    let vertex = progress.start(format!("unpack {}", desc.digest));
    let implied = {
        let (store, desc, snapshot) = (store.clone(), desc.clone(), layer.snapshot.clone());
        tokio::task::spawn_blocking(move || -> Result<Vec<PathBuf>> {
            let draft = store.new_snapshot()?;
            let options = UnpackOptions {
                digest: Some(desc.digest.clone()),
                size: Some(desc.size),
                diff_id: Some(desc.diff_id.clone()),
                ..UnpackOptions::layer()
            };
            let unpacked = slipway_layer::unpack(reader, &draft.fs(), &options)?;
            draft.commit_as(snapshot)?;
            Ok(unpacked.implied_parents)
        })
        .await
        .map_err(join)??
    };
    vertex.done();
    drop(guard);
    if implied.is_empty() || below.is_empty() {
        return Ok(None);
    }
    Ok(Some(Box::new(move || {
        let dir = store.snapshot_dir(&layer.snapshot);
        slipway_layer::adopt_implied_parents(&dir, &implied, &below).map_err(BuildError::from)
    })))
}
