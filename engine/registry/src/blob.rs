//! Blobs out of a registry: looked for, and read as streams that are verified while they flow.

use std::{
    fmt,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream::BoxStream};
use http::{Method, header};
use sha2::{Digest as _, Sha256};
use slipway_oci::Digest;
use tokio::io::{AsyncRead, ReadBuf};
use url::Url;

use crate::{
    error::{Class, Error, Result},
    manifest::explain_no_delete,
    repository::Repository,
    transport::{Answer, Backoff, Outgoing, next_piece},
};

/// Existence checks under way at once for one call.
const PARALLEL_CHECKS: usize = 16;

impl Repository {
    /// The size of a blob in bytes; `None` if it is not in this repository.
    #[tracing::instrument(level = "debug", skip_all, fields(repository = %self, %digest))]
    pub async fn blob_size(&self, digest: &Digest) -> Result<Option<u64>> {
        let answer = self
            .read(false, &[200], |route| {
                Ok(Outgoing::new(
                    Method::HEAD,
                    route.url(&format!("blobs/{digest}"))?,
                ))
            })
            .await;
        match answer {
            // A blob without a length is there all the same.
            Ok(answer) => Ok(Some(content_length(&answer).unwrap_or_default())),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(self.failed(|| format!("look for blob {digest}"))(error)),
        }
    }

    /// Whether each of these blobs is there; several are asked for at once.
    pub async fn exists_many(&self, digests: &[Digest]) -> Result<Vec<bool>> {
        futures::stream::iter(digests.to_vec())
            .map(|digest| async move { Ok(self.blob_size(&digest).await?.is_some()) })
            .buffered(PARALLEL_CHECKS)
            .try_collect()
            .await
    }

    /// Opens a blob for reading. The stream ends without an error only if its bytes have this digest (and size, if
    /// given); it goes on by itself after a cut connection.
    ///
    /// # Errors
    /// [`Class::NotFound`] and those of the network here; [`Class::DigestMismatch`] from the stream.
    #[tracing::instrument(level = "debug", skip_all, fields(repository = %self, %digest))]
    pub async fn open_blob(&self, digest: &Digest, size: Option<u64>) -> Result<BlobReader> {
        let mut download = Download {
            repository: self.clone(),
            digest: digest.clone(),
            size,
            offset: 0,
            skip: 0,
            hasher: Sha256::new(),
            body: None,
            backoff: Backoff::new(&self.registries.config().retry),
            done: false,
        };
        download.connect().await.map_err(|error| download.failed(error))?;
        let stream = futures::stream::try_unfold(download, |mut download| async move {
            match download.next().await {
                Ok(Some(piece)) => Ok(Some((piece, download))),
                Ok(None) => Ok(None),
                Err(error) => Err(download.failed(error)),
            }
        });
        Ok(BlobReader {
            stream: stream.boxed(),
            rest: Bytes::new(),
        })
    }

    /// A whole blob in memory, verified; [`Class::TooLarge`] above `limit` bytes.
    pub async fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Bytes> {
        let mut reader = self.open_blob(digest, None).await?;
        let mut all = BytesMut::new();
        while let Some(piece) = reader.try_next().await? {
            if (all.len() + piece.len()) as u64 > limit {
                let error = Error::new(Class::TooLarge, format!("it is larger than {limit} bytes"));
                return Err(self.failed(|| format!("read blob {digest}"))(error));
            }
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }

    /// A part of a blob. **Not verified**: the digest is that of the whole; the caller must know the part's own.
    ///
    /// # Errors
    /// [`Class::InvalidResponse`] if fewer bytes come than asked for (the range ends beyond the blob).
    #[tracing::instrument(level = "debug", skip_all, fields(repository = %self, %digest))]
    pub async fn read_blob_range(&self, digest: &Digest, range: Range<u64>) -> Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        self.read_range(digest, &range)
            .await
            .map_err(self.failed(|| format!("read bytes {}-{} of blob {digest}", range.start, range.end)))
    }

    async fn read_range(&self, digest: &Digest, range: &Range<u64>) -> Result<Bytes> {
        let stall = self.registries.config().retry.stall_timeout;
        let mut backoff = Backoff::new(&self.registries.config().retry);
        let wanted = (range.end - range.start) as usize;
        let mut all = BytesMut::with_capacity(wanted.min(1 << 20));
        loop {
            let from = range.start + all.len() as u64;
            let (url, mut body, mut skip) = self.open_at(digest, from, Some(range.end)).await?;
            let failure = loop {
                match next_piece(&mut body, &url, stall).await {
                    Ok(Some(mut piece)) => {
                        let skipped = skip.min(piece.len() as u64);
                        piece.advance(skipped as usize);
                        skip -= skipped;
                        piece.truncate(wanted - all.len());
                        all.extend_from_slice(&piece);
                        if all.len() == wanted {
                            return Ok(all.freeze());
                        }
                    }
                    Ok(None) => {
                        break Error::new(Class::InvalidResponse, "the blob ends before the range does");
                    }
                    Err(error) => break error,
                }
            };
            let Some(delay) = backoff.next(self.registries.config().retry.attempts, None) else {
                return Err(failure);
            };
            if failure.class() != Class::Unreachable {
                return Err(failure);
            }
            tokio::time::sleep(delay).await;
        }
    }

