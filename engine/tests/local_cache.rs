//! A build in one process, with a cache that another machine has exported.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper of a test fails as the test does"
)]

use slipway_engine::{
    Fetcher, Packing, Progress, StageResult, StepCache, Store,
    cache::{CacheMode, CachePlace, Imported, Recorder},
    context::{Context, MemContext},
    driver::{Driver, Offers, OpenContext, Pack},
    images::Images,
};
use slipway_layer::Compression;
use slipway_oci::Platform;
use slipway_plan::PlanRequest;
use slipway_registry::{Config, Registries};
use std::{path::Path, path::PathBuf, sync::Arc};
use tokio_util::sync::CancellationToken;

struct Machine {
    driver: Driver,
    registries: Registries,
    _dir: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        // As every program does first thing; a second time says only that it is there.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let registries = Registries::new(Config::default()).unwrap();
        let driver = Driver {
            store: Store::open(dir.path()).unwrap(),
            progress: Progress::quiet(),
            images: Arc::new(Images::new(registries.clone())),
            fetcher: Fetcher::new().unwrap(),
            cancel: CancellationToken::new(),
        };
        Self {
            driver,
            registries,
            _dir: dir,
        }
    }

    async fn build(&self, dockerfile: &str, cache: Arc<dyn StepCache>) -> StageResult {
        let parsed = slipway_dockerfile::parse("Dockerfile", dockerfile).unwrap();
        let request = PlanRequest::new(parsed, Platform::host());
        let plan = Arc::new(self.driver.plan(&request).await.unwrap());
        let open: OpenContext = Arc::new(|| {
            Box::pin(async {
                let files = [(PathBuf::from("f"), b"content".to_vec(), 0o644)];
                Ok(Arc::new(MemContext::new(files, (1, 0))) as Arc<dyn Context>)
            })
        });
        let offers = Offers {
            context: Some(open),
            ..Offers::default()
        };
        let pack = Pack::All(Packing::new(Compression::GZIP));
        let results = self.driver.run(&plan, offers, vec![cache], &pack).await;
        results.unwrap().remove(0)
    }

    async fn export(&self, recorder: &Recorder, results: &[StageResult], place: &CachePlace) {
        let roots: Vec<_> = results.iter().map(|result| result.root.clone()).collect();
        let packing = Packing::new(Compression::GZIP);
        let (store, mode) = (&self.driver.store, CacheMode::Max);
        recorder
            .export(store, &self.registries, place, mode, &roots, &packing)
            .await
            .unwrap();
    }
}

fn place(dir: &Path) -> CachePlace {
    CachePlace::Local(dir.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cached_copy_from_a_stage_does_not_unpack_it() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: a stage's root is mounted, and that needs root");
        return;
    }
    let dockerfile = "FROM scratch AS a\nCOPY f /f\nFROM scratch\nCOPY --from=a /f /g\n";
    let cache = tempfile::tempdir().unwrap();
    let first = Machine::new();
    let recorder = Arc::new(Recorder::default());
    let result = first.build(dockerfile, recorder.clone()).await;
    assert_eq!((result.executed, result.cached), (1, 0));
    first
        .export(&recorder, std::slice::from_ref(&result), &place(cache.path()))
        .await;

    let second = Machine::new();
    let imported = Imported::open(&second.registries, &place(cache.path()))
        .await
        .unwrap();
    let again = second.build(dockerfile, Arc::new(imported)).await;
    assert_eq!((again.executed, again.cached), (0, 1));
    assert_eq!(again.layers, result.layers);
    assert_eq!(
        second.driver.store.usage().unwrap().snapshots,
        0,
        "something was unpacked"
    );

    // Another way to the same files: then they are looked at, and found.
    let other = dockerfile.replace("COPY f /f", "COPY f /tmp/\nCOPY f /f");
    let third = Machine::new();
    let imported = Imported::open(&third.registries, &place(cache.path()))
        .await
        .unwrap();
    let other = third.build(&other, Arc::new(imported)).await;
    assert_eq!((other.executed, other.cached), (0, 1));
}
