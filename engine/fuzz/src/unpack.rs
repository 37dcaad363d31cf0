//! Archives. Whatever they hold, nothing outside of the folder that they are unpacked into changes.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, symlink},
    path::{Path, PathBuf},
};

use slipway_layer::{Limits, Mode, UnmappedIds, UnpackOptions};

/// Unpacks an archive in the way that its first byte names, into a folder beside one that must stay as it is.
pub fn unpack(data: &[u8]) {
    let Some((way, archive)) = data.split_first() else {
        return;
    };
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    };
    let outer = tempfile::Builder::new()
        .prefix("slipway-fuzz-")
        .tempdir_in(place)
        .expect("a folder");
    let root = outer.path().join("root");
    fs::create_dir(&root).expect("a folder");
    fs::create_dir(outer.path().join("beside")).expect("a folder");
    fs::write(outer.path().join("beside/file"), "as it was").expect("a file");
    // What an earlier layer may have left: ways out.
    symlink("../beside", root.join("out")).expect("a link");
    symlink(outer.path().join("beside"), root.join("absolute")).expect("a link");
    fs::create_dir(root.join("dir")).expect("a folder");
    let before = picture(outer.path(), &root);
    let options = UnpackOptions {
        mode: if way & 1 == 0 { Mode::Overlay } else { Mode::Apply },
        whiteouts: way & 2 == 0,
        owner: (way & 4 != 0).then_some((1, 1)),
        unmapped_ids: UnmappedIds::Squash,
        limits: Limits {
            uncompressed: 1 << 20,
            entries: 200,
            ..Limits::default()
        },
        ..UnpackOptions::default()
    };
    let _ = slipway_layer::unpack(archive, &root, &options);
    assert_eq!(
        picture(outer.path(), &root),
        before,
        "something outside has changed"
    );
    // So that the folder can be removed whoever runs this.
    open_up(&root);
}

/// All that lies in a folder except below `root`: path, mode, owner, links to it, time, content.
fn picture(dir: &Path, root: &Path) -> Vec<(PathBuf, String, Vec<u8>)> {
    let mut all = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).expect("a folder") {
            let path = entry.expect("an entry").path();
            let meta = fs::symlink_metadata(&path).expect("an entry");
            if path == root {
                // Its own attributes are the archive's to set.
                continue;
            }
            let about = format!(
                "{:o} {}:{} {} {}.{}",
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.nlink(),
                meta.mtime(),
                meta.mtime_nsec()
            );
            let content = if meta.is_file() {
                fs::read(&path).expect("a file")
            } else {
                Vec::new()
            };
            if meta.is_dir() {
                todo.push(path.clone());
            }
            all.push((path, about, content));
        }
    }
    all.sort();
    all
}

/// Makes every folder below writable.
fn open_up(dir: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let _ = fs::set_permissions(dir, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}
