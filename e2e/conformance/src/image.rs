//! Reads results back: an OCI layout, an archive or a folder, all into the same picture of a file system.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs,
    io::{BufReader, Read},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use flate2::read::MultiGzDecoder;
use serde_json::Value;

/// What lies at a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// `file`, `dir`, `symlink`, `fifo`, `char`, `block` or `other`.
    pub(crate) kind: &'static str,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: i64,
    pub(crate) size: u64,
    /// Target of a symbolic link.
    pub(crate) link: Option<String>,
    /// Content of a regular file.
    pub(crate) data: Option<Vec<u8>>,
    /// The path whose inode this one shares, as the archive has it.
    pub(crate) hardlink: Option<String>,
    pub(crate) xattrs: BTreeMap<String, Vec<u8>>,
    /// Major and minor number of a device.
    pub(crate) device: Option<(u32, u32)>,
}

/// Absolute path to entry.
pub(crate) type FileSystem = BTreeMap<String, Entry>;

/// An image of an OCI layout.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    /// `os/architecture[/variant]`.
    pub(crate) platform: String,
    /// Digest of the manifest.
    pub(crate) digest: String,
    pub(crate) manifest: Value,
    pub(crate) config: Value,
}

/// An OCI layout in a folder.
pub(crate) struct Layout {
    dir: PathBuf,
    pub(crate) index: Value,
}

impl Layout {
    /// Opens it by reading its index.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let index = fs::read(dir.join("index.json")).context("the build has written no index.json")?;
        Ok(Self {
            dir: dir.to_owned(),
            index: serde_json::from_slice(&index)?,
        })
    }

    fn blob(&self, digest: &str) -> Result<Vec<u8>> {
        let path = self.dir.join("blobs").join(digest.replacen(':', "/", 1));
        fs::read(&path).with_context(|| format!("the layout lacks the blob {digest}"))
    }

    /// All images that the index leads to, attestations left aside.
    pub(crate) fn images(&self) -> Result<Vec<Image>> {
        let mut images = Vec::new();
        for descriptor in list(&self.index, "manifests") {
            self.walk(descriptor, &mut images)?;
        }
        Ok(images)
    }

    fn walk(&self, descriptor: &Value, images: &mut Vec<Image>) -> Result<()> {
        if descriptor["annotations"]["vnd.docker.reference.type"] == "attestation-manifest" {
            return Ok(());
        }
        let digest = descriptor["digest"]
            .as_str()
            .context("a descriptor has no digest")?;
        let document: Value = serde_json::from_slice(&self.blob(digest)?)?;
        if document.get("manifests").is_some() {
            for inner in list(&document, "manifests") {
                self.walk(inner, images)?;
            }
            return Ok(());
        }
        let config = document["config"]["digest"]
            .as_str()
            .context("the manifest names no config")?;
        let config: Value = serde_json::from_slice(&self.blob(config)?)?;
        let platform = if descriptor["platform"].is_object() {
            &descriptor["platform"]
        } else {
            &config
        };
        let parts = ["os", "architecture", "variant"].map(|part| platform[part].as_str().unwrap_or_default());
        let platform = parts
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join("/");
        images.push(Image {
            platform,
            digest: digest.to_owned(),
            manifest: document,
            config,
        });
        Ok(())
    }

    /// The flattened file system of an image, and the paths that each layer's archive holds.
    pub(crate) fn flatten(&self, image: &Image) -> Result<(FileSystem, Vec<Vec<String>>)> {
        let mut flat = FileSystem::new();
        let mut paths = Vec::new();
        for layer in list(&image.manifest, "layers") {
            let digest = layer["digest"].as_str().context("a layer has no digest")?;
            let blob = self.blob(digest)?;
            if digest != crate::base::digest(&blob) {
                bail!("the blob {digest} is not what its name says");
            }
            let entries = read_tar(&decompress(&blob)?).with_context(|| format!("layer {digest}"))?;
            paths.push(apply(&mut flat, entries));
        }
        Ok((flat, paths))
    }
}

