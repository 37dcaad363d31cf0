//! `slipway-runner stage`: runs one stage of a plan and publishes its result as an image manifest.

use crate::{
    artifacts::{self, StoredPlan},
    hold,
    inputs::PodInputs,
    pod::{Pod, internal},
    proxies, results,
};
use futures::future::{BoxFuture, try_join_all};
use slipway_engine::{
    Environment, Fetcher, Keep, Layer, LayerSink, Packing, Result, StageResult, StepCache, Store,
    cache::RegistryCache, export::push_layer, image::Image, images::Images,
};
use slipway_layer::Compression;
use slipway_oci::Digest;
use slipway_plan::{BuildPlan, StageIndex, keys::run_keys, protocol::TerminationMessage};
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
    let stored = Arc::new(artifacts::get_plan(&pod.cache(), &plan).await?);
    let index = stored
        .plan
        .stages
        .iter()
        .position(|candidate| candidate.id == stage)
        .ok_or_else(|| internal(format!("the plan has no stage {stage:?}")))?;
    let cache = Arc::new(RegistryCache::new(
        pod.places(),
        pod.build_name(),
        !pod.request.cache.result_only || results::is_in_image(&stored.plan, index),
        pod.progress.clone(),
    ));
    cache.know(&stored.steps);
    let environment = Arc::new(environment(&pod, &stored, index, keep, cache.clone(), cancel)?);
    let result = execute(&environment, &stored, index, &cache, pod.cache()).await?;
    let image = results::assemble(&stored.plan, index, result.root.layers.clone())?;
    publish(&pod, &stored, index, &image, &result.root.content_key).await?;
    cache.finish().await;
    pod.progress.finish();
    Ok(TerminationMessage::Finished {
        manifest: image.manifest_digest.clone(),
        size: size(&image),
        executed: result.executed,
        cached: result.cached,
    })
}

/// Runs the stage; and again, with what was executed kept, when a layer from the cache turns out to be no good.
async fn execute(
    environment: &Arc<Environment>,
    stored: &StoredPlan,
    index: StageIndex,
    cache: &Arc<RegistryCache>,
    repository: Repository,
) -> Result<StageResult> {
    let packing = Packing {
        sink: Some(Arc::new(Upload {
            store: environment.store.clone(),
            repository,
            cache: cache.clone(),
        })),
        portable: true,
        // With SOURCE_DATE_EPOCH set, the same input gives the same digest on any node at any time.
        clamp: stored.plan.epoch,
        ..Packing::new(compression(&stored.plan, index))
    };
    let keys = run_keys(&stored.plan, &stored.keys, index);
    let mut plan = stored.plan.clone();
    proxies::add(&mut plan.stages[index], &|name| std::env::var(name).ok());
    let plan = Arc::new(plan);
    loop {
        match slipway_engine::run_stage(environment, &plan, index, &keys, Some(packing.clone())).await {
            // Each time there is an entry less that is believed, so this comes to an end.
            Err(error) if cache.disbelieve(&error) => {}
            ended => return ended,
        }
    }
}

fn environment(
    pod: &Pod,
    stored: &Arc<StoredPlan>,
    stage: StageIndex,
    keep: Option<hold::Keeper>,
    cache: Arc<RegistryCache>,
    cancel: CancellationToken,
) -> Result<Environment> {
    Ok(Environment {
        store: pod.store.clone(),
        progress: pod.progress.clone(),
        inputs: Arc::new(PodInputs {
            stored: stored.clone(),
            place: pod.places().own().clone(),
            images: Images::new(pod.registries.clone()),
            caches: stored.schedule.stages[stage].caches.clone(),
            progress: pod.progress.clone(),
            context_dir: Pod::scratch("context"),
            context: OnceCell::new(),
        }),
        caches: vec![cache as Arc<dyn StepCache>],
        fetcher: Fetcher::new()?,
        cancel,
        emptied: Mutex::new(HashSet::new()),
        keep: keep.map(|keep| Arc::new(keep) as Arc<dyn Keep>),
    })
}

/// An image is read by clients of any age; what lies between is read by Slipway alone, and shall be fast.
pub(crate) fn compression(plan: &BuildPlan, stage: StageIndex) -> Compression {
    if results::is_in_image(plan, stage) {
        Compression::GZIP
    } else {
        Compression::Zstd(1)
    }
}

/// Uploads each layer as soon as it is packed, and keeps it in the cache, while the next instruction runs.
struct Upload {
    store: Arc<Store>,
    repository: Repository,
    cache: Arc<RegistryCache>,
}

impl LayerSink for Upload {
    fn layer<'a>(&'a self, layer: &'a Layer) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            push_layer(&self.store, &self.repository, layer).await?;
            self.cache.uploaded(layer).await;
            Ok(())
        })
    }
}

/// Puts a result into the cache repository, under the keys of the stage, and if it is an image, by digest into each of
/// the image's repositories. Its layers are in the cache repository already.
pub(crate) async fn publish(
    pod: &Pod,
    stored: &StoredPlan,
    index: StageIndex,
    image: &Image,
    content_key: &str,
) -> Result<()> {
    let vertex = pod.progress.start("[internal] publish the stage's result");
    put(pod, &stored.names[index], image, content_key).await?;
    if stored.plan.results.iter().any(|result| result.stage == index) {
        let cache = pod.cache();
        for output in pod.output_repositories() {
            slipway_registry::copy_image(&cache, &image.manifest_digest, &output).await?;
        }
    }
    vertex.done();
    Ok(())
}

/// Puts a result under these keys into the cache repository.
pub(crate) async fn put(pod: &Pod, keys: &[String], image: &Image, content_key: &str) -> Result<()> {
    let places = pod.places();
    let own = places.own();
    own.repository
        .put_blob(
            &image.config_digest,
            image.config.len() as u64,
            BlobSource::Bytes(image.config.clone().into()),
            &PutOptions::default(),
        )
        .await?;
    // Blobs first, the tags last: whoever waits for a tag finds all of it.
    own.repository
        .put_manifest(&image.manifest_digest, &image.media_type, image.manifest.clone())
        .await?;
    let (manifest, stamp) = (results::manifest_of(image), pod.stamp());
    let puts = keys
        .iter()
        .map(|key| results::put(own, key, &manifest, content_key, &stamp));
    try_join_all(puts).await?;
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
