//! Runs one stage of a plan: each instruction is looked up, or executed, and packed while the next one runs.
//!
//! ```text
//!  base ─▶ Root ──step 1──▶ Root ──step 2──▶ … ─▶ StageResult
//!             │ key by definition: known without looking at any file
//!             │ key by content: parent, operation, digests of what it reads
//!             ├─ in the store or a cache ─▶ its layer, no files touched
//!             └─ else: overlay over the parent, run or copy, keep the upper directory ─▶ pack (in the background)
//! ```
//! The content key of a step is known once its inputs are there. Equal keys mean equal files, however they came to be:
//! a stage that was rebuilt to the same files still gives hits to those that copy from it. What a `RUN` makes is not
//! decided by its key alone (it may look at a clock or a network), so the state after one that was executed has a key of
//! its own: what was made upon another run of it is never put upon this one.

use crate::{
    error::{BuildError, Place, Result},
    fetch::Fetcher,
    inputs::{Inputs, StepCache},
    progress::{Progress, Vertex},
    root::{Layer, Root, join},
    sources::Sources,
    store::{CacheKey, LayerDesc, StepRecord, Store},
};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use slipway_plan::{
    BuildPlan, CopyOp, Op, RunKey, Source, StageIndex, StagePlan, Step, protocol::FailureReason,
};
use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

mod files;
mod key;
mod lookup;
mod pack;
mod run;

use files::{adopt_dir, adopt_root};
pub(crate) use key::reads;
use lookup::is_linked;
pub use pack::{Packing, pack_layer};

/// All that a stage needs to run. Shared by the stages of a build.
pub struct Environment {
    /// Layers and results.
    pub store: Arc<Store>,
    /// Where events go.
    pub progress: Progress,
    /// Other stages, images, contexts, secrets.
    pub inputs: Arc<dyn Inputs>,
    /// Caches beside the store, asked in order.
    pub caches: Vec<Arc<dyn StepCache>>,
    /// Downloads for `ADD`.
    pub fetcher: Fetcher,
    /// Stops the build.
    pub cancel: CancellationToken,
    /// Cache mounts that were emptied for `--no-cache` in this build.
    pub emptied: Mutex<HashSet<CacheKey>>,
    /// Is given the root of a `RUN` that failed, which otherwise is removed.
    pub keep: Option<Arc<dyn Keep>>,
}

/// Who wants to look at the root of a `RUN` that failed.
pub trait Keep: Send + Sync {
    /// A `RUN` failed for this reason. Whether its root is wanted; then it stays in the store, and it is told where.
    fn wants(&self, reason: FailureReason) -> bool;
    /// What is left of it.
    fn kept(&self, root: &FailedRoot) -> Result<()>;
}

/// The root of a `RUN` that failed, as an overlay's directories, and how the command was run. Mounts of the step (secrets, caches)
/// are not in it, nor is the environment that they brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedRoot {
    /// The layers' directories, the topmost first.
    pub lower: Vec<PathBuf>,
    /// What the step changed.
    pub upper: PathBuf,
    /// Who ran it.
    pub user: slipway_sandbox::User,
    /// Where it ran.
    pub cwd: String,
    /// `NAME=value`, in order.
    pub env: Vec<String>,
    /// The command.
    pub args: Vec<String>,
}

/// What is told of each packed layer, so that it can be uploaded while the stage goes on.
pub trait LayerSink: Send + Sync {
    /// A layer of a stage is packed: its blob is in the store, or where `layer` says.
    fn layer<'a>(&'a self, layer: &'a Layer) -> BoxFuture<'a, Result<()>>;
}

/// A finished stage.
#[derive(Debug, Clone)]
pub struct StageResult {
    /// Its files.
    pub root: Root,
    /// How many of the root's layers are the base's.
    pub base_layers: usize,
    /// The layers as packed, the base's first; empty where nothing was to be packed.
    pub layers: Vec<LayerDesc>,
    /// Steps executed.
    pub executed: u32,
    /// Steps taken from a cache.
    pub cached: u32,
}

/// Runs a stage. `keys` are the keys by definition of its steps, as planning computed them
/// ([`slipway_plan::keys::run_keys`]), or empty: results are looked up and recorded under them too. With `packing`, its
/// layers are packed while it runs.
pub async fn run_stage(
    environment: &Arc<Environment>,
    plan: &Arc<BuildPlan>,
    stage: StageIndex,
    keys: &[Option<RunKey>],
    packing: Option<Packing>,
) -> Result<StageResult> {
    let mut runner = Runner {
        pack_as: packing,
        environment: environment.clone(),
        plan: plan.clone(),
        index: stage,
        sources: Sources::new(environment.clone(), plan.clone()),
        root: Root::default(),
        packing: Vec::new(),
        chain: true,
        last: None,
        executed: 0,
        cached: 0,
    };
    runner.run(keys).await
}

