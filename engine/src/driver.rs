//! A whole build in one process: plan, all stages side by side, exports.
//!
//! ```text
//!  PlanRequest ─ plan (asks Images for bases) ─▶ BuildPlan ─▶ one task a stage ─▶ results ─▶ Images ─▶ exports
//!                                                               └ waits only at the step that needs another stage
//! ```
//! The first failure stops the others.

use crate::{
    context::Context,
    error::{BuildError, Result},
    exec::{Environment, Packing, StageResult, run_stage},
    fetch::Fetcher,
    images::Images,
    inputs::{Inputs, StepCache},
    progress::{Progress, lock},
    root::{Root, join},
    store::Store,
};
use futures::future::{BoxFuture, join_all};
use slipway_dockerfile::Severity;
use slipway_plan::{
    BaseRequest, Bases, BuildPlan, ImageSource, Outcome, PlanRequest, Source, StageIndex,
    protocol::FailureReason,
};
use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    sync::{Arc, Mutex},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

/// Opens a context when a step first needs it.
pub type OpenContext = Arc<dyn Fn() -> BoxFuture<'static, Result<Arc<dyn Context>>> + Send + Sync>;

/// What a build in this process offers to its steps.
#[derive(Clone, Default)]
pub struct Offers {
    /// The build context; none: an empty one.
    pub context: Option<OpenContext>,
    /// Named contexts that are directories.
    pub named: BTreeMap<String, OpenContext>,
    /// Secrets by id.
    pub secrets: BTreeMap<String, Arc<Zeroizing<Vec<u8>>>>,
    /// Sockets of SSH agents by id.
    pub ssh: BTreeMap<String, PathBuf>,
}

/// Builds in one process.
pub struct Driver {
    /// Layers and results.
    pub store: Arc<Store>,
    /// Where events go.
    pub progress: Progress,
    /// Base images.
    pub images: Arc<Images>,
    /// Downloads.
    pub fetcher: Fetcher,
    /// Stops the build.
    pub cancel: CancellationToken,
}

/// Which layers are packed while the build runs.
#[derive(Clone)]
pub enum Pack {
    /// None: only files are exported.
    None,
    /// Those of the results.
    Results(Packing),
    /// Those of all stages, for a cache.
    All(Packing),
}

impl Driver {
    /// Plans a build; looks base images up, all that are asked for at a time side by side.
    pub async fn plan(&self, request: &PlanRequest) -> Result<BuildPlan> {
        let mut bases = Bases::new();
        loop {
            let outcome = slipway_plan::plan(request, &bases).map_err(|diagnostics| {
                for warning in diagnostics.iter().filter(|one| one.severity == Severity::Warning) {
                    let line = warning.span.map_or(0, |span| span.first_line);
                    self.progress.warn(&warning.code, &warning.message, line);
                }
                BuildError::dockerfile(diagnostics, &request.dockerfile.source)
            })?;
            match outcome {
                Outcome::Ready(plan) => return Ok(*plan),
                Outcome::Need(needed) => {
                    let answers = join_all(needed.into_iter().map(|base| self.look_up(base))).await;
                    for (base, answer) in answers {
                        bases.insert(base, answer);
                    }
                }
            }
        }
    }

    async fn look_up(
        &self,
        base: BaseRequest,
    ) -> (
        BaseRequest,
        Result<slipway_plan::ResolvedBase, slipway_plan::BaseError>,
    ) {
        let vertex = self
            .progress
            .start(format!("load metadata for {}", base.reference));
        let answer = self.images.resolve(&base).await;
        match &answer {
            Ok(_) => vertex.done(),
            Err(error) => vertex.failed(&error.message),
        }
        (base, answer)
    }

