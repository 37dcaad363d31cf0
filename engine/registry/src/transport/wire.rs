//! Sends one request over the network, again if it failed in a way that passes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http::{HeaderMap, StatusCode};
use tokio::time::{Instant, sleep, timeout};
use url::Url;

use super::{
    Endpoint, Outgoing, Payload,
    fault::{Nature, classify, stalled},
    shown,
};
use crate::{
    config::RetryPolicy,
    error::{Class, Error, Result},
};

/// The network, with patience.
pub(crate) struct Wire {
    pub(crate) retry: RetryPolicy,
}

impl Wire {
    /// One answer to one request, whatever its status; redirects and 401 are the caller's.
    ///
    /// Repeats: failures to connect and 429 always (nothing was done), cut connections and 408/5xx if `repeatable`.
    pub(crate) async fn exchange(
        &self,
        endpoint: &Endpoint,
        outgoing: &Outgoing,
    ) -> Result<reqwest::Response> {
        let mut backoff = Backoff::new(&self.retry);
        loop {
            let outcome = self.once(endpoint, outgoing).await;
            let (wait, attempts, what) = match &outcome {
                Ok(response) => {
                    let status = response.status();
                    if !transient(status) || (!outgoing.repeatable && status != StatusCode::TOO_MANY_REQUESTS)
                    {
                        return outcome.map_err(|(_, error)| error);
                    }
                    (
                        retry_after(response.headers()),
                        self.retry.attempts,
                        status.to_string(),
                    )
                }
                Err((Nature::NoConnection, error)) => (None, self.retry.connect_attempts, error.to_string()),
                Err((Nature::Cut, error)) if outgoing.repeatable => {
                    (None, self.retry.attempts, error.to_string())
                }
                Err(_) => return outcome.map_err(|(_, error)| error),
            };
            let Some(delay) = backoff.next(attempts, wait) else {
                return outcome.map_err(|(_, error)| match backoff.tries {
                    0 | 1 => error,
                    tries => error.after_tries(tries),
                });
            };
            tracing::debug!(
                method = %outgoing.method, url = %shown(&outgoing.url), reason = %what, delay_ms = delay.as_millis(),
                "request failed, trying again"
            );
            drop(outcome);
            sleep(delay).await;
        }
    }

    async fn once(
        &self,
        endpoint: &Endpoint,
        outgoing: &Outgoing,
    ) -> Result<reqwest::Response, (Nature, Error)> {
        let moved = Arc::new(AtomicU64::new(0));
        let mut request = endpoint
            .client(&outgoing.url)
            .request(outgoing.method.clone(), outgoing.url.clone())
            .headers(outgoing.headers.clone());
        match &outgoing.payload {
            Payload::Empty => {
                // hyper sends no length for a body that is not there, and some registries answer 411 to that.
                if matches!(outgoing.method.as_str(), "POST" | "PUT" | "PATCH") {
                    request = request.header(http::header::CONTENT_LENGTH, 0);
                }
            }
            Payload::Bytes(bytes) => {
                request = request
                    .body(body_of(bytes.clone(), moved.clone()))
                    .header(http::header::CONTENT_LENGTH, bytes.len());
            }
            Payload::Stream { size, open } => {
                let stream = open().await.map_err(|error| (Nature::Final, error))?;
                let moved = moved.clone();
                let counted = stream.map(move |item| {
                    let bytes = item.map_err(Error::from_io)?;
                    moved.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    Ok::<_, Error>(bytes)
                });
                request = request
                    .body(reqwest::Body::wrap_stream(counted))
                    .header(http::header::CONTENT_LENGTH, *size);
            }
        }
        let sending = request.send();
        tokio::pin!(sending);
        loop {
            let before = moved.load(Ordering::Relaxed);
            match timeout(self.retry.stall_timeout, &mut sending).await {
                Ok(Ok(response)) => {
                    tracing::debug!(
                        method = %outgoing.method, url = %shown(&outgoing.url), status = response.status().as_u16(),
                        "answered"
                    );
                    return Ok(response);
                }
                Ok(Err(error)) => return Err(classify(error, &outgoing.url)),
                // A long upload is no stall as long as its body moves.
                Err(_) if moved.load(Ordering::Relaxed) != before => {}
                Err(_) => {
                    return Err((
                        Nature::Cut,
                        stalled(&outgoing.url, self.retry.stall_timeout.as_secs()),
                    ));
                }
            }
        }
    }
}

