//! Platforms: `os/architecture[/variant]`, normalised as containerd does, and which of an index's images suits one best.

use crate::{Descriptor, ImageIndex, serde_as_string};
use std::{fmt, str::FromStr};

/// An operating system and a processor. Always normalised when parsed: `linux/x86_64` is `linux/amd64`,
/// `linux/arm64/v8` is `linux/arm64`, `linux/arm` is `linux/arm/v7`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    /// `linux`, in Go's words (GOOS).
    pub os: String,
    /// `amd64`, in Go's words (GOARCH).
    pub architecture: String,
    /// `v7`; absent where the architecture has a plain form (`amd64` for v1, `arm64` for v8).
    pub variant: Option<String>,
    /// Version of the operating system; Windows only.
    pub os_version: Option<String>,
    /// Features of the operating system; Windows only.
    pub os_features: Vec<String>,
}

/// Why a text is no [`Platform`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    /// Not one to three parts.
    #[error("platform {0:?} must have the form os/architecture[/variant], like linux/arm64")]
    Form(String),
    /// A part has a character that no name has.
    #[error(
        "{part:?} is an invalid component of {text:?}: platform specifier component must match letters, digits, \"_\", \"-\" or \".\""
    )]
    Part {
        /// The part.
        part: String,
        /// The text.
        text: String,
    },
    /// One word that is neither an operating system nor an architecture.
    #[error("{0:?}: unknown operating system or architecture")]
    Unknown(String),
}

const SYSTEMS: [&str; 16] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
];
const ARCHITECTURES: [&str; 22] = [
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "armbe",
    "arm64",
    "arm64be",
    "ppc64",
    "ppc64le",
    "loong64",
    "mips",
    "mipsle",
    "mips64",
    "mips64le",
    "mips64p32",
    "ppc",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc64",
    "wasm",
];

impl Platform {
    /// A platform from its parts, normalised. `variant` may be empty.
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: Some(variant.to_owned()),
            os_version: None,
            os_features: Vec::new(),
        }
        .normalized()
    }

    /// The platform that this program was built for, without a variant of `amd64`.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            "loongarch64" => "loong64",
            other => other,
        };
        Self::new(std::env::consts::OS, architecture, "")
    }

    /// The same platform in its usual words.
    #[must_use]
    pub fn normalized(mut self) -> Self {
        self.os = self.os.to_lowercase();
        if self.os == "macos" {
            "darwin".clone_into(&mut self.os);
        }
        let architecture = self.architecture.to_lowercase();
        let variant = self.variant.take().unwrap_or_default().to_lowercase();
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("x86_64" | "x86-64" | "amd64", "v1" | "") => ("amd64", ""),
            ("x86_64" | "x86-64" | "amd64", other) => ("amd64", other),
            ("i386" | "x86", _) => ("386", ""),
            ("aarch64" | "arm64", "8" | "v8" | "v8.0" | "") => ("arm64", ""),
            ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
            ("aarch64" | "arm64", other) => ("arm64", other),
            ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
            ("armel", _) | ("arm", "6") => ("arm", "v6"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "8") => ("arm", "v8"),
            (architecture, variant) => (architecture, variant),
        };
        self.variant = (!variant.is_empty()).then(|| variant.to_owned());
        architecture.clone_into(&mut self.architecture);
        self
    }

    /// Whether an image for `offered` runs on a machine of this platform.
    pub fn matches(&self, offered: &Self) -> bool {
        self.preference(offered).is_some()
    }

    /// How well an image for `offered` suits a machine of this platform: 0 is the platform itself, more is an older
    /// variant or a 32-bit sibling, `None` does not run.
    pub fn preference(&self, offered: &Self) -> Option<usize> {
        if self.os != offered.os {
            return None;
        }
        if let (Some(wanted), Some(has)) = (&self.os_version, &offered.os_version)
            && !has.starts_with(wanted.as_str())
        {
            return None;
        }
        let offered = (
            offered.architecture.as_str(),
            offered.variant.as_deref().unwrap_or(""),
        );
        self.runs()
            .iter()
            .position(|(architecture, variant)| (*architecture, variant.as_str()) == offered)
    }

    /// The architectures and variants that run on this platform, best first.
    fn runs(&self) -> Vec<(&'static str, String)> {
        let variant = self.variant.as_deref().unwrap_or("");
        let number = |default: u32| {
            variant
                .strip_prefix('v')
                .and_then(|text| text.parse::<u32>().ok())
                .unwrap_or(default)
        };
        let arm = |from: u32| (5..=from).rev().map(|n| ("arm", format!("v{n}")));
        match self.architecture.as_str() {
            "amd64" => {
                let mut all: Vec<_> = (2..=number(1))
                    .rev()
                    .map(|n| ("amd64", format!("v{n}")))
                    .collect();
                all.extend([("amd64", String::new()), ("386", String::new())]);
                all
            }
            "arm" if (5..=8).contains(&number(7)) => arm(number(7)).collect(),
            "arm64" => {
                let mut all = Vec::new();
                // v9.x implies v8.(x+5), says the Arm architecture reference; each minor version implies the ones below.
                let (major, minor) = variant
                    .strip_prefix('v')
                    .unwrap_or("8")
                    .split_once('.')
                    .map_or_else(
                        || (number(8), 0),
                        |(major, minor)| (major.parse().unwrap_or(8), minor.parse().unwrap_or(0)),
                    );
                let named = |major: u32, minor: u32| match (major, minor) {
                    (8, 0) => String::new(),
                    (major, 0) => format!("v{major}"),
                    (major, minor) => format!("v{major}.{minor}"),
                };
                let mut below = minor.min(9);
                if major == 9 {
                    all.extend((0..=below).rev().map(|n| ("arm64", named(9, n))));
                    below = (below + 5).min(9);
                }
                all.extend((0..=below).rev().map(|n| ("arm64", named(8, n))));
                all.extend(arm(8));
                all
            }
            other => match ARCHITECTURES.iter().find(|known| **known == other) {
                Some(known) => vec![(*known, variant.to_owned())],
                None => Vec::new(),
            },
        }
    }

    /// The manifest of `index` that suits this platform best; the first of equals. A manifest that names no platform
    /// comes last, one of `unknown/unknown` (an attestation) never.
    pub fn choose<'a>(&self, index: &'a ImageIndex) -> Option<&'a Descriptor> {
        let rank = |descriptor: &Descriptor| match descriptor.platform() {
            Some(platform) => self.preference(&Self::from(platform)),
            None => Some(usize::MAX),
        };
        index
            .manifests()
            .iter()
            .filter_map(|descriptor| Some((rank(descriptor)?, descriptor)))
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, descriptor)| descriptor)
    }
}

