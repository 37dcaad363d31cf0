//! What a stage reads from outside itself: other stages, images, contexts, secrets. In one process all of it is near; in
//! a pod it comes from the registry and from mounted Secrets. The executor does not know the difference.

use crate::{
    context::Context,
    error::Result,
    root::{Layer, Root},
    store::StepRecord,
};
use futures::future::BoxFuture;
use slipway_plan::{ImageSource, Sharing, StageIndex};
use std::{path::PathBuf, sync::Arc};
use zeroize::Zeroizing;

/// Where the inputs of a stage are.
pub trait Inputs: Send + Sync {
    /// The finished root of another stage; waits until it is finished.
    fn stage(&self, stage: StageIndex) -> BoxFuture<'_, Result<Root>>;

    /// The root of an image.
    fn image<'a>(&'a self, image: &'a ImageSource) -> BoxFuture<'a, Result<Root>>;

    /// The build context (`None`), or a named one that is a directory; ignore rules applied.
    fn context<'a>(&'a self, name: Option<&'a str>) -> BoxFuture<'a, Result<Arc<dyn Context>>>;

    /// A build secret's value, if it is offered.
    fn secret(&self, id: &str) -> Result<Option<Zeroizing<Vec<u8>>>>;

    /// The socket of an SSH agent, if one is offered.
    fn ssh(&self, id: &str) -> Result<Option<PathBuf>>;

    /// Where the cache mounts of this id are kept, if not in the store: on a volume that outlives it. Who else may use it
    /// at the same time is then settled outside.
    fn caches(&self, id: &str, sharing: Sharing) -> Option<PathBuf> {
        let _ = (id, sharing);
        None
    }
}

/// A result of an instruction that a cache outside the store has.
pub struct CachedStep {
    /// The layer that it made.
    pub layer: Layer,
    /// The keys that it was kept under, the one that it was found by among them.
    pub keys: Vec<String>,
    /// Key by content of the state after it.
    pub content_key: String,
    /// When it ran, seconds since 1970.
    pub created: i64,
}

/// A cache beside the store: `--cache-from`, or the cache repository of a pod. Asked after the store.
pub trait StepCache: Send + Sync {
    /// The result under a key.
    fn lookup<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Option<CachedStep>>;

    /// Takes note of a result, executed or found, under all its keys: `root` is the state after it, its layer the topmost
    /// one.
    fn record(&self, keys: &[String], record: &StepRecord, root: &Root) {
        let _ = (keys, record, root);
    }
}
