//! A registry in memory that keeps to the specification, except where a rule of the test says otherwise.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use slipway_oci::{Digest, Reference};
use slipway_registry::{Config, HostConfig, Registries, Repository, RetryPolicy, UploadConfig};

/// One request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn is(&self, method: &str, path_part: &str) -> bool {
        self.method == method && self.path.contains(path_part)
    }

    pub(crate) fn param(&self, name: &str) -> Option<String> {
        url::form_urlencoded::parse(self.query.as_bytes())
            .find(|(k, _)| k == name)
            .map(|(_, v)| v.into_owned())
    }
}

type Rule = Box<dyn Fn(&Seen, &State) -> Option<Response> + Send + Sync>;

#[derive(Default)]
pub(crate) struct State {
    pub(crate) blobs: Mutex<HashMap<(String, String), Bytes>>,
    pub(crate) manifests: Mutex<HashMap<(String, String), (String, Bytes)>>,
    pub(crate) uploads: Mutex<HashMap<String, Vec<u8>>>,
    log: Mutex<Vec<Seen>>,
}

impl State {
    /// How many requests of this sort have come, this one included.
    pub(crate) fn count(&self, method: &str, path_part: &str) -> usize {
        self.log
            .lock()
            .unwrap()
            .iter()
            .filter(|seen| seen.is(method, path_part))
            .count()
    }
}

pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    pub(crate) state: Arc<State>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Fake {
    pub(crate) async fn start() -> Self {
        Self::with(|_, _| None).await
    }

    /// `rule` answers what it wants to; the rest is answered properly.
    pub(crate) async fn with(
        rule: impl Fn(&Seen, &State) -> Option<Response> + Send + Sync + 'static,
    ) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let rule: Arc<Rule> = Arc::new(Box::new(rule));
        let shared = state.clone();
        let app = axum::Router::new().fallback(move |request: Request| {
            let (state, rule) = (shared.clone(), rule.clone());
            async move {
                let (parts, body) = request.into_parts();
                let seen = Seen {
                    method: parts.method,
                    path: parts.uri.path().to_owned(),
                    query: parts.uri.query().unwrap_or_default().to_owned(),
                    headers: parts.headers,
                    body: axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default(),
                };
                state.log.lock().unwrap().push(seen.clone());
                rule(&seen, &state).unwrap_or_else(|| proper(&seen, &state))
            }
        });
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            address,
            state,
            server,
        }
    }

    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn log(&self) -> Vec<Seen> {
        self.state.log.lock().unwrap().clone()
    }

    pub(crate) fn seen(&self, method: &str, path_part: &str) -> Vec<Seen> {
        self.log()
            .into_iter()
            .filter(|seen| seen.is(method, path_part))
            .collect()
    }

    pub(crate) fn forget(&self) {
        self.state.log.lock().unwrap().clear();
    }

    pub(crate) fn add_blob(&self, repository: &str, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        self.state
            .blobs
            .lock()
            .unwrap()
            .insert((repository.into(), digest.to_string()), bytes);
        digest
    }

    pub(crate) fn add_manifest(
        &self,
        repository: &str,
        tag: &str,
        media_type: &str,
        bytes: impl Into<Bytes>,
    ) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        let mut manifests = self.state.manifests.lock().unwrap();
        for name in [tag, digest.as_str()] {
            manifests.insert(
                (repository.into(), name.into()),
                (media_type.into(), bytes.clone()),
            );
        }
        digest
    }

    pub(crate) fn blob(&self, repository: &str, digest: &Digest) -> Option<Bytes> {
        self.state
            .blobs
            .lock()
            .unwrap()
            .get(&(repository.into(), digest.to_string()))
            .cloned()
    }

    /// Settings under which this fake is reached, impatient ones.
    pub(crate) fn config(&self) -> Config {
        let mut config = impatient();
        config.hosts.insert(
            self.host(),
            HostConfig {
                insecure: true,
                ..HostConfig::default()
            },
        );
        config
    }

    pub(crate) fn reference(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.host()).parse().unwrap()
    }

    pub(crate) fn repository(&self, name: &str) -> Repository {
        self.repository_with(self.config(), name)
    }

    pub(crate) fn repository_with(&self, config: Config, name: &str) -> Repository {
        Registries::new(config).unwrap().repository(&self.reference(name))
    }
}

pub(crate) fn impatient() -> Config {
    Config {
        retry: RetryPolicy {
            attempts: 4,
            base_delay: Duration::from_millis(1),
            max_delay: Duration::from_millis(10),
            max_total_wait: Duration::from_secs(3),
            stall_timeout: Duration::from_secs(5),
            ..RetryPolicy::default()
        },
        upload: UploadConfig {
            chunk_size: 256 << 10,
            ..UploadConfig::default()
        },
        ..Config::default()
    }
}

pub(crate) fn answer(status: u16) -> Response {
    StatusCode::from_u16(status).unwrap().into_response()
}

pub(crate) fn refuse(status: u16, code: &str, message: &str) -> Response {
    let body = format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#);
    (StatusCode::from_u16(status).unwrap(), body).into_response()
}

/// A body that ends with a cut connection after these bytes.
pub(crate) fn cut(status: u16, headers: &[(&str, String)], bytes: Bytes) -> Response {
    let items = [Ok(bytes), Err(std::io::Error::other("cut"))];
    // A moment between them, so that the bytes leave before the connection is torn down.
    let stream = futures::StreamExt::then(futures::stream::iter(items), |item| async move {
        if item.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        item
    });
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, value);
    }
    response.body(Body::from_stream(stream)).unwrap()
}

