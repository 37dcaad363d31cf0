//! Where a finished build goes.
//!
//! ```text
//!  [Image] ─┬─ push      blobs, manifests, index and tags into registries
//!           ├─ layout    OCI image layout: a directory, or a tar (with Docker's manifest.json for `docker load`)
//!  [Root]  ─┼─ tar       the files as one tar
//!           └─ local     the files as a directory
//! ```

use crate::{
    error::{BuildError, Result},
    image::{self, Annotations, Image, Index},
    store::Store,
};
use slipway_oci::Platform;
use slipway_plan::protocol::FailureReason;
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

mod annotations;
mod layout;
mod push;
mod rootfs;

pub use annotations::AnnotationSet;
pub use layout::{LayoutOptions, write_layout};
pub use push::{push, push_layer};
pub use rootfs::{Owners, export_directory, export_tar};

/// Where an export is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A file or directory.
    Path(PathBuf),
    /// Standard output.
    Stdout,
}

/// Images of all platforms of a build, and the index over them if there are several.
#[derive(Debug, Clone)]
pub struct Images {
    /// One for each platform.
    pub images: Vec<Image>,
    /// The index, if there are several.
    pub index: Option<Index>,
    /// Annotations of the descriptor in an OCI layout's `index.json`.
    pub descriptor: Annotations,
    /// The time that is written into documents instead of now.
    pub epoch: Option<i64>,
}

impl Images {
    /// Digest of what a tag will name.
    pub fn digest(&self) -> Option<&slipway_oci::Digest> {
        match &self.index {
            Some(index) => Some(&index.digest),
            None => self.images.first().map(|image| &image.manifest_digest),
        }
    }

    /// Document, its media type and digest that a tag will name.
    pub(crate) fn top(&self) -> Result<(&[u8], &str, &slipway_oci::Digest)> {
        match (&self.index, self.images.first()) {
            (Some(index), _) => Ok((&index.bytes, &index.media_type, &index.digest)),
            (None, Some(image)) => Ok((&image.manifest, &image.media_type, &image.manifest_digest)),
            (None, None) => Err(BuildError::new(
                FailureReason::Internal,
                "a build without a result is exported",
            )),
        }
    }
}

/// Puts the documents of a build together.
pub fn collect(
    store: &Arc<Store>,
    parts: Vec<(Platform, slipway_oci::ImageConfig, Vec<crate::root::Layer>)>,
    docker: bool,
    annotations: &AnnotationSet,
    epoch: Option<i64>,
) -> Result<Images> {
    let several = parts.len() > 1;
    let mut images = Vec::new();
    let mut descriptors = Vec::new();
    for (platform, config, layers) in parts {
        let image = image::assemble(
            &platform,
            &config,
            layers,
            docker,
            annotations.manifest(&platform),
        )?;
        store.put_blob(&image.config)?;
        store.put_blob(&image.manifest)?;
        descriptors.push(annotations.manifest_descriptor(&platform));
        images.push(image);
    }
    let index = if several {
        let index = image::index(&images, docker, annotations.index(), &descriptors)?;
        store.put_blob(&index.bytes)?;
        Some(index)
    } else {
        None
    };
    let mut descriptor = if several {
        BTreeMap::new()
    } else {
        descriptors.into_iter().next().unwrap_or_default()
    };
    descriptor.extend(annotations.index_descriptor());
    Ok(Images {
        images,
        index,
        descriptor,
        epoch,
    })
}
