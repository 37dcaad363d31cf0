//! Layers to directories, and what must not happen on the way.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "tests"
)]

mod common;

use std::{
    fs,
    io::Write,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink},
    process::Command,
};

use common::{Hostile, root, snapshot};
use slipway_layer::{
    Compression, Error, ExportOptions, Mode, PackOptions, UnmappedIds, UnpackOptions, adopt_implied_parents,
    export_dir, export_tar, pack, recompress, unpack,
};

fn apply() -> UnpackOptions {
    UnpackOptions {
        mode: Mode::Apply,
        ..UnpackOptions::layer()
    }
}

#[test]
fn promises_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("f"), "x").unwrap();
    let (layer, bytes) = pack(dir.path(), Vec::new(), &PackOptions::default()).unwrap();
    let good = UnpackOptions {
        digest: Some(layer.digest.clone()),
        diff_id: Some(layer.diff_id.clone()),
        size: Some(layer.size),
        ..UnpackOptions::layer()
    };
    let dest = || tempfile::tempdir().unwrap();
    let unpacked = unpack(&bytes[..], dest().path(), &good).unwrap();
    assert_eq!(
        (unpacked.digest, unpacked.diff_id, unpacked.size),
        (layer.digest, layer.diff_id, layer.size)
    );
    let other = Some(slipway_oci::Digest::of(b"other"));
    for (what, options) in [
        (
            "digest",
            UnpackOptions {
                digest: other.clone(),
                ..good.clone()
            },
        ),
        (
            "diff id",
            UnpackOptions {
                diff_id: other,
                ..good.clone()
            },
        ),
        (
            "size",
            UnpackOptions {
                size: Some(1),
                ..good.clone()
            },
        ),
    ] {
        let error = unpack(&bytes[..], dest().path(), &options).unwrap_err();
        assert!(
            matches!(&error, Error::Mismatch { what: found, .. } if *found == what),
            "{what}: {error}"
        );
    }
    // Bytes behind the end of the compressed data belong to the digest, and cut ones are missed.
    let cut = unpack(&bytes[..bytes.len() - 9], dest().path(), &good).unwrap_err();
    assert!(matches!(cut, Error::Source(_) | Error::Mismatch { .. }), "{cut}");
}

/// Hands out one byte at a time.
struct Drip<'a>(&'a [u8]);

impl std::io::Read for Drip<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = buf.len().min(1);
        std::io::Read::read(&mut self.0, &mut buf[..n])
    }
}

#[test]
fn every_compression_is_told_from_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("f"), "content").unwrap();
    let (plain, tar) = export_tar(dir.path(), Vec::new(), &ExportOptions::default()).unwrap();
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let (_, zstd) = recompress(&tar[..], Vec::new(), Compression::ZSTD, false, 1).unwrap();
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &zstd].concat();
    // pigz and others write one member after the other.
    let members = [gzip(&tar[..700]), gzip(&tar[700..])].concat();
    for (name, bytes) in [
        ("plain", tar.clone()),
        ("gzip", gzip(&tar)),
        ("members", members),
        ("zstd", zstd),
        ("skippable", skippable),
    ] {
        let dest = tempfile::tempdir().unwrap();
        let unpacked = unpack(Drip(&bytes), dest.path(), &UnpackOptions::layer()).unwrap();
        assert_eq!(unpacked.diff_id, plain.digest, "{name}");
        assert_eq!(fs::read_to_string(dest.path().join("f")).unwrap(), "content");
    }
}

#[test]
fn whiteouts_delete_what_was_there_and_nothing_of_their_own_layer() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["d/old", "d/sub/old", "o/old", "o/sub/old", "stay"] {
        fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
        fs::write(dir.path().join(name), "old").unwrap();
    }
    let layer = Hostile::new()
        .file("d/.wh.old", "")
        .file("d/sub/new", "new")
        .file(".wh.never", "")
        .file("o/new", "new")
        .file("o/sub/new", "new")
        .file("o/.wh..wh..opq", "")
        .file("x/y", "new")
        .file("x/.wh.y", "")
        .0;
    unpack(&layer[..], dir.path(), &apply()).unwrap();
    let files: Vec<String> = snapshot(dir.path(), false)
        .into_iter()
        .filter(|(_, node)| node.kind == "file")
        .map(|(path, _)| path)
        .collect();
    assert_eq!(
        files,
        [
            "/d/sub/new",
            "/d/sub/old",
            "/o/new",
            "/o/sub/new",
            "/stay",
            "/x/y"
        ]
    );
}

