//! Stage results in the registry: an image manifest, found by an index under the stage's key.
//!
//! ```text
//!  slipway-stage-<key> ─▶ index{ annotations: key, content key, created, used, build } ─▶ image manifest ─▶ layers
//! ```
//! The index is Slipway's own and can say what Slipway needs to know; the manifest below it is the image as the user gets
//! it, with nothing added.

use crate::pod::internal;
use serde::{Deserialize, Serialize};
use slipway_engine::{
    BuildError, Layer, LayerDesc, Result, Root,
    cache::Place,
    image::{self, Image},
    images::RegistryBlobs,
};
use slipway_oci::{Descriptor, Digest, ImageConfig, media_type};
use slipway_plan::{BuildPlan, PlanResult, Source, StageIndex, StagePlan, Step, protocol::FailureReason};
use slipway_registry::{
    Class, Manifest, Repository,
    kept::{Kind, Stamp},
};
use std::{collections::BTreeMap, sync::Arc};

/// What kind of index it is.
const ARTIFACT_TYPE: &str = "application/vnd.slipway.stage.v1";
/// Annotation with the whole key; the tag has the first part of it.
const KEY: &str = "build.slipway.key";
/// Annotation with the content key of the stage's root.
const CONTENT_KEY: &str = "build.slipway.content-key";
/// A config larger than this is none.
const CONFIG_LIMIT: u64 = 8 << 20;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    media_type: String,
    #[serde(default)]
    artifact_type: String,
    manifests: Vec<Part>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    media_type: String,
    digest: Digest,
    size: u64,
}

/// A result that was found.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// The image manifest.
    pub(crate) manifest: Digest,
    /// The content key of its root.
    pub(crate) content_key: String,
    /// The index, to note its use.
    pub(crate) index: Manifest,
    pub(crate) stamp: Stamp,
}

/// Why there is no result.
#[derive(Debug)]
pub(crate) enum Missing {
    /// Nobody has made it yet.
    Absent,
    /// What is there is none; why, in words.
    Broken(String),
    /// The registry does not say.
    Unread(slipway_registry::Error),
}

/// Looks for the result under a key.
pub(crate) async fn find(place: &Place, key: &str) -> Result<Found, Missing> {
    let tag = place.tag(Kind::Stage, key);
    let index = match place.repository.get_manifest(tag.as_str()).await {
        Ok(index) => index,
        Err(error) => {
            return Err(match error.class() {
                Class::NotFound => Missing::Absent,
                Class::DigestMismatch | Class::InvalidResponse | Class::TooLarge => {
                    Missing::Broken(error.to_string())
                }
                _ => Missing::Unread(error),
            });
        }
    };
    decode(index, key).map_err(Missing::Broken)
}

fn decode(index: Manifest, key: &str) -> Result<Found, String> {
    let document: Document =
        serde_json::from_slice(&index.bytes).map_err(|error| format!("it is no result: {error}"))?;
    if document.artifact_type != ARTIFACT_TYPE {
        return Err("it is no result of a stage".to_owned());
    }
    if document.annotations.get(KEY).map(String::as_str) != Some(key) {
        return Err("it belongs to another stage".to_owned());
    }
    let (Some(content_key), Some(stamp), [manifest]) = (
        document.annotations.get(CONTENT_KEY),
        Stamp::read(&document.annotations),
        document.manifests.as_slice(),
    ) else {
        return Err("it is not complete".to_owned());
    };
    Ok(Found {
        manifest: manifest.digest.clone(),
        content_key: content_key.clone(),
        stamp,
        index,
    })
}

/// Names a result whose manifest is in the repository.
pub(crate) async fn put(
    place: &Place,
    key: &str,
    image: &Manifest,
    content_key: &str,
    stamp: &Stamp,
) -> Result<()> {
    let mut annotations = stamp.annotations();
    annotations.insert(KEY.to_owned(), key.to_owned());
    annotations.insert(CONTENT_KEY.to_owned(), content_key.to_owned());
    let document = Document {
        schema_version: 2,
        media_type: media_type::OCI_INDEX.to_owned(),
        artifact_type: ARTIFACT_TYPE.to_owned(),
        manifests: vec![Part {
            media_type: image.media_type.clone(),
            digest: image.digest.clone(),
            size: image.bytes.len() as u64,
        }],
        annotations,
    };
    let bytes = serde_json::to_vec(&document).map_err(|error| internal(error.to_string()))?;
    let tag = place.tag(Kind::Stage, key);
    place
        .repository
        .put_manifest(tag, media_type::OCI_INDEX, bytes)
        .await?;
    Ok(())
}

/// The manifest of an image that was put together.
pub(crate) fn manifest_of(image: &Image) -> Manifest {
    Manifest {
        bytes: image.manifest.clone().into(),
        media_type: image.media_type.clone(),
        digest: image.manifest_digest.clone(),
    }
}

/// A result's documents.
pub(crate) struct Documents {
    layers: Vec<LayerDesc>,
    config: ImageConfig,
}

