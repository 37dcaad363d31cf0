//! The cache of steps in registries: what stage pods look their steps up in, and where they keep new ones.
//!
//! ```text
//!  keys ─▶ own repository, own scope ─┐                     ┌─ entry whole, layer there ─▶ hit
//!          own repository, no scope  ─┼─ all at once, GET ──┼─ none ─▶ miss
//!          further repositories      ─┘                     └─ broken, layer gone ─▶ miss, with a warning
//!  layer uploaded ─▶ PUT under each key that does not lead to it yet
//! ```
//! A look-up is one request for each place, and one more (HEAD) for the layer of what was found. A layer itself is read
//! only when somebody needs its files; if it then turns out to be damaged, the entry is no longer believed
//! ([`RegistryCache::disbelieve`]), and the stage runs again without it.

use super::entry::{EMPTY, Entry};
use crate::{
    error::{BuildError, Result},
    images::RegistryBlobs,
    inputs::{CachedStep, StepCache},
    progress::{Progress, lock},
    root::{BlobReader, Blobs, Layer, Root},
    store::{LayerDesc, SnapshotId, StepRecord},
};
use futures::future::{BoxFuture, join_all};
use serde::{Deserialize, Serialize};
use slipway_oci::{Digest, media_type};
use slipway_registry::{
    BlobSource, Class, Manifest, PutOptions, Repository,
    kept::{Kind, Stamp, tag},
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    error::Error as _,
    io::{self, Read},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{sync::OnceCell, task::JoinHandle};

/// Keys of a chain looked up at once. A chain that ends early costs at most so many requests in vain.
const BATCH: usize = 16;

/// Where results are kept.
#[derive(Debug, Clone)]
pub struct Place {
    /// The repository.
    pub repository: Repository,
    /// The scope in it.
    pub scope: Option<String>,
}

impl Place {
    /// The tag here of a thing.
    pub fn tag(&self, kind: Kind, key: &str) -> String {
        tag(kind, key, self.scope.as_deref())
    }
}

/// The places of a build: where it writes, which is also the first that it reads, and what else it reads.
#[derive(Debug, Clone)]
pub struct Places {
    own: Place,
    others: Vec<Place>,
}

impl Places {
    /// A build that keeps its results in `repository`, in a scope or in none, and reads the results that others have kept
    /// in no scope there and in `from`.
    pub fn new(repository: Repository, scope: Option<String>, from: Vec<Repository>) -> Self {
        let unscoped = |repository| Place {
            repository,
            scope: None,
        };
        let trusted = scope.is_some().then(|| repository.clone());
        Self {
            own: Place { repository, scope },
            others: trusted.into_iter().chain(from).map(unscoped).collect(),
        }
    }

    /// Where it writes.
    pub fn own(&self) -> &Place {
        &self.own
    }

    /// All that it reads, in order, its own first.
    pub fn all(&self) -> impl Iterator<Item = &Place> {
        std::iter::once(&self.own).chain(&self.others)
    }

    fn get(&self, index: usize) -> Option<&Place> {
        self.all().nth(index)
    }
}

/// An entry and where it was found; what a plan tells its stages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hit {
    /// The entry.
    pub entry: Entry,
    /// Index of its place.
    pub place: usize,
}

/// Steps in registries.
pub struct RegistryCache {
    places: Places,
    /// A place that does not answer is not asked again.
    dead: Vec<AtomicBool>,
    build: String,
    /// Whether new results are kept.
    keeps: bool,
    progress: Progress,
    known: Mutex<HashMap<String, Hit>>,
    pending: Mutex<HashMap<SnapshotId, Vec<Pending>>>,
    trust: Arc<Trust>,
    empty: OnceCell<()>,
    notes: Mutex<Vec<JoinHandle<()>>>,
}

/// A result that is kept as soon as its layer is uploaded.
#[derive(Debug, Clone)]
struct Pending {
    /// All its keys.
    keys: Vec<String>,
    content_key: String,
    created: i64,
}

/// What is known of the layers of entries.
#[derive(Default)]
struct Trust {
    /// Their bytes were asked for.
    opened: Mutex<HashSet<Digest>>,
    /// Their bytes could not be had, or were others.
    failed: Mutex<HashSet<Digest>>,
    /// Nobody takes an entry with them.
    disbelieved: Mutex<HashSet<Digest>>,
}

impl RegistryCache {
    /// A cache for a build, named `namespace/name`. If it does not keep, new results are not recorded.
    pub fn new(places: Places, build: impl Into<String>, keeps: bool, progress: Progress) -> Self {
        Self {
            dead: places.all().map(|_| AtomicBool::new(false)).collect(),
            places,
            build: build.into(),
            keeps,
            progress,
            known: Mutex::default(),
            pending: Mutex::default(),
            trust: Arc::default(),
            empty: OnceCell::new(),
            notes: Mutex::default(),
        }
    }

    /// Its places.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// Takes over what was found before, by key.
    pub fn know(&self, hits: &Hits) {
        for hit in hits.values() {
            self.remember(hit);
        }
    }

