//! Who we are at which registry: docker config documents, matched by host and repository path.
//!
//! A document is what `docker login` writes and what a Secret of type `kubernetes.io/dockerconfigjson` holds. Several may
//! be given; each entry remembers the document it came from, so that a refusal can name the Secret to mend. Parsing does
//! no IO; credential helpers (programs!) run only for [`Credentials::from_docker_cli`].

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::Deserialize;

use crate::{
    error::{Class, Error, Result},
    secret::Secret,
};

mod helper;
mod pattern;

use pattern::Pattern;

/// Docker Hub's name in references; everything that docker calls it is mapped to this.
pub(crate) const DOCKER_HUB: &str = "docker.io";

/// A list of docker config documents. Cheap to clone; shows no secret in `Debug`.
#[derive(Clone, Default)]
pub struct Credentials {
    entries: Arc<Vec<Entry>>,
    /// Names of all documents, also of those without entries: for the advice in errors.
    documents: Arc<Vec<String>>,
    cli: Option<Arc<helper::DockerCli>>,
}

#[derive(Clone)]
struct Entry {
    pattern: Pattern,
    credential: Arc<Credential>,
}

/// One way to show who we are.
pub(crate) struct Credential {
    pub(crate) kind: Kind,
    /// `auths["host/path"] of secret "x"`: for messages.
    pub(crate) origin: String,
    /// Tells tokens got with different credentials apart in the cache; unique within the process.
    pub(crate) id: u64,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Basic {
        username: String,
        password: Secret,
    },
    /// An OAuth2 refresh token (`identitytoken`).
    Identity {
        token: Secret,
    },
    /// A ready bearer token (`registrytoken`).
    Bearer {
        token: Secret,
    },
}

impl Credential {
    pub(crate) fn new(kind: Kind, origin: String) -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            kind,
            origin,
            id: NEXT.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// The account's name where there is one; not secret.
    pub(crate) fn username(&self) -> Option<&str> {
        match &self.kind {
            Kind::Basic { username, .. } => Some(username),
            Kind::Identity { .. } | Kind::Bearer { .. } => None,
        }
    }

    /// Takes the secret out of a text from the network.
    pub(crate) fn redact(&self, text: &str) -> String {
        match &self.kind {
            Kind::Basic { username, password } => {
                let pair = Secret::new(basic_value(username, password));
                password.redact(&pair.redact(text))
            }
            Kind::Identity { token } | Kind::Bearer { token } => token.redact(text),
        }
    }
}

