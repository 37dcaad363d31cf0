//! Registries that want something of us: a password, a certificate, patience.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use serde_json::json;
use slipway_crd::{ImageBuild, conditions};
use slipway_e2e::{
    images,
    pki::Authority,
    scenario::{self, Scenario},
    servers::{self, Server},
    wait,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::{
    build::{Build, LIMIT, failed, succeeded},
    failures::no_pod_goes_on,
};

/// Nothing else in the world has this text.
const WRONG: &str = "sl1pway-e2e-Wr0ng-Passw0rd";

/// Makes a dockerconfigjson Secret with one entry a host.
fn secret(s: &Scenario, name: &str, entries: &[(&str, &str)]) -> Result<()> {
    let auths: serde_json::Map<String, serde_json::Value> = entries
        .iter()
        .map(|(target, password)| {
            let pair = format!("{}:{password}", servers::USER);
            let auth = base64::engine::general_purpose::STANDARD.encode(pair);
            ((*target).to_owned(), json!({"auth": auth}))
        })
        .collect();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
        "metadata": {"name": name, "namespace": s.namespace},
        "stringData": {".dockerconfigjson": json!({"auths": auths}).to_string()},
    });
    s.cluster.apply(&secret.to_string()).map(|_| ())
}

/// Registries of a scenario's own stand beside the embedded cluster alone, whose DNS can name them.
fn embedded(s: &Scenario) -> bool {
    let embedded = s.cluster.embedded.is_some();
    if !embedded {
        println!("skipped: this scenario starts registries beside the embedded cluster");
    }
    embedded
}

