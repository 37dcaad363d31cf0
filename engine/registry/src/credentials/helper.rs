//! Docker's credential helpers: programs named `docker-credential-<x>`, on a developer's machine only.

use std::{collections::BTreeMap, collections::HashMap, sync::Arc};

use docker_credential::{CredentialRetrievalError, DockerCredential};
use tokio::sync::Mutex;

use super::{Credential, DOCKER_HUB, Kind, pattern::canonical};
use crate::{
    error::{Class, Error, Result},
    secret::Secret,
};

/// What docker's own client calls Docker Hub when it talks to a helper.
const DOCKER_HUB_SERVER: &str = "https://index.docker.io/v1/";

/// The helpers of one config file.
#[derive(Debug)]
pub(super) struct Helpers {
    file: String,
    store: Option<String>,
    by_host: BTreeMap<String, String>,
}

impl Helpers {
    pub(super) fn new(
        file: String,
        store: Option<String>,
        by_host: Option<BTreeMap<String, String>>,
    ) -> Option<Self> {
        let store = store.filter(|name| !name.is_empty());
        let by_host: BTreeMap<_, _> = by_host
            .unwrap_or_default()
            .into_iter()
            .map(|(host, helper)| {
                let host = host.trim_start_matches("https://").trim_start_matches("http://");
                (canonical(host.split('/').next().unwrap_or(host)), helper)
            })
            .collect();
        (store.is_some() || !by_host.is_empty()).then_some(Self { file, store, by_host })
    }
}

/// By helper and registry; `None` is an answer too.
type Answers = HashMap<(String, String), Option<Arc<Credential>>>;

/// All helpers, and what they have answered: some of them open a dialogue, so none is asked twice.
pub(super) struct DockerCli {
    helpers: Vec<Helpers>,
    answers: Mutex<Answers>,
}

impl DockerCli {
    pub(super) fn new(helpers: Vec<Helpers>) -> Self {
        Self {
            helpers,
            answers: Mutex::default(),
        }
    }

    /// The helper that a `credHelpers` entry names for this host; docker prefers it to everything else.
    pub(super) fn dedicated(&self, registry: &str) -> Option<(&str, &str)> {
        self.helpers
            .iter()
            .find_map(|helpers| Some((helpers.by_host.get(registry)?.as_str(), helpers.file.as_str())))
    }

    pub(super) async fn ask_store(&self, registry: &str) -> Result<Option<Arc<Credential>>> {
        for helpers in &self.helpers {
            if let Some(store) = &helpers.store
                && let Some(found) = self.ask((store, &helpers.file), registry).await?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    pub(super) async fn ask(
        &self,
        (helper, file): (&str, &str),
        registry: &str,
    ) -> Result<Option<Arc<Credential>>> {
        let key = (helper.to_owned(), registry.to_owned());
        let mut answers = self.answers.lock().await;
        if let Some(known) = answers.get(&key) {
            return Ok(known.clone());
        }
        let server = if registry == DOCKER_HUB {
            DOCKER_HUB_SERVER
        } else {
            registry
        }
        .to_owned();
        let document = serde_json::json!({ "credsStore": helper }).to_string();
        let answer = tokio::task::spawn_blocking(move || {
            docker_credential::get_credential_from_reader(document.as_bytes(), &server)
        })
        .await
        .map_err(|error| {
            Error::new(Class::Local, "the credential helper's thread ended early").because(error)
        })?;
        let origin = format!("docker-credential-{helper} (named in {file})");
        let found = match answer {
            Ok(DockerCredential::IdentityToken(token)) => Some(Kind::Identity {
                token: Secret::new(token),
            }),
            Ok(DockerCredential::UsernamePassword(username, password)) => Some(Kind::Basic {
                username,
                password: Secret::new(password),
            }),
            Err(CredentialRetrievalError::NoCredentialConfigured) => None,
            // The protocol's way to say "none": exit 1 with this text. Its output is not shown otherwise, it may hold
            // what it failed to hand over.
            Err(CredentialRetrievalError::HelperFailure { stdout, .. })
                if stdout.contains("credentials not found") =>
            {
                None
            }
            Err(CredentialRetrievalError::HelperCommunicationError) => {
                return Err(Error::new(Class::Local, format!("cannot run {origin}"))
                    .advise("install it, or take it out of that file and log in again"));
            }
            Err(_) => {
                return Err(
                    Error::new(Class::Local, format!("{origin} failed for {registry}"))
                        .advise(format!("try `echo {registry} | docker-credential-{helper} get`")),
                );
            }
        };
        let found = found.map(|kind| Arc::new(Credential::new(kind, origin)));
        answers.insert(key, found.clone());
        Ok(found)
    }
}
