//! The nodes of the cluster, followed by their labels alone: what they run is all that placing needs.

use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1;
use kube::{
    Api, Client,
    core::PartialObjectMeta,
    runtime::{WatchStreamExt as _, reflector, watcher},
};

use crate::placement::Node;

/// A node without spec and status.
type Labels = PartialObjectMeta<v1::Node>;

/// The nodes that the watch has shown.
#[derive(Debug, Clone)]
pub struct Nodes(Option<reflector::Store<Labels>>);

impl Nodes {
    /// Follows the nodes; the stream has to be driven. Its errors (no right to see nodes) are logged and tried again.
    pub fn watch(client: &Client) -> (Self, impl Stream<Item = ()> + Send + 'static) {
        let (store, writer) = reflector::store();
        let changes = watcher(Api::<Labels>::all(client.clone()), watcher::Config::default())
            .default_backoff()
            .modify(|node| {
                node.metadata.managed_fields = None;
                node.metadata.annotations = None;
            })
            .reflect(writer)
            .touched_objects()
            .map(|change| {
                if let Err(error) = change {
                    tracing::debug!(%error, "the nodes cannot be followed; trying again");
                }
            });
        (Self(Some(store)), changes)
    }

    /// For an operator of one namespace, which may not see nodes.
    pub const fn unseen() -> Self {
        Self(None)
    }

    /// The nodes; `None` while or where they cannot be seen.
    pub fn known(&self) -> Option<Arc<Vec<Node>>> {
        let labels = |node: Arc<Labels>| {
            let name = node.metadata.name.clone()?;
            Node::of(&name, node.metadata.labels.as_ref()?)
        };
        let nodes: Vec<Node> = self.0.as_ref()?.state().into_iter().filter_map(labels).collect();
        // A cluster has a node, if only the one that this runs on: an empty list is one that has not come yet.
        (!nodes.is_empty()).then(|| Arc::new(nodes))
    }
}
