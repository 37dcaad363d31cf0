//! The driver: watches ImageBuilds and their pods, and takes each build through the five steps.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures::{Stream, StreamExt as _, TryStreamExt as _, future::BoxFuture};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt as _,
    runtime::{
        Controller, WatchStreamExt as _,
        controller::Action as Requeue,
        events::Recorder,
        reflector::{self, ObjectRef},
        watcher,
    },
};
use slipway_crd::{ImageBuild, names};
use slipway_oci::Digest;

use crate::{
    apply::{Applier, ApplyError},
    assemble,
    claims::{self, Caches, Desk, Waiter},
    config::Config,
    decide::{self, Action, Observed},
    facts::{Facts, Fault, Lookup, Publication},
    memory::Memory,
    metrics::Metrics,
    nodes::Nodes,
    observe,
    peers::{Admission, Guarded, Peers},
    pod_store::{PodStore, PodsGone},
    pod_view::PodView,
    prober, prune,
    registry::{Connect, Registry},
    report::{Reporter, Told},
    validate,
};
use tokio::sync::OwnedMutexGuard;

/// A reconcile asks the registry at most twice and is refused pods at most once; more turns than this are a fault.
const TURNS: usize = 8;
/// How often what belongs to builds that are gone is forgotten.
const SWEEP: Duration = Duration::from_mins(1);

/// What every reconcile has.
pub struct Context {
    /// The API.
    pub client: Client,
    /// The settings.
    pub config: Arc<Config>,
    /// Ways to registries.
    pub connect: Arc<dyn Connect>,
    /// What bridges the watch.
    pub memory: Memory,
    /// Numbers.
    pub metrics: Arc<Metrics>,
    /// Where events go.
    pub told: Told,
    /// The other builds.
    pub peers: Arc<Peers>,
    pods: PodStore,
    /// Who waits for the claims of cache mounts.
    pub desk: Arc<Desk>,
    nodes: Nodes,
    /// What the nodes are probed with, if they are.
    probe: Option<Arc<str>>,
}