    /// An entry is known by all of its keys.
    fn remember(&self, hit: &Hit) {
        let mut known = lock(&self.known);
        for key in &hit.entry.keys {
            known.insert(key.clone(), hit.clone());
        }
    }

    /// The results of a chain of steps, up to the first that is not there.
    pub async fn chain(&self, keys: &[&str]) -> Vec<Hit> {
        let mut hits = Vec::new();
        for batch in keys.chunks(BATCH) {
            let found = join_all(batch.iter().map(|key| self.find(key))).await;
            let whole = found.iter().all(Option::is_some);
            hits.extend(found.into_iter().map_while(std::convert::identity));
            if !whole {
                break;
            }
        }
        hits
    }

    /// The result under a key.
    pub async fn find(&self, key: &str) -> Option<Hit> {
        let known = lock(&self.known).get(key).cloned();
        if let Some(hit) = known.filter(|hit| self.believes(&hit.entry)) {
            return Some(hit);
        }
        let mut asked = Vec::new();
        for (index, place) in self.places.all().enumerate() {
            if !self.dead[index].load(Ordering::Relaxed) {
                asked.push(self.find_in(index, place, key));
            }
        }
        let mut found = join_all(asked).await.into_iter().flatten();
        let (place, entry) = found.next()?;
        let hit = Hit { entry, place };
        self.remember(&hit);
        Some(hit)
    }

    async fn find_in(&self, index: usize, place: &Place, key: &str) -> Option<(usize, Entry)> {
        let tag = place.tag(Kind::Step, key);
        let manifest = match place.repository.get_manifest(tag.as_str()).await {
            Ok(manifest) => manifest,
            Err(error) => {
                self.not_read(index, place, &tag, &error);
                return None;
            }
        };
        let (entry, stamp) = match Entry::decode(&manifest, key) {
            Ok(found) => found,
            Err(why) => {
                self.miss(place, &tag, &why);
                return None;
            }
        };
        if !self.believes(&entry) {
            return None;
        }
        match place.repository.blob_size(&entry.layer.digest).await {
            Ok(Some(_)) => {}
            Ok(None) => {
                self.miss(place, &tag, "its layer is not there any more");
                return None;
            }
            Err(error) => {
                self.not_read(index, place, &tag, &error);
                return None;
            }
        }
        if index == 0 && stamp.is_stale() {
            self.note_use(tag, manifest);
        }
        Some((index, entry))
    }

    /// Notes a use in its own place, in the background: whoever may only read fails silently.
    pub fn note_use(&self, tag: String, manifest: Manifest) {
        let own = self.places.own().repository.clone();
        let note = tokio::spawn(async move {
            if let Err(error) = own.note_use(&tag, &manifest).await {
                tracing::debug!(repository = %own, %tag, %error, "the use was not noted");
            }
        });
        lock(&self.notes).push(note);
    }

    /// Waits for what goes on in the background.
    pub async fn finish(&self) {
        let notes = std::mem::take(&mut *lock(&self.notes));
        join_all(notes).await;
    }

    /// Tells of a place that cannot be read, once, and asks it no more; that there is nothing is no news.
    fn not_read(&self, index: usize, place: &Place, tag: &str, error: &slipway_registry::Error) {
        match error.class() {
            Class::NotFound => {}
            Class::DigestMismatch | Class::InvalidResponse | Class::TooLarge => {
                self.miss(place, tag, &error.to_string());
            }
            _ => {
                if !self.dead[index].swap(true, Ordering::Relaxed) {
                    let detail = format!("{} is not used: {error}", place.repository);
                    self.progress.warn("CacheUnavailable", &detail, 0);
                }
            }
        }
    }

    fn miss(&self, place: &Place, tag: &str, why: &str) {
        let detail = format!("{}:{tag} is not used: {why}", place.repository);
        self.progress.warn("CacheEntryBroken", &detail, 0);
    }

    fn believes(&self, entry: &Entry) -> bool {
        !lock(&self.trust.disbelieved).contains(&entry.layer.digest)
    }

    /// After a stage has failed: whether a layer of this cache may be the reason. Then no entry with it is believed any
    /// more, and the stage is to run again.
    pub fn disbelieve(&self, error: &BuildError) -> bool {
        let mut bad = std::mem::take(&mut *lock(&self.trust.failed));
        let opened = std::mem::take(&mut *lock(&self.trust.opened));
        let layer = error
            .source()
            .and_then(|source| source.downcast_ref::<slipway_layer::Error>());
        if layer.is_some() {
            // It came whole, but does not hold what was said: whose it was is not known here.
            bad.extend(opened);
        }
        let mut disbelieved = lock(&self.trust.disbelieved);
        let mut news = false;
        for digest in bad {
            if disbelieved.insert(digest.clone()) {
                news = true;
                let detail =
                    format!("the cached layer {digest} is not used: it is damaged or gone ({error})");
                self.progress.warn("CacheEntryBroken", &detail, 0);
            }
        }
        news
    }

