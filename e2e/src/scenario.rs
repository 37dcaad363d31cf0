//! What an end-to-end test stands on: a namespace of its own, and everything that one wants to see when it failed.
//!
//! ```no_run
//! # async fn test() -> anyhow::Result<()> {
//! slipway_e2e::scenario::run("a_build_succeeds", |s| async move {
//!     s.cluster.apply("…")?;
//!     Ok(())
//! })
//! .await
//! # }
//! ```

use std::{
    fs,
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Result, anyhow};
use k8s_openapi::api::core::v1::{Event, Namespace, Pod};
use kube::{
    Api,
    api::{DeleteParams, ListParams, LogParams, ObjectMeta, PostParams},
};

use crate::{cluster::Cluster, install, process, wait};

/// The test at hand.
#[derive(Debug)]
pub struct Scenario {
    /// Its cluster.
    pub cluster: Cluster,
    /// Its namespace, deleted at its end.
    pub namespace: String,
    name: String,
}

/// Runs `body` in a fresh namespace. When it fails or panics, the cluster's state and logs are written to
/// `e2e/failures/NAME/` before the namespace goes. Without `SLIPWAY_E2E=1` nothing runs, and one line says so.
///
/// # Errors
/// What `body` returned or panicked with, and where the dump is.
pub async fn run<F, Fut>(name: &str, body: F) -> Result<()>
where
    F: FnOnce(Arc<Scenario>) -> Fut,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    if std::env::var("SLIPWAY_E2E").as_deref() != Ok("1") {
        println!("skipped {name}: needs a cluster; run make e2e");
        return Ok(());
    }
    let scenario = Arc::new(Scenario::start(name).await?);
    // In a task of its own, so that a panicking assertion is an error here and the clean-up still runs.
    let outcome = tokio::spawn(body(scenario.clone())).await;
    let result = match outcome {
        Ok(result) => result,
        Err(error) => Err(anyhow!("panicked: {}", panic_text(error))),
    };
    let result = match result {
        Ok(()) => Ok(()),
        Err(error) => {
            let folder = scenario.dump().await;
            Err(error.context(format!(
                "{name} failed; the cluster's state is in {}",
                folder.display()
            )))
        }
    };
    let deleted = scenario.delete().await;
    result.and(deleted)
}

fn panic_text(error: tokio::task::JoinError) -> String {
    let Ok(payload) = error.try_into_panic() else {
        return "cancelled".into();
    };
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(|s| (*s).to_owned()))
        .unwrap_or_else(|| "no message".into())
}

impl Scenario {
    async fn start(name: &str) -> Result<Self> {
        let cluster = Cluster::from_env_or_embedded().await?;
        let spaces: Api<Namespace> = Api::all(cluster.client.clone());
        let short: String = name.replace('_', "-").chars().take(40).collect();
        let wanted = Namespace {
            metadata: ObjectMeta {
                generate_name: Some(format!("e2e-{}-", short.trim_end_matches('-'))),
                labels: Some([("slipway.build/e2e".to_owned(), "true".to_owned())].into()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        let made = spaces.create(&PostParams::default(), &wanted).await?;
        let namespace = made.metadata.name.unwrap_or_default();
        Ok(Self {
            cluster,
            namespace,
            name: name.to_owned(),
        })
    }

    /// An API of the test's namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.cluster.client.clone(), &self.namespace)
    }

    /// Runs kubectl in the test's namespace.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        let mut all = vec!["--namespace", &self.namespace];
        all.extend(args);
        self.cluster.kubectl(&all)
    }

    /// The log of a pod's first container, as far as there is one.
    pub async fn logs(&self, pod: &str) -> Result<String> {
        Ok(self.api::<Pod>().logs(pod, &LogParams::default()).await?)
    }

    /// Waits for a pod's end and returns its phase, `Succeeded` or `Failed`.
    pub async fn pod_end(&self, pod: &str, limit: Duration) -> Result<String> {
        let phase = |p: &Pod| {
            p.status
                .as_ref()
                .and_then(|s| s.phase.clone())
                .unwrap_or_default()
        };
        let pods = self.api::<Pod>();
        let ended = wait::object(&pods, pod, "ends", limit, |p| {
            matches!(phase(p).as_str(), "Succeeded" | "Failed")
        });
        Ok(phase(&ended.await?))
    }

    async fn delete(&self) -> Result<()> {
        let spaces: Api<Namespace> = Api::all(self.cluster.client.clone());
        spaces.delete(&self.namespace, &DeleteParams::default()).await?;
        wait::gone(&spaces, &self.namespace, Duration::from_mins(1)).await
    }

    /// Writes what one wants to know; what cannot be had is left out, since the test's own error matters more.
    async fn dump(&self) -> PathBuf {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("failures")
            .join(&self.name);
        let _ = fs::remove_dir_all(&folder);
        let _ = fs::create_dir_all(&folder);
        let write = |file: String, text: String| {
            let _ = fs::write(folder.join(file), text);
        };
        for (file, args) in [
            ("all.txt", ["get", "all,pvc,cm,events", "-o", "wide"].as_slice()),
            (
                "imagebuilds.yaml",
                &["get", "imagebuilds.slipway.build", "-o", "yaml"],
            ),
            ("pods.yaml", &["get", "pods", "-o", "yaml"]),
            ("describe.txt", &["describe", "pods"]),
            ("nodes.txt", &["describe", "nodes"]),
        ] {
            write(file.into(), self.kubectl(args).unwrap_or_else(|e| e.to_string()));
        }
        for namespace in [self.namespace.as_str(), install::NAMESPACE] {
            let pods: Api<Pod> = Api::namespaced(self.cluster.client.clone(), namespace);
            for pod in pods.list(&ListParams::default()).await.into_iter().flatten() {
                let name = pod.metadata.name.unwrap_or_default();
                for previous in [false, true] {
                    let params = LogParams {
                        previous,
                        tail_lines: Some(5000),
                        ..LogParams::default()
                    };
                    if let Ok(log) = pods.logs(&name, &params).await {
                        let end = if previous { ".previous.log" } else { ".log" };
                        write(format!("{namespace}.{name}{end}"), log);
                    }
                }
            }
        }
        if let Some(layout) = &self.cluster.embedded {
            for entry in fs::read_dir(layout.logs()).into_iter().flatten().flatten() {
                let file = format!("cluster.{}", entry.file_name().to_string_lossy());
                write(file, process::tail(&entry.path(), 200));
            }
        }
        folder
    }

    /// The messages of the namespace's events about `object`, oldest first, as `Reason: message`.
    pub async fn events(&self, object: &str) -> Result<Vec<String>> {
        let mut events = self.api::<Event>().list(&ListParams::default()).await?.items;
        events.retain(|e| e.involved_object.name.as_deref() == Some(object));
        events.sort_by_key(|e| {
            (
                e.event_time.clone().map(|t| t.0),
                e.first_timestamp.clone().map(|t| t.0),
            )
        });
        Ok(events
            .into_iter()
            .map(|e| {
                format!(
                    "{}: {}",
                    e.reason.unwrap_or_default(),
                    e.message.unwrap_or_default()
                )
            })
            .collect())
    }
}
