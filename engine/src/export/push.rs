//! Images into registries. Blobs first, then manifests, then the index, and the tags last: nobody sees a half image.

use super::Images;
use crate::{
    error::{BuildError, Result},
    image::Image,
    progress::Progress,
    root::Layer,
    store::Store,
};
use futures::future::try_join_all;
use slipway_oci::Reference;
use slipway_plan::protocol::FailureReason;
use slipway_registry::{BlobSource, PutOptions, Registries, Repository};
use std::{collections::BTreeMap, sync::Arc};

/// Pushes images under each of the names.
pub async fn push(
    store: &Arc<Store>,
    registries: &Registries,
    images: &Images,
    names: &[Reference],
    progress: &Progress,
) -> Result<()> {
    let mut repositories: BTreeMap<String, Vec<&Reference>> = BTreeMap::new();
    for name in names {
        repositories
            .entry(name.without_tag_and_digest())
            .or_default()
            .push(name);
    }
    for (place, tags) in repositories {
        let Some(first) = tags.first() else { continue };
        let repository = registries.repository(first);
        let vertex = progress.start(format!("push {place}"));
        let pushed = push_into(store, &repository, images, &tags).await;
        match pushed {
            Ok(()) => vertex.done(),
            Err(error) => {
                vertex.failed(error.message());
                return Err(error);
            }
        }
    }
    Ok(())
}

async fn push_into(
    store: &Arc<Store>,
    repository: &Repository,
    images: &Images,
    names: &[&Reference],
) -> Result<()> {
    for image in &images.images {
        push_blobs(store, repository, image).await?;
        if images.index.is_some() {
            repository
                .put_manifest(&image.manifest_digest, &image.media_type, image.manifest.clone())
                .await?;
        }
    }
    let (bytes, media_type, digest) = images.top()?;
    for name in names {
        match name.tag() {
            Some(tag) => repository.put_manifest(tag, media_type, bytes.to_vec()).await?,
            None => {
                repository
                    .put_manifest(digest, media_type, bytes.to_vec())
                    .await?
            }
        };
    }
    Ok(())
}

/// Layers and config of one image.
async fn push_blobs(store: &Arc<Store>, repository: &Repository, image: &Image) -> Result<()> {
    try_join_all(
        image
            .layers
            .iter()
            .map(|layer| push_layer(store, repository, layer)),
    )
    .await?;
    repository
        .put_blob(
            &image.config_digest,
            image.config.len() as u64,
            BlobSource::Bytes(image.config.clone().into()),
            &PutOptions::default(),
        )
        .await?;
    Ok(())
}

/// One packed layer into a repository: already there, mounted from its own repository, or uploaded.
pub async fn push_layer(store: &Arc<Store>, repository: &Repository, layer: &Layer) -> Result<()> {
    let desc = layer
        .desc
        .as_ref()
        .ok_or_else(|| BuildError::new(FailureReason::Internal, "a layer that was not packed is pushed"))?;
    let mut options = PutOptions::default();
    let origin = layer.blobs.as_ref().and_then(|blobs| blobs.repository());
    if let Some(origin) = &origin
        && origin.registry() == repository.registry()
    {
        options.mount_from.push(origin.clone());
    }
    if store.has_blob(&desc.digest) {
        let source = BlobSource::File(store.blob_path(&desc.digest));
        repository
            .put_blob(&desc.digest, desc.size, source, &options)
            .await?;
        return Ok(());
    }
    if repository.blob_size(&desc.digest).await?.is_some() {
        return Ok(());
    }
    for origin in &options.mount_from {
        if repository.mount_blob(&desc.digest, origin).await? {
            return Ok(());
        }
    }
    let Some(blobs) = &layer.blobs else {
        return Err(BuildError::new(
            FailureReason::Internal,
            format!("nobody has the layer {}", desc.digest),
        ));
    };
    // Through the store: an upload that has to begin anew must find the bytes again.
    let mut reader = blobs.open(desc).await?;
    let (keep, wanted) = (store.clone(), desc.clone());
    tokio::task::spawn_blocking(move || -> Result<()> {
        let blob = keep.new_blob()?;
        let mut hashing = slipway_layer::HashingWriter::new(blob);
        std::io::copy(&mut reader, &mut hashing).map_err(|error| BuildError::io("fetch a layer", error))?;
        let (blob, digest, _) = hashing.finish();
        if digest != wanted.digest {
            return Err(BuildError::new(
                FailureReason::RegistryError,
                format!(
                    "layer {} came as {digest}: it is damaged or was replaced",
                    wanted.digest
                ),
            ));
        }
        blob.commit(&digest)
    })
    .await
    .map_err(crate::root::join)??;
    let source = BlobSource::File(store.blob_path(&desc.digest));
    repository
        .put_blob(&desc.digest, desc.size, source, &options)
        .await?;
    Ok(())
}
