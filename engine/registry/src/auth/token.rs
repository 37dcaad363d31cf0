//! Getting a bearer token from the service that the registry's challenge names.

use std::time::{Duration, Instant};

use serde::Deserialize;
use url::Url;

use super::{Identity, Scopes, Token, advice_for_refused, basic, who};
use crate::{
    credentials::Kind,
    error::{Class, Error, Result, parse_body},
    secret::Secret,
    transport::{Outgoing, Wire, read_limited, shown},
};

/// Lifetime when the answer names none (distribution, "Token Authentication Specification").
const DEFAULT_LIFETIME: Duration = Duration::from_mins(1);
/// Token answers are a few KiB; anything near this is something else.
const MAX_ANSWER: u64 = 1 << 20;

pub(super) struct Request<'a> {
    pub(super) realm: &'a Url,
    pub(super) service: Option<&'a str>,
    pub(super) scopes: &'a Scopes,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: Secret,
    #[serde(default)]
    access_token: Secret,
    expires_in: Option<serde_json::Value>,
}

pub(super) async fn fetch(wire: &Wire, identity: &Identity<'_>, request: &Request<'_>) -> Result<Token> {
    let endpoint = identity.endpoint;
    let service = shown(request.realm);
    if identity.credential.is_some() && request.realm.scheme() != "https" && !endpoint.insecure {
        return Err(Error::new(
            Class::Tls,
            format!("the registry sends us to the token service {service}, which is plain HTTP; a password is not sent there"),
        )
        .advise(format!("if that is meant so, set `insecure` for {}", endpoint.name)));
    }
    let mut outgoing = match identity.credential.map(|credential| &credential.kind) {
        Some(Kind::Identity { token }) => refresh_request(request, token),
        _ => plain_request(request),
    };
    if let Some(Kind::Basic { username, password }) = identity.credential.map(|credential| &credential.kind) {
        outgoing
            .headers
            .insert(http::header::AUTHORIZATION, basic(username, password)?.header);
    }
    let started = Instant::now();
    // A token service is another host than the registry, so it never sees the client certificate.
    let response = wire
        .exchange(endpoint, &outgoing)
        .await
        .map_err(|error| error.while_doing(format!("get a token from {service}")))?;
    let status = response.status();
    let redact = |text: &str| {
        identity
            .credential
            .map_or_else(|| text.to_owned(), |c| c.redact(text))
    };
    let body = read_limited(response, MAX_ANSWER, wire.retry.stall_timeout).await?;
    if !status.is_success() {
        let (mut messages, excerpt) = parse_body(&body);
        for message in &mut messages {
            message.message = redact(&message.message);
        }
        let text = excerpt
            .map(|text| format!(" ({})", redact(&text)))
            .unwrap_or_default();
        return Err(match (status.as_u16(), identity.credential) {
            (400 | 401 | 403, Some(credential)) => Error::new(
                Class::Unauthorized,
                format!(
                    "the token service {service} does not accept the credentials of {}{text}",
                    who(credential)
                ),
            )
            .advise(advice_for_refused(&endpoint.name, credential)),
            (401 | 403, None) => Error::new(
                Class::Unauthorized,
                format!("the token service {service} gives no token to anonymous users{text}"),
            ),
            (429, _) => Error::new(
                Class::RateLimited,
                format!("the token service {service} asks to wait{text}"),
            ),
            (code, _) => Error::new(
                if status.is_server_error() {
                    Class::Server
                } else {
                    Class::InvalidResponse
                },
                format!("the token service {service} answered {code}{text}"),
            )
            .advise("the fault is the token service's, not the password's"),
        }
        .answered(status.as_u16(), messages));
    }
    let unreadable = |what: &str| {
        Error::new(
            Class::InvalidResponse,
            format!("the token service {service} answered {what}"),
        )
    };
    let answer: Answer =
        serde_json::from_slice(&body).map_err(|_| unreadable("something that is no token document"))?;
    let value = if answer.token.is_empty() {
        answer.access_token
    } else {
        answer.token
    };
    if value.is_empty() {
        return Err(unreadable("without a token"));
    }
    // Some services send the number as a string.
    let lifetime = match &answer.expires_in {
        Some(serde_json::Value::Number(seconds)) => seconds.as_f64(),
        Some(serde_json::Value::String(seconds)) => seconds.parse().ok(),
        _ => None,
    };
    let lifetime = lifetime
        .filter(|seconds| seconds.is_finite() && *seconds > 0.0)
        .map_or(DEFAULT_LIFETIME, |seconds| {
            Duration::from_secs_f64(seconds.min(86_400.0))
        });
    // Counted from before the request, and given up a tenth early: the registry's clock starts when it was issued.
    Ok(Token {
        value,
        until: started + lifetime.mul_f64(0.9),
    })
}

/// `GET realm?service=…&scope=…`: anonymous, or with Basic.
fn plain_request(request: &Request<'_>) -> Outgoing {
    let mut url = request.realm.clone();
    {
        let mut query = url.query_pairs_mut();
        if let Some(service) = request.service {
            query.append_pair("service", service);
        }
        for scope in request.scopes.each() {
            query.append_pair("scope", &scope);
        }
        query.append_pair("client_id", "slipway");
    }
    Outgoing::new(http::Method::GET, url)
}

/// `POST realm` with the refresh token in a form (distribution, "OAuth2 Token Authentication").
fn refresh_request(request: &Request<'_>, token: &Secret) -> Outgoing {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "refresh_token")
        .append_pair("client_id", "slipway")
        .append_pair("refresh_token", token.expose())
        .append_pair("scope", &request.scopes.to_string());
    if let Some(service) = request.service {
        form.append_pair("service", service);
    }
    let mut outgoing =
        Outgoing::new(http::Method::POST, request.realm.clone()).with_bytes(form.finish().into());
    outgoing.headers.insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/x-www-form-urlencoded"),
    );
    outgoing
}
