//! What the plan pod publishes and the stage pods read: plan, keys, schedule, context.

use crate::{
    context::{ARTIFACT_TYPE, ContextIndex, INDEX_TYPE, PACK_TYPE, Pack, RemoteContext},
    pod::internal,
};
use serde::{Deserialize, Serialize};
use slipway_engine::{BuildError, Result};
use slipway_oci::Digest;
use slipway_plan::{BuildPlan, Keys, protocol::Schedule};
use slipway_registry::{BlobSource, NewArtifact, NewLayer, Repository};
use std::path::PathBuf;
use tokio_util::io::SyncIoBridge;

/// Artifact type of a published plan.
const PLAN_ARTIFACT_TYPE: &str = "application/vnd.slipway.plan.v1";
/// Media type of [`StoredPlan`].
const PLAN_TYPE: &str = "application/vnd.slipway.plan.v1+json";
/// Media type of the [`Schedule`]; the operator reads this layer alone.
const SCHEDULE_TYPE: &str = "application/vnd.slipway.schedule.v1+json";
/// A plan larger than this is no plan.
const PLAN_LIMIT: u64 = 64 << 20;
/// The list of a context with a million files stays below this.
const INDEX_LIMIT: u64 = 512 << 20;

/// All that a stage pod needs to know of the plan.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StoredPlan {
    pub(crate) plan: BuildPlan,
    pub(crate) keys: Keys,
    pub(crate) schedule: Schedule,
    /// Manifest of the published context; none if no stage reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) context: Option<Digest>,
}

/// The tag under which a stage's result is kept.
pub(crate) fn stage_tag(key: &str) -> String {
    format!("slipway-stage-{}", short(key))
}

fn short(key: &str) -> &str {
    key.get(..40).unwrap_or(key)
}

/// Publishes the plan and returns the digest of its manifest.
pub(crate) async fn put_plan(repository: &Repository, stored: &StoredPlan) -> Result<Digest> {
    let plan = encode(stored)?;
    let tag = format!("slipway-plan-{}", short(Digest::of(&plan).hex()));
    let artifact = NewArtifact {
        artifact_type: PLAN_ARTIFACT_TYPE.into(),
        layers: vec![
            NewLayer::bytes(PLAN_TYPE, plan),
            NewLayer::bytes(SCHEDULE_TYPE, encode(&stored.schedule)?),
        ],
        ..NewArtifact::default()
    };
    Ok(repository.put_artifact(tag, artifact).await?)
}

/// Reads a plan.
pub(crate) async fn get_plan(repository: &Repository, digest: &Digest) -> Result<StoredPlan> {
    let artifact = repository.get_artifact(digest).await?;
    let layer = artifact
        .layer(PLAN_TYPE)
        .ok_or_else(|| internal(format!("{digest} is not a plan")))?;
    let bytes = repository.read_blob(&layer.digest, PLAN_LIMIT).await?;
    let stored: StoredPlan = decode(&bytes, "the plan")?;
    if stored.plan.version != slipway_plan::PLAN_VERSION {
        return Err(internal(format!(
            "the plan is of version {}, this runner reads {}: operator and runner images differ",
            stored.plan.version,
            slipway_plan::PLAN_VERSION
        )));
    }
    Ok(stored)
}

/// Publishes a context and returns the digest of its manifest.
pub(crate) async fn put_context(
    repository: &Repository,
    index: &ContextIndex,
    packs: Vec<Pack>,
) -> Result<Digest> {
    let index = encode(index)?;
    let tag = format!("slipway-context-{}", short(Digest::of(&index).hex()));
    let mut layers = vec![NewLayer::bytes(INDEX_TYPE, index)];
    layers.extend(
        packs.into_iter().map(|pack| {
            NewLayer::from_source(PACK_TYPE, pack.digest, pack.size, BlobSource::File(pack.file))
        }),
    );
    let artifact = NewArtifact {
        artifact_type: ARTIFACT_TYPE.into(),
        layers,
        ..NewArtifact::default()
    };
    Ok(repository.put_artifact(tag, artifact).await?)
}

/// Opens a published context; packs are fetched into `dir` when they are needed.
pub(crate) async fn open_context(
    repository: &Repository,
    digest: &Digest,
    dir: PathBuf,
) -> Result<RemoteContext> {
    let artifact = repository.get_artifact(digest).await?;
    let layer = artifact
        .layer(INDEX_TYPE)
        .ok_or_else(|| internal(format!("{digest} is not a context")))?;
    let index = decode(
        &repository.read_blob(&layer.digest, INDEX_LIMIT).await?,
        "the context's index",
    )?;
    let packs = artifact
        .layers
        .iter()
        .filter(|layer| layer.media_type == PACK_TYPE)
        .map(|layer| (layer.digest.clone(), layer.size))
        .collect();
    let (repository, runtime) = (repository.clone(), tokio::runtime::Handle::current());
    let fetch = move |digest: &Digest, size: u64| {
        let reader = runtime
            .block_on(repository.open_blob(digest, Some(size)))
            .map_err(std::io::Error::other)?;
        Ok(
            Box::new(SyncIoBridge::new_with_handle(Box::pin(reader), runtime.clone()))
                as Box<dyn std::io::Read + Send>,
        )
    };
    RemoteContext::new(index, packs, dir, Box::new(fetch))
        .map_err(|error| BuildError::io("prepare the build context", error))
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| internal(format!("failed to write a document: {error}")))
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| internal(format!("{what} is not of this runner's form: {error}")))
}
