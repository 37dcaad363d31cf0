//! Manifests and tags. Bytes in, bytes out: a manifest's digest is that of its bytes, so nothing is re-serialised.

use bytes::Bytes;
use http::{
    Method,
    header::{ACCEPT, CONTENT_TYPE},
};
use serde::Deserialize;
use slipway_oci::{Digest, Reference, media_type};

use crate::{
    error::{Class, Error, Result},
    repository::Repository,
    transport::{Answer, Endpoint, Outgoing, shown},
};

/// The largest manifest read (distribution specification: registries should take 4 MiB).
const MAX_MANIFEST: u64 = 4 << 20;
/// The largest page of a tag or referrer list.
pub(crate) const MAX_LIST: u64 = 16 << 20;
/// Pages of one list; at a thousand entries a page that is more than anybody means to read.
const MAX_PAGES: usize = 1000;

/// How a manifest is named within a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestName {
    /// By tag: may mean another manifest tomorrow.
    Tag(String),
    /// By digest: always these bytes.
    Digest(Digest),
}

impl std::fmt::Display for ManifestName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// A tag, unless it has the form of a digest.
impl From<&str> for ManifestName {
    fn from(name: &str) -> Self {
        name.parse()
            .map_or_else(|_| Self::Tag(name.to_owned()), Self::Digest)
    }
}

/// As for `&str`.
impl From<String> for ManifestName {
    fn from(name: String) -> Self {
        Self::from(name.as_str())
    }
}

impl From<&Digest> for ManifestName {
    fn from(digest: &Digest) -> Self {
        Self::Digest(digest.clone())
    }
}

impl From<Digest> for ManifestName {
    fn from(digest: Digest) -> Self {
        Self::Digest(digest)
    }
}

/// The digest if it has one, else the tag.
impl From<&Reference> for ManifestName {
    fn from(reference: &Reference) -> Self {
        Self::from(reference.manifest_name())
    }
}

/// A manifest as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The stored bytes; their digest is `digest`.
    pub bytes: Bytes,
    /// The media type: the header's, or the document's own where the header says nothing useful.
    pub media_type: String,
    /// The digest, computed here.
    pub digest: Digest,
}

/// What a registry says of a manifest without sending it. Unverified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestInfo {
    /// `Docker-Content-Digest`.
    pub digest: Option<Digest>,
    /// `Content-Type`.
    pub media_type: Option<String>,
    /// Bytes.
    pub size: Option<u64>,
}

/// A manifest was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutManifest {
    /// Digest of the bytes given.
    pub digest: Digest,
    /// The registry has taken note of the `subject` (`OCI-Subject` header), so its referrers list will show it. `false`
    /// for a manifest with a subject means that the fallback tag is ours to write: see [`Repository::attach`].
    pub subject_indexed: bool,
}

impl Repository {
    /// Asks for a manifest without reading it; `None` if there is none.
    #[tracing::instrument(level = "debug", skip_all, fields(repository = %self))]
    pub async fn head_manifest(&self, name: impl Into<ManifestName>) -> Result<Option<ManifestInfo>> {
        let name = name.into();
        match self.fetch(Method::HEAD, &name).await {
            Ok(answer) => Ok(Some(ManifestInfo {
                digest: answer
                    .header("docker-content-digest")
                    .and_then(|digest| digest.parse().ok()),
                media_type: answer.header("content-type").map(essence),
                size: answer
                    .header("content-length")
                    .and_then(|length| length.parse().ok()),
            })),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(self.failed(|| format!("look for manifest {name}"))(error)),
        }
    }

    /// Reads a manifest or index. Its digest is checked against the name, or what the registry says the tag means.
    ///
    /// # Errors
    /// [`Class::NotFound`], [`Class::DigestMismatch`], [`Class::TooLarge`] above 4 MiB, [`Class::InvalidResponse`].
    #[tracing::instrument(level = "debug", skip_all, fields(repository = %self))]
    pub async fn get_manifest(&self, name: impl Into<ManifestName>) -> Result<Manifest> {
        let name = name.into();
        self.read_manifest(&name)
            .await
            .map_err(self.failed(|| format!("read manifest {name}")))
    }

