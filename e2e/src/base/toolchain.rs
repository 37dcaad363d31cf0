//! `node`, `golang` and `maven` as the examples name them: this machine's own toolchains, as one layer on the Debian base.
//! Made when a scenario first wants one, kept in the cache.
//!
//! | image | holds | from |
//! |---|---|---|
//! | `node:20` | `/usr/local/bin/{node,npm,npx}` | `node` and `npm` of `PATH` |
//! | `golang:1.26` | `/usr/local/go` | `go env GOROOT`, without tests and the sources of its own tools |
//! | `maven:3-eclipse-temurin-17` | `/opt/java`, `/usr/share/maven` | `javac` and `mvn` of `PATH` |
//!
//! The tags are those of the examples; the versions are this machine's.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::debian;
use crate::{
    command,
    config::cache_dir,
    oci::{self, Entries, Image},
    registry::Registry,
};

/// Raise it when what is below changes: it is part of the cached files' names.
const RECIPE: u32 = 2;
/// Links that lead from link to link are followed so often.
const LINKS: u8 = 40;

/// A toolchain that an example's base image holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Toolchain {
    /// Node.js and npm.
    Node,
    /// Go.
    Go,
    /// A JDK and Maven.
    Maven,
}

impl Toolchain {
    /// Repository and tag below Docker Hub's, as the examples write them.
    pub const fn name(self) -> (&'static str, &'static str) {
        match self {
            Self::Node => ("library/node", "20"),
            Self::Go => ("library/golang", "1.26"),
            Self::Maven => ("library/maven", "3-eclipse-temurin-17"),
        }
    }

    /// Pushes the image to a registry that stands in for Docker Hub; what is there is not sent again.
    pub async fn push(self, registry: &Registry) -> Result<()> {
        let (repository, tag) = self.name();
        registry.push(repository, tag, &self.image()?).await
    }

    /// The image, from the cache or made now.
    pub fn image(self) -> Result<Image> {
        let version = self.version()?;
        let (repository, _) = self.name();
        let name = repository.trim_start_matches("library/");
        let base = debian()?;
        let key = oci::digest(format!("{RECIPE} {version} {}", base.digest()).as_bytes());
        let short = key.trim_start_matches("sha256:").get(..12).unwrap_or_default();
        let file = cache_dir()?.join(format!("base/{name}-{short}.tar"));
        if !file.exists() {
            let (entries, config) = self.make()?;
            let image = Image::on(&base, &entries.tar()?, &config, &format!("{name}: {version}"))?;
            oci::write_archive(&file, &[(&format!("docker.io/{repository}:made"), &image)])?;
        }
        let (_, image) = oci::read_archive(&file)?
            .into_iter()
            .next()
            .context("the archive holds one image")?;
        Ok(image)
    }

