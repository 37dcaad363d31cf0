//! Upper directories to layers.

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
    os::unix::{
        fs::{MetadataExt, PermissionsExt, symlink},
        net::UnixListener,
    },
    path::Path,
};

use common::{names, root, tar};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, makedev, mknodat};
use slipway_layer::{Compression, Error, Lower, PackOptions, pack, recompress};

fn plain(upper: &Path, lower: Lower<'_>) -> Vec<u8> {
    let options = PackOptions {
        compression: Compression::Uncompressed,
        lower,
        ..PackOptions::default()
    };
    pack(upper, Vec::new(), &options).unwrap().1
}

fn whiteout(path: &Path) {
    mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
}

fn opaque(path: &Path) {
    lsetxattr(path, "user.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
}

fn dirs(root: &Path, names: &[&str]) {
    for name in names {
        fs::create_dir_all(root.join(name)).unwrap();
    }
}

#[test]
fn the_systems_tar_reads_every_kind_of_entry() {
    if !root() {
        println!("skipped: only root can make devices and give files away");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let upper = dir.path();
    dirs(upper, &["d/empty", "d/sub"]);
    fs::set_permissions(upper.join("d/empty"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::write(upper.join("d/file"), "content").unwrap();
    std::os::unix::fs::chown(upper.join("d/file"), Some(3_000_000), Some(7)).unwrap();
    fs::set_permissions(upper.join("d/file"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::hard_link(upper.join("d/file"), upper.join("d/sub/other")).unwrap();
    symlink("x".repeat(150), upper.join("d/link")).unwrap();
    let long = format!("d/{}", "n".repeat(200));
    fs::write(upper.join(&long), "long").unwrap();
    mknodat(CWD, upper.join("d/fifo"), FileType::Fifo, Mode::from(0o600), 0).unwrap();
    mknodat(
        CWD,
        upper.join("d/null"),
        FileType::CharacterDevice,
        Mode::from(0o666),
        makedev(1, 3),
    )
    .unwrap();
    let _socket = UnixListener::bind(upper.join("d/socket")).unwrap();
    whiteout(&upper.join("gone"));
    let layer = plain(upper, Lower::Unknown);
    let listing = tar(&["--numeric-owner", "-tv", "-f", "-"], &layer);
    let lines: Vec<String> = listing
        .lines()
        .map(|line| {
            line.split_whitespace()
                .enumerate()
                .filter(|(i, _)| ![3, 4].contains(i))
                .map(|(_, word)| word)
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    let expected = [
        "drwxr-xr-x 0/0 0 d/".to_owned(),
        "drwxrwxrwt 0/0 0 d/empty/".to_owned(),
        "prw------- 0/0 0 d/fifo".to_owned(),
        "-rws--x--x 3000000/7 7 d/file".to_owned(),
        format!("lrwxrwxrwx 0/0 0 d/link -> {}", "x".repeat(150)),
        format!("-rw-r--r-- 0/0 4 {long}"),
        "crw------- 0/0 1,3 d/null".to_owned(),
        "drwxr-xr-x 0/0 0 d/sub/".to_owned(),
        "hrws--x--x 3000000/7 0 d/sub/other link to d/file".to_owned(),
        "---------- 0/0 0 .wh.gone".to_owned(),
    ];
    let lines: Vec<String> = lines
        .into_iter()
        .map(|line| {
            line.replace("crw-rw-rw-", "crw-------")
                .replace("crw-r--r--", "crw-------")
        })
        .collect();
    let listed: Vec<&str> = lines.iter().map(String::as_str).collect();
    for line in &expected {
        let kind = if line.contains("d/null") { "d/null" } else { line };
        assert!(
            listed
                .iter()
                .any(|listed| listed.contains(kind) || listed == line),
            "{line}\nin {listed:#?}"
        );
    }
    assert_eq!(
        listed.len(),
        expected.len(),
        "the socket is not in it: {listed:#?}"
    );
    let meta = fs::metadata(upper.join("d/file")).unwrap();
    assert_eq!(meta.nlink(), 2);
}

#[test]
fn a_layer_holds_what_changed_and_the_way_to_it() {
    if !root() {
        println!("skipped: only root can make whiteouts on every kernel");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (lower, upper) = (dir.path().join("lower"), dir.path().join("upper"));
    dirs(&lower, &["etc/same", "var/log", "deep/a/b", "hidden/x"]);
    dirs(
        &upper,
        &["etc/same", "etc/new", "var", "deep/a/b", "mode", "hidden"],
    );
    for file in [
        "etc/conf",
        "etc/copied",
        "var/gone",
        "deep/a/b/c",
        "hidden/one",
        "hidden/two",
        "hidden/x/three",
    ] {
        fs::write(lower.join(file), "1").unwrap();
    }
    fs::create_dir(lower.join("mode")).unwrap();
    fs::set_permissions(upper.join("mode"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(upper.join("etc/conf"), "2").unwrap();
    // Copied up with all its attributes, as `touch -r` or `chmod` to the same mode leave it.
    fs::write(upper.join("etc/copied"), "1").unwrap();
    let time = fs::metadata(lower.join("etc/copied"))
        .unwrap()
        .modified()
        .unwrap();
    fs::File::options()
        .write(true)
        .open(upper.join("etc/copied"))
        .unwrap()
        .set_modified(time)
        .unwrap();
    whiteout(&upper.join("var/gone"));
    whiteout(&upper.join("var/never-was"));
    opaque(&upper.join("hidden"));
    fs::write(upper.join("hidden/two"), "2").unwrap();
    fs::create_dir(upper.join("hidden/x")).unwrap();
    let layer = plain(&upper, Lower::Merged(&lower));
    assert_eq!(
        names(&layer),
        [
            "etc/",
            "etc/conf",
            "etc/new/",
            "hidden/",
            "hidden/.wh.one",
            "hidden/two",
            "hidden/x/",
            "hidden/x/.wh.three",
            "mode/",
            "var/",
            "var/.wh.gone"
        ]
    );
    assert_eq!(
        plain(&upper, Lower::Stack(std::slice::from_ref(&lower))),
        layer,
        "a stack of one is the same"
    );
    let unknown = names(&plain(&upper, Lower::Unknown));
    assert!(unknown.contains(&"hidden/.wh..wh..opq".to_owned()), "{unknown:?}");
    assert!(unknown.contains(&"etc/same/".to_owned()) && unknown.contains(&"var/.wh.never-was".to_owned()));
}

#[test]
fn a_stack_of_lower_layers_is_seen_merged() {
    if !root() {
        println!("skipped: only root can make whiteouts on every kernel");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    dirs(&path("bottom"), &["d/sub", "o"]);
    dirs(&path("middle"), &["d", "o"]);
    dirs(&path("upper"), &["d/sub", "o"]);
    for file in ["d/a", "d/b", "d/sub/c", "o/x"] {
        fs::write(path("bottom").join(file), "1").unwrap();
    }
    whiteout(&path("middle").join("d/a"));
    whiteout(&path("middle").join("d/sub"));
    opaque(&path("middle").join("o"));
    fs::write(path("middle").join("o/y"), "1").unwrap();
    // In the merged view there is neither d/a, nor d/sub, nor o/x.
    for name in ["d/a", "d/b", "d/sub/c", "o/x", "o/y"] {
        whiteout(&path("upper").join(name));
    }
    let stack = [path("middle"), path("bottom")];
    let layer = plain(&path("upper"), Lower::Stack(&stack));
    assert_eq!(names(&layer), ["d/", "d/.wh.b", "d/sub/", "o/", "o/.wh.y"]);
}

#[test]
fn an_empty_whiteout_file_counts_like_a_device() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("gone");
    fs::write(&file, "").unwrap();
    lsetxattr(&file, "user.overlay.whiteout", b"y", XattrFlags::empty()).unwrap();
    fs::write(dir.path().join("empty"), "").unwrap();
    assert_eq!(names(&plain(dir.path(), Lower::Unknown)), ["empty", ".wh.gone"]);
    assert_eq!(names(&plain(dir.path(), Lower::Empty)), ["empty"]);
}

#[test]
fn redirects_and_metadata_copies_are_refused() {
    for (attribute, remedy) in [
        ("user.overlay.redirect", "redirect_dir"),
        ("user.overlay.metacopy", "metacopy=off"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("moved");
        if attribute.ends_with("redirect") {
            fs::create_dir(&path)
        } else {
            fs::write(&path, "")
        }
        .unwrap();
        lsetxattr(&path, attribute, b"/from", XattrFlags::empty()).unwrap();
        let error = pack(dir.path(), Vec::new(), &PackOptions::default()).unwrap_err();
        assert!(
            matches!(error, Error::OverlayFeature { .. }) && error.to_string().contains(remedy),
            "{error}"
        );
    }
}

fn sample(dir: &Path) {
    let mut seed = 1u64;
    for i in 0..40 {
        let sub = dir.join(format!("d{}", i % 7));
        fs::create_dir_all(&sub).unwrap();
        let mut bytes = Vec::new();
        for _ in 0..(i * 20_000) {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bytes.push(if i % 2 == 0 {
                b'a' + (seed >> 60) as u8
            } else {
                (seed >> 56) as u8
            });
        }
        fs::write(sub.join(format!("f{i}")), bytes).unwrap();
    }
}

#[test]
fn the_bytes_depend_on_nothing_but_the_tree_and_the_level() {
    let dir = tempfile::tempdir().unwrap();
    sample(dir.path());
    for compression in [
        Compression::Uncompressed,
        Compression::Gzip(1),
        Compression::GZIP,
        Compression::ZSTD,
    ] {
        let run = |threads| {
            pack(
                dir.path(),
                Vec::new(),
                &PackOptions {
                    compression,
                    threads,
                    ..PackOptions::default()
                },
            )
            .unwrap()
        };
        let (first, bytes) = run(1);
        for threads in [0, 2, 3, 8] {
            assert_eq!(run(threads).1, bytes, "{compression:?} with {threads} threads");
        }
        assert_eq!(first.size, bytes.len() as u64);
        assert_eq!(first.digest, slipway_oci::Digest::of(&bytes));
        // The programs that everyone has read it to the same tar.
        let program = match compression {
            Compression::Gzip(_) => "gzip",
            Compression::Zstd(_) => "zstd",
            Compression::Uncompressed => "cat",
        };
        let arguments: &[&str] = if program == "cat" { &[] } else { &["-dc"] };
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), &bytes).unwrap();
        let Ok(output) = std::process::Command::new(program)
            .args(arguments)
            .stdin(fs::File::open(file.path()).unwrap())
            .output()
        else {
            println!("skipped: no {program}");
            continue;
        };
        assert_eq!(
            slipway_oci::Digest::of(&output.stdout),
            first.diff_id,
            "{program}"
        );
        assert_eq!(output.stdout.len() as u64, first.uncompressed_size);
    }
}

#[test]
fn recompression_keeps_the_diff_id() {
    let dir = tempfile::tempdir().unwrap();
    sample(dir.path());
    let (gzip, bytes) = pack(dir.path(), Vec::new(), &PackOptions::default()).unwrap();
    let (zstd, bytes) = recompress(&bytes[..], Vec::new(), Compression::ZSTD, false, 2).unwrap();
    assert_eq!(zstd.diff_id, gzip.diff_id);
    assert_eq!(zstd.media_type, "application/vnd.oci.image.layer.v1.tar+zstd");
    let (again, _) = recompress(&bytes[..], Vec::new(), Compression::GZIP, false, 2).unwrap();
    assert_eq!((again.digest, again.size), (gzip.digest, gzip.size));
}

#[test]
fn times_are_clamped_and_never_finer_than_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f");
    fs::write(&file, "x").unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 999);
    fs::File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_modified(time)
        .unwrap();
    let listed = |clamp_mtime| {
        let options = PackOptions {
            compression: Compression::Uncompressed,
            clamp_mtime,
            ..PackOptions::default()
        };
        tar(
            &["--full-time", "-tv", "-f", "-"],
            &pack(dir.path(), Vec::new(), &options).unwrap().1,
        )
    };
    assert!(listed(None).contains("2001-09-09 01:46:40 f"), "{}", listed(None));
    assert!(listed(Some(86_400)).contains("1970-01-02 00:00:00 f"));
    assert!(
        listed(Some(2_000_000_000)).contains("2001-09-09 01:46:40 f"),
        "only later times are clamped"
    );
}

#[test]
fn an_empty_directory_is_an_empty_archive() {
    let dir = tempfile::tempdir().unwrap();
    let (layer, _) = pack(dir.path(), Vec::new(), &PackOptions::default()).unwrap();
    assert_eq!(layer.entries, 0);
    assert_eq!(layer.uncompressed_size, 1024);
    // The diff id of two zero blocks, which every builder has for a step without changes.
    assert_eq!(
        layer.diff_id.to_string(),
        "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
    );
}

#[test]
fn a_sink_that_fails_ends_the_pack_with_its_own_error() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let dir = tempfile::tempdir().unwrap();
    sample(dir.path());
    for compression in [Compression::Uncompressed, Compression::GZIP, Compression::ZSTD] {
        let error = pack(
            dir.path(),
            Full,
            &PackOptions {
                compression,
                ..PackOptions::default()
            },
        )
        .map(|_| ())
        .unwrap_err();
        let Error::Sink(source) = error else {
            panic!("{error:?}")
        };
        assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
    }
}
