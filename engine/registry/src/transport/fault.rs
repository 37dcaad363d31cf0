//! What went wrong below HTTP, told apart.

use std::{error::Error as StdError, io};

use url::Url;

use super::shown;
use crate::error::{Class, Error};

/// Whether, and how patiently, a failed connection is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nature {
    /// Nobody there, or the name is not known. Nothing was sent.
    NoConnection,
    /// It was there and then it was not. The request may have been carried out.
    Cut,
    /// Will be the same next time.
    Final,
}

pub(super) fn classify(error: reqwest::Error, url: &Url) -> (Nature, Error) {
    let error = error.without_url();
    let host = host(url);
    let at = shown(url);
    if let Some(tls) = find::<rustls::Error>(&error) {
        let advice = match tls {
            rustls::Error::InvalidMessage(_) => {
                format!(
                    "{host} does not speak TLS there; if it is a plain-HTTP registry, set `insecure` for it"
                )
            }
            rustls::Error::InvalidCertificate(_) => {
                format!("give the CA that signed {host}'s certificate as `ca`, or mend the certificate")
            }
            rustls::Error::AlertReceived(_) => {
                format!("{host} may want a client certificate; give one for this host")
            }
            _ => String::new(),
        };
        let reason = format!("the TLS connection to {host} failed: {tls}");
        let found = Error::new(Class::Tls, reason);
        return (
            Nature::Final,
            if advice.is_empty() {
                found
            } else {
                found.advise(advice)
            },
        );
    }
    let unreachable = |reason: String| Error::new(Class::Unreachable, reason);
    if let Some(io) = find::<io::Error>(&error).filter(|_| error.is_connect())
        && io.kind() == io::ErrorKind::ConnectionRefused
    {
        return (
            Nature::NoConnection,
            unreachable(format!("{host} refuses the connection"))
                .advise("is the registry running, and is this its port?"),
        );
    }
    if says(&error, "dns error") || says(&error, "failed to lookup address") {
        return (
            Nature::NoConnection,
            unreachable(format!("the name of {host} cannot be resolved"))
                .advise("check the spelling, and the DNS of this machine or pod"),
        );
    }
    if error.is_timeout() || says(&error, "timed out") {
        let nature = if error.is_connect() {
            Nature::NoConnection
        } else {
            Nature::Cut
        };
        return (nature, unreachable(format!("{host} does not answer in time")));
    }
    if error.is_connect() {
        return (
            Nature::NoConnection,
            unreachable(format!("no connection to {host}")).because(error),
        );
    }
    // An error of our own from inside a request's body (a file that cannot be read, a source that failed).
    if let Some(own) = find::<Error>(&error) {
        let copy = Error::new(own.class(), own.to_string());
        return (Nature::Final, copy);
    }
    (
        Nature::Cut,
        unreachable(format!("the connection to {at} was cut")).because(error),
    )
}

pub(super) fn stalled(url: &Url, seconds: u64) -> Error {
    Error::new(
        Class::Unreachable,
        format!("{} has been silent for {seconds} s", host(url)),
    )
}

fn host(url: &Url) -> String {
    let name = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"))
}

fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        // `io::Error::source` skips the error that it wraps; look at that one too.
        if let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref)
            && let Some(found) = find::<T>(inner)
        {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn says(error: &(dyn StdError + 'static), text: &str) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.to_string().contains(text) {
            return true;
        }
        next = error.source();
    }
    false
}