#[test]
fn whiteouts_become_overlay_marks() {
    let dir = tempfile::tempdir().unwrap();
    let layer = Hostile::new()
        .file("d/.wh.gone", "")
        .dir("o")
        .file("o/.wh..wh..opq", "")
        .file(".wh.again", "")
        .dir("again")
        .dir("late")
        .file(".wh.late", "")
        .file("file", "x")
        .file(".wh.file", "")
        .file(".wh.way", "")
        .file("way/in", "x")
        .file(".wh..wh.plnk", "")
        .0;
    match unpack(&layer[..], dir.path(), &UnpackOptions::layer()) {
        Err(Error::Entry {
            action: "create whiteout",
            ..
        }) if !root() => {
            println!("skipped: whiteouts cannot be made here");
            return;
        }
        other => other.unwrap(),
    };
    let gone = fs::symlink_metadata(dir.path().join("d/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let opaque = |name: &str| {
        let mut value = [0; 8];
        rustix::fs::lgetxattr(dir.path().join(name), "user.overlay.opaque", &mut value[..])
            .is_ok_and(|n| &value[..n] == b"y")
    };
    for name in ["o", "again", "late", "way"] {
        assert!(opaque(name), "{name} hides what is below it");
    }
    assert!(!opaque("d"));
    assert_eq!(fs::read_to_string(dir.path().join("file")).unwrap(), "x");
    assert!(!dir.path().join(".wh.plnk").exists());
}

#[test]
fn a_plain_archive_has_no_whiteouts() {
    let dir = tempfile::tempdir().unwrap();
    let archive = Hostile::new().file(".wh.name", "kept").0;
    let options = UnpackOptions {
        mode: Mode::Apply,
        ..UnpackOptions::default()
    };
    unpack(&archive[..], dir.path(), &options).unwrap();
    assert_eq!(fs::read_to_string(dir.path().join(".wh.name")).unwrap(), "kept");
}

/// A layer describes a directory whole, as an overlay of layers shows it; any other archive adds to what is there.
#[test]
fn a_layers_directory_takes_the_old_ones_attributes_away() {
    use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};
    for (whiteouts, stays) in [(true, false), (false, true)] {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("d");
        fs::create_dir(&place).unwrap();
        lsetxattr(&place, "user.note", b"old", XattrFlags::empty()).unwrap();
        let options = UnpackOptions { whiteouts, ..apply() };
        unpack(&Hostile::new().dir("d").0[..], dir.path(), &options).unwrap();
        let mut value = [0; 8];
        assert_eq!(
            lgetxattr(&place, "user.note", &mut value[..]).is_ok(),
            stays,
            "whiteouts: {whiteouts}"
        );
    }
}

#[test]
fn implied_parents_get_the_attributes_of_the_layers_below() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (lower, layer) = (dir.path().join("lower"), dir.path().join("layer"));
    fs::create_dir_all(lower.join("tmp")).unwrap();
    fs::set_permissions(lower.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::create_dir(&layer).unwrap();
    let archive = Hostile::new()
        .file("tmp/new/file", "x")
        .file("own/file", "x")
        .dir("own")
        .0;
    let unpacked = unpack(&archive[..], &layer, &UnpackOptions::layer()).unwrap();
    let implied: Vec<_> = unpacked
        .implied_parents
        .iter()
        .map(|path| path.to_str().unwrap())
        .collect();
    assert_eq!(implied, ["tmp", "tmp/new"], "not the one that is described later");
    adopt_implied_parents(&layer, &unpacked.implied_parents, &[lower]).unwrap();
    assert_eq!(fs::metadata(layer.join("tmp")).unwrap().mode() & 0o7777, 0o1777);
    assert_eq!(
        fs::metadata(layer.join("tmp/new")).unwrap().mode() & 0o7777,
        0o755
    );
}

#[test]
fn the_systems_tar_writes_what_we_read() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    let long = format!("{0}/{0}", "directory-with-a-long-name".repeat(5));
    fs::create_dir_all(source.join(&long)).unwrap();
    fs::write(source.join(&long).join("file"), "x").unwrap();
    fs::hard_link(source.join(&long).join("file"), source.join("hard")).unwrap();
    symlink("t".repeat(200), source.join("link")).unwrap();
    fs::write(source.join("ünïcode"), "u").unwrap();
    rustix::fs::lsetxattr(
        source.join("ünïcode"),
        "user.note",
        b"a=\n\0",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    let sparse = fs::File::create(source.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", 3_000_000).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"middle", 1_000_000).unwrap();
    drop(sparse);
    let expected = snapshot(&source, true);
    let formats: &[&[&str]] = &[
        &["--format=gnu", "--sparse"],
        &["--format=pax", "--xattrs"],
        &["--format=pax", "--xattrs", "--sparse", "--sparse-version=0.0"],
        &["--format=pax", "--xattrs", "--sparse", "--sparse-version=0.1"],
        &["--format=pax", "--xattrs", "--sparse", "--sparse-version=1.0"],
    ];
    for format in formats {
        let archive = dir.path().join("archive.tar");
        let status = Command::new("tar")
            .args(*format)
            .arg("-cf")
            .arg(&archive)
            .arg("-C")
            .arg(&source)
            .arg(".")
            .status()
            .unwrap();
        assert!(status.success());
        let dest = tempfile::tempdir().unwrap();
        unpack(fs::File::open(&archive).unwrap(), dest.path(), &apply()).unwrap();
        let mut found = snapshot(dest.path(), true);
        if !format.contains(&"--xattrs") {
            let node = found.get_mut("/ünïcode").unwrap();
            node.xattrs.clone_from(&expected["/ünïcode"].xattrs);
        }
        assert_eq!(found, expected, "{format:?}");
        if format.contains(&"--sparse") {
            assert!(
                fs::metadata(dest.path().join("sparse")).unwrap().blocks() < 1000,
                "{format:?} keeps the holes"
            );
        }
    }
}

#[test]
fn a_tree_is_exported_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (source, dest) = (dir.path().join("source"), dir.path().join("dest"));
    fs::create_dir_all(source.join("d/e")).unwrap();
    fs::create_dir(&dest).unwrap();
    fs::write(source.join("d/.wh.kept"), "no whiteout").unwrap();
    fs::hard_link(source.join("d/.wh.kept"), source.join("again")).unwrap();
    symlink("/nowhere", source.join("link")).unwrap();
    fs::write(dest.join("was-there"), "stays").unwrap();
    let options = ExportOptions {
        squash_owners: true,
        ..ExportOptions::default()
    };
    let unpacked = export_dir(&source, &dest, &options).unwrap();
    assert_eq!(unpacked.entries, 5);
    let mut found = snapshot(&dest, true);
    assert!(found.remove("/was-there").is_some());
    let expected = snapshot(&source, true);
    assert_eq!(found, expected);
}

