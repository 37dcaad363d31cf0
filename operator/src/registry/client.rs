//! The real registry, over `slipway-registry`.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use sha2::{Digest as _, Sha256};
use slipway_crd::reasons;
use slipway_oci::{Digest, Reference};
use slipway_plan::protocol::RegistryHost;
use slipway_registry::{
    Class, ClientCertificate, Config, Credentials, Error, HostConfig, ManifestName, Mirror, Registries,
    RetryPolicy,
    kept::{self, Policy, Row},
};

use super::{Connect, Identity, Manifest, Registry};
use crate::facts::Fault;

type Certificates = std::collections::BTreeMap<String, (Vec<u8>, zeroize::Zeroizing<Vec<u8>>)>;

/// Connections and tokens of this many sets of credentials are kept.
const KEPT: usize = 64;

/// Connects with the settings of the chart. Connections of the same credentials are kept, with their tokens.
pub struct Client {
    hosts: Vec<RegistryHost>,
    kept: Mutex<HashMap<[u8; 32], Arc<Connection>>>,
}

impl Client {
    /// With settings for these hosts.
    pub fn new(hosts: Vec<RegistryHost>) -> Self {
        Self {
            hosts,
            kept: Mutex::default(),
        }
    }

    fn config(&self, credentials: Credentials, certificates: &Certificates) -> Config {
        let hosts = self
            .hosts
            .iter()
            .map(|host| {
                let pair = certificates.get(&host.host);
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                (
                    host.host.clone(),
                    HostConfig {
                        mirrors: host.mirrors.iter().map(Mirror::new).collect(),
                        insecure: host.insecure,
                        skip_tls_verify: host.skip_tls_verify,
                        ca: host.ca.clone(),
                        client_certificate: pair
                            .map(|(certificate, key)| ClientCertificate::new(text(certificate), text(key))),
                    },
                )
            })
            .collect();
        Config {
            hosts,
            credentials,
            // Short: while the operator waits here the status stands still. It tries again by itself, and tells that.
            retry: RetryPolicy {
                attempts: 3,
                connect_attempts: 2,
                max_delay: Duration::from_secs(2),
                max_total_wait: Duration::from_secs(10),
                connect_timeout: Duration::from_secs(5),
                stall_timeout: Duration::from_secs(30),
                ..RetryPolicy::default()
            },
            user_agent: Some(concat!("slipway-operator/", env!("CARGO_PKG_VERSION")).to_owned()),
            ..Config::default()
        }
    }
}

impl Connect for Client {
    fn connect(&self, identity: Identity) -> Result<Arc<dyn Registry>, Fault> {
        let Identity {
            documents,
            certificates,
        } = identity;
        let mut hash = Sha256::new();
        let mut add = |part: &[u8]| {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        };
        for (name, document) in &documents {
            add(name.as_bytes());
            add(document);
        }
        for (host, (certificate, key)) in &certificates {
            add(host.as_bytes());
            add(certificate);
            add(key);
        }
        let key: [u8; 32] = hash.finalize().into();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = kept.get(&key) {
            return Ok(Arc::<Connection>::clone(connection));
        }
        let credentials = Credentials::from_documents(documents).map_err(|error| Fault {
            reason: reasons::CREDENTIALS_INVALID,
            message: error.to_string(),
            transient: false,
            retry_after: None,
        })?;
        let connection = Arc::new(Connection(
            Registries::new(self.config(credentials, &certificates)).map_err(|error| fault(&error))?,
        ));
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(key, Arc::clone(&connection));
        Ok(connection)
    }
}

struct Connection(Registries);

impl Registry for Connection {
    fn manifest<'a>(&'a self, name: &'a Reference) -> BoxFuture<'a, Result<Manifest, Fault>> {
        Box::pin(async move {
            let found = self
                .0
                .repository(name)
                .get_manifest(name)
                .await
                .map_err(|error| fault(&error))?;
            Ok(Manifest {
                bytes: found.bytes.to_vec(),
                media_type: found.media_type,
            })
        })
    }

    fn put_manifest<'a>(
        &'a self,
        name: &'a Reference,
        manifest: &'a Manifest,
    ) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(async move {
            let tag = ManifestName::from(name);
            self.0
                .repository(name)
                .put_manifest(tag, &manifest.media_type, manifest.bytes.clone())
                .await
                .map(|_| ())
                .map_err(|error| fault(&error))
        })
    }

    fn blob<'a>(
        &'a self,
        name: &'a Reference,
        digest: &'a Digest,
        limit: u64,
    ) -> BoxFuture<'a, Result<Vec<u8>, Fault>> {
        Box::pin(async move {
            let bytes = self
                .0
                .repository(name)
                .read_blob(digest, limit)
                .await
                .map_err(|error| fault(&error))?;
            Ok(bytes.to_vec())
        })
    }

    fn prune<'a>(
        &'a self,
        name: &'a Reference,
        policy: &'a Policy,
    ) -> BoxFuture<'a, Result<Vec<Row>, Fault>> {
        Box::pin(async move {
            kept::prune(&self.0.repository(name), policy)
                .await
                .map_err(|error| fault(&error))
        })
    }
}

/// An error in the words of the ImageBuild's status.
fn fault(error: &Error) -> Fault {
    let class = error.class();
    let reason = match class {
        Class::Unreachable | Class::Tls => reasons::REGISTRY_UNREACHABLE,
        Class::Unauthorized | Class::Denied => reasons::REGISTRY_UNAUTHORIZED,
        Class::DigestMismatch => reasons::DIGEST_MISMATCH,
        Class::Invalid => reasons::CREDENTIALS_INVALID,
        Class::RateLimited => reasons::REGISTRY_RATE_LIMITED,
        _ => reasons::REGISTRY_ERROR,
    };
    Fault {
        reason,
        message: error.to_string(),
        transient: class.is_transient(),
        retry_after: error.retry_after(),
    }
}