    /// Runs all stages of a plan. Gives the results, in the order of [`BuildPlan::results`].
    pub async fn run(
        &self,
        plan: &Arc<BuildPlan>,
        offers: Offers,
        caches: Vec<Arc<dyn StepCache>>,
        pack: &Pack,
    ) -> Result<Vec<StageResult>> {
        let (senders, receivers): (Vec<_>, Vec<_>) = plan
            .stages
            .iter()
            .map(|_| watch::channel::<Option<Ended>>(None))
            .unzip();
        let inputs = Arc::new(InProcess {
            stages: receivers,
            images: self.images.clone(),
            offers,
            contexts: tokio::sync::Mutex::new(BTreeMap::new()),
        });
        let environment = Arc::new(Environment {
            store: self.store.clone(),
            progress: self.progress.clone(),
            inputs,
            caches,
            fetcher: self.fetcher.clone(),
            cancel: self.cancel.child_token(),
            emptied: Mutex::new(HashSet::new()),
            keep: None,
        });
        let packed = packed_stages(plan, pack);
        let tasks: Vec<_> = senders
            .into_iter()
            .enumerate()
            .map(|(index, sender)| {
                let (environment, plan) = (environment.clone(), plan.clone());
                let packing = match pack {
                    Pack::Results(packing) | Pack::All(packing) if packed.contains(&index) => {
                        Some(packing.clone())
                    }
                    _ => None,
                };
                tokio::spawn(async move {
                    let result = run_stage(&environment, &plan, index, &[], packing).await;
                    if result.is_err() {
                        environment.cancel.cancel();
                    }
                    let _ = sender.send(Some(
                        result.as_ref().map(|stage| stage.root.clone()).map_err(|_| ()),
                    ));
                    result
                })
            })
            .collect();
        let mut stages = Vec::new();
        let mut failure: Option<BuildError> = None;
        for task in tasks {
            match task.await.map_err(join).and_then(|result| result) {
                Ok(result) => stages.push(Some(result)),
                Err(error) => {
                    stages.push(None);
                    // Of several errors the one that is not merely a consequence counts.
                    if failure.as_ref().is_none_or(BuildError::is_cancelled) {
                        failure = Some(error);
                    }
                }
            }
        }
        if let Some(error) = failure {
            return Err(error);
        }
        plan.results
            .iter()
            .map(|result| {
                stages.get(result.stage).and_then(Clone::clone).ok_or_else(|| {
                    BuildError::new(
                        FailureReason::Internal,
                        "a result names a stage that is not in the plan",
                    )
                })
            })
            .collect()
    }
}

/// The stages whose layers end up in something that is exported.
fn packed_stages(plan: &BuildPlan, pack: &Pack) -> HashSet<StageIndex> {
    match pack {
        Pack::None => HashSet::new(),
        Pack::All(_) => (0..plan.stages.len()).collect(),
        Pack::Results(_) => {
            let mut stages = HashSet::new();
            for result in &plan.results {
                let mut stage = result.stage;
                while stages.insert(stage) {
                    match plan.stages[stage].base {
                        Source::Stage(below) => stage = below,
                        _ => break,
                    }
                }
            }
            stages
        }
    }
}

/// How a stage ended: its root, or `Err` where it failed.
type Ended = Result<Root, ()>;

struct InProcess {
    stages: Vec<watch::Receiver<Option<Ended>>>,
    images: Arc<Images>,
    offers: Offers,
    contexts: tokio::sync::Mutex<BTreeMap<Option<String>, Arc<dyn Context>>>,
}

impl Inputs for InProcess {
    fn stage(&self, stage: StageIndex) -> BoxFuture<'_, Result<Root>> {
        Box::pin(async move {
            let mut receiver = self.stages[stage].clone();
            let result = receiver
                .wait_for(Option::is_some)
                .await
                .map_err(|_| BuildError::cancelled())?;
            match &*result {
                Some(Ok(root)) => Ok(root.clone()),
                _ => Err(BuildError::cancelled()),
            }
        })
    }

    fn image<'a>(&'a self, image: &'a ImageSource) -> BoxFuture<'a, Result<Root>> {
        Box::pin(self.images.root(image))
    }

    fn context<'a>(&'a self, name: Option<&'a str>) -> BoxFuture<'a, Result<Arc<dyn Context>>> {
        Box::pin(async move {
            let mut contexts = self.contexts.lock().await;
            let key = name.map(ToOwned::to_owned);
            if let Some(context) = contexts.get(&key) {
                return Ok(context.clone());
            }
            let open = match name {
                None => self.offers.context.as_ref(),
                Some(name) => Some(self.offers.named.get(name).ok_or_else(|| {
                    BuildError::new(
                        FailureReason::Internal,
                        format!("the context {name:?} was not given"),
                    )
                })?),
            };
            let context: Arc<dyn Context> = match open {
                Some(open) => open().await?,
                None => Arc::new(crate::context::MemContext::default()),
            };
            contexts.insert(key, context.clone());
            Ok(context)
        })
    }

    fn secret(&self, id: &str) -> Result<Option<Zeroizing<Vec<u8>>>> {
        Ok(self.offers.secrets.get(id).map(|value| (**value).clone()))
    }

    fn ssh(&self, id: &str) -> Result<Option<PathBuf>> {
        Ok(self.offers.ssh.get(id).cloned())
    }
}

/// Warnings of a plan, told once.
pub fn tell_warnings(progress: &Progress, plan: &BuildPlan) {
    static TOLD: Mutex<()> = Mutex::new(());
    let _guard = lock(&TOLD);
    for warning in &plan.warnings {
        progress.warn(&format!("{:?}", warning.rule), &warning.detail, warning.line);
    }
}
