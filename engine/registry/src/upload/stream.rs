//! Uploads that begin before their digest is known: POST, a PATCH for every 8 MiB, PUT with the digest.
//!
//! Every chunk is kept until the registry has acknowledged it. After a failure the registry is asked how far it got, and
//! the upload goes on from there. A registry that refuses the first chunk gets the blob in one piece instead, from a
//! temporary file.

use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use http::{Method, header};
use sha2::{Digest as _, Sha256};
use slipway_oci::Digest;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use super::{BlobSource, Session, location, writer::BlobWriter};
use crate::{
    error::{Class, Error, Result},
    repository::{Repository, Route},
    transport::{Answer, Backoff, Outgoing, Payload},
};

/// Chunks are memory; a registry that wants larger ones gets the blob in one piece.
const MAX_CHUNK: u64 = 64 << 20;

/// A blob that was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadedBlob {
    /// Of all bytes written.
    pub digest: Digest,
    /// Of all bytes written.
    pub size: u64,
}

/// An upload under way. Nothing is visible in the registry before [`BlobUpload::finish`].
pub struct BlobUpload {
    repository: Repository,
    route: Route,
    mode: Mode,
    chunk: usize,
    buffer: BytesMut,
    /// Bytes acknowledged by the registry.
    sent: u64,
    size: u64,
    hasher: Sha256,
    expected: Option<Digest>,
}

enum Mode {
    Chunks(Session),
    /// Whole at the end: chunks are refused, or wanted too large.
    Spool {
        path: tempfile::TempPath,
        file: tokio::fs::File,
    },
    /// A failed upload takes no more.
    Broken,
}

impl std::fmt::Debug for BlobUpload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlobUpload({}, {} bytes)", self.repository, self.size)
    }
}

impl Repository {
    /// Opens an upload for a blob whose digest is not known yet.
    pub async fn start_upload(&self) -> Result<BlobUpload> {
        let start = async {
            let route = self.route()?;
            let session = self.session(&route).await?;
            let mut upload = BlobUpload::resume(self.clone(), route, session);
            if upload.route.endpoint.refuses_chunks.load(Ordering::Relaxed) {
                upload.spool().await?;
            }
            Ok(upload)
        };
        start.await.map_err(self.failed(|| "start an upload".to_owned()))
    }

    /// Stores everything that `reader` gives.
    pub async fn put_blob_stream(&self, reader: impl AsyncRead + Send) -> Result<UploadedBlob> {
        let mut upload = self.start_upload().await?;
        tokio::pin!(reader);
        loop {
            let mut piece = BytesMut::with_capacity(256 << 10);
            match reader.read_buf(&mut piece).await {
                Ok(0) => return upload.finish().await,
                Ok(_) => upload.write(piece.freeze()).await?,
                Err(error) => {
                    upload.abort().await;
                    return Err(self.failed(|| "upload a blob".to_owned())(Error::from_io(error)));
                }
            }
        }
    }
}

impl BlobUpload {
    pub(super) fn resume(repository: Repository, route: Route, session: Session) -> Self {
        let chunk = repository.registries.config().upload.chunk_size.max(1);
        let chunk = (chunk as u64)
            .max(session.min_chunk)
            .min(MAX_CHUNK.max(chunk as u64)) as usize;
        Self {
            repository,
            route,
            chunk,
            mode: Mode::Chunks(session),
            buffer: BytesMut::new(),
            sent: 0,
            size: 0,
            hasher: Sha256::new(),
            expected: None,
        }
    }

    /// Fails at the end if the bytes have another digest.
    pub(super) fn for_digest(mut self, digest: Digest) -> Self {
        self.expected = Some(digest);
        self
    }

