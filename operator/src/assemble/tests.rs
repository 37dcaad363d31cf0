use serde_json::json;

use super::*;
use crate::{fixtures, registry::fake::Fake};

const REPOSITORY: &str = "r.example.com/shop";

fn image(n: u64) -> String {
    let descriptor =
        |kind: &str, size: u64| json!({"mediaType": kind, "digest": fixtures::digest(9), "size": size});
    json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": descriptor(media_type::OCI_CONFIG, 10 * n),
        "layers": [descriptor(media_type::OCI_LAYER_GZIP, 100 * n)],
    })
    .to_string()
}

fn publication(results: &[(&str, &Digest)]) -> Publication {
    let names = ["r.example.com/shop:1", "r.example.com/shop:latest"];
    Publication {
        images: names.map(|name| name.parse().unwrap()).to_vec(),
        results: results
            .iter()
            .map(|(platform, digest)| (platform.parse().unwrap(), (*digest).clone()))
            .collect(),
        several: results.len() > 1,
        annotations: BTreeMap::new(),
    }
}

#[tokio::test]
async fn one_platform_is_tagged_as_it_is() {
    let registry = Fake::default();
    let digest = registry.hold(REPOSITORY, &image(1));
    let published = publish(&registry, &publication(&[("linux/amd64", &digest)]))
        .await
        .unwrap();
    assert_eq!(
        published,
        Published {
            digest,
            sizes: vec![110]
        }
    );
    assert_eq!(
        registry.tags(),
        ["r.example.com/shop:1", "r.example.com/shop:latest"]
    );
}

#[tokio::test]
async fn several_platforms_become_an_index_in_the_order_of_the_request_and_always_the_same() {
    let mut digests = Vec::new();
    for _ in 0..2 {
        let registry = Fake::default();
        let arm = registry.hold(REPOSITORY, &image(1));
        let amd = registry.hold(REPOSITORY, &image(2));
        let asked = publication(&[("linux/arm/v7", &arm), ("linux/amd64", &amd)]);
        let published = publish(&registry, &asked).await.unwrap();
        let index = registry.get("r.example.com/shop:1");
        assert_eq!(index.media_type, media_type::OCI_INDEX);
        assert_eq!(index.digest(), published.digest);
        assert_eq!(published.sizes, [110, 220]);
        let index: serde_json::Value = serde_json::from_slice(&index.bytes).unwrap();
        assert_eq!(
            index["manifests"][0]["platform"],
            json!({"architecture": "arm", "os": "linux", "variant": "v7"})
        );
        assert_eq!(index["manifests"][0]["digest"], json!(arm));
        assert_eq!(index["manifests"][0]["size"], json!(image(1).len()));
        assert_eq!(
            index["manifests"][1]["platform"],
            json!({"architecture": "amd64", "os": "linux"})
        );
        digests.push(published.digest);
    }
    assert_eq!(digests[0], digests[1]);
}

#[tokio::test]
async fn no_tag_is_written_while_a_part_is_not_there() {
    let registry = Fake::default();
    let here = registry.hold(REPOSITORY, &image(1));
    let asked = publication(&[("linux/amd64", &here), ("linux/arm64", &fixtures::digest(7))]);
    let fault = publish(&registry, &asked).await.unwrap_err();
    assert_eq!(fault.reason, reasons::REGISTRY_ERROR);
    assert!(registry.tags().is_empty());
    assert!(
        registry
            .asked
            .lock()
            .unwrap()
            .iter()
            .all(|asked| asked.starts_with("get"))
    );
}

#[tokio::test]
async fn a_registry_that_keeps_something_else_is_found_out() {
    let registry = Fake {
        corrupts: true,
        ..Fake::default()
    };
    let digest = registry.hold(REPOSITORY, &image(1));
    let fault = publish(&registry, &publication(&[("linux/amd64", &digest)]))
        .await
        .unwrap_err();
    assert_eq!((fault.reason, fault.transient), (reasons::DIGEST_MISMATCH, false));
}

#[tokio::test]
async fn a_refused_tag_is_told_in_the_registrys_words() {
    let fault = Fault {
        reason: reasons::REGISTRY_UNAUTHORIZED,
        message: "no".to_owned(),
        transient: false,
        retry_after: None,
    };
    let registry = Fake {
        refuses: Some(("r.example.com/shop:latest".to_owned(), fault.clone())),
        ..Fake::default()
    };
    let digest = registry.hold(REPOSITORY, &image(1));
    assert_eq!(
        publish(&registry, &publication(&[("linux/amd64", &digest)])).await,
        Err(fault)
    );
}

fn plan(registry: &Fake, version: u32, kind: &str) -> Digest {
    let schedule = Schedule {
        version,
        ..fixtures::schedule(vec![fixtures::stage("a", &[])])
    };
    let blob = registry.hold_blob(&serde_json::to_vec(&schedule).unwrap());
    let manifest = json!({"schemaVersion": 2, "layers": [{"mediaType": kind, "digest": blob, "size": 1}]});
    registry.hold(REPOSITORY, &manifest.to_string())
}

#[tokio::test]
async fn a_schedule_is_read_from_its_plan() {
    let registry = Fake::default();
    let digest = plan(&registry, SCHEDULE_VERSION, SCHEDULE_MEDIA_TYPE);
    let found = schedule(&registry, &REPOSITORY.parse().unwrap(), &digest)
        .await
        .unwrap();
    assert_eq!(found.stages[0].name, "a");
}

#[tokio::test]
async fn a_plan_of_another_release_or_without_schedule_is_told_apart() {
    let registry = Fake::default();
    for (digest, part) in [
        (plan(&registry, 99, SCHEDULE_MEDIA_TYPE), "must be of one release"),
        (
            plan(&registry, SCHEDULE_VERSION, "text/plain"),
            "it has no layer of type",
        ),
        (
            registry.hold(REPOSITORY, "nonsense"),
            "its manifest is not understood",
        ),
    ] {
        let fault = schedule(&registry, &REPOSITORY.parse().unwrap(), &digest)
            .await
            .unwrap_err();
        assert_eq!((fault.reason, fault.transient), (reasons::INTERNAL, false));
        assert!(fault.message.contains(part), "{}", fault.message);
    }
}
