//! Blobs into a registry (distribution specification, "Pushing Blobs").
//!
//! With a known digest: mounted from another repository where that works, else one PUT with a known length, which every
//! registry takes. With a digest that is only known at the end: chunks, see [`stream`].

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, future::BoxFuture, stream::BoxStream};
use http::{Method, header};
use slipway_oci::Digest;
use tokio_util::io::ReaderStream;
use url::Url;

use crate::{
    auth::Scopes,
    error::{Class, Error, Result},
    repository::{Repository, Route},
    transport::{Answer, Backoff, Call, Endpoint, Open, Outgoing, Payload, bad_location},
};

mod stream;
mod writer;

pub use stream::{BlobUpload, UploadedBlob};
pub use writer::BlobWriter;

/// Where the bytes of a blob come from; readable more than once, because an upload may have to start again.
#[derive(Clone)]
pub enum BlobSource {
    /// In memory.
    Bytes(Bytes),
    /// A file that does not change meanwhile.
    File(PathBuf),
    /// Opened anew for each try.
    Reopen(Reopen),
}

/// Opens the bytes from their beginning.
pub type Reopen =
    Arc<dyn Fn() -> BoxFuture<'static, Result<BoxStream<'static, std::io::Result<Bytes>>>> + Send + Sync>;

impl std::fmt::Debug for BlobSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::File(path) => write!(f, "File({})", path.display()),
            Self::Reopen(_) => f.write_str("Reopen"),
        }
    }
}

impl BlobSource {
    fn open(&self) -> Open {
        match self.clone() {
            Self::Reopen(open) => open,
            Self::Bytes(bytes) => Arc::new(move || {
                let bytes = bytes.clone();
                Box::pin(async move { Ok(futures::stream::iter([Ok(bytes)]).boxed()) })
            }),
            Self::File(path) => Arc::new(move || {
                let path = path.clone();
                Box::pin(async move {
                    let file = tokio::fs::File::open(&path).await.map_err(|error| {
                        Error::new(Class::Local, format!("cannot open {}", path.display())).because(error)
                    })?;
                    Ok(ReaderStream::with_capacity(file, 256 << 10).boxed())
                })
            }),
        }
    }

    fn payload(&self, size: u64) -> Payload {
        match self {
            Self::Bytes(bytes) => Payload::Bytes(bytes.clone()),
            _ => Payload::Stream {
                size,
                open: self.open(),
            },
        }
    }
}

/// How to put a blob.
#[derive(Debug, Clone, Default)]
pub struct PutOptions {
    /// Repositories that may have the blob already; those at the same registry are tried in order.
    pub mount_from: Vec<Repository>,
    /// In chunks instead of one request; for proxies that limit a request's size.
    pub chunked: bool,
    /// The caller has just looked: do not ask again whether it is there.
    pub known_absent: bool,
}

/// How a blob came to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It was there.
    Present,
    /// The registry took it from another of its repositories.
    Mounted,
    /// Its bytes were sent.
    Uploaded,
}

/// An upload that the registry has opened.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) url: Url,
    /// `OCI-Chunk-Min-Length`, in bytes.
    pub(crate) min_chunk: u64,
}

pub(crate) enum Opened {
    Mounted,
    Session(Session),
}

impl Repository {
    /// Stores a blob of known digest and size, unless it is there. Repeats the whole as often as the retry policy says.
    ///
    /// # Errors
    /// [`Class::DigestMismatch`] if the source is not what `digest` says, [`Class::Local`] if it cannot be read,
    /// [`Class::TooLarge`], and those of the network.
    #[tracing::instrument(level = "debug", skip_all, fields(repository = %self, %digest, size))]
    pub async fn put_blob(
        &self,
        digest: &Digest,
        size: u64,
        source: BlobSource,
        options: &PutOptions,
    ) -> Result<Put> {
        self.upload(digest, size, &source, options)
            .await
            .map_err(self.failed(|| format!("upload blob {digest}")))
    }

    async fn upload(
        &self,
        digest: &Digest,
        size: u64,
        source: &BlobSource,
        options: &PutOptions,
    ) -> Result<Put> {
        if !options.known_absent && self.direct().blob_size(digest).await?.is_some() {
            return Ok(Put::Present);
        }
        let route = self.route()?;
        let mut session = None;
        for from in &options.mount_from {
            if from.registry() != self.registry() || from.name() == self.name() {
                continue;
            }
            if let Some(unused) = session.take() {
                self.cancel(&route, unused).await;
            }
            match self.open_session(&route, Some((digest, from))).await {
                Ok(Opened::Mounted) => return Ok(Put::Mounted),
                Ok(Opened::Session(opened)) => session = Some(opened),
                // Not to be had from there is no reason not to send it; what else is wrong, the upload will tell.
                Err(error) => tracing::debug!(%from, %error, "not mounted"),
            }
        }
        self.send_blob(&route, session, digest, size, source, options.chunked)
            .await?;
        Ok(Put::Uploaded)
    }