/// Reads manifest and config of a result.
pub(crate) async fn documents(repository: &Repository, manifest: &Manifest) -> Result<Documents> {
    let document = slipway_oci::parse_manifest(&manifest.bytes)
        .map_err(|error| broken(&manifest.digest, &error.to_string()))?;
    let config_digest = digest_of(document.config())?;
    let config: ImageConfig = parse(
        &repository.read_blob(&config_digest, CONFIG_LIMIT).await?,
        &config_digest,
    )?;
    if config.rootfs.diff_ids.len() != document.layers().len() {
        return Err(broken(&manifest.digest, "its config does not list its layers"));
    }
    let layers = document.layers().iter().zip(&config.rootfs.diff_ids);
    let layers = layers
        .map(|(layer, diff_id)| {
            Ok(LayerDesc {
                diff_id: diff_id.clone(),
                digest: digest_of(layer)?,
                size: layer.size(),
                media_type: layer.media_type().to_string(),
            })
        })
        .collect::<Result<_>>()?;
    Ok(Documents { layers, config })
}

impl Documents {
    /// As a root whose layers are fetched when somebody needs their files.
    pub(crate) fn root(self, repository: &Repository, content_key: Option<&str>) -> Root {
        let blobs = Arc::new(RegistryBlobs(repository.clone()));
        let layers = self.layers.into_iter();
        let mut root = Root::of_layers(layers.map(|desc| Layer::remote(desc, blobs.clone())).collect());
        if let Some(content_key) = content_key {
            content_key.clone_into(&mut root.content_key);
        }
        root
    }
}

/// Whether a result is whole, and is what the plan says of the stage. Says what is wrong.
pub(crate) async fn verify(
    repository: &Repository,
    manifest: &Digest,
    plan: &BuildPlan,
    stage: StageIndex,
) -> Result<(), String> {
    let told = |error: BuildError| error.message().to_owned();
    let manifest = repository
        .get_manifest(manifest)
        .await
        .map_err(|error| told(error.into()))?;
    let documents = documents(repository, &manifest).await.map_err(told)?;
    fits(&documents, plan, stage)?;
    let digests: Vec<Digest> = documents
        .layers
        .iter()
        .map(|layer| layer.digest.clone())
        .collect();
    let there = repository
        .exists_many(&digests)
        .await
        .map_err(|error| told(error.into()))?;
    match digests.iter().zip(there).find(|(_, there)| !there) {
        Some((gone, _)) => Err(format!("its layer {gone} is not there any more")),
        None => Ok(()),
    }
}

fn fits(documents: &Documents, plan: &BuildPlan, index: StageIndex) -> Result<(), String> {
    let Some(stage) = plan.stages.get(index) else {
        return Err("the plan has no such stage".to_owned());
    };
    let expected = target(plan, index, stage).config;
    let is = &documents.config;
    if (&is.architecture, &is.os, &is.variant) != (&expected.architecture, &expected.os, &expected.variant) {
        return Err("it is for another platform".to_owned());
    }
    if is.config != expected.config {
        return Err("its config is not the one that the Dockerfile asks for".to_owned());
    }
    let base = base_diff_ids(plan, index);
    if is.rootfs.diff_ids.get(..base.len()) != Some(base) {
        return Err("its first layers are not those of its base".to_owned());
    }
    let count = layer_count(plan, index);
    if is.rootfs.diff_ids.len() != count {
        return Err(format!(
            "it has {} layers instead of {count}",
            is.rootfs.diff_ids.len()
        ));
    }
    Ok(())
}

/// The stage that a stage's layers begin with.
fn bottom(plan: &BuildPlan, index: StageIndex) -> &StagePlan {
    match plan.stages[index].base {
        Source::Stage(below) => bottom(plan, below),
        _ => &plan.stages[index],
    }
}

fn base_diff_ids(plan: &BuildPlan, index: StageIndex) -> &[Digest] {
    let bottom = bottom(plan, index);
    match bottom.base {
        Source::Image(_) => &bottom.base_config.rootfs.diff_ids,
        _ => &[],
    }
}

fn layer_count(plan: &BuildPlan, index: StageIndex) -> usize {
    let stage = &plan.stages[index];
    let base = match &stage.base {
        Source::Stage(below) => layer_count(plan, *below),
        Source::Image(_) => stage.base_config.rootfs.diff_ids.len(),
        Source::Scratch => 0,
        // A tree of files is one layer.
        _ => 1,
    };
    base + stage.steps.iter().filter(|step| Step::makes_layer(step)).count()
}

/// Whether the layers of a stage are in an image that is built.
pub(crate) fn is_in_image(plan: &BuildPlan, index: StageIndex) -> bool {
    fn stands_on(plan: &BuildPlan, stage: StageIndex, wanted: StageIndex) -> bool {
        stage == wanted
            || matches!(plan.stages[stage].base, Source::Stage(below) if stands_on(plan, below, wanted))
    }
    plan.results
        .iter()
        .any(|result| stands_on(plan, result.stage, index))
}

/// What a stage is to become: an image, or, between stages, what its own config says.
fn target(plan: &BuildPlan, index: StageIndex, stage: &StagePlan) -> PlanResult {
    let result = plan.results.iter().find(|result| result.stage == index);
    result.cloned().unwrap_or_else(|| PlanResult {
        platform: stage.platform.clone(),
        stage: index,
        config: stage.config.clone(),
        base: None,
        annotations: BTreeMap::new(),
    })
}

/// Config and manifest of a stage's result. Its layers are packed.
pub(crate) fn assemble(plan: &BuildPlan, index: StageIndex, layers: Vec<Layer>) -> Result<Image> {
    let target = target(plan, index, &plan.stages[index]);
    let config = image::config(plan, &target, &layers, None);
    image::assemble(&target.platform, &config, layers, false, target.annotations)
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8], digest: &Digest) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| broken(digest, &error.to_string()))
}

fn digest_of(descriptor: &Descriptor) -> Result<Digest> {
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