    async fn read_manifest(&self, name: &ManifestName) -> Result<Manifest> {
        let answer = self.fetch(Method::GET, name).await?;
        let header_type = answer.header("content-type").map(essence);
        let promised = match name {
            ManifestName::Digest(digest) => Some(digest.clone()),
            // Another algorithm in the header is no promise that could be checked.
            ManifestName::Tag(_) => answer
                .header("docker-content-digest")
                .and_then(|digest| digest.parse().ok()),
        };
        let from = shown(&answer.url);
        let bytes = answer.bytes(MAX_MANIFEST).await?;
        let digest = Digest::of(&bytes);
        if let Some(promised) = promised.filter(|promised| *promised != digest) {
            return Err(Error::new(
                Class::DigestMismatch,
                format!("{from} sent bytes with digest {digest} instead of {promised}"),
            )
            .advise("the registry, a mirror or a proxy changes what it stores"));
        }
        let media_type = media_type_of(&bytes, header_type)?;
        Ok(Manifest {
            bytes,
            media_type,
            digest,
        })
    }

    async fn fetch(&self, method: Method, name: &ManifestName) -> Result<Answer> {
        // One header per type would do as well, but some registries read only the first.
        let accept = [
            &media_type::MANIFESTS[..],
            &["application/vnd.docker.distribution.manifest.v1+prettyjws;q=0.1"],
        ]
        .concat()
        .join(", ");
        self.read(matches!(name, ManifestName::Tag(_)), &[200], |route| {
            Ok(
                Outgoing::new(method.clone(), route.url(&format!("manifests/{name}"))?)
                    .header(ACCEPT, &accept),
            )
        })
        .await
    }

    /// Stores a manifest or index under a tag or its digest.
    ///
    /// # Errors
    /// [`Class::DigestMismatch`] if the bytes are not the digest's or the registry stored something else; the registry's
    /// own refusals (`MANIFEST_BLOB_UNKNOWN`: a blob is missing) as [`Class::Invalid`].
    #[tracing::instrument(level = "debug", skip_all, fields(repository = %self))]
    pub async fn put_manifest(
        &self,
        name: impl Into<ManifestName>,
        media_type: &str,
        bytes: impl Into<Bytes>,
    ) -> Result<PutManifest> {
        let (name, bytes) = (name.into(), bytes.into());
        self.write_manifest(&name, media_type, bytes)
            .await
            .map_err(self.failed(|| format!("write manifest {name}")))
    }

