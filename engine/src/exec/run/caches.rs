//! Cache mounts: taken for a step, and filled when they are new.

use super::{super::Runner, Held};
use crate::{
    context::Context,
    copy::{self, Destination, Owner, PlaceOptions, Request},
    error::{BuildError, Result},
    root::join,
    store::{CacheKey, Caches},
};
use slipway_plan::{Mount, RunOp, Sharing, Source, protocol::FailureReason};
use std::{collections::BTreeMap, io, os::unix::fs::PermissionsExt as _, path::Path};

/// Takes the cache mounts of a step, always in the same order, so that two steps with two locked caches never wait for
/// each other.
pub(super) async fn take_caches(runner: &mut Runner, op: &RunOp, held: &mut Held) -> Result<()> {
    let mut wanted: BTreeMap<(String, String), (Sharing, &Mount)> = BTreeMap::new();
    for mount in &op.mounts {
        let Mount::Cache { sharing, .. } = mount else {
            continue;
        };
        let key = cache_key(runner, mount).await?;
        wanted.entry((key.id, key.initial)).or_insert((*sharing, mount));
    }
    for ((id, initial), (sharing, mount)) in wanted {
        let key = CacheKey { id, initial };
        let environment = runner.environment.clone();
        let caches = environment
            .inputs
            .caches(&key.id, sharing)
            .map_or_else(|| environment.store.caches(), Caches::at);
        // With --no-cache, what a cache begins with is made anew, and with it the cache; a plain one begins with
        // nothing and stays.
        if runner.stage().no_cache
            && !key.initial.is_empty()
            && crate::progress::lock(&environment.emptied).insert(key.clone())
        {
            caches.reset(&key)?;
        }
        let wanted = key.clone();
        let mut cache = tokio::task::spawn_blocking(move || caches.take(&wanted, sharing))
            .await
            .map_err(join)??;
        if cache.is_fresh() {
            fill_cache(runner, mount, cache.path()).await?;
            cache.filled()?;
        }
        held.caches.insert((key.id, key.initial), cache);
    }
    Ok(())
}

pub(super) async fn cache_key(runner: &mut Runner, mount: &Mount) -> Result<CacheKey> {
    let Mount::Cache {
        id,
        source,
        path,
        mode,
        uid,
        gid,
        ..
    } = mount
    else {
        return Err(BuildError::new(FailureReason::Internal, "not a cache mount"));
    };
    let mut initial = String::new();
    if *source != Source::Scratch {
        let from = match runner.sources.root(source).await? {
            Some(root) => root.content_key,
            None => format!("{source:?}"),
        };
        initial = format!("{from} {path} ");
    }
    if mode.is_some() || uid.is_some() || gid.is_some() {
        initial = format!("{initial}{mode:?} {uid:?} {gid:?}");
    }
    Ok(CacheKey {
        id: id.clone(),
        initial,
    })
}

/// The first content of a cache: what `from=` says, and the directory's own mode and owner.
async fn fill_cache(runner: &mut Runner, mount: &Mount, dir: &Path) -> Result<()> {
    let Mount::Cache {
        source,
        path,
        mode,
        uid,
        gid,
        ..
    } = mount
    else {
        return Ok(());
    };
    if *source != Source::Scratch {
        let tree = runner.sources.tree(source).await?;
        let (path, dir) = (path.clone(), dir.to_owned());
        tokio::task::spawn_blocking(move || copy_tree(&*tree, &path, &dir))
            .await
            .map_err(join)??;
    }
    let prepare = || -> io::Result<()> {
        if *source == Source::Scratch || uid.is_some() || gid.is_some() {
            let owner = Owner {
                uid: uid.unwrap_or(0),
                gid: gid.unwrap_or(0),
            };
            copy::give(dir, owner, "the cache mount")?;
        }
        if *source == Source::Scratch || mode.is_some() {
            std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode.unwrap_or(0o755)))?;
        }
        Ok(())
    };
    prepare().map_err(|error| BuildError::io("prepare a cache mount", error))
}

/// All that is at `path` of a tree into an existing directory.
pub(super) fn copy_tree(tree: &dyn Context, path: &str, dir: &Path) -> Result<()> {
    let request = Request {
        path,
        follow: true,
        ..Request::default()
    };
    let filter = copy::Filter::of(&request)?;
    let options = PlaceOptions {
        contents_only: true,
        ..PlaceOptions::default()
    };
    let destination = Destination::open(dir)?;
    for one in copy::select(tree, &request)? {
        destination.place(tree, &one, "/", &filter, &options)?;
    }
    Ok(())
}
