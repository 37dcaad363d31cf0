//! Config, manifest and index of what was built.

use crate::{
    error::{BuildError, Result},
    root::Layer,
};
use serde::Serialize;
use slipway_oci::{Digest, History, ImageConfig, Platform, media_type};
use slipway_plan::{BuildPlan, PlanResult, protocol::FailureReason};
use std::collections::BTreeMap;

/// Annotations by key.
pub type Annotations = BTreeMap<String, String>;

/// An image of one platform, ready to be written anywhere.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its platform.
    pub platform: Platform,
    /// The config blob.
    pub config: Vec<u8>,
    /// The config's digest.
    pub config_digest: Digest,
    /// The manifest.
    pub manifest: Vec<u8>,
    /// The manifest's digest.
    pub manifest_digest: Digest,
    /// The manifest's media type.
    pub media_type: String,
    /// Its layers, with their descriptors.
    pub layers: Vec<Layer>,
}

/// An index over images of several platforms.
#[derive(Debug, Clone)]
pub struct Index {
    /// The index itself.
    pub bytes: Vec<u8>,
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DescriptorOut<'a> {
    media_type: &'a str,
    digest: &'a Digest,
    size: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: Annotations,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<serde_json::Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ManifestOut<'a> {
    schema_version: u32,
    media_type: &'a str,
    config: DescriptorOut<'a>,
    // `null` for an image without layers, as BuildKit writes it.
    layers: Option<Vec<DescriptorOut<'a>>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: Annotations,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IndexOut<'a> {
    schema_version: u32,
    media_type: &'a str,
    manifests: Vec<DescriptorOut<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: Annotations,
}

/// The JSON form of a platform in a descriptor (OCI image specification, "Image Index").
pub(crate) fn platform_json(platform: &Platform) -> serde_json::Value {
    let mut object = serde_json::Map::new();
    object.insert("architecture".into(), platform.architecture.clone().into());
    object.insert("os".into(), platform.os.clone().into());
    if let Some(variant) = platform.variant.as_ref().filter(|variant| !variant.is_empty()) {
        object.insert("variant".into(), variant.clone().into());
    }
    if let Some(version) = platform.os_version.as_ref().filter(|version| !version.is_empty()) {
        object.insert("os.version".into(), version.clone().into());
    }
    object.into()
}

/// RFC 3339, as Go writes it.
pub(crate) fn timestamp(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| "1970-01-01T00:00:00Z".into(), |time| time.to_string())
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(value).map_err(|error| {
        BuildError::new(
            FailureReason::Internal,
            format!("failed to write a document: {error}"),
        )
    })
}

/// The finished config of a result: diff ids, times.
pub fn config(plan: &BuildPlan, result: &PlanResult, layers: &[Layer], epoch: Option<i64>) -> ImageConfig {
    let mut config = result.config.clone();
    config.rootfs.diff_ids = layers
        .iter()
        .filter_map(|layer| layer.desc.as_ref())
        .map(|desc| desc.diff_id.clone())
        .collect();
    config.rootfs.kind = "layers".into();
    let epoch = epoch.or(plan.epoch);
    add_missing_history(&mut config.history, layers.len());
    let with_layer = config.history.iter_mut().filter(|entry| !entry.empty_layer);
    for (entry, layer) in with_layer.zip(layers) {
        if entry.created.is_none() {
            entry.created = layer.created.map(timestamp);
        }
    }
    fill_times(&mut config.history);
    if let Some(epoch) = epoch {
        let base = base_history(plan, result);
        for (index, entry) in config.history.iter_mut().enumerate() {
            if index >= base
                && entry
                    .created
                    .as_deref()
                    .and_then(parse_time)
                    .is_none_or(|time| time > epoch)
            {
                entry.created = Some(timestamp(epoch));
            }
        }
        if config
            .created
            .as_deref()
            .and_then(parse_time)
            .is_some_and(|time| time > epoch)
        {
            config.created = Some(timestamp(epoch));
        }
    }
    if config.created.is_none() {
        config.created = config
            .history
            .iter()
            .rev()
            .find_map(|entry| entry.created.clone());
    }
    config
}

/// How many entries of a result's history come from the image that its chain of stages starts from.
fn base_history(plan: &BuildPlan, result: &PlanResult) -> usize {
    let mut stage = result.stage;
    while let slipway_plan::Source::Stage(below) = plan.stages[stage].base {
        stage = below;
    }
    plan.stages[stage].base_config.history.len()
}

fn parse_time(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>()
        .ok()
        .map(jiff::Timestamp::as_second)
}

/// One entry for each layer: a base may have come without a history.
fn add_missing_history(history: &mut Vec<History>, layers: usize) {
    let mut counted = 0;
    for entry in history.iter_mut() {
        if !entry.empty_layer {
            counted += 1;
            // More entries than layers: a broken base; what is too much counts as empty.
            entry.empty_layer = counted > layers;
        }
    }
    let missing = layers.saturating_sub(counted);
    for _ in 0..missing {
        history.push(History {
            comment: "slipway: no history".into(),
            ..History::default()
        });
    }
}

