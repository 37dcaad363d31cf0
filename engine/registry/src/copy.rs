//! Images from one repository to another, bytes unchanged, so that every digest stays what it was.

use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, future::BoxFuture};
use serde::Deserialize;
use slipway_oci::{Digest, media_type};

use crate::{
    error::{Class, Error, Result},
    manifest::Manifest,
    repository::Repository,
    upload::{BlobSource, PutOptions},
};

/// Blobs copied at once.
const PARALLEL: usize = 4;
/// Indexes within indexes that are followed.
const MAX_DEPTH: usize = 4;

/// Copies a manifest, or an index with all it names, by digest. Blobs are mounted where both are at one registry, else
/// streamed through without being stored here; what is there already is left alone. No tag is written.
///
/// # Errors
/// Those of reading and writing; what was copied before stays.
#[tracing::instrument(level = "debug", skip_all, fields(%from, %to, digest = %manifest))]
pub async fn copy_image(from: &Repository, manifest: &Digest, to: &Repository) -> Result<()> {
    copy(from, manifest.clone(), to, MAX_DEPTH).await
}

#[derive(Deserialize)]
struct Document {
    config: Option<Blob>,
    #[serde(default)]
    layers: Vec<Blob>,
    #[serde(default)]
    manifests: Vec<Blob>,
}

#[derive(Deserialize, Clone)]
struct Blob {
    digest: Digest,
    size: u64,
    /// Layers that may not be redistributed say where they are to be had instead.
    #[serde(default)]
    urls: Vec<String>,
}

fn copy<'a>(
    from: &'a Repository,
    digest: Digest,
    to: &'a Repository,
    depth: usize,
) -> BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        let Manifest {
            bytes, media_type, ..
        } = from.get_manifest(&digest).await?;
        let document: Document = serde_json::from_slice(&bytes)
            .map_err(|error| {
                Error::new(Class::InvalidResponse, format!("{digest} is no manifest")).because(error)
            })
            .map_err(from.failed(|| format!("copy {digest}")))?;
        // Children first: registries refuse a manifest whose parts are not there.
        for child in document.manifests {
            if depth == 0 {
                let error = Error::new(Class::Unsupported, "indexes are nested too deeply");
                return Err(from.failed(|| format!("copy {digest}"))(error));
            }
            copy(from, child.digest, to, depth - 1).await?;
        }
        let blobs = document
            .config
            .into_iter()
            .chain(document.layers)
            .filter(|blob| blob.urls.is_empty());
        futures::stream::iter(blobs)
            .map(|blob| copy_blob(from, blob, to))
            .buffer_unordered(PARALLEL)
            .try_collect::<()>()
            .await?;
        debug_assert!(media_type::is_manifest(&media_type) || media_type::is_index(&media_type));
        to.put_manifest(&digest, &media_type, bytes).await.map(|_| ())
    })
}

async fn copy_blob(from: &Repository, Blob { digest, size, .. }: Blob, to: &Repository) -> Result<()> {
    let source = {
        let (from, digest) = (from.clone(), digest.clone());
        BlobSource::Reopen(Arc::new(move || {
            let (from, digest) = (from.clone(), digest.clone());
            Box::pin(async move {
                let reader = from.open_blob(&digest, Some(size)).await?;
                Ok(reader.map_err(std::io::Error::from).boxed())
            })
        }))
    };
    let options = PutOptions {
        mount_from: vec![from.clone()],
        ..PutOptions::default()
    };
    to.put_blob(&digest, size, source, &options).await.map(|_| ())
}