/// Why a reconcile did not come to its end; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The stored object is not what the CRD says.
    #[error("failed to understand the ImageBuild: {0}; was the CRD upgraded with the chart?")]
    Invalid(String),
    /// The watch of pods has ended.
    #[error(transparent)]
    PodsGone(#[from] PodsGone),
    /// What the spec refers to could not be read.
    #[error("failed to read what the build refers to: {0}")]
    Observe(#[source] Box<kube::Error>),
    /// An action could not be done.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The status could not be written.
    #[error("failed to write the status: {0}")]
    Report(#[source] Box<kube::Error>),
    /// The decision goes round in circles.
    #[error("failed to come to an end after {TURNS} decisions; this is a fault of Slipway, please report it")]
    Circle,
}

/// Runs the controller until `shutdown` resolves. Reconciles that run then come to their end.
pub async fn run(
    client: Client,
    namespace: Option<String>,
    config: Arc<Config>,
    connect: Arc<dyn Connect>,
    metrics: Arc<Metrics>,
    recorder: Recorder,
    shutdown: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let (desk, for_claims) = Desk::new();
    let desk = Arc::new(desk);
    let (pods, pod_changes) = watch_pods(&client, namespace.as_deref(), Arc::clone(&desk));
    let (peers, woken) = Peers::new(config.peers());
    let peers = Arc::new(peers);
    let (builds, build_changes) = watch_builds(
        &client,
        namespace.as_deref(),
        Arc::clone(&peers),
        Arc::clone(&desk),
    );
    let told = Told::start(recorder, Arc::clone(&metrics));
    let (nodes, node_changes) = watch_nodes(&client, namespace.as_deref());
    let prober = prober::run(client.clone(), Arc::clone(&config), nodes.clone());
    let probe = config.probe().map(Arc::from);
    let context = Arc::new(Context {
        client,
        config,
        connect,
        memory: Memory::default(),
        metrics,
        told,
        peers,
        pods: PodStore::new(pods),
        desk,
        nodes,
        probe,
    });
    let controller = Controller::for_stream(build_changes, builds)
        .owns_stream(pod_changes)
        .reconcile_on(woken)
        .reconcile_on(for_claims)
        .graceful_shutdown_on(shutdown);
    let sweeper = sweep(controller.store(), Arc::clone(&context));
    let pruner = prune::run(
        controller.store(),
        context.client.clone(),
        Arc::clone(&context.connect),
        context.config.cache.prune,
        context.config.policies.clone(),
        context.config.registries.clone(),
    );
    let pruned = Arc::clone(&context);
    let rules = context.config.cache.mounts.prune.rules();
    let claim_pruner = claims::prune::run(
        &pruned.client,
        namespace.as_deref(),
        &rules,
        &pruned.desk,
        &pruned.metrics,
    );
    let work = controller
        .run(reconcile, after_error, context)
        .for_each(|result| async move {
            match result {
                // Told by `after_error` already, or an object that was deleted in between.
                Ok(_)
                | Err(
                    kube::runtime::controller::Error::ReconcilerFailed(..)
                    | kube::runtime::controller::Error::ObjectNotFound(_),
                ) => {}
                Err(error) => tracing::warn!(%error, "the watch failed; trying again"),
            }
        });
    tokio::select! {
        () = work => {}
        () = sweeper => {}
        () = pruner => {}
        () = claim_pruner => {}
        () = node_changes => {}
        () = prober => {}
    }
}

/// The nodes, and what keeps them current; it never ends.
fn watch_nodes(client: &Client, namespace: Option<&str>) -> (Nodes, BoxFuture<'static, ()>) {
    if namespace.is_some() {
        return (Nodes::unseen(), Box::pin(std::future::pending()));
    }
    let (nodes, changes) = Nodes::watch(client);
    let follow = async move {
        changes.for_each(|()| std::future::ready(())).await;
        std::future::pending::<()>().await;
    };
    (nodes, Box::pin(follow))
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// One watch for the store, for what builds know of each other, and for the triggers, in this order: a reconcile never
/// knows less than what has triggered it.
fn watch_builds(
    client: &Client,
    namespace: Option<&str>,
    peers: Arc<Peers>,
    desk: Arc<Desk>,
) -> (
    reflector::Store<Guarded>,
    impl Stream<Item = Result<Guarded, watcher::Error>> + Send + 'static,
) {
    let (store, writer) = reflector::store();
    let changes = watcher(api::<Guarded>(client, namespace), watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .inspect_ok(move |event| {
            peers.see(event);
            if let watcher::Event::Delete(build) = event {
                desk.gone(&build.uid().unwrap_or_default());
            }
        })
        .applied_objects();
    (store, changes)
}

/// One watch for both the store that decisions read and the triggers: a trigger never comes before its pod is stored.
fn watch_pods(
    client: &Client,
    namespace: Option<&str>,
    desk: Arc<Desk>,
) -> (
    reflector::Store<Pod>,
    impl Stream<Item = Result<Pod, watcher::Error>> + Send + 'static,
) {
    let (store, writer) = reflector::store();
    let ours = format!(
        "{}={},{}",
        names::LABEL_MANAGED_BY,
        names::MANAGED_BY,
        names::LABEL_BUILD
    );
    let changes = watcher(
        api::<Pod>(client, namespace),
        watcher::Config::default().labels(&ours),
    )
    .default_backoff()
    // Half of a stored pod, and never read.
    .modify(|pod| pod.metadata.managed_fields = None)
    .reflect(writer)
    .touched_objects()
    .inspect_ok(move |pod| desk.changed(pod));
    (store, changes)
}

async fn sweep(builds: reflector::Store<Guarded>, context: Arc<Context>) {
    loop {
        // Never `wait_until_ready`: the controller waits for this store, and kube wakes only the last who asked. While
        // the first list is not there nothing is remembered either, so there is nothing to lose.
        tokio::time::sleep(SWEEP).await;
        let uids: HashSet<String> = builds.state().iter().filter_map(|build| build.uid()).collect();
        context.memory.keep_only(&uids);
        context.metrics.keep_only(&uids);
        context.desk.keep_only(&uids);
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the signature that kube calls")]
fn after_error(build: Arc<Guarded>, error: &ReconcileError, context: Arc<Context>) -> Requeue {
    let name = ObjectRef::from_obj(&*build);
    if let ReconcileError::Invalid(_) = error {
        tracing::error!(build = %name, %error, "left alone until it changes");
        return Requeue::await_change();
    }
    context.metrics.error("api");
    tracing::warn!(build = %name, %error, "trying again");
    Requeue::requeue(Duration::from_secs(2))
}

#[tracing::instrument(name = "build", skip_all, fields(namespace = guarded.namespace(), name = guarded.name_any()))]
async fn reconcile(guarded: Arc<Guarded>, context: Arc<Context>) -> Result<Requeue, ReconcileError> {
    let _measured = context.metrics.reconcile();
    let build = guarded
        .0
        .as_ref()
        .map_err(|invalid| ReconcileError::Invalid(invalid.error.clone()))?;
    let pods = context.pods.ready().await?;
    let uid = build.uid().unwrap_or_default();
    let mut work = Work {
        build: context.memory.newest(&uid, Arc::new(build.clone())),
        context: &context,
        pods,
        facts: Facts::default(),
        args: crate::facts::Args::default(),
        uid,
    };
    work.remember();
    for _ in 0..TURNS {
        if let Some(requeue) = work.turn().await? {
            return Ok(requeue);
        }
    }
    Err(ReconcileError::Circle)
}

/// One reconcile.
struct Work<'a> {
    context: &'a Context,
    pods: &'a reflector::Store<Pod>,
    build: Arc<ImageBuild>,
    uid: String,
    facts: Facts,
    args: crate::facts::Args,
}

impl Work<'_> {
    /// What earlier reconciles of this run learned of the registry.
    fn remember(&mut self) {
        let memory = &self.context.memory;
        let Some(status) = &self.build.status else { return };
        let plan = status
            .plan
            .as_ref()
            .and_then(|plan| plan.digest.as_ref()?.parse::<Digest>().ok());
        if let Some(known) = plan.and_then(|plan| memory.schedule(&self.uid, &plan)) {
            self.facts.schedule = Lookup::Done(known);
        }
        let run = status.runs;
        let Some(trouble) = memory.trouble(&self.uid, run) else {
            return;
        };
        self.facts.registry_attempts = trouble.attempts;
        self.facts.registry_failed_at = Some(trouble.at);
        match self.facts.schedule {
            Lookup::Done(_) => self.facts.published = Lookup::Failed(trouble.fault),
            Lookup::Untried | Lookup::Failed(_) => self.facts.schedule = Lookup::Failed(trouble.fault),
        }
    }

    /// The build's pods, with what the nodes say of those that do not start.
    async fn look_at_pods(&self) -> Result<Vec<PodView>, ReconcileError> {
        let Context { client, memory, .. } = self.context;
        let mut views = observe::pods(self.pods, memory, &self.build);
        let namespace = self.build.namespace().unwrap_or_default();
        observe::stuck::explain(client, &namespace, &mut views, Timestamp::now())
            .await
            .map_err(|error| ReconcileError::Observe(Box::new(error)))?;
        Ok(views)
    }

    /// Observes, decides, applies and reports once. `None`: something was learned, decide again.
    async fn turn(&mut self) -> Result<Option<Requeue>, ReconcileError> {
        let Context {
            client,
            config,
            memory,
            metrics,
            told,
            peers,
            pods: _,
            nodes,
            probe,
            connect: _,
            desk,
        } = self.context;
        self.facts.nodes = nodes.known();
        self.facts.probe.clone_from(probe);
        if self.ask().await?.is_none() {
            // Deleted meanwhile.
            return Ok(Some(Requeue::await_change()));
        }
        if let Lookup::Done(schedule) = &self.facts.schedule {
            let wanted = decide::wanted_stages(&self.build, schedule);
            self.facts.peers.stages = peers.claim_stages(&self.build, wanted);
        }
        let turn = self.look_at_caches().await?;
        let views = self.look_at_pods().await?;
        let observed = Observed {
            build: &self.build,
            pods: &views,
            facts: &self.facts,
            start_timeout: config.start_timeout(),
            keep_pods: Duration::from_secs(config.finished_pods.keep_seconds.into()),
            keep_pods_of: config.finished_pods.keep_builds_per_namespace,
            policies: &config.policies,
            now: Timestamp::now(),
        };
        let decision = decide::decide(&observed);

        desk.waits(
            &self.uid,
            decision
                .waits
                .map(|locked| Waiter::of(&self.build, locked.into_iter().collect())),
        );
        let (slow, quick): (Vec<Action>, Vec<Action>) =
            decision.actions.into_iter().partition(Action::is_slow);
        let run = decision.status.runs;
        let plan: Option<Digest> = decision
            .status
            .plan
            .as_ref()
            .and_then(|plan| plan.digest.as_ref()?.parse().ok());
        let schedule = match &self.facts.schedule {
            Lookup::Done(schedule) => Some(schedule),
            Lookup::Untried | Lookup::Failed(_) => None,
        };
        let applier = Applier {
            client,
            config,
            memory,
            build: &self.build,
            run,
            args: &self.args,
            cluster: self.facts.cluster(),
            plan: plan.as_ref().zip(schedule.map(AsRef::as_ref)),
            told,
        };
        let refused = applier.apply(&quick).await?;
        drop(turn);
        if !refused.is_empty() && self.facts.refused.is_empty() {
            // The status must not speak of pods that are not there.
            self.facts.refused = refused;
            return Ok(None);
        }
        if let Some(Action::FetchSchedule { plan }) = slow.first() {
            // Before anything is written: the pods of the first stages are what everybody waits for.
            self.fetch_schedule(plan, run).await?;
            return Ok(None);
        }
        let reporter = Reporter {
            client,
            metrics,
            memory,
            peers,
        };
        match reporter.status(&self.build, &decision.status).await {
            Ok(Some(written)) => self.build = Arc::new(written),
            Ok(None) => {}
            // Deleted, or deleted and made anew, meanwhile: the watch tells.
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {
                return Ok(Some(Requeue::requeue(Duration::from_secs(1))));
            }
            Err(error) => return Err(ReconcileError::Report(Box::new(error))),
        }
        told.turns(&self.build, decision.turns);
        if let Some(Action::Publish(publication)) = slow.first() {
            self.publish(publication, run).await?;
            return Ok(None);
        }
        Ok(Some(
            decision
                .again
                .map_or_else(Requeue::await_change, Requeue::requeue),
        ))
    }

    /// Asks what the decision depends on: the other builds, Secrets and ConfigMaps. Nothing if the build is gone.
    async fn ask(&mut self) -> Result<Option<()>, ReconcileError> {
        let peers = &self.context.peers;
        let status = self.build.status.as_ref();
        if status.is_some_and(|status| status.phase.unwrap_or_default().is_final()) {
            self.facts.peers.newer = peers.newer(&self.build);
        }
        // In a queue, what is missing is looked for once, when the build comes, and again when it is its turn: else a
        // long queue would keep the API server busy.
        let queued = status.is_some_and(|status| status.queue.is_some());
        if queued && decide::wants_turn(&self.build, true) {
            let Some(admission) = peers.may_begin(&self.build, Timestamp::now()) else {
                return Ok(None);
            };
            let waits = admission != Admission::Go;
            self.facts.peers.admission = Some(admission);
            if waits {
                return Ok(Some(()));
            }
        }
        if decide::wants_inputs(&self.build) {
            let inputs = observe::inputs(&self.context.client, &self.build)
                .await
                .map_err(|error| ReconcileError::Observe(Box::new(error)))?;
            self.facts.missing = inputs.missing;
            self.args = inputs.args;
        }
        if !queued && self.facts.missing.is_none() && decide::wants_turn(&self.build, false) {
            let Some(admission) = peers.may_begin(&self.build, Timestamp::now()) else {
                return Ok(None);
            };
            self.facts.peers.admission = Some(admission);
        }
        Ok(Some(()))
    }

    /// Looks who uses and who wants the claims of cache mounts, if this build wants some. Until what this gives is dropped,
    /// no other build of the namespace can take any.
    async fn look_at_caches(&mut self) -> Result<Option<OwnedMutexGuard<()>>, ReconcileError> {
        let wants = match &self.facts.schedule {
            Lookup::Done(schedule) => schedule.stages.iter().any(|stage| !stage.caches.is_empty()),
            Lookup::Untried | Lookup::Failed(_) => false,
        };
        let ended = self
            .build
            .status
            .as_ref()
            .is_some_and(|status| status.phase.unwrap_or_default().is_final());
        if !wants || ended {
            return Ok(None);
        }
        let namespace = self.build.namespace().unwrap_or_default();
        let Context {
            client,
            config,
            memory,
            desk,
            ..
        } = self.context;
        let has_class = self.build.spec.cache.mounts.storage_class_name.is_some()
            || config.cache.mounts.storage_class_name.is_some()
            || desk
                .has_default_class(client, &namespace)
                .await
                .map_err(|error| ReconcileError::Observe(Box::new(error)))?;
        let turn = desk.turn(&namespace).await;
        self.facts.caches = Caches {
            uses: observe::claim_uses(self.pods, memory, &namespace),
            waiters: desk.waiters(&namespace, &self.uid),
            no_class: !has_class,
        };
        Ok(Some(turn))
    }

    /// Writes the tags, and keeps what came of it for the next decision.
    async fn publish(&mut self, publication: &Publication, run: i64) -> Result<(), ReconcileError> {
        let result = match self.registry().await? {
            Ok(registry) => assemble::publish(&*registry, publication).await,
            Err(fault) => Err(fault),
        };
        self.count(run, result.as_ref().err());
        self.facts.published = into_lookup(result);
        Ok(())
    }

    async fn fetch_schedule(&mut self, plan: &Digest, run: i64) -> Result<(), ReconcileError> {
        let result = match (
            self.registry().await?,
            validate::validate(&self.build, &self.context.config.policies),
        ) {
            (Ok(registry), Ok(valid)) => assemble::schedule(&*registry, &valid.cache_repository, plan)
                .await
                .map(Arc::new),
            (Err(fault), _) => Err(fault),
            (_, Err(invalid)) => Err(Fault {
                reason: slipway_crd::reasons::SPEC_INVALID,
                message: invalid.to_string(),
                transient: false,
                retry_after: None,
            }),
        };
        if let Ok(schedule) = &result {
            self.context
                .memory
                .keep_schedule(&self.uid, plan, Arc::clone(schedule));
        }
        self.count(run, result.as_ref().err());
        self.facts.schedule = into_lookup(result);
        Ok(())
    }

    fn count(&mut self, run: i64, fault: Option<&Fault>) {
        if fault.is_some() {
            self.context.metrics.error("registry");
        }
        let (memory, now) = (&self.context.memory, Timestamp::now());
        memory.registry_answered(&self.uid, run, fault, now);
        self.facts.registry_attempts = memory
            .trouble(&self.uid, run)
            .map_or(0, |trouble| trouble.attempts);
        self.facts.registry_failed_at = Some(now);
    }

    /// The registries, with the build's credentials as they are now.
    async fn registry(&self) -> Result<Result<Arc<dyn Registry>, Fault>, ReconcileError> {
        let identity = observe::identity(&self.context.client, &self.build, &self.context.config.registries)
            .await
            .map_err(|error| ReconcileError::Observe(Box::new(error)))?;
        Ok(self.context.connect.connect(identity))
    }
}

fn into_lookup<T>(result: Result<T, Fault>) -> Lookup<T> {
    match result {
        Ok(value) => Lookup::Done(value),
        Err(fault) => Lookup::Failed(fault),
    }
}