/// Bytes that do not repeat.
pub(crate) fn noise(length: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

fn created(status: u16, headers: &[(&str, String)]) -> Response {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, value);
    }
    response.body(Body::empty()).unwrap()
}

fn proper(seen: &Seen, state: &State) -> Response {
    let Some(path) = seen.path.strip_prefix("/v2/") else {
        return answer(404);
    };
    if path.is_empty() {
        return answer(200);
    }
    if let Some(repository) = path.strip_suffix("/tags/list") {
        return tags(repository, state);
    }
    if let Some((repository, id)) = path.split_once("/blobs/uploads/") {
        return upload(seen, state, repository, id);
    }
    if let Some((repository, digest)) = path.split_once("/blobs/") {
        return blob(seen, state, repository, digest);
    }
    if let Some((repository, name)) = path.split_once("/manifests/") {
        return manifest(seen, state, repository, name);
    }
    answer(404)
}

fn tags(repository: &str, state: &State) -> Response {
    let manifests = state.manifests.lock().unwrap();
    let tags: Vec<_> = manifests
        .keys()
        .filter(|(repo, tag)| repo == repository && !tag.contains(':'))
        .map(|(_, tag)| tag)
        .collect();
    axum::Json(serde_json::json!({ "name": repository, "tags": tags })).into_response()
}

fn blob(seen: &Seen, state: &State, repository: &str, digest: &str) -> Response {
    let key = (repository.to_owned(), digest.to_owned());
    let mut blobs = state.blobs.lock().unwrap();
    if seen.method == Method::DELETE {
        return answer(if blobs.remove(&key).is_some() { 202 } else { 404 });
    }
    let Some(bytes) = blobs.get(&key) else {
        return refuse(404, "BLOB_UNKNOWN", "blob unknown");
    };
    let range = seen
        .header("range")
        .and_then(|range| range.strip_prefix("bytes="))
        .map(|range| {
            let (start, end) = range.split_once('-').unwrap();
            let start: usize = start.parse().unwrap();
            (
                start,
                end.parse()
                    .map_or(bytes.len(), |end: usize| (end + 1).min(bytes.len())),
            )
        });
    match range {
        Some((start, end)) => Response::builder()
            .status(206)
            .header(
                header::CONTENT_RANGE,
                format!("bytes {start}-{}/{}", end - 1, bytes.len()),
            )
            .body(Body::from(bytes.slice(start..end)))
            .unwrap(),
        None => (StatusCode::OK, bytes.clone()).into_response(),
    }
}

fn upload(seen: &Seen, state: &State, repository: &str, id: &str) -> Response {
    let location = |id: &str| format!("/v2/{repository}/blobs/uploads/{id}");
    let mut uploads = state.uploads.lock().unwrap();
    if seen.method == Method::POST {
        if let (Some(digest), Some(from)) = (seen.param("mount"), seen.param("from")) {
            let mut blobs = state.blobs.lock().unwrap();
            if let Some(bytes) = blobs.get(&(from, digest.clone())).cloned() {
                blobs.insert((repository.into(), digest), bytes);
                return answer(201);
            }
        }
        let id = format!("u{}", uploads.len());
        uploads.insert(id.clone(), Vec::new());
        return created(202, &[("location", location(&id)), ("range", "0-0".into())]);
    }
    let Some(have) = uploads.get_mut(id) else {
        return refuse(404, "BLOB_UPLOAD_UNKNOWN", "upload unknown");
    };
    let range = |have: &[u8]| format!("0-{}", have.len().max(1) - 1);
    match seen.method.as_str() {
        "PATCH" => {
            let start = seen
                .header("content-range")
                .and_then(|range| range.split('-').next()?.parse().ok());
            if start.is_some_and(|start: usize| start != have.len()) {
                return created(416, &[("location", location(id)), ("range", range(have))]);
            }
            have.extend_from_slice(&seen.body);
            created(202, &[("location", location(id)), ("range", range(have))])
        }
        "GET" => created(204, &[("location", location(id)), ("range", range(have))]),
        "DELETE" => {
            uploads.remove(id);
            answer(204)
        }
        "PUT" => {
            have.extend_from_slice(&seen.body);
            let digest = seen.param("digest").unwrap();
            if Digest::of(have).as_str() != digest {
                return refuse(
                    400,
                    "DIGEST_INVALID",
                    "provided digest did not match uploaded content",
                );
            }
            let bytes = uploads.remove(id).unwrap();
            state
                .blobs
                .lock()
                .unwrap()
                .insert((repository.into(), digest.clone()), bytes.into());
            created(201, &[("docker-content-digest", digest)])
        }
        _ => answer(405),
    }
}

fn manifest(seen: &Seen, state: &State, repository: &str, name: &str) -> Response {
    let key = (repository.to_owned(), name.to_owned());
    let mut manifests = state.manifests.lock().unwrap();
    match seen.method.as_str() {
        "PUT" => {
            let digest = Digest::of(&seen.body).to_string();
            let media_type = seen.header("content-type").unwrap().to_owned();
            for name in [name, &digest] {
                manifests.insert(
                    (repository.into(), name.into()),
                    (media_type.clone(), seen.body.clone()),
                );
            }
            created(201, &[("docker-content-digest", digest)])
        }
        "DELETE" => answer(if manifests.remove(&key).is_some() {
            202
        } else {
            404
        }),
        _ => match manifests.get(&key) {
            Some((media_type, bytes)) => Response::builder()
                .header(header::CONTENT_TYPE, media_type)
                .header("docker-content-digest", Digest::of(bytes).to_string())
                .body(Body::from(bytes.clone()))
                .unwrap(),
            None => refuse(404, "MANIFEST_UNKNOWN", "manifest unknown"),
        },
    }
}