struct Runner {
    environment: Arc<Environment>,
    plan: Arc<BuildPlan>,
    index: StageIndex,
    sources: Sources,
    root: Root,
    pack_as: Option<Packing>,
    packing: Vec<JoinHandle<Result<LayerDesc>>>,
    /// Every step so far was found under its key by definition.
    chain: bool,
    /// The result of the last step.
    last: Option<StepRecord>,
    executed: u32,
    cached: u32,
}

impl Drop for Runner {
    fn drop(&mut self) {
        for task in &self.packing {
            task.abort();
        }
    }
}

impl Runner {
    fn stage(&self) -> &StagePlan {
        &self.plan.stages[self.index]
    }

    fn place(&self, step: &Step) -> Place {
        Place {
            file: self.plan.dockerfile.clone(),
            source: self.plan.source.as_str().into(),
            span: step.span,
            instruction: step.instruction.clone(),
        }
    }

    /// `[linux/arm64 build 2/5] RUN make`.
    fn title(&self, number: Option<u32>, text: &str) -> String {
        let stage = self.stage();
        let total = stage
            .steps
            .iter()
            .filter_map(|step| step.number)
            .max()
            .unwrap_or(1);
        let several = self.plan.results.len() > 1;
        let platform = if several {
            format!("{} ", stage.platform)
        } else {
            String::new()
        };
        match number {
            Some(number) => format!("[{platform}{} {number}/{total}] {text}", stage.name),
            None => format!("[{platform}{}] {text}", stage.name),
        }
    }

    async fn run(&mut self, keys: &[Option<RunKey>]) -> Result<StageResult> {
        let plan = self.plan.clone();
        let stage = &plan.stages[self.index];
        let from = Place {
            file: plan.dockerfile.clone(),
            source: plan.source.as_str().into(),
            span: stage.span,
            instruction: stage.instruction.clone(),
        };
        self.start().await.map_err(|error| error.at(&stage.name, &from))?;
        let base_layers = self.root.layers.len();
        // What is packed already, or will be by the stage that made it, costs nothing.
        for index in 0..base_layers {
            self.pack(index, false);
        }
        for (index, step) in stage.steps.iter().enumerate() {
            if !step.makes_layer() {
                continue;
            }
            if self.environment.cancel.is_cancelled() {
                return Err(BuildError::cancelled());
            }
            let place = self.place(step);
            let key = keys.get(index).and_then(Option::as_ref);
            self.step(step, key, &place)
                .await
                .map_err(|error| error.at(&stage.name, &place))?;
            self.pack(self.root.layers.len() - 1, true);
        }
        let mut layers = Vec::new();
        for (index, task) in std::mem::take(&mut self.packing).into_iter().enumerate() {
            let desc = task.await.map_err(join)??;
            self.root.layers[index].desc = Some(desc.clone());
            layers.push(desc);
        }
        Ok(StageResult {
            root: self.root.clone(),
            base_layers,
            layers,
            executed: self.executed,
            cached: self.cached,
        })
    }

    /// What the stage begins with.
    async fn start(&mut self) -> Result<()> {
        let plan = self.plan.clone();
        let stage = &plan.stages[self.index];
        self.root = match &stage.base {
            Source::Scratch => Root {
                layers: Vec::new(),
                content_key: "scratch".into(),
            },
            Source::Stage(index) => self.environment.inputs.stage(*index).await?,
            Source::Image(image) => {
                let vertex = self
                    .environment
                    .progress
                    .start(self.title(Some(1), &format!("FROM {}", image.reference)));
                match self.environment.inputs.image(image).await {
                    Ok(root) => {
                        vertex.done();
                        root
                    }
                    Err(error) => {
                        vertex.failed(error.message());
                        return Err(error);
                    }
                }
            }
            // A tree of files as a base is what copying all of it onto nothing would give.
            other => {
                let op = CopyOp {
                    sources: vec![slipway_plan::CopySource {
                        source: other.clone(),
                        path: "/".into(),
                        wildcard: false,
                        follow: false,
                        contents_only: true,
                        unpack: false,
                        include: None,
                        required: None,
                    }],
                    dest: "/".into(),
                    chown: None,
                    chmod: None,
                    link: true,
                    exclude: Vec::new(),
                    add: false,
                };
                let step = Step {
                    op: Op::Copy(op),
                    span: stage.span,
                    instruction: stage.instruction.clone(),
                    display: stage.instruction.clone(),
                    onbuild: false,
                    history: None,
                    number: Some(1),
                };
                self.root = Root {
                    layers: Vec::new(),
                    content_key: "scratch".into(),
                };
                self.step(&step, None, &self.place(&step)).await?;
                self.root.clone()
            }
        };
        Ok(())
    }

