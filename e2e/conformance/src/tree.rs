//! Writes trees and archives as a case describes them.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::{
        fs::{DirBuilderExt as _, PermissionsExt as _, lchown, symlink},
        net::UnixListener,
    },
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use flate2::{Compression, write::GzEncoder};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, mknodat, utimensat};

use crate::case::{Body, FileSpec, Files, Kind, TarEntry};

/// Writes `files` below `root`; missing parent folders are made with mode 0755.
pub(crate) fn write(root: &Path, files: &Files) -> Result<()> {
    make_dir(root)?;
    // Hard links last, whatever their names: their targets must exist.
    let (links, others): (Vec<_>, Vec<_>) = files
        .iter()
        .partition(|(_, spec)| matches!(spec.kind, Kind::Hardlink(_)));
    for (path, spec) in others.iter().chain(&links) {
        write_one(root, path, spec).with_context(|| format!("failed to write {path} of the case"))?;
    }
    // Times at the very end: each file written changes its folder's.
    for (path, spec) in files {
        if let Some(mtime) = spec.mtime {
            let time = Timespec {
                tv_sec: mtime,
                tv_nsec: 0,
            };
            let times = Timestamps {
                last_access: time,
                last_modification: time,
            };
            utimensat(CWD, root.join(path), &times, AtFlags::SYMLINK_NOFOLLOW)
                .with_context(|| format!("failed to set the time of {path}"))?;
        }
    }
    Ok(())
}

fn make_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
}

fn write_one(root: &Path, path: &str, spec: &FileSpec) -> Result<()> {
    let full = root.join(path);
    if let Some(parent) = full.parent().filter(|parent| !parent.is_dir()) {
        make_dir(parent)?;
    }
    match &spec.kind {
        Kind::Dir => {
            make_dir(&full)?;
            fs::set_permissions(
                &full,
                fs::Permissions::from_mode(octal(spec.mode.as_deref(), 0o755)?),
            )?;
        }
        Kind::Symlink(target) => symlink(target, &full)?,
        Kind::Hardlink(target) => fs::hard_link(root.join(target), &full)?,
        Kind::Socket => drop(UnixListener::bind(&full)?),
        Kind::Fifo => mknodat(CWD, &full, FileType::Fifo, Mode::from_raw_mode(0o644), 0)?,
        Kind::File => {
            fs::write(&full, bytes(&spec.body)?)?;
            fs::set_permissions(
                &full,
                fs::Permissions::from_mode(octal(spec.mode.as_deref(), 0o644)?),
            )?;
        }
    }
    if spec.uid.is_some() || spec.gid.is_some() {
        lchown(&full, Some(spec.uid.unwrap_or(0)), Some(spec.gid.unwrap_or(0)))?;
    }
    Ok(())
}

/// Reads an octal mode.
pub(crate) fn octal(text: Option<&str>, default: u32) -> Result<u32> {
    text.map_or(Ok(default), |text| {
        u32::from_str_radix(text, 8).with_context(|| format!("{text:?} is no octal mode"))
    })
}

/// The bytes that a case describes.
pub(crate) fn bytes(body: &Body) -> Result<Vec<u8>> {
    if let Some(entries) = &body.tar {
        return compress(&archive(entries)?, body.compress.as_deref().unwrap_or_default());
    }
    if let Some(text) = &body.base64 {
        return Ok(BASE64_STANDARD.decode(text)?);
    }
    if let Some((text, times)) = &body.repeat {
        return Ok(text.repeat(*times).into_bytes());
    }
    Ok(body.content.clone().unwrap_or_default().into_bytes())
}

/// Compresses by the name that a case uses: gz, bz2, xz, zst or nothing.
pub(crate) fn compress(data: &[u8], how: &str) -> Result<Vec<u8>> {
    match how {
        "" => Ok(data.to_vec()),
        "gz" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(data)?;
            Ok(encoder.finish()?)
        }
        "zst" => Ok(zstd::encode_all(data, 3)?),
        "bz2" => filter("bzip2", data),
        "xz" => filter("xz", data),
        other => bail!("a case asks for the unknown compression {other:?}"),
    }
}

