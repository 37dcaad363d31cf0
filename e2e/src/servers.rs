//! Registries of the scenarios' own beside the cluster's: one that wants a password, one behind TLS, a mirror. Each has
//! a name and a port of its own, so that the chart's settings can speak of it before it runs.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{
    cluster::Cluster, config::write_atomically, pki::Authority, registry::Registry, tools::Tools, wait,
};

/// Wants a user name and a password; plain HTTP.
pub const LOCKED: &str = "locked.slipway.test:5001";
/// The one account of [`LOCKED`].
pub const USER: &str = "bob";
/// Its password.
pub const PASSWORD: &str = "s3cret";
/// [`USER`] and [`PASSWORD`] as htpasswd has them: bcrypt at its lowest cost.
const HTPASSWD: &str = "bob:$2y$05$9FZEljhyfD4Kv1jQ4XDF..QCh2J0n7QJVtE8tBcRo/uGmAuBKGvka\n";

/// Behind TLS, with a certificate of the cluster's own authority.
pub const TLS: &str = "tls.slipway.test:5002";
/// The same server by a name for which nobody has told that authority.
pub const STRANGE: &str = "strange.slipway.test:5002";
/// Behind TLS, and it wants to see a certificate.
pub const MUTUAL: &str = "mutual.slipway.test:5003";
/// The Secret, in each namespace that has one, with the certificate for [`MUTUAL`].
pub const CLIENT_CERTIFICATE: &str = "registry-client";
/// Has a pull-through cache, [`MIRROR`], and before that a mirror that is never there.
pub const UPSTREAM: &str = "upstream.slipway.test:5004";
/// The pull-through cache of [`UPSTREAM`].
pub const MIRROR: &str = "mirror.slipway.test:5005";
/// A registry of another make: go-containerregistry's.
pub const SECOND: &str = "second.slipway.test:5006";
/// [`SECOND`] behind something that limits requests.
pub const LIMITED: &str = "limited.slipway.test:5007";
const ABSENT: &str = "absent.slipway.test:5099";

/// What the chart is told of them.
///
/// # Errors
/// When the cluster's authority cannot be read.
pub fn settings(cluster: &Cluster) -> Result<Vec<Value>> {
    let Some(layout) = &cluster.embedded else {
        return Ok(Vec::new());
    };
    let ca = fs::read_to_string(Authority::open(&layout.pki())?.cert())?;
    Ok(vec![
        json!({"host": LOCKED, "insecure": true}),
        json!({"host": TLS, "ca": ca}),
        json!({"host": MUTUAL, "ca": ca, "clientCertificate": CLIENT_CERTIFICATE}),
        json!({"host": UPSTREAM, "insecure": true, "mirrors": [ABSENT, MIRROR]}),
        json!({"host": MIRROR, "insecure": true}),
        json!({"host": ABSENT, "insecure": true}),
        json!({"host": SECOND, "insecure": true}),
        json!({"host": LIMITED, "insecure": true}),
    ])
}

/// A running registry; it ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    folder: PathBuf,
    /// As image references name it.
    pub name: String,
    /// As this machine reaches it.
    pub url: String,
}

impl Server {
    /// Starts the CNCF registry under `name` (`host.slipway.test:port`), empty, with these settings over the usual ones.
    ///
    /// # Errors
    /// When it does not answer within seconds: with the last lines of its log.
    pub async fn start(cluster: &Cluster, name: &str, settings: &Value) -> Result<Self> {
        let (folder, socket) = place(cluster, name)?;
        let mut config = json!({
            "version": "0.1",
            "log": {"level": "info"},
            "storage": {"filesystem": {"rootdirectory": folder.join("data")}, "delete": {"enabled": true}},
            "http": {"addr": socket.to_string(), "secret": "of no use with one replica"},
        });
        merge(&mut config, settings);
        let file = folder.join("config.json");
        write_atomically(&file, &serde_json::to_vec_pretty(&config)?)?;
        let mut command = Command::new(Tools::build(false)?.file("registry")?);
        command
            .arg("serve")
            .arg(&file)
            .env("OTEL_TRACES_EXPORTER", "none");
        let scheme = if config["http"]["tls"].is_object() {
            "https"
        } else {
            "http"
        };
        let url = format!("{scheme}://{socket}");
        Self::run(cluster, name, folder, url, command).await
    }

