//! Keys of a step, and what is known under them.

use super::{Runner, key, reads};
use crate::{error::Result, root::Layer, store::StepRecord};
use sha2::{Digest as _, Sha256};
use slipway_plan::{Op, Source, Step};

/// Whether a step makes the same layer on any parent.
pub(super) fn is_linked(step: &Step) -> bool {
    matches!(&step.op, Op::Copy(copy) if copy.link)
}

impl Runner {
    /// Takes a result from the store, if it has one.
    pub(super) fn take_stored(&mut self, keys: &[String], step: &Step) -> bool {
        let Some(record) = keys.iter().find_map(|key| self.environment.store.step(key)) else {
            return false;
        };
        self.cached += 1;
        self.push(
            Layer::local(record.snapshot.clone(), record.created),
            record,
            step,
        );
        true
    }

    /// Takes a result from the store or a cache, if one has it.
    pub(super) async fn take_cached(&mut self, keys: &[String], step: &Step) -> Result<bool> {
        if self.take_stored(keys, step) {
            return Ok(true);
        }
        for cache in self.environment.caches.clone() {
            for key in keys {
                if let Some(found) = cache.lookup(key).await {
                    let record = StepRecord {
                        snapshot: found.layer.snapshot.clone(),
                        content_key: found.content_key,
                        created: found.created,
                        keys: found.keys,
                    };
                    for key in &record.keys {
                        self.environment.store.put_step(key, &record)?;
                    }
                    self.cached += 1;
                    self.push(found.layer, record, step);
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// The step just taken by its content is found under this key too the next time.
    pub(super) fn record_also(&mut self, key: Option<&String>) -> Result<()> {
        let (Some(key), Some(record)) = (key, self.last.as_mut()) else {
            return Ok(());
        };
        if !record.keys.contains(key) {
            record.keys.push(key.clone());
            self.environment.store.put_step(key, record)?;
            for cache in &self.environment.caches {
                cache.record(std::slice::from_ref(key), record, &self.root);
            }
        }
        Ok(())
    }

    pub(super) fn push(&mut self, layer: Layer, record: StepRecord, step: &Step) {
        self.root.layers.push(Layer {
            created: Some(record.created),
            ..layer
        });
        for cache in &self.environment.caches {
            cache.record(&record.keys, &record, &self.root);
        }
        self.root.content_key = if is_linked(step) {
            let both = format!("{} {}", self.root.content_key, record.content_key);
            hex::encode(Sha256::digest(both))
        } else {
            record.content_key.clone()
        };
        self.last = Some(record);
    }

    /// A key that can be had without a look at the files that a step reads of stages and images: what they hold is named by
    /// the content keys of their roots. None for a step that reads none.
    pub(super) async fn quick_key(&mut self, step: &Step) -> Result<Option<String>> {
        let reads = reads(&step.op);
        let is_root = |source: &Source| matches!(source, Source::Stage(_) | Source::Image(_));
        if !reads.iter().any(|(source, _)| is_root(source)) {
            return Ok(None);
        }
        let mut hash = self.begin_key(step, "slipway quick 1")?;
        for (source, request) in reads {
            let part = match self.sources.root(source).await? {
                Some(root) => format!("{}\0{request:?}", root.content_key),
                None => self.sources.digest(source, &request).await?,
            };
            hash.update(b"\0");
            hash.update(part.as_bytes());
        }
        Ok(Some(hex::encode(hash.finalize())))
    }

    /// The key by content of the state after a step.
    pub(super) async fn content_key(&mut self, step: &Step) -> Result<String> {
        let inputs = self.sources.digests(&step.op).await?;
        let mut hash = self.begin_key(step, "slipway step 1")?;
        for input in inputs {
            hash.update(b"\0");
            hash.update(input.as_bytes());
        }
        Ok(hex::encode(hash.finalize()))
    }

    /// What every key of a step begins with: the root that it works on, and the operation.
    fn begin_key(&self, step: &Step, kind: &str) -> Result<Sha256> {
        let mut hash = Sha256::new();
        hash.update(kind.as_bytes());
        hash.update(b"\0");
        // A linked copy makes the same layer on any parent.
        let parent = if is_linked(step) {
            ""
        } else {
            self.root.content_key.as_str()
        };
        hash.update(parent.as_bytes());
        hash.update(b"\0");
        // Copies are the same everywhere; what runs may look where it is.
        if matches!(step.op, Op::Run(_)) {
            hash.update(self.stage().platform.to_string().as_bytes());
            hash.update(b"\0");
        }
        hash.update(key::normalised(&step.op)?);
        Ok(hash)
    }
}