    /// Keeps what was recorded for a layer, which is in the own repository now. What fails is told and costs nothing.
    pub async fn uploaded(&self, layer: &Layer) {
        let pending = lock(&self.pending).remove(&layer.snapshot).unwrap_or_default();
        let Some(desc) = layer.desc.as_ref().filter(|_| self.keeps) else {
            return;
        };
        for one in pending {
            let entry = Entry {
                keys: one.keys,
                layer: desc.clone(),
                content_key: one.content_key,
                created: one.created,
            };
            if let Err(error) = self.keep(entry).await {
                let detail = format!("a result was not kept: {error}");
                self.progress.warn("CacheUnavailable", &detail, 0);
            }
        }
    }

    async fn keep(&self, entry: Entry) -> Result<()> {
        let missing: Vec<&String> = {
            let known = lock(&self.known);
            let is_there = |key: &&String| {
                known.get(*key).is_some_and(|hit| {
                    // What a build may read without a scope it need not keep in its own.
                    hit.entry.layer == entry.layer && self.is_in_own_repository(hit.place)
                })
            };
            entry.keys.iter().filter(|key| !is_there(key)).collect()
        };
        if missing.is_empty() {
            return Ok(());
        }
        let own = self.places.own();
        self.empty
            .get_or_try_init(|| async {
                let (digest, size) = (Digest::of(EMPTY), EMPTY.len() as u64);
                let (bytes, options) = (BlobSource::Bytes(EMPTY.into()), PutOptions::default());
                own.repository
                    .put_blob(&digest, size, bytes, &options)
                    .await
                    .map(|_| ())
            })
            .await?;
        let bytes = entry.encode(&Stamp::now(&self.build)).map_err(|error| {
            BuildError::new(
                slipway_plan::protocol::FailureReason::Internal,
                format!("failed to write an entry: {error}"),
            )
        })?;
        let puts = missing.iter().map(|key| {
            let tag = own.tag(Kind::Step, key);
            own.repository
                .put_manifest(tag, media_type::OCI_MANIFEST, bytes.clone())
        });
        for put in join_all(puts).await {
            put?;
        }
        self.remember(&Hit { entry, place: 0 });
        Ok(())
    }

    fn is_in_own_repository(&self, place: usize) -> bool {
        let own = &self.places.own().repository;
        self.places.get(place).is_some_and(|place| {
            place.repository.registry() == own.registry() && place.repository.name() == own.name()
        })
    }

    /// A layer whose bytes are fetched from the entry's place when somebody needs its files.
    pub fn layer(&self, hit: &Hit) -> Option<Layer> {
        let place = self.places.get(hit.place)?;
        let blobs = Watched {
            inner: RegistryBlobs(place.repository.clone()),
            trust: self.trust.clone(),
        };
        let mut layer = Layer::remote(hit.entry.layer.clone(), Arc::new(blobs));
        layer.created = Some(hit.entry.created);
        Some(layer)
    }
}

impl StepCache for RegistryCache {
    fn lookup<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Option<CachedStep>> {
        Box::pin(async move {
            let hit = self.find(key).await?;
            Some(CachedStep {
                layer: self.layer(&hit)?,
                keys: hit.entry.keys,
                content_key: hit.entry.content_key,
                created: hit.entry.created,
            })
        })
    }

    fn record(&self, keys: &[String], record: &StepRecord, _root: &Root) {
        let mut pending = lock(&self.pending);
        pending.entry(record.snapshot.clone()).or_default().push(Pending {
            keys: keys.to_vec(),
            content_key: record.content_key.clone(),
            created: record.created,
        });
    }
}

/// Blobs of a repository; notes which were asked for and which were not to be had.
struct Watched {
    inner: RegistryBlobs,
    trust: Arc<Trust>,
}

impl Blobs for Watched {
    fn open(&self, layer: &LayerDesc) -> BoxFuture<'_, Result<BlobReader>> {
        let layer = layer.clone();
        Box::pin(async move {
            lock(&self.trust.opened).insert(layer.digest.clone());
            match self.inner.open(&layer).await {
                Ok(inner) => Ok(Box::new(WatchedReader {
                    inner,
                    digest: layer.digest,
                    trust: self.trust.clone(),
                }) as BlobReader),
                Err(error) => {
                    lock(&self.trust.failed).insert(layer.digest);
                    Err(error)
                }
            }
        })
    }

    fn repository(&self) -> Option<Repository> {
        self.inner.repository()
    }
}

struct WatchedReader {
    inner: BlobReader,
    digest: Digest,
    trust: Arc<Trust>,
}

impl Read for WatchedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer);
        if read
            .as_ref()
            .is_err_and(|error| error.kind() != io::ErrorKind::Interrupted)
        {
            lock(&self.trust.failed).insert(self.digest.clone());
        }
        read
    }
}

/// What a stage's steps have in the cache, by their keys; what a plan tells its stages.
pub type Hits = BTreeMap<String, Hit>;
