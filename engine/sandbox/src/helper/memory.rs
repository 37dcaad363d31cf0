//! Whether the kernel killed something for want of memory: a counter that rose.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// The counter of out-of-memory kills nearest to the step that can be read.
pub(super) struct OomCounter {
    file: Option<File>,
    before: u64,
}

impl OomCounter {
    /// Opens the counter. Before the helper covers /sys/fs/cgroup with a mount of its own: the descriptor keeps the file.
    pub(super) fn open() -> Self {
        let file = candidates().into_iter().find_map(|path| File::open(path).ok());
        let before = file.as_ref().map_or(0, read);
        Self { file, before }
    }

    /// Whether a kill was counted since.
    pub(super) fn rose(&self) -> bool {
        self.file.as_ref().is_some_and(|file| read(file) > self.before)
    }
}

/// Files that have a line `oom_kill N`, the most exact first.
fn candidates() -> Vec<PathBuf> {
    let mut paths = Vec::new();
    let root = Path::new("/sys/fs/cgroup");
    for line in fs::read_to_string("/proc/self/cgroup")
        .unwrap_or_default()
        .lines()
    {
        let mut fields = line.splitn(3, ':');
        let (Some(id), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let below = path.trim_start_matches('/');
        if id == "0" {
            paths.push(root.join(below).join("memory.events"));
            paths.push(root.join("memory.events"));
        } else if controllers.split(',').any(|controller| controller == "memory") {
            paths.push(root.join("memory").join(below).join("memory.oom_control"));
            paths.push(root.join("memory/memory.oom_control"));
        }
    }
    // The whole machine's: right on a developer's machine, and all there is where no cgroup can be seen.
    paths.push(PathBuf::from("/proc/vmstat"));
    paths
}

fn read(file: &File) -> u64 {
    // /proc/vmstat is the longest, with some 200 lines.
    let mut buffer = vec![0; 64 * 1024];
    let mut filled = 0;
    while let Ok(n) = file.read_at(&mut buffer[filled..], filled as u64) {
        if n == 0 {
            break;
        }
        filled += n;
    }
    let text = String::from_utf8_lossy(&buffer[..filled]);
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
        .unwrap_or(0)
}
