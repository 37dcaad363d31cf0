//! Showing the registry who we are: challenges, tokens, and what to say when it does not like the answer.
//!
//! Nothing is assumed before a registry asks: the challenge of the very request that was refused is what counts
//! (distribution specification, "Token Authentication"; RFC 9110 §11). What was learned is kept per endpoint, credential
//! and wanted scopes, so the next request of the same sort brings its token along.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use http::HeaderValue;

use crate::{
    credentials::{Credential, Credentials, Kind, basic_value},
    error::{Class, Error, Result},
    secret::Secret,
    transport::{Endpoint, Wire},
};

pub(crate) mod challenge;
mod token;

pub(crate) use challenge::{Challenge, Scopes};

/// Everything learned about how to authenticate. Shared by all clones of a client.
#[derive(Default)]
pub(crate) struct Memory {
    plans: Mutex<HashMap<PlanKey, Plan>>,
    tokens: Mutex<HashMap<TokenKey, TokenSlot>>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct PlanKey {
    endpoint: String,
    credential: u64,
    wanted: String,
}

#[derive(Clone)]
enum Plan {
    Basic,
    Bearer {
        realm: url::Url,
        service: Option<String>,
        scopes: Scopes,
    },
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct TokenKey {
    realm: String,
    service: Option<String>,
    scopes: String,
    credential: u64,
}

/// One lock per token: fifty requests that find it missing make one request for it.
type TokenSlot = Arc<tokio::sync::Mutex<Option<Token>>>;

pub(crate) struct Token {
    pub(crate) value: Secret,
    pub(crate) until: Instant,
}

/// What goes into the `Authorization` header.
#[derive(Clone)]
pub(crate) struct Authorization {
    pub(crate) header: HeaderValue,
    /// The secret in it, to recognise a refused token and to redact echoes.
    pub(crate) secret: Secret,
}

/// For whom a request is made.
pub(crate) struct Identity<'a> {
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) credential: Option<&'a Credential>,
    pub(crate) wanted: &'a Scopes,
}

impl Identity<'_> {
    fn key(&self) -> PlanKey {
        PlanKey {
            endpoint: self.endpoint.base.to_string(),
            credential: self.credential.map_or(0, |credential| credential.id),
            wanted: self.wanted.to_string(),
        }
    }
}

impl Memory {
    /// The header for this request, as far as it is known what the registry wants. `refused` is a token that has just
    /// been turned down: it is not used again.
    pub(crate) async fn authorize(
        &self,
        wire: &Wire,
        identity: &Identity<'_>,
        refused: Option<&Secret>,
    ) -> Result<Option<Authorization>> {
        if let Some(Credential {
            kind: Kind::Bearer { token },
            ..
        }) = identity.credential
        {
            return bearer(token).map(Some);
        }
        let plan = self
            .plans
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&identity.key())
            .cloned();
        let (realm, service, scopes) = match plan {
            None => return Ok(None),
            Some(Plan::Basic) => {
                return match identity.credential.map(|credential| &credential.kind) {
                    Some(Kind::Basic { username, password }) => basic(username, password).map(Some),
                    _ => Ok(None),
                };
            }
            Some(Plan::Bearer {
                realm,
                service,
                scopes,
            }) => (realm, service, scopes),
        };
        let key = TokenKey {
            realm: realm.to_string(),
            service: service.clone(),
            scopes: scopes.to_string(),
            credential: identity.credential.map_or(0, |credential| credential.id),
        };
        let slot = {
            let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
            tokens.entry(key).or_default().clone()
        };
        let mut slot = slot.lock().await;
        let usable = slot.as_ref().filter(|token| {
            token.until > Instant::now()
                && refused.is_none_or(|refused| refused.expose() != token.value.expose())
        });
        if let Some(token) = usable {
            return bearer(&token.value).map(Some);
        }
        *slot = None;
        let request = token::Request {
            realm: &realm,
            service: service.as_deref(),
            scopes: &scopes,
        };
        let token = token::fetch(wire, identity, &request).await?;
        let header = bearer(&token.value)?;
        *slot = Some(token);
        Ok(Some(header))
    }

    /// Takes note of what the registry asked for in a 401. `false`: it asked for nothing we could give.
    pub(crate) fn learn(&self, identity: &Identity<'_>, challenges: &[Challenge]) -> bool {
        let bearer = challenges.iter().find_map(|challenge| match challenge {
            Challenge::Bearer {
                realm,
                service,
                scopes,
                ..
            } => Some(Plan::Bearer {
                realm: realm.clone(),
                service: service.clone(),
                scopes: identity.wanted.merged(scopes),
            }),
            Challenge::Basic => None,
        });
        let has_password = matches!(
            identity.credential,
            Some(Credential {
                kind: Kind::Basic { .. },
                ..
            })
        );
        let basic = challenges.contains(&Challenge::Basic) && has_password;
        let plan = match (bearer, basic) {
            (Some(plan), _) => plan,
            (None, true) => Plan::Basic,
            (None, false) => return false,
        };
        self.plans
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(identity.key(), plan);
        true
    }
}

