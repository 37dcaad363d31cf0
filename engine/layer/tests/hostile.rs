//! Archives that mean harm.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "tests"
)]

mod common;

use std::{fs, path::Path};

use common::{Hostile, snapshot};
use slipway_layer::{Compression, Limits, Mode, UnpackOptions, recompress, unpack};

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn no_archive_writes_outside() {
    type Build = fn(Hostile) -> Hostile;
    let cases: &[(&str, Build, &[&str])] = &[
        ("absolute name", |a| a.file("/abs", "x"), &["/abs"]),
        (
            "dots upwards",
            |a| a.file("../../../up", "x").file("a/../../b", "x"),
            &["/b", "/up"],
        ),
        ("dots in the middle", |a| a.file("a/b/../c", "x"), &["/a", "/a/c"]),
        (
            "absolute link, then through it",
            |a| a.symlink("l", "/").file("l/in", "x"),
            &["/in", "/l"],
        ),
        (
            "relative link, then through it",
            |a| a.symlink("l", "../../../..").file("l/in", "x"),
            &["/in", "/l"],
        ),
        (
            "chain of links",
            |a| a.symlink("a", "b").symlink("b", "/etc").file("a/in", "x"),
            &["/a", "/b", "/etc", "/etc/in"],
        ),
        (
            "link in a link's target",
            |a| {
                a.dir("d")
                    .symlink("d/up", "../..")
                    .symlink("l", "d/up/OUT")
                    .file("l/in", "x")
            },
            &["/OUT", "/OUT/in", "/d", "/d/up", "/l"],
        ),
        (
            "file over a link",
            |a| a.symlink("l", "/OUTSIDE").file("l", "x"),
            &["/l"],
        ),
        (
            "directory over a link",
            |a| a.symlink("l", "/OUTSIDE").dir("l").file("l/in", "x"),
            &["/l", "/l/in"],
        ),
        (
            "hard link through a link",
            |a| a.file("f", "x").symlink("l", "/").hard_link("h", "l/f"),
            &["/f", "/h", "/l"],
        ),
        (
            "hard link upwards",
            |a| a.file("f", "x").hard_link("h", "../../f"),
            &["/f", "/h"],
        ),
        (
            "hard link to a link",
            |a| a.symlink("l", "/OUTSIDE").hard_link("h", "l"),
            &["/h", "/l"],
        ),
        (
            "write through a hard link to a link",
            |a| a.symlink("l", "/OUTSIDE").hard_link("h", "l").file("h", "x"),
            &["/h", "/l"],
        ),
        (
            "whiteout upwards",
            |a| a.file("f", "x").file("../../.wh.g", ""),
            &["/f"],
        ),
        (
            "whiteout through a link",
            |a| a.symlink("l", "/").dir("d").file("l/.wh.g", ""),
            &["/d", "/l"],
        ),
        (
            "opaque through a link",
            |a| a.dir("d").symlink("l", "/d").file("l/.wh..wh..opq", ""),
            &["/d", "/l"],
        ),
        (
            "parent replaced by a link",
            |a| a.file("a/b/f", "x").symlink("a", "/").file("a/b/g", "x"),
            &["/a", "/b", "/b/g"],
        ),
        (
            "the root again and again",
            |a| a.dir("./").dir("/").dir("..").file("./f", "x"),
            &["/f"],
        ),
    ];
    for (name, build, expected) in cases {
        for mode in [Mode::Apply, Mode::Overlay] {
            let dir = tempfile::tempdir().unwrap();
            let outside = dir.path().join("outside");
            let dest = dir.path().join("a/b/c/dest");
            fs::create_dir_all(&dest).unwrap();
            fs::create_dir(&outside).unwrap();
            fs::write(outside.join("g"), "precious").unwrap();
            let archive = build(Hostile::new()).0;
            let before = snapshot(dir.path(), false);
            let result = unpack(
                &archive[..],
                &dest,
                &UnpackOptions {
                    mode,
                    ..UnpackOptions::layer()
                },
            );
            result.unwrap_or_else(|error| panic!("{name}: {error}"));
            let mut after = snapshot(dir.path(), false);
            let inside: Vec<String> = after
                .keys()
                .filter_map(|path| {
                    path.strip_prefix("/a/b/c/dest")
                        .filter(|path| !path.is_empty())
                        .map(ToOwned::to_owned)
                })
                .collect();
            after.retain(|path, _| !path.starts_with("/a/b/c/dest"));
            let mut before = before;
            before.retain(|path, _| !path.starts_with("/a/b/c/dest"));
            assert_eq!(after, before, "{name}: outside");
            let whiteouts = ["/g"];
            let inside: Vec<&str> = inside
                .iter()
                .map(String::as_str)
                .filter(|path| !whiteouts.contains(path))
                .collect();
            assert_eq!(inside, *expected, "{name} in {mode:?}");
            assert!(!Path::new("/OUTSIDE").exists());
        }
    }
}

