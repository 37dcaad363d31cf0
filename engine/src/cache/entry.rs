//! A step's result in a registry: one small manifest under a tag for each of its keys.
//!
//! ```text
//!  slipway-step-<key> ─▶ manifest{ layers: [the step's layer], annotations: record, check, created, used, build }
//! ```
//! Everything that a build needs to know stands in the manifest itself, so that a look-up is one request; and the layer
//! is named as one, so that the registry keeps it as long as the entry.

use crate::store::LayerDesc;
use serde::{Deserialize, Serialize};
use slipway_oci::{Digest, media_type};
use slipway_registry::{Manifest, kept::Stamp};
use std::collections::BTreeMap;

/// What kind of artifact it is.
const ARTIFACT_TYPE: &str = "application/vnd.slipway.step.v1";
/// Annotation with a [`Record`] as JSON.
const RECORD: &str = "build.slipway.record";
/// Annotation with a digest over record and layer.
const CHECK: &str = "build.slipway.check";
/// The config of an artifact that has none.
pub(super) const EMPTY: &[u8] = b"{}";

/// The result of a step, as a cache in a registry keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The keys that it was kept under.
    pub keys: Vec<String>,
    /// The layer that the step made.
    pub layer: LayerDesc,
    /// Key by content of the state after it.
    pub content_key: String,
    /// When the step ran, seconds since 1970.
    pub created: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Record {
    keys: Vec<String>,
    diff_id: Digest,
    content_key: String,
    created: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    media_type: String,
    artifact_type: String,
    config: Descriptor,
    layers: Vec<Descriptor>,
    annotations: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: Digest,
    size: u64,
}

impl Entry {
    /// The manifest to write.
    pub(super) fn encode(&self, stamp: &Stamp) -> serde_json::Result<Vec<u8>> {
        let record = serde_json::to_string(&Record {
            keys: self.keys.clone(),
            diff_id: self.layer.diff_id.clone(),
            content_key: self.content_key.clone(),
            created: self.created,
        })?;
        let layer = Descriptor {
            media_type: self.layer.media_type.clone(),
            digest: self.layer.digest.clone(),
            size: self.layer.size,
        };
        let mut annotations = stamp.annotations();
        annotations.insert(CHECK.to_owned(), check(&record, &layer).to_string());
        annotations.insert(RECORD.to_owned(), record);
        serde_json::to_vec(&Document {
            schema_version: 2,
            media_type: media_type::OCI_MANIFEST.to_owned(),
            artifact_type: ARTIFACT_TYPE.to_owned(),
            config: Descriptor {
                media_type: media_type::OCI_EMPTY.to_owned(),
                digest: Digest::of(EMPTY),
                size: EMPTY.len() as u64,
            },
            layers: vec![layer],
            annotations,
        })
    }

    /// The entry that was found under `key`.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(super) fn decode(manifest: &Manifest, key: &str) -> Result<(Self, Stamp), String> {
        let document: Document = serde_json::from_slice(&manifest.bytes)
            .map_err(|error| format!("it is no entry of a cache: {error}"))?;
        if document.artifact_type != ARTIFACT_TYPE {
            return Err(format!(
                "it is no entry of a cache but {:?}",
                document.artifact_type
            ));
        }
        let (Some(record), Ok([layer])) = (
            document.annotations.get(RECORD),
            <[Descriptor; 1]>::try_from(document.layers),
        ) else {
            return Err("it does not say which layer the step made".to_owned());
        };
        let expected = check(record, &layer).to_string();
        if document.annotations.get(CHECK) != Some(&expected) {
            return Err("it was changed after it was written".to_owned());
        }
        let record: Record =
            serde_json::from_str(record).map_err(|error| format!("its record cannot be read: {error}"))?;
        if !record.keys.iter().any(|own| own == key) {
            return Err("it belongs to another step".to_owned());
        }
        if slipway_layer::Compression::from_media_type(&layer.media_type).is_none() {
            return Err(format!("its layer is of type {:?}", layer.media_type));
        }
        let stamp = Stamp::read(&document.annotations)
            .ok_or_else(|| "it does not say when it was made".to_owned())?;
        let entry = Self {
            keys: record.keys,
            layer: LayerDesc {
                diff_id: record.diff_id,
                digest: layer.digest,
                size: layer.size,
                media_type: layer.media_type,
            },
            content_key: record.content_key,
            created: record.created,
        };
        Ok((entry, stamp))
    }
}

/// Binds record and layer together. It finds damage and mistakes; who may write to the repository can compute it anew.
fn check(record: &str, layer: &Descriptor) -> Digest {
    let text = format!(
        "slipway.step.v1\n{record}\n{} {} {}",
        layer.digest, layer.size, layer.media_type
    );
    Digest::of(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            keys: vec!["k1".into(), "k2".into()],
            layer: LayerDesc {
                diff_id: Digest::of(b"tar"),
                digest: Digest::of(b"blob"),
                size: 4,
                media_type: media_type::OCI_LAYER_ZSTD.into(),
            },
            content_key: "c".into(),
            created: 17,
        }
    }

    fn manifest(bytes: Vec<u8>) -> Manifest {
        Manifest {
            digest: Digest::of(&bytes),
            media_type: media_type::OCI_MANIFEST.into(),
            bytes: bytes.into(),
        }
    }

    #[test]
    fn an_entry_comes_back_under_each_of_its_keys_and_no_other() {
        let stamp = Stamp::now("a/b");
        let manifest = manifest(entry().encode(&stamp).unwrap());
        for key in ["k1", "k2"] {
            assert_eq!(Entry::decode(&manifest, key), Ok((entry(), stamp.clone())));
        }
        let error = Entry::decode(&manifest, "k3").unwrap_err();
        assert!(error.contains("another step"), "{error}");
    }

    #[test]
    fn whatever_is_changed_is_found() {
        let bytes = entry().encode(&Stamp::now("a/b")).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let other = Digest::of(b"other").to_string();
        for (from, to) in [
            (Digest::of(b"tar").to_string(), other.clone()),
            (Digest::of(b"blob").to_string(), other),
            ("\"size\":4".into(), "\"size\":5".into()),
            ("\\\"created\\\":17".into(), "\\\"created\\\":18".into()),
            ("tar+zstd".into(), "tar+gzip".into()),
            (ARTIFACT_TYPE.into(), "application/vnd.other".into()),
            ("\"layers\":[".into(), "\"layers\":[],\"x\":[".into()),
            (RECORD.into(), "x".into()),
            ("build.slipway.used".into(), "x".into()),
        ] {
            let changed = text.replace(&from, &to);
            assert_ne!(changed, text, "{from}");
            assert!(
                Entry::decode(&manifest(changed.into_bytes()), "k1").is_err(),
                "{from}"
            );
        }
    }
}
