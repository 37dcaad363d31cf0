//! The source's files as a plain directory.
//!
//! The kubelet lays a ConfigMap volume out with links: `Dockerfile -> ..data/Dockerfile`, `..data -> ..2026_11_25_…`. A
//! build context must show none of that, so the files are copied out of it, the links followed one level, the names that
//! begin with `..` left behind.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// A source that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("failed to read the source at {path}: {source}")]
pub(crate) struct SourceError {
    path: PathBuf,
    source: io::Error,
}

/// Copies the files of the volume at `from` to the new directory `to`.
///
/// A ConfigMap holds at most 1 MiB, so copying costs nothing that matters.
pub(crate) fn materialise(from: &Path, to: &Path) -> Result<(), SourceError> {
    create_dir(to)?;
    for entry in read_dir(from)? {
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b"..") {
            continue;
        }
        copy(&entry.path(), &to.join(name))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<(), SourceError> {
    // Follows links: in a projected volume each visible name is one.
    let metadata = fs::metadata(from).map_err(at(from))?;
    if metadata.is_dir() {
        create_dir(to)?;
        for entry in read_dir(from)? {
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    fs::copy(from, to).map_err(at(from))?;
    // The volume's own mode bits carry the Secret's or ConfigMap's `defaultMode`; writing is not among what a
    // context's file may lose.
    let mode = metadata.permissions().mode() & 0o777 | 0o200;
    fs::set_permissions(to, fs::Permissions::from_mode(mode)).map_err(at(to))
}

fn create_dir(path: &Path) -> Result<(), SourceError> {
    fs::create_dir_all(path).map_err(at(path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(at(path))
}

fn read_dir(path: &Path) -> Result<Vec<fs::DirEntry>, SourceError> {
    fs::read_dir(path).and_then(Iterator::collect).map_err(at(path))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> SourceError {
    let path = path.to_owned();
    move |source| SourceError { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// The layout that the kubelet's atomic writer makes.
    fn volume(root: &Path) {
        fs::create_dir_all(root.join("..2026/sub")).unwrap();
        fs::write(root.join("..2026/Dockerfile"), "FROM scratch\n").unwrap();
        fs::write(root.join("..2026/sub/file"), "text").unwrap();
        symlink("..2026", root.join("..data")).unwrap();
        symlink("..data/Dockerfile", root.join("Dockerfile")).unwrap();
        symlink("..data/sub", root.join("sub")).unwrap();
    }

    #[test]
    fn the_links_of_a_volume_become_files() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("volume"), dir.path().join("context"));
        volume(&from);
        materialise(&from, &to).unwrap();
        let mut names: Vec<_> = fs::read_dir(&to)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["Dockerfile", "sub"]);
        assert!(fs::symlink_metadata(to.join("Dockerfile")).unwrap().is_file());
        assert_eq!(fs::read_to_string(to.join("sub/file")).unwrap(), "text");
    }

    #[test]
    fn a_missing_volume_is_told_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let error = materialise(&dir.path().join("absent"), &dir.path().join("to")).unwrap_err();
        assert!(error.to_string().contains("/absent"), "{error}");
    }
}
