//! What a runner pod is allowed, asserted from inside a step and from the pod's spec.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use slipway_e2e::scenario;

use crate::build::{Build, pods, succeeded};

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
        ensure!(limits.is_some_and(|limits| !limits.is_empty()), "limits");
    }
    Ok(())
}