    async fn write_manifest(
        &self,
        name: &ManifestName,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<PutManifest> {
        let digest = Digest::of(&bytes);
        if let ManifestName::Digest(wanted) = name
            && *wanted != digest
        {
            return Err(Error::new(
                Class::DigestMismatch,
                format!("the bytes have digest {digest}"),
            ));
        }
        let route = self.route()?;
        let outgoing = Outgoing::new(Method::PUT, route.url(&format!("manifests/{name}"))?)
            .header(CONTENT_TYPE, media_type)
            .with_bytes(bytes);
        let answer = match self.write(&route, outgoing, &[200, 201, 202]).await {
            Err(error) if error.has_code("MANIFEST_BLOB_UNKNOWN") || error.has_code("BLOB_UNKNOWN") => {
                return Err(error.reclassify(Class::Invalid).advise(
                    "a blob that the manifest names is not (or no longer) there: push the image again; \
                     does a garbage collection run at the same time?",
                ));
            }
            other => other?,
        };
        // A registry that converts what it is given would make every later check by digest fail.
        let stored = answer
            .header("docker-content-digest")
            .and_then(|stored| stored.parse::<Digest>().ok());
        if let Some(stored) = stored.filter(|stored| *stored != digest) {
            return Err(Error::new(
                Class::DigestMismatch,
                format!("the registry stored digest {stored} instead of {digest}"),
            ));
        }
        Ok(PutManifest {
            digest,
            subject_indexed: answer.header("oci-subject").is_some(),
        })
    }

    /// Deletes a manifest (by digest) or only a tag (by tag, where the registry can).
    ///
    /// # Errors
    /// [`Class::NotFound`]; [`Class::Unsupported`] where deletion is switched off.
    #[tracing::instrument(level = "debug", skip_all, fields(repository = %self))]
    pub async fn delete_manifest(&self, name: impl Into<ManifestName>) -> Result<()> {
        let name = name.into();
        let delete = async {
            let route = self.route()?;
            let url = route.url(&format!("manifests/{name}"))?;
            self.write(&route, Outgoing::new(Method::DELETE, url), &[200, 202, 204])
                .await
        };
        match delete.await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed(|| format!("delete manifest {name}"))(
                explain_no_delete(error),
            )),
        }
    }

    /// All tags, page by page, in the registry's order. A repository that does not exist is [`Class::NotFound`].
    #[tracing::instrument(level = "debug", skip_all, fields(repository = %self))]
    pub async fn tags(&self) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Page {
            // Absent and null are both sent for "none".
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let mut all = Vec::new();
        self.pages("tags/list?n=1000", |bytes| {
            let page: Page = serde_json::from_slice(bytes).map_err(|error| {
                Error::new(Class::InvalidResponse, "the tag list is no tag list").because(error)
            })?;
            all.extend(page.tags.unwrap_or_default());
            Ok(())
        })
        .await
        .map_err(self.failed(|| "list tags".to_owned()))?;
        Ok(all)
    }

    /// Reads all pages of a list (distribution specification, "Listing Tags": `Link` with rel="next").
    pub(crate) async fn pages(&self, first: &str, mut page: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let route = self.route()?;
        let mut url = route.url(first)?;
        for _ in 0..MAX_PAGES {
            let answer = self
                .ask(&route, Outgoing::new(Method::GET, url.clone()), &[200])
                .await?;
            let next = answer.header("link").and_then(next_link);
            let next = next
                .map(|link| Endpoint::follow(&answer.url, &link))
                .transpose()?;
            page(&answer.bytes(MAX_LIST).await?)?;
            match next {
                Some(next) if next != url => url = next,
                _ => return Ok(()),
            }
        }
        Err(Error::new(Class::InvalidResponse, "the list has no end"))
    }
}

pub(crate) fn explain_no_delete(error: Error) -> Error {
    if error.class() == Class::Unsupported {
        return error.advise(
            "deletion is switched off there (for the CNCF registry: REGISTRY_STORAGE_DELETE_ENABLED=true)",
        );
    }
    error
}

/// `<…>; rel="next"` (RFC 8288), as far as registries use it.
fn next_link(header: &str) -> Option<String> {
    header.split(',').find_map(|link| {
        let (target, params) = link.trim().strip_prefix('<')?.split_once('>')?;
        let next = params.split(';').any(|param| {
            let param = param.trim().replace(' ', "");
            param.eq_ignore_ascii_case("rel=\"next\"") || param.eq_ignore_ascii_case("rel=next")
        });
        next.then(|| target.to_owned())
    })
}

/// A media type without its parameters.
fn essence(header: &str) -> String {
    header
        .split(';')
        .next()
        .unwrap_or(header)
        .trim()
        .to_ascii_lowercase()
}

