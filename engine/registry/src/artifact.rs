//! Artifacts: documents and archives stored as a manifest with layers (image specification, "Guidelines for Artifact
//! Usage"). Plans, contexts and schedules travel so.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};
use slipway_oci::{Digest, media_type};

use crate::{
    error::{Class, Error, Result},
    manifest::{Manifest, ManifestName},
    repository::Repository,
    upload::{BlobSource, PutOptions},
};

/// Blobs uploaded at once for one artifact.
const PARALLEL: usize = 4;

/// An artifact to store. The same content gives the same bytes: keys are sorted, nothing depends on the time.
#[derive(Debug, Clone, Default)]
pub struct NewArtifact {
    /// What kind of thing it is; for a Slipway plan `application/vnd.slipway.plan.v1`.
    pub artifact_type: String,
    /// Media type and bytes of the config blob; the specification's empty document when `None`.
    pub config: Option<(String, Bytes)>,
    /// In order.
    pub layers: Vec<NewLayer>,
    /// On the manifest.
    pub annotations: BTreeMap<String, String>,
    /// The manifest that this one is about.
    pub subject: Option<ArtifactLayer>,
}

/// A layer to store.
#[derive(Debug, Clone)]
pub struct NewLayer {
    media_type: String,
    digest: Digest,
    size: u64,
    annotations: BTreeMap<String, String>,
    /// `None`: it is in the repository already.
    source: Option<BlobSource>,
}

impl NewLayer {
    /// A layer from memory.
    pub fn bytes(media_type: impl Into<String>, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self {
            media_type: media_type.into(),
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
            annotations: BTreeMap::new(),
            source: Some(BlobSource::Bytes(bytes)),
        }
    }

    /// A layer of `size` bytes that was uploaded before ([`Repository::start_upload`]).
    pub fn stored(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            annotations: BTreeMap::new(),
            source: None,
        }
    }

    /// A layer of `size` bytes from a file or stream.
    pub fn from_source(media_type: impl Into<String>, digest: Digest, size: u64, source: BlobSource) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            annotations: BTreeMap::new(),
            source: Some(source),
        }
    }

    /// Adds an annotation.
    #[must_use]
    pub fn annotate(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.annotations.insert(key.into(), value.into());
        self
    }
}

/// An artifact's manifest as read. Its layers are read by [`Repository::read_blob`] or [`Repository::open_blob`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Of the manifest.
    pub digest: Digest,
    /// `artifactType`, or the config's media type where older tools wrote it.
    pub artifact_type: String,
    /// The config blob.
    pub config: ArtifactLayer,
    /// In order.
    pub layers: Vec<ArtifactLayer>,
    /// On the manifest.
    pub annotations: BTreeMap<String, String>,
}

impl Artifact {
    /// The first layer of a media type.
    pub fn layer(&self, media_type: &str) -> Option<&ArtifactLayer> {
        self.layers.iter().find(|layer| layer.media_type == media_type)
    }
}

