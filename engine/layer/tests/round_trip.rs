//! Random trees and random changes: what is packed and unpacked must be what was there.

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
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use common::{root, snapshot};
use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode as Bits, XattrFlags, lsetxattr, mknodat};
use slipway_layer::{
    Compression, ExportOptions, Lower, Mode, PackOptions, UnpackOptions, export_dir, pack, unpack,
};
use slipway_sandbox::{Overlay, OverlaySpec};

/// One change to a tree. Paths are few, so that changes meet.
#[derive(Debug, Clone)]
enum Change {
    Write(String, Vec<u8>, u32),
    Mkdir(String, u32),
    Link(String, String),
    HardLink(String, String),
    Fifo(String),
    Remove(String),
    Rename(String, String),
    Chown(String, u32),
    Attribute(String, u8),
    Touch(String, u32),
}

fn path() -> impl Strategy<Value = String> {
    let name =
        prop_oneof!["a", "b", "c", "d", "e-\u{e4}", "name with blanks", "n{120}"].prop_map(|name| name);
    prop::collection::vec(name, 1..4).prop_map(|names| names.join("/"))
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (path(), prop::collection::vec(any::<u8>(), 0..3000), 0u32..0o10000).prop_map(|(path, data, mode)| Change::Write(path, data, mode)),
        4 => (path(), 0u32..0o2000).prop_map(|(path, mode)| Change::Mkdir(path, mode)),
        1 => (path(), path()).prop_map(|(path, to)| Change::Link(path, to)),
        1 => (path(), path()).prop_map(|(path, to)| Change::HardLink(path, to)),
        1 => path().prop_map(Change::Fifo),
        3 => path().prop_map(Change::Remove),
        2 => (path(), path()).prop_map(|(from, to)| Change::Rename(from, to)),
        1 => (path(), 0u32..5_000_000).prop_map(|(path, id)| Change::Chown(path, id)),
        1 => (path(), any::<u8>()).prop_map(|(path, value)| Change::Attribute(path, value)),
        1 => (path(), any::<u32>()).prop_map(|(path, time)| Change::Touch(path, time)),
    ]
}

/// Makes a change; one that the tree does not allow is left out.
fn make(root: &Path, change: &Change) {
    let at = |path: &str| root.join(path);
    let _ = match change {
        Change::Write(path, data, mode) => {
            let path = at(path);
            // Not through a link, which may lead anywhere, nor into a fifo, which waits for a reader.
            if path.is_symlink() || (path.exists() && !path.is_file()) || !plain_way(root, &path) {
                return;
            }
            fs::write(&path, data)
                .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(*mode)))
        }
        _ if !ways(root, change) => return,
        Change::Mkdir(path, mode) => fs::create_dir_all(at(path))
            .and_then(|()| fs::set_permissions(at(path), fs::Permissions::from_mode(mode | 0o700))),
        Change::Link(path, to) => symlink(to, at(path)),
        Change::HardLink(path, to) => fs::hard_link(at(to), at(path)),
        Change::Fifo(path) => {
            mknodat(CWD, at(path), FileType::Fifo, Bits::from(0o640), 0).map_err(std::io::Error::from)
        }
        Change::Remove(path) => fs::remove_file(at(path)).or_else(|_| fs::remove_dir_all(at(path))),
        // The shell's `mv`, because renaming a lower directory is refused by the kernel (EXDEV) without redirects.
        Change::Rename(from, to) => fs::rename(at(from), at(to)),
        Change::Chown(path, id) if crate::root() => {
            std::os::unix::fs::lchown(at(path), Some(*id), Some(id / 2))
        }
        Change::Attribute(path, value) if !at(path).is_symlink() => {
            lsetxattr(at(path), "user.note", &[*value], XattrFlags::empty()).map_err(std::io::Error::from)
        }
        Change::Touch(path, time) if at(path).is_file() && !at(path).is_symlink() => {
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs((*time).into());
            fs::File::options()
                .append(true)
                .open(at(path))
                .and_then(|file| file.set_modified(time))
        }
        Change::Chown(..) | Change::Attribute(..) | Change::Touch(..) => Ok(()),
    };
}

fn ways(root: &Path, change: &Change) -> bool {
    match change {
        Change::HardLink(a, b) | Change::Rename(a, b) => {
            plain_way(root, &root.join(a)) && plain_way(root, &root.join(b))
        }
        Change::Write(path, ..)
        | Change::Link(path, _)
        | Change::Mkdir(path, _)
        | Change::Fifo(path)
        | Change::Remove(path)
        | Change::Chown(path, _)
        | Change::Attribute(path, _)
        | Change::Touch(path, _) => plain_way(root, &root.join(path)),
    }
}

/// No link on the way to the path.
fn plain_way(root: &Path, path: &Path) -> bool {
    path.ancestors()
        .skip(1)
        .take_while(|parent| *parent != root)
        .all(|parent| !parent.is_symlink())
}

