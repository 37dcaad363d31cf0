//! What the tests of whole trees share.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "tests"
)]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

/// An entry as it can be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub kind: String,
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: i64,
    pub content: Vec<u8>,
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// The first path of the same file.
    pub same_as: Option<String>,
}

/// Everything below `root`; times of directories only if asked for.
pub fn snapshot(root: &Path, directory_times: bool) -> BTreeMap<String, Node> {
    let mut all = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    walk(root, "", directory_times, &mut inodes, &mut all);
    all
}

fn walk(
    dir: &Path,
    prefix: &str,
    directory_times: bool,
    inodes: &mut BTreeMap<u64, String>,
    all: &mut BTreeMap<String, Node>,
) {
    let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let name = format!("{prefix}/{}", entry.file_name().to_string_lossy());
        let meta = fs::symlink_metadata(&path).unwrap();
        let kind = meta.file_type();
        let (word, content) = if kind.is_dir() {
            ("dir".to_owned(), Vec::new())
        } else if kind.is_symlink() {
            (
                "link".to_owned(),
                fs::read_link(&path)
                    .unwrap()
                    .into_os_string()
                    .into_encoded_bytes(),
            )
        } else if kind.is_file() {
            ("file".to_owned(), fs::read(&path).unwrap())
        } else if kind.is_fifo() {
            ("fifo".to_owned(), Vec::new())
        } else if kind.is_socket() {
            ("socket".to_owned(), Vec::new())
        } else {
            (
                format!(
                    "{} {}",
                    if kind.is_char_device() { "char" } else { "block" },
                    meta.rdev()
                ),
                Vec::new(),
            )
        };
        let mut xattrs = BTreeMap::new();
        if kind.is_file() || kind.is_dir() {
            let mut buffer = vec![0; 4096];
            let n = rustix::fs::llistxattr(&path, &mut buffer[..]).unwrap();
            for attribute in buffer[..n]
                .split(|byte| *byte == 0)
                .filter(|name| !name.is_empty())
            {
                let attribute = String::from_utf8_lossy(attribute).into_owned();
                if attribute.contains("overlay") {
                    continue;
                }
                let mut value = vec![0; 4096];
                let n = rustix::fs::lgetxattr(&path, &attribute, &mut value[..]).unwrap();
                value.truncate(n);
                xattrs.insert(attribute, value);
            }
        }
        let same_as = if kind.is_dir() {
            None
        } else {
            inodes.insert(meta.ino(), name.clone()).inspect(|first| {
                inodes.insert(meta.ino(), first.clone());
            })
        };
        let node = Node {
            kind: word,
            mode: meta.mode() & 0o7777,
            owner: (meta.uid(), meta.gid()),
            mtime: if kind.is_dir() && !directory_times {
                0
            } else {
                meta.mtime()
            },
            content,
            xattrs,
            same_as,
        };
        all.insert(name.clone(), node);
        if kind.is_dir() {
            walk(&path, &name, directory_times, inodes, all);
        }
    }
}

/// Whether the test may give files away and make devices.
pub fn root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Names of a layer's entries, as the system's tar lists them.
pub fn names(layer: &[u8]) -> Vec<String> {
    let output = tar(&["-t", "-f", "-"], layer);
    output.lines().map(ToOwned::to_owned).collect()
}

/// Runs the system's tar over a layer.
pub fn tar(arguments: &[&str], layer: &[u8]) -> String {
    use std::{
        io::Write,
        process::{Command, Stdio},
    };
    let mut child = Command::new("tar")
        .args(arguments)
        .env("TZ", "UTC")
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let bytes = layer.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&bytes));
    let output = child.wait_with_output().unwrap();
    let _ = writer.join();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A tar archive entry by entry, for cases that no well-behaved program writes.
pub struct Hostile(pub Vec<u8>);

impl Hostile {
    pub fn new() -> Self {
        Self(Vec::new())
    }

    pub fn add(mut self, name: &str, flag: u8, link: &str, data: &[u8]) -> Self {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000755");
        header[108..115].copy_from_slice(format!("{:07o}", rustix::process::geteuid().as_raw()).as_bytes());
        header[116..123].copy_from_slice(format!("{:07o}", rustix::process::getegid().as_raw()).as_bytes());
        header[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
        header[136..147].copy_from_slice(b"00000000001");
        header[156] = flag;
        header[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, name: &str, data: &str) -> Self {
        self.add(name, b'0', "", data.as_bytes())
    }

    pub fn dir(self, name: &str) -> Self {
        self.add(name, b'5', "", b"")
    }

    pub fn symlink(self, name: &str, to: &str) -> Self {
        self.add(name, b'2', to, b"")
    }

    pub fn hard_link(self, name: &str, to: &str) -> Self {
        self.add(name, b'1', to, b"")
    }
}
