//! As much of a registry's client as moving images takes, over plain HTTP: the test registry speaks no other.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{base::digest, image::list};

const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json";

/// A registry at `host:port`.
pub(super) struct Registry {
    address: String,
}

struct Answer {
    status: u16,
    location: Option<String>,
    body: Vec<u8>,
}

impl Registry {
    /// The registry at a URL such as `http://172.30.0.1:5000`.
    pub(super) fn at(url: &str) -> Result<Self> {
        let address = url
            .strip_prefix("http://")
            .with_context(|| format!("{url}: the test registry is reached over http://"))?;
        Ok(Self {
            address: address.trim_end_matches('/').to_owned(),
        })
    }

    fn ask(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> Result<Answer> {
        let mut stream = TcpStream::connect(&self.address)
            .with_context(|| format!("failed to reach the registry at {}", self.address))?;
        stream.set_read_timeout(Some(Duration::from_mins(1)))?;
        // HTTP/1.0: the answer ends with the connection, whatever its length.
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: {}\r\nAccept: {ACCEPT}\r\nContent-Type: {kind}\r\n\
             Content-Length: {}\r\n\r\n",
            self.address,
            body.len()
        )?;
        stream.write_all(body)?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let status = line
            .split_whitespace()
            .nth(1)
            .and_then(|word| word.parse().ok())
            .with_context(|| format!("the registry answers {line:?}"))?;
        let mut location = None;
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = header.split_once(':')
                && name.eq_ignore_ascii_case("location")
            {
                location = Some(value.trim().to_owned());
            }
        }
        let mut body = Vec::new();
        if method != "HEAD" {
            reader.read_to_end(&mut body)?;
        }
        Ok(Answer {
            status,
            location,
            body,
        })
    }

    fn get(&self, path: &str) -> Result<Vec<u8>> {
        let answer = self.ask("GET", path, "*/*", &[])?;
        ensure!(
            answer.status == 200,
            "GET {path}: the registry answers {}",
            answer.status
        );
        Ok(answer.body)
    }

    /// Pushes the image of an OCI layout under a tag.
    pub(super) fn push(&self, layout: &Path, manifest: &str, repository: &str, tag: &str) -> Result<()> {
        let blob = |digest: &str| {
            let path = layout.join("blobs").join(digest.replacen(':', "/", 1));
            fs::read(&path).with_context(|| format!("failed to read {}", path.display()))
        };
        let bytes = blob(manifest)?;
        let document: Value = serde_json::from_slice(&bytes)?;
        for descriptor in list(&document, "layers").iter().chain([&document["config"]]) {
            let digest = descriptor["digest"]
                .as_str()
                .context("a descriptor has no digest")?;
            self.upload(repository, digest, &blob(digest)?)?;
        }
        let kind = document["mediaType"]
            .as_str()
            .unwrap_or("application/vnd.oci.image.manifest.v1+json");
        let path = format!("/v2/{repository}/manifests/{tag}");
        let answer = self.ask("PUT", &path, kind, &bytes)?;
        ensure!(
            answer.status == 201,
            "PUT {path}: the registry answers {}",
            answer.status
        );
        Ok(())
    }

    fn upload(&self, repository: &str, digest: &str, bytes: &[u8]) -> Result<()> {
        let there = self.ask("HEAD", &format!("/v2/{repository}/blobs/{digest}"), "*/*", &[])?;
        if there.status == 200 {
            return Ok(());
        }
        let path = format!("/v2/{repository}/blobs/uploads/");
        let begun = self.ask("POST", &path, "*/*", &[])?;
        let location = begun
            .location
            .with_context(|| format!("POST {path}: the registry answers {}", begun.status))?;
        // An absolute URL, or a path alone.
        let at = match location.split_once("://") {
            Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
            None => &location,
        };
        let glue = if at.contains('?') { '&' } else { '?' };
        let done = self.ask(
            "PUT",
            &format!("{at}{glue}digest={digest}"),
            "application/octet-stream",
            bytes,
        )?;
        ensure!(
            done.status == 201,
            "the registry answers {} to a blob",
            done.status
        );
        Ok(())
    }

    /// Writes the image of a tag as an OCI layout.
    pub(super) fn pull(&self, repository: &str, tag: &str, layout: &Path) -> Result<()> {
        let blobs = layout.join("blobs/sha256");
        fs::create_dir_all(&blobs)?;
        let save = |digest: &str, bytes: &[u8]| -> Result<()> {
            if self::digest(bytes) != digest {
                bail!("{repository}: {digest} has other content");
            }
            Ok(fs::write(
                layout.join("blobs").join(digest.replacen(':', "/", 1)),
                bytes,
            )?)
        };
        let top = self.get(&format!("/v2/{repository}/manifests/{tag}"))?;
        let mut todo = vec![(digest(&top), top.clone())];
        while let Some((name, bytes)) = todo.pop() {
            save(&name, &bytes)?;
            let document: Value = serde_json::from_slice(&bytes)?;
            for inner in list(&document, "manifests") {
                let name = inner["digest"].as_str().context("a descriptor has no digest")?;
                let bytes = self.get(&format!("/v2/{repository}/manifests/{name}"))?;
                todo.push((name.to_owned(), bytes));
            }
            let config = document.get("config");
            for blob in list(&document, "layers").iter().chain(config) {
                let name = blob["digest"].as_str().context("a descriptor has no digest")?;
                save(name, &self.get(&format!("/v2/{repository}/blobs/{name}"))?)?;
            }
        }
        let media_type = serde_json::from_slice::<Value>(&top)?["mediaType"].clone();
        let index = json!({"schemaVersion": 2, "manifests": [
            {"mediaType": media_type, "digest": digest(&top), "size": top.len()}
        ]});
        fs::write(layout.join("index.json"), index.to_string())?;
        fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(())
    }
}