    /// Takes the next bytes; sends a chunk when one is full.
    ///
    /// # Errors
    /// Those of the network after retries, and [`Class::Local`] for the temporary file. The upload is over then.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let outcome = self.push(bytes).await;
        outcome.map_err(|error| self.failed(error))
    }

    pub(super) async fn push(&mut self, bytes: Bytes) -> Result<()> {
        self.hasher.update(&bytes);
        self.size += bytes.len() as u64;
        if let Mode::Spool { file, .. } = &mut self.mode {
            return file.write_all(&bytes).await.map_err(spool_error);
        }
        self.buffer.extend_from_slice(&bytes);
        if let Mode::Chunks(Session { min_chunk, .. }) = &self.mode
            && *min_chunk > self.chunk as u64
        {
            return self.spool().await;
        }
        while matches!(self.mode, Mode::Chunks(_)) && self.buffer.len() >= self.chunk {
            let chunk = self.buffer.split_to(self.chunk).freeze();
            if let Err(error) = self.send_chunk(chunk).await {
                self.mode = Mode::Broken;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Sends what is left and makes the blob exist.
    ///
    /// # Errors
    /// Those of the network after retries. The blob does not exist then.
    pub async fn finish(self) -> Result<UploadedBlob> {
        let repository = self.repository.clone();
        self.close()
            .await
            .map_err(repository.failed(|| "upload a blob".to_owned()))
    }

    pub(super) async fn close(mut self) -> Result<UploadedBlob> {
        let digest = Digest::from_sha256(std::mem::take(&mut self.hasher).finalize().into());
        if let Some(expected) = self.expected.take().filter(|expected| *expected != digest) {
            let size = self.size;
            self.abort().await;
            return Err(Error::new(
                Class::DigestMismatch,
                format!("the {size} bytes to upload have digest {digest} instead of {expected}"),
            ));
        }
        let done = UploadedBlob {
            digest: digest.clone(),
            size: self.size,
        };
        if self.sent > 0 && !self.buffer.is_empty() {
            let last = self.buffer.split().freeze();
            self.send_chunk(last).await?;
        }
        match self.mode {
            // Less than one chunk: every registry takes it in one piece.
            Mode::Chunks(session) if self.sent == 0 => {
                let source = BlobSource::Bytes(self.buffer.freeze());
                let (repository, route) = (&self.repository, &self.route);
                repository
                    .send_blob(route, Some(session), &digest, self.size, &source, false)
                    .await?;
            }
            Mode::Chunks(session) => {
                finish_chunks(&self.repository, &self.route, &session, &digest).await?;
            }
            Mode::Spool { path, mut file } => {
                file.flush().await.map_err(spool_error)?;
                drop(file);
                let source = BlobSource::File(path.to_path_buf());
                self.repository
                    .send_blob(&self.route, None, &digest, self.size, &source, false)
                    .await?;
            }
            Mode::Broken => return Err(Error::new(Class::Local, "the upload had already failed")),
        }
        Ok(done)
    }

    /// Gives up; the registry forgets what it has.
    pub async fn abort(self) {
        if let Mode::Chunks(session) = self.mode {
            self.repository.cancel(&self.route, session).await;
        }
    }

    /// A `std::io::Write` for a blocking thread. Call it within the runtime that shall do the sending.
    pub fn into_writer(self) -> BlobWriter {
        BlobWriter::new(self)
    }

    async fn send_chunk(&mut self, mut rest: Bytes) -> Result<()> {
        let retry = self.repository.registries.config().retry.clone();
        let mut backoff = Backoff::new(&retry);
        while !rest.is_empty() {
            let Mode::Chunks(session) = &mut self.mode else {
                return Ok(());
            };
            let end = self.sent + rest.len() as u64;
            let outgoing = Outgoing::new(Method::PATCH, session.url.clone())
                .header(header::CONTENT_TYPE, "application/octet-stream")
                .header(header::CONTENT_RANGE, &format!("{}-{}", self.sent, end - 1))
                .with_bytes(rest.clone())
                // Doing it twice would append it twice where ranges are not looked at.
                .once();
            let error = match self
                .repository
                .write(&self.route, outgoing, &[200, 201, 202, 204])
                .await
            {
                Ok(answer) => {
                    if answer.header("location").is_some() {
                        session.url = location(&answer)?;
                    }
                    let taken = taken(&answer)
                        .filter(|taken| *taken > self.sent && *taken < end)
                        .unwrap_or(end);
                    let _ = rest.split_to((taken - self.sent) as usize);
                    self.sent = taken;
                    backoff.reset();
                    continue;
                }
                Err(error) => error,
            };
            if self.sent == 0 && refuses_chunks(&error) {
                tracing::info!(registry = self.repository.registry(), reason = %error, "chunked uploads are refused, using one request");
                self.route.endpoint.refuses_chunks.store(true, Ordering::Relaxed);
                // Everything so far is still in hand.
                let later = std::mem::take(&mut self.buffer);
                self.buffer = BytesMut::from(rest.as_ref());
                self.buffer.unsplit(later);
                return self.spool().await;
            }
            if !error.is_transient() && error.status() != Some(416) {
                return Err(error);
            }
            let Some(delay) = backoff.next(retry.attempts, error.retry_after()) else {
                return Err(error);
            };
            tracing::debug!(sent = self.sent, reason = %error, "chunk failed, asking how far it got");
            tokio::time::sleep(delay).await;
            let (url, reached) = self.progress().await?;
            if let Mode::Chunks(session) = &mut self.mode {
                session.url = url;
            }
            if reached < self.sent || reached > end {
                return Err(Error::new(
                    Class::Server,
                    format!(
                        "the registry says it has {reached} bytes of the upload, but {} were acknowledged",
                        self.sent
                    ),
                ));
            }
            let _ = rest.split_to((reached - self.sent) as usize);
            self.sent = reached;
        }
        Ok(())
    }

    /// `GET <session>`: where to go on, and from which byte.
    async fn progress(&self) -> Result<(url::Url, u64)> {
        let Mode::Chunks(session) = &self.mode else {
            return Err(Error::new(Class::Local, "the upload had already failed"));
        };
        let outgoing = Outgoing::new(Method::GET, session.url.clone());
        let answer = match self
            .repository
            .write(&self.route, outgoing, &[200, 202, 204])
            .await
        {
            Err(error) if error.is_not_found() => {
                return Err(error.reclassify(Class::Server).advise(
                    "the registry has lost an upload that was under way: does it run with several replicas without \
                     shared storage, or was it restarted?",
                ));
            }
            other => other?,
        };
        let url = if answer.header("location").is_some() {
            location(&answer)?
        } else {
            session.url.clone()
        };
        Ok((url, taken(&answer).unwrap_or(0)))
    }

    /// From here on into a file.
    async fn spool(&mut self) -> Result<()> {
        let dir = self
            .repository
            .registries
            .config()
            .upload
            .spool_dir
            .clone()
            .unwrap_or_else(std::env::temp_dir);
        let file = tokio::task::spawn_blocking(move || {
            tempfile::Builder::new().prefix("slipway-blob-").tempfile_in(dir)
        })
        .await
        .map_err(|error| spool_error(std::io::Error::other(error)))?
        .map_err(spool_error)?;
        let (file, path) = file.into_parts();
        let mut file = tokio::fs::File::from_std(file);
        file.write_all(&std::mem::take(&mut self.buffer))
            .await
            .map_err(spool_error)?;
        if let Mode::Chunks(session) = std::mem::replace(&mut self.mode, Mode::Spool { path, file }) {
            self.repository.cancel(&self.route, session).await;
        }
        Ok(())
    }

    fn failed(&self, error: Error) -> Error {
        self.repository.failed(|| "upload a blob".to_owned())(error)
    }
}

/// The PUT after the last chunk. If its answer is lost, a second one finds no upload: then the blob itself is looked for.
async fn finish_chunks(
    repository: &Repository,
    route: &Route,
    session: &Session,
    digest: &Digest,
) -> Result<()> {
    let retry = &repository.registries.config().retry;
    let mut backoff = Backoff::new(retry);
    loop {
        let Err(error) = repository.complete(route, session, digest, Payload::Empty).await else {
            return Ok(());
        };
        let uncertain = error.is_transient() || error.is_not_found();
        if !uncertain {
            return Err(error);
        }
        if matches!(repository.direct().blob_size(digest).await, Ok(Some(_))) {
            return Ok(());
        }
        let Some(delay) = backoff
            .next(retry.attempts, error.retry_after())
            .filter(|_| error.is_transient())
        else {
            return Err(error);
        };
        tokio::time::sleep(delay).await;
    }
}

/// Bytes that the registry has, from `Range: 0-<last>`. `0-0` is what some say for "none".
fn taken(answer: &Answer) -> Option<u64> {
    let range = answer.header("range")?;
    let last: u64 = range
        .trim_start_matches("bytes=")
        .split_once('-')?
        .1
        .trim()
        .parse()
        .ok()?;
    Some(if last == 0 { 0 } else { last + 1 })
}

/// A refusal of the method rather than of the caller or the moment.
fn refuses_chunks(error: &Error) -> bool {
    match error.status() {
        Some(401 | 403 | 408 | 413 | 416 | 429) | None => false,
        Some(501) => true,
        Some(status) => (400..500).contains(&status),
    }
}

fn spool_error(error: std::io::Error) -> Error {
    Error::new(Class::Local, "the temporary file for a blob cannot be written")
        .because(error)
        .advise("the registry takes no chunks, so the whole layer needs room there")
}
