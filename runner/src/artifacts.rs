//! What the plan pod publishes and the stage pods read: plan, keys, schedule, context.

use crate::{
    context::{ARTIFACT_TYPE, ContextIndex, INDEX_TYPE, PACK_TYPE, Pack, RemoteContext},
    pod::internal,
};
use serde::{Deserialize, Serialize};
use slipway_engine::{
    BuildError, Result,
    cache::{Hits, Place},
};
use slipway_oci::{Digest, media_type};
use slipway_plan::{
    BuildPlan, Keys,
    explain::{EXPLANATION_TYPE, Explanation},
    protocol::Schedule,
};
use slipway_registry::{
    BlobSource, Class, NewArtifact, NewLayer, Repository,
    kept::{Kind, Stamp},
};
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
    /// For each stage, the keys that its result is published under.
    #[serde(default)]
    pub(crate) names: Vec<Vec<String>>,
    /// For each stage whose result is there, the content key of its root.
    #[serde(default)]
    pub(crate) roots: Vec<Option<String>>,
    /// What the cache has of the steps of the others.
    #[serde(default)]
    pub(crate) steps: Hits,
}

/// Publishes the plan and returns the digest of its manifest. `build` names the ImageBuild: its next plan is compared with
/// this one.
pub(crate) async fn put_plan(
    place: &Place,
    stored: &StoredPlan,
    explanation: &Explanation,
    stamp: &Stamp,
    build: &str,
) -> Result<Digest> {
    let (plan, explanation) = (encode(stored)?, encode(explanation)?);
    let key = Digest::of(&[plan.as_slice(), &explanation].concat());
    let artifact = NewArtifact {
        artifact_type: PLAN_ARTIFACT_TYPE.into(),
        layers: vec![
            NewLayer::bytes(PLAN_TYPE, plan),
            NewLayer::bytes(SCHEDULE_TYPE, encode(&stored.schedule)?),
            NewLayer::bytes(EXPLANATION_TYPE, explanation),
        ],
        annotations: stamp.annotations(),
        ..NewArtifact::default()
    };
    let names = [place.tag(Kind::Plan, key.hex()), last_plan(place, build)];
    put(&place.repository, &names, artifact).await
}

/// The tag of the newest plan of an ImageBuild.
fn last_plan(place: &Place, build: &str) -> String {
    place.tag(Kind::Plan, Digest::of(format!("last\n{build}").as_bytes()).hex())
}

/// The plan of the ImageBuild's run before; none if there was none, or none that this version understands.
pub(crate) async fn get_last_plan(place: &Place, build: &str) -> Option<StoredPlan> {
    read_plan(&place.repository, last_plan(place, build)).await.ok()
}

/// Stores an artifact under the first name, unless it is there already: then that one is used, so that builds of the same
/// do not take it from each other. The other names lead to the same.
async fn put(repository: &Repository, names: &[String], artifact: NewArtifact) -> Result<Digest> {
    let Some((first, others)) = names.split_first() else {
        return Err(internal("an artifact without a name"));
    };
    let known = match repository.get_manifest(first.as_str()).await {
        Ok(known) => Some(known),
        Err(error) if error.class().is_transient() || error.class() == Class::Unauthorized => {
            return Err(error.into());
        }
        // Not there, or broken: written anew.
        Err(_) => None,
    };
    let fresh = known.filter(|known| {
        serde_json::from_slice::<Annotated>(&known.bytes)
            .ok()
            .and_then(|known| Stamp::read(&known.annotations))
            .is_some_and(|stamp| !stamp.is_stale())
    });
    let manifest = match fresh {
        // Its blobs may be gone all the same.
        Some(known) if artifact.is_stored_in(repository).await? => known,
        _ => {
            let manifest = artifact.manifest()?;
            repository.put_artifact(first.as_str(), artifact).await?;
            manifest
        }
    };
    for name in others {
        repository
            .put_manifest(name.as_str(), media_type::OCI_MANIFEST, manifest.bytes.clone())
            .await?;
    }
    Ok(manifest.digest)
}

#[derive(Deserialize)]
struct Annotated {
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

/// Reads a plan.
pub(crate) async fn get_plan(repository: &Repository, digest: &Digest) -> Result<StoredPlan> {
    read_plan(repository, digest.to_string()).await
}

async fn read_plan(repository: &Repository, name: String) -> Result<StoredPlan> {
    let artifact = repository.get_artifact(name.as_str()).await?;
    let layer = artifact
        .layer(PLAN_TYPE)
        .ok_or_else(|| internal(format!("{name} is not a plan")))?;
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
    place: &Place,
    index: &ContextIndex,
    packs: Vec<Pack>,
    stamp: &Stamp,
) -> Result<Digest> {
    let index = encode(index)?;
    let tag = place.tag(Kind::Context, Digest::of(&index).hex());
    let mut layers = vec![NewLayer::bytes(INDEX_TYPE, index)];
    layers.extend(
        packs.into_iter().map(|pack| {
            NewLayer::from_source(PACK_TYPE, pack.digest, pack.size, BlobSource::File(pack.file))
        }),
    );
    let artifact = NewArtifact {
        artifact_type: ARTIFACT_TYPE.into(),
        layers,
        annotations: stamp.annotations(),
        ..NewArtifact::default()
    };
    put(&place.repository, &[tag], artifact).await
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