/// Entries without a time get the one of the first new layer, later ones that of the layer before them.
fn fill_times(history: &mut [History]) {
    let mut created = None;
    let mut gap = false;
    for entry in history.iter() {
        if let Some(time) = &entry.created {
            created = Some(time.clone());
            if gap {
                break;
            }
        } else {
            gap = true;
        }
    }
    gap = false;
    for entry in history.iter_mut() {
        if let Some(time) = &entry.created {
            if gap {
                created = Some(time.clone());
            }
        } else {
            gap = true;
            entry.created.clone_from(&created);
        }
    }
}

/// Config and manifest as bytes.
pub fn assemble(
    platform: &Platform,
    config: &ImageConfig,
    layers: Vec<Layer>,
    docker: bool,
    annotations: Annotations,
) -> Result<Image> {
    let config = serde_json::to_vec(config).map_err(|error| {
        BuildError::new(
            FailureReason::Internal,
            format!("failed to write the config: {error}"),
        )
    })?;
    let config_digest = Digest::of(&config);
    let media_type = if docker {
        media_type::DOCKER_MANIFEST
    } else {
        media_type::OCI_MANIFEST
    };
    let config_type = if docker {
        media_type::DOCKER_CONFIG
    } else {
        media_type::OCI_CONFIG
    };
    let descriptors: Vec<DescriptorOut<'_>> = layers
        .iter()
        .filter_map(|layer| layer.desc.as_ref())
        .map(|desc| DescriptorOut {
            media_type: &desc.media_type,
            digest: &desc.digest,
            size: desc.size,
            annotations: Annotations::new(),
            platform: None,
        })
        .collect();
    let manifest = encode(&ManifestOut {
        schema_version: 2,
        media_type,
        config: DescriptorOut {
            media_type: config_type,
            digest: &config_digest,
            size: config.len() as u64,
            annotations: Annotations::new(),
            platform: None,
        },
        layers: (!descriptors.is_empty()).then_some(descriptors),
        annotations,
    })?;
    Ok(Image {
        platform: platform.clone(),
        config_digest: config_digest.clone(),
        config,
        manifest_digest: Digest::of(&manifest),
        manifest,
        media_type: media_type.into(),
        layers,
    })
}

/// An index over images, in their order. `descriptors` are annotations of the entries.
pub fn index(
    images: &[Image],
    docker: bool,
    annotations: Annotations,
    descriptors: &[Annotations],
) -> Result<Index> {
    let media_type = if docker {
        media_type::DOCKER_INDEX
    } else {
        media_type::OCI_INDEX
    };
    let manifests = images
        .iter()
        .enumerate()
        .map(|(number, image)| DescriptorOut {
            media_type: &image.media_type,
            digest: &image.manifest_digest,
            size: image.manifest.len() as u64,
            annotations: descriptors.get(number).cloned().unwrap_or_default(),
            platform: Some(platform_json(&image.platform)),
        })
        .collect();
    let bytes = encode(&IndexOut {
        schema_version: 2,
        media_type,
        manifests,
        annotations,
    })?;
    Ok(Index {
        digest: Digest::of(&bytes),
        bytes,
        media_type: media_type.into(),
    })
}

/// One entry of an OCI layout's `index.json`.
pub(crate) struct LayoutEntry {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    pub annotations: Annotations,
    pub platform: Option<Platform>,
}

/// `index.json` of an OCI image layout.
pub(crate) fn layout_index(entries: &[LayoutEntry]) -> Result<Vec<u8>> {
    let manifests = entries
        .iter()
        .map(|entry| DescriptorOut {
            media_type: &entry.media_type,
            digest: &entry.digest,
            size: entry.size,
            annotations: entry.annotations.clone(),
            platform: entry.platform.as_ref().map(platform_json),
        })
        .collect();
    encode(&IndexOut {
        schema_version: 2,
        media_type: media_type::OCI_INDEX,
        manifests,
        annotations: Annotations::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(created: Option<i64>, empty: bool) -> History {
        History {
            created: created.map(timestamp),
            empty_layer: empty,
            ..History::default()
        }
    }

    #[test]
    fn metadata_before_the_first_new_layer_gets_that_layers_time() {
        let mut history = vec![
            entry(Some(10), false),
            entry(None, true),
            entry(Some(20), false),
            entry(None, true),
        ];
        fill_times(&mut history);
        let times: Vec<_> = history
            .iter()
            .filter_map(|entry| entry.created.as_deref().and_then(parse_time))
            .collect();
        assert_eq!(times, [10, 20, 20, 20]);
    }

    #[test]
    fn each_layer_has_an_entry() {
        let mut history = vec![entry(Some(1), false)];
        add_missing_history(&mut history, 3);
        assert_eq!(history.len(), 3);
    }

    #[test]
    fn an_image_without_layers_says_null() {
        let platform: Platform = "linux/amd64".parse().unwrap();
        let image = assemble(
            &platform,
            &ImageConfig::scratch(&platform),
            Vec::new(),
            false,
            Annotations::new(),
        )
        .unwrap();
        assert!(
            String::from_utf8(image.manifest)
                .unwrap()
                .contains("\"layers\": null")
        );
    }
}