/// The array at `key`, or nothing where it is absent or null.
pub(crate) fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn decompress(data: &[u8]) -> Result<Cow<'_, [u8]>> {
    if data.starts_with(b"\x1f\x8b") {
        let mut out = Vec::new();
        MultiGzDecoder::new(data).read_to_end(&mut out)?;
        return Ok(Cow::Owned(out));
    }
    if data.starts_with(b"\x28\xb5\x2f\xfd") {
        return Ok(Cow::Owned(zstd::decode_all(data)?));
    }
    Ok(Cow::Borrowed(data))
}

/// Puts a layer over the file system; gives the paths that it holds, whiteouts with their archive names.
fn apply(flat: &mut FileSystem, entries: Vec<(String, Entry)>) -> Vec<String> {
    let mut names = Vec::new();
    // Whiteouts speak of the layers below, wherever in the archive they stand.
    for (path, _) in &entries {
        let (dir, name) = split(path);
        if name == ".wh..wh..opq" {
            remove_below(flat, dir);
        } else if let Some(name) = name.strip_prefix(".wh.") {
            let target = join(dir, name);
            flat.remove(&target);
            remove_below(flat, &target);
        } else {
            continue;
        }
        names.push(path.clone());
    }
    for (path, mut entry) in entries {
        if split(&path).1.starts_with(".wh.") {
            continue;
        }
        names.push(path.clone());
        if let Some(target) = &entry.hardlink
            && let Some(found) = flat.get(target)
        {
            entry = Entry {
                hardlink: entry.hardlink.clone(),
                ..found.clone()
            };
        }
        if entry.kind != "dir" && flat.get(&path).is_some_and(|old| old.kind == "dir") {
            remove_below(flat, &path);
        }
        flat.insert(path, entry);
    }
    names
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

fn join(dir: &str, name: &str) -> String {
    format!("{}/{name}", dir.trim_end_matches('/'))
}

fn remove_below(flat: &mut FileSystem, dir: &str) {
    let prefix = format!("{}/", dir.trim_end_matches('/'));
    flat.retain(|path, _| !path.starts_with(&prefix));
}

/// Makes a path absolute and clean.
pub(crate) fn normal(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Reads an archive's entries in their order.
pub(crate) fn read_tar(data: &[u8]) -> Result<Vec<(String, Entry)>> {
    let mut found = Vec::new();
    for entry in tar::Archive::new(data).entries()? {
        let mut entry = entry?;
        let path = normal(&String::from_utf8_lossy(&entry.path_bytes()));
        let mut xattrs = BTreeMap::new();
        if let Some(extensions) = entry.pax_extensions()? {
            for extension in extensions {
                let extension = extension?;
                if let Some(name) = extension.key_bytes().strip_prefix(b"SCHILY.xattr.") {
                    xattrs.insert(
                        String::from_utf8_lossy(name).into_owned(),
                        extension.value_bytes().to_vec(),
                    );
                }
            }
        }
        let link = entry
            .link_name_bytes()
            .map(|name| String::from_utf8_lossy(&name).into_owned());
        let header = entry.header().clone();
        let kind = match header.entry_type() {
            tar::EntryType::Directory => "dir",
            tar::EntryType::Symlink => "symlink",
            tar::EntryType::Link => "hardlink",
            tar::EntryType::Fifo => "fifo",
            tar::EntryType::Char => "char",
            tar::EntryType::Block => "block",
            tar::EntryType::XGlobalHeader => continue,
            kind if kind.is_file() || kind == tar::EntryType::GNUSparse => "file",
            _ => "other",
        };
        let data = if kind == "file" {
            let mut data = Vec::new();
            entry.read_to_end(&mut data)?;
            Some(data)
        } else {
            None
        };
        let device = if matches!(kind, "char" | "block") {
            Some((
                header.device_major()?.unwrap_or(0),
                header.device_minor()?.unwrap_or(0),
            ))
        } else {
            None
        };
        found.push((
            path,
            Entry {
                kind,
                mode: header.mode()? & 0o7777,
                uid: header.uid()?,
                gid: header.gid()?,
                mtime: header.mtime()? as i64,
                size: data.as_ref().map_or(0, |data| data.len() as u64),
                link: link.clone().filter(|_| kind == "symlink"),
                hardlink: link.filter(|_| kind == "hardlink").map(|name| normal(&name)),
                data,
                xattrs,
                device,
            },
        ));
    }
    Ok(found)
}

/// Reads the archive that a `tar` output wrote.
pub(crate) fn from_tar(path: &Path) -> Result<FileSystem> {
    let mut flat = FileSystem::new();
    apply(
        &mut flat,
        read_tar(&fs::read(path).context("the build has written no archive")?)?,
    );
    flat.remove("/");
    Ok(flat)
}

/// Reads the folder that a `local` output wrote.
pub(crate) fn from_dir(root: &Path) -> Result<FileSystem> {
    let mut flat = FileSystem::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(&folder).with_context(|| format!("failed to read {}", folder.display()))? {
            let path = item?.path();
            let meta = fs::symlink_metadata(&path)?;
            let (mut link, mut data) = (None, None);
            let kind = if meta.is_symlink() {
                link = Some(fs::read_link(&path)?.to_string_lossy().into_owned());
                "symlink"
            } else if meta.is_dir() {
                folders.push(path.clone());
                "dir"
            } else if meta.is_file() {
                let mut content = Vec::new();
                BufReader::new(fs::File::open(&path)?).read_to_end(&mut content)?;
                data = Some(content);
                "file"
            } else {
                "other"
            };
            let relative = path.strip_prefix(root)?.to_string_lossy().into_owned();
            let entry = Entry {
                kind,
                mode: meta.mode() & 0o7777,
                uid: meta.uid().into(),
                gid: meta.gid().into(),
                mtime: meta.mtime(),
                size: meta.len(),
                link,
                data,
                ..Entry::default()
            };
            flat.insert(normal(&relative), entry);
        }
    }
    Ok(flat)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{case::TarEntry, tree};

    fn layer(entries: &[(&str, &str, &str)]) -> Vec<(String, Entry)> {
        let entries: Vec<TarEntry> = entries
            .iter()
            .map(|(name, kind, text)| TarEntry {
                name: (*name).into(),
                r#type: (*kind).into(),
                content: if *kind == "file" {
                    (*text).into()
                } else {
                    String::new()
                },
                link: if *kind == "file" {
                    String::new()
                } else {
                    (*text).into()
                },
                ..TarEntry::default()
            })
            .collect();
        read_tar(&tree::archive(&entries).unwrap()).unwrap()
    }

    #[test]
    fn whiteouts_hide_what_lies_below_and_not_what_comes_with_them() {
        let mut flat = FileSystem::new();
        apply(
            &mut flat,
            layer(&[
                ("d", "dir", ""),
                ("d/a", "file", "1"),
                ("d/b", "file", "2"),
                ("e/x", "file", "3"),
            ]),
        );
        let names = apply(
            &mut flat,
            layer(&[
                ("d/c", "file", "4"),
                ("d/.wh..wh..opq", "file", ""),
                (".wh.e", "file", ""),
            ]),
        );
        assert_eq!(flat.keys().collect::<Vec<_>>(), ["/d", "/d/c"]);
        assert_eq!(names, ["/d/.wh..wh..opq", "/.wh.e", "/d/c"]);
    }

    #[test]
    fn a_file_in_a_folders_place_takes_its_content_away() {
        let mut flat = FileSystem::new();
        apply(&mut flat, layer(&[("d", "dir", ""), ("d/a", "file", "1")]));
        apply(&mut flat, layer(&[("d", "symlink", "elsewhere")]));
        assert_eq!(flat.keys().collect::<Vec<_>>(), ["/d"]);
        assert_eq!(flat["/d"].link.as_deref(), Some("elsewhere"));
    }

    #[test]
    fn hard_links_take_the_content_of_their_target() {
        let mut flat = FileSystem::new();
        apply(&mut flat, layer(&[("a", "file", "1"), ("b", "hardlink", "a")]));
        assert_eq!(flat["/b"].data.as_deref(), Some(&b"1"[..]));
        assert_eq!(flat["/b"].hardlink.as_deref(), Some("/a"));
    }

    #[test]
    fn paths_are_made_absolute_and_stay_inside() {
        for (from, to) in [
            ("./a/", "/a"),
            ("../x", "/x"),
            ("a/../b", "/b"),
            ("/", "/"),
            ("", "/"),
        ] {
            assert_eq!(normal(from), to);
        }
    }
}
