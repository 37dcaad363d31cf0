//! What the operator put into this pod, read once at the start.

use slipway_engine::{
    BuildError, Progress, Result, Store,
    cache::Places,
    progress::{Plain, Sink},
};
use slipway_oci::Reference;
use slipway_plan::protocol::{
    CERTIFICATES_DIR, CREDENTIALS_DIR, FailureReason, REQUEST_DIR, REQUEST_FILE, RegistryHost, Request,
    STORE_DIR,
};
use slipway_registry::{
    ClientCertificate, Config, Credentials, HostConfig, Mirror, Registries, Repository, kept::Stamp,
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The pod's surroundings.
pub(crate) struct Pod {
    pub(crate) request: Request,
    pub(crate) registries: Registries,
    pub(crate) store: Arc<Store>,
    pub(crate) progress: Progress,
}

impl Pod {
    /// Reads the request and the credentials, opens the store.
    pub(crate) fn open() -> Result<Self> {
        let path = Path::new(REQUEST_DIR).join(REQUEST_FILE);
        let text =
            fs::read(&path).map_err(|error| BuildError::io(format!("read {}", path.display()), error))?;
        let request: Request = serde_json::from_slice(&text).map_err(|error| {
            internal(format!(
                "{} is not of this runner's form (operator and runner differ in version?): {error}",
                path.display()
            ))
        })?;
        let registries = Registries::new(config(
            &request.registries,
            credentials(Path::new(CREDENTIALS_DIR))?,
            Path::new(CERTIFICATES_DIR),
        )?)?;
        Ok(Self {
            request,
            registries,
            store: Store::open(Path::new(STORE_DIR).join("layers"))?,
            progress: Progress::new(Arc::new(Plain::new(Box::new(std::io::stdout()))) as Arc<dyn Sink>),
        })
    }

    /// Where contexts, plans and stage results are.
    pub(crate) fn cache(&self) -> Repository {
        self.registries.repository(&self.request.cache_repository)
    }

    /// Where cached results are kept and read.
    pub(crate) fn places(&self) -> Places {
        let cache = &self.request.cache;
        let from = cache.from.iter().map(|from| self.registries.repository(from));
        Places::new(self.cache(), cache.scope.clone(), from.collect())
    }

    /// `namespace/name` of the ImageBuild.
    pub(crate) fn build_name(&self) -> String {
        format!("{}/{}", self.request.build.namespace, self.request.build.name)
    }

    /// For what this pod leaves in the registry.
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp::now(self.build_name())
    }

    /// The repositories of the image's names other than the cache's, each once.
    pub(crate) fn output_repositories(&self) -> Vec<Repository> {
        let cache = self.request.cache_repository.without_tag_and_digest();
        let mut names: Vec<String> = Vec::new();
        let mut outputs: Vec<&Reference> = Vec::new();
        for output in &self.request.outputs {
            let name = output.without_tag_and_digest();
            if name != cache && !names.contains(&name) {
                names.push(name);
                outputs.push(output);
            }
        }
        outputs
            .into_iter()
            .map(|output| self.registries.repository(output))
            .collect()
    }

    /// A folder of the store for this pod's own files.
    pub(crate) fn scratch(name: &str) -> PathBuf {
        Path::new(STORE_DIR).join(name)
    }
}

/// A fault of Slipway itself.
pub(crate) fn internal(message: impl Into<String>) -> BuildError {
    BuildError::new(FailureReason::Internal, message)
}

fn config(hosts: &[RegistryHost], credentials: Credentials, certificates: &Path) -> Result<Config> {
    let hosts = hosts.iter().enumerate().map(|(number, host)| {
        let client_certificate = match &host.client_certificate {
            Some(_) => certificate(&certificates.join(number.to_string()))?,
            None => None,
        };
        let settings = HostConfig {
            mirrors: host.mirrors.iter().map(Mirror::new).collect(),
            insecure: host.insecure,
            skip_tls_verify: host.skip_tls_verify,
            ca: host.ca.clone(),
            client_certificate,
        };
        Ok((host.host.clone(), settings))
    });
    Ok(Config {
        hosts: hosts.collect::<Result<_>>()?,
        credentials,
        user_agent: Some(concat!("slipway/", env!("CARGO_PKG_VERSION")).into()),
        ..Config::default()
    })
}

/// The certificate of a mounted `kubernetes.io/tls` Secret; none where the Secret is not there.
fn certificate(dir: &Path) -> Result<Option<ClientCertificate>> {
    let read = |name: &str| {
        let file = dir.join(name);
        match fs::read_to_string(&file) {
            Ok(text) => Ok(Some(zeroize::Zeroizing::new(text))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(BuildError::io(format!("read {}", file.display()), error)),
        }
    };
    let pair = read("tls.crt")?.zip(read("tls.key")?);
    Ok(pair.map(|(certificate, key)| ClientCertificate::new(certificate.as_str(), key.as_str())))
}

/// All mounted credential Secrets, in the order of the ImageBuild's list.
fn credentials(dir: &Path) -> Result<Credentials> {
    let mut credentials = Credentials::none();
    for number in 0.. {
        let file = dir.join(number.to_string()).join(".dockerconfigjson");
        match fs::read(&file) {
            Ok(json) => {
                let json = zeroize::Zeroizing::new(json);
                credentials = credentials.with_document(format!("output.credentials[{number}]"), &*json)?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => break,
            Err(error) => return Err(BuildError::io(format!("read {}", file.display()), error)),
        }
    }
    Ok(credentials)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_in_order_until_the_first_gap() {
        let dir = tempfile::tempdir().unwrap();
        for number in ["0", "1"] {
            fs::create_dir(dir.path().join(number)).unwrap();
            fs::write(
                dir.path().join(number).join(".dockerconfigjson"),
                r#"{"auths":{}}"#,
            )
            .unwrap();
        }
        assert_eq!(credentials(dir.path()).unwrap().documents().len(), 2);
        assert!(credentials(&dir.path().join("absent")).unwrap().is_empty());
    }

    #[test]
    fn a_broken_secret_is_told_by_its_place_and_without_its_content() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("0")).unwrap();
        fs::write(dir.path().join("0/.dockerconfigjson"), "hunter2").unwrap();
        let error = credentials(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("output.credentials[0]") && !error.contains("hunter2"),
            "{error}"
        );
    }
}
