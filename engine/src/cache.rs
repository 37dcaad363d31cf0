//! Caches that outlive a store. Those of stage pods, step by step in a registry, are in `registry`; here are `--cache-to`
//! and `--cache-from`, in a directory or a registry.
//!
//! Such a cache is an OCI artifact: its config lists results by key, its layers are the layers of those results.
//! ```text
//!  Recorder ◀── run_stage tells each result ── export ──▶ manifest{config: records, layers} ── import ──▶ StepCache
//! ```

use crate::{
    error::{BuildError, Result},
    exec::{Packing, pack_layer},
    images::{LayoutBlobs, RegistryBlobs},
    inputs::{CachedStep, StepCache},
    progress::lock,
    root::{BlobReader, Blobs, Layer, Root},
    store::{LayerDesc, StepRecord, Store},
};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use slipway_oci::{Digest, Reference, media_type};
use slipway_plan::protocol::FailureReason;
use slipway_registry::{PutOptions, Registries, Repository};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

mod entry;
mod registry;

pub use entry::Entry;
pub use registry::{Hit, Hits, Place, Places, RegistryCache};

/// Media type of the list of results.
const RECORDS_TYPE: &str = "application/vnd.slipway.cache.records.v1+json";
/// The list of a large monorepo is a few megabytes.
const RECORDS_LIMIT: u64 = 256 << 20;

/// Where a cache is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CachePlace {
    /// A directory: an OCI image layout.
    Local(PathBuf),
    /// A tag in a registry.
    Registry(Reference),
}

/// Which results go into a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheMode {
    /// Those of which the result's own layers are made.
    #[default]
    Min,
    /// Those of all stages.
    Max,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Records {
    version: u32,
    records: BTreeMap<String, Record>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    layer: LayerDesc,
    content_key: String,
    created: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: String,
    artifact_type: String,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: Digest,
    size: u64,
}

/// Notes the results of a build, to export them.
#[derive(Default)]
pub struct Recorder(Mutex<BTreeMap<String, (StepRecord, Root)>>);

impl StepCache for Recorder {
    fn lookup<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Option<CachedStep>> {
        Box::pin(async { None })
    }

    fn record(&self, keys: &[String], record: &StepRecord, root: &Root) {
        let mut noted = lock(&self.0);
        for key in keys {
            noted.insert(key.clone(), (record.clone(), root.clone()));
        }
    }
}

impl Recorder {
    /// Writes what was noted. `results` are the roots of the build's results, which say what mode `min` keeps.
    pub async fn export(
        &self,
        store: &Arc<Store>,
        registries: &Registries,
        place: &CachePlace,
        mode: CacheMode,
        results: &[Root],
        packing: &Packing,
    ) -> Result<()> {
        let kept: HashSet<_> = results
            .iter()
            .flat_map(|root| root.layers.iter().map(|layer| layer.snapshot.clone()))
            .collect();
        let noted = lock(&self.0).clone();
        let mut records = BTreeMap::new();
        let mut layers: BTreeMap<Digest, Layer> = BTreeMap::new();
        for (key, (record, root)) in noted {
            if mode == CacheMode::Min && !kept.contains(&record.snapshot) {
                continue;
            }
            let Some((layer, below)) = root.layers.split_last() else {
                continue;
            };
            let below = Root {
                layers: below.to_vec(),
                content_key: String::new(),
            };
            let desc = pack_layer(store, layer, &below, packing).await?;
            layers.insert(
                desc.digest.clone(),
                Layer {
                    desc: Some(desc.clone()),
                    ..layer.clone()
                },
            );
            records.insert(
                key,
                Record {
                    layer: desc,
                    content_key: record.content_key,
                    created: record.created,
                },
            );
        }
        let config =
            serde_json::to_vec(&Records { version: 1, records }).map_err(|error| internal(&error))?;
        let descriptors = layers
            .values()
            .filter_map(|layer| layer.desc.as_ref())
            .map(|desc| Descriptor {
                media_type: desc.media_type.clone(),
                digest: desc.digest.clone(),
                size: desc.size,
            })
            .collect();
        let manifest = serde_json::to_vec(&Manifest {
            schema_version: 2,
            media_type: media_type::OCI_MANIFEST.into(),
            artifact_type: RECORDS_TYPE.into(),
            config: Descriptor {
                media_type: RECORDS_TYPE.into(),
                digest: Digest::of(&config),
                size: config.len() as u64,
            },
            layers: descriptors,
        })
        .map_err(|error| internal(&error))?;
        match place {
            CachePlace::Local(dir) => write_local(store, dir, &layers, &config, &manifest).await,
            CachePlace::Registry(reference) => {
                let repository = registries.repository(reference);
                for layer in layers.values() {
                    crate::export::push_layer(store, &repository, layer).await?;
                }
                let bytes = slipway_registry::BlobSource::Bytes(config.clone().into());
                repository
                    .put_blob(
                        &Digest::of(&config),
                        config.len() as u64,
                        bytes,
                        &PutOptions::default(),
                    )
                    .await?;
                repository
                    .put_manifest(reference, media_type::OCI_MANIFEST, manifest)
                    .await?;
                Ok(())
            }
        }
    }
}

