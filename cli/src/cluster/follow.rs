//! One run of a build, as it happens: the ImageBuild, its pods, and what they print, in one stream.
//!
//! ```text
//!  watch ImageBuild ─┐
//!  watch pods ───────┼─▶ Update, Update, …, end (the build has ended and every log is read)
//!  a log per pod ────┘
//! ```

use super::{
    Cluster, log,
    pods::{BuildPod, Work, owned, selector},
    told,
};
use crate::exit::Error;
use anyhow::Result;
use futures::{StreamExt as _, stream::BoxStream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    api::ListParams,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event},
    },
};
use slipway_crd::{ImageBuild, Run};
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout_at},
};

/// After the build has ended, its logs are read for no longer than this.
const LAST_LOGS: Duration = Duration::from_secs(20);
/// Errors of a watch in a row after which it is given up. With the backoff between them that is about half a minute.
const WATCH_ERRORS: u32 = 6;

/// Something that happened.
#[derive(Debug)]
pub enum Update {
    /// The build is like this now.
    Build(Box<ImageBuild>),
    /// The build was deleted.
    Gone,
    /// A pod of the run is like this now.
    Pod(Arc<BuildPod>),
    /// A pod printed a line.
    Line {
        /// The pod.
        pod: Arc<BuildPod>,
        /// The line.
        text: String,
    },
    /// Nothing more comes from a pod.
    LogEnded(Arc<BuildPod>),
    /// Something cannot be seen; the rest goes on.
    Blind(String),
}

/// What is wanted.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// What the pods print, too.
    pub logs: bool,
    /// Not the run that is over: the one after it.
    pub after: Option<Run>,
}

/// The updates of a build's run. Dropped, it stops watching.
pub struct Follow {
    updates: mpsc::Receiver<Result<Update>>,
    driver: tokio::task::JoinHandle<()>,
}

impl Follow {
    /// Begins to watch.
    pub fn start(cluster: &Cluster, name: &str, wanted: Wanted) -> Self {
        let (sender, updates) = mpsc::channel(1024);
        let driver = Driver {
            cluster: cluster.clone(),
            name: name.to_owned(),
            wanted,
            sender,
            build: None,
            pods: BTreeMap::new(),
            told: BTreeMap::new(),
            read: HashSet::new(),
            logs: JoinSet::new(),
        };
        Self {
            updates,
            driver: tokio::spawn(driver.run()),
        }
    }

