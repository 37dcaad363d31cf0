//! What a decision knows beside the ImageBuild and its pods. Plain data.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::claims::Caches;
use slipway_oci::{Digest, Platform, Reference};
use slipway_plan::protocol::Schedule;

use crate::{
    peers::Others,
    placement::{Cluster, Node},
};

/// Something that went wrong outside, told in a stable word.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// The word; one of [`slipway_crd::reasons`].
    pub reason: &'static str,
    /// What happened and what to do.
    pub message: String,
    /// The same may succeed later without anybody changing anything.
    pub transient: bool,
    /// Not before this time is over: a registry asked for it.
    pub retry_after: Option<Duration>,
}

/// The answer to a question that needs input or output.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Lookup<T> {
    /// Nobody has asked yet.
    #[default]
    Untried,
    /// The answer.
    Done(T),
    /// Asked in vain.
    Failed(Fault),
}

/// What a decision knows beside the ImageBuild and its pods.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Something that the spec refers to is not there. Looked at before the first pod only.
    pub missing: Option<Fault>,
    /// The plan's schedule.
    pub schedule: Lookup<Arc<Schedule>>,
    /// The image at its tags.
    pub published: Lookup<Published>,
    /// How often in this run the registry has failed the operator one after the other.
    pub registry_attempts: u32,
    /// When it did so last.
    pub registry_failed_at: Option<jiff::Timestamp>,
    /// Pods that the API server has just refused.
    pub refused: Vec<Refusal>,
    /// The other builds, as far as this one depends on them.
    pub peers: Others,
    /// The cache mounts of the namespace; looked at when a stage of the schedule has some.
    pub caches: Caches,
    /// The nodes of the cluster; `None` where the operator may not see them.
    pub nodes: Option<Arc<Vec<Node>>>,
    /// What the nodes are being probed with; `None` where nobody probes them.
    pub probe: Option<Arc<str>>,
}

impl Facts {
    /// What is known of the nodes.
    pub fn cluster(&self) -> Cluster<'_> {
        Cluster {
            nodes: self.nodes.as_deref().map(Vec::as_slice),
            probe: self.probe.as_deref(),
        }
    }
}

/// A pod that the API server refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// `QuotaExceeded` or `PodRefused`.
    pub reason: &'static str,
    /// The API server's words.
    pub message: String,
    /// It may be accepted later (quota): wait.
    pub wait: bool,
}

/// An image to be named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// The names.
    pub images: Vec<Reference>,
    /// The manifest of each platform, in the order of the request; each is in every repository already.
    pub results: Vec<(Platform, Digest)>,
    /// An index is written even over one platform: others were asked for and have failed.
    pub several: bool,
    /// Annotations of the index.
    pub annotations: BTreeMap<String, String>,
}

/// An image that has been named and verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The digest at every name.
    pub digest: Digest,
    /// Bytes of layers and config of each result, in the order of the publication.
    pub sizes: Vec<u64>,
}

/// Values of the arguments, read from ConfigMaps where the spec says so.
pub type Args = BTreeMap<String, String>;
