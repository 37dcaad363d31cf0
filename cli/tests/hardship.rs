//! Builds to which something bad happens: killed, no room, a store that cannot be written, a registry that goes away.
//! The error is clear, nothing is half-published, and the next build is well.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "tests"
)]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount},
    process::{Pid, Signal, geteuid, kill_process},
};

const BUSYBOX: &str = "/usr/bin/busybox";

/// A context with a shell, or `None` (and a line that says so) where this machine cannot run the test.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new(test: &str, needs_root: bool) -> Option<Self> {
        if !Path::new(BUSYBOX).exists() {
            println!("skipped {test}: needs Debian's busybox-static");
            return None;
        }
        if needs_root && !geteuid().is_root() {
            println!("skipped {test}: needs root, to mount a small file system");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("context")).unwrap();
        fs::copy(BUSYBOX, dir.path().join("context/busybox")).unwrap();
        Some(Self { dir })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn dockerfile(&self, steps: &str) {
        let text = format!("FROM scratch\nCOPY busybox /bin/sh\n{steps}");
        fs::write(self.at("context/Dockerfile"), text).unwrap();
    }

    /// `slipway build --local` in this place, with a store below it.
    fn command(&self, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slipway"));
        command
            .args(["build", "--local", "--progress=plain", "--store"])
            .arg(self.at("store"))
            .args(more)
            .arg(self.at("context"))
            .env("HOME", self.dir.path())
            .env("DOCKER_CONFIG", self.at("docker"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn build(&self, more: &[&str]) -> (bool, String) {
        let Output { status, stderr, .. } = self.command(more).output().unwrap();
        (status.success(), String::from_utf8_lossy(&stderr).into_owned())
    }

    /// A layout as output: it has no index until it is whole.
    fn layout(&self) -> String {
        format!("type=oci,tar=false,dest={}", self.at("out").display())
    }
}

/// Waits for a condition, and gives whether it came.
#[allow(
    clippy::disallowed_methods,
    reason = "no event tells of what other processes do"
)]
fn comes(mut condition: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_mins(1) {
        if condition() {
            return true;
        }
        thread::sleep(Duration::from_millis(20));
    }
    false
}

/// Processes whose command line has this word.
fn processes_with(word: &str) -> usize {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .filter(|line| line.split(|byte| *byte == 0).any(|part| part == word.as_bytes()))
        .count()
}

/// Mounts below a folder, as this process sees them.
fn mounts_below(dir: &Path) -> usize {
    let dir = dir.display().to_string();
    fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .lines()
        .filter(|line| {
            line.split(' ')
                .nth(4)
                .is_some_and(|point| point.starts_with(&dir))
        })
        .count()
}

/// Starts a build whose step sleeps, ends it in the middle, and looks at what is left.
fn ended_by(signal: Signal, seconds: &str) {
    let Some(place) = Place::new("a_build_that_is_ended", false) else {
        return;
    };
    place.dockerfile(&format!(
        "RUN echo begun > /f; sleep {seconds} & sleep {seconds}\n"
    ));
    let mut build: Child = place.command(&["--output", &place.layout()]).spawn().unwrap();
    // Read, so that a full pipe does not stop it.
    let mut log = build.stderr.take().unwrap();
    let reader = thread::spawn(move || {
        let mut text = String::new();
        let _ = log.read_to_string(&mut text);
        text
    });
    let begun = comes(|| processes_with(seconds) >= 2);
    if !begun {
        let _ = build.kill();
        panic!("the step does not begin: {}", reader.join().unwrap());
    }
    kill_process(Pid::from_raw(build.id().cast_signed()).unwrap(), signal).unwrap();
    let status = build.wait().unwrap();
    assert!(!status.success(), "{status}");
    assert!(comes(|| processes_with(seconds) == 0), "the step is still there");
    assert_eq!(mounts_below(place.dir.path()), 0);
    assert!(!place.at("out/index.json").exists(), "half of a result");
    drop(reader.join());
    // No lock is left: a build with the same store and the same first step ends well.
    place.dockerfile("RUN echo whole > /f\n");
    let (success, log) = place.build(&["--output", &place.layout()]);
    assert!(success, "{log}");
    assert!(place.at("out/index.json").exists());
}

#[test]
fn a_killed_build_leaves_no_process_mount_or_lock() {
    ended_by(Signal::KILL, "98761.25");
}

#[test]
fn an_interrupted_build_leaves_no_process_mount_or_lock() {
    ended_by(Signal::INT, "98762.25");
    ended_by(Signal::TERM, "98763.25");
}

/// A small file system that goes when dropped.
struct Small(PathBuf);