/// A body in memory, handed over in pieces so that the stall watch sees it move.
fn body_of(bytes: Bytes, moved: Arc<AtomicU64>) -> reqwest::Body {
    const PIECE: usize = 256 << 10;
    let pieces = futures::stream::unfold(bytes, move |mut rest| {
        let moved = moved.clone();
        async move {
            if rest.is_empty() {
                return None;
            }
            let piece = rest.split_to(rest.len().min(PIECE));
            moved.fetch_add(piece.len() as u64, Ordering::Relaxed);
            Some((Ok::<_, std::io::Error>(piece), rest))
        }
    });
    reqwest::Body::wrap_stream(pieces)
}

fn transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// `Retry-After` in either of its forms (RFC 9110 §10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

/// Waits between tries: doubling, with jitter, bounded in number and in sum.
pub(crate) struct Backoff {
    policy: RetryPolicy,
    tries: u32,
    waited: Duration,
}

impl Backoff {
    pub(crate) fn new(policy: &RetryPolicy) -> Self {
        Self {
            policy: policy.clone(),
            tries: 0,
            waited: Duration::ZERO,
        }
    }

    /// The wait before the next of `attempts` tries; `None` when it is enough. `asked` is what the server wants.
    pub(crate) fn next(&mut self, attempts: u32, asked: Option<Duration>) -> Option<Duration> {
        self.tries += 1;
        if self.tries >= attempts {
            return None;
        }
        let doubled = self
            .policy
            .base_delay
            .saturating_mul(1 << (self.tries - 1).min(16));
        let full = doubled.min(self.policy.max_delay);
        // Half fixed, half random: many pods that failed together do not come back together.
        let own = full / 2 + full.mul_f64(fastrand::f64() / 2.0);
        let delay = asked.map_or(own, |asked| asked.max(Duration::from_millis(1)) + own / 4);
        if self.waited + delay > self.policy.max_total_wait {
            return None;
        }
        self.waited += delay;
        Some(delay)
    }

    /// Progress was made: the next failure is a first one again.
    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }
}

/// Reads a body of at most `limit` bytes.
pub(crate) async fn read_limited(response: reqwest::Response, limit: u64, stall: Duration) -> Result<Bytes> {
    let url = response.url().clone();
    let too_large = || {
        Error::new(
            Class::TooLarge,
            format!("the answer is larger than {limit} bytes"),
        )
        .advise("this is no document that belongs here; is it really an image?")
    };
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let mut stream = response.bytes_stream();
    let mut all = BytesMut::new();
    while let Some(piece) = next_piece(&mut stream, &url, stall).await? {
        if (all.len() + piece.len()) as u64 > limit {
            return Err(too_large());
        }
        all.extend_from_slice(&piece);
    }
    Ok(all.freeze())
}

/// The next piece of a body, with an eye on the clock.
pub(crate) async fn next_piece<S>(stream: &mut S, url: &Url, stall: Duration) -> Result<Option<Bytes>>
where
    S: futures::Stream<Item = reqwest::Result<Bytes>> + Unpin,
{
    match tokio::time::timeout_at(Instant::now() + stall, stream.next()).await {
        Ok(None) => Ok(None),
        Ok(Some(Ok(piece))) => Ok(Some(piece)),
        Ok(Some(Err(error))) => Err(classify(error, url).1),
        Err(_) => Err(stalled(url, stall.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_as_seconds_or_date() {
        let read = |text: &str| {
            retry_after(&HeaderMap::from_iter([(
                http::header::RETRY_AFTER,
                text.parse().unwrap(),
            )]))
        };
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        assert_eq!(read("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        let soon = read(&httpdate::fmt_http_date(
            SystemTime::now() + Duration::from_secs(100),
        ))
        .unwrap();
        assert!((90..=100).contains(&soon.as_secs()), "{soon:?}");
        assert_eq!(read("soon"), None);
    }

    #[test]
    fn waits_grow_are_bounded_and_give_way_to_the_server() {
        let policy = RetryPolicy {
            max_total_wait: Duration::from_secs(20),
            ..RetryPolicy::default()
        };
        let mut backoff = Backoff::new(&policy);
        let waits: Vec<_> = std::iter::from_fn(|| backoff.next(6, None)).collect();
        assert_eq!(waits.len(), 5);
        for (index, wait) in waits.iter().enumerate() {
            let full = policy.base_delay * (1 << index);
            assert!(*wait >= full / 2 && *wait <= full, "{index}: {wait:?}");
        }
        assert!(
            Backoff::new(&policy).next(6, Some(Duration::from_secs(10))) >= Some(Duration::from_secs(10))
        );
        assert_eq!(Backoff::new(&policy).next(6, Some(Duration::from_mins(1))), None);
    }
}
