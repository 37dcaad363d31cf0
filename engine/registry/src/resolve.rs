//! From a name and a platform to an image: manifest, config, layers.

use bytes::Bytes;
use slipway_oci::{
    Descriptor, Digest, ImageConfig, ImageIndex, ImageManifest, Platform, Reference, media_type,
};

use crate::{
    error::{Class, Error, Result},
    manifest::{Manifest, ManifestName},
    registries::Registries,
    repository::Repository,
};

/// The largest image config read. Real ones are below 100 KiB.
const MAX_CONFIG: u64 = 8 << 20;
/// An index may name an index; more than this is a mistake or a trap.
const MAX_DEPTH: usize = 3;

/// An image, found. Its layers are opened with `repository.open_blob(digest, Some(size))`.
#[derive(Debug, Clone)]
pub struct ResolvedImage {
    /// The name as asked for, pinned to what it meant now: the index's digest if it is one, else the manifest's.
    pub reference: Reference,
    /// Reads through mirrors, as the image was found.
    pub repository: Repository,
    /// Of the manifest for the platform.
    pub manifest_digest: Digest,
    /// Of the index that the name stood for, if it stood for one.
    pub index_digest: Option<Digest>,
    /// The descriptors passed on the way, the index's own entry last; empty without an index.
    pub descriptors: Vec<Descriptor>,
    /// What the config says it is for. For an image without an index this may not be what was asked for: nobody had a
    /// choice to make.
    pub platform: Platform,
    /// The media type of the manifest.
    pub media_type: String,
    /// The manifest.
    pub manifest: ImageManifest,
    /// Its bytes.
    pub manifest_bytes: Bytes,
    /// The config.
    pub config: ImageConfig,
    /// Its bytes.
    pub config_bytes: Bytes,
}

impl Registries {
    /// Finds the image of a name for a platform, through mirrors where configured.
    ///
    /// Reads OCI and Docker schema 2. Variants are chosen as containerd does; entries of `unknown/unknown`
    /// (attestations) are never chosen.
    ///
    /// # Errors
    /// [`Class::NotFound`] if there is no such image, or none for the platform (the error lists those there are);
    /// [`Class::Unsupported`] for Docker schema 1 and for artifacts that are no images; [`Class::InvalidResponse`].
    #[tracing::instrument(level = "debug", skip_all, fields(%reference, %platform))]
    pub async fn resolve(&self, reference: &Reference, platform: &Platform) -> Result<ResolvedImage> {
        let repository = self.mirrored(reference);
        let action = || format!("find image {}", reference.familiar());
        let (found, index_digest, descriptors) = find(&repository, reference, platform)
            .await
            .map_err(|error| repository.failed(action)(error))?;
        let image = read_image(&repository, reference, found, index_digest, descriptors);
        image.await.map_err(|error| repository.failed(action)(error))
    }
}

async fn find(
    repository: &Repository,
    reference: &Reference,
    platform: &Platform,
) -> Result<(Manifest, Option<Digest>, Vec<Descriptor>)> {
    let mut manifest = repository.get_manifest(ManifestName::from(reference)).await?;
    let mut index_digest = None;
    let mut descriptors = Vec::new();
    while media_type::is_index(&manifest.media_type) {
        if descriptors.len() >= MAX_DEPTH {
            return Err(Error::new(
                Class::Unsupported,
                "its indexes are nested too deeply",
            ));
        }
        let index: ImageIndex = parse(&manifest.bytes, "image index")?;
        let chosen = platform
            .choose(&index)
            .ok_or_else(|| no_such_platform(platform, &index))?
            .clone();
        index_digest.get_or_insert(manifest.digest);
        let digest = digest_of(&chosen)?;
        manifest = repository.get_manifest(&digest).await?;
        descriptors.push(chosen);
    }
    Ok((manifest, index_digest, descriptors))
}

async fn read_image(
    repository: &Repository,
    reference: &Reference,
    found: Manifest,
    index_digest: Option<Digest>,
    descriptors: Vec<Descriptor>,
) -> Result<ResolvedImage> {
    let Manifest {
        bytes: manifest_bytes,
        media_type,
        digest: manifest_digest,
    } = found;
    if media_type == media_type::DOCKER_MANIFEST_V1 {
        return Err(Error::new(
            Class::Unsupported,
            "it is stored in Docker's schema 1, which ended in 2017",
        )
        .advise("pull it with an old docker and push it again, or take a newer tag of the image"));
    }
    let mut document: serde_json::Value = parse(&manifest_bytes, "image manifest")?;
    // Docker and BuildKit write `"layers": null` for an image without layers; the specification has a list.
    if let Some(layers) = document.get_mut("layers").filter(|layers| layers.is_null()) {
        *layers = serde_json::Value::Array(Vec::new());
    }
    let manifest: ImageManifest = serde_json::from_value(document).map_err(|error| {
        Error::new(Class::InvalidResponse, "its image manifest cannot be read").because(error)
    })?;
    let config_type = manifest.config().media_type().to_string();
    if !media_type::is_config(&config_type) {
        let kind = manifest
            .artifact_type()
            .as_ref()
            .map_or(config_type, ToString::to_string);
        return Err(Error::new(
            Class::Unsupported,
            format!("it is no container image but an artifact of type {kind}"),
        ));
    }
    let config_digest = digest_of(manifest.config())?;
    let config_bytes = repository.read_blob(&config_digest, MAX_CONFIG).await?;
    let config: ImageConfig = parse(&config_bytes, "image config")?;
    let (layers, diffs) = (manifest.layers().len(), config.rootfs.diff_ids.len());
    if layers != diffs {
        return Err(Error::new(
            Class::InvalidResponse,
            format!("its manifest has {layers} layers, but its config names {diffs}"),
        ));
    }
    Ok(ResolvedImage {
        reference: reference.with_digest(index_digest.as_ref().unwrap_or(&manifest_digest)),
        repository: repository.clone(),
        platform: config.platform(),
        manifest_digest,
        index_digest,
        descriptors,
        media_type,
        manifest,
        manifest_bytes,
        config,
        config_bytes,
    })
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        Error::new(Class::InvalidResponse, format!("its {what} cannot be read")).because(error)
    })
}

fn digest_of(descriptor: &Descriptor) -> Result<Digest> {
    Digest::try_from(descriptor.digest()).map_err(|error| {
        Error::new(
            Class::Unsupported,
            "it names its parts in a way that is not supported",
        )
        .because(error)
    })
}

fn no_such_platform(platform: &Platform, index: &ImageIndex) -> Error {
    let mut offered: Vec<String> = index
        .manifests()
        .iter()
        .filter_map(|descriptor| descriptor.platform().as_ref())
        .map(|platform| Platform::from(platform).to_string())
        .filter(|name| !name.starts_with("unknown"))
        .collect();
    offered.sort();
    offered.dedup();
    let offered = if offered.is_empty() {
        "nothing for any platform".to_owned()
    } else {
        offered.join(", ")
    };
    Error::new(Class::NotFound, format!("it has nothing for {platform}"))
        .advise(format!("it is there for: {offered}"))
}