/// A descriptor, with sorted annotations so that it is written the same way every time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactLayer {
    /// Media type of the content.
    pub media_type: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Bytes of the content.
    pub size: u64,
    /// Annotations on the descriptor.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    config: ArtifactLayer,
    layers: Vec<ArtifactLayer>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<ArtifactLayer>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl Repository {
    /// Stores an artifact: its blobs (several at once), then its manifest under a tag or, with
    /// [`NewArtifact::manifest_digest`], by digest.
    #[tracing::instrument(level = "debug", skip_all, fields(repository = %self))]
    pub async fn put_artifact(&self, name: impl Into<ManifestName>, artifact: NewArtifact) -> Result<Digest> {
        let name = name.into();
        let (document, bytes, blobs) = artifact.encode()?;
        futures::stream::iter(blobs)
            .map(|(digest, size, source)| async move {
                self.put_blob(&digest, size, source, &PutOptions::default())
                    .await
                    .map(|_| ())
            })
            .buffer_unordered(PARALLEL)
            .try_collect::<()>()
            .await?;
        let put = self
            .put_manifest(name, media_type::OCI_MANIFEST, bytes.clone())
            .await?;
        if let (Some(subject), false) = (&document.subject, put.subject_indexed) {
            self.attach(&subject.digest, media_type::OCI_MANIFEST, bytes)
                .await?;
        }
        Ok(put.digest)
    }

    /// Reads an artifact's manifest; also an image's, which has the same form.
    ///
    /// # Errors
    /// [`Class::NotFound`]; [`Class::InvalidResponse`] if it is an index or no manifest.
    #[tracing::instrument(level = "debug", skip_all, fields(repository = %self))]
    pub async fn get_artifact(&self, name: impl Into<ManifestName>) -> Result<Artifact> {
        let name = name.into();
        let manifest = self.get_manifest(name.clone()).await?;
        let document: Document = serde_json::from_slice(&manifest.bytes).map_err(|error| {
            let error = Error::new(
                Class::InvalidResponse,
                "it has not the form of an artifact's manifest",
            )
            .because(error);
            self.failed(|| format!("read artifact {name}"))(error)
        })?;
        Ok(Artifact {
            digest: manifest.digest,
            artifact_type: document
                .artifact_type
                .unwrap_or_else(|| document.config.media_type.clone()),
            config: document.config,
            layers: document.layers,
            annotations: document.annotations,
        })
    }
}

type Blobs = Vec<(Digest, u64, BlobSource)>;

impl NewArtifact {
    /// The digest that the manifest will have.
    pub fn manifest_digest(&self) -> Result<Digest> {
        Ok(self.manifest()?.digest)
    }

    /// The manifest as it will be.
    pub fn manifest(&self) -> Result<Manifest> {
        let bytes = self.clone().encode()?.1;
        Ok(Manifest {
            digest: Digest::of(&bytes),
            media_type: media_type::OCI_MANIFEST.to_owned(),
            bytes,
        })
    }

    /// Whether all its blobs are in a repository.
    pub async fn is_stored_in(&self, repository: &Repository) -> Result<bool> {
        let blobs = self.clone().encode()?.2;
        let digests: Vec<Digest> = blobs.into_iter().map(|(digest, ..)| digest).collect();
        Ok(repository
            .exists_many(&digests)
            .await?
            .into_iter()
            .all(|there| there))
    }

    fn encode(self) -> Result<(Document, Bytes, Blobs)> {
        let (config_type, config) = self
            .config
            .unwrap_or_else(|| (media_type::OCI_EMPTY.to_owned(), Bytes::from_static(b"{}")));
        let mut layers = self.layers;
        if layers.is_empty() {
            // The specification wants at least one layer.
            layers.push(NewLayer::bytes(media_type::OCI_EMPTY, Bytes::from_static(b"{}")));
        }
        let mut blobs = vec![(
            Digest::of(&config),
            config.len() as u64,
            BlobSource::Bytes(config.clone()),
        )];
        let mut described = Vec::with_capacity(layers.len());
        for NewLayer {
            media_type,
            digest,
            size,
            annotations,
            source,
        } in layers
        {
            if let Some(source) = source
                && blobs.iter().all(|(known, ..)| *known != digest)
            {
                blobs.push((digest.clone(), size, source));
            }
            described.push(ArtifactLayer {
                media_type,
                digest,
                size,
                annotations,
            });
        }
        let document = Document {
            schema_version: 2,
            media_type: media_type::OCI_MANIFEST.to_owned(),
            artifact_type: Some(self.artifact_type).filter(|name| !name.is_empty()),
            config: ArtifactLayer {
                media_type: config_type,
                digest: Digest::of(&config),
                size: config.len() as u64,
                annotations: BTreeMap::new(),
            },
            layers: described,
            subject: self.subject,
            annotations: self.annotations,
        };
        let bytes = serde_json::to_vec(&document)
            .map_err(|error| Error::new(Class::Invalid, "the manifest cannot be written").because(error))?;
        Ok((document, bytes.into(), blobs))
    }
}
