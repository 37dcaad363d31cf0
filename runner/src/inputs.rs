//! What a stage reads from outside itself, as a pod gets it: other stages and images by the registry, the context as a
//! published one, secrets from mounted files.

use crate::{
    artifacts::{self, StoredPlan},
    pod::internal,
    results::{self, Missing},
};
use futures::future::BoxFuture;
use slipway_engine::{
    BuildError, Inputs, Progress, Result, Root, cache::Place, context::Context, images::Images,
};
use slipway_plan::{
    ImageSource, Sharing, StageIndex,
    protocol::{CACHES_DIR, FailureReason, SECRETS_DIR, ScheduledCache},
};
use slipway_registry::Manifest;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

/// How often a waiting stage asks whether another one is done: often enough that nobody notices, seldom enough that a
/// registry does not mind.
const POLL: Duration = Duration::from_millis(200);

/// [`Inputs`] of a stage pod.
pub(crate) struct PodInputs {
    pub(crate) stored: Arc<StoredPlan>,
    pub(crate) place: Place,
    pub(crate) images: Images,
    /// The cache mounts of this stage, in the order of their volumes.
    pub(crate) caches: Vec<ScheduledCache>,
    pub(crate) progress: Progress,
    pub(crate) context_dir: PathBuf,
    pub(crate) context: OnceCell<Arc<dyn Context>>,
}

impl PodInputs {
    /// The manifest of another stage's result, and the content key of its root; waits until it is there. The operator stops
    /// this pod if that stage fails.
    async fn wait(&self, stage: StageIndex) -> Result<(Manifest, Option<String>)> {
        let scheduled = self
            .stored
            .schedule
            .stages
            .get(stage)
            .ok_or_else(|| internal(format!("the plan has no stage {stage}")))?;
        let repository = &self.place.repository;
        if let Some(digest) = &scheduled.cached {
            let content_key = self.stored.roots.get(stage).cloned().flatten();
            return Ok((repository.get_manifest(digest).await?, content_key));
        }
        let mut waiting = None;
        loop {
            match results::find(&self.place, &scheduled.key).await {
                Ok(found) => {
                    if let Some(vertex) = waiting.take() {
                        slipway_engine::progress::Vertex::done(vertex);
                    }
                    let manifest = repository.get_manifest(&found.manifest).await?;
                    return Ok((manifest, Some(found.content_key)));
                }
                Err(Missing::Absent) => {
                    waiting.get_or_insert_with(|| {
                        self.progress
                            .start(format!("[internal] wait for stage {}", scheduled.name))
                    });
                    tokio::time::sleep(POLL).await;
                }
                Err(Missing::Broken(why)) => {
                    return Err(BuildError::new(
                        FailureReason::RegistryError,
                        format!("the result of stage {} is damaged: {why}", scheduled.name),
                    ));
                }
                Err(Missing::Unread(error)) => return Err(error.into()),
            }
        }
    }
}

impl Inputs for PodInputs {
    fn stage(&self, stage: StageIndex) -> BoxFuture<'_, Result<Root>> {
        Box::pin(async move {
            let (manifest, content_key) = self.wait(stage).await?;
            let repository = &self.place.repository;
            let documents = results::documents(repository, &manifest).await?;
            Ok(documents.root(repository, content_key.as_deref()))
        })
    }

    fn image<'a>(&'a self, image: &'a ImageSource) -> BoxFuture<'a, Result<Root>> {
        Box::pin(self.images.root(image))
    }

    fn context<'a>(&'a self, name: Option<&'a str>) -> BoxFuture<'a, Result<Arc<dyn Context>>> {
        Box::pin(async move {
            if let Some(name) = name {
                return Err(BuildError::new(
                    FailureReason::DockerfileInvalid,
                    format!("there is no build context named {name:?}"),
                ));
            }
            let open = || async {
                let digest = self
                    .stored
                    .context
                    .as_ref()
                    .ok_or_else(|| internal("a step reads the context, but the plan published none"))?;
                let context =
                    artifacts::open_context(&self.place.repository, digest, self.context_dir.clone()).await?;
                Ok::<_, BuildError>(Arc::new(context) as Arc<dyn Context>)
            };
            self.context.get_or_try_init(open).await.cloned()
        })
    }

    fn secret(&self, id: &str) -> Result<Option<Zeroizing<Vec<u8>>>> {
        // Ids come from the Dockerfile: one with a slash would name another file.
        if id.contains('/') || id == ".." {
            return Ok(None);
        }
        let path = Path::new(SECRETS_DIR).join(id);
        match std::fs::read(&path) {
            Ok(value) => {
                let value = Zeroizing::new(value);
                self.progress.redact(&value);
                Ok(Some(value))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(BuildError::io(format!("read the build secret {id:?}"), error)),
        }
    }

    fn ssh(&self, _id: &str) -> Result<Option<PathBuf>> {
        Ok(None)
    }

    fn caches(&self, id: &str, sharing: Sharing) -> Option<PathBuf> {
        cache_volume(Path::new(CACHES_DIR), &self.caches, id, sharing)
    }
}

/// The folder for a cache mount on its volume, if it has one. Never the volume's own root: what a file system keeps there
/// (`lost+found`) is none of a step's business.
fn cache_volume(volumes: &Path, caches: &[ScheduledCache], id: &str, sharing: Sharing) -> Option<PathBuf> {
    let place = caches
        .iter()
        .position(|cache| cache.id == id && cache.sharing == sharing)?;
    let volume = volumes.join(place.to_string());
    volume.is_dir().then(|| volume.join("slipway"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_mount_is_found_by_its_place_and_sharing_and_may_have_no_volume() {
        let dir = tempfile::tempdir().unwrap();
        let cache = |id: &str, sharing| ScheduledCache {
            id: id.into(),
            sharing,
        };
        let caches = [
            cache("/a", Sharing::Shared),
            cache("/a", Sharing::Locked),
            cache("/b", Sharing::Private),
        ];
        std::fs::create_dir(dir.path().join("1")).unwrap();
        let find = |id, sharing| cache_volume(dir.path(), &caches, id, sharing);
        assert_eq!(find("/a", Sharing::Locked), Some(dir.path().join("1/slipway")));
        assert_eq!(find("/a", Sharing::Shared), None);
        assert_eq!(find("/b", Sharing::Private), None);
        assert_eq!(find("/a", Sharing::Private), None);
    }
}
