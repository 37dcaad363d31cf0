//! One request, as often as it takes: authentication, retries, redirects. Knows HTTP, not manifests or blobs.
//!
//! ```text
//!  Repository ─▶ Registries::send(Call) ─ auth rounds, redirects ─▶ Wire::exchange(Outgoing) ─ retries ─▶ reqwest
//! ```

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use url::Url;

use crate::{
    auth::{self, Identity, Scopes},
    credentials::Credential,
    error::{Class, Error, Result, clip, parse_body},
    registries::Registries,
    repository::Route,
    secret::Secret,
};

pub(crate) mod endpoint;
mod fault;
mod wire;

pub(crate) use endpoint::Endpoint;
pub(crate) use wire::{Backoff, Wire, next_piece, read_limited};

/// Redirects followed for one request; registries need one, sometimes two.
const MAX_REDIRECTS: usize = 5;
/// The most that is read of an answer that reports an error.
const MAX_ERROR_BODY: u64 = 64 << 10;

/// Opens the same bytes again for every try.
pub(crate) type Open =
    Arc<dyn Fn() -> BoxFuture<'static, Result<BoxStream<'static, std::io::Result<Bytes>>>> + Send + Sync>;

/// The body of a request.
#[derive(Clone)]
pub(crate) enum Payload {
    Empty,
    Bytes(Bytes),
    Stream { size: u64, open: Open },
}

/// A request before authentication and as often as needed.
#[derive(Clone)]
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Payload,
    /// Whether doing it twice is the same as doing it once. If not, only failures to connect and 429 are repeated.
    pub(crate) repeatable: bool,
}

impl Outgoing {
    pub(crate) fn new(method: Method, url: Url) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            payload: Payload::Empty,
            repeatable: true,
        }
    }

    pub(crate) fn with_bytes(mut self, bytes: Bytes) -> Self {
        self.payload = Payload::Bytes(bytes);
        self
    }

    pub(crate) fn with_payload(mut self, payload: Payload) -> Self {
        self.payload = payload;
        self
    }

    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Self {
        // Values are digests, numbers and media types that have been checked; one that is none is left out.
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    pub(crate) fn once(mut self) -> Self {
        self.repeatable = false;
        self
    }
}

/// A request to a repository at one endpoint.
pub(crate) struct Call<'a> {
    pub(crate) route: &'a Route,
    pub(crate) outgoing: Outgoing,
    pub(crate) scopes: Scopes,
}

/// An answer with any status that is not the end of authentication.
pub(crate) struct Answer {
    pub(crate) response: reqwest::Response,
    /// Where the answer came from, after redirects.
    pub(crate) url: Url,
    redact: Vec<Secret>,
    credential: Option<Arc<Credential>>,
    stall: Duration,
}

impl Answer {
    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// `Ok` if the status is one of `accepted`.
    pub(crate) async fn expect(self, accepted: &[u16]) -> Result<Self> {
        if accepted.contains(&self.status().as_u16()) {
            Ok(self)
        } else {
            Err(self.into_error().await)
        }
    }

    /// The body, at most `limit` bytes of it.
    pub(crate) async fn bytes(self, limit: u64) -> Result<Bytes> {
        read_limited(self.response, limit, self.stall).await
    }

    /// What the registry has to say about a status that was not wanted.
    pub(crate) async fn into_error(self) -> Error {
        let status = self.status();
        let retry_after = wire::retry_after(self.response.headers());
        let host = self.url.host_str().unwrap_or_default().to_owned();
        let mut redact = self.redact;
        let credential = self.credential;
        let body = read_limited(self.response, MAX_ERROR_BODY, Duration::from_secs(10))
            .await
            .unwrap_or_default();
        let (mut messages, excerpt) = parse_body(&body);
        redact.retain(|secret| !secret.is_empty());
        let clean = |text: &str| {
            let text = redact
                .iter()
                .fold(text.to_owned(), |text, secret| secret.redact(&text));
            credential
                .as_ref()
                .map_or(text.clone(), |credential| credential.redact(&text))
        };
        for message in &mut messages {
            message.message = clean(&message.message);
            message.code = clip(&message.code);
        }
        let code = |wanted: &str| messages.iter().any(|message| message.code == wanted);
        let class = match status.as_u16() {
            401 => Class::Unauthorized,
            403 => Class::Denied,
            404 => Class::NotFound,
            405 | 501 => Class::Unsupported,
            413 => Class::TooLarge,
            429 => Class::RateLimited,
            _ if code("TOOMANYREQUESTS") => Class::RateLimited,
            _ if code("DIGEST_INVALID") => Class::DigestMismatch,
            _ if code("UNSUPPORTED") => Class::Unsupported,
            _ if code("DENIED") => Class::Denied,
            500..=599 => Class::Server,
            400..=499 => Class::Invalid,
            _ => Class::InvalidResponse,
        };
        let reason = match status.canonical_reason() {
            Some(name) => format!("{host} answered {} {name}", status.as_u16()),
            None => format!("{host} answered {}", status.as_u16()),
        };
        let reason = excerpt.map_or(reason.clone(), |text| format!("{reason}, \"{}\"", clean(&text)));
        let error = Error::new(class, reason)
            .answered(status.as_u16(), messages)
            .after(retry_after);
        match class {
            Class::Denied => match &credential {
                Some(credential) => error.advise(format!(
                    "{} ({}) needs the right to do this",
                    auth::who(credential),
                    credential.origin
                )),
                None => error.advise("no credentials were given for it"),
            },
            Class::RateLimited => match (retry_after, &credential) {
                (Some(wait), _) => error.advise(format!("it may be tried again in {} s", wait.as_secs())),
                (None, None) => {
                    error.advise("limits are often higher with credentials; give some, or use a mirror")
                }
                (None, Some(_)) => error,
            },
            _ => error,
        }
    }
}

