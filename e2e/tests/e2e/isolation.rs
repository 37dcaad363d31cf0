//! What a runner pod is allowed, asserted from inside a step and from the pod's spec.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use slipway_e2e::scenario;

use crate::build::{Build, pods, repository, succeeded};

/// Each line of it fails the build with a number of its own.
const DOCKERFILE: &str = r#"FROM debian:bookworm
RUN read inside outside count < /proc/self/uid_map; echo "uid map $inside $outside $count"; test "$outside" != 0 || exit 11
RUN grep -q '^Seccomp:[[:space:]]*2' /proc/self/status || exit 12
RUN test ! -e /var/run/secrets/kubernetes.io || exit 13
RUN test ! -e /slipway || exit 14
RUN env | grep -i -e slipway -e kubernetes && exit 15 || true
RUN grep -q '^CapEff:.*[0-9a-f]' /proc/self/status && mount -t tmpfs none /mnt 2>/dev/null && exit 16 || true
RUN test "$(ls -d /proc/[0-9]* | wc -l)" -lt 8 || exit 17
RUN umount /proc 2>/dev/null && exit 18 || true
"#;

#[tokio::test(flavor = "multi_thread")]
async fn runner_pods_have_no_more_rights_than_they_use() -> Result<()> {
    scenario::run("isolation", |s| async move {
        let name = Build::new(&s, "contained", DOCKERFILE).create().await?;
        succeeded(&s, &name).await?;
        let all = pods(&s, &name).await?;
        ensure!(all.len() >= 2, "a plan pod and a stage pod: {}", all.len());
        for pod in &all {
            check(pod).with_context(|| format!("pod {:?}", pod.metadata.name))?;
        }
        Ok(())
    })
    .await
}

fn check(pod: &Pod) -> Result<()> {
    let spec = pod.spec.as_ref().context("a pod has a spec")?;
    ensure!(spec.host_users == Some(false), "hostUsers");
    ensure!(spec.automount_service_account_token == Some(false), "token");
    ensure!(spec.enable_service_links == Some(false), "service links");
    ensure!(
        spec.host_network != Some(true) && spec.host_pid != Some(true) && spec.host_ipc != Some(true),
        "host namespaces"
    );
    let seccomp = spec
        .security_context
        .as_ref()
        .and_then(|context| context.seccomp_profile.as_ref());
    ensure!(
        seccomp.is_some_and(|profile| profile.type_ == "RuntimeDefault"),
        "seccomp"
    );
    for volume in spec.volumes.iter().flatten() {
        ensure!(volume.host_path.is_none(), "hostPath {}", volume.name);
        let token = volume
            .projected
            .as_ref()
            .and_then(|projected| projected.sources.as_ref());
        ensure!(
            !token
                .into_iter()
                .flatten()
                .any(|source| source.service_account_token.is_some()),
            "projected token"
        );
    }
    for container in &spec.containers {
        let context = container
            .security_context
            .as_ref()
            .context("a security context")?;
        ensure!(context.privileged != Some(true), "privileged");
        ensure!(context.read_only_root_filesystem == Some(true), "read-only root");
        let capabilities = context.capabilities.as_ref().context("capabilities")?;
        ensure!(
            capabilities.drop.as_deref() == Some(&["ALL".to_owned()]),
            "drop ALL"
        );
        let limits = container
            .resources
            .as_ref()
            .and_then(|resources| resources.limits.as_ref());
        let has = |name: &str| limits.is_some_and(|limits| limits.contains_key(name));
        ensure!(has("cpu") && has("memory"), "limits");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_settings_reach_the_pods_of_their_stage_and_proxies_every_step() -> Result<()> {
    scenario::run("pod_settings", |s| async move {
        // Not whole in the Dockerfile, which is published with the plan.
        let dockerfile = "FROM debian:bookworm AS tools\n\
             RUN case \"$ftp_proxy\" in http://somebody:?*@proxy.test:1) ;; *) exit 1 ;; esac\n\
             RUN test \"$ftp_proxy\" = \"$FTP_PROXY\" && test -z \"$OTHER\" && echo ok > /ok\n\
             FROM debian:bookworm\nCOPY --from=tools /ok /\n";
        let pods_asked = json!({
            "env": [{"name": "FTP_PROXY", "value": "http://somebody:hidden@proxy.test:1"}, {"name": "OTHER", "value": "x"}],
            "topologySpreadConstraints": [{
                "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {"slipway.build/build": "asked"}},
            }],
            "stages": {"tools": {
                "resources": {"limits": {"memory": "1536Mi"}},
                "nodeSelector": {"kubernetes.io/os": "linux"},
                "annotations": {"example.com/why": "tools"},
            }, "nosuch": {}},
        });
        Build::new(&s, "asked", dockerfile)
            .with("pods", pods_asked)
            .create()
            .await?;
        let digest = succeeded(&s, "asked").await?;
        for pod in pods(&s, "asked").await? {
            check(&pod)?;
            let spec = pod.spec.as_ref().context("a spec")?;
            let limits = spec.containers[0]
                .resources
                .as_ref()
                .and_then(|all| all.limits.as_ref());
            let memory = limits
                .and_then(|limits| limits.get("memory"))
                .map(|memory| memory.0.as_str());
            let stage = pod
                .metadata
                .labels
                .as_ref()
                .and_then(|labels| labels.get("slipway.build/stage"));
            let is_tools = stage.is_some_and(|stage| stage == "tools-linux-amd64");
            ensure!((memory == Some("1536Mi")) == is_tools, "{stage:?}: {memory:?}");
            let annotations = pod.metadata.annotations.clone().unwrap_or_default();
            ensure!(
                annotations.contains_key("example.com/why") == is_tools,
                "{stage:?}: {annotations:?}"
            );
            ensure!(
                spec.topology_spread_constraints
                    .as_ref()
                    .is_some_and(|all| all.len() == 1),
                "{stage:?}"
            );
        }
        let events = s.events("asked").await?;
        ensure!(
            events
                .iter()
                .any(|event| event.starts_with("StageUnknown: ") && event.contains("nosuch")),
            "{events:?}"
        );
        // The proxy, which has a password in it, is in nothing that the build left in the registry.
        let (registry, repository) = (s.cluster.registry()?, repository(&s, "asked"));
        for reference in registry.tags(&repository).await?.into_iter().chain([digest]) {
            let Some(manifest) = registry.manifest(&repository, &reference).await? else {
                continue;
            };
            let layers = manifest.json["layers"].as_array().into_iter().flatten();
            for descriptor in std::iter::once(&manifest.json["config"]).chain(layers) {
                // An index has no config.
                let Some(found) = descriptor["digest"].as_str() else {
                    continue;
                };
                let blob = registry.blob(&repository, found).await?;
                ensure!(
                    !blob.windows(6).any(|window| window == b"hidden"),
                    "{reference} {found} holds the proxy"
                );
            }
        }
        Ok(())
    })
    .await
}
