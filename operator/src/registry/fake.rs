//! A registry in memory, which can be told to misbehave.

use std::{collections::BTreeMap, sync::Mutex};

use futures::future::BoxFuture;
use slipway_crd::reasons;
use slipway_oci::{Digest, Reference};
use slipway_registry::kept::{Policy, Row};

use super::{Manifest, Registry};
use crate::facts::Fault;

/// Manifests by name, blobs by digest, and what was asked in which order.
#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) manifests: Mutex<BTreeMap<String, Manifest>>,
    pub(crate) blobs: Mutex<BTreeMap<Digest, Vec<u8>>>,
    pub(crate) asked: Mutex<Vec<String>>,
    /// Answers to a write of this name with this fault.
    pub(crate) refuses: Option<(String, Fault)>,
    /// Keeps something else than it is given.
    pub(crate) corrupts: bool,
}

impl Fake {
    /// Holds a manifest by its digest; gives the digest.
    pub(crate) fn hold(&self, repository: &str, bytes: &str) -> Digest {
        let digest = Digest::of(bytes.as_bytes());
        let name = repository.parse::<Reference>().unwrap().with_digest(&digest);
        let manifest = Manifest {
            bytes: bytes.as_bytes().to_vec(),
            media_type: slipway_oci::media_type::OCI_MANIFEST.to_owned(),
        };
        self.manifests.lock().unwrap().insert(key(&name), manifest);
        digest
    }

    pub(crate) fn hold_blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        self.blobs.lock().unwrap().insert(digest.clone(), bytes.to_vec());
        digest
    }

    pub(crate) fn tags(&self) -> Vec<String> {
        self.manifests
            .lock()
            .unwrap()
            .keys()
            .filter(|name| !name.contains('@'))
            .cloned()
            .collect()
    }

    pub(crate) fn get(&self, name: &str) -> Manifest {
        self.manifests.lock().unwrap()[name].clone()
    }

    fn note(&self, what: &str, name: &Reference) {
        self.asked.lock().unwrap().push(format!("{what} {name}"));
    }
}

/// A digest names the same manifest whatever tag stands beside it.
fn key(name: &Reference) -> String {
    match name.digest() {
        Some(digest) => format!("{}@{digest}", name.without_tag_and_digest()),
        None => name.to_string(),
    }
}

fn absent(name: &impl std::fmt::Display) -> Fault {
    Fault {
        reason: reasons::REGISTRY_ERROR,
        message: format!("{name} is not there"),
        transient: false,
        retry_after: None,
    }
}

impl Registry for Fake {
    fn manifest<'a>(&'a self, name: &'a Reference) -> BoxFuture<'a, Result<Manifest, Fault>> {
        self.note("get", name);
        let found = self.manifests.lock().unwrap().get(&key(name)).cloned();
        Box::pin(async move { found.ok_or_else(|| absent(name)) })
    }

    fn put_manifest<'a>(
        &'a self,
        name: &'a Reference,
        manifest: &'a Manifest,
    ) -> BoxFuture<'a, Result<(), Fault>> {
        self.note("put", name);
        let refused = self.refuses.clone().filter(|(of, _)| *of == name.to_string());
        if refused.is_none() {
            let mut kept = manifest.clone();
            if self.corrupts {
                kept.bytes.push(b' ');
            }
            self.manifests.lock().unwrap().insert(key(name), kept);
        }
        Box::pin(async move { refused.map_or(Ok(()), |(_, fault)| Err(fault)) })
    }

    fn blob<'a>(
        &'a self,
        _: &'a Reference,
        digest: &'a Digest,
        _: u64,
    ) -> BoxFuture<'a, Result<Vec<u8>, Fault>> {
        let found = self.blobs.lock().unwrap().get(digest).cloned();
        Box::pin(async move { found.ok_or_else(|| absent(digest)) })
    }

    fn prune<'a>(&'a self, name: &'a Reference, _: &'a Policy) -> BoxFuture<'a, Result<Vec<Row>, Fault>> {
        self.note("prune", name);
        Box::pin(async { Ok(Vec::new()) })
    }
}
