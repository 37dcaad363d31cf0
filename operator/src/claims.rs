//! Cache mounts on PersistentVolumeClaims: which claim a stage uses, who else uses it, and what a claim should be.
//!
//! ```text
//! pods of the namespace ──uses──▶ ┐
//! builds that wait      ──Desk──▶ ├─ facts.caches ──decide──▶ grants, or a wait ──apply──▶ claim, pod with its volume
//! storage classes       ──Desk──▶ ┘
//! ```
//! Who uses a claim is read from the labels of pods that live, so nothing has to be given back: a pod that ends, however
//! it ends, frees its claims. Nobody holds a claim while waiting for another: a stage gets all of its claims or none.

mod desk;
mod object;
pub mod prune;

use jiff::Timestamp;
use slipway_crd::{ImageBuild, names};
use slipway_oci::Platform;
use slipway_plan::Sharing;

use crate::naming;

pub use desk::Desk;
pub use object::{Next, Wanted, next, probe};
pub(crate) use object::{is_for_one_node, not_grown};

/// Which claim: of one namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Which {
    /// The id of the cache mount.
    pub id: String,
    /// What its content is for.
    pub architecture: String,
    /// 0 for the one of `shared` and `locked` mounts, from 1 for those of `private` ones.
    pub number: u32,
}

impl Which {
    /// The claim of a mount of a stage for `platform`.
    pub fn new(id: &str, platform: &Platform, number: u32) -> Self {
        let architecture = match &platform.variant {
            Some(variant) => format!("{}-{variant}", platform.architecture),
            None => platform.architecture.clone(),
        };
        Self {
            id: id.to_owned(),
            architecture,
            number,
        }
    }

    /// The claim's name.
    pub fn name(&self) -> String {
        naming::claim(&self.id, &self.architecture, self.number)
    }
}

/// A claim that a stage gets for one of its cache mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The mount's place in `ScheduledStage::caches`.
    pub place: usize,
    /// The claim.
    pub which: Which,
    /// How the mount is shared.
    pub sharing: Sharing,
    /// Other pods use it now: on a volume for one node, this one must go where they are.
    pub joins: bool,
}

/// A pod that uses a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// The claim's name.
    pub claim: String,
    /// How.
    pub sharing: Sharing,
    /// The build's label.
    pub build: String,
    /// The pod's name.
    pub pod: String,
}

/// A build with a stage that waits for claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiter {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Orders the waiting ones: when the build was created, and its uid among those of the same second.
    pub since: (Timestamp, String),
    /// Names of the claims that it wants for itself alone; those that wait to share one are in nobody's way.
    pub locked: Vec<String>,
}

impl Waiter {
    /// The build, as one that waits.
    pub fn of(build: &ImageBuild, locked: Vec<String>) -> Self {
        Self {
            namespace: build.metadata.namespace.clone().unwrap_or_default(),
            name: build.metadata.name.clone().unwrap_or_default(),
            since: age(build),
            locked,
        }
    }
}

/// Orders builds by their age.
pub fn age(build: &ImageBuild) -> (Timestamp, String) {
    let created = build
        .metadata
        .creation_timestamp
        .as_ref()
        .map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    (created, build.metadata.uid.clone().unwrap_or_default())
}

/// What a decision knows of the namespace's cache mounts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caches {
    /// Pods that use claims.
    pub uses: Vec<Use>,
    /// Other builds that wait for claims.
    pub waiters: Vec<Waiter>,
    /// There is no storage class to make claims of.
    pub no_class: bool,
}

/// The claims that a pod's labels name.
pub fn of_labels(
    labels: &std::collections::BTreeMap<String, String>,
) -> impl Iterator<Item = (String, Sharing)> + '_ {
    labels.iter().filter_map(|(key, value)| {
        let claim = key.strip_prefix(names::LABEL_CLAIM_PREFIX)?;
        Some((claim.to_owned(), value.parse().ok()?))
    })
}

/// The label by which a pod tells that it uses a claim.
pub fn label(claim: &str) -> String {
    format!("{}{claim}", names::LABEL_CLAIM_PREFIX)
}
