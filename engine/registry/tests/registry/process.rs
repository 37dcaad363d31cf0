//! The CNCF registry's own program, where it is: `SLIPWAY_TEST_REGISTRY_BIN`, the tools folder, or the distribution's package.

use crate::fake::impatient;
use slipway_oci::Reference;
use slipway_registry::{Config, HostConfig};
use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

fn program() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("SLIPWAY_TEST_REGISTRY_BIN") {
        return Some(path.into());
    }
    let tools = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/slipway/tools"));
    let built = tools
        .and_then(|tools| std::fs::read_dir(tools).ok())
        .into_iter()
        .flatten()
        .flatten()
        .find_map(|entry| {
            let registry = entry.path().join("registry");
            (entry.file_name().to_string_lossy().starts_with("registry-") && registry.is_file())
                .then_some(registry)
        });
    built.or_else(|| Some(PathBuf::from("/usr/bin/docker-registry")).filter(|path| path.is_file()))
}

/// The program, running.
pub(crate) struct Real {
    child: Child,
    pub(crate) host: String,
    _dir: tempfile::TempDir,
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// bob:s3cret, by bcrypt at its lowest cost.
const HTPASSWD: &str = "bob:$2y$05$9FZEljhyfD4Kv1jQ4XDF..QCh2J0n7QJVtE8tBcRo/uGmAuBKGvka";

impl Real {
    pub(crate) async fn start(auth: bool) -> Option<Self> {
        let Some(program) = program() else {
            println!("skipped: no registry program (set SLIPWAY_TEST_REGISTRY_BIN)");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        drop(listener);
        let root = dir.path().display();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nhttp: {{addr: \"{host}\"}}\n\
             storage: {{filesystem: {{rootdirectory: {root}/data}}, delete: {{enabled: true}}}}\n"
        );
        if auth {
            std::fs::write(dir.path().join("htpasswd"), HTPASSWD).unwrap();
            config = format!("{config}auth: {{htpasswd: {{realm: test, path: {root}/htpasswd}}}}\n");
        }
        let file = dir.path().join("config.yml");
        std::fs::write(&file, config).unwrap();
        let child = Command::new(program)
            .arg("serve")
            .arg(file)
            .env_clear()
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let real = Self {
            child,
            host,
            _dir: dir,
        };
        let start = Instant::now();
        while tokio::net::TcpStream::connect(&real.host).await.is_err() {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "the registry does not start"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Some(real)
    }

    pub(crate) fn config(&self) -> Config {
        let mut config = impatient();
        config.hosts.insert(
            self.host.clone(),
            HostConfig {
                insecure: true,
                ..HostConfig::default()
            },
        );
        config
    }

    pub(crate) fn reference(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.host).parse().unwrap()
    }
}