    /// Packs a layer in the background, if layers are to be packed.
    fn pack(&mut self, index: usize, own: bool) {
        let Some(mut packing) = self.pack_as.clone() else {
            return;
        };
        packing.force |= own && packing.portable;
        let environment = self.environment.clone();
        let layer = self.root.layers[index].clone();
        // A linked layer does not depend on what is below it.
        let below = Root {
            layers: self.root.layers[..index].to_vec(),
            content_key: String::new(),
        };
        self.packing.push(tokio::spawn(async move {
            let desc = pack_layer(&environment.store, &layer, &below, &packing).await?;
            if let Some(sink) = &packing.sink {
                sink.layer(&Layer {
                    desc: Some(desc.clone()),
                    ..layer
                })
                .await?;
            }
            Ok(desc)
        }));
    }

    async fn step(&mut self, step: &Step, key: Option<&RunKey>, place: &Place) -> Result<()> {
        let title = self.title(step.number, &step.display);
        let no_cache = self.stage().no_cache;
        // What is known without a look at any file is asked for first: a stage that is read by cached steps alone is not
        // even unpacked.
        let quick = match key {
            Some(key) => Some(key.key.as_str().to_owned()),
            None => self.quick_key(step).await?,
        };
        // A key by definition speaks of what stood before it under such keys.
        let usable = key.is_none_or(|key| key.usable && (self.chain || is_linked(step)));
        let ask = quick.as_ref().filter(|_| usable && !no_cache);
        if let Some(quick) = ask
            && self.take_cached(std::slice::from_ref(quick), step).await?
        {
            self.environment.progress.cached(title);
            return Ok(());
        }
        self.chain &= is_linked(step);
        let content_key = self.content_key(step).await?;
        let by_content = [content_key.clone()];
        if !no_cache && self.take_cached(&by_content, step).await? {
            self.record_also(quick.as_ref())?;
            self.environment.progress.cached(title);
            return Ok(());
        }
        // Equal steps of two builds run once: the other build waits here and then finds the result.
        let guard = {
            let (store, name) = (self.environment.store.clone(), format!("step-{content_key}"));
            tokio::task::spawn_blocking(move || store.lock(&name))
                .await
                .map_err(join)??
        };
        if !no_cache && self.take_stored(&by_content, step) {
            self.environment.progress.cached(title);
            return Ok(());
        }
        let vertex = self.environment.progress.start(title);
        let snapshot = match self.execute(step, &vertex, place).await {
            Ok(snapshot) => snapshot,
            Err(error) if error.is_cancelled() => return Err(error),
            Err(error) => {
                let error = if error.log().is_empty() {
                    error.with_log(vertex.tail())
                } else {
                    error
                };
                vertex.failed(error.message());
                return Err(error);
            }
        };
        // Run again, a step may leave other files under the same key: what comes after it must not be taken for what came
        // after the old ones.
        let again = self.environment.store.step(&content_key).is_some();
        let after = if again || matches!(step.op, Op::Run(_)) {
            hex::encode(Sha256::digest(format!("{content_key} {snapshot}")))
        } else {
            content_key.clone()
        };
        let created = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs() as i64);
        let record = StepRecord {
            snapshot: snapshot.clone(),
            content_key: after,
            created,
            keys: quick.into_iter().chain([content_key]).collect(),
        };
        for key in &record.keys {
            self.environment.store.put_step(key, &record)?;
        }
        drop(guard);
        vertex.done();
        self.executed += 1;
        self.push(Layer::local(snapshot, created), record, step);
        Ok(())
    }

    async fn execute(
        &mut self,
        step: &Step,
        vertex: &Vertex,
        place: &Place,
    ) -> Result<crate::store::SnapshotId> {
        let _ = place;
        match &step.op {
            Op::Metadata => Err(BuildError::new(
                FailureReason::Internal,
                "a step without work was to be executed",
            )),
            Op::Mkdir(op) => self.mkdir(op).await,
            Op::Copy(op) => self.copy(op).await,
            Op::Run(op) => {
                self.root
                    .materialise(&self.environment.store, &self.environment.progress)
                    .await?;
                run::run(self, op, vertex).await
            }
        }
    }
}