/// Pipes `data` through a program; these two formats are too rare for a dependency.
fn filter(program: &str, data: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new(program)
        .arg("-c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("failed to start {program}; Debian has it in bzip2 and xz-utils"))?;
    let mut input = child.stdin.take().context("no pipe")?;
    let output = std::thread::scope(|scope| {
        scope.spawn(move || input.write_all(data));
        child.wait_with_output()
    })?;
    if !output.status.success() {
        bail!("{program} failed: {}", output.status);
    }
    Ok(output.stdout)
}

/// Makes an archive. The names go into it as they are, `../x` and `/x` too: that is what some cases are about.
pub(crate) fn archive(entries: &[TarEntry]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for entry in entries {
        let (kind, default_mode) = match entry.r#type.as_str() {
            "" | "file" => (tar::EntryType::Regular, 0o644),
            "dir" => (tar::EntryType::Directory, 0o755),
            "symlink" => (tar::EntryType::Symlink, 0o644),
            "hardlink" => (tar::EntryType::Link, 0o644),
            "fifo" => (tar::EntryType::Fifo, 0o644),
            "char" => (tar::EntryType::Char, 0o644),
            other => bail!("a case asks for the unknown entry type {other:?}"),
        };
        let mut name = entry.name.clone();
        if kind == tar::EntryType::Directory && !name.ends_with('/') {
            name.push('/');
        }
        let data = if kind == tar::EntryType::Regular {
            entry.content.as_bytes()
        } else {
            &[]
        };
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(octal(entry.mode.as_deref(), default_mode)?);
        header.set_uid(entry.uid);
        header.set_gid(entry.gid);
        header.set_mtime(entry.mtime);
        append(&mut out, header, &name, &entry.link, data);
    }
    out.resize(out.len() + 1024, 0);
    Ok(out)
}

/// Appends one entry, in USTAR with a PAX header where a name is too long for it.
pub(crate) fn append(out: &mut Vec<u8>, mut header: tar::Header, name: &str, link: &str, data: &[u8]) {
    if name.len() > 100 || link.len() > 100 {
        let mut records = Vec::new();
        for (key, value) in [("path", name), ("linkpath", link)] {
            if !value.is_empty() {
                records.extend(pax_record(key, value));
            }
        }
        let mut extension = tar::Header::new_ustar();
        extension.set_entry_type(tar::EntryType::XHeader);
        put(out, extension, b"PaxHeaders/entry", b"", &records);
    }
    let short = |text: &str| text.as_bytes()[..text.len().min(100)].to_vec();
    header.set_size(data.len() as u64);
    put(out, header, &short(name), &short(link), data);
}

fn put(out: &mut Vec<u8>, mut header: tar::Header, name: &[u8], link: &[u8], data: &[u8]) {
    let fields = header.as_old_mut();
    fields.name[..name.len()].copy_from_slice(name);
    fields.linkname[..link.len()].copy_from_slice(link);
    header.set_size(data.len() as u64);
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(512), 0);
}

/// A PAX record begins with its own length, its digits included.
fn pax_record(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len();
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    format!("{length}{rest}").into_bytes()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Read as _, os::unix::fs::MetadataExt as _};

    use super::*;

    #[test]
    fn every_kind_of_file_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let files: Files = serde_json::from_str(
            r#"{"a/b": "text", "d": {"dir": true, "mode": "0711", "mtime": 5}, "l": {"symlink": "nowhere", "mtime": 7},
                "a/0": {"hardlink": "a/b"}, "p": {"fifo": true}, "s": {"socket": true}, "d/x": {"base64": "AAE="},
                "r": {"repeat": ["ab", 3], "mode": "0600"}}"#,
        )
        .unwrap();
        write(dir.path(), &files).unwrap();
        let of = |path: &str| fs::symlink_metadata(dir.path().join(path)).unwrap();
        assert_eq!(of("a/b").ino(), of("a/0").ino());
        assert_eq!((of("d").mode() & 0o7777, of("d").mtime()), (0o711, 5));
        assert_eq!(of("l").mtime(), 7);
        assert_eq!(of("r").mode() & 0o777, 0o600);
        assert_eq!(fs::read(dir.path().join("r")).unwrap(), b"ababab");
        assert_eq!(fs::read(dir.path().join("d/x")).unwrap(), [0, 1]);
    }

    #[test]
    fn archives_keep_odd_and_long_names() {
        let long = "n/".repeat(70) + "f";
        let entries = [
            TarEntry {
                name: "../x".into(),
                content: "1".into(),
                ..TarEntry::default()
            },
            TarEntry {
                name: "/y".into(),
                r#type: "symlink".into(),
                link: "z".into(),
                ..TarEntry::default()
            },
            TarEntry {
                name: long.clone(),
                content: "2".into(),
                ..TarEntry::default()
            },
            TarEntry {
                name: "d".into(),
                r#type: "dir".into(),
                ..TarEntry::default()
            },
        ];
        let data = archive(&entries).unwrap();
        let mut found = BTreeMap::new();
        for entry in tar::Archive::new(&data[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            found.insert(name, text);
        }
        assert_eq!(found.keys().collect::<Vec<_>>(), ["../x", "/y", "d/", &long]);
        assert_eq!(found[&long], "2");
    }

    #[test]
    fn all_compressions_begin_with_their_magic() {
        let heads: [(&str, &[u8]); 4] = [
            ("gz", b"\x1f\x8b"),
            ("bz2", b"BZh"),
            ("xz", b"\xfd7zXZ"),
            ("zst", b"\x28\xb5\x2f\xfd"),
        ];
        for (how, head) in heads {
            if let Ok(data) = compress(b"text", how) {
                assert!(data.starts_with(head), "{how}");
            } else {
                println!("no program for {how} here");
            }
        }
        assert!(compress(b"", "lzma").is_err());
    }
}