impl Registries {
    /// Sends a request with all that belongs to it. Every status comes back as `Ok`, except a 401 that no credential
    /// of ours can turn.
    pub(crate) async fn send(&self, call: Call<'_>) -> Result<Answer> {
        let endpoint = &*call.route.endpoint;
        let config = self.config();
        let credential = config.credentials.find(&endpoint.name, &call.route.path).await?;
        let identity = Identity {
            endpoint,
            credential: credential.as_deref(),
            wanted: &call.scopes,
        };
        let mut outgoing = call.outgoing;
        let mut redact = Vec::new();
        let mut redirects = 0;
        let mut authenticated = false;
        let mut pinged = false;
        let mut refused: Option<Secret> = None;
        loop {
            let at_home = endpoint.is_home(&outgoing.url);
            outgoing.headers.remove(http::header::AUTHORIZATION);
            let mut sent = None;
            // CVE-2020-15157: what the registry may see, the host that it points to may not.
            if at_home
                && let Some(authorization) = self
                    .memory()
                    .authorize(self.wire(), &identity, refused.as_ref())
                    .await?
            {
                outgoing
                    .headers
                    .insert(http::header::AUTHORIZATION, authorization.header);
                sent = Some(authorization.secret);
            }
            let response = self.wire().exchange(endpoint, &outgoing).await?;
            let status = response.status();
            if let Some(secret) = &sent {
                redact.push(secret.clone());
            }
            if at_home && status == StatusCode::UNAUTHORIZED {
                let challenges = auth::challenge::parse(response.headers());
                if !authenticated && self.memory().learn(&identity, &challenges) {
                    authenticated = true;
                    refused = sent;
                    continue;
                }
                return Err(auth::refused(
                    &config.credentials,
                    &identity,
                    &call.route.path,
                    &challenges,
                ));
            }
            // Some registries hide from strangers what they would show to us, without asking who we are.
            let hidden = matches!(status, StatusCode::FORBIDDEN | StatusCode::NOT_FOUND);
            if at_home && hidden && sent.is_none() && credential.is_some() && !pinged && !authenticated {
                pinged = true;
                if self.learn_from_ping(&identity).await? {
                    authenticated = true;
                    continue;
                }
            }
            if let Some(next) = redirect(&outgoing, &response)? {
                redirects += 1;
                if redirects > MAX_REDIRECTS {
                    return Err(Error::new(
                        Class::InvalidResponse,
                        "the registry redirects in circles",
                    ));
                }
                tracing::debug!(to = %shown(&next), "redirected");
                outgoing.url = next;
                continue;
            }
            return Ok(Answer {
                response,
                url: outgoing.url,
                redact,
                credential,
                stall: self.wire().retry.stall_timeout,
            });
        }
    }

    async fn learn_from_ping(&self, identity: &Identity<'_>) -> Result<bool> {
        let Ok(url) = identity.endpoint.base.join("v2/") else {
            return Ok(false);
        };
        let response = self
            .wire()
            .exchange(identity.endpoint, &Outgoing::new(Method::GET, url))
            .await?;
        Ok(response.status() == StatusCode::UNAUTHORIZED
            && self
                .memory()
                .learn(identity, &auth::challenge::parse(response.headers())))
    }
}

/// Where to go instead, if the answer says so and the method allows it.
fn redirect(outgoing: &Outgoing, response: &reqwest::Response) -> Result<Option<Url>> {
    let reading = matches!(outgoing.method, Method::GET | Method::HEAD);
    let follow = match response.status().as_u16() {
        301..=303 => reading,
        307 | 308 => true,
        _ => false,
    };
    let Some(location) = response.headers().get(http::header::LOCATION).filter(|_| follow) else {
        return Ok(None);
    };
    let location = location.to_str().map_err(|_| bad_location())?;
    Endpoint::follow(&outgoing.url, location).map(Some)
}

pub(crate) fn bad_location() -> Error {
    Error::new(
        Class::InvalidResponse,
        "the registry answered with a Location that is no URL",
    )
}

/// A URL for people: no query (signatures, upload state), no user.
pub(crate) fn shown(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!(
        "{}://{}{port}{}",
        url.scheme(),
        url.host_str().unwrap_or_default(),
        url.path()
    )
}
