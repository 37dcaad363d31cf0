//! A plain client of the registry that tests look into: what was pushed is read as anybody would read it.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::{Client, ClientBuilder, Method, RequestBuilder, Response, StatusCode, header};
use serde_json::Value;

use crate::oci::{Image, digest};

/// The manifest types that are asked for.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                      application/vnd.docker.distribution.manifest.list.v2+json, \
                      application/vnd.docker.distribution.manifest.v2+json";

/// A registry at a base URL such as `http://172.30.0.1:5000`.
#[derive(Clone)]
pub struct Registry {
    url: String,
    client: Client,
    /// User name and password, sent with every request.
    login: Option<(String, String)>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// A manifest as the registry returned it.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Digest of the bytes, computed here.
    pub digest: String,
    /// Its media type.
    pub media_type: String,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The bytes, parsed.
    pub json: Value,
}

impl Registry {
    /// A client for `url`. No traffic yet.
    pub fn new(url: impl Into<String>) -> Result<Self> {
        Ok(Self {
            url: url.into(),
            client: Self::builder().build()?,
            login: None,
        })
    }

    fn builder() -> ClientBuilder {
        Client::builder().no_proxy().timeout(Duration::from_mins(1))
    }

    /// The same, and every request says who we are.
    #[must_use]
    pub fn with_login(mut self, user: &str, password: &str) -> Self {
        self.login = Some((user.to_owned(), password.to_owned()));
        self
    }

    /// The same, with other settings of the connection.
    pub fn with_client(mut self, settings: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Result<Self> {
        self.client = settings(Self::builder()).build()?;
        Ok(self)
    }

    /// The base URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    fn request(&self, method: Method, url: &str) -> RequestBuilder {
        let request = self.client.request(method, url);
        match &self.login {
            Some((user, password)) => request.basic_auth(user, Some(password)),
            None => request,
        }
    }

    async fn send(&self, method: Method, path: &str) -> Result<Response> {
        let url = format!("{}/v2/{path}", self.url);
        let request = self.request(method, &url).header(header::ACCEPT, ACCEPT);
        request
            .send()
            .await
            .with_context(|| format!("failed to reach {url}"))
    }

    /// Whether it answers.
    pub async fn ready(&self) -> bool {
        self.send(Method::GET, "")
            .await
            .is_ok_and(|r| r.status().is_success())
    }

    /// The manifest under a tag or digest; `None` when there is none.
    pub async fn manifest(&self, repository: &str, reference: &str) -> Result<Option<Manifest>> {
        let response = self
            .send(Method::GET, &format!("{repository}/manifests/{reference}"))
            .await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let response = ok(response).await?;
        let kind = response
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok());
        let media_type = kind.unwrap_or_default().to_owned();
        let bytes = response.bytes().await?.to_vec();
        let json = serde_json::from_slice(&bytes).context("failed to parse a manifest")?;
        Ok(Some(Manifest {
            digest: digest(&bytes),
            media_type,
            bytes,
            json,
        }))
    }

    /// A blob's bytes, checked against its digest.
    pub async fn blob(&self, repository: &str, wanted: &str) -> Result<Vec<u8>> {
        let response = self
            .send(Method::GET, &format!("{repository}/blobs/{wanted}"))
            .await?;
        let bytes = ok(response).await?.bytes().await?.to_vec();
        if digest(&bytes) != wanted {
            bail!("{repository}: blob {wanted} has other content");
        }
        Ok(bytes)
    }

    /// A blob as JSON, such as an image's config.
    pub async fn blob_json(&self, repository: &str, digest: &str) -> Result<Value> {
        Ok(serde_json::from_slice(&self.blob(repository, digest).await?)?)
    }

    /// A repository's tags, sorted; none when the repository does not exist.
    pub async fn tags(&self, repository: &str) -> Result<Vec<String>> {
        let response = self.send(Method::GET, &format!("{repository}/tags/list")).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(Vec::new());
        }
        let list: Value = serde_json::from_slice(&ok(response).await?.bytes().await?)?;
        let tags = list["tags"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        let mut tags: Vec<String> = tags.map(str::to_owned).collect();
        tags.sort();
        Ok(tags)
    }

    /// Puts a manifest that was read before under another tag, whatever it was for.
    pub async fn put(&self, repository: &str, tag: &str, manifest: &Manifest) -> Result<()> {
        let put = self
            .client
            .put(format!("{}/v2/{repository}/manifests/{tag}", self.url))
            .header(header::CONTENT_TYPE, &manifest.media_type)
            .body(manifest.bytes.clone());
        ok(put.send().await?).await?;
        Ok(())
    }

    /// Deletes a manifest by digest; `false` when there was none.
    pub async fn delete(&self, repository: &str, digest: &str) -> Result<bool> {
        let response = self
            .send(Method::DELETE, &format!("{repository}/manifests/{digest}"))
            .await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        ok(response).await.map(|_| true)
    }

    /// Pushes an image under a tag; blobs that are there already are not sent.
    pub async fn push(&self, repository: &str, tag: &str, image: &Image) -> Result<()> {
        for (digest, bytes) in &image.blobs {
            let there = self
                .send(Method::HEAD, &format!("{repository}/blobs/{digest}"))
                .await?;
            if there.status().is_success() {
                continue;
            }
            let started = ok(self
                .send(Method::POST, &format!("{repository}/blobs/uploads/"))
                .await?)
            .await?;
            let location = started
                .headers()
                .get(header::LOCATION)
                .and_then(|v| v.to_str().ok());
            let location = location.context("the registry starts an upload without saying where")?;
            let url = if location.starts_with('/') {
                format!("{}{location}", self.url)
            } else {
                location.to_owned()
            };
            let glue = if url.contains('?') { '&' } else { '?' };
            let put = self.request(Method::PUT, &format!("{url}{glue}digest={digest}"));
            let put = put
                .header(header::CONTENT_TYPE, "application/octet-stream")
                .body(bytes.clone());
            ok(put.send().await?).await?;
        }
        self.put_manifest(repository, tag, &image.manifest).await
    }

    /// Writes a manifest or index under a tag or its digest.
    pub async fn put_manifest(&self, repository: &str, reference: &str, manifest: &[u8]) -> Result<()> {
        let content: Value = serde_json::from_slice(manifest)?;
        let media_type = content["mediaType"].as_str().unwrap_or_default().to_owned();
        let url = format!("{}/v2/{repository}/manifests/{reference}", self.url);
        let put = self.request(Method::PUT, &url);
        let put = put
            .header(header::CONTENT_TYPE, media_type)
            .body(manifest.to_vec());
        ok(put.send().await?).await?;
        Ok(())
    }
}

/// An answer of success, or an error with what the registry said.
async fn ok(response: Response) -> Result<Response> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let url = response.url().clone();
    let text = response.text().await.unwrap_or_default();
    bail!("{url}: {status}: {}", text.trim())
}
