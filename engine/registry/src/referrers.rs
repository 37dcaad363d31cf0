//! What refers to a manifest: signatures, provenance, SBOMs (distribution specification, "Listing Referrers").
//!
//! Registries without the API get the fallback that the specification describes: an index under the tag
//! `sha256-<hex of the subject>`, kept up to date by whoever attaches something.

use http::{Method, header::ACCEPT};
use serde::{Deserialize, Serialize};
use slipway_oci::{Descriptor, Digest, ImageIndex, media_type};

use crate::{
    error::{Class, Error, Result},
    manifest::{MAX_LIST, ManifestName},
    repository::Repository,
    transport::Outgoing,
};

impl Repository {
    /// Descriptors of the manifests whose `subject` is `subject`, all or those of one artifact type.
    #[tracing::instrument(level = "debug", skip_all, fields(repository = %self, %subject))]
    pub async fn referrers(&self, subject: &Digest, artifact_type: Option<&str>) -> Result<Vec<Descriptor>> {
        let mut all = self
            .list_referrers(subject)
            .await
            .map_err(self.failed(|| format!("list referrers of {subject}")))?;
        // Filtering there is optional for registries, and its header is often forgotten: it is done here.
        if let Some(wanted) = artifact_type {
            all.retain(|descriptor| {
                descriptor
                    .artifact_type()
                    .as_ref()
                    .is_some_and(|own| own.to_string() == wanted)
            });
        }
        Ok(all)
    }

    async fn list_referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        let mut all = Vec::new();
        let listed = self
            .pages(&format!("referrers/{subject}"), |page| {
                all.extend(parse_index(page)?.manifests().iter().cloned());
                Ok(())
            })
            .await;
        match listed {
            Ok(()) => Ok(all),
            // Without the API, a registry answers as to any path that it does not know.
            Err(error)
                if matches!(
                    error.class(),
                    Class::NotFound | Class::Unsupported | Class::Invalid
                ) =>
            {
                Ok(self
                    .fallback(subject)
                    .await?
                    .map(|index| index.manifests().clone())
                    .unwrap_or_default())
            }
            Err(error) => Err(error),
        }
    }

    /// The index under the fallback tag.
    async fn fallback(&self, subject: &Digest) -> Result<Option<ImageIndex>> {
        let route = self.route()?;
        let url = route.url(&format!("manifests/{}", fallback_tag(subject)))?;
        let outgoing = Outgoing::new(Method::GET, url).header(ACCEPT, media_type::OCI_INDEX);
        match self.ask(&route, outgoing, &[200]).await {
            Ok(answer) => parse_index(&answer.bytes(MAX_LIST).await?).map(Some),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Stores a manifest that has a `subject`, and sees to it that [`Repository::referrers`] finds it.
    ///
    /// # Errors
    /// [`Class::Invalid`] if the document has another subject or none.
    #[tracing::instrument(level = "debug", skip_all, fields(repository = %self, %subject))]
    pub async fn attach(
        &self,
        subject: &Digest,
        media_type: &str,
        bytes: impl Into<bytes::Bytes>,
    ) -> Result<Digest> {
        let bytes = bytes.into();
        self.attach_manifest(subject, media_type, bytes)
            .await
            .map_err(self.failed(|| format!("attach a manifest to {subject}")))
    }

    async fn attach_manifest(
        &self,
        subject: &Digest,
        media_type: &str,
        bytes: bytes::Bytes,
    ) -> Result<Digest> {
        let head: Head = serde_json::from_slice(&bytes)
            .map_err(|error| Error::new(Class::Invalid, "the document is no manifest").because(error))?;
        if head.subject.as_ref().is_none_or(|own| own.digest != *subject) {
            return Err(Error::new(
                Class::Invalid,
                "the document does not have this subject",
            ));
        }
        let size = bytes.len();
        let put = self
            .put_manifest(ManifestName::Digest(Digest::of(&bytes)), media_type, bytes)
            .await?;
        if put.subject_indexed {
            return Ok(put.digest);
        }
        let mut manifests: Vec<serde_json::Value> = match self.fallback(subject).await? {
            Some(index) => index
                .manifests()
                .iter()
                .filter_map(|d| serde_json::to_value(d).ok())
                .collect(),
            None => Vec::new(),
        };
        let known = |entry: &serde_json::Value| {
            entry.get("digest").and_then(|d| d.as_str()) == Some(put.digest.as_str())
        };
        if !manifests.iter().any(known) {
            let artifact_type = head.artifact_type.or(head.config.map(|config| config.media_type));
            let mut entry = serde_json::json!({
                "mediaType": media_type, "digest": put.digest, "size": size, "artifactType": artifact_type,
            });
            if let (Some(annotations), Some(entry)) = (head.annotations, entry.as_object_mut()) {
                entry.insert("annotations".to_owned(), annotations);
            }
            manifests.push(entry);
            let index = Index {
                schema_version: 2,
                media_type: media_type::OCI_INDEX,
                manifests,
            };
            let bytes = serde_json::to_vec(&index)
                .map_err(|error| Error::new(Class::Invalid, "the index cannot be written").because(error))?;
            self.put_manifest(fallback_tag(subject), media_type::OCI_INDEX, bytes)
                .await?;
        }
        Ok(put.digest)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    subject: Option<Subject>,
    artifact_type: Option<String>,
    config: Option<Config>,
    annotations: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Subject {
    digest: Digest,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    media_type: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    media_type: &'static str,
    manifests: Vec<serde_json::Value>,
}

fn fallback_tag(subject: &Digest) -> String {
    format!("sha256-{}", subject.hex())
}

fn parse_index(bytes: &[u8]) -> Result<ImageIndex> {
    serde_json::from_slice(bytes).map_err(|error| {
        Error::new(Class::InvalidResponse, "the list of referrers is no image index").because(error)
    })
}