    /// A body that begins at `from`, and how many bytes of it to leave out first.
    async fn open_at(&self, digest: &Digest, from: u64, end: Option<u64>) -> Result<(Url, Body, u64)> {
        let ranged = from > 0 || end.is_some();
        let accepted: &[u16] = if ranged { &[200, 206] } else { &[200] };
        let answer = self
            .read(false, accepted, |route| {
                let outgoing = Outgoing::new(Method::GET, route.url(&format!("blobs/{digest}"))?);
                Ok(match (ranged, end) {
                    (false, _) => outgoing,
                    (true, None) => outgoing.header(header::RANGE, &format!("bytes={from}-")),
                    (true, Some(end)) => outgoing.header(header::RANGE, &format!("bytes={from}-{}", end - 1)),
                })
            })
            .await?;
        let skip = match answer.status().as_u16() {
            206 => {
                let start = answer.header("content-range").and_then(range_start);
                if start != Some(from) {
                    return Err(Error::new(
                        Class::InvalidResponse,
                        "the answer is another range than asked for",
                    ));
                }
                0
            }
            // The server does not do ranges: all of it comes again.
            _ => from,
        };
        Ok((answer.url.clone(), answer.response.bytes_stream().boxed(), skip))
    }

    /// Removes a blob from the repository.
    ///
    /// # Errors
    /// [`Class::NotFound`]; [`Class::Unsupported`] where deletion is switched off.
    #[tracing::instrument(level = "debug", skip_all, fields(repository = %self, %digest))]
    pub async fn delete_blob(&self, digest: &Digest) -> Result<()> {
        let delete = async {
            let route = self.route()?;
            let url = route.url(&format!("blobs/{digest}"))?;
            self.write(&route, Outgoing::new(Method::DELETE, url), &[200, 202, 204])
                .await
        };
        match delete.await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed(|| format!("delete blob {digest}"))(
                explain_no_delete(error),
            )),
        }
    }
}

/// The bytes of a blob: a `Stream` of pieces or an `AsyncRead`, as the caller likes. Verified: an end without an error
/// means that everything that came has the digest asked for.
pub struct BlobReader {
    stream: BoxStream<'static, Result<Bytes>>,
    /// What `AsyncRead` has not yet handed out.
    rest: Bytes,
}

impl fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BlobReader")
    }
}

impl Stream for BlobReader {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.rest))));
        }
        self.stream.poll_next_unpin(context)
    }
}

impl AsyncRead for BlobReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.stream.poll_next_unpin(context)) {
                Some(Ok(piece)) => self.rest = piece,
                Some(Err(error)) => return Poll::Ready(Err(error.into())),
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest.split_to(length));
        Poll::Ready(Ok(()))
    }
}

type Body = BoxStream<'static, reqwest::Result<Bytes>>;

/// A blob on its way.
struct Download {
    repository: Repository,
    digest: Digest,
    size: Option<u64>,
    /// Bytes handed out so far.
    offset: u64,
    /// Bytes of the body to leave out: a server without ranges sends them again.
    skip: u64,
    hasher: Sha256,
    body: Option<(Url, Body)>,
    backoff: Backoff,
    done: bool,
}

impl Download {
    async fn connect(&mut self) -> Result<()> {
        let (url, body, skip) = self.repository.open_at(&self.digest, self.offset, None).await?;
        self.body = Some((url, body));
        self.skip = skip;
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        let retry = self.repository.registries.config().retry.clone();
        while !self.done {
            let failure = match &mut self.body {
                None => match self.connect().await {
                    Ok(()) => continue,
                    Err(error) => return Err(error),
                },
                Some((url, body)) => match next_piece(body, url, retry.stall_timeout).await {
                    Ok(Some(piece)) => {
                        if let Some(piece) = self.take(piece)? {
                            return Ok(Some(piece));
                        }
                        continue;
                    }
                    Ok(None) if self.size.is_some_and(|size| self.offset < size) => Error::new(
                        Class::Unreachable,
                        "the connection was closed before the blob's end",
                    ),
                    Ok(None) => {
                        self.finish()?;
                        continue;
                    }
                    Err(error) => error,
                },
            };
            self.body = None;
            let delay = self
                .backoff
                .next(retry.attempts, None)
                .filter(|_| failure.class() == Class::Unreachable);
            let Some(delay) = delay else { return Err(failure) };
            tracing::debug!(digest = %self.digest, offset = self.offset, reason = %failure, "download cut, going on");
            tokio::time::sleep(delay).await;
        }
        Ok(None)
    }

    /// Counts and hashes a piece; `None` if nothing of it is new.
    fn take(&mut self, mut piece: Bytes) -> Result<Option<Bytes>> {
        let skipped = self.skip.min(piece.len() as u64);
        piece.advance(skipped as usize);
        self.skip -= skipped;
        if piece.is_empty() {
            return Ok(None);
        }
        self.offset += piece.len() as u64;
        if let Some(size) = self.size.filter(|size| self.offset > *size) {
            return Err(Error::new(
                Class::DigestMismatch,
                format!("more than the promised {size} bytes come"),
            ));
        }
        self.hasher.update(&piece);
        self.backoff.reset();
        Ok(Some(piece))
    }

    fn finish(&mut self) -> Result<()> {
        let digest = Digest::from_sha256(std::mem::take(&mut self.hasher).finalize().into());
        if digest != self.digest {
            return Err(Error::new(
                Class::DigestMismatch,
                format!("the {} bytes that came have digest {digest}", self.offset),
            )
            .advise(
                "the registry, a mirror or a proxy has damaged it; push it again or clear the mirror's cache",
            ));
        }
        self.done = true;
        Ok(())
    }

    fn failed(&self, error: Error) -> Error {
        self.repository.failed(|| format!("read blob {}", self.digest))(error)
    }
}

pub(crate) fn content_length(answer: &Answer) -> Option<u64> {
    answer.header("content-length")?.parse().ok()
}

/// The first number of `bytes 5-9/10`.
fn range_start(header: &str) -> Option<u64> {
    header
        .trim()
        .strip_prefix("bytes")?
        .trim_start()
        .split('-')
        .next()?
        .parse()
        .ok()
}
