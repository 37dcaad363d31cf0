//! Reads a plan's schedule, and names a finished image: the index if there are several platforms, every tag, and the
//! proof that the registry has what was written. Over the [`Registry`] trait; the only step that writes to a registry.

use std::collections::BTreeMap;

use futures::future::try_join_all;
use serde::Deserialize;
use slipway_crd::reasons;
use slipway_oci::{Descriptor, Digest, Platform, Reference, media_type, parse_manifest};
use slipway_plan::protocol::Schedule;

use crate::{
    facts::{Fault, Publication, Published},
    registry::{Manifest, Registry},
};

/// The media type of the layer of a plan artifact that holds the schedule.
pub const SCHEDULE_MEDIA_TYPE: &str = "application/vnd.slipway.schedule.v1+json";
/// The version of [`Schedule`] that this operator reads.
pub const SCHEDULE_VERSION: u32 = 1;
/// A schedule of the most stages that a status can hold is far smaller.
const SCHEDULE_LIMIT: u64 = 4 << 20;

/// The part of an artifact's manifest that matters here.
#[derive(Deserialize)]
struct ArtifactManifest {
    #[serde(default)]
    layers: Vec<ArtifactLayer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArtifactLayer {
    media_type: String,
    digest: Digest,
}

/// Reads the schedule of a plan.
pub async fn schedule(registry: &dyn Registry, cache: &Reference, plan: &Digest) -> Result<Schedule, Fault> {
    let internal = |message: String| Fault {
        reason: reasons::INTERNAL,
        message: format!("plan {plan}: {message}"),
        transient: false,
        retry_after: None,
    };
    let name = cache.with_digest(plan);
    let manifest = registry.manifest(&name).await?;
    verify(&name, &manifest, plan)?;
    let artifact: ArtifactManifest = serde_json::from_slice(&manifest.bytes)
        .map_err(|error| internal(format!("its manifest is not understood: {error}")))?;
    let layer = artifact
        .layers
        .iter()
        .find(|layer| layer.media_type == SCHEDULE_MEDIA_TYPE)
        .ok_or_else(|| internal(format!("it has no layer of type {SCHEDULE_MEDIA_TYPE}")))?;
    let bytes = registry.blob(&name, &layer.digest, SCHEDULE_LIMIT).await?;
    let schedule: Schedule = serde_json::from_slice(&bytes)
        .map_err(|error| internal(format!("its schedule is not understood: {error}")))?;
    if schedule.version != SCHEDULE_VERSION {
        return Err(internal(format!(
            "its schedule has version {}, this operator reads version {SCHEDULE_VERSION}: operator and runner.image of the chart must be of one release",
            schedule.version
        )));
    }
    Ok(schedule)
}

/// Names an image. Tags are written last, when everything that they will name is known to be there.
pub async fn publish(registry: &dyn Registry, publication: &Publication) -> Result<Published, Fault> {
    let mut repositories: BTreeMap<String, Vec<&Reference>> = BTreeMap::new();
    for image in &publication.images {
        repositories
            .entry(image.without_tag_and_digest())
            .or_default()
            .push(image);
    }
    // One repository after the other until all parts of the image are seen everywhere, then the tags.
    let checked = try_join_all(repositories.values().filter_map(|names| names.first()).map(
        |name| async move {
            let parts = try_join_all(publication.results.iter().map(|(_, digest)| async move {
                let part = name.with_digest(digest);
                let manifest = registry.manifest(&part).await?;
                verify(&part, &manifest, digest)?;
                Ok::<_, Fault>(manifest)
            }))
            .await?;
            Ok::<_, Fault>(parts)
        },
    ))
    .await?;
    let Some(parts) = checked.into_iter().next() else {
        return Err(Fault {
            reason: reasons::INTERNAL,
            message: "no name to write".to_owned(),
            transient: false,
            retry_after: None,
        });
    };
    let sizes = parts.iter().map(content_size).collect::<Result<Vec<_>, _>>()?;
    let platforms = publication.results.iter().map(|(platform, _)| platform);
    let image = match parts.as_slice() {
        [one] if !publication.several => one.clone(),
        several => index(platforms.zip(several), &publication.annotations)?,
    };
    let digest = image.digest();
    try_join_all(
        publication
            .images
            .iter()
            .map(|name| tag(registry, name, &image, &digest)),
    )
    .await?;
    Ok(Published { digest, sizes })
}

/// Writes one tag and reads it back.
async fn tag(
    registry: &dyn Registry,
    name: &Reference,
    image: &Manifest,
    digest: &Digest,
) -> Result<(), Fault> {
    registry.put_manifest(name, image).await?;
    let found = registry.manifest(name).await?;
    verify(name, &found, digest)
}

fn verify(name: &Reference, found: &Manifest, expected: &Digest) -> Result<(), Fault> {
    let digest = found.digest();
    if digest == *expected {
        return Ok(());
    }
    Err(Fault {
        reason: reasons::DIGEST_MISMATCH,
        message: format!(
            "{name} is {digest} in the registry, and should be {expected}: somebody else writes the same name, or the registry changes what it is given"
        ),
        transient: false,
        retry_after: None,
    })
}

/// Bytes of layers and config.
fn content_size(manifest: &Manifest) -> Result<u64, Fault> {
    let parsed = parse_manifest(&manifest.bytes).map_err(|error| Fault {
        reason: reasons::INTERNAL,
        message: format!("the result {} is no image manifest: {error}", manifest.digest()),
        transient: false,
        retry_after: None,
    })?;
    Ok(parsed
        .layers()
        .iter()
        .chain([parsed.config()])
        .map(Descriptor::size)
        .sum())
}

/// The index over the manifests of several platforms: the same parts give the same bytes.
fn index<'a>(
    parts: impl Iterator<Item = (&'a Platform, &'a Manifest)>,
    annotations: &BTreeMap<String, String>,
) -> Result<Manifest, Fault> {
    #[derive(serde::Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Index {
        schema_version: u32,
        media_type: &'static str,
        manifests: Vec<Part>,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        annotations: BTreeMap<String, String>,
    }
    #[derive(serde::Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Part {
        media_type: String,
        digest: Digest,
        size: usize,
        /// With variant and, where it has one, `os.version`.
        platform: slipway_oci::OciPlatform,
    }
    let manifests = parts
        .map(|(platform, manifest)| Part {
            media_type: manifest.media_type.clone(),
            digest: manifest.digest(),
            size: manifest.bytes.len(),
            platform: platform.into(),
        })
        .collect();
    let index = Index {
        schema_version: 2,
        media_type: media_type::OCI_INDEX,
        manifests,
        annotations: annotations.clone(),
    };
    let bytes = serde_json::to_vec(&index).map_err(|error| Fault {
        reason: reasons::INTERNAL,
        message: format!("failed to write the index: {error}"),
        transient: false,
        retry_after: None,
    })?;
    Ok(Manifest {
        bytes,
        media_type: media_type::OCI_INDEX.to_owned(),
    })
}

#[cfg(test)]
mod tests;