fn is_part(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let mut parts: Vec<&str> = text.split('/').collect();
        // `windows(10.0.17763+feature)/amd64`
        let (mut os_version, mut os_features) = (None, Vec::new());
        if let Some((os, options)) = parts[0].strip_suffix(')').and_then(|os| os.split_once('(')) {
            parts[0] = os;
            let mut options = options.split('+');
            os_version = options
                .next()
                .filter(|version| !version.is_empty())
                .map(str::to_owned);
            os_features = options.map(str::to_owned).collect();
        }
        if let Some(part) = parts.iter().find(|part| !is_part(part)) {
            return Err(PlatformError::Part {
                part: (*part).to_owned(),
                text: text.to_owned(),
            });
        }
        let host = Self::host();
        let mut platform = match parts[..] {
            [word] => {
                let as_os = Self::new(word, &host.architecture, host.variant.as_deref().unwrap_or(""));
                if SYSTEMS.contains(&as_os.os.as_str()) {
                    as_os
                } else {
                    let as_architecture = Self::new(&host.os, word, "");
                    if !ARCHITECTURES.contains(&as_architecture.architecture.as_str()) {
                        return Err(PlatformError::Unknown(text.to_owned()));
                    }
                    as_architecture
                }
            }
            [os, architecture] => Self::new(os, architecture, ""),
            [os, architecture, variant] => Self::new(os, architecture, variant),
            _ => return Err(PlatformError::Form(text.to_owned())),
        };
        platform.os_version = os_version;
        platform.os_features = os_features;
        Ok(platform)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.os)?;
        if self.os_version.is_some() || !self.os_features.is_empty() {
            write!(f, "({}", self.os_version.as_deref().unwrap_or(""))?;
            for feature in &self.os_features {
                write!(f, "+{feature}")?;
            }
            f.write_str(")")?;
        }
        write!(f, "/{}", self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl From<&oci_spec::image::Platform> for Platform {
    fn from(platform: &oci_spec::image::Platform) -> Self {
        Self {
            os: platform.os().to_string(),
            architecture: platform.architecture().to_string(),
            variant: platform.variant().clone(),
            os_version: platform.os_version().clone(),
            os_features: platform.os_features().clone().unwrap_or_default(),
        }
        .normalized()
    }
}

impl From<&Platform> for oci_spec::image::Platform {
    fn from(platform: &Platform) -> Self {
        let mut out = Self::default();
        out.set_os(platform.os.as_str().into());
        out.set_architecture(platform.architecture.as_str().into());
        out.set_variant(platform.variant.clone());
        out.set_os_version(platform.os_version.clone());
        out.set_os_features(Some(platform.os_features.clone()).filter(|features| !features.is_empty()));
        out
    }
}

serde_as_string!(Platform);

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn platforms_are_normalised_as_containerd_does() {
        for (text, normal) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/i386", "linux/386"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v9", "linux/arm64/v9"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/arm/6", "linux/arm/v6"),
            ("Linux/ARM64", "linux/arm64"),
            ("macos/arm64", "darwin/arm64"),
            ("windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64"),
            ("linux/riscv64", "linux/riscv64"),
        ] {
            assert_eq!(platform(text).to_string(), normal, "{text}");
            assert_eq!(platform(normal), platform(text));
        }
        assert_eq!(platform("arm64").architecture, "arm64");
        assert_eq!(
            platform("linux"),
            Platform {
                os: "linux".into(),
                ..Platform::host()
            }
        );
    }

    #[test]
    fn what_is_no_platform_is_refused() {
        for text in ["", "/", "linux/", "a/b/c/d", "linux/a b", "fruit", "linux/$A"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn older_variants_run_and_newer_do_not() {
        for (machine, image, rank) in [
            ("linux/amd64", "linux/amd64", Some(0)),
            ("linux/amd64", "linux/386", Some(1)),
            ("linux/amd64", "linux/amd64/v2", None),
            ("linux/amd64/v3", "linux/amd64/v2", Some(1)),
            ("linux/amd64/v3", "linux/amd64", Some(2)),
            ("linux/arm/v7", "linux/arm/v6", Some(1)),
            ("linux/arm/v6", "linux/arm/v7", None),
            ("linux/arm64", "linux/arm/v7", Some(2)),
            ("linux/arm64", "linux/arm64/v8.1", None),
            ("linux/arm64/v9", "linux/arm64", Some(6)),
            ("linux/arm64", "windows/arm64", None),
            ("linux/s390x", "linux/s390x", Some(0)),
            ("linux/s390x", "linux/amd64", None),
        ] {
            assert_eq!(
                platform(machine).preference(&platform(image)),
                rank,
                "{machine} {image}"
            );
        }
    }

    #[test]
    fn the_best_manifest_of_an_index_is_chosen() {
        let manifest = |n: char, platform: &str| {
            let digest = n.to_string().repeat(64);
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:{digest}","size":1{platform}}}"#
            )
        };
        let index: ImageIndex = serde_json::from_str(&format!(
            r#"{{"schemaVersion":2,"manifests":[{},{},{},{}]}}"#,
            manifest('0', r#","platform":{"os":"unknown","architecture":"unknown"}"#),
            manifest(
                '1',
                r#","platform":{"os":"linux","architecture":"arm","variant":"v6"}"#
            ),
            manifest(
                '2',
                r#","platform":{"os":"linux","architecture":"arm","variant":"v7"}"#
            ),
            manifest(
                '3',
                r#","platform":{"os":"linux","architecture":"arm64","variant":"v8"}"#
            ),
        ))
        .unwrap();
        for (wanted, chosen) in [
            ("linux/arm64", Some('3')),
            ("linux/arm/v7", Some('2')),
            ("linux/arm/v6", Some('1')),
            ("linux/arm/v5", None),
            ("linux/amd64", None),
        ] {
            let got = platform(wanted)
                .choose(&index)
                .map(|it| it.digest().digest().chars().next().unwrap());
            assert_eq!(got, chosen, "{wanted}");
        }
    }

    #[test]
    fn json_is_the_text() {
        assert_eq!(
            serde_json::to_string(&platform("linux/arm/v7")).unwrap(),
            "\"linux/arm/v7\""
        );
        let spec = oci_spec::image::Platform::from(&platform("linux/arm/v7"));
        assert_eq!(Platform::from(&spec), platform("linux/arm/v7"));
    }
}
