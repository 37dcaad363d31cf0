//! Local builds of files alone: every output, every way to give a context, and what is told without building.

use serde_json::Value;
use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

struct Local {
    dir: tempfile::TempDir,
}

impl Local {
    fn new() -> Self {
        let local = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        local.write("ctx/Dockerfile", "# check=skip=all\nFROM scratch AS one\nCOPY a /one\nFROM scratch AS two\nARG WHO=you\nCOPY . /\n");
        local.write("ctx/.dockerignore", "skipped\n");
        local.write("ctx/a", "content");
        local.write("ctx/skipped", "not to be seen");
        local
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slipway"));
        command
            .arg("build")
            .arg("--local")
            .args(arguments)
            .current_dir(self.dir.path())
            .env("SLIPWAY_STORE", self.path("store"))
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn build(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    fn build_of(&self, input: &[u8], arguments: &[&str]) -> Output {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    }

    /// Names in a tar, by the system's own program.
    fn names(tar: &Path) -> Vec<String> {
        let output = Command::new("tar").arg("-tf").arg(tar).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .map(|name| name.trim_start_matches("./").to_owned())
            .collect()
    }
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn every_output_holds_the_image_or_its_files() {
    let local = Local::new();
    local.build(&["ctx", "--output", "type=local,dest=out"]);
    assert_eq!(fs::read_to_string(local.path("out/a")).unwrap(), "content");
    assert!(!local.path("out/skipped").exists());
    local.build(&["ctx", "--output", "type=tar,dest=files.tar"]);
    let names = Local::names(&local.path("files.tar"));
    assert!(
        names.contains(&"a".to_owned()) && !names.contains(&"skipped".to_owned()),
        "{names:?}"
    );
    local.build(&["ctx", "--output", "type=docker,dest=docker.tar,name=shop/web:1"]);
    let names = Local::names(&local.path("docker.tar"));
    assert!(names.contains(&"manifest.json".to_owned()), "{names:?}");
    local.build(&["ctx", "--output", "type=oci,dest=oci.tar", "--tag", "shop:1"]);
    assert!(Local::names(&local.path("oci.tar")).contains(&"index.json".to_owned()));
    // On standard output too.
    let output = local.run(&["ctx", "--output", "-"]);
    fs::write(local.path("stdout.tar"), output.stdout).unwrap();
    assert!(Local::names(&local.path("stdout.tar")).contains(&"a".to_owned()));
}

#[test]
fn layers_are_packed_as_asked() {
    let local = Local::new();
    for (compression, ending) in [
        ("zstd", "tar+zstd"),
        ("gzip", "tar+gzip"),
        ("uncompressed", "tar"),
    ] {
        let dest = format!("layout-{compression}");
        let spec = format!("type=oci,tar=false,dest={dest},compression={compression},force-compression=true");
        local.build(&["ctx", "--output", &spec]);
        let blob = |digest: &Value| {
            let name = digest.as_str().unwrap().replace(':', "/");
            json(&local.path(&format!("{dest}/blobs/{name}")))
        };
        let manifest = blob(&json(&local.path(&format!("{dest}/index.json")))["manifests"][0]["digest"]);
        let kind = manifest["layers"][0]["mediaType"].as_str().unwrap();
        assert!(kind.ends_with(ending), "{compression}: {kind}");
    }
}

#[test]
fn the_files_that_scripts_read_are_written() {
    let local = Local::new();
    let image = [
        "ctx",
        "--quiet",
        "--tag",
        "shop:1",
        "--output",
        "type=image,rewrite-timestamp=true",
    ];
    let files = ["--iidfile", "iid", "--metadata-file", "meta"];
    let printed = local.build(&[&image[..], &files].concat());
    let id = fs::read_to_string(local.path("iid")).unwrap();
    assert_eq!(printed.trim(), id);
    let metadata = json(&local.path("meta"));
    assert_eq!(metadata["containerimage.config.digest"], id);
    assert_eq!(metadata["image.name"], "docker.io/library/shop:1");
    // The same input, the same image.
    let again = Local::new();
    assert_eq!(again.build(&image).trim(), id);
}

#[test]
fn a_context_may_come_on_standard_input() {
    let local = Local::new();
    for flags in ["-cf", "-czf"] {
        let tar = Command::new("tar")
            .args(["-C", "ctx", flags, "-", "."])
            .current_dir(local.dir.path())
            .output()
            .unwrap();
        let output = local.build_of(&tar.stdout, &["-", "--output", "type=local,dest=from-tar"]);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(local.path("from-tar/a").exists() && !local.path("from-tar/skipped").exists());
        fs::remove_dir_all(local.path("from-tar")).unwrap();
    }
    let output = local.build_of(
        b"FROM scratch\nCOPY a /b\n",
        &["ctx", "--file", "-", "--output", "type=local,dest=from-file"],
    );
    assert!(output.status.success() && local.path("from-file/b").exists());
    let output = local.build_of(
        b"FROM scratch\nCOPY <<E /c\nhere\nE\n",
        &["-", "--output", "type=local,dest=alone"],
    );
    assert!(output.status.success() && local.path("alone/c").exists());
}

#[test]
fn a_dockerfile_is_told_about_without_building() {
    let local = Local::new();
    let targets = local.build(&["ctx", "--call", "targets"]);
    assert!(
        targets.contains("one") && targets.contains("two (default)"),
        "{targets}"
    );
    let outline = local.build(&["ctx", "--call", "outline,format=json"]);
    assert_eq!(
        serde_json::from_str::<Value>(&outline).unwrap()["args"][0]["name"],
        "WHO"
    );
    assert!(local.build(&["ctx", "--check"]).contains("no warnings"));
    local.write("bad/Dockerfile", "from scratch AS Upper\nCOPY x /\n");
    for arguments in [&["bad", "--check"][..], &["bad", "--call", "lint"]] {
        let output = local.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("StageNameCasing"));
    }
}

#[test]
fn a_wrong_command_line_is_told_from_a_failed_build() {
    let local = Local::new();
    assert_eq!(local.run(&["ctx", "--call", "nothing"]).status.code(), Some(2));
    assert_eq!(
        local.run(&["ctx", "--output", "type=nothing"]).status.code(),
        Some(2)
    );
    assert_eq!(local.run(&["ctx", "--secret", "src=x"]).status.code(), Some(2));
    local.write("ctx/Dockerfile", "FROM scratch\nCOPY absent /\n");
    let failed = local.run(&["ctx"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("absent"));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let local = Local::new();
    let command = "slipway build --local ctx --call outline,format=json | true";
    let path = Path::new(env!("CARGO_BIN_EXE_slipway")).parent().unwrap();
    let output = Command::new("sh")
        .args(["-c", command])
        .current_dir(local.dir.path())
        .env(
            "PATH",
            format!("{}:{}", path.display(), std::env::var("PATH").unwrap_or_default()),
        )
        .env("SLIPWAY_STORE", local.path("store"))
        .output()
        .unwrap();
    assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"));
}
