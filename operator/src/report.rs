//! Fifth step: tells. Writes the status where it changed, events for each turn, and metrics.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::events::{Event, EventType, Recorder},
};
use slipway_crd::{ImageBuild, ImageBuildStatus, names};
use tokio::sync::mpsc;

use crate::{decide::Turn, memory::Memory, metrics::Metrics, peers::Peers};

/// An event's note may have 1 kB.
const NOTE_LIMIT: usize = 1000;
/// So many events wait for the API server at the most.
const QUEUE: usize = 1024;

/// Where things are told.
#[derive(Clone, Copy)]
pub struct Reporter<'a> {
    /// The API.
    pub client: &'a Client,
    /// Numbers.
    pub metrics: &'a Metrics,
    /// Remembers what was written.
    pub memory: &'a Memory,
    /// Who waits for this build is woken by what was written.
    pub peers: &'a Peers,
}

impl Reporter<'_> {
    /// Writes the status if it is another than the build has; gives the build as it is then.
    pub async fn status(
        &self,
        build: &ImageBuild,
        status: &ImageBuildStatus,
    ) -> Result<Option<ImageBuild>, kube::Error> {
        let uid = build.uid().unwrap_or_default();
        self.metrics.count(&uid, status);
        if build.status.as_ref() == Some(status) {
            return Ok(None);
        }
        let namespace = build.namespace().unwrap_or_default();
        let api: Api<ImageBuild> = Api::namespaced(self.client.clone(), &namespace);
        // Applied whole: what is not in it any more goes.
        let patch = serde_json::json!({
            "apiVersion": ImageBuild::api_version(&()),
            "kind": ImageBuild::kind(&()),
            // A build of the same name that was made meanwhile must not get this one's status.
            "metadata": {"uid": uid},
            "status": status,
        });
        let params = PatchParams::apply(names::FIELD_MANAGER).force();
        let written = api
            .patch_status(&build.name_any(), &params, &Patch::Apply(&patch))
            .await?;
        self.metrics.wrote(&uid, build.status.as_ref(), status);
        self.memory.wrote(&uid, written.clone());
        self.peers.wrote(&written);
        Ok(Some(written))
    }
}

/// Turns on their way to become events. One writer keeps their order, and no reconcile waits for it.
pub struct Told(mpsc::Sender<(ObjectReference, Turn)>);

impl Told {
    /// Starts the writer. One recorder for the life of the program, or equal events would not be put together.
    pub fn start(recorder: Recorder, metrics: Arc<Metrics>) -> Self {
        let (sender, mut receiver) = mpsc::channel::<(ObjectReference, Turn)>(QUEUE);
        tokio::spawn(async move {
            while let Some((regarding, turn)) = receiver.recv().await {
                if let Err(error) = recorder.publish(&event(&regarding, turn), &regarding).await {
                    metrics.error("api");
                    tracing::warn!(%error, "failed to write an event");
                }
            }
        });
        Self(sender)
    }

    /// Tells the turns of a build, in their order. An event that cannot be written is a line in the log.
    pub fn turns(&self, build: &ImageBuild, turns: Vec<Turn>) {
        let regarding = build.object_ref(&());
        for turn in turns {
            tracing::info!(reason = turn.reason, pod = turn.pod, "{}", turn.note);
            if self.0.try_send((regarding.clone(), turn)).is_err() {
                tracing::warn!("an event is dropped: the API server does not keep up");
            }
        }
    }
}

fn event(regarding: &ObjectReference, turn: Turn) -> Event {
    let mut note = turn.note;
    note.truncate(note.floor_char_boundary(NOTE_LIMIT));
    Event {
        type_: if turn.warning {
            EventType::Warning
        } else {
            EventType::Normal
        },
        action: turn.reason.clone(),
        reason: turn.reason,
        note: Some(note),
        // Tells events of different stages apart: the recorder puts equal reasons together.
        secondary: turn.pod.map(|pod| ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(pod),
            namespace: regarding.namespace.clone(),
            ..ObjectReference::default()
        }),
    }
}