/// The one media type of a manifest; refuses a document that says two things (CVE-2021-41190).
fn media_type_of(bytes: &[u8], header: Option<String>) -> Result<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Head {
        media_type: Option<String>,
        schema_version: Option<u64>,
        #[serde(default)]
        config: Option<serde::de::IgnoredAny>,
        #[serde(default)]
        layers: Option<serde::de::IgnoredAny>,
        #[serde(default)]
        manifests: Option<serde::de::IgnoredAny>,
    }
    let head: Head = serde_json::from_slice(bytes).map_err(|error| {
        Error::new(
            Class::InvalidResponse,
            "what was sent is no manifest (no JSON object)",
        )
        .because(error)
    })?;
    if head.manifests.is_some() && (head.layers.is_some() || head.config.is_some()) {
        return Err(Error::new(
            Class::InvalidResponse,
            "the document is both an index and an image",
        ));
    }
    let known = |name: &String| media_type::is_manifest(name) || media_type::is_index(name);
    let header = header.filter(known);
    match (head.media_type.filter(known), header) {
        (Some(own), Some(header)) if own != header => Err(Error::new(
            Class::InvalidResponse,
            format!("the document says it is {own}, the registry says {header}"),
        )),
        (Some(name), _) | (None, Some(name)) => Ok(name),
        (None, None) if head.schema_version == Some(1) => Ok(media_type::DOCKER_MANIFEST_V1.to_owned()),
        (None, None) if head.manifests.is_some() => Ok(media_type::OCI_INDEX.to_owned()),
        (None, None) if head.layers.is_some() => Ok(media_type::OCI_MANIFEST.to_owned()),
        (None, None) => Err(Error::new(
            Class::InvalidResponse,
            "the document is neither an image nor an index",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_media_type_is_found_and_contradictions_are_refused() {
        let (oci, index, docker) = (
            media_type::OCI_MANIFEST,
            media_type::OCI_INDEX,
            media_type::DOCKER_MANIFEST,
        );
        let with = |name: &str, rest: &str| format!(r#"{{"schemaVersion":2,"mediaType":"{name}",{rest}}}"#);
        let cases = [
            (with(oci, r#""config":{},"layers":[]"#), Some(oci), Ok(oci)),
            (
                with(docker, r#""config":{},"layers":[]"#),
                Some("application/json"),
                Ok(docker),
            ),
            (
                r#"{"schemaVersion":2,"config":{},"layers":[]}"#.into(),
                Some(oci),
                Ok(oci),
            ),
            (
                r#"{"schemaVersion":2,"config":{},"layers":[]}"#.into(),
                None,
                Ok(oci),
            ),
            (
                r#"{"schemaVersion":2,"manifests":[]}"#.into(),
                Some("text/plain"),
                Ok(index),
            ),
            (
                r#"{"schemaVersion":1,"fsLayers":[]}"#.into(),
                None,
                Ok(media_type::DOCKER_MANIFEST_V1),
            ),
            (
                with(oci, r#""config":{},"layers":[]"#),
                Some(index),
                Err("the registry says"),
            ),
            (
                with(oci, r#""manifests":[],"layers":[]"#),
                Some(oci),
                Err("both an index and an image"),
            ),
            ("<html>".into(), None, Err("no manifest")),
            ("{}".into(), None, Err("neither")),
        ];
        for (body, header, expected) in cases {
            let got = media_type_of(body.as_bytes(), header.map(ToOwned::to_owned));
            match (got, expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{body}"),
                (Err(got), Err(expected)) => assert!(got.to_string().contains(expected), "{got}"),
                (got, _) => panic!("{body}: {got:?}"),
            }
        }
    }

    #[test]
    fn the_next_page_is_found_in_a_link_header() {
        for (header, expected) in [
            (
                "</v2/a/tags/list?n=1&last=x>; rel=\"next\"",
                Some("/v2/a/tags/list?n=1&last=x"),
            ),
            ("<a>; rel=prev, <b>; rel=next", Some("b")),
            ("<a>; rel=\"last\"", None),
            ("", None),
        ] {
            assert_eq!(next_link(header).as_deref(), expected, "{header}");
        }
    }

    #[test]
    fn names_that_look_like_digests_are_digests() {
        let digest = Digest::of(b"x");
        assert_eq!(
            ManifestName::from(digest.as_str()),
            ManifestName::Digest(digest.clone())
        );
        assert_eq!(ManifestName::from("1.4"), ManifestName::Tag("1.4".into()));
        let pinned: Reference = format!("r.example.com/a:1@{digest}").parse().unwrap();
        assert_eq!(ManifestName::from(&pinned), ManifestName::Digest(digest));
    }
}
