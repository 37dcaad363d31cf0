//! Settings: which hosts are reached how, and how patient the client is. Plain data, no IO.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use crate::credentials::Credentials;

/// Everything a [`crate::Registries`] is made of. `Default` is: https everywhere, the system's certificates, no mirrors,
/// no credentials.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Settings by registry host, with its port where references have one: `registry.example.com:5000`, `docker.io`.
    pub hosts: BTreeMap<String, HostConfig>,
    /// Who we are, by host and repository path.
    pub credentials: Credentials,
    /// How often and how long failed requests are repeated.
    pub retry: RetryPolicy,
    /// Upload tuning.
    pub upload: UploadConfig,
    /// Sent as `User-Agent`; `slipway/<version>` when `None`.
    pub user_agent: Option<String>,
}

/// How one registry host is reached.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HostConfig {
    /// Asked in this order before the host itself, by handles from [`crate::Registries::mirrored`] only: a mirror serves
    /// bases, it is never written to nor asked about what was just written.
    pub mirrors: Vec<Mirror>,
    /// Plain HTTP. Never assumed, not even for loopback: a typo must not send a password in the clear.
    pub insecure: bool,
    /// HTTPS, but any certificate will do.
    pub skip_tls_verify: bool,
    /// PEM certificates trusted for this host in addition to the system's.
    pub ca: Option<String>,
    /// PEM certificate chain and private key shown to this host.
    #[serde(skip)]
    pub client_certificate: Option<ClientCertificate>,
}

/// A pull-through cache or copy of a registry.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mirror {
    /// `host[:port]`, or with a path that is put before the repository: `cache.example.com/docker-hub`. Its own
    /// settings (insecure, CA, …) are those of its host in [`Config::hosts`].
    pub host: String,
    /// Whether its tags are believed; `false` asks the mirror for digests only.
    #[serde(default = "yes")]
    pub tags: bool,
}

fn yes() -> bool {
    true
}

impl Mirror {
    /// A mirror at `host[:port][/path]` whose tags are believed.
    pub fn new(host: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            tags: true,
        }
    }
}

/// A client certificate with its key, both PEM.
#[derive(Clone)]
pub struct ClientCertificate {
    pub(crate) certificate: String,
    pub(crate) key: crate::secret::Secret,
}

impl ClientCertificate {
    /// `certificate`: PEM chain, own certificate first. `key`: PEM private key (PKCS#8, PKCS#1 or SEC1).
    pub fn new(certificate: impl Into<String>, key: impl Into<String>) -> Self {
        Self {
            certificate: certificate.into(),
            key: crate::secret::Secret::new(key.into()),
        }
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientCertificate([redacted])")
    }
}

/// Repeating of failed requests. What may not be repeated safely (a chunk of an upload) is resumed instead.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    /// Tries in all, for answers 408, 429 and 5xx and for cut connections.
    pub attempts: u32,
    /// Tries in all when nobody listens or the name does not resolve: those seldom heal within seconds.
    pub connect_attempts: u32,
    /// The wait before the second try; doubles each time, with jitter.
    pub base_delay: Duration,
    /// The longest wait between two tries that we choose ourselves.
    pub max_delay: Duration,
    /// All waits of one request together, `Retry-After` included. A registry that asks for more gets its error passed on
    /// at once, with [`crate::Error::retry_after`] set.
    pub max_total_wait: Duration,
    /// To connect, TLS included.
    pub connect_timeout: Duration,
    /// Without any byte moving in either direction.
    pub stall_timeout: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 6,
            connect_attempts: 3,
            base_delay: Duration::from_millis(250),
            max_delay: Duration::from_secs(10),
            max_total_wait: Duration::from_mins(2),
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_mins(2),
        }
    }
}

/// Upload tuning.
#[derive(Debug, Clone)]
pub struct UploadConfig {
    /// Bytes of one PATCH; held in memory until the registry has acknowledged them. Grows to what the registry asks for
    /// with `OCI-Chunk-Min-Length`.
    pub chunk_size: usize,
    /// Where a layer of unknown digest is kept when the registry refuses chunks; the system's temporary directory when
    /// `None`.
    pub spool_dir: Option<PathBuf>,
}

impl Default for UploadConfig {
    fn default() -> Self {
        Self {
            chunk_size: 8 << 20,
            spool_dir: None,
        }
    }
}