    /// Sends the bytes, monolithic or in chunks, until the registry has them.
    pub(crate) async fn send_blob(
        &self,
        route: &Route,
        mut session: Option<Session>,
        digest: &Digest,
        size: u64,
        source: &BlobSource,
        mut chunked: bool,
    ) -> Result<()> {
        let retry = &self.registries.config().retry;
        let mut backoff = Backoff::new(retry);
        loop {
            let opened = match session.take() {
                Some(session) => session,
                None => self.session(route).await?,
            };
            let outcome = if chunked {
                // Boxed: a chunked upload of a small blob comes back here.
                Box::pin(self.send_chunks(route, opened, digest, source)).await
            } else {
                let payload = source.payload(size);
                self.complete(route, &opened, digest, payload).await
            };
            let error = match outcome {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            // A proxy's limit on one request: smaller ones may pass.
            if error.class() == Class::TooLarge && !chunked {
                tracing::debug!(%digest, "too large for one request, trying chunks");
                chunked = true;
                continue;
            }
            let lost = error.has_code("BLOB_UPLOAD_UNKNOWN") || error.has_code("BLOB_UPLOAD_INVALID");
            if !error.is_transient() && !lost {
                return Err(error);
            }
            // The answer may have been lost, not the blob.
            if matches!(self.direct().blob_size(digest).await, Ok(Some(_))) {
                return Ok(());
            }
            let Some(delay) = backoff.next(retry.attempts, error.retry_after()) else {
                return Err(error);
            };
            tracing::debug!(%digest, reason = %error, "upload failed, starting it again");
            tokio::time::sleep(delay).await;
        }
    }

    async fn send_chunks(
        &self,
        route: &Route,
        session: Session,
        digest: &Digest,
        source: &BlobSource,
    ) -> Result<()> {
        let mut upload = BlobUpload::resume(self.clone(), route.clone(), session).for_digest(digest.clone());
        let mut stream = source.open()().await?;
        while let Some(bytes) = stream.try_next().await.map_err(Error::from_io)? {
            upload.push(bytes).await?;
        }
        upload.close().await.map(|_| ())
    }

    /// Asks the registry to take the blob from one of its other repositories. `false`: it would rather have the bytes.
    ///
    /// # Errors
    /// Those of the network, and refusals. [`Class::Unsupported`] if `from` is at another registry.
    #[tracing::instrument(level = "debug", skip_all, fields(repository = %self, %digest, %from))]
    pub async fn mount_blob(&self, digest: &Digest, from: &Repository) -> Result<bool> {
        let mount = async {
            if from.registry() != self.registry() {
                return Err(Error::new(
                    Class::Unsupported,
                    "blobs are mounted only within one registry",
                ));
            }
            let route = self.route()?;
            match self.open_session(&route, Some((digest, from))).await? {
                Opened::Mounted => Ok(true),
                Opened::Session(session) => {
                    self.cancel(&route, session).await;
                    Ok(false)
                }
            }
        };
        mount
            .await
            .map_err(self.failed(|| format!("mount blob {digest} from {}", from.name())))
    }

    pub(crate) async fn session(&self, route: &Route) -> Result<Session> {
        match self.open_session(route, None).await? {
            Opened::Session(session) => Ok(session),
            Opened::Mounted => Err(Error::new(
                Class::InvalidResponse,
                "the registry has opened no upload",
            )),
        }
    }

    /// `POST …/blobs/uploads/`, with or without an offer to mount.
    async fn open_session(&self, route: &Route, mount: Option<(&Digest, &Repository)>) -> Result<Opened> {
        let mut url = route.url("blobs/uploads/")?;
        let mut scopes = Scopes::repository(&route.path, &["pull", "push"]);
        if let Some((digest, from)) = mount {
            url.query_pairs_mut()
                .append_pair("mount", digest.as_str())
                .append_pair("from", from.name());
            // Without the right to read the other repository in the same token, Docker Hub refuses.
            scopes = scopes.merged(&Scopes::repository(from.name(), &["pull"]));
        }
        let outgoing = Outgoing::new(Method::POST, url);
        let answer = self
            .registries
            .send(Call {
                route,
                outgoing,
                scopes,
            })
            .await?
            .expect(&[201, 202])
            .await?;
        if mount.is_some() && answer.status().as_u16() == 201 {
            return Ok(Opened::Mounted);
        }
        let min_chunk = answer
            .header("oci-chunk-min-length")
            .and_then(|n| n.trim().parse().ok())
            .unwrap_or(0);
        Ok(Opened::Session(Session {
            url: location(&answer)?,
            min_chunk,
        }))
    }

    /// `PUT <session>?digest=…`, with all bytes or after the last chunk.
    pub(crate) async fn complete(
        &self,
        route: &Route,
        session: &Session,
        digest: &Digest,
        payload: Payload,
    ) -> Result<()> {
        let mut url = session.url.clone();
        url.query_pairs_mut().append_pair("digest", digest.as_str());
        let outgoing = Outgoing::new(Method::PUT, url)
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .with_payload(payload)
            .once();
        let answer = self.write(route, outgoing, &[200, 201, 204]).await?;
        let stored = answer
            .header("docker-content-digest")
            .and_then(|stored| stored.parse::<Digest>().ok());
        match stored.filter(|stored| stored != digest) {
            Some(stored) => Err(Error::new(
                Class::DigestMismatch,
                format!("the registry has stored digest {stored} instead"),
            )),
            None => Ok(()),
        }
    }

    /// Tells the registry that an upload is not going on. It would find out by itself some day: errors do not matter.
    pub(crate) async fn cancel(&self, route: &Route, session: Session) {
        let outgoing = Outgoing::new(Method::DELETE, session.url).once();
        let scopes = Scopes::repository(&route.path, &["pull", "push"]);
        let _ = self
            .registries
            .send(Call {
                route,
                outgoing,
                scopes,
            })
            .await;
    }
}

/// Where an upload goes on.
pub(crate) fn location(answer: &Answer) -> Result<Url> {
    let text = answer.header("location").ok_or_else(|| {
        Error::new(
            Class::InvalidResponse,
            "the registry does not say where to upload to (no Location)",
        )
    })?;
    if text.is_empty() {
        return Err(bad_location());
    }
    Endpoint::follow(&answer.url, text)
}