    /// The next update; none when the run is over and everything is told.
    pub async fn next(&mut self) -> Option<Result<Update>> {
        self.updates.recv().await
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

struct Driver {
    cluster: Cluster,
    name: String,
    wanted: Wanted,
    sender: mpsc::Sender<Result<Update>>,
    build: Option<ImageBuild>,
    pods: BTreeMap<String, Arc<BuildPod>>,
    /// Pods of the run, as they were told of.
    told: BTreeMap<String, Arc<BuildPod>>,
    /// Pods whose log is being read or was.
    read: HashSet<String>,
    logs: JoinSet<()>,
}

/// Whether to go on.
type Flow = std::ops::ControlFlow<()>;

impl Driver {
    async fn run(mut self) {
        let mut builds: BoxStream<'static, watcher::Result<Option<ImageBuild>>> =
            kube::runtime::watcher::watch_object(self.cluster.builds(), &self.name)
                .default_backoff()
                .boxed();
        let mut pods: BoxStream<'static, watcher::Result<Event<Pod>>> = if self.wanted.logs {
            let config = watcher::Config::default().labels(&selector(&self.name));
            kube::runtime::watcher(self.cluster.pods(), config)
                .default_backoff()
                .boxed()
        } else {
            futures::stream::pending().boxed()
        };
        let (mut build_errors, mut pod_errors) = (0, 0);
        loop {
            let flow = tokio::select! {
                build = builds.next() => match build {
                    Some(Ok(build)) => {
                        build_errors = 0;
                        self.build_changed(build).await
                    }
                    Some(Err(error)) => {
                        build_errors += 1;
                        if build_errors < WATCH_ERRORS && !is_refusal(&error) {
                            continue;
                        }
                        let what = format!("watch the ImageBuild {}: {}", self.name, super::causes(&error));
                        let _ = self.sender.send(Err(Error::Cluster(format!("failed to {what}")).into())).await;
                        Flow::Break(())
                    }
                    None => Flow::Break(()),
                },
                event = pods.next() => match event {
                    Some(Ok(event)) => {
                        pod_errors = 0;
                        match event {
                            Event::Apply(pod) | Event::InitApply(pod) => self.pod_changed(&pod).await,
                            Event::Delete(_) | Event::Init | Event::InitDone => Flow::Continue(()),
                        }
                    }
                    Some(Err(error)) => {
                        pod_errors += 1;
                        if pod_errors < WATCH_ERRORS && !is_refusal(&error) {
                            continue;
                        }
                        pods = futures::stream::pending().boxed();
                        let text = format!("the build's pods cannot be seen, so there are no logs: {}", super::causes(&error));
                        self.send(Update::Blind(text)).await
                    }
                    None => Flow::Break(()),
                },
            };
            if flow.is_break() {
                return;
            }
            if self.is_over() {
                return self.read_the_rest().await;
            }
        }
    }

    async fn send(&self, update: Update) -> Flow {
        match self.sender.send(Ok(update)).await {
            Ok(()) => Flow::Continue(()),
            Err(_) => Flow::Break(()),
        }
    }

    async fn build_changed(&mut self, build: Option<ImageBuild>) -> Flow {
        let Some(build) = build else {
            let _ = self.send(Update::Gone).await;
            return Flow::Break(());
        };
        if self.wanted.after.is_some() && run(&build) == self.wanted.after.as_ref() {
            return Flow::Continue(());
        }
        self.build = Some(build.clone());
        let flow = self.send(Update::Build(Box::new(build))).await;
        // A pod may have been seen before the status that tells which run is on.
        let pods: Vec<_> = self.pods.values().cloned().collect();
        for pod in pods {
            self.see(&pod).await?;
        }
        flow
    }

    async fn pod_changed(&mut self, pod: &Pod) -> Flow {
        if let Some(uid) = self
            .build
            .as_ref()
            .and_then(|build| build.metadata.uid.as_deref())
            && !owned(pod, uid)
        {
            return Flow::Continue(());
        }
        let Some(pod) = BuildPod::of(pod).map(Arc::new) else {
            return Flow::Continue(());
        };
        if self.pods.insert(pod.name.clone(), pod.clone()).as_ref() == Some(&pod) {
            return Flow::Continue(());
        }
        self.see(&pod).await
    }

    /// Tells of a pod of the run, and begins to read its log as soon as there is one.
    async fn see(&mut self, pod: &Arc<BuildPod>) -> Flow {
        let run = self
            .build
            .as_ref()
            .and_then(|build| build.status.as_ref())
            .map(|status| status.runs);
        // A stage's pod may be seen before the status that has the stage; the next status brings it here again.
        if run != Some(pod.run) || !self.knows(pod) {
            return Flow::Continue(());
        }
        if self.told.insert(pod.name.clone(), pod.clone()).as_ref() != Some(pod) {
            self.send(Update::Pod(pod.clone())).await?;
        }
        if pod.started && self.read.insert(pod.name.clone()) {
            let (api, pod, sender) = (self.cluster.pods(), pod.clone(), self.sender.clone());
            self.logs.spawn(async move {
                let line = |text| {
                    Ok(Update::Line {
                        pod: pod.clone(),
                        text,
                    })
                };
                if let Err(error) = log::read(&api, &pod.name, &pod.container, true, &sender, line).await {
                    let text = told(&error, &format!("read the log of pod {}", pod.name)).to_string();
                    let _ = sender.send(Ok(Update::Blind(text))).await;
                }
                let _ = sender.send(Ok(Update::LogEnded(pod))).await;
            });
        }
        Flow::Continue(())
    }

    fn knows(&self, pod: &BuildPod) -> bool {
        let status = self.build.as_ref().and_then(|build| build.status.as_ref());
        match &pod.work {
            Work::Plan => true,
            Work::Stage(_) if self.is_over() => true,
            Work::Stage(id) => status.is_some_and(|status| status.stages.iter().any(|stage| stage.id == *id)),
        }
    }

    /// Whether the run that is wanted has ended.
    fn is_over(&self) -> bool {
        let Some(build) = &self.build else { return false };
        let Some(status) = &build.status else { return false };
        status.observed_generation == build.metadata.generation
            && status.phase.is_some_and(slipway_crd::Phase::is_final)
    }

    /// Pods that the watch has not told of yet have a log too; and what was printed last is still on its way.
    async fn read_the_rest(mut self) {
        let deadline = Instant::now() + LAST_LOGS;
        if self.wanted.logs {
            let params = ListParams::default().labels(&selector(&self.name));
            let pods = self.cluster.pods();
            if let Ok(Ok(list)) = timeout_at(deadline, pods.list(&params)).await {
                for pod in &list.items {
                    if self.pod_changed(pod).await.is_break() {
                        return;
                    }
                }
            }
        }
        while let Ok(Some(_)) = timeout_at(deadline, self.logs.join_next()).await {}
    }
}

fn run(build: &ImageBuild) -> Option<&Run> {
    build.status.as_ref()?.run.as_ref()
}

/// The server's no: to ask again would not help.
fn is_refusal(error: &watcher::Error) -> bool {
    let (watcher::Error::InitialListFailed(inner)
    | watcher::Error::WatchStartFailed(inner)
    | watcher::Error::WatchFailed(inner)) = error
    else {
        return false;
    };
    matches!(inner, kube::Error::Api(status) if [401, 403, 404].contains(&status.code))
}