#[test]
fn what_cannot_be_placed_is_refused() {
    type Build = fn(Hostile) -> Hostile;
    let cases: &[(&str, Build, &str)] = &[
        (
            "through a file",
            |a| a.file("f", "x").file("f/in", "x"),
            "its parent is no directory",
        ),
        (
            "through a loop",
            |a| a.symlink("l", "l").file("l/in", "x"),
            "too many symbolic links",
        ),
        (
            "link to nothing",
            |a| a.hard_link("h", "nothing"),
            "which the layer does not hold",
        ),
        (
            "link to nothing below",
            |a| a.hard_link("h", "no/thing"),
            "which the layer does not hold",
        ),
        (
            "link to a directory",
            |a| a.dir("d").hard_link("h", "d"),
            "which is a directory",
        ),
        ("link to the root", |a| a.hard_link("h", "/"), "which is the root"),
        (
            "whiteout of nothing",
            |a| a.file(".wh.", ""),
            "must name an entry",
        ),
        (
            "whiteout of the parent",
            |a| a.file("d/.wh...", ""),
            "must name an entry",
        ),
    ];
    for (name, build, part) in cases {
        let dir = tempfile::tempdir().unwrap();
        let error = unpack(&build(Hostile::new()).0[..], dir.path(), &UnpackOptions::layer())
            .expect_err(name)
            .to_string();
        assert!(error.contains(part), "{name}: {error}");
    }
}

#[test]
fn overlay_marks_in_an_archive_do_not_reach_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let record = |key: &str, value: &str| {
        let rest = format!(" SCHILY.xattr.{key}={value}\n");
        let length = (1..9)
            .find(|digits| (rest.len() + digits).to_string().len() == *digits)
            .unwrap()
            + rest.len();
        format!("{length}{rest}")
    };
    let pax = record("user.overlay.redirect", "/etc")
        + &record("trusted.overlay.opaque", "y")
        + &record("user.mine", "1");
    let archive = Hostile::new().add("pax", b'x', "", pax.as_bytes()).dir("d").0;
    let unpacked = unpack(&archive[..], dir.path(), &UnpackOptions::layer()).unwrap();
    assert_eq!(unpacked.skipped_xattrs, 2);
    let mut names = vec![0; 1000];
    let n = rustix::fs::llistxattr(dir.path().join("d"), &mut names[..]).unwrap();
    assert_eq!(&names[..n], b"user.mine\0");
}

#[test]
fn limits_stop_a_bomb() {
    let dir = tempfile::tempdir().unwrap();
    let zeros = vec![0u8; 4 << 20];
    let archive = Hostile::new().add("big", b'0', "", &zeros).0;
    let (_, bomb) = recompress(&archive[..], Vec::new(), Compression::ZSTD, false, 1).unwrap();
    assert!(bomb.len() < 10_000);
    let limits = Limits {
        uncompressed: 1 << 20,
        ..Limits::default()
    };
    let error = unpack(
        &bomb[..],
        dir.path(),
        &UnpackOptions {
            limits,
            ..UnpackOptions::layer()
        },
    )
    .unwrap_err()
    .to_string();
    assert!(error.contains("1048576 are allowed"), "{error}");
    let many = (0..10)
        .fold(Hostile::new(), |archive, i| archive.file(&format!("f{i}"), ""))
        .0;
    let limits = Limits {
        entries: 5,
        ..Limits::default()
    };
    let error = unpack(
        &many[..],
        dir.path(),
        &UnpackOptions {
            limits,
            ..UnpackOptions::layer()
        },
    )
    .unwrap_err()
    .to_string();
    assert!(error.contains("more than 5 entries"), "{error}");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_spoiled_archive_is_refused_or_unpacked_inside(
        spoils in proptest::collection::vec((0usize..8192, proptest::prelude::any::<u8>()), 0..6),
        repair in proptest::prelude::any::<bool>(),
    ) {
        let mut archive = Hostile::new()
            .dir("d")
            .file("d/file", "content")
            .symlink("d/link", "../../outside")
            .file("d/link/in", "x")
            .hard_link("hard", "d/file")
            .file("d/.wh.gone", "")
            .add("pax", b'x', "", b"20 path=../../other\n")
            .file("named", "x")
            .add("sparse", b'S', "", b"data")
            .0;
        for (at, byte) in spoils {
            let at = at % archive.len();
            archive[at] = byte;
        }
        if repair {
            // Otherwise nearly every change would end at the checksum.
            for header in archive.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
                header[148..156].fill(b' ');
                let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
                header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("dest");
        fs::create_dir(&dest).unwrap();
        let limits = Limits { uncompressed: 1 << 26, ..Limits::default() };
        for mode in [Mode::Apply, Mode::Overlay] {
            let _ = unpack(&archive[..], &dest, &UnpackOptions { mode, limits, ..UnpackOptions::layer() });
        }
        let outside: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        proptest::prop_assert_eq!(outside, ["dest"]);
    }
}
