//! What a stage reads from outside itself, as a pod gets it: other stages and images by the registry, the context as a
//! published one, secrets from mounted files.

use crate::{
    artifacts::{self, StoredPlan, stage_tag},
    pod::internal,
};
use futures::future::BoxFuture;
use slipway_engine::{
    BuildError, Inputs, Layer, LayerDesc, Progress, Result, Root,
    context::Context,
    images::{Images, RegistryBlobs},
};
use slipway_oci::{Digest, ImageConfig, ImageManifest};
use slipway_plan::{
    ImageSource, StageIndex,
    protocol::{FailureReason, SECRETS_DIR},
};
use slipway_registry::{Class, Manifest, Repository};
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
/// A config larger than this is none.
const CONFIG_LIMIT: u64 = 8 << 20;

/// [`Inputs`] of a stage pod.
pub(crate) struct PodInputs {
    pub(crate) stored: Arc<StoredPlan>,
    pub(crate) repository: Repository,
    pub(crate) images: Images,
    pub(crate) progress: Progress,
    pub(crate) context_dir: PathBuf,
    pub(crate) context: OnceCell<Arc<dyn Context>>,
}

impl PodInputs {
    /// The manifest of another stage's result; waits until it is there. The operator stops this pod if that stage fails.
    async fn wait(&self, stage: StageIndex) -> Result<Manifest> {
        let scheduled = self
            .stored
            .schedule
            .stages
            .get(stage)
            .ok_or_else(|| internal(format!("the plan has no stage {stage}")))?;
        if let Some(digest) = &scheduled.cached {
            return Ok(self.repository.get_manifest(digest).await?);
        }
        let tag = stage_tag(&scheduled.key);
        let mut waiting = None;
        loop {
            match self.repository.get_manifest(tag.as_str()).await {
                Ok(manifest) => {
                    if let Some(vertex) = waiting.take() {
                        slipway_engine::progress::Vertex::done(vertex);
                    }
                    return Ok(manifest);
                }
                Err(error) if error.class() == Class::NotFound => {
                    waiting.get_or_insert_with(|| {
                        self.progress
                            .start(format!("[internal] wait for stage {}", scheduled.name))
                    });
                    tokio::time::sleep(POLL).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A stage's result as a root whose layers are fetched when somebody needs their files.
    async fn root(&self, manifest: &Manifest) -> Result<Root> {
        let document: ImageManifest = parse(&manifest.bytes, &manifest.digest)?;
        let config_digest = digest_of(document.config())?;
        let config: ImageConfig = parse(
            &self.repository.read_blob(&config_digest, CONFIG_LIMIT).await?,
            &config_digest,
        )?;
        if config.rootfs.diff_ids.len() != document.layers().len() {
            return Err(broken(&manifest.digest, "its config does not list its layers"));
        }
        let blobs = Arc::new(RegistryBlobs(self.repository.clone()));
        let layers = document
            .layers()
            .iter()
            .zip(&config.rootfs.diff_ids)
            .map(|(layer, diff_id)| {
                let desc = LayerDesc {
                    diff_id: diff_id.clone(),
                    digest: digest_of(layer)?,
                    size: layer.size(),
                    media_type: layer.media_type().to_string(),
                };
                Ok(Layer::remote(desc, blobs.clone()))
            });
        Ok(Root::of_layers(layers.collect::<Result<_>>()?))
    }
}

impl Inputs for PodInputs {
    fn stage(&self, stage: StageIndex) -> BoxFuture<'_, Result<Root>> {
        Box::pin(async move {
            let manifest = self.wait(stage).await?;
            self.root(&manifest).await
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
                    artifacts::open_context(&self.repository, digest, self.context_dir.clone()).await?;
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
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8], digest: &Digest) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| broken(digest, &error.to_string()))
}

fn digest_of(descriptor: &slipway_oci::Descriptor) -> Result<Digest> {
    let text = descriptor.digest().to_string();
    text.parse()
        .map_err(|_| internal(format!("the digest {text:?} of a stage's result is not a digest")))
}

fn broken(digest: &Digest, why: &str) -> BuildError {
    BuildError::new(
        FailureReason::RegistryError,
        format!("the stage result {digest} is damaged: {why}"),
    )
}
