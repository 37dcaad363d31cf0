//! An API server with one ImageBuild and its pods, played by the test. Plain HTTP on the loopback address, a thread a
//! connection, no more of the protocol than kube's client uses.

use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Condvar, Mutex},
    thread,
};

/// What the server knows.
#[derive(Default)]
struct State {
    version: u64,
    build: Option<Value>,
    pods: BTreeMap<String, Value>,
    logs: BTreeMap<String, Log>,
    patches: Vec<Value>,
}

#[derive(Default, Clone)]
struct Log {
    text: String,
    ended: bool,
}

/// The server. It lives as long as the process.
#[derive(Clone)]
pub(crate) struct Fake {
    shared: Arc<(Mutex<State>, Condvar)>,
    address: String,
}

impl Fake {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let fake = Self {
            shared: Arc::default(),
            address: listener.local_addr().unwrap().to_string(),
        };
        let server = fake.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                // A client that goes away in the middle is no fault of the test.
                thread::spawn(move || drop(server.serve(stream)));
            }
        });
        fake
    }

    /// Writes a kubeconfig for it.
    pub(crate) fn kubeconfig(&self, path: &Path) {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: fake\n\
             clusters: [{{name: fake, cluster: {{server: 'http://{}'}}}}]\nusers: [{{name: fake, user: {{}}}}]\n\
             contexts: [{{name: fake, context: {{cluster: fake, user: fake, namespace: web}}}}]\n",
            self.address
        );
        fs::write(path, text).unwrap();
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let (state, changed) = &*self.shared;
        let mut state = state.lock().unwrap();
        change(&mut state);
        state.version += 1;
        let version = state.version.to_string();
        if let Some(build) = &mut state.build {
            build["metadata"]["resourceVersion"] = json!(version);
        }
        changed.notify_all();
    }

    /// The ImageBuild `shop` has this status now.
    pub(crate) fn build(&self, status: Value) {
        let build = json!({
            "apiVersion": "slipway.build/v1alpha1", "kind": "ImageBuild",
            "metadata": {"name": "shop", "namespace": "web", "uid": "u", "generation": 1},
            "spec": {"output": {"images": ["registry.example.com/shop/web:1.4"]}},
            "status": status,
        });
        self.change(|state| state.build = Some(build));
    }

    /// A pod of the build runs a stage (`plan`: makes the plan), on a node.
    pub(crate) fn pod(&self, name: &str, stage: &str, node: &str) {
        let mut labels = json!({
            "slipway.build/build": "shop", "slipway.build/run": "1", "slipway.build/attempt": "1",
            "slipway.build/kind": if stage == "plan" { "plan" } else { "stage" },
        });
        if stage != "plan" {
            labels["slipway.build/stage"] = json!(stage);
        }
        let pod = json!({
            "metadata": {"name": name, "namespace": "web", "labels": labels, "resourceVersion": "1",
                "ownerReferences": [{"apiVersion": "slipway.build/v1alpha1", "kind": "ImageBuild", "name": "shop", "uid": "u"}]},
            "spec": {"containers": [{"name": "runner"}], "nodeName": node},
            "status": {"phase": "Running", "containerStatuses": [{
                "name": "runner", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}},
            }]},
        });
        self.change(|state| {
            state.pods.insert(name.to_owned(), pod);
        });
    }

    /// A pod prints lines.
    pub(crate) fn print(&self, pod: &str, lines: &[&str]) {
        self.change(|state| {
            let log = state.logs.entry(pod.to_owned()).or_default();
            for line in lines {
                let second = log.text.lines().count();
                let _ = writeln!(log.text, "2026-11-27T22:00:00.{second:09}Z {line}");
            }
        });
    }

    /// A pod's container ends.
    pub(crate) fn end(&self, pod: &str) {
        self.change(|state| {
            state.logs.entry(pod.to_owned()).or_default().ended = true;
            if let Some(pod) = state.pods.get_mut(pod) {
                pod["status"]["containerStatuses"][0]["state"] = json!({"terminated": {"exitCode": 0}});
            }
        });
    }

    /// Waits until the build was patched, and returns what with.
    pub(crate) fn patched(&self) -> Value {
        let (state, changed) = &*self.shared;
        let state = state.lock().unwrap();
        let state = changed
            .wait_while(state, |state| state.patches.is_empty())
            .unwrap();
        state.patches[0].clone()
    }

    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut out = stream;
        loop {
            let mut first = String::new();
            if reader.read_line(&mut first)? == 0 {
                return Ok(());
            }
            let mut length = 0;
            loop {
                let mut header = String::new();
                reader.read_line(&mut header)?;
                if header.trim().is_empty() {
                    break;
                }
                if let Some(value) = header.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap_or(0);
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            let mut words = first.split(' ');
            let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            self.answer(&mut out, method, target, &body)?;
        }
    }

    fn answer(&self, out: &mut TcpStream, method: &str, target: &str, body: &[u8]) -> std::io::Result<()> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let builds = path.contains("/imagebuilds");
        let name = path.rsplit('/').next().unwrap_or_default();
        if let Some(pod) = path.strip_suffix("/log") {
            let pod = pod.rsplit('/').next().unwrap_or_default();
            return self.stream_log(out, pod, query.contains("follow=true"));
        }
        if method == "PATCH" {
            let patch = serde_json::from_slice(body).unwrap_or_default();
            self.change(|state| state.patches.push(patch));
        }
        if query.contains("watch=true") {
            return self.stream_changes(out, builds);
        }
        let state = self.shared.0.lock().unwrap();
        let version = state.version.to_string();
        let list = |items: Vec<Value>| json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items});
        let answer = match (builds, name) {
            (true, "imagebuilds") => Some(list(state.build.iter().cloned().collect())),
            (true, _) => state
                .build
                .clone()
                .filter(|build| build["metadata"]["name"] == name),
            (false, "pods") => Some(list(state.pods.values().cloned().collect())),
            (false, _) => state.pods.get(name).cloned(),
        };
        drop(state);
        let (code, body) = match answer {
            Some(body) => ("200 OK", body),
            None => (
                "404 Not Found",
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404, "reason": "NotFound", "message": "not found"}),
            ),
        };
        let body = body.to_string();
        write!(
            out,
            "HTTP/1.1 {code}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    /// Sends every change from now on, until the client goes away.
    fn stream_changes(&self, out: &mut TcpStream, builds: bool) -> std::io::Result<()> {
        write!(
            out,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )?;
        let mut sent: Vec<Value> = Vec::new();
        let (state, changed) = &*self.shared;
        let mut state = state.lock().unwrap();
        loop {
            let now: Vec<Value> = if builds {
                state.build.iter().cloned().collect()
            } else {
                state.pods.values().cloned().collect()
            };
            let news: Vec<Value> = now
                .iter()
                .filter(|object| !sent.contains(object))
                .cloned()
                .collect();
            drop(state);
            sent = now;
            for object in news {
                let event = json!({"type": "MODIFIED", "object": object});
                chunk(out, &format!("{event}\n"))?;
            }
            let lock = self.shared.0.lock().unwrap();
            state = changed.wait(lock).unwrap();
        }
    }

    fn stream_log(&self, out: &mut TcpStream, pod: &str, follow: bool) -> std::io::Result<()> {
        write!(
            out,
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
        )?;
        let mut sent = 0;
        let (state, changed) = &*self.shared;
        let mut state = state.lock().unwrap();
        loop {
            let log = state.logs.get(pod).cloned().unwrap_or_default();
            drop(state);
            if log.text.len() > sent {
                chunk(out, &log.text[sent..])?;
                sent = log.text.len();
            }
            if log.ended || !follow {
                return write!(out, "0\r\n\r\n");
            }
            let lock = self.shared.0.lock().unwrap();
            state = changed.wait(lock).unwrap();
        }
    }
}

fn chunk(out: &mut TcpStream, text: &str) -> std::io::Result<()> {
    write!(out, "{:x}\r\n{text}\r\n", text.len())?;
    out.flush()
}
