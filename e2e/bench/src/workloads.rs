//! The workloads, and what of them is to be reached.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

/// What is measured of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// With an empty cache.
    Cold,
    /// The same again.
    Noop,
    /// With one source file changed.
    Touch,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Noop => "noop",
            Self::Touch => "touch",
        }
    }
}

/// One workload of `workloads.py`.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) kinds: &'static [Kind],
    /// The file that [`Kind::Touch`] changes.
    touch: &'static str,
    /// The ratio to BuildKit that is to be reached, cold, by compression: the default first.
    cold: &'static [(&'static str, f64)],
    touched: f64,
}

/// All of them. `unused` would not end within minutes if it did what it must not.
pub(crate) const ALL: &[Workload] = &[
    Workload {
        name: "steps",
        kinds: &[Kind::Cold, Kind::Noop],
        touch: "",
        cold: &[("", 0.2)],
        touched: 1.0,
    },
    Workload {
        name: "fanout",
        kinds: &[Kind::Cold, Kind::Noop],
        touch: "",
        cold: &[("", 1.0)],
        touched: 1.0,
    },
    Workload {
        name: "diamond",
        kinds: &[Kind::Cold, Kind::Noop],
        touch: "",
        cold: &[("", 1.0)],
        touched: 1.0,
    },
    Workload {
        name: "unused",
        kinds: &[Kind::Cold, Kind::Noop],
        touch: "",
        cold: &[("", 1.0)],
        touched: 1.0,
    },
    Workload {
        name: "manyfiles",
        kinds: &[Kind::Cold, Kind::Noop, Kind::Touch],
        touch: "node_modules/pkg001/lib/f01.js",
        cold: &[("", 0.6)],
        touched: 0.4,
    },
    Workload {
        name: "biglayer",
        kinds: &[Kind::Cold, Kind::Noop],
        touch: "",
        cold: &[("zstd", 0.35), ("gzip", 0.8)],
        touched: 1.0,
    },
    Workload {
        name: "app",
        kinds: &[Kind::Cold, Kind::Noop, Kind::Touch],
        touch: "src/mod001.c",
        cold: &[("", 0.95)],
        touched: 0.8,
    },
];

impl Workload {
    /// The compressions to measure with; an empty one is the default.
    pub(crate) fn variants(&self) -> impl Iterator<Item = &'static str> {
        self.cold.iter().map(|(variant, _)| *variant)
    }

    /// The ratio to reach.
    pub(crate) fn goal(&self, kind: Kind, variant: &str) -> f64 {
        match kind {
            Kind::Noop => 1.0,
            Kind::Touch => self.touched,
            Kind::Cold => self
                .cold
                .iter()
                .find(|(name, _)| *name == variant)
                .map_or(1.0, |(_, goal)| *goal),
        }
    }
}

/// Writes the contexts.
pub(crate) fn write(dir: &Path, base: &str) -> Result<()> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/workloads.py");
    let status = Command::new("python3")
        .args([script.as_ref(), dir.as_os_str(), base.as_ref()])
        .stdin(Stdio::null())
        .status()
        .context("failed to start python3, which writes the workloads")?;
    ensure!(status.success(), "{script}: {status}");
    Ok(())
}

/// Changes the file that a touch is about.
pub(crate) fn touch(workload: &Workload, context: &Path, number: usize) -> Result<()> {
    let path = context.join(workload.touch);
    let text = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    let first = text.split("\n//").next().unwrap_or_default();
    fs::write(&path, format!("{first}\n// {number}\n"))
        .with_context(|| format!("failed to write {}", path.display()))
}