/// The part after `Basic ` (RFC 7617).
pub(crate) fn basic_value(username: &str, password: &Secret) -> String {
    let pair = zeroize::Zeroizing::new(format!("{username}:{}", password.expose()));
    base64::engine::general_purpose::STANDARD.encode(pair.as_bytes())
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Document {
    auths: Option<BTreeMap<String, AuthEntry>>,
    creds_store: Option<String>,
    cred_helpers: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AuthEntry {
    auth: Secret,
    username: Option<String>,
    password: Secret,
    #[serde(alias = "identityToken")]
    identitytoken: Secret,
    #[serde(alias = "registryToken")]
    registrytoken: Secret,
}

impl Credentials {
    /// No credentials: every registry is read anonymously.
    pub fn none() -> Self {
        Self::default()
    }

    /// Credentials from documents, each with a name that the user knows it by (`secret shop/registry-creds`).
    ///
    /// # Errors
    /// [`Class::Invalid`] naming the document and the entry when one cannot be read.
    pub fn from_documents<N, D>(documents: impl IntoIterator<Item = (N, D)>) -> Result<Self>
    where
        N: Into<String>,
        D: AsRef<[u8]>,
    {
        documents
            .into_iter()
            .try_fold(Self::none(), |all, (name, json)| all.with_document(name, json))
    }

    /// Adds a document: docker's `config.json`, or the older form without `auths` (`kubernetes.io/dockercfg`).
    ///
    /// `credsStore` and `credHelpers` in it are ignored: they name programs of the machine that wrote it.
    ///
    /// # Errors
    /// [`Class::Invalid`] naming the document and the entry when it cannot be read.
    pub fn with_document(mut self, name: impl Into<String>, json: impl AsRef<[u8]>) -> Result<Self> {
        let name = name.into();
        let entries = parse(&name, json.as_ref())?;
        Arc::make_mut(&mut self.entries).extend(entries);
        Arc::make_mut(&mut self.documents).push(name);
        Ok(self)
    }

    /// Adds a user name and password for `target`: `host`, `host/path` or a pattern like `*.example.com`.
    ///
    /// # Errors
    /// [`Class::Invalid`] if `target` has no host.
    pub fn with_basic(
        mut self,
        target: &str,
        username: impl Into<String>,
        password: impl Into<String>,
    ) -> Result<Self> {
        let kind = Kind::Basic {
            username: username.into(),
            password: Secret::new(password.into()),
        };
        let pattern = Pattern::parse(target).ok_or_else(|| no_host("the given credentials", target))?;
        let origin = format!("the given credentials for {target}");
        Arc::make_mut(&mut self.entries).push(Entry {
            pattern,
            credential: Arc::new(Credential::new(kind, origin)),
        });
        Ok(self)
    }

    /// What the user's own `docker login` (or `podman login`) left behind, helpers and `credsStore` included: for command
    /// line tools on a developer's machine, never for pods.
    ///
    /// Reads `$REGISTRY_AUTH_FILE`, `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`, and
    /// `$XDG_RUNTIME_DIR/containers/auth.json`; none existing is no error.
    ///
    /// # Errors
    /// [`Class::Local`] or [`Class::Invalid`] when a file is there but cannot be read.
    pub fn from_docker_cli() -> Result<Self> {
        let mut all = Self::none();
        let mut helpers = Vec::new();
        for path in cli_files() {
            let json = match std::fs::read(&path) {
                Ok(json) => zeroize::Zeroizing::new(json),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => {
                    return Err(
                        Error::new(Class::Local, format!("cannot read {}", path.display())).because(error),
                    );
                }
            };
            let name = path.display().to_string();
            let document: Document = serde_json::from_slice(&json).map_err(|error| broken(&name, &error))?;
            helpers.extend(helper::Helpers::new(
                name.clone(),
                document.creds_store,
                document.cred_helpers,
            ));
            all = all.with_document(name, &*json)?;
        }
        if !helpers.is_empty() {
            all.cli = Some(Arc::new(helper::DockerCli::new(helpers)));
        }
        Ok(all)
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.cli.is_none()
    }

    /// The names of the documents, for messages.
    pub fn documents(&self) -> &[String] {
        &self.documents
    }

    /// The best entry for a repository: the longest path that is a prefix of whole components of the repository's; among
    /// equals a host without wildcards; among those the one given first. Then the command line's helpers.
    pub(crate) async fn find(&self, registry: &str, repository: &str) -> Result<Option<Arc<Credential>>> {
        let helper_first = self.cli.as_ref().and_then(|cli| cli.dedicated(registry));
        if let (Some(cli), Some(helper)) = (&self.cli, helper_first)
            && let Some(found) = cli.ask(helper, registry).await?
        {
            return Ok(Some(found));
        }
        let mut best: Option<(usize, bool, &Entry)> = None;
        for entry in self.entries.iter() {
            let Some((length, exact)) = entry.pattern.matches(registry, repository) else {
                continue;
            };
            if best.is_none_or(|(l, e, _)| (length, exact) > (l, e)) {
                best = Some((length, exact, entry));
            }
        }
        if let Some((_, _, entry)) = best {
            return Ok(Some(entry.credential.clone()));
        }
        match &self.cli {
            Some(cli) => cli.ask_store(registry).await,
            None => Ok(None),
        }
    }

    /// What to tell somebody whose registry wants credentials that are not there.
    pub(crate) fn advice_for_missing(&self, registry: &str, repository: &str) -> String {
        let key = format!("{registry}/{repository}");
        if self.cli.is_some() || self.documents.is_empty() {
            return format!(
                "no credentials for {key} were given; add a kubernetes.io/dockerconfigjson Secret whose auths has \
                 \"{registry}\", or run `docker login {registry}` for a local build"
            );
        }
        format!(
            "none of {} has an entry in auths for {key}; add \"{registry}\" there",
            self.documents.join(", ")
        )
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.entries.iter().map(|entry| &entry.credential.origin))
            .finish()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({})", self.origin)
    }
}

fn cli_files() -> Vec<PathBuf> {
    let var = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(file) = var("REGISTRY_AUTH_FILE") {
        return vec![file];
    }
    let docker = var("DOCKER_CONFIG").or_else(|| var("HOME").map(|home| home.join(".docker")));
    let podman = var("XDG_RUNTIME_DIR").map(|run| run.join("containers/auth.json"));
    docker
        .map(|dir| dir.join("config.json"))
        .into_iter()
        .chain(podman)
        .collect()
}

fn parse(name: &str, json: &[u8]) -> Result<Vec<Entry>> {
    let document: Document = serde_json::from_slice(json).map_err(|error| broken(name, &error))?;
    let auths = match document.auths {
        Some(auths) => auths,
        None if document.creds_store.is_none() && document.cred_helpers.is_none() => old_form(json),
        None => BTreeMap::new(),
    };
    let mut entries = Vec::new();
    for (target, auth) in auths {
        let origin = format!("auths[\"{target}\"] of {name}");
        let pattern = Pattern::parse(&target).ok_or_else(|| no_host(name, &target))?;
        // `docker login` with a credential store leaves empty entries behind as a note.
        if let Some(kind) =
            kind_of(auth).map_err(|reason| Error::new(Class::Invalid, format!("{origin}: {reason}")))?
        {
            entries.push(Entry {
                pattern,
                credential: Arc::new(Credential::new(kind, origin)),
            });
        }
    }
    Ok(entries)
}

/// `kubernetes.io/dockercfg`: the hosts at the top. Anything else that happens to be an object has no hosts in it.
fn old_form(json: &[u8]) -> BTreeMap<String, AuthEntry> {
    let raw: BTreeMap<String, serde_json::Value> = serde_json::from_slice(json).unwrap_or_default();
    raw.into_iter()
        .filter(|(_, value)| value.get("auth").is_some() || value.get("username").is_some())
        .filter_map(|(key, value)| Some((key, serde_json::from_value(value).ok()?)))
        .collect()
}

fn kind_of(entry: AuthEntry) -> Result<Option<Kind>, &'static str> {
    if !entry.registrytoken.is_empty() {
        return Ok(Some(Kind::Bearer {
            token: entry.registrytoken,
        }));
    }
    if !entry.identitytoken.is_empty() {
        return Ok(Some(Kind::Identity {
            token: entry.identitytoken,
        }));
    }
    let (username, password) = if entry.auth.is_empty() {
        match entry.username {
            Some(username) if !username.is_empty() => (username, entry.password),
            _ => return Ok(None),
        }
    } else {
        decode_auth(&entry.auth)?
    };
    // What credential helpers answer, and some tools store, for an identity token.
    Ok(Some(match username.as_str() {
        "<token>" => Kind::Identity { token: password },
        _ => Kind::Basic { username, password },
    }))
}

