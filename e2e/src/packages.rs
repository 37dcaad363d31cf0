//! Package registries as plain files, for builds in pods that reach nothing but this machine: what a build needs is fetched
//! once by this machine's own clients, kept in the cache, and served with every request counted.
//!
//! ```text
//! npm pack, go mod download, mvn ──▶ ~/.cache/slipway/packages ──Server──▶ pods
//!                                                                  └─▶ requests()
//! ```

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    net::Ipv4Addr,
    path::{Component, Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha512};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::{command, config::cache_dir};

/// What a server answers.
#[derive(Debug, Clone, Default)]
pub struct Files {
    /// By path, without a leading slash.
    documents: BTreeMap<String, Vec<u8>>,
    /// Looked into for what is not there.
    folder: Option<PathBuf>,
}

impl Files {
    /// The modules that a `go.mod` with its `go.sum` names, as a module proxy has them.
    pub fn go(go_mod: &str, go_sum: &str) -> Result<Self> {
        let (work, cache) = (folder("go-work")?, folder("go")?);
        fs::write(work.join("go.mod"), go_mod)?;
        fs::write(work.join("go.sum"), go_sum)?;
        let go = command::find("go").context("go is missing")?;
        let mut download = quiet(Command::new(go));
        download
            .args(["mod", "download"])
            .current_dir(&work)
            .env("GOMODCACHE", &cache)
            // Else nobody but root can remove what is there.
            .env("GOFLAGS", "-modcacherw");
        command::finish(&mut download)?;
        Ok(Self {
            documents: BTreeMap::new(),
            folder: Some(cache.join("cache/download")),
        })
    }

    /// The artifacts that `mvn GOALS` of this project takes, as a Maven repository has them.
    pub fn maven(pom: &str, sources: &[(&str, &str)], goals: &[&str]) -> Result<Self> {
        let (work, cache) = (folder("maven-work")?, folder("maven")?);
        fs::write(work.join("pom.xml"), pom)?;
        for (path, text) in sources {
            let path = work.join(path);
            fs::create_dir_all(path.parent().context("a file has a folder")?)?;
            fs::write(path, text)?;
        }
        let mvn = command::find("mvn").context("mvn is missing: apt-get install maven")?;
        let mut run = quiet(Command::new(mvn));
        run.args(["--batch-mode", "--quiet"])
            .arg(format!("-Dmaven.repo.local={}", cache.display()))
            .args(goals)
            .current_dir(&work);
        command::finish(&mut run)?;
        Ok(Self {
            documents: BTreeMap::new(),
            folder: Some(cache),
        })
    }

    /// The packages that a `package-lock.json` names, as an npm registry at `url` has them.
    pub fn npm(lock: &str, url: &str) -> Result<Self> {
        let cache = folder("npm")?;
        let lock: Value = serde_json::from_str(lock).context("failed to parse package-lock.json")?;
        let mut files = Self::default();
        for (place, package) in lock["packages"].as_object().into_iter().flatten() {
            let Some(name) = place.strip_prefix("node_modules/") else {
                continue;
            };
            let version = package["version"].as_str().context("a package has a version")?;
            let tarball = tarball(&cache, name, version)?;
            let mut manifest = manifest(&tarball)?;
            let path = format!("{name}/-/{name}-{version}.tgz");
            let sum = base64::engine::general_purpose::STANDARD.encode(Sha512::digest(&tarball));
            manifest["dist"] =
                json!({"tarball": format!("{url}/{path}"), "integrity": format!("sha512-{sum}")});
            let packument =
                json!({"name": name, "dist-tags": {"latest": version}, "versions": {version: manifest}});
            files
                .documents
                .insert(name.into(), serde_json::to_vec(&packument)?);
            files.documents.insert(path, tarball);
        }
        Ok(files)
    }

    fn get(&self, path: &str) -> Option<Vec<u8>> {
        if let Some(document) = self.documents.get(path) {
            return Some(document.clone());
        }
        let path = Path::new(path);
        let stays = path.components().all(|part| matches!(part, Component::Normal(_)));
        fs::read(self.folder.as_ref().filter(|_| stays)?.join(path)).ok()
    }
}

