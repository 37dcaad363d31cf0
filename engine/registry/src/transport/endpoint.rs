//! A host that speaks the distribution protocol, and the HTTP clients set up for it.

use std::sync::atomic::AtomicBool;

use reqwest::{Certificate, Identity, redirect::Policy};
use url::Url;

use crate::{
    config::{Config, HostConfig},
    credentials::DOCKER_HUB,
    error::{Class, Error, Result},
    transport::{bad_location, shown},
};

/// Where Docker Hub's registry really is.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";

/// One host. Shared by all repositories on it, so its connections are reused.
pub(crate) struct Endpoint {
    /// As in references: `docker.io`, `registry.example.com:5000`.
    pub(crate) name: String,
    /// `https://host[:port]/`.
    pub(crate) base: Url,
    /// Plain HTTP or unverified TLS were asked for.
    pub(crate) insecure: bool,
    own: reqwest::Client,
    /// For other hosts that this one points to: the same trust, but no client certificate.
    foreign: reqwest::Client,
    /// It has answered a PATCH with "not supported".
    pub(crate) refuses_chunks: AtomicBool,
}

impl Endpoint {
    pub(crate) fn new(name: &str, config: &Config) -> Result<Self> {
        let settings = config.hosts.get(name).cloned().unwrap_or_default();
        let scheme = if settings.insecure { "http" } else { "https" };
        let host = if name == DOCKER_HUB { DOCKER_HUB_HOST } else { name };
        let base = Url::parse(&format!("{scheme}://{host}/")).map_err(|error| {
            Error::new(Class::Invalid, format!("\"{name}\" is no registry host")).because(error)
        })?;
        Ok(Self {
            name: name.to_owned(),
            base,
            insecure: settings.insecure,
            own: client(name, config, &settings, true)?,
            foreign: client(name, config, &settings, false)?,
            refuses_chunks: AtomicBool::new(false),
        })
    }

    /// Whether the URL is on this very host: only then may it see credentials.
    pub(crate) fn is_home(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    pub(crate) fn client(&self, url: &Url) -> &reqwest::Client {
        if self.is_home(url) {
            &self.own
        } else {
            &self.foreign
        }
    }

    /// Resolves a `Location` seen at `from`. Refuses to leave TLS for plain HTTP.
    pub(crate) fn follow(from: &Url, location: &str) -> Result<Url> {
        let mut url = from.join(location).map_err(|_| bad_location())?;
        if from.scheme() == "https" && url.scheme() == "http" {
            // A registry behind a TLS proxy that does not know its own outer name: it means itself.
            let same_host = url.host_str() == from.host_str()
                && (url.port_or_known_default() == Some(80) || url.port() == from.port());
            if !same_host {
                return Err(Error::new(
                    Class::Tls,
                    format!("the registry points from https to plain HTTP at {}", shown(&url)),
                )
                .advise("its external URL is set wrongly, or somebody is in between"));
            }
            if url.set_scheme("https").is_err() || url.set_port(from.port()).is_err() {
                return Err(bad_location());
            }
        }
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad_location());
        }
        Ok(url)
    }
}

fn client(name: &str, config: &Config, settings: &HostConfig, own: bool) -> Result<reqwest::Client> {
    // reqwest is built without a provider of its own; if the program has installed none yet, ring it is.
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let built = builder(name, config, settings, own)?.build();
    if built.is_err() && settings.insecure && settings.ca.is_none() {
        // A registry by plain HTTP must work from an image without CA certificates, with which the system's verifier
        // refuses to start.
        let bare = builder(name, config, settings, own)?.tls_certs_only([]).build();
        return bare.map_err(|error| unusable("the settings", name, error));
    }
    built.map_err(|error| {
        Error::new(Class::Tls, format!("TLS for {name} cannot be set up"))
            .because(error.without_url())
            .advise(
                "does this system have CA certificates (package ca-certificates)? or give `ca` for this host",
            )
    })
}

