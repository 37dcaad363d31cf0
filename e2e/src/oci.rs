//! OCI images made from files: deterministic layers, configs and archives. Small on purpose: the images that the cluster
//! itself needs must not depend on the engine that it is there to test.
//!
//! ```text
//! Entries ── tar (sorted, time 0) ── gzip ─▶ layer ┐
//! config ─────────────────────────────────▶ config ├─▶ manifest ─▶ archive (oci-layout, index.json, blobs)
//! ```

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read, Write},
    path::Path,
};

use anyhow::{Context, Result, bail};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A file system in the making: what is at each path, by path, without a leading slash.
#[derive(Debug, Default)]
pub struct Entries(BTreeMap<String, Entry>);

#[derive(Debug)]
enum Entry {
    Folder(u32),
    File(u32, Vec<u8>),
    Link(String),
}

impl Entries {
    /// Adds a folder of root's.
    pub fn folder(&mut self, path: &str, mode: u32) -> &mut Self {
        self.parents(path);
        self.0.insert(path.to_owned(), Entry::Folder(mode));
        self
    }

    /// Adds a file of root's; its folders come with it.
    pub fn file(&mut self, path: &str, mode: u32, bytes: impl Into<Vec<u8>>) -> &mut Self {
        self.parents(path);
        self.0.insert(path.to_owned(), Entry::File(mode, bytes.into()));
        self
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) -> &mut Self {
        self.parents(path);
        self.0.insert(path.to_owned(), Entry::Link(target.to_owned()));
        self
    }

    fn parents(&mut self, path: &str) {
        for (at, _) in path.match_indices('/') {
            self.0
                .entry(path[..at].to_owned())
                .or_insert(Entry::Folder(0o755));
        }
    }

    /// The uncompressed layer.
    pub fn tar(&self) -> Result<Vec<u8>> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, entry) in &self.0 {
            let mut header = tar::Header::new_ustar();
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(0);
            match entry {
                Entry::Folder(mode) => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_mode(*mode);
                    builder.append_data(&mut header, format!("{path}/"), std::io::empty())?;
                }
                Entry::File(mode, bytes) => {
                    header.set_entry_type(tar::EntryType::Regular);
                    header.set_mode(*mode);
                    header.set_size(bytes.len() as u64);
                    builder.append_data(&mut header, path, bytes.as_slice())?;
                }
                Entry::Link(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_mode(0o777);
                    builder.append_link(&mut header, path, target)?;
                }
            }
        }
        Ok(builder.into_inner()?)
    }
}

/// An image: its manifest and every blob that it names.
#[derive(Debug, Clone)]
pub struct Image {
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
    /// Config and layers by digest.
    pub blobs: BTreeMap<String, Vec<u8>>,
}

/// `sha256:…` of some bytes.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

impl Image {
    /// An image of one layer for this machine's architecture. `config` is the inner `config` object.
    pub fn of(layer: &[u8], config: &Value, created_by: &str) -> Result<Self> {
        Self::for_architecture(layer, config, created_by, architecture())
    }

