//! The files alone, without image: `type=tar` and `type=local`.

use super::Destination;
use crate::{
    error::{BuildError, Result},
    root::{Root, join, mount_at},
    store::Store,
};
use slipway_layer::{ExportOptions, Mode, UnpackOptions};
use std::{
    fs::{self, File},
    io,
    path::Path,
    sync::Arc,
};

/// Who owns the files of a local export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// Whoever runs the build, as BuildKit's client does.
    Caller,
    /// As in the image.
    Image,
}

/// Roots below one directory: a single one is the directory itself, several get one each by platform.
async fn with_tree<T: Send + 'static>(
    store: &Arc<Store>,
    roots: Vec<(String, Root)>,
    work: impl FnOnce(&Path) -> Result<T> + Send + 'static,
) -> Result<T> {
    for (_, root) in &roots {
        root.materialise(store, &crate::progress::Progress::quiet())
            .await?;
    }
    let store = store.clone();
    tokio::task::spawn_blocking(move || {
        let dir = store.temporary_dir("export")?;
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).map_err(|error| BuildError::io("prepare the export", error))?;
        let mut mounted = Vec::new();
        let single = roots.len() == 1;
        for (name, root) in roots {
            let target = if single { tree.clone() } else { tree.join(name) };
            fs::create_dir_all(&target).map_err(|error| BuildError::io("prepare the export", error))?;
            mounted.push(mount_at(&store, root.lower(&store), None, None, &target)?);
        }
        let result = work(&tree);
        while let Some(one) = mounted.pop() {
            one.unmount()?;
        }
        result
    })
    .await
    .map_err(join)?
}

/// Writes roots (name for a directory, root) as one tar.
pub async fn export_tar(
    store: &Arc<Store>,
    roots: Vec<(String, Root)>,
    clamp: Option<i64>,
    to: &Destination,
) -> Result<()> {
    let to = to.clone();
    with_tree(store, roots, move |tree| {
        let options = ExportOptions {
            clamp_mtime: clamp,
            ..ExportOptions::default()
        };
        let failed = |error| BuildError::io("write the tar", error);
        match &to {
            Destination::Stdout => slipway_layer::export_tar(tree, io::stdout(), &options).map(|_| ())?,
            Destination::Path(path) => {
                if let Some(parent) = path.parent() {
                    fs::create_dir_all(parent).map_err(failed)?;
                }
                let temporary = path.with_extension(format!("slipway-{}", std::process::id()));
                let file = io::BufWriter::with_capacity(1 << 20, File::create(&temporary).map_err(failed)?);
                let (_, file) = slipway_layer::export_tar(tree, file, &options)?;
                file.into_inner().map_err(|error| failed(error.into_error()))?;
                fs::rename(&temporary, path).map_err(failed)?;
            }
        }
        Ok(())
    })
    .await
}

/// Copies roots (name for a directory, root) into a directory, over what is there.
pub async fn export_directory(
    store: &Arc<Store>,
    roots: Vec<(String, Root)>,
    clamp: Option<i64>,
    owners: Owners,
    dest: &Path,
) -> Result<()> {
    let dest = dest.to_owned();
    with_tree(store, roots, move |tree| {
        fs::create_dir_all(&dest)
            .map_err(|error| BuildError::io(format!("create {}", dest.display()), error))?;
        let options = ExportOptions {
            clamp_mtime: clamp,
            ..ExportOptions::default()
        };
        let (reader, writer) = io::pipe().map_err(|error| BuildError::io("copy the files", error))?;
        let owner = match owners {
            Owners::Caller => Some((
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            )),
            Owners::Image => None,
        };
        let unpack = UnpackOptions {
            mode: Mode::Apply,
            owner,
            whiteouts: false,
            ..UnpackOptions::default()
        };
        std::thread::scope(|scope| {
            let export = scope.spawn(move || slipway_layer::export_tar(tree, writer, &options).map(|_| ()));
            let unpacked = slipway_layer::unpack(reader, &dest, &unpack);
            let exported = export.join().unwrap_or(Err(slipway_layer::Error::Worker));
            // A reader that stopped makes the writer fail too; the reader's reason is the cause.
            unpacked?;
            exported?;
            Ok(())
        })
    })
    .await
}