fn fresh(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    fs::create_dir(&path).unwrap();
    path
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_tree_comes_back_from_its_layer(changes in prop::collection::vec(change(), 0..40)) {
        let dir = tempfile::tempdir().unwrap();
        let (tree, back, again) = (fresh(dir.path(), "tree"), fresh(dir.path(), "back"), fresh(dir.path(), "again"));
        for change in &changes {
            make(&tree, change);
        }
        let options = PackOptions { compression: Compression::Zstd(1), lower: Lower::Empty, ..PackOptions::default() };
        let (layer, bytes) = pack(&tree, Vec::new(), &options).unwrap();
        let promised = UnpackOptions {
            digest: Some(layer.digest.clone()),
            diff_id: Some(layer.diff_id.clone()),
            ..UnpackOptions::layer()
        };
        let unpacked = unpack(&bytes[..], &back, &promised).unwrap();
        prop_assert_eq!(unpacked.entries, layer.entries);
        prop_assert_eq!(unpacked.implied_parents, Vec::<PathBuf>::new());
        prop_assert_eq!(snapshot(&back, true), snapshot(&tree, true));
        let (second, _) = pack(&back, Vec::new(), &options).unwrap();
        prop_assert_eq!(second, layer, "and its layer is the same");
        export_dir(&tree, &again, &ExportOptions::default()).unwrap();
        prop_assert_eq!(snapshot(&again, true), snapshot(&tree, true));
    }
}

/// The overlay's own account of changes, as the kernel writes it, against every way of packing and unpacking it.
#[test]
fn changes_on_a_real_overlay_survive_every_way_there_and_back() {
    if !root() {
        println!("skipped: mounting needs root (the sandbox's tests do this as an ordinary user)");
        return;
    }
    // In mounts of its own, which end with the thread even if the test is killed.
    let outcome = std::thread::spawn(|| {
        use rustix::{mount::MountPropagationFlags, thread::UnshareFlags};
        #[allow(
            deprecated,
            reason = "its replacement is unsafe for the sake of a flag that is not used here"
        )]
        rustix::thread::unshare(UnshareFlags::NEWNS | UnshareFlags::FS).unwrap();
        rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .unwrap();
        let config = ProptestConfig {
            cases: 40,
            failure_persistence: None,
            ..ProptestConfig::default()
        };
        let changes = || prop::collection::vec(change(), 0..25);
        let run = proptest::test_runner::TestRunner::new(config).run(
            &(changes(), changes(), changes()),
            |(base, first, second)| {
                overlay_round_trip(&base, &first, &second);
                Ok(())
            },
        );
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        assert!(!mounts.contains("slipway-round-trip"), "no mount is left");
        run
    })
    .join()
    .unwrap();
    outcome.unwrap();
}

fn overlay_round_trip(base: &[Change], first: &[Change], second: &[Change]) {
    let dir = tempfile::Builder::new()
        .prefix("slipway-round-trip-")
        .tempdir()
        .unwrap();
    let bottom = fresh(dir.path(), "bottom");
    for change in base {
        make(&bottom, change);
    }
    // Two layers on top of each other, each by the kernel.
    let mut lower = vec![bottom.clone()];
    let applied = dir.path().join("applied");
    fs::create_dir(&applied).unwrap();
    export_dir(&bottom, &applied, &ExportOptions::default()).unwrap();
    let mut unpacked_stack = vec![bottom];
    for (i, changes) in [first, second].into_iter().enumerate() {
        let name = |what: &str| format!("{what}-{i}");
        let upper = fresh(dir.path(), &name("upper"));
        let target = fresh(dir.path(), &name("merged"));
        let spec = OverlaySpec {
            lower: lower.clone(),
            upper: Some(upper.clone()),
            work: Some(fresh(dir.path(), &name("work"))),
            target: target.clone(),
        };
        let overlay = Overlay::mount(&spec).unwrap();
        for change in changes {
            make(&target, change);
        }
        let expected = snapshot(&target, false);
        overlay.unmount().unwrap();

        let below = Overlay::mount(&OverlaySpec {
            lower: lower.clone(),
            target: target.clone(),
            ..OverlaySpec::default()
        })
        .unwrap();
        let options = |lower| PackOptions {
            compression: Compression::Uncompressed,
            lower,
            ..PackOptions::default()
        };
        let (layer, exact) = pack(&upper, Vec::new(), &options(Lower::Merged(&target))).unwrap();
        let (by_stack, _) = pack(&upper, Vec::new(), &options(Lower::Stack(&lower))).unwrap();
        assert_eq!(by_stack, layer, "the merged view by hand is the kernel's");
        below.unmount().unwrap();
        let (_, whole) = pack(&upper, Vec::new(), &options(Lower::Unknown)).unwrap();

        for (way, bytes) in [("exact", &exact), ("whole", &whole)] {
            let layer_dir = fresh(dir.path(), &name(way));
            unpack(&bytes[..], &layer_dir, &UnpackOptions::layer()).unwrap();
            let mut stack = vec![layer_dir];
            stack.extend(unpacked_stack.iter().cloned());
            let spec = OverlaySpec {
                lower: stack,
                target: target.clone(),
                ..OverlaySpec::default()
            };
            let merged = Overlay::mount(&spec).unwrap();
            assert_eq!(
                without_links(snapshot(&target, false)),
                without_links(expected.clone()),
                "{way}, layer {i}, by overlay"
            );
            merged.unmount().unwrap();
        }
        unpack(
            &exact[..],
            &applied,
            &UnpackOptions {
                mode: Mode::Apply,
                ..UnpackOptions::layer()
            },
        )
        .unwrap();
        assert_eq!(
            without_links(snapshot(&applied, false)),
            without_links(expected),
            "layer {i}, applied"
        );
        unpacked_stack.insert(0, dir.path().join(name("exact")));
        lower.insert(0, upper);
    }
}

/// An overlay breaks hard links of lower files when one of the names is changed; each way does so at its own moment.
fn without_links(
    mut tree: std::collections::BTreeMap<String, common::Node>,
) -> std::collections::BTreeMap<String, common::Node> {
    for node in tree.values_mut() {
        node.same_as = None;
    }
    tree
}