    /// The same for any architecture.
    pub fn for_architecture(
        layer: &[u8],
        config: &Value,
        created_by: &str,
        architecture: &str,
    ) -> Result<Self> {
        // The epoch: two builds of the same files are the same image.
        let created = "1970-01-01T00:00:00Z";
        let mut gzip = GzBuilder::new().write(Vec::new(), Compression::default());
        gzip.write_all(layer)?;
        let packed = gzip.finish()?;
        let config = serde_json::to_vec(&json!({
            "architecture": architecture, "os": "linux", "created": created, "config": config,
            "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
            "history": [{"created": created, "created_by": created_by}],
        }))?;
        let describe = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()});
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": describe(CONFIG, &config), "layers": [describe(LAYER, &packed)],
        }))?;
        let blobs = [(digest(&config), config), (digest(&packed), packed)].into();
        Ok(Self { manifest, blobs })
    }

    /// An image with one more layer on `base`. What `config` says takes the place of what the base's says.
    pub fn on(base: &Self, layer: &[u8], config: &Value, created_by: &str) -> Result<Self> {
        let mut gzip = GzBuilder::new().write(Vec::new(), Compression::fast());
        gzip.write_all(layer)?;
        let packed = gzip.finish()?;
        let mut manifest: Value = serde_json::from_slice(&base.manifest)?;
        let old = manifest["config"]["digest"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let bytes = base.blobs.get(&old).context("the base has a config")?;
        let mut whole: Value = serde_json::from_slice(bytes)?;
        for (key, value) in config.as_object().into_iter().flatten() {
            whole["config"][key] = value.clone();
        }
        let push = |list: &mut Value, item: Value| {
            if let Some(list) = list.as_array_mut() {
                list.push(item);
            }
        };
        push(&mut whole["rootfs"]["diff_ids"], digest(layer).into());
        let created = whole["created"].clone();
        push(
            &mut whole["history"],
            json!({"created": created, "created_by": created_by}),
        );
        let whole = serde_json::to_vec(&whole)?;
        manifest["config"]["digest"] = digest(&whole).into();
        manifest["config"]["size"] = whole.len().into();
        let described = json!({"mediaType": LAYER, "digest": digest(&packed), "size": packed.len()});
        push(&mut manifest["layers"], described);
        let mut blobs = base.blobs.clone();
        blobs.remove(&old);
        blobs.insert(digest(&whole), whole);
        blobs.insert(digest(&packed), packed);
        Ok(Self {
            manifest: serde_json::to_vec(&manifest)?,
            blobs,
        })
    }

    /// The manifest's digest, by which the image is known.
    pub fn digest(&self) -> String {
        digest(&self.manifest)
    }

    /// Bytes that a pull of it transfers.
    pub fn size(&self) -> usize {
        self.blobs.values().map(Vec::len).sum()
    }
}

/// An index over images of several architectures.
pub fn index(images: &[(&str, &Image)]) -> Result<Vec<u8>> {
    let manifests: Vec<Value> = images
        .iter()
        .map(|(architecture, image)| {
            json!({
                "mediaType": MANIFEST, "digest": image.digest(), "size": image.manifest.len(),
                "platform": {"os": "linux", "architecture": architecture},
            })
        })
        .collect();
    let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests});
    Ok(serde_json::to_vec(&index)?)
}

/// This machine's architecture in the words of OCI.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Writes images, each under its full reference, as one OCI archive that containerd, skopeo and podman read.
pub fn write_archive(file: &Path, images: &[(&str, &Image)]) -> Result<()> {
    let mut manifests = Vec::new();
    let mut blobs = BTreeMap::new();
    for (reference, image) in images {
        let tag = reference.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        manifests.push(json!({
            "mediaType": MANIFEST, "digest": image.digest(), "size": image.manifest.len(),
            // containerd takes the whole name from the first, everybody else the tag from the second.
            "annotations": {"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": tag},
            "platform": {"os": "linux", "architecture": architecture()},
        }));
        blobs.insert(image.digest(), &image.manifest);
        blobs.extend(image.blobs.iter().map(|(d, b)| (d.clone(), b)));
    }
    let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests});

    let folder = file.parent().context("a file has a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
    let new = file.with_extension(format!("{}.new", std::process::id()));
    let out = File::create(&new).with_context(|| format!("failed to write {}", new.display()))?;
    let mut builder = tar::Builder::new(std::io::BufWriter::new(out));
    let mut add = |path: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, path, bytes)
    };
    add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    add("index.json", &serde_json::to_vec(&index)?)?;
    for (digest, bytes) in blobs {
        add(&format!("blobs/{}", digest.replace(':', "/")), bytes)?;
    }
    builder.into_inner()?.flush()?;
    fs::rename(&new, file).with_context(|| format!("failed to write {}", file.display()))
}

