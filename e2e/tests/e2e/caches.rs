//! Cache mounts on PersistentVolumeClaims: kept from build to build, shared as the Dockerfile says. What a step finds in
//! its cache mount tells who was there and who was there at the same time; no clock is asked.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::ListParams;
use serde_json::json;
use slipway_crd::{ImageBuild, claims::CacheClaim};
use slipway_e2e::{
    scenario::{self, Scenario},
    wait,
};

use crate::build::{Build, LIMIT, failed, pods, succeeded};

async fn claims(s: &Scenario) -> Result<Vec<CacheClaim>> {
    let params = ListParams::default().labels(&slipway_crd::claims::selector());
    let all = s.api::<PersistentVolumeClaim>().list(&params).await?;
    let mut claims: Vec<_> = all.iter().filter_map(CacheClaim::of).collect();
    claims.sort_by(|a, b| (&a.id, a.number).cmp(&(&b.id, b.number)));
    Ok(claims)
}

/// The nodes of a build's stage pods.
async fn nodes(s: &Scenario, build: &str) -> Result<Vec<String>> {
    let stage = |pod: &Pod| {
        pod.metadata
            .labels
            .as_ref()
            .is_some_and(|labels| labels.contains_key("slipway.build/stage"))
    };
    let all = pods(s, build).await?;
    Ok(all
        .into_iter()
        .filter(stage)
        .filter_map(|pod| pod.spec?.node_name)
        .collect())
}

/// Writes its name into the cache mount, and fails if somebody else is in it. The loop gives another build that may be
/// there at the same time every chance to be seen.
fn alone(name: &str, sharing: &str) -> String {
    format!(
        "FROM debian:bookworm\n\
         RUN --mount=type=cache,id=alone,target=/c,sharing={sharing} \
         mkdir /c/inside || exit 31; echo {name} > /c/inside/who; \
         for n in $(seq 300); do test \"$(ls /c/inside)\" = who && test \"$(cat /c/inside/who)\" = {name} || exit 32; sleep 0.01; done; \
         rm -r /c/inside; echo {name} >> /c/visitors\n"
    )
}

/// Writes its name and waits until the other one's is there: it succeeds only if both are in the mount at once.
fn together(name: &str, other: &str) -> String {
    format!(
        "FROM debian:bookworm\n\
         RUN --mount=type=cache,id=together,target=/c touch /c/{name}; \
         for n in $(seq 1200); do test -e /c/{other} && exit 0; sleep 0.1; done; exit 33\n"
    )
}