fn bearer(token: &Secret) -> Result<Authorization> {
    header("Bearer", token.expose(), token)
}

fn basic(username: &str, password: &Secret) -> Result<Authorization> {
    let value = Secret::new(basic_value(username, password));
    header("Basic", value.expose(), &value)
}

fn header(scheme: &str, value: &str, secret: &Secret) -> Result<Authorization> {
    let mut header = HeaderValue::try_from(format!("{scheme} {value}")).map_err(|_| {
        Error::new(
            Class::Invalid,
            "the token has characters that cannot stand in an HTTP header",
        )
    })?;
    // Kept out of the Debug output of requests by the http crate.
    header.set_sensitive(true);
    Ok(Authorization {
        header,
        secret: secret.clone(),
    })
}

/// The final 401: says who was refused and where to mend it.
pub(crate) fn refused(
    credentials: &Credentials,
    identity: &Identity<'_>,
    repository: &str,
    challenges: &[Challenge],
) -> Error {
    let registry = &identity.endpoint.name;
    let Some(credential) = identity.credential else {
        return Error::new(
            Class::Unauthorized,
            "the registry asks for credentials, or does not have this repository",
        )
        .answered(401, Vec::new())
        .advise(credentials.advice_for_missing(registry, repository));
    };
    let who = who(credential);
    let insufficient = challenges.iter().any(|challenge| {
        matches!(challenge, Challenge::Bearer { error: Some(error), .. } if error == "insufficient_scope")
    });
    if insufficient {
        let reason = format!(
            "{who} is known to the registry but not allowed to do this ({})",
            identity.wanted
        );
        return Error::new(Class::Denied, reason)
            .answered(401, Vec::new())
            .advise(format!(
                "give it the right on {registry}/{repository}, or put an account that has it into {}",
                credential.origin
            ));
    }
    if matches!(credential.kind, Kind::Identity { .. }) && challenges == [Challenge::Basic] {
        return Error::new(
            Class::Unauthorized,
            "the registry wants a user name and password, but has been given an identity token",
        )
        .answered(401, Vec::new())
        .advise(format!("put username and password into {}", credential.origin));
    }
    Error::new(
        Class::Unauthorized,
        format!("the registry does not accept the credentials of {who}"),
    )
    .answered(401, Vec::new())
    .advise(advice_for_refused(registry, credential))
}

pub(crate) fn who(credential: &Credential) -> String {
    match credential.username() {
        Some(username) => format!("user \"{username}\""),
        None => format!("the token in {}", credential.origin),
    }
}

pub(crate) fn advice_for_refused(registry: &str, credential: &Credential) -> String {
    format!(
        "check the password or token in {} (is it expired?), or run `docker login {registry}` and take the new entry",
        credential.origin
    )
}