    fn version(self) -> Result<String> {
        let version = match self {
            Self::Node => {
                let npm = command::output(program("npm")?, &["--version"])?;
                format!("{} {npm}", command::output(program("node")?, &["--version"])?)
            }
            Self::Go => command::output(program("go")?, &["version"])?,
            Self::Maven => format!(
                "{} {}",
                command::output(program("javac")?, &["--version"])?,
                command::output(program("mvn")?, &["--version"])?
            ),
        };
        Ok(version.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    fn make(self) -> Result<(Entries, Value)> {
        let mut entries = Entries::default();
        let path =
            |first: &str| format!("PATH={first}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        let config = match self {
            Self::Node => {
                copy(&mut entries, &real("node")?, "usr/local/bin/node", &|_| true)?;
                let npm = above(&real("npm")?, 2)?;
                copy(&mut entries, &npm, "usr/local/lib/node_modules/npm", &|path| {
                    !starts_with(path, &["docs", "man"])
                })?;
                for tool in ["npm", "npx"] {
                    entries.link(
                        &format!("usr/local/bin/{tool}"),
                        &format!("../lib/node_modules/npm/bin/{tool}-cli.js"),
                    );
                }
                json!({"Env": [path("")], "Cmd": ["node"]})
            }
            Self::Go => {
                let root = command::output(program("go")?, &["env", "GOROOT"])?;
                copy(
                    &mut entries,
                    Path::new(root.trim()),
                    "usr/local/go",
                    &is_needed_of_go,
                )?;
                // No toolchain and no telemetry from elsewhere.
                json!({
                    "Env": [path("/usr/local/go/bin:/go/bin:"), "GOPATH=/go", "GOTOOLCHAIN=local", "GOTELEMETRY=off"],
                    "Cmd": ["bash"], "WorkingDir": "/go",
                })
            }
            Self::Maven => {
                let jdk = above(&real("javac")?, 2)?;
                copy(&mut entries, &jdk, "opt/java", &|path| {
                    !starts_with(path, &["jmods", "man", "docs", "lib/src.zip", "include"])
                })?;
                let maven = maven_home()?;
                copy(&mut entries, &maven, "usr/share/maven", &|path| {
                    !starts_with(path, &["man", "repository"])
                })?;
                entries.link("usr/bin/mvn", "../share/maven/bin/mvn");
                json!({
                    "Env": [path("/opt/java/bin:"), "JAVA_HOME=/opt/java", "MAVEN_HOME=/usr/share/maven"],
                    "Cmd": ["mvn"],
                })
            }
        };
        Ok((entries, config))
    }
}

/// What compiling a program takes.
fn is_needed_of_go(path: &Path) -> bool {
    if path.as_os_str().is_empty() {
        return true;
    }
    let is_test = path.to_string_lossy().ends_with("_test.go");
    let is_data = path.components().any(|part| part.as_os_str() == "testdata");
    let tool = path.strip_prefix("pkg/tool").ok().and_then(Path::file_name);
    let is_other_tool = tool.is_some_and(|name| {
        let name = name.to_string_lossy();
        !["compile", "link", "asm", "buildid"].contains(&name.as_ref()) && !name.contains('_')
    });
    let parts = ["bin", "pkg", "src", "lib", "VERSION", "go.env", "LICENSE"];
    starts_with(path, &parts) && !starts_with(path, &["src/cmd"]) && !is_test && !is_data && !is_other_tool
}

fn starts_with(path: &Path, folders: &[&str]) -> bool {
    folders.iter().any(|folder| path.starts_with(folder))
}

/// Maven's folder, as it says itself.
fn maven_home() -> Result<PathBuf> {
    let told = command::output(program("mvn")?, &["--version"])?;
    let home = told
        .lines()
        .find_map(|line| line.strip_prefix("Maven home: "))
        .context("mvn --version does not tell its home")?;
    Ok(PathBuf::from(home.trim()))
}

fn program(name: &str) -> Result<PathBuf> {
    command::find(name).with_context(|| {
        format!("{name} is missing: the examples' base images are made of this machine's toolchains")
    })
}

fn real(name: &str) -> Result<PathBuf> {
    let file = program(name)?;
    fs::canonicalize(&file).with_context(|| format!("failed to follow {}", file.display()))
}

fn above(path: &Path, levels: usize) -> Result<PathBuf> {
    let found = path.ancestors().nth(levels);
    Ok(found
        .with_context(|| format!("{} is not where a toolchain has it", path.display()))?
        .to_owned())
}

/// Copies a file or all of a folder, by `wanted` of paths below it. Links are followed, since distributions link to all
/// over the system; one that leads nowhere is left out.
fn copy(entries: &mut Entries, from: &Path, to: &str, wanted: &dyn Fn(&Path) -> bool) -> Result<()> {
    copy_below(entries, from, Path::new(""), to, wanted, LINKS)
}

fn copy_below(
    entries: &mut Entries,
    root: &Path,
    below: &Path,
    to: &str,
    wanted: &dyn Fn(&Path) -> bool,
    links: u8,
) -> Result<()> {
    // A path joined with nothing gets a slash at its end, and no file has one.
    let path = if below.as_os_str().is_empty() {
        root.to_owned()
    } else {
        root.join(below)
    };
    if !wanted(below) {
        return Ok(());
    }
    let Ok(metadata) = fs::metadata(&path) else {
        return Ok(());
    };
    let is_link = fs::symlink_metadata(&path).is_ok_and(|link| link.is_symlink());
    let Some(links) = links.checked_sub(is_link.into()) else {
        return Ok(());
    };
    let target = if below.as_os_str().is_empty() {
        to.to_owned()
    } else {
        format!("{to}/{}", below.display())
    };
    let mode = metadata.permissions().mode() & 0o755;
    if metadata.is_dir() {
        entries.folder(&target, mode);
        let all = fs::read_dir(&path).with_context(|| format!("failed to read {}", path.display()))?;
        for entry in all {
            copy_below(entries, root, &below.join(entry?.file_name()), to, wanted, links)?;
        }
    } else {
        let bytes = fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
        entries.file(&target, mode, bytes);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_and_what_is_not_wanted_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let (root, elsewhere) = (dir.path().join("root"), dir.path().join("elsewhere"));
        fs::create_dir_all(root.join("doc")).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        fs::write(root.join("doc/x"), "x").unwrap();
        fs::write(elsewhere.join("conf"), "c").unwrap();
        std::os::unix::fs::symlink(&elsewhere, root.join("etc")).unwrap();
        std::os::unix::fs::symlink("nowhere", root.join("gone")).unwrap();
        std::os::unix::fs::symlink(".", root.join("self")).unwrap();
        let mut entries = Entries::default();
        let wanted = |path: &Path| !starts_with(path, &["doc", "self/self"]);
        copy(&mut entries, &root, "opt/tool", &wanted).unwrap();
        let tar = entries.tar().unwrap();
        let paths: Vec<String> = tar::Archive::new(tar.as_slice())
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert!(paths.contains(&"opt/tool/etc/conf".into()), "{paths:?}");
        assert!(
            !paths
                .iter()
                .any(|path| path.starts_with("opt/tool/doc") || path.contains("gone"))
        );
    }

    #[test]
    fn a_single_file_is_copied_too() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("node"), "program").unwrap();
        let mut entries = Entries::default();
        copy(
            &mut entries,
            &dir.path().join("node"),
            "usr/local/bin/node",
            &|_| true,
        )
        .unwrap();
        let tar = entries.tar().unwrap();
        let found = tar::Archive::new(tar.as_slice())
            .entries()
            .unwrap()
            .any(|entry| entry.unwrap().path().unwrap().ends_with("bin/node"));
        assert!(found);
    }

    #[test]
    fn go_keeps_what_compiles_and_nothing_of_its_tests() {
        for (path, needed) in [
            ("bin/go", true),
            ("src/fmt/print.go", true),
            ("src/fmt/print_test.go", false),
            ("src/cmd/go/main.go", false),
            ("src/image/testdata/a.png", false),
            ("pkg/tool/linux_amd64", true),
            ("pkg/tool/linux_amd64/compile", true),
            ("pkg/tool/linux_amd64/cover", false),
            ("pkg/include/textflag.h", true),
            ("test/a.go", false),
        ] {
            assert_eq!(is_needed_of_go(Path::new(path)), needed, "{path}");
        }
    }
}