    /// Starts [`SECOND`], empty.
    ///
    /// # Errors
    /// As for [`Server::start`].
    pub async fn second(cluster: &Cluster) -> Result<Self> {
        let (folder, socket) = place(cluster, SECOND)?;
        let data = folder.join("data");
        std::fs::create_dir_all(&data)?;
        let mut command = Command::new(Tools::build(false)?.file("crane")?);
        command
            .args(["registry", "serve", "--address", &socket.to_string(), "--disk"])
            .arg(data);
        let url = format!("http://{socket}");
        Self::run(cluster, SECOND, folder, url, command).await
    }

    async fn run(
        cluster: &Cluster,
        name: &str,
        folder: PathBuf,
        url: String,
        mut command: Command,
    ) -> Result<Self> {
        let log = File::create(folder.join("log"))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("failed to start a registry")?;
        let server = Self {
            child,
            folder,
            name: name.to_owned(),
            url,
        };
        answers(cluster, name).await.with_context(|| server.log())?;
        Ok(server)
    }

    /// Starts [`LOCKED`].
    ///
    /// # Errors
    /// As for [`Server::start`].
    pub async fn locked(cluster: &Cluster) -> Result<Self> {
        let layout = cluster.embedded.as_ref().context("no embedded cluster")?;
        // Not in the server's folder, which is made anew.
        let file = layout.root.join("servers/htpasswd");
        write_atomically(&file, HTPASSWD.as_bytes())?;
        Self::start(
            cluster,
            LOCKED,
            &json!({"auth": {"htpasswd": {"realm": "test", "path": file}}}),
        )
        .await
    }

    /// A client without any credentials.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub fn client(&self) -> Result<Registry> {
        Registry::new(&self.url)
    }

    /// What it has written so far, requests included.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

/// A new folder for a server, and where it listens.
fn place(cluster: &Cluster, name: &str) -> Result<(PathBuf, SocketAddr)> {
    let layout = cluster
        .embedded
        .as_ref()
        .context("registries are started beside the embedded cluster only")?;
    let folder = layout.root.join("servers").join(short(name));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    Ok((folder, socket(cluster, name)?))
}

/// Where the server of a name listens.
///
/// # Errors
/// When the name has no port.
pub fn socket(cluster: &Cluster, name: &str) -> Result<SocketAddr> {
    let (_, port) = name.split_once(':').context("a test's registry has a port")?;
    let port: u16 = port.parse()?;
    Ok(SocketAddr::from((cluster.host_address()?, port)))
}

fn short(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// Makes a name known to pods, and waits until its server answers.
///
/// # Errors
/// When it does not within seconds.
pub async fn answers(cluster: &Cluster, name: &str) -> Result<()> {
    let socket = socket(cluster, name)?;
    cluster.add_host(short(name), socket.ip())?;
    wait::until(&format!("{name} answers"), Duration::from_secs(20), || async {
        Ok(TcpStream::connect(socket).is_ok().then_some(()))
    })
    .await
}

/// The settings for TLS with a certificate of the cluster's authority; `mutual` wants one of our side too.
///
/// # Errors
/// When the authority cannot be read.
pub fn tls(cluster: &Cluster, mutual: bool) -> Result<Value> {
    let layout = cluster.embedded.as_ref().context("no embedded cluster")?;
    let ca = Authority::open(&layout.pki())?;
    let names = [TLS, STRANGE, MUTUAL].map(|name| name.split(':').next().unwrap_or(name));
    let pair = ca.issue(
        "test-registry",
        "test-registry",
        None,
        &names,
        &[cluster.host_address()?.into()],
    )?;
    let mut tls = json!({"certificate": pair.cert, "key": pair.key});
    if mutual {
        tls["clientcas"] = json!([ca.cert()]);
    }
    Ok(json!({"http": {"tls": tls}}))
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Lays an object over another, key by key.
fn merge(below: &mut Value, above: &Value) {
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => {
            for (key, value) in above {
                merge(below.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (below, above) => *below = above.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_laid_over_key_by_key() {
        let mut config = json!({"http": {"addr": "a", "secret": "s"}, "version": "0.1"});
        merge(
            &mut config,
            &json!({"http": {"addr": "b"}, "auth": {"htpasswd": {}}}),
        );
        assert_eq!(
            config,
            json!({"http": {"addr": "b", "secret": "s"}, "version": "0.1", "auth": {"htpasswd": {}}})
        );
    }
}
