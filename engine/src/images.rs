//! Base images: looked up in registries and OCI image layouts, and given as roots whose layers are fetched when needed.

use crate::{
    error::{BuildError, Result},
    progress::lock,
    root::{BlobReader, Blobs, Layer, Root},
    store::LayerDesc,
};
use futures::future::BoxFuture;
use slipway_oci::{Descriptor, Digest, ImageConfig, ImageIndex, ImageManifest, Platform, Reference};
use slipway_plan::{BaseError, BaseRequest, ImageSource, ResolvedBase, protocol::FailureReason};
use slipway_registry::{Registries, Repository};
use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};
use tokio_util::io::SyncIoBridge;

/// Configs and small manifests are read whole; this bounds what a hostile registry can make us hold.
const DOCUMENT_LIMIT: u64 = 8 << 20;

/// Looks images up; remembers what it found for the life of a build.
pub struct Images {
    registries: Registries,
    found: Mutex<HashMap<Digest, Arc<Found>>>,
}

struct Found {
    config: ImageConfig,
    layers: Vec<LayerDesc>,
    blobs: Arc<dyn Blobs>,
}

impl Images {
    /// Looks in these registries.
    pub fn new(registries: Registries) -> Self {
        Self {
            registries,
            found: Mutex::default(),
        }
    }

    /// The registries.
    pub fn registries(&self) -> &Registries {
        &self.registries
    }

    /// Answers planning's question for an image.
    pub async fn resolve(&self, request: &BaseRequest) -> Result<ResolvedBase, BaseError> {
        let answer = match &request.layout {
            Some(layout) => {
                let dir = PathBuf::from(layout);
                self.look_in_layout(&dir, &request.reference, &request.platform)
            }
            None => self.look_in_registry(&request.reference, &request.platform).await,
        };
        let (digest, found) = answer.map_err(|error| BaseError {
            message: error.to_string(),
            reason: error.reason(),
            retry_after: error.retry_after(),
        })?;
        Ok(ResolvedBase {
            digest,
            config: found.config.clone(),
        })
    }

    /// The root of a resolved image. Nothing of it is fetched yet but its documents.
    pub async fn root(&self, image: &ImageSource) -> Result<Root> {
        let known = lock(&self.found).get(&image.digest).cloned();
        let found = match (known, &image.layout) {
            (Some(found), _) => found,
            (None, Some(layout)) => {
                self.look_in_layout(
                    Path::new(layout),
                    &image.reference.with_digest(&image.digest),
                    &image.platform,
                )?
                .1
            }
            (None, None) => {
                self.look_in_registry(&image.reference.with_digest(&image.digest), &image.platform)
                    .await?
                    .1
            }
        };
        let layers: Vec<Layer> = found
            .layers
            .iter()
            .map(|desc| Layer::remote(desc.clone(), found.blobs.clone()))
            .collect();
        let content_key = content_key(&found.layers);
        Ok(Root { layers, content_key })
    }