fn builder(name: &str, config: &Config, settings: &HostConfig, own: bool) -> Result<reqwest::ClientBuilder> {
    let agent = config
        .user_agent
        .as_deref()
        .unwrap_or(concat!("slipway/", env!("CARGO_PKG_VERSION")));
    let mut builder = reqwest::Client::builder()
        .user_agent(agent)
        // By hand, so that credentials and client certificates stay at home.
        .redirect(Policy::none())
        // One connection per transfer: a single HTTP/2 connection shares one flow-control window among all layers.
        .http1_only()
        .connect_timeout(config.retry.connect_timeout)
        .pool_idle_timeout(std::time::Duration::from_secs(30))
        .tcp_nodelay(true)
        .referer(false);
    if let Some(pem) = &settings.ca {
        let roots =
            Certificate::from_pem_bundle(pem.as_bytes()).map_err(|error| unusable("the CA", name, error))?;
        if roots.is_empty() {
            return Err(Error::new(
                Class::Invalid,
                format!("the CA for {name} has no PEM certificate in it"),
            ));
        }
        builder = builder.tls_certs_merge(roots);
    }
    if own && settings.skip_tls_verify {
        builder = builder.tls_danger_accept_invalid_certs(true);
    }
    if let Some(pair) = settings.client_certificate.as_ref().filter(|_| own) {
        let pem = zeroize::Zeroizing::new(format!("{}\n{}", pair.certificate, pair.key.expose()));
        let identity = Identity::from_pem(pem.as_bytes())
            .map_err(|error| unusable("the client certificate", name, error))?;
        builder = builder.identity(identity);
    }
    Ok(builder)
}

fn unusable(what: &str, name: &str, error: reqwest::Error) -> Error {
    Error::new(Class::Invalid, format!("{what} for {name} cannot be used")).because(error.without_url())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str, host: HostConfig) -> Config {
        Config {
            hosts: [(name.to_owned(), host)].into(),
            ..Config::default()
        }
    }

    #[test]
    fn plain_http_is_never_assumed_not_even_for_loopback() {
        for (name, insecure, base) in [
            ("docker.io", false, "https://registry-1.docker.io/"),
            ("localhost:5000", false, "https://localhost:5000/"),
            ("127.0.0.1:5000", false, "https://127.0.0.1:5000/"),
            ("127.0.0.1:5000", true, "http://127.0.0.1:5000/"),
            ("[::1]:5000", true, "http://[::1]:5000/"),
        ] {
            let endpoint = Endpoint::new(
                name,
                &config(
                    name,
                    HostConfig {
                        insecure,
                        ..HostConfig::default()
                    },
                ),
            )
            .unwrap();
            assert_eq!(endpoint.base.as_str(), base);
        }
    }

    #[test]
    fn locations_are_resolved_without_leaving_tls() {
        let endpoint = Endpoint::new("r.example.com", &Config::default()).unwrap();
        let from: Url = "https://r.example.com/v2/a/blobs/uploads/".parse().unwrap();
        for (location, expected) in [
            (
                "/v2/a/blobs/uploads/1?_state=x",
                Some("https://r.example.com/v2/a/blobs/uploads/1?_state=x"),
            ),
            ("2?x", Some("https://r.example.com/v2/a/blobs/uploads/2?x")),
            (
                "https://storage.example.org/b?sig=1",
                Some("https://storage.example.org/b?sig=1"),
            ),
            (
                "http://r.example.com/v2/u/1",
                Some("https://r.example.com/v2/u/1"),
            ),
            ("http://other.example.com/v2/u/1", None),
            ("http://r.example.com:5000/v2/u/1", None),
            ("file:///etc/passwd", None),
            ("http://", None),
        ] {
            let got = Endpoint::follow(&from, location).ok();
            assert_eq!(got.as_ref().map(Url::as_str), expected, "{location}");
        }
        assert!(!endpoint.is_home(&"https://r.example.com:8443/".parse().unwrap()));
        assert!(endpoint.is_home(&"https://r.example.com:443/x".parse().unwrap()));
    }

    #[test]
    fn a_broken_ca_or_key_is_an_error_not_a_client_without_it() {
        let bad = |host: HostConfig| Endpoint::new("r", &config("r", host)).err().unwrap().to_string();
        assert!(
            bad(HostConfig {
                ca: Some("nonsense".into()),
                ..HostConfig::default()
            })
            .contains("the CA for r")
        );
        let pair = crate::ClientCertificate::new("x", "hunter2-key");
        let error = bad(HostConfig {
            client_certificate: Some(pair),
            ..HostConfig::default()
        });
        assert!(
            error.contains("the client certificate for r") && !error.contains("hunter2"),
            "{error}"
        );
    }
}