/// An archive whose last entry has another mode and time than all others.
fn last_entry_says(mut archive: Vec<u8>, mode: [u8; 7], mtime: [u8; 11]) -> Vec<u8> {
    let at = archive.len() - 512;
    let header = &mut archive[at..];
    header[100..107].copy_from_slice(&mode);
    header[136..147].copy_from_slice(&mtime);
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    archive
}

#[test]
fn the_entry_of_a_hard_link_speaks_of_the_shared_file() {
    let archive = Hostile::new().file("f", "x").hard_link("h", "f").0;
    let archive = last_entry_says(archive, *b"0000640", *b"00000000777");
    for options in [
        apply(),
        UnpackOptions::layer(),
        UnpackOptions {
            mode: Mode::Apply,
            ..UnpackOptions::default()
        },
    ] {
        let dir = tempfile::tempdir().unwrap();
        unpack(&archive[..], dir.path(), &options).unwrap();
        let meta = fs::metadata(dir.path().join("f")).unwrap();
        assert_eq!(
            (meta.mode() & 0o7777, meta.mtime(), meta.nlink()),
            (0o640, 0o777, 2)
        );
    }
}

#[test]
fn an_archives_root_entry_leaves_the_directory_alone_and_a_layers_does_not() {
    let archive = last_entry_says(Hostile::new().dir("./").0, *b"0000700", *b"00000000777");
    let mode = |options: &UnpackOptions| {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        unpack(&archive[..], dir.path(), options).unwrap();
        fs::metadata(dir.path()).unwrap().mode() & 0o7777
    };
    assert_eq!(mode(&UnpackOptions::layer()), 0o700);
    let add = UnpackOptions {
        mode: Mode::Apply,
        ..UnpackOptions::default()
    };
    assert_eq!(mode(&add), 0o711);
}

#[test]
fn owners_that_cannot_be_given_fail_or_are_squashed() {
    let owned_by = |uid: &[u8; 7]| {
        let mut archive = Hostile::new().file("f", "x").0;
        archive[108..115].copy_from_slice(uid);
        archive[148..156].fill(b' ');
        let sum: u32 = archive[..512].iter().map(|byte| u32::from(*byte)).sum();
        archive[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        archive
    };
    let dir = tempfile::tempdir().unwrap();
    if root() {
        // 262144, which a pod with the usual 65536 ids does not have.
        let archive = owned_by(b"1000000");
        match unpack(&archive[..], dir.path(), &apply()) {
            Ok(_) => println!("skipped: every id is mapped here"),
            Err(error) => {
                assert!(
                    matches!(error, Error::UnmappedOwner { uid: 262_144, .. }),
                    "{error:?}"
                );
                assert!(error.to_string().contains("userNamespaces.idsPerPod"), "{error}");
                let options = UnpackOptions {
                    unmapped_ids: UnmappedIds::Squash,
                    ..apply()
                };
                assert_eq!(
                    unpack(&archive[..], dir.path(), &options)
                        .unwrap()
                        .squashed_owners,
                    1
                );
            }
        }
        return;
    }
    let archive = owned_by(b"0000001");
    assert!(unpack(&archive[..], dir.path(), &apply()).is_err());
    let options = UnpackOptions {
        unmapped_ids: UnmappedIds::Squash,
        ..apply()
    };
    assert_eq!(
        unpack(&archive[..], dir.path(), &options)
            .unwrap()
            .squashed_owners,
        1
    );
}
