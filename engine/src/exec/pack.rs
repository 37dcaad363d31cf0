//! Layers into blobs.

use super::LayerSink;
use crate::{
    error::{BuildError, Result},
    progress::Progress,
    root::{Layer, Root, join},
    store::{LayerDesc, Store},
};
use slipway_layer::{Compression, Lower, PackOptions};
use slipway_plan::protocol::FailureReason;
use std::sync::Arc;

/// How layers are packed.
#[derive(Clone)]
pub struct Packing {
    /// Compression of new layers.
    pub compression: Compression,
    /// Give a base's layers this compression too.
    pub force: bool,
    /// Give the layers of steps this compression also where a cache has them in another.
    pub portable: bool,
    /// Docker's media types instead of OCI's.
    pub docker: bool,
    /// No time in new layers is later than this (`rewrite-timestamp`).
    pub clamp: Option<i64>,
    /// Told of each layer.
    pub sink: Option<Arc<dyn LayerSink>>,
}

impl Packing {
    /// With this compression and nothing special.
    pub fn new(compression: Compression) -> Self {
        Self {
            compression,
            force: false,
            portable: false,
            docker: false,
            clamp: None,
            sink: None,
        }
    }

    /// Names the settings that the bytes depend on; part of a file name.
    fn settings(&self) -> String {
        let level = match self.compression {
            Compression::Uncompressed => String::new(),
            Compression::Gzip(level) => level.to_string(),
            Compression::Zstd(level) => level.to_string(),
        };
        let clamp = self.clamp.map(|clamp| format!("-{clamp}")).unwrap_or_default();
        format!("{}{level}{clamp}", self.compression.name())
    }

    fn media_type(&self, layer: &LayerDesc) -> LayerDesc {
        let compression = Compression::from_media_type(&layer.media_type).unwrap_or(self.compression);
        LayerDesc {
            media_type: slipway_layer::media_type(compression, self.docker).into(),
            ..layer.clone()
        }
    }
}

/// The blob of a layer: what it is already, or packed now. `below` are the layers under it.
pub async fn pack_layer(
    store: &Arc<Store>,
    layer: &Layer,
    below: &Root,
    packing: &Packing,
) -> Result<LayerDesc> {
    if let Some(desc) = &layer.desc {
        let other = Compression::from_media_type(&desc.media_type)
            .is_none_or(|is| is.name() != packing.compression.name());
        if !(packing.force && other) {
            return Ok(packing.media_type(desc));
        }
        return recompress(store, layer, desc, packing).await;
    }
    let settings = packing.settings();
    // The stage that made the layer may be packing it right now.
    let _guard = {
        let (store, name) = (store.clone(), format!("pack-{}-{settings}", layer.snapshot));
        tokio::task::spawn_blocking(move || store.lock(&name))
            .await
            .map_err(join)??
    };
    if let Some(desc) = store.packed(&layer.snapshot, &settings) {
        return Ok(packing.media_type(&desc));
    }
    below.materialise(store, &Progress::quiet()).await?;
    let (store, layer, below, packing) = (store.clone(), layer.clone(), below.clone(), packing.clone());
    tokio::task::spawn_blocking(move || {
        let lower = below.lower(&store);
        let linked = store.is_linked(&layer.snapshot);
        let options = PackOptions {
            compression: packing.compression,
            docker_media_types: packing.docker,
            clamp_mtime: packing.clamp,
            lower: if lower.is_empty() || linked {
                Lower::Empty
            } else {
                Lower::Stack(&lower)
            },
            ..PackOptions::default()
        };
        let blob = store.new_blob()?;
        let (packed, blob) = slipway_layer::pack(&store.snapshot_dir(&layer.snapshot), blob, &options)?;
        blob.commit(&packed.digest)?;
        let desc = LayerDesc {
            diff_id: packed.diff_id,
            digest: packed.digest,
            size: packed.size,
            media_type: packed.media_type,
        };
        store.put_packed(&layer.snapshot, &settings, &desc)?;
        Ok(desc)
    })
    .await
    .map_err(join)?
}

async fn recompress(
    store: &Arc<Store>,
    layer: &Layer,
    desc: &LayerDesc,
    packing: &Packing,
) -> Result<LayerDesc> {
    let reader: crate::root::BlobReader = match &layer.blobs {
        _ if store.has_blob(&desc.digest) => Box::new(store.open_blob(&desc.digest)?),
        Some(blobs) => blobs.open(desc).await?,
        None => {
            return Err(BuildError::new(
                FailureReason::Internal,
                format!("nobody has the layer {}", desc.digest),
            ));
        }
    };
    let (store, packing) = (store.clone(), packing.clone());
    tokio::task::spawn_blocking(move || {
        let blob = store.new_blob()?;
        let (packed, blob) = slipway_layer::recompress(reader, blob, packing.compression, packing.docker, 0)?;
        blob.commit(&packed.digest)?;
        Ok(LayerDesc {
            diff_id: packed.diff_id,
            digest: packed.digest,
            size: packed.size,
            media_type: packed.media_type,
        })
    })
    .await
    .map_err(join)?
}
