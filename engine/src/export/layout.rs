//! OCI image layouts (OCI image specification, "Image Layout"), as directory or tar; with `docker`, the tar can be
//! given to `docker load` too.

use super::{Destination, Images};
use crate::{
    error::{BuildError, Result},
    image::{LayoutEntry, layout_index, timestamp},
    root::{BlobReader, Layer, join},
    store::Store,
};
use slipway_oci::{Digest, Reference};
use slipway_plan::protocol::FailureReason;
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write},
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// How a layout is written.
#[derive(Debug, Clone, Default)]
pub struct LayoutOptions {
    /// What the image is called.
    pub names: Vec<Reference>,
    /// One tar, not a directory.
    pub tar: bool,
    /// With Docker's `manifest.json`.
    pub docker: bool,
}

/// Writes images as an OCI image layout.
pub async fn write_layout(
    store: &Arc<Store>,
    images: &Images,
    options: &LayoutOptions,
    to: &Destination,
) -> Result<()> {
    let mut blobs: Vec<Blob> = Vec::new();
    for image in &images.images {
        for layer in &image.layers {
            let Some(desc) = &layer.desc else { continue };
            if !blobs.iter().any(|(digest, ..)| *digest == desc.digest) {
                blobs.push((desc.digest.clone(), desc.size, open(store, layer).await?));
            }
        }
    }
    let documents = documents(images, options)?;
    let (options, to, store) = (options.clone(), to.clone(), store.clone());
    tokio::task::spawn_blocking(move || {
        let failed = |error| BuildError::io("write the image", error);
        match &to {
            Destination::Path(path) if !options.tar => write_dir(path, documents, blobs).map_err(failed),
            Destination::Path(path) => {
                if let Some(parent) = path.parent() {
                    fs::create_dir_all(parent).map_err(failed)?;
                }
                // Beside the destination and renamed: no half image under the name that was asked for.
                let temporary = path.with_extension(format!("slipway-{}", std::process::id()));
                let file = File::create(&temporary).map_err(failed)?;
                write_tar(io::BufWriter::with_capacity(1 << 20, file), documents, blobs)
                    .and_then(|()| fs::rename(&temporary, path))
                    .inspect_err(|_| {
                        let _ = fs::remove_file(&temporary);
                    })
                    .map_err(failed)
            }
            Destination::Stdout => write_tar(io::stdout().lock(), documents, blobs).map_err(failed),
        }?;
        drop(store);
        Ok(())
    })
    .await
    .map_err(join)?
}

async fn open(store: &Arc<Store>, layer: &Layer) -> Result<BlobReader> {
    let Some(desc) = &layer.desc else {
        return Err(BuildError::new(
            FailureReason::Internal,
            "a layer that was not packed is exported",
        ));
    };
    if store.has_blob(&desc.digest) {
        return Ok(Box::new(store.open_blob(&desc.digest)?));
    }
    match &layer.blobs {
        Some(blobs) => blobs.open(desc).await,
        None => Err(BuildError::new(
            FailureReason::Internal,
            format!("nobody has the layer {}", desc.digest),
        )),
    }
}

/// All files but the layers.
fn documents(images: &Images, options: &LayoutOptions) -> Result<Vec<(String, Vec<u8>)>> {
    let blob = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    let mut files = vec![(
        "oci-layout".to_owned(),
        br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
    )];
    for image in &images.images {
        files.push((blob(&image.config_digest), image.config.clone()));
        files.push((blob(&image.manifest_digest), image.manifest.clone()));
    }
    let (bytes, media_type, digest) = images.top()?;
    if images.index.is_some() {
        files.push((blob(digest), bytes.to_vec()));
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() as i64);
    let mut annotations = images.descriptor.clone();
    annotations
        .entry("org.opencontainers.image.created".into())
        .or_insert_with(|| timestamp(images.epoch.unwrap_or(now)));
    let platform = match images.images.as_slice() {
        [only] if images.index.is_none() => Some(only.platform.clone()),
        _ => None,
    };
    let entry = |annotations| LayoutEntry {
        media_type: media_type.into(),
        digest: digest.clone(),
        size: bytes.len() as u64,
        annotations,
        platform: platform.clone(),
    };
    let mut entries = Vec::new();
    for name in &options.names {
        let mut named = annotations.clone();
        named.insert("io.containerd.image.name".into(), name.to_string());
        named.insert(
            "org.opencontainers.image.ref.name".into(),
            name.tag().unwrap_or("latest").into(),
        );
        entries.push(entry(named));
    }
    if entries.is_empty() {
        entries.push(entry(annotations));
    }
    files.push(("index.json".into(), layout_index(&entries)?));
    if options.docker
        && let [image] = images.images.as_slice()
    {
        let layers: Vec<String> = image
            .layers
            .iter()
            .filter_map(|layer| layer.desc.as_ref())
            .map(|desc| blob(&desc.digest))
            .collect();
        let tags: Vec<String> = options.names.iter().map(Reference::familiar).collect();
        let manifest =
            serde_json::json!([{ "Config": blob(&image.config_digest), "RepoTags": tags, "Layers": layers }]);
        files.push(("manifest.json".into(), manifest.to_string().into_bytes()));
    }
    let mut unique = BTreeSet::new();
    files.retain(|(name, _)| unique.insert(name.clone()));
    Ok(files)
}

type Blob = (Digest, u64, BlobReader);

fn write_dir(dir: &Path, documents: Vec<(String, Vec<u8>)>, blobs: Vec<Blob>) -> io::Result<()> {
    fs::create_dir_all(dir.join("blobs/sha256"))?;
    for (digest, _, mut reader) in blobs {
        let path = dir.join("blobs/sha256").join(digest.hex());
        if path.exists() {
            continue;
        }
        let temporary = path.with_extension("part");
        io::copy(&mut reader, &mut File::create(&temporary)?)?;
        fs::rename(&temporary, &path)?;
    }
    // index.json comes last: who reads the directory meanwhile sees the old image or the whole new one.
    let (last, first): (Vec<_>, Vec<_>) = documents.into_iter().partition(|(name, _)| name == "index.json");
    for (name, bytes) in first.into_iter().chain(last) {
        let path = dir.join(name);
        let temporary = path.with_extension("part");
        fs::write(&temporary, bytes)?;
        fs::rename(&temporary, &path)?;
    }
    Ok(())
}

fn write_tar<W: Write>(out: W, documents: Vec<(String, Vec<u8>)>, blobs: Vec<Blob>) -> io::Result<()> {
    let mut tar = tar::Builder::new(out);
    let header = |size: u64, mode: u32, kind: tar::EntryType| {
        let mut header = tar::Header::new_ustar();
        header.set_size(size);
        header.set_mode(mode);
        header.set_mtime(0);
        header.set_entry_type(kind);
        header
    };
    for dir in ["blobs/", "blobs/sha256/"] {
        tar.append_data(&mut header(0, 0o755, tar::EntryType::Directory), dir, io::empty())?;
    }
    for (digest, size, reader) in blobs {
        let name = format!("blobs/sha256/{}", digest.hex());
        tar.append_data(&mut header(size, 0o444, tar::EntryType::Regular), name, reader)?;
    }
    for (name, bytes) in documents {
        tar.append_data(
            &mut header(bytes.len() as u64, 0o444, tar::EntryType::Regular),
            name,
            bytes.as_slice(),
        )?;
    }
    tar.into_inner()?.flush()
}
