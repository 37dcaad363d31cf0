//! The cache of steps against registries, proper and faulty: what is kept, found, refused and told.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper of a test fails as the test does"
)]

#[path = "../registry/tests/registry/fake.rs"]
#[allow(dead_code, reason = "the registry's own tests use the rest")]
mod fake;
#[path = "../registry/tests/registry/process.rs"]
#[allow(dead_code, reason = "the registry's own tests use the rest")]
mod process;

use fake::Fake;
use process::Real;
use slipway_engine::{
    BuildError, Layer, LayerDesc, Progress, Root, StepCache, StepRecord, Store,
    cache::{Hits, Places, RegistryCache},
    progress::{Event, Sink},
};
use slipway_oci::{Digest, media_type};
use slipway_plan::protocol::FailureReason;
use slipway_registry::{
    BlobSource, PutOptions, Registries, Repository,
    kept::{Kind, Policy, prune, tag, usage},
};
use std::{
    io::Read as _,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

#[derive(Default)]
struct Warnings(Mutex<Vec<String>>);

impl Sink for Warnings {
    fn event(&self, event: Event) {
        if let Event::Warning { rule, detail, .. } = event {
            self.0.lock().unwrap().push(format!("{rule}: {detail}"));
        }
    }

    fn finish(&self) {}
}

struct Build {
    cache: RegistryCache,
    warnings: Arc<Warnings>,
}

impl Build {
    fn new(places: Places) -> Self {
        let warnings = Arc::new(Warnings::default());
        let progress = Progress::new(warnings.clone() as Arc<dyn Sink>);
        Self {
            cache: RegistryCache::new(places, "team/shop", true, progress),
            warnings,
        }
    }

    fn of(repository: &Repository) -> Self {
        Self::new(Places::new(repository.clone(), None, Vec::new()))
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.0.lock().unwrap().clone()
    }

    /// As a stage does it: a step ran, its layer was uploaded.
    async fn keep(&self, repository: &Repository, keys: &[&str], content: &str) -> LayerDesc {
        let desc = upload(repository, content).await;
        let layer = Layer {
            snapshot: Store::layer_id(&desc.diff_id),
            desc: Some(desc.clone()),
            blobs: None,
            created: None,
        };
        let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
        let record = StepRecord {
            snapshot: layer.snapshot.clone(),
            content_key: format!("after {content}"),
            created: 17,
            keys: keys.clone(),
        };
        self.cache.record(&keys, &record, &Root::default());
        self.cache.uploaded(&layer).await;
        desc
    }
}

async fn upload(repository: &Repository, content: &str) -> LayerDesc {
    let digest = Digest::of(content.as_bytes());
    let source = BlobSource::Bytes(content.to_owned().into());
    repository
        .put_blob(&digest, content.len() as u64, source, &PutOptions::default())
        .await
        .unwrap();
    LayerDesc {
        diff_id: digest.clone(),
        digest,
        size: content.len() as u64,
        media_type: media_type::OCI_LAYER.into(),
    }
}

fn key(number: usize) -> String {
    Digest::of(number.to_string().as_bytes()).hex().to_owned()
}

fn tag_of(number: usize) -> String {
    tag(Kind::Step, &key(number), None)
}

#[tokio::test]
async fn what_one_build_keeps_the_next_one_finds_under_each_key() {
    let fake = Fake::start().await;
    let repository = fake.repository("cache");
    let desc = Build::of(&repository)
        .keep(&repository, &[&key(1), &key(2)], "one")
        .await;
    for number in [1, 2] {
        let next = Build::of(&repository);
        let found = next.cache.lookup(&key(number)).await.unwrap();
        assert_eq!((found.content_key.as_str(), found.created), ("after one", 17));
        assert_eq!(found.layer.desc, Some(desc.clone()));
        let mut reader = found.layer.blobs.unwrap().open(&desc).await.unwrap();
        let read = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        assert_eq!(read.await.unwrap().unwrap(), "one");
        assert!(next.cache.lookup(&key(999)).await.is_none());
        assert_eq!(next.warnings(), [""; 0]);
    }
}

#[tokio::test]
async fn a_chain_costs_two_requests_a_step_and_ends_at_the_first_miss() {
    let fake = Fake::start().await;
    let repository = fake.repository("cache");
    let keys: Vec<String> = (0..50).map(key).collect();
    let all: Vec<&str> = keys.iter().map(String::as_str).collect();
    let first = Build::of(&repository);
    for (number, key) in all.iter().enumerate() {
        first.keep(&repository, &[key], &format!("layer {number}")).await;
    }
    assert_eq!(
        fake.seen("PUT", "/manifests/").len(),
        50,
        "one for each new result"
    );
    fake.forget();
    assert_eq!(Build::of(&repository).cache.chain(&all).await.len(), 50);
    assert_eq!(fake.log().len(), 100, "one GET and one HEAD for each");
    assert_eq!(fake.seen("GET", "/blobs/").len(), 0, "no layer is read");

    fake.forget();
    let missing = key(999);
    let mut broken = all.clone();
    broken[3] = &missing;
    assert_eq!(Build::of(&repository).cache.chain(&broken).await.len(), 3);
    assert!(fake.log().len() <= 32, "one batch, not {}", fake.log().len());

    // What the plan has found, its stages do not ask for again, nor write again.
    let found = Build::of(&repository).cache.chain(&all).await;
    let hits: Hits = keys.iter().cloned().zip(found).collect();
    fake.forget();
    let stage = Build::of(&repository);
    stage.cache.know(&hits);
    assert!(stage.cache.lookup(all[49]).await.is_some());
    assert_eq!(fake.log().len(), 0);
    stage.keep(&repository, &[all[49]], "layer 49").await;
    assert_eq!(fake.seen("PUT", "/manifests/").len(), 0);
}

#[tokio::test]
async fn whatever_is_wrong_with_an_entry_is_a_miss_with_a_warning() {
    let fake = Fake::start().await;
    let repository = fake.repository("cache");
    let first = Build::of(&repository);
    let desc = first.keep(&repository, &[&key(1)], "one").await;
    first.keep(&repository, &[&key(2)], "two").await;
    let good = repository.get_manifest(tag_of(1).as_str()).await.unwrap();
    let other = repository.get_manifest(tag_of(2).as_str()).await.unwrap();
    let put = |bytes: Vec<u8>| fake.add_manifest("cache", &tag_of(1), media_type::OCI_MANIFEST, bytes);
    let text = String::from_utf8(good.bytes.to_vec()).unwrap();
    let tampered = text.replace(desc.digest.as_str(), Digest::of(b"two").as_str());
    assert_ne!(text, tampered);
    let cases: [(&str, Vec<u8>); 4] = [
        ("not JSON", b"<html>".to_vec()),
        (
            "another thing",
            br#"{"schemaVersion":2,"config":{},"layers":[]}"#.to_vec(),
        ),
        ("another step's", other.bytes.to_vec()),
        ("another layer", tampered.into_bytes()),
    ];
    for (what, bytes) in cases {
        put(bytes);
        let next = Build::of(&repository);
        assert!(next.cache.lookup(&key(1)).await.is_none(), "{what}");
        let warnings = next.warnings();
        assert!(
            warnings.len() == 1
                && warnings[0].contains("CacheEntryBroken")
                && warnings[0].contains(&tag_of(1)),
            "{what}: {warnings:?}"
        );
    }
    // Whole again, but the garbage collector has taken the layer.
    put(good.bytes.to_vec());
    assert!(Build::of(&repository).cache.lookup(&key(1)).await.is_some());
    let blob = ("cache".to_owned(), desc.digest.to_string());
    fake.state.blobs.lock().unwrap().remove(&blob);
    let next = Build::of(&repository);
    assert!(next.cache.lookup(&key(1)).await.is_none());
    let warnings = next.warnings();
    assert!(warnings[0].contains("its layer is not there"), "{warnings:?}");
    // And the next result takes its place.
    next.keep(&repository, &[&key(1)], "anew").await;
    assert!(Build::of(&repository).cache.lookup(&key(1)).await.is_some());
}

#[tokio::test]
async fn a_layer_that_turns_out_damaged_is_not_taken_again() {
    let fake = Fake::with(|seen, _| {
        let layer = Digest::of(b"one");
        seen.is("GET", &format!("/blobs/{layer}"))
            .then(|| axum::response::IntoResponse::into_response("damaged"))
    })
    .await;
    let repository = fake.repository("cache");
    let desc = Build::of(&repository).keep(&repository, &[&key(1)], "one").await;
    let stage = Build::of(&repository);
    let found = stage.cache.lookup(&key(1)).await.unwrap();
    let failed = BuildError::new(FailureReason::Internal, "unpack failed");
    assert!(!stage.cache.disbelieve(&failed), "nothing was read yet");
    let mut reader = found.layer.blobs.unwrap().open(&desc).await.unwrap();
    let read = tokio::task::spawn_blocking(move || std::io::copy(&mut reader, &mut std::io::sink()));
    assert!(read.await.unwrap().is_err());
    assert!(stage.cache.disbelieve(&failed));
    assert!(stage.cache.lookup(&key(1)).await.is_none());
    assert!(!stage.cache.disbelieve(&failed), "once is enough");
    assert!(stage.warnings()[0].contains(desc.digest.as_str()));
}

#[tokio::test]
async fn a_layer_that_is_not_what_was_said_is_not_taken_again() {
    let fake = Fake::start().await;
    let repository = fake.repository("cache");
    let desc = Build::of(&repository)
        .keep(&repository, &[&key(1)], "no tar")
        .await;
    let stage = Build::of(&repository);
    let found = stage.cache.lookup(&key(1)).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let root = Root::of_layers(vec![found.layer]);
    let error = root.materialise(&store, &Progress::quiet()).await.unwrap_err();
    assert!(stage.cache.disbelieve(&error), "{error}");
    assert!(stage.cache.lookup(&key(1)).await.is_none());
    assert!(stage.warnings()[0].contains(desc.digest.as_str()));
}

#[tokio::test]
async fn a_scope_reads_what_has_none_and_is_read_by_nobody_else() {
    let fake = Fake::start().await;
    let repository = fake.repository("cache");
    let scope = |name: &str| Build::new(Places::new(repository.clone(), Some(name.into()), Vec::new()));
    Build::of(&repository)
        .keep(&repository, &[&key(1)], "trusted")
        .await;
    scope("pr-1").keep(&repository, &[&key(2)], "untrusted").await;
    // The same step again, from the scope: the trusted entry stays what it is.
    let before = repository.get_manifest(tag_of(1).as_str()).await.unwrap();
    let own = scope("pr-1");
    assert!(own.cache.lookup(&key(1)).await.is_some());
    own.keep(&repository, &[&key(1)], "poisoned").await;
    let after = repository.get_manifest(tag_of(1).as_str()).await.unwrap();
    assert_eq!(before, after);
    for (build, first, second) in [
        (Build::of(&repository), "trusted", false),
        (scope("pr-2"), "trusted", false),
        (scope("pr-1"), "poisoned", true),
    ] {
        let hit = build.cache.find(&key(1)).await.unwrap();
        assert_eq!(hit.entry.layer.digest, Digest::of(first.as_bytes()));
        assert_eq!(build.cache.lookup(&key(2)).await.is_some(), second);
    }
}

#[tokio::test]
async fn further_repositories_are_read_and_not_written() {
    let fake = Fake::with(|seen, _| seen.path.contains("/v2/away/").then(|| fake::answer(500))).await;
    let [own, main, away] = ["own", "main", "away"].map(|name| fake.repository(name));
    Build::of(&main).keep(&main, &[&key(1)], "one").await;
    fake.forget();
    let build = Build::new(Places::new(own.clone(), None, vec![away.clone(), main.clone()]));
    assert!(build.cache.lookup(&key(1)).await.is_some());
    // As the stage goes on: the layer is copied, and kept as its own.
    build.keep(&own, &[&key(1)], "one").await;
    let written = fake.log();
    assert!(
        written
            .iter()
            .all(|seen| seen.method != "PUT" || seen.path.contains("/own/"))
    );
    assert!(Build::of(&own).cache.lookup(&key(1)).await.is_some());
    // What does not answer is asked no more, and told once.
    let asked = fake.seen("GET", "/away/").len();
    assert!(build.cache.lookup(&key(5)).await.is_none());
    assert_eq!(fake.seen("GET", "/away/").len(), asked);
    let warnings = build.warnings();
    assert!(
        warnings.len() == 1 && warnings[0].contains("CacheUnavailable") && warnings[0].contains("/away"),
        "{warnings:?}"
    );
}

#[tokio::test]
async fn a_use_is_noted_once_a_day() {
    let fake = Fake::start().await;
    let repository = fake.repository("cache");
    Build::of(&repository).keep(&repository, &[&key(1)], "one").await;
    let used = |bytes: &[u8]| {
        let document: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        let used = &document["annotations"]["build.slipway.used"];
        used.as_str().unwrap().to_owned()
    };
    let look = || async {
        let build = Build::of(&repository);
        build.cache.lookup(&key(1)).await.unwrap();
        build.cache.finish().await;
        repository.get_manifest(tag_of(1).as_str()).await.unwrap()
    };
    fake.forget();
    let manifest = look().await;
    assert_eq!(fake.seen("PUT", "").len(), 0);
    let today = used(&manifest.bytes);
    let text = String::from_utf8(manifest.bytes.to_vec()).unwrap();
    let (now, then) = (
        format!("\"build.slipway.used\":\"{today}\""),
        "\"build.slipway.used\":\"2020-01-01T00:00:00Z\"",
    );
    assert!(text.contains(&now), "{text}");
    fake.add_manifest(
        "cache",
        &tag_of(1),
        media_type::OCI_MANIFEST,
        text.replace(&now, then),
    );
    assert!(used(&look().await.bytes) >= today);
    look().await;
    assert_eq!(fake.seen("PUT", "").len(), 1);
}

#[tokio::test]
async fn the_real_registry_keeps_finds_counts_and_prunes() {
    let Some(real) = Real::start(false).await else {
        return;
    };
    let registries = Registries::new(real.config()).unwrap();
    let repository = registries.repository(&real.reference("shop/cache"));
    let keys: Vec<String> = (0..50).map(key).collect();
    let all: Vec<&str> = keys.iter().map(String::as_str).collect();
    let first = Build::of(&repository);
    let begun = Instant::now();
    for (number, name) in all.iter().enumerate() {
        let by_content = key(1000 + number);
        first
            .keep(&repository, &[name, &by_content], &format!("layer {number}"))
            .await;
    }
    let kept = begun.elapsed();
    let next = Build::of(&repository);
    let begun = Instant::now();
    let hits = next.cache.chain(&all).await;
    println!(
        "50 steps: kept in {kept:?}, uploads included; probed in {:?}",
        begun.elapsed()
    );
    assert_eq!((hits.len(), next.warnings()), (50, Vec::new()));

    let rows = usage(&repository).await.unwrap();
    let [row] = rows.as_slice() else {
        panic!("{rows:?}");
    };
    assert_eq!(
        (row.kind, row.count, row.build.as_str()),
        (Kind::Step, 50, "team/shop")
    );
    let policy = |max_age, dry_run| Policy {
        max_age: Duration::from_secs(max_age),
        keep: 0,
        dry_run,
    };
    let nothing_so_old = prune(&repository, &policy(3600, false)).await.unwrap();
    assert_eq!(nothing_so_old, []);
    // Uses are noted in whole seconds, so all of them are past.
    assert_eq!(prune(&repository, &policy(0, true)).await.unwrap(), rows);
    assert_eq!(usage(&repository).await.unwrap(), rows, "only tried");
    assert_eq!(prune(&repository, &policy(0, false)).await.unwrap()[0].count, 50);
    assert_eq!(usage(&repository).await.unwrap(), []);
    let after = Build::of(&repository);
    assert!(after.cache.chain(&all).await.is_empty());
    assert_eq!(after.warnings(), [""; 0], "what was pruned is simply not there");
    let nothing = registries.repository(&real.reference("shop/none"));
    assert_eq!(usage(&nothing).await.unwrap(), []);
}

#[tokio::test]
async fn a_registry_that_deletes_nothing_says_so() {
    let fake =
        Fake::with(|seen, _| (seen.method == "DELETE").then(|| fake::refuse(405, "UNSUPPORTED", "no"))).await;
    let repository = fake.repository("cache");
    Build::of(&repository).keep(&repository, &[&key(1)], "one").await;
    let policy = Policy {
        max_age: Duration::ZERO,
        keep: 0,
        dry_run: false,
    };
    let error = prune(&repository, &policy).await.unwrap_err();
    assert_eq!(error.class(), slipway_registry::Class::Unsupported);
    assert!(error.to_string().contains("deletion is switched off"), "{error}");
    assert_eq!(usage(&repository).await.unwrap()[0].count, 1);
}
