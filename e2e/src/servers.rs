//! Registries of the scenarios' own beside the cluster's: one that wants a password, one behind TLS, a mirror. Each has
//! a name and a port of its own, so that the chart's settings can speak of it before it runs.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{cluster::Cluster, config::write_atomically, registry::Registry, tools::Tools, wait};

/// Wants a user name and a password; plain HTTP.
pub const LOCKED: &str = "locked.slipway.test:5001";
/// The one account of [`LOCKED`].
pub const USER: &str = "bob";
/// Its password.
pub const PASSWORD: &str = "s3cret";
/// [`USER`] and [`PASSWORD`] as htpasswd has them: bcrypt at its lowest cost.
const HTPASSWD: &str = "bob:$2y$05$9FZEljhyfD4Kv1jQ4XDF..QCh2J0n7QJVtE8tBcRo/uGmAuBKGvka\n";

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
        let (host, port) = name.split_once(':').context("a test's registry has a port")?;
        let short = host.split('.').next().unwrap_or(host);
        let (address, port): (Ipv4Addr, u16) = (cluster.host_address()?, port.parse()?);
        let layout = cluster
            .embedded
            .as_ref()
            .context("registries are started beside the embedded cluster only")?;
        let folder = layout.root.join("servers").join(short);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        let mut config = json!({
            "version": "0.1",
            "log": {"level": "info"},
            "storage": {"filesystem": {"rootdirectory": folder.join("data")}, "delete": {"enabled": true}},
            "http": {"addr": format!("{address}:{port}"), "secret": "of no use with one replica"},
        });
        merge(&mut config, settings);
        let file = folder.join("config.json");
        write_atomically(&file, &serde_json::to_vec_pretty(&config)?)?;
        let log = File::create(folder.join("log"))?;
        let child = Command::new(Tools::build(false)?.file("registry")?)
            .arg("serve")
            .arg(&file)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("failed to start a registry")?;
        let scheme = if config["http"]["tls"].is_object() {
            "https"
        } else {
            "http"
        };
        let server = Self {
            child,
            folder,
            name: name.to_owned(),
            url: format!("{scheme}://{address}:{port}"),
        };
        cluster.add_host(short, address.into())?;
        let socket = SocketAddr::from((address, port));
        wait::until(&format!("{name} answers"), Duration::from_secs(20), || async {
            Ok(TcpStream::connect(socket).is_ok().then_some(()))
        })
        .await
        .with_context(|| server.log())?;
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

    /// Its folder, for files of a scenario.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
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
