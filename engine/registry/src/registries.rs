//! The client as a whole: settings, connections and tokens that all repositories share.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use slipway_oci::Reference;

use crate::{
    auth::Memory,
    config::Config,
    credentials::DOCKER_HUB,
    error::Result,
    repository::Repository,
    transport::{Endpoint, Wire},
};

/// All registries, as one set of credentials sees them. Clones share connections and tokens; make a new one when a
/// Secret has changed.
#[derive(Clone)]
pub struct Registries {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    wire: Wire,
    memory: Memory,
    endpoints: Mutex<HashMap<String, Arc<Endpoint>>>,
}

impl Registries {
    /// A client with these settings. Contacts nobody yet.
    ///
    /// # Errors
    /// [`crate::Class::Invalid`] or [`crate::Class::Tls`] when a host's settings cannot be used (a broken CA or key).
    pub fn new(mut config: Config) -> Result<Self> {
        config.hosts = config
            .hosts
            .into_iter()
            .map(|(name, host)| (canonical(&name).to_owned(), host))
            .collect();
        let registries = Self {
            inner: Arc::new(Inner {
                wire: Wire {
                    retry: config.retry.clone(),
                },
                config,
                memory: Memory::default(),
                endpoints: Mutex::default(),
            }),
        };
        // Wrong settings are found when they are given, not in the middle of a build.
        for name in registries.inner.config.hosts.keys() {
            registries.endpoint(name)?;
        }
        Ok(registries)
    }

    /// The repository of a reference, read and written at the registry itself.
    pub fn repository(&self, reference: &Reference) -> Repository {
        Repository::new(self.clone(), reference.registry(), reference.repository(), false)
    }

    /// The repository of a reference, read through the configured mirrors first. For bases.
    pub fn mirrored(&self, reference: &Reference) -> Repository {
        Repository::new(self.clone(), reference.registry(), reference.repository(), true)
    }

    /// The host's clients, made on first use.
    pub(crate) fn endpoint(&self, name: &str) -> Result<Arc<Endpoint>> {
        let name = canonical(name);
        let mut endpoints = self
            .inner
            .endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(endpoint) = endpoints.get(name) {
            return Ok(endpoint.clone());
        }
        let endpoint =
            Arc::new(Endpoint::new(name, &self.inner.config).map_err(|error| error.at(name, None))?);
        endpoints.insert(name.to_owned(), endpoint.clone());
        Ok(endpoint)
    }

    pub(crate) fn config(&self) -> &Config {
        &self.inner.config
    }

    pub(crate) fn wire(&self) -> &Wire {
        &self.inner.wire
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.inner.memory
    }
}

impl fmt::Debug for Registries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registries")
            .field("config", &self.inner.config)
            .finish_non_exhaustive()
    }
}

fn canonical(name: &str) -> &str {
    match name {
        "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB,
        name => name,
    }
}
