//! A repository: the place that manifests, blobs and tags are in.

use std::{fmt, sync::Arc};

use http::Method;
use url::Url;

use crate::{
    auth::Scopes,
    error::{Class, Error, Result},
    registries::Registries,
    transport::{Answer, Call, Endpoint, Outgoing},
};

/// A handle to one repository at one registry. Cheap to clone; contacts nobody until asked to.
#[derive(Clone)]
pub struct Repository {
    pub(crate) registries: Registries,
    registry: String,
    name: String,
    mirrored: bool,
}

/// One way to reach a repository: the registry itself, or a mirror of it.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) endpoint: Arc<Endpoint>,
    /// The repository's path there.
    pub(crate) path: String,
    /// The registry that a mirror stands for (containerd's `ns` parameter).
    namespace: Option<String>,
}

impl Route {
    /// `…/v2/<path>/<rest>`.
    pub(crate) fn url(&self, rest: &str) -> Result<Url> {
        let mut url = self
            .endpoint
            .base
            .join(&format!("v2/{}/{rest}", self.path))
            .map_err(|error| Error::new(Class::Invalid, "the name makes no URL").because(error))?;
        if let Some(namespace) = &self.namespace {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        Ok(url)
    }
}

impl Repository {
    pub(crate) fn new(registries: Registries, registry: &str, name: &str, mirrored: bool) -> Self {
        Self {
            registries,
            registry: registry.to_owned(),
            name: name.to_owned(),
            mirrored,
        }
    }

    /// The registry's host and port as in references.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path within the registry: `library/debian`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The registry itself: for writes, and for reads of what was just written.
    pub(crate) fn route(&self) -> Result<Route> {
        Ok(Route {
            endpoint: self.registries.endpoint(&self.registry)?,
            path: self.name.clone(),
            namespace: None,
        })
    }

    /// All ways to read, in order; the registry itself last. `by_tag`: only those whose tags are believed.
    pub(crate) fn routes(&self, by_tag: bool) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        let mirrors = self
            .registries
            .config()
            .hosts
            .get(&self.registry)
            .filter(|_| self.mirrored);
        for mirror in mirrors.iter().flat_map(|host| &host.mirrors) {
            if by_tag && !mirror.tags {
                continue;
            }
            let (host, prefix) = mirror.host.split_once('/').unwrap_or((&mirror.host, ""));
            let prefix = prefix.trim_matches('/');
            let path = if prefix.is_empty() {
                self.name.clone()
            } else {
                format!("{prefix}/{}", self.name)
            };
            let endpoint = self.registries.endpoint(host)?;
            routes.push(Route {
                endpoint,
                path,
                namespace: Some(self.registry.clone()),
            });
        }
        routes.push(self.route()?);
        Ok(routes)
    }

    /// Reads from the first route that gives an accepted answer. What a mirror says against it is only a reason to ask
    /// the next; the registry itself has the last word.
    pub(crate) async fn read(
        &self,
        by_tag: bool,
        accepted: &[u16],
        request: impl Fn(&Route) -> Result<Outgoing>,
    ) -> Result<Answer> {
        let mut routes = self.routes(by_tag)?;
        let last = routes.pop();
        for route in &routes {
            match self.ask(route, request(route)?, accepted).await {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    tracing::warn!(mirror = %route.endpoint.name, registry = %self.registry, %error, "mirror passed over");
                }
            }
        }
        match last {
            Some(route) => self.ask(&route, request(&route)?, accepted).await,
            None => Err(Error::new(Class::Invalid, "there is no way to the registry")),
        }
    }

    /// Reads from one route.
    pub(crate) async fn ask(&self, route: &Route, outgoing: Outgoing, accepted: &[u16]) -> Result<Answer> {
        let scopes = Scopes::repository(&route.path, &["pull"]);
        self.registries
            .send(Call {
                route,
                outgoing,
                scopes,
            })
            .await?
            .expect(accepted)
            .await
    }

    /// Sends a request that changes the repository.
    pub(crate) async fn write(&self, route: &Route, outgoing: Outgoing, accepted: &[u16]) -> Result<Answer> {
        let actions: &[&str] = match outgoing.method {
            Method::DELETE => &["delete", "pull"],
            _ => &["pull", "push"],
        };
        let scopes = Scopes::repository(&route.path, actions);
        self.registries
            .send(Call {
                route,
                outgoing,
                scopes,
            })
            .await?
            .expect(accepted)
            .await
    }

    /// The same repository without its mirrors: whether something is there to be built upon, a mirror cannot say.
    pub(crate) fn direct(&self) -> Self {
        Self {
            mirrored: false,
            ..self.clone()
        }
    }

    /// Puts the place and the deed into an error.
    pub(crate) fn failed(&self, action: impl FnOnce() -> String) -> impl FnOnce(Error) -> Error {
        move |error| {
            let class = error.class();
            let error = error.doing(action()).at(&self.registry, Some(&self.name));
            match class {
                Class::NotFound => {
                    error.advise_if_none(|| format!("check the name {self} and that it was pushed"))
                }
                Class::Server => {
                    error.advise_if_none(|| "the registry itself fails; its log says more".to_owned())
                }
                _ => error,
            }
        }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.name)
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Repository({self})")
    }
}
