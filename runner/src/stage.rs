//! `slipway-runner stage`: runs one stage of a plan and publishes its result as an image manifest.

use crate::{
    artifacts::{self, StoredPlan, stage_tag},
    hold,
    inputs::PodInputs,
    pod::{Pod, internal},
    proxies,
};
use futures::future::BoxFuture;
use slipway_engine::{
    Environment, Fetcher, Keep, Layer, LayerSink, Packing, Result, StageResult, Store,
    export::push_layer,
    image::{self, Image},
    images::Images,
};
use slipway_layer::Compression;
use slipway_oci::Digest;
use slipway_plan::{PlanResult, StageIndex, protocol::TerminationMessage};
use slipway_registry::{BlobSource, PutOptions, Repository};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

/// Runs the stage pod.
pub(crate) async fn run(
    plan: Digest,
    stage: String,
    keep: Option<hold::Wanted>,
    cancel: CancellationToken,
) -> Result<TerminationMessage> {
    let keep = keep.map(hold::Keeper::begin).transpose()?;
    let pod = Pod::open()?;
    let repository = pod.cache();
    let stored = Arc::new(artifacts::get_plan(&repository, &plan).await?);
    let index = stored
        .plan
        .stages
        .iter()
        .position(|candidate| candidate.id == stage)
        .ok_or_else(|| internal(format!("the plan has no stage {stage:?}")))?;
    let environment = Arc::new(environment(&pod, &stored, keep, cancel)?);
    let sink = Upload {
        store: pod.store.clone(),
        repository: pod.cache(),
    };
    let packing = Packing {
        sink: Some(Arc::new(sink)),
        // With SOURCE_DATE_EPOCH set, the same input gives the same digest on any node at any time.
        clamp: stored.plan.epoch,
        ..Packing::new(compression(&stored, index))
    };
    let keys: Vec<Option<String>> = stored.keys.stages[index]
        .steps
        .iter()
        .map(|step| {
            step.as_ref()
                .filter(|step| step.inputs.certain)
                .map(|step| step.key.as_str().to_owned())
        })
        .collect();
    let mut plan = stored.plan.clone();
    proxies::add(&mut plan.stages[index], &|name| std::env::var(name).ok());
    let plan = Arc::new(plan);
    let result = slipway_engine::run_stage(&environment, &plan, index, &keys, Some(packing)).await?;
    let image = assemble(&stored, index, &result)?;
    publish(&pod, &stored, index, &image).await?;
    pod.progress.finish();
    Ok(TerminationMessage::Finished {
        manifest: image.manifest_digest.clone(),
        size: size(&image),
        executed: result.executed,
        cached: result.cached,
    })
}

fn environment(
    pod: &Pod,
    stored: &Arc<StoredPlan>,
    keep: Option<hold::Keeper>,
    cancel: CancellationToken,
) -> Result<Environment> {
    Ok(Environment {
        store: pod.store.clone(),
        progress: pod.progress.clone(),
        inputs: Arc::new(PodInputs {
            stored: stored.clone(),
            repository: pod.cache(),
            images: Images::new(pod.registries.clone()),
            progress: pod.progress.clone(),
            context_dir: Pod::scratch("context"),
            context: OnceCell::new(),
        }),
        caches: Vec::new(),
        fetcher: Fetcher::new()?,
        cancel,
        emptied: Mutex::new(HashSet::new()),
        keep: keep.map(|keep| Arc::new(keep) as Arc<dyn Keep>),
    })
}

/// A result is read by clients of any age; what lies between is read by Slipway alone, and shall be fast.
fn compression(stored: &StoredPlan, stage: StageIndex) -> Compression {
    if result_of(stored, stage).is_some() {
        Compression::GZIP
    } else {
        Compression::Zstd(1)
    }
}

fn result_of(stored: &StoredPlan, stage: StageIndex) -> Option<&PlanResult> {
    stored.plan.results.iter().find(|result| result.stage == stage)
}

/// Uploads each layer as soon as it is packed, while the next instruction runs.
struct Upload {
    store: Arc<Store>,
    repository: Repository,
}

impl LayerSink for Upload {
    fn layer<'a>(&'a self, layer: &'a Layer) -> BoxFuture<'a, Result<()>> {
        Box::pin(push_layer(&self.store, &self.repository, layer))
    }
}

/// Config and manifest of the stage's result.
fn assemble(stored: &StoredPlan, index: StageIndex, result: &StageResult) -> Result<Image> {
    let stage = &stored.plan.stages[index];
    let target = match result_of(stored, index) {
        Some(target) => target.clone(),
        // What a stage between leaves is found by its key and read by other stages; its config is its own.
        None => PlanResult {
            platform: stage.platform.clone(),
            stage: index,
            config: stage.config.clone(),
            base: None,
        },
    };
    let layers = result.root.layers.clone();
    let config = image::config(&stored.plan, &target, &layers, None);
    image::assemble(
        &target.platform,
        &config,
        layers,
        false,
        image::Annotations::new(),
    )
}

/// The manifest under the stage's tag, and, for a result, by digest in each of the image's repositories.
async fn publish(pod: &Pod, stored: &StoredPlan, index: StageIndex, image: &Image) -> Result<()> {
    let vertex = pod.progress.start("[internal] publish the stage's result");
    let repository = pod.cache();
    repository
        .put_blob(
            &image.config_digest,
            image.config.len() as u64,
            BlobSource::Bytes(image.config.clone().into()),
            &PutOptions::default(),
        )
        .await?;
    // Blobs first, the tag last: whoever waits for the tag finds all of it.
    let tag = stage_tag(&stored.schedule.stages[index].key);
    repository
        .put_manifest(tag.as_str(), &image.media_type, image.manifest.clone())
        .await?;
    if result_of(stored, index).is_some() {
        for output in pod.output_repositories() {
            slipway_registry::copy_image(&repository, &image.manifest_digest, &output).await?;
        }
    }
    vertex.done();
    Ok(())
}

/// Bytes of layers and config as the registry stores them.
fn size(image: &Image) -> u64 {
    let layers: u64 = image
        .layers
        .iter()
        .filter_map(|layer| layer.desc.as_ref())
        .map(|desc| desc.size)
        .sum();
    layers + image.config.len() as u64
}