/// Reads an archive that [`write_archive`] wrote: images by full reference.
pub fn read_archive(file: &Path) -> Result<Vec<(String, Image)>> {
    let open = File::open(file).with_context(|| format!("failed to open {}", file.display()))?;
    let mut archive = tar::Archive::new(std::io::BufReader::new(open));
    let mut files = BTreeMap::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_string_lossy().into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        files.insert(path, bytes);
    }
    let blob = |digest: &str| {
        let found = files.get(&format!("blobs/{}", digest.replace(':', "/")));
        found
            .cloned()
            .with_context(|| format!("{}: blob {digest} is missing", file.display()))
    };
    let index: Value = serde_json::from_slice(
        files
            .get("index.json")
            .context("an OCI archive has an index.json")?,
    )?;
    let mut images = Vec::new();
    for entry in index["manifests"].as_array().into_iter().flatten() {
        let reference = entry["annotations"]["io.containerd.image.name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let manifest = blob(entry["digest"].as_str().unwrap_or_default())?;
        let content: Value = serde_json::from_slice(&manifest)?;
        let mut blobs = BTreeMap::new();
        for part in
            std::iter::once(&content["config"]).chain(content["layers"].as_array().into_iter().flatten())
        {
            let digest = part["digest"].as_str().unwrap_or_default().to_owned();
            blobs.insert(digest.clone(), blob(&digest)?);
        }
        images.push((reference, Image { manifest, blobs }));
    }
    if images.is_empty() {
        bail!("{} holds no image", file.display());
    }
    Ok(images)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Image {
        let mut entries = Entries::default();
        entries
            .file("usr/bin/x", 0o755, "program")
            .link("bin", "usr/bin")
            .folder("tmp", 0o1777);
        Image::of(
            &entries.tar().unwrap(),
            &json!({"Entrypoint": ["/usr/bin/x"]}),
            "test",
        )
        .unwrap()
    }

    #[test]
    fn the_same_files_are_the_same_image() {
        assert_eq!(image().digest(), image().digest());
    }

    #[test]
    fn a_layer_goes_on_top_and_keeps_what_is_below() {
        let base = image();
        let mut entries = Entries::default();
        entries.file("more", 0o644, "x");
        let image = Image::on(&base, &entries.tar().unwrap(), &json!({"Cmd": ["more"]}), "more").unwrap();
        let manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
        let layers = manifest["layers"].as_array().unwrap();
        assert_eq!((layers.len(), image.blobs.len()), (2, 3));
        assert!(
            layers
                .iter()
                .all(|layer| image.blobs.contains_key(layer["digest"].as_str().unwrap()))
        );
        let config = &image.blobs[manifest["config"]["digest"].as_str().unwrap()];
        let config: Value = serde_json::from_slice(config).unwrap();
        assert_eq!(config["config"]["Cmd"], json!(["more"]));
        assert_eq!(config["config"]["Entrypoint"], json!(["/usr/bin/x"]));
        assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 2);
        assert_eq!(config["history"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn folders_precede_their_files_and_carry_no_time() {
        let mut entries = Entries::default();
        entries.file("a/b/c", 0o644, "x").folder("a", 0o700);
        let tar = entries.tar().unwrap();
        let mut archive = tar::Archive::new(tar.as_slice());
        let seen: Vec<(String, u32, u64)> = archive
            .entries()
            .unwrap()
            .map(|e| {
                let e = e.unwrap();
                (
                    e.path().unwrap().display().to_string(),
                    e.header().mode().unwrap(),
                    e.header().mtime().unwrap(),
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("a/".into(), 0o700, 0),
                ("a/b/".into(), 0o755, 0),
                ("a/b/c".into(), 0o644, 0)
            ]
        );
    }

    #[test]
    fn an_archive_is_read_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("images.tar");
        write_archive(
            &file,
            &[("example.com/a:1", &image()), ("example.com/b:2", &image())],
        )
        .unwrap();
        let read = read_archive(&file).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(read[1].0, "example.com/b:2");
        assert_eq!(read[0].1.manifest, image().manifest);
        assert_eq!(read[0].1.blobs, image().blobs);
    }
}