    async fn look_in_registry(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<(Digest, Arc<Found>)> {
        let image = self.registries.resolve(reference, platform).await?;
        let blobs = Arc::new(RegistryBlobs(image.repository.clone()));
        self.keep(image.manifest_digest, &image.manifest, image.config, blobs)
    }

    fn look_in_layout(
        &self,
        dir: &Path,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<(Digest, Arc<Found>)> {
        let missing = |what: &str| {
            BuildError::new(
                FailureReason::ImageNotFound,
                format!("{what} is not in the OCI image layout {}", dir.display()),
            )
        };
        let mut digest = match reference.digest() {
            Some(digest) => digest.clone(),
            None => by_tag(dir, reference.tag().unwrap_or("latest"))?
                .ok_or_else(|| missing(&reference.to_string()))?,
        };
        loop {
            let bytes = read_blob(dir, &digest).map_err(|_| missing(&digest.to_string()))?;
            let mut document: serde_json::Value = parse(&bytes, &digest)?;
            if document.get("manifests").is_some() {
                let index: ImageIndex = parse(&bytes, &digest)?;
                let chosen = platform
                    .choose(&index)
                    .ok_or_else(|| missing(&format!("{reference} for {platform}")))?;
                digest = digest_of(chosen)?;
                continue;
            }
            // Docker and BuildKit (and we) write `null` for no layers.
            if let Some(layers) = document.get_mut("layers").filter(|layers| layers.is_null()) {
                *layers = serde_json::Value::Array(Vec::new());
            }
            let manifest: ImageManifest = serde_json::from_value(document).map_err(|error| {
                BuildError::new(
                    FailureReason::RegistryError,
                    format!("{digest} is no image manifest: {error}"),
                )
            })?;
            let config_digest = digest_of(manifest.config())?;
            let config: ImageConfig = parse(
                &read_blob(dir, &config_digest).map_err(|_| missing(&config_digest.to_string()))?,
                &config_digest,
            )?;
            return self.keep(digest, &manifest, config, Arc::new(LayoutBlobs(dir.to_owned())));
        }
    }

    fn keep(
        &self,
        digest: Digest,
        manifest: &ImageManifest,
        config: ImageConfig,
        blobs: Arc<dyn Blobs>,
    ) -> Result<(Digest, Arc<Found>)> {
        if manifest.layers().len() != config.rootfs.diff_ids.len() {
            return Err(BuildError::new(
                FailureReason::RegistryError,
                format!("image {digest} is broken: its manifest has other layers than its config"),
            ));
        }
        let layers = manifest
            .layers()
            .iter()
            .zip(&config.rootfs.diff_ids)
            .map(|(layer, diff_id)| {
                Ok(LayerDesc {
                    diff_id: diff_id.clone(),
                    digest: digest_of(layer)?,
                    size: layer.size(),
                    media_type: layer.media_type().to_string(),
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let found = Arc::new(Found {
            config,
            layers,
            blobs,
        });
        lock(&self.found).insert(digest.clone(), found.clone());
        Ok((digest, found))
    }
}

/// Equal layers make equal files, whatever image they are in.
pub(crate) fn content_key(layers: &[LayerDesc]) -> String {
    if layers.is_empty() {
        return "scratch".into();
    }
    let text: Vec<_> = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    format!("layers-{}", Digest::of(text.join(" ").as_bytes()).hex())
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8], digest: &Digest) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        BuildError::new(
            FailureReason::RegistryError,
            format!("{digest} is no image document: {error}"),
        )
    })
}

fn digest_of(descriptor: &Descriptor) -> Result<Digest> {
    descriptor.digest().to_string().parse().map_err(|error| {
        BuildError::new(
            FailureReason::RegistryError,
            format!("a descriptor has a bad digest: {error}"),
        )
    })
}

fn read_blob(dir: &Path, digest: &Digest) -> std::io::Result<Vec<u8>> {
    let path = dir.join("blobs/sha256").join(digest.hex());
    if fs::metadata(&path)?.len() > DOCUMENT_LIMIT {
        return Err(std::io::ErrorKind::FileTooLarge.into());
    }
    let bytes = fs::read(path)?;
    if Digest::of(&bytes) != *digest {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    Ok(bytes)
}

fn by_tag(dir: &Path, tag: &str) -> Result<Option<Digest>> {
    let path = dir.join("index.json");
    let text = fs::read(&path).map_err(|error| BuildError::io(format!("read {}", path.display()), error))?;
    let index: ImageIndex = serde_json::from_slice(&text).map_err(|error| {
        BuildError::new(
            FailureReason::RegistryError,
            format!("{} is no image index: {error}", path.display()),
        )
    })?;
    let named = |descriptor: &&Descriptor| {
        descriptor
            .annotations()
            .as_ref()
            .and_then(|annotations| annotations.get("org.opencontainers.image.ref.name"))
            .is_some_and(|name| name == tag || name.ends_with(&format!(":{tag}")))
    };
    let chosen = index
        .manifests()
        .iter()
        .find(named)
        .or_else(|| match index.manifests().as_slice() {
            // A layout of one image needs no names.
            [only] => Some(only),
            _ => None,
        });
    chosen.map(digest_of).transpose()
}

/// Blobs of a repository.
pub struct RegistryBlobs(pub Repository);

impl Blobs for RegistryBlobs {
    fn open(&self, layer: &LayerDesc) -> BoxFuture<'_, Result<BlobReader>> {
        let layer = layer.clone();
        Box::pin(async move {
            let reader = self.0.open_blob(&layer.digest, Some(layer.size)).await?;
            Ok(Box::new(SyncIoBridge::new(Box::pin(reader))) as BlobReader)
        })
    }

    fn repository(&self) -> Option<Repository> {
        Some(self.0.clone())
    }
}

/// Blobs of an OCI image layout.
pub struct LayoutBlobs(pub PathBuf);

impl Blobs for LayoutBlobs {
    fn open(&self, layer: &LayerDesc) -> BoxFuture<'_, Result<BlobReader>> {
        let path = self.0.join("blobs/sha256").join(layer.digest.hex());
        Box::pin(async move {
            let file = fs::File::open(&path)
                .map_err(|error| BuildError::io(format!("read {}", path.display()), error))?;
            Ok(Box::new(file) as BlobReader)
        })
    }
}