/// A folder of the cache for packages.
fn folder(name: &str) -> Result<PathBuf> {
    let folder = cache_dir()?.join("packages").join(name);
    fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
    Ok(folder)
}

fn quiet(mut command: Command) -> Command {
    command.stdin(Stdio::null());
    command
}

/// A package's tarball, from the cache or by this machine's npm.
fn tarball(cache: &Path, name: &str, version: &str) -> Result<Vec<u8>> {
    let file = cache.join(format!("{name}-{version}.tgz"));
    if !file.exists() {
        let npm = command::find("npm").context("npm is missing")?;
        let mut pack = quiet(Command::new(npm));
        pack.args(["pack", "--silent", &format!("{name}@{version}")])
            .current_dir(cache);
        command::finish(&mut pack)?;
    }
    fs::read(&file).with_context(|| format!("failed to read {}", file.display()))
}

/// `package.json` of a tarball.
fn manifest(tarball: &[u8]) -> Result<Value> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(tarball));
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.path()?.as_ref() == Path::new("package/package.json") {
            let mut text = Vec::new();
            entry.read_to_end(&mut text)?;
            return Ok(serde_json::from_slice(&text)?);
        }
    }
    bail!("a package has no package.json")
}

/// A server of files; it ends when dropped.
#[derive(Debug)]
pub struct Server {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
    files: Arc<Mutex<Files>>,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Listens on an address of this machine, on a free port.
    pub async fn start(address: Ipv4Addr) -> Result<Self> {
        let listener = TcpListener::bind((address, 0))
            .await
            .with_context(|| format!("failed to listen on {address}"))?;
        let url = format!("http://{}", listener.local_addr()?);
        let (requests, files) = (Arc::default(), Arc::default());
        let accepting = tokio::spawn(accept(listener, Arc::clone(&requests), Arc::clone(&files)));
        Ok(Self {
            url,
            requests,
            files,
            accepting,
        })
    }

    /// Its base URL, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What it answers from now on.
    pub fn serve(&self, files: Files) {
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = files;
    }

    /// The paths asked for since the last call, in order.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, requests: Arc<Mutex<Vec<String>>>, files: Arc<Mutex<Files>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (requests, files) = (Arc::clone(&requests), Arc::clone(&files));
        // A client that goes away in the middle is its own affair.
        tokio::spawn(async move { answer(stream, &requests, &files).await });
    }
}

async fn answer(
    stream: TcpStream,
    requests: &Mutex<Vec<String>>,
    files: &Mutex<Files>,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut first = String::new();
    stream.read_line(&mut first).await?;
    let mut line = String::new();
    // The headers say nothing that matters here, and a GET has no body.
    while stream.read_line(&mut line).await? > 2 {
        line.clear();
    }
    let mut words = first.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target
        .split('?')
        .next()
        .unwrap_or_default()
        .trim_start_matches('/');
    requests
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(path.to_owned());
    let found = files.lock().unwrap_or_else(PoisonError::into_inner).get(path);
    let (status, body) = match found {
        Some(body) => ("200 OK", body),
        None => ("404 Not Found", Vec::new()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nContent-Type: application/octet-stream\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    if method != "HEAD" {
        stream.write_all(&body).await?;
    }
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_asked_for_is_answered_and_counted() {
        crate::cluster::install_tls_provider();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("in"), "inside").unwrap();
        let server = Server::start(Ipv4Addr::LOCALHOST).await.unwrap();
        server.serve(Files {
            documents: [("a/b".to_owned(), b"document".to_vec())].into(),
            folder: Some(dir.path().join(".")),
        });
        let ask = async |path: &str| {
            let response = reqwest::Client::builder()
                .no_proxy()
                .build()
                .unwrap()
                .get(format!("{}/{path}", server.url()))
                .send()
                .await
                .unwrap();
            (response.status().as_u16(), response.text().await.unwrap())
        };
        assert_eq!(ask("a/b?c=d").await, (200, "document".into()));
        assert_eq!(ask("in").await, (200, "inside".into()));
        assert_eq!(ask("gone").await.0, 404);
        assert_eq!(server.requests(), ["a/b", "in", "gone"]);
        assert!(server.requests().is_empty());
    }
}