fn decode_auth(auth: &Secret) -> Result<(String, Secret), &'static str> {
    // With or without padding, and with the line breaks that `base64` puts in: all seen in Secrets written by hand.
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let compact = zeroize::Zeroizing::new(auth.expose().split_whitespace().collect::<String>());
    let bytes = GeneralPurpose::new(&alphabet::STANDARD, lenient)
        .decode(compact.as_bytes())
        .map_err(|_| "auth is not base64; it must be the base64 of user:password")?;
    let bytes = zeroize::Zeroizing::new(bytes);
    let text = std::str::from_utf8(&bytes).map_err(|_| "auth is not UTF-8 after base64 decoding")?;
    // Trailing NULs: docker pads so.
    let (username, password) = text
        .trim_end_matches('\0')
        .split_once(':')
        .ok_or("auth has no colon after base64 decoding; it must be the base64 of user:password")?;
    // `echo user:password | base64` is the classic way to write it, newline included.
    Ok((
        username.to_owned(),
        Secret::new(password.trim_end_matches(['\r', '\n']).to_owned()),
    ))
}

fn broken(name: &str, error: &serde_json::Error) -> Error {
    // serde_json's text quotes wrong values: the place is enough, and it cannot leak a password.
    Error::new(
        Class::Invalid,
        format!("{name} is not a docker config document (line {}, column {})", error.line(), error.column()),
    )
    .advise("it must be JSON like {\"auths\": {\"registry.example.com\": {\"auth\": \"<base64 of user:password>\"}}}")
}

fn no_host(name: &str, target: &str) -> Error {
    Error::new(
        Class::Invalid,
        format!("{name} has the key \"{target}\", which names no registry host"),
    )
}

#[cfg(test)]
mod tests;