fn internal(error: &serde_json::Error) -> BuildError {
    BuildError::new(
        FailureReason::Internal,
        format!("failed to write a cache: {error}"),
    )
}

async fn write_local(
    store: &Arc<Store>,
    dir: &Path,
    layers: &BTreeMap<Digest, Layer>,
    config: &[u8],
    manifest: &[u8],
) -> Result<()> {
    let failed = |error| BuildError::io(format!("write the cache {}", dir.display()), error);
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(failed)?;
    for (digest, layer) in layers {
        let path = blobs.join(digest.hex());
        if path.exists() {
            continue;
        }
        let mut reader: BlobReader = match (&layer.desc, &layer.blobs) {
            _ if store.has_blob(digest) => Box::new(store.open_blob(digest)?),
            (Some(desc), Some(from)) => from.open(desc).await?,
            _ => {
                return Err(BuildError::new(
                    FailureReason::Internal,
                    format!("nobody has the layer {digest}"),
                ));
            }
        };
        let part = path.with_extension("part");
        let copy = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
            std::io::copy(&mut reader, &mut fs::File::create(&part)?)?;
            fs::rename(&part, &path)
        });
        copy.await.map_err(crate::root::join)?.map_err(failed)?;
    }
    let digest = Digest::of(manifest);
    fs::write(blobs.join(Digest::of(config).hex()), config).map_err(failed)?;
    fs::write(blobs.join(digest.hex()), manifest).map_err(failed)?;
    fs::write(dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#).map_err(failed)?;
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_INDEX,
        "manifests": [{
            "mediaType": media_type::OCI_MANIFEST, "digest": digest, "size": manifest.len(),
            "artifactType": RECORDS_TYPE,
        }],
    });
    let part = dir.join("index.json.part");
    fs::write(&part, index.to_string())
        .and_then(|()| fs::rename(&part, dir.join("index.json")))
        .map_err(failed)
}

/// A cache that was read.
pub struct Imported {
    records: HashMap<String, Record>,
    blobs: Arc<dyn Blobs>,
}

impl StepCache for Imported {
    fn lookup<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Option<CachedStep>> {
        let found = self.records.get(key).map(|record| CachedStep {
            layer: Layer::remote(record.layer.clone(), self.blobs.clone()),
            keys: vec![key.to_owned()],
            content_key: record.content_key.clone(),
            created: record.created,
        });
        Box::pin(async { found })
    }
}

impl Imported {
    /// Reads the list of a cache; its layers are fetched when they are needed.
    pub async fn open(registries: &Registries, place: &CachePlace) -> Result<Self> {
        let (records, blobs): (Vec<u8>, Arc<dyn Blobs>) = match place {
            CachePlace::Local(dir) => (read_local(dir)?, Arc::new(LayoutBlobs(dir.clone()))),
            CachePlace::Registry(reference) => {
                let repository = registries.repository(reference);
                (
                    read_registry(&repository, reference).await?,
                    Arc::new(RegistryBlobs(repository)),
                )
            }
        };
        let records: Records = serde_json::from_slice(&records).map_err(|error| {
            BuildError::new(
                FailureReason::RegistryError,
                format!("the cache cannot be read: {error}"),
            )
        })?;
        Ok(Self {
            records: records.records.into_iter().collect(),
            blobs,
        })
    }
}

fn read_local(dir: &Path) -> Result<Vec<u8>> {
    let failed = |error| BuildError::io(format!("read the cache {}", dir.display()), error);
    let blob = |digest: &Digest| dir.join("blobs/sha256").join(digest.hex());
    let index: serde_json::Value = serde_json::from_slice(&fs::read(dir.join("index.json")).map_err(failed)?)
        .map_err(|error| internal(&error))?;
    let digest: Digest =
        serde_json::from_value(index["manifests"][0]["digest"].clone()).map_err(|error| internal(&error))?;
    let manifest: Manifest = serde_json::from_slice(&fs::read(blob(&digest)).map_err(failed)?)
        .map_err(|error| internal(&error))?;
    fs::read(blob(&manifest.config.digest)).map_err(failed)
}

async fn read_registry(repository: &Repository, reference: &Reference) -> Result<Vec<u8>> {
    let document = repository.get_manifest(reference).await?;
    let manifest: Manifest = serde_json::from_slice(&document.bytes).map_err(|error| {
        BuildError::new(
            FailureReason::RegistryError,
            format!("{reference} is no cache of Slipway: {error}"),
        )
    })?;
    if manifest.artifact_type != RECORDS_TYPE {
        return Err(BuildError::new(
            FailureReason::RegistryError,
            format!("{reference} is no cache of Slipway"),
        ));
    }
    Ok(repository
        .read_blob(&manifest.config.digest, RECORDS_LIMIT)
        .await?
        .to_vec())
}
