//! What `ADD` and remote contexts download: files by HTTP, repositories by git. What was fetched stays in the store.

use crate::{
    context::DirContext,
    error::{BuildError, Result},
    exec::Environment,
    store::{SnapshotId, Store},
};
use futures::TryStreamExt as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use slipway_oci::Digest;
use slipway_plan::{GitSource, HttpSource, protocol::FailureReason};
use std::{
    fs::File,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

mod git;

pub use git::GitCheckout;

/// Downloads files and repositories.
#[derive(Clone)]
pub struct Fetcher {
    client: reqwest::Client,
}

/// A download of before.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Known {
    snapshot: SnapshotId,
    digest: Digest,
    etag: Option<String>,
    last_modified: Option<String>,
}

/// A downloaded file.
#[derive(Debug, Clone)]
pub struct Download {
    /// Holds the file under its name.
    pub snapshot: SnapshotId,
    /// Digest of its bytes.
    pub digest: Digest,
    /// `Last-Modified`, seconds since 1970.
    pub modified: Option<i64>,
}

impl Fetcher {
    /// A fetcher with a client of its own. A TLS provider must be installed in the process.
    pub fn new() -> Result<Self> {
        let client = reqwest::Client::builder()
            .user_agent(concat!("slipway/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(20))
            .read_timeout(Duration::from_mins(2))
            .build()
            .map_err(|error| {
                BuildError::new(FailureReason::Internal, format!("failed to set HTTP up: {error}"))
            })?;
        Ok(Self { client })
    }

    pub(crate) async fn http(
        &self,
        environment: &Arc<Environment>,
        source: &HttpSource,
    ) -> Result<DirContext> {
        let vertex = environment.progress.start(format!("fetch {}", source.url));
        match self.download(&environment.store, source).await {
            Ok(download) => {
                vertex.done();
                open(&environment.store, &download.snapshot, &source.url)
            }
            Err(error) => {
                vertex.failed(error.message());
                Err(error)
            }
        }
    }

    pub(crate) async fn git(&self, environment: &Arc<Environment>, source: &GitSource) -> Result<DirContext> {
        let vertex = environment.progress.start(format!("fetch {}", source.remote));
        let (store, wanted) = (environment.store.clone(), source.clone());
        let checkout = tokio::task::spawn_blocking(move || git::checkout(&store, &wanted))
            .await
            .map_err(crate::root::join)?;
        match checkout {
            Ok(checkout) => {
                vertex.line(&format!("commit {}", checkout.commit));
                vertex.done();
                open(&environment.store, &checkout.snapshot, &source.remote)
            }
            Err(error) => {
                vertex.failed(error.message());
                Err(error)
            }
        }
    }

    /// Checks a repository out into the store. Blocks only a thread of its own.
    pub async fn git_checkout(&self, store: &Arc<Store>, source: &GitSource) -> Result<GitCheckout> {
        let (store, wanted) = (store.clone(), source.clone());
        tokio::task::spawn_blocking(move || git::checkout(&store, &wanted))
            .await
            .map_err(crate::root::join)?
    }

    /// Downloads a file into the store, or finds that the one of before is still right.
    pub async fn download(&self, store: &Arc<Store>, source: &HttpSource) -> Result<Download> {
        let key = format!("{}\0{}", source.url, source.filename);
        let known: Option<Known> = store.memo("http", &key);
        let known = known.filter(|known| store.has_snapshot(&known.snapshot));
        if let (Some(known), Some(checksum)) = (&known, &source.checksum)
            && known.digest == *checksum
        {
            // What is wanted is here; nobody need be asked.
            return Ok(known.into());
        }
        let unreachable = |error: reqwest::Error| {
            let error = error.without_url();
            let mut text = error.to_string();
            let mut cause = std::error::Error::source(&error);
            while let Some(inner) = cause {
                text = format!("{text}: {inner}");
                cause = inner.source();
            }
            BuildError::new(
                FailureReason::SourceUnreachable,
                format!("failed to fetch {}: {text}", source.url),
            )
        };
        let mut request = self.client.get(&source.url);
        if let Some(known) = &known {
            if let Some(etag) = &known.etag {
                request = request.header("If-None-Match", etag);
            } else if let Some(time) = &known.last_modified {
                request = request.header("If-Modified-Since", time);
            }
        }
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        if status == reqwest::StatusCode::NOT_MODIFIED
            && let Some(known) = known
        {
            return check(source, (&known).into());
        }
        if !status.is_success() {
            let reason = if status.as_u16() == 404 {
                FailureReason::FileNotFound
            } else {
                FailureReason::SourceUnreachable
            };
            return Err(BuildError::new(
                reason,
                format!(
                    "failed to fetch {}: invalid response status {}",
                    source.url,
                    status.as_u16()
                ),
            ));
        }
        let header = |name: &str| {
            response
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(ToOwned::to_owned)
        };
        let (etag, last_modified) = (header("etag"), header("last-modified"));
        let draft = store.new_snapshot()?;
        let path = draft.fs().join(&source.filename);
        let write = |error| BuildError::io(format!("write {}", source.url), error);
        let mut file = File::create_new(&path).map_err(write)?;
        let mut hash = Sha256::new();
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.try_next().await.map_err(unreachable)? {
            hash.update(&chunk);
            file.write_all(&chunk).map_err(write)?;
        }
        file.set_permissions(std::fs::Permissions::from_mode(0o600))
            .map_err(write)?;
        if let Some(time) = last_modified.as_deref().and_then(seconds) {
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(time.max(0).unsigned_abs()))
                .map_err(write)?;
        }
        drop(file);
        let digest = Digest::from_sha256(hash.finalize().into());
        let snapshot = draft.commit()?;
        let known = Known {
            snapshot,
            digest,
            etag,
            last_modified,
        };
        let download = check(source, (&known).into())?;
        store.put_memo("http", &key, &known)?;
        Ok(download)
    }
}

impl From<&Known> for Download {
    fn from(known: &Known) -> Self {
        Self {
            snapshot: known.snapshot.clone(),
            digest: known.digest.clone(),
            modified: known.last_modified.as_deref().and_then(seconds),
        }
    }
}

fn check(source: &HttpSource, download: Download) -> Result<Download> {
    match &source.checksum {
        Some(wanted) if *wanted != download.digest => Err(BuildError::new(
            FailureReason::SourceUnreachable,
            format!(
                "digest mismatch for {}: got {}, expected {wanted}",
                source.url, download.digest
            ),
        )),
        _ => Ok(download),
    }
}

/// Seconds since 1970 of an HTTP date.
fn seconds(date: &str) -> Option<i64> {
    jiff::fmt::rfc2822::parse(date)
        .ok()
        .map(|time| time.timestamp().as_second())
}

/// A fetched snapshot as a tree.
pub(crate) fn open(store: &Store, snapshot: &SnapshotId, name: &str) -> Result<DirContext> {
    let dir = store.snapshot_dir(snapshot);
    DirContext::open(Path::new(&dir), name.to_owned())
        .map_err(|error| BuildError::io(format!("open {name}"), error))
}

#[cfg(test)]
mod tests {
    #[test]
    fn http_dates_are_read() {
        assert_eq!(
            super::seconds("Wed, 01 Jan 2020 00:00:00 GMT"),
            Some(1_577_836_800)
        );
        assert_eq!(super::seconds("nonsense"), None);
    }
}