#[tokio::test(flavor = "multi_thread")]
async fn registry_auth_a_password_is_shown_where_it_is_wanted_and_a_wrong_one_is_told() -> Result<()> {
    scenario::run("registry_auth", |s| async move {
        if !embedded(&s) {
            return Ok(());
        }
        let locked = Server::locked(&s.cluster).await?;
        let client = locked.client()?.with_login(servers::USER, servers::PASSWORD);
        client.push("library/busybox", "1", &images::busybox()?).await?;
        secret(&s, "right", &[(&locked.name, servers::PASSWORD)])?;
        secret(&s, "wrong", &[(&locked.name, WRONG)])?;
        let local = format!("{}/{}/base-wrong:v1", s.cluster.registry, s.namespace);
        let output = |name: &str| format!("{}/{}/{name}:v1", locked.name, s.namespace);
        let base = format!(
            "FROM scratch AS one\nCOPY Dockerfile /\nFROM {}/library/busybox:1\nRUN true\n",
            locked.name
        );
        let good = Build::new(&s, "good", &base)
            .with(
                "output",
                json!({"images": [output("good")], "credentials": [{"name": "right"}]}),
            )
            .create()
            .await?;
        let pushing = Build::new(&s, "output-wrong", "FROM busybox\nRUN true\n")
            .with(
                "output",
                json!({"images": [output("output-wrong")], "credentials": [{"name": "wrong"}]}),
            )
            .create()
            .await?;
        let pulling = Build::new(&s, "base-wrong", &base)
            .with(
                "output",
                json!({"images": [local], "credentials": [{"name": "wrong"}]}),
            )
            .create()
            .await?;
        let away = Build::new(&s, "base-away", "FROM away.slipway.test:5999/base\nRUN true\n")
            .with("retries", json!(0))
            .create()
            .await?;
        // A closer entry of a second Secret wins over the host's: pull and push apart.
        secret(
            &s,
            "closer",
            &[(&format!("{}/{}", locked.name, s.namespace), servers::PASSWORD)],
        )?;
        let apart = Build::new(&s, "apart", "FROM busybox\nRUN true\n")
            .with(
                "output",
                json!({"images": [output("apart")], "credentials": [{"name": "wrong"}, {"name": "closer"}]}),
            )
            .create()
            .await?;

        for (name, line) in [(&pushing, None), (&pulling, Some(3))] {
            let failure = failed(&s, name).await?;
            ensure!(failure.reason == "RegistryUnauthorized", "{name}: {failure:?}");
            ensure!(failure.line == line, "{name}: {failure:?}");
            ensure!(failure.message.contains(&locked.name), "{name}: {failure:?}");
            no_pod_goes_on(&s, name).await?;
        }
        let failure = failed(&s, &away).await?;
        ensure!(
            failure.reason == "RegistryUnreachable" && failure.line == Some(1),
            "{failure:?}"
        );
        let digest = succeeded(&s, &good).await?;
        succeeded(&s, &apart).await?;

        let found = client.manifest(&format!("{}/good", s.namespace), "v1").await?;
        ensure!(
            found.is_some_and(|found| found.digest == digest),
            "the image is not where it should be"
        );
        ensure!(
            client
                .tags(&format!("{}/output-wrong", s.namespace))
                .await?
                .is_empty()
        );
        ensure!(
            s.cluster
                .registry()?
                .tags(&format!("{}/base-wrong", s.namespace))
                .await?
                .is_empty()
        );
        ensure!(!locked.client()?.ready().await, "the registry lets everybody in");
        let objects = s.kubectl(&["get", "imagebuilds,pods,configmaps,events", "-o", "yaml"])?;
        ensure!(
            !objects.contains(WRONG),
            "an object of the namespace holds the password"
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn registry_tls_a_private_authority_is_trusted_where_it_was_given_and_a_certificate_shown_where_wanted()
-> Result<()> {
    scenario::run("registry_tls", |s| async move {
        if !embedded(&s) {
            return Ok(());
        }
        let layout = s.cluster.embedded.clone().context("an embedded cluster")?;
        let authority = Authority::open(&layout.pki())?;
        let server = Server::start(&s.cluster, servers::TLS, &servers::tls(&s.cluster, false)?).await?;
        let mutual = Server::start(&s.cluster, servers::MUTUAL, &servers::tls(&s.cluster, true)?).await?;
        servers::answers(&s.cluster, servers::STRANGE).await?;
        let root = reqwest::Certificate::from_pem(&std::fs::read(authority.cert())?)?;
        let client = server
            .client()?
            .with_client(|settings| settings.tls_certs_only([root]))?;
        client.push("library/busybox", "1", &images::busybox()?).await?;

        let output =
            |host: &str, name: &str| json!({"images": [format!("{host}/{}/{name}:v1", s.namespace)]});
        let base = format!("FROM {}/library/busybox:1\nRUN true\n", server.name);
        let trusted = Build::new(&s, "trusted", &base)
            .with("output", output(&server.name, "trusted"))
            .create()
            .await?;
        let strange = Build::new(&s, "strange", "FROM busybox\nRUN true\n")
            .with("output", output(servers::STRANGE, "strange"))
            .with("retries", json!(0))
            .create()
            .await?;
        let hidden = Build::new(&s, "hidden", "FROM busybox\nRUN true\n")
            .with("output", output(&mutual.name, "hidden"))
            .with("retries", json!(0))
            .create()
            .await?;
        let digest = succeeded(&s, &trusted).await?;
        let found = client.manifest(&format!("{}/trusted", s.namespace), "v1").await?;
        ensure!(found.is_some_and(|found| found.digest == digest));
        let failure = failed(&s, &strange).await?;
        ensure!(
            failure.reason == "RegistryUnreachable" && failure.message.contains("`ca`"),
            "{failure:?}"
        );
        let failure = failed(&s, &hidden).await?;
        ensure!(failure.reason == "RegistryUnreachable", "{failure:?}");

        let pair = authority.issue("test-client", "builder", None, &[], &[])?;
        let (cert, key) = (pair.cert.display().to_string(), pair.key.display().to_string());
        let secret = ["create", "secret", "tls", servers::CLIENT_CERTIFICATE];
        s.kubectl(&[&secret[..], &["--cert", cert.as_str(), "--key", key.as_str()]].concat())?;
        let shown = Build::new(&s, "shown", "FROM busybox\nRUN true\n")
            .with("output", output(&mutual.name, "shown"))
            .create()
            .await?;
        succeeded(&s, &shown).await?;
        ensure!(
            mutual.log().contains("/shown/manifests/v1"),
            "the image is not there"
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn registry_mirror_a_base_comes_from_the_first_mirror_that_has_it_or_from_its_registry() -> Result<()> {
    scenario::run("registry_mirror", |s| async move {
        if !embedded(&s) {
            return Ok(());
        }
        let upstream = Server::start(&s.cluster, servers::UPSTREAM, &json!({})).await?;
        let proxy = json!({"proxy": {"remoteurl": upstream.url}});
        let mirror = Server::start(&s.cluster, servers::MIRROR, &proxy).await?;
        upstream
            .client()?
            .push("library/busybox", "1", &images::busybox()?)
            .await?;
        let dockerfile = |salt: &str| {
            format!(
                "FROM {}/library/busybox:1\nRUN echo {salt} > /salt\n",
                servers::UPSTREAM
            )
        };

        let first = Build::new(&s, "first", &dockerfile("first")).create().await?;
        succeeded(&s, &first).await?;
        let asked = |log: &str| log.contains("/v2/library/busybox/manifests/1?ns=upstream.slipway.test");
        ensure!(
            asked(&mirror.log()),
            "the mirror was not asked:\n{}",
            mirror.log()
        );

        drop(upstream);
        let cached = Build::new(&s, "cached", &dockerfile("cached")).create().await?;
        succeeded(&s, &cached)
            .await
            .context("the pull-through cache has the base")?;

        drop(mirror);
        let upstream = Server::start(&s.cluster, servers::UPSTREAM, &json!({})).await?;
        upstream
            .client()?
            .push("library/busybox", "1", &images::busybox()?)
            .await?;
        let direct = Build::new(&s, "direct", &dockerfile("direct")).create().await?;
        succeeded(&s, &direct)
            .await
            .context("without mirrors the registry itself is asked")?;
        ensure!(
            upstream.log().contains("/v2/library/busybox/manifests/"),
            "{}",
            upstream.log()
        );
        Ok(())
    })
    .await
}

/// Answers the first requests with "too many", and passes everything after that on to the second registry.
async fn limiter(s: &Scenario, refused: u32, seconds: u32) -> Result<tokio::task::JoinHandle<()>> {
    let socket = servers::socket(&s.cluster, servers::LIMITED)?;
    // A program that another test starts right now may hold the port of the one before for a moment.
    let listener = wait::until("the port is free", LIMIT, || async {
        Ok(TcpListener::bind(socket).await.ok())
    })
    .await?;
    let behind = servers::socket(&s.cluster, servers::SECOND)?;
    let left = Arc::new(AtomicU32::new(refused));
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let left = left.clone();
            tokio::spawn(async move {
                let mut start = [0_u8; 16];
                // A look whether it answers is no request.
                if stream.peek(&mut start).await.unwrap_or(0) == 0 {
                    return;
                }
                let take = |left: u32| left.checked_sub(1);
                if left
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
                    .is_ok()
                {
                    let mut request = [0_u8; 4096];
                    let _ = stream.read(&mut request).await;
                    let answer = format!(
                        "HTTP/1.1 429 Too Many Requests\r\nRetry-After: {seconds}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                    );
                    let _ = stream.write_all(answer.as_bytes()).await;
                } else if let Ok(mut onwards) = TcpStream::connect(behind).await {
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut onwards).await;
                }
            });
        }
    });
    servers::answers(&s.cluster, servers::LIMITED).await?;
    Ok(task)
}

#[tokio::test(flavor = "multi_thread")]
async fn registry_limits_are_waited_out_and_told_and_another_make_of_registry_will_do() -> Result<()> {
    scenario::run("registry_limits", |s| async move {
        if !embedded(&s) {
            return Ok(());
        }
        let second = Server::second(&s.cluster).await?;
        // Two registries of different makes at once: the same digest in both.
        let images = ["one", "two"].map(|tag| format!("{}/{}/both:{tag}", second.name, s.namespace));
        let own = format!("{}/{}/both:v1", s.cluster.registry, s.namespace);
        let both = Build::new(&s, "both", "FROM busybox\nRUN echo both > /which\n")
            .with("output", json!({"images": [own, images[0], images[1]]}))
            .create()
            .await?;
        let digest = succeeded(&s, &both).await?;
        for tag in ["one", "two"] {
            let found = second
                .client()?
                .manifest(&format!("{}/both", s.namespace), tag)
                .await?;
            ensure!(found.is_some_and(|found| found.digest == digest), "{tag}");
        }

        // A short limit is waited out by the client itself.
        let short = limiter(&s, 3, 2).await?;
        let patient = Build::new(&s, "patient", "FROM busybox\nRUN echo patient > /which\n")
            .with(
                "output",
                json!({"images": [format!("{}/{}/patient:v1", servers::LIMITED, s.namespace)]}),
            )
            .with("retries", json!(0))
            .create()
            .await?;
        succeeded(&s, &patient).await?;
        short.abort();
        let _ = short.await;

        // A long one is told, with its time, and the build waits instead of failing.
        let long = limiter(&s, u32::MAX, 900).await?;
        let told = Build::new(&s, "told", "FROM busybox\nRUN echo told > /which\n")
            .with(
                "output",
                json!({"images": [format!("{}/{}/told:v1", servers::LIMITED, s.namespace)]}),
            )
            .create()
            .await?;
        wait::object(
            &s.api::<ImageBuild>(),
            &told,
            "the limit is told",
            LIMIT,
            |build| {
                let conditions = build.status.iter().flat_map(|status| &status.conditions);
                conditions
                    .filter(|condition| condition.type_ == conditions::READY)
                    .any(|ready| {
                        ready.status == "Unknown"
                            && ready.message.contains("RegistryRateLimited")
                            && ready.message.contains("900 s")
                    })
            },
        )
        .await?;
        long.abort();
        Ok(())
    })
    .await
}