impl Small {
    fn on(path: PathBuf, options: &std::ffi::CStr) -> Self {
        fs::create_dir_all(&path).unwrap();
        mount("small", &path, "tmpfs", MountFlags::empty(), Some(options)).unwrap();
        Self(path)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[test]
fn a_full_disk_is_told_and_nothing_is_published() {
    let Some(place) = Place::new("a_full_disk", true) else {
        return;
    };
    let _small = Small::on(place.at("store"), c"size=12m");
    place.dockerfile("RUN head -c 30000000 /dev/zero > /big\n");
    let (success, log) = place.build(&["--output", &place.layout()]);
    assert!(!success, "{log}");
    // Whatever the step's own program makes of it.
    assert!(
        log.contains("no space left on the disk of the layer store"),
        "{log}"
    );
    assert!(!place.at("out/index.json").exists());
    // While packing: the file is all holes, its archive is not.
    place.dockerfile("COPY busybox /a\nCOPY busybox /b\nCOPY busybox /c\nCOPY busybox /d\n");
    let (success, log) = place.build(&["--output", &place.layout()]);
    assert!(!success && log.contains("No space left"), "{log}");
    assert!(!place.at("out/index.json").exists());
    // With room it goes on from there.
    mount_remount(place.at("store"), MountFlags::empty(), c"size=200m").unwrap();
    let (success, log) = place.build(&["--output", &place.layout()]);
    assert!(success, "{log}");
}

#[test]
fn a_full_disk_at_the_destination_is_told() {
    let Some(place) = Place::new("a_full_destination", true) else {
        return;
    };
    let _small = Small::on(place.at("out"), c"size=1m");
    place.dockerfile("RUN head -c 6000000 /dev/urandom > /big\n");
    let (success, log) = place.build(&["--output", &place.layout()]);
    assert!(!success && log.contains("No space left"), "{log}");
    assert!(!place.at("out/index.json").exists());
}

#[test]
fn a_store_that_cannot_be_written_is_told_by_its_name() {
    let Some(place) = Place::new("a_read_only_store", true) else {
        return;
    };
    let store = place.at("store");
    let _small = Small::on(store.clone(), c"size=1m");
    mount_remount(&store, MountFlags::RDONLY, c"").unwrap();
    place.dockerfile("RUN true\n");
    let (success, log) = place.build(&["--output", &place.layout()]);
    assert!(!success, "{log}");
    assert!(
        log.contains("Read-only file system") && log.contains(&store.display().to_string()),
        "{log}"
    );
}

/// A registry that goes away at the `fail_at`th upload of a blob's bytes, and notes what was asked of it.
fn vanishing_registry(fail_at: usize) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (seen, uploads) = (asked.clone(), Arc::new(AtomicUsize::new(0)));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { break };
            if uploads.load(Ordering::SeqCst) >= fail_at {
                // Gone for good: nobody answers any more.
                drop(stream);
                continue;
            }
            let (seen, uploads) = (seen.clone(), uploads.clone());
            thread::spawn(move || drop(answer(stream, &seen, &uploads, fail_at)));
        }
    });
    (host, asked)
}

fn answer(
    stream: TcpStream,
    seen: &Mutex<Vec<String>>,
    uploads: &AtomicUsize,
    fail_at: usize,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut length = 0;
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = header.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        seen.lock().unwrap().push(line.trim().to_owned());
        let method = line.split(' ').next().unwrap_or_default();
        let carries = matches!(method, "PUT" | "PATCH");
        if carries && uploads.fetch_add(1, Ordering::SeqCst) + 1 >= fail_at {
            // In the middle of the bytes.
            let _ = reader.read(&mut [0; 100]);
            return Ok(());
        }
        std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink())?;
        let (status, more) = match method {
            "GET" if line.contains(" /v2/ ") => ("200 OK", ""),
            "HEAD" | "GET" => ("404 Not Found", ""),
            "POST" | "PATCH" => ("202 Accepted", "Location: /v2/app/blobs/uploads/1\r\n"),
            _ => ("201 Created", ""),
        };
        write!(stream, "HTTP/1.1 {status}\r\n{more}Content-Length: 0\r\n\r\n")?;
    }
}

#[test]
fn a_registry_that_goes_away_in_mid_push_leaves_no_tag() {
    let Some(place) = Place::new("a_vanishing_registry", false) else {
        return;
    };
    place.dockerfile("RUN head -c 3000000 /dev/urandom > /big\n");
    let (host, asked) = vanishing_registry(1);
    let output = format!("type=image,name={host}/app:v1,push=true");
    let (success, log) = place.build(&["--insecure-registry", &host, "--output", &output]);
    assert!(!success, "{log}");
    assert!(log.contains(&host), "the error names the registry: {log}");
    let asked = asked.lock().unwrap();
    assert!(
        !asked
            .iter()
            .any(|line| line.starts_with("PUT") && line.contains("/manifests/")),
        "{asked:?}"
    );
}
