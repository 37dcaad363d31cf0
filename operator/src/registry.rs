//! The little of a registry that the operator needs, as a trait: the rest of this room can be tried without one.

mod client;
#[cfg(test)]
pub(crate) mod fake;

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use slipway_oci::{Digest, Reference};
use slipway_registry::kept::{Policy, Row};

use zeroize::Zeroizing;

use crate::facts::Fault;

pub use client::Client;

/// Docker config documents of a build, each with a name for messages.
pub type Documents = Vec<(String, Vec<u8>)>;

/// Who a build is to its registries. Shows nothing of it in messages.
#[derive(Default)]
pub struct Identity {
    /// Its docker config documents.
    pub documents: Documents,
    /// Certificate and key, PEM, by host.
    pub certificates: BTreeMap<String, (Vec<u8>, Zeroizing<Vec<u8>>)>,
}

/// A manifest as the registry gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its media type.
    pub media_type: String,
}

impl Manifest {
    /// The digest of its bytes.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }
}

/// A registry, or many, seen with one build's credentials.
pub trait Registry: Send + Sync {
    /// The manifest that `name` names by its digest, else by its tag.
    fn manifest<'a>(&'a self, name: &'a Reference) -> BoxFuture<'a, Result<Manifest, Fault>>;

    /// Writes a manifest under the tag of `name`.
    fn put_manifest<'a>(
        &'a self,
        name: &'a Reference,
        manifest: &'a Manifest,
    ) -> BoxFuture<'a, Result<(), Fault>>;

    /// A blob of the repository of `name`, of `limit` bytes at the most.
    fn blob<'a>(
        &'a self,
        name: &'a Reference,
        digest: &'a Digest,
        limit: u64,
    ) -> BoxFuture<'a, Result<Vec<u8>, Fault>>;

    /// Removes from the repository of `name` what Slipway keeps there and nobody has used for long. Gives what it was.
    fn prune<'a>(&'a self, name: &'a Reference, policy: &'a Policy)
    -> BoxFuture<'a, Result<Vec<Row>, Fault>>;
}

/// Makes a [`Registry`] from credentials.
pub trait Connect: Send + Sync {
    /// As this build; an error if a document or certificate of it does not parse.
    fn connect(&self, identity: Identity) -> Result<std::sync::Arc<dyn Registry>, Fault>;
}