/// As [`together`], but by a file that only the registry of another mount can show: each has a cache mount of its own, and
/// both are there at once as the shared one proves.
fn apart(name: &str, other: &str) -> String {
    format!(
        "FROM debian:bookworm\n\
         RUN --mount=type=cache,id=meet,target=/m --mount=type=cache,id=apart,target=/c,sharing=private \
         echo {name} >> /c/visitors; touch /m/{name}; \
         for n in $(seq 1200); do test -e /m/{other} && break; sleep 0.1; done; \
         test -e /m/{other} || exit 34; test \"$(cat /c/visitors)\" = {name} || exit 35\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn cache_sharing_is_what_the_dockerfile_says() -> Result<()> {
    scenario::run("cache_sharing", |s| async move {
        // All at once: the modes do not disturb each other either.
        let mut all = Vec::new();
        for (name, dockerfile) in [
            ("lock-a", alone("a", "locked")),
            ("lock-b", alone("b", "locked")),
            ("lock-c", alone("c", "locked")),
            ("share-a", together("a", "b")),
            ("share-b", together("b", "a")),
            ("own-a", apart("a", "b")),
            ("own-b", apart("b", "a")),
        ] {
            let build = Build::new(&s, name, &dockerfile)
                .with("cache", json!({"mounts": {"size": "64Mi"}}))
                .with("pods", json!({"resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}}}));
            all.push(build.create().await?);
        }
        for name in &all {
            succeeded(&s, name).await?;
        }
        let known: Vec<_> = claims(&s)
            .await?
            .into_iter()
            .map(|claim| (claim.id, claim.number))
            .collect();
        let claim = |id: &str, number| (id.to_owned(), number);
        let expected = [
            claim("alone", 0),
            claim("apart", 1),
            claim("apart", 2),
            claim("meet", 0),
            claim("together", 0),
        ];
        ensure!(known == expected, "the claims are {known:?}");

        // A later build sees what they left, also one that shares what was locked, and wherever its pod was put.
        let later = Build::new(
            &s,
            "later",
            "FROM debian:bookworm\n\
             RUN --mount=type=cache,id=alone,target=/c test \"$(sort /c/visitors | tr -d '\\n')\" = abc || exit 41\n\
             RUN --mount=type=cache,id=apart,target=/c,sharing=private grep -q '^[ab]$' /c/visitors || exit 42\n\
             RUN --mount=type=cache,id=together,target=/c test -e /c/a -a -e /c/b || exit 43\n",
        )
        .create()
        .await?;
        succeeded(&s, &later).await?;
        let (a, b) = (nodes(&s, "share-a").await?, nodes(&s, "share-b").await?);
        ensure!(a == b, "a volume for one node was used from {a:?} and {b:?}");
        Ok(())
    })
    .await
}

/// Each line of it fails the build with a number of its own. Uid 1000 is nobody's in the image.
const OWNERS: &str = r#"FROM debian:bookworm AS first
RUN mkdir -p /seed/sub && echo hello > /seed/sub/file && chown 7:8 /seed/sub/file && chmod 640 /seed/sub/file
FROM debian:bookworm
RUN --mount=type=cache,target=/plain test "$(stat -c %u:%g:%a /plain)" = 0:0:755 || exit 11; test -z "$(ls -A /plain)" || exit 12
RUN --mount=type=cache,target=/own,uid=1000,gid=1001,mode=0700 test "$(stat -c %u:%g:%a /own)" = 1000:1001:700 || exit 13
USER 1000:1001
RUN --mount=type=cache,target=/own,uid=1000,gid=1001,mode=0700 echo mine > /own/file || exit 14
USER root
RUN --mount=type=cache,target=/own,uid=1000,gid=1001,mode=0700 test "$(stat -c %u:%g /own/file)" = 1000:1001 || exit 15
RUN --mount=type=cache,target=/own test ! -e /own/file || exit 16
RUN --mount=type=cache,target=/seeded,from=first,source=/seed test "$(cat /seeded/sub/file)" = hello || exit 17; test "$(stat -c %u:%g:%a /seeded/sub/file)" = 7:8:640 || exit 18; echo changed > /seeded/sub/file
RUN --mount=type=cache,target=/seeded,from=first,source=/seed,readonly test "$(cat /seeded/sub/file)" = changed || exit 19; touch /seeded/x 2>/dev/null && exit 20 || true
"#;

/// What a second build finds: owners as they were given, in a pod whose user namespace has other ids on the node.
const OWNERS_LATER: &str = r#"FROM debian:bookworm AS first
RUN mkdir -p /seed/sub && echo hello > /seed/sub/file && chown 7:8 /seed/sub/file && chmod 640 /seed/sub/file
FROM debian:bookworm
RUN --mount=type=cache,target=/own,uid=1000,gid=1001,mode=0700 test "$(stat -c %u:%g:%a /own)" = 1000:1001:700 || exit 21; test "$(stat -c %u:%g /own/file)" = 1000:1001 || exit 22
RUN --mount=type=cache,target=/seeded,from=first,source=/seed test "$(cat /seeded/sub/file)" = changed || exit 23; test "$(stat -c %u:%g /seeded/sub/file)" = 7:8 || exit 24
"#;

#[tokio::test(flavor = "multi_thread")]
async fn cache_owners_are_kept_from_pod_to_pod() -> Result<()> {
    scenario::run("cache_owners", |s| async move {
        // The stage that the mount begins with is the same one only if the second build finds its result.
        let results = format!("{}/{}/results", s.cluster.registry, s.namespace);
        let cache = json!({"repository": results});
        let first = Build::new(&s, "first", OWNERS)
            .with("cache", cache.clone())
            .create()
            .await?;
        succeeded(&s, &first).await?;
        let later = Build::new(&s, "later", OWNERS_LATER)
            .with("cache", cache)
            .create()
            .await?;
        succeeded(&s, &later).await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn cache_claims_outlive_builds_and_say_what_they_cannot_do() -> Result<()> {
    scenario::run("cache_claims", |s| async move {
        let dockerfile =
            |line: &str| format!("FROM debian:bookworm\nRUN --mount=type=cache,id=kept,target=/c {line}\n");
        let first = Build::new(&s, "first", &dockerfile("echo 1 > /c/one"))
            .with("cache", json!({"mounts": {"size": "64Mi"}}))
            .create()
            .await?;
        succeeded(&s, &first).await?;
        let build = s.api::<ImageBuild>().get(&first).await?;
        let kept = build
            .status
            .and_then(|status| {
                status
                    .conditions
                    .into_iter()
                    .find(|condition| condition.type_ == "CacheMountsKept")
            })
            .context("the condition CacheMountsKept")?;
        ensure!(kept.status == "True" && kept.message.contains("kept"), "{kept:?}");
        s.kubectl(&["delete", "imagebuild", &first, "--wait"])?;
        wait::until("its pods are gone", LIMIT, || async {
            Ok(pods(&s, &first).await?.is_empty().then_some(()))
        })
        .await?;

        // The class of this cluster does not grow its volumes; that is told, and stops nobody.
        let second = Build::new(&s, "second", &dockerfile("cat /c/one"))
            .with("cache", json!({"mounts": {"size": "128Mi"}}))
            .create()
            .await?;
        succeeded(&s, &second).await?;
        let told = wait::until("it is told that the claim did not grow", LIMIT, || async {
            let events = s.events(&second).await?;
            Ok(events
                .into_iter()
                .find(|event| event.starts_with("CacheClaimNotGrown")))
        })
        .await?;
        ensure!(told.contains("allowVolumeExpansion"), "{told}");
        let all = claims(&s).await?;
        ensure!(all.len() == 1 && all[0].size == 64 << 20, "{all:?}");

        // A claim that somebody else made in its place is not taken.
        let name = all[0].name.replace("-0", "-1");
        s.cluster.apply(&serde_json::to_string(&json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": s.namespace},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
        }))?)?;
        let third = Build::new(
            &s,
            "third",
            "FROM debian:bookworm\nRUN --mount=type=cache,id=kept,target=/c,sharing=private true\n",
        )
        .create()
        .await?;
        let failure = failed(&s, &third).await?;
        ensure!(
            failure.reason == "CacheClaimRefused" && failure.message.contains(&name),
            "{failure:?}"
        );
        Ok(())
    })
    .await
}
