//! Reads cases: one JSON object a line. Unknown keys are refused, so that a misspelt expectation cannot pass by
//! never being looked at. Nothing here touches the file system beyond reading the file of cases.

use std::{collections::BTreeMap, fmt, fs, marker::PhantomData, path::Path};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor},
};
use serde_json::Value;

use crate::expect::Expect;

/// Files of a tree: path to what lies there.
pub(crate) type Files = BTreeMap<String, FileSpec>;

/// One build with its inputs and expectations. A case is its first build; `then` holds the later ones.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Build {
    pub(crate) id: String,
    pub(crate) area: String,
    #[serde(rename = "covers")]
    _covers: Vec<String>,
    pub(crate) files: Files,
    pub(crate) dockerfile: Option<String>,
    pub(crate) dockerfile_files: Files,
    pub(crate) dockerfile_in_context: bool,
    pub(crate) filename: Option<String>,
    pub(crate) args: BTreeMap<String, String>,
    pub(crate) target: Option<String>,
    pub(crate) platform: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) secrets: BTreeMap<String, String>,
    pub(crate) ssh: bool,
    pub(crate) allow: Vec<String>,
    pub(crate) contexts: BTreeMap<String, NamedContext>,
    pub(crate) images: Ordered<Build>,
    pub(crate) opts: BTreeMap<String, String>,
    pub(crate) no_cache: Option<NoCache>,
    pub(crate) export: BTreeMap<String, String>,
    pub(crate) output: Output,
    pub(crate) call: Option<String>,
    pub(crate) http: BTreeMap<String, HttpSpec>,
    pub(crate) git: BTreeMap<String, Vec<Commit>>,
    pub(crate) cache: Option<CacheUse>,
    pub(crate) daemon: u8,
    pub(crate) needs: Vec<String>,
    pub(crate) then: Vec<Value>,
    pub(crate) expect: Expect,
    /// Replace the first build's args instead of adding to them (in `then`).
    #[serde(rename = "args_replace")]
    _args_replace: bool,
}

/// A case: its builds in order, the steps of `then` merged with the first one already.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) first: Build,
    pub(crate) later: Vec<Build>,
}

impl Case {
    /// Parses one line.
    pub(crate) fn parse(line: &str) -> Result<Self> {
        // Not through `Value`, whose objects are sorted: images are built in the order in which they are written.
        let first: Build = serde_json::from_str(line)?;
        let whole: Value = serde_json::from_str(line)?;
        ensure!(!first.id.is_empty(), "the case has no `id`");
        let later = first
            .then
            .iter()
            .enumerate()
            .map(|(at, step)| {
                merge(&whole, step)
                    .and_then(|merged| Ok(serde_json::from_value::<Build>(merged)?))
                    .with_context(|| format!("case {}, step {} of `then`", first.id, at + 1))
            })
            .collect::<Result<_>>()?;
        Ok(Self { first, later })
    }
}

/// Reads all cases of a file.
pub(crate) fn load(path: &Path) -> Result<Vec<Case>> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("failed to read the cases in {}", path.display()))?;
    let mut cases: Vec<Case> = Vec::new();
    for (at, line) in text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
    {
        let case = Case::parse(line).with_context(|| format!("{}:{}", path.display(), at + 1))?;
        if cases.iter().any(|known| known.first.id == case.first.id) {
            bail!(
                "{}:{}: the id {} is taken by an earlier case",
                path.display(),
                at + 1,
                case.first.id
            );
        }
        cases.push(case);
    }
    Ok(cases)
}

/// A step's keys replace the first build's; `files` and `args` are merged; some are not inherited at all.
fn merge(first: &Value, step: &Value) -> Result<Value> {
    let (Value::Object(first), Value::Object(step)) = (first, step) else {
        bail!("a step is an object")
    };
    let mut merged = first.clone();
    for key in ["expect", "then", "images", "no_cache"] {
        merged.remove(key);
    }
    for (key, value) in step {
        let adds = key == "files" || (key == "args" && step.get("args_replace") != Some(&Value::Bool(true)));
        match (merged.get_mut(key), value) {
            (Some(Value::Object(old)), Value::Object(new)) if adds => {
                for (name, value) in new {
                    if value.is_null() {
                        old.remove(name);
                    } else {
                        old.insert(name.clone(), value.clone());
                    }
                }
            }
            _ => {
                merged.insert(key.clone(), value.clone());
            }
        }
    }
    Ok(Value::Object(merged))
}

/// What lies at a path of a tree: a text alone, or an object.
#[derive(Clone, Debug, Default)]
pub(crate) struct FileSpec {
    pub(crate) body: Body,
    /// Mode in octal; a file is 0644 and a folder 0755 without.
    pub(crate) mode: Option<String>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    /// Seconds since the epoch.
    pub(crate) mtime: Option<i64>,
    pub(crate) kind: Kind,
}

/// Type of an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    #[default]
    File,
    Dir,
    Symlink(String),
    Hardlink(String),
    Fifo,
    Socket,
}

/// Where bytes come from.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Body {
    pub(crate) content: Option<String>,
    pub(crate) base64: Option<String>,
    pub(crate) repeat: Option<(String, usize)>,
    pub(crate) tar: Option<Vec<TarEntry>>,
    pub(crate) compress: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct FileObject {
    content: Option<String>,
    base64: Option<String>,
    repeat: Option<(String, usize)>,
    tar: Option<Vec<TarEntry>>,
    compress: Option<String>,
    mode: Option<String>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<i64>,
    dir: bool,
    symlink: Option<String>,
    hardlink: Option<String>,
    fifo: bool,
    socket: bool,
}

impl<'de> Deserialize<'de> for FileSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = match Value::deserialize(deserializer)? {
            Value::String(content) => FileObject {
                content: Some(content),
                ..FileObject::default()
            },
            other => serde_json::from_value(other).map_err(serde::de::Error::custom)?,
        };
        let kind = if object.dir {
            Kind::Dir
        } else if let Some(target) = object.symlink {
            Kind::Symlink(target)
        } else if let Some(target) = object.hardlink {
            Kind::Hardlink(target)
        } else if object.fifo {
            Kind::Fifo
        } else if object.socket {
            Kind::Socket
        } else {
            Kind::File
        };
        let FileObject {
            content,
            base64,
            repeat,
            tar,
            compress,
            mode,
            uid,
            gid,
            mtime,
            ..
        } = object;
        Ok(Self {
            body: Body {
                content,
                base64,
                repeat,
                tar,
                compress,
            },
            mode,
            uid,
            gid,
            mtime,
            kind,
        })
    }
}

impl From<&str> for FileSpec {
    fn from(text: &str) -> Self {
        Self {
            body: Body {
                content: Some(text.to_owned()),
                ..Body::default()
            },
            ..Self::default()
        }
    }
}

/// An entry of an archive that the harness makes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TarEntry {
    pub(crate) name: String,
    /// `file` (also when empty), `dir`, `symlink`, `hardlink`, `fifo`, `char`.
    pub(crate) r#type: String,
    pub(crate) content: String,
    pub(crate) mode: Option<String>,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: u64,
    pub(crate) link: String,
}

/// A named context: a local tree or a source such as `docker-image://…`.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum NamedContext {
    Source(String),
    Tree(Files),
}

/// Ignore the cache for the whole build or for one stage.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(crate) enum NoCache {
    All(bool),
    Stage(String),
}

/// What the build writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Output {
    /// An OCI layout in a folder.
    #[default]
    Oci,
    /// The root file system as one archive.
    Tar,
    /// The root file system as a folder.
    Local,
}

impl Output {
    /// The exporter's name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Oci => "oci",
            Self::Tar => "tar",
            Self::Local => "local",
        }
    }
}

/// How a build uses the exported cache, a folder of the case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CacheUse {
    /// Write all of it.
    Export,
    /// Write the result's own layers alone.
    ExportMin,
    /// Read it.
    Import,
}

/// One answer of the case's HTTP server.
#[derive(Clone, Debug, Default)]
pub(crate) struct HttpSpec {
    pub(crate) body: Body,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) status: Option<u16>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct HttpObject {
    content: Option<String>,
    tar: Option<Vec<TarEntry>>,
    compress: Option<String>,
    headers: BTreeMap<String, String>,
    status: Option<u16>,
}

impl<'de> Deserialize<'de> for HttpSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = match Value::deserialize(deserializer)? {
            Value::String(content) => HttpObject {
                content: Some(content),
                ..HttpObject::default()
            },
            other => serde_json::from_value(other).map_err(serde::de::Error::custom)?,
        };
        let HttpObject {
            content,
            tar,
            compress,
            headers,
            status,
        } = object;
        Ok(Self {
            body: Body {
                content,
                tar,
                compress,
                ..Body::default()
            },
            headers,
            status,
        })
    }
}

/// A commit of a git repository that the harness makes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Commit {
    pub(crate) files: Files,
    pub(crate) tags: Vec<String>,
    pub(crate) branches: Vec<String>,
}

/// An object whose order counts.
#[derive(Clone, Debug)]
pub(crate) struct Ordered<T>(pub(crate) Vec<(String, T)>);

impl<T> Default for Ordered<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs<T>(PhantomData<T>);
        impl<'de, T: DeserializeOwned> Visitor<'de> for Pairs<T> {
            type Value = Ordered<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Ordered(pairs))
            }
        }
        deserializer.deserialize_map(Pairs(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_refused_wherever_it_stands() {
        for line in [
            r#"{"id": "a", "filse": {}}"#,
            r#"{"id": "a", "files": {"f": {"contents": ""}}}"#,
            r#"{"id": "a", "expect": {"layer": 1}}"#,
            r#"{"id": "a", "expect": {"files": {"/f": {"owner": 1}}}}"#,
            r#"{"id": "a", "then": [{"no-cache": true}]}"#,
        ] {
            assert!(Case::parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_step_merges_files_and_args_and_forgets_expectations() {
        let case = Case::parse(
            r#"{"id": "a", "files": {"x": "1", "y": "2"}, "args": {"A": "1"}, "no_cache": true, "target": "t",
                "expect": {"layers": 3}, "then": [{"files": {"x": null, "z": "3"}, "args": {"B": "2"}}]}"#,
        )
        .unwrap();
        let step = &case.later[0];
        assert_eq!(step.files.keys().collect::<Vec<_>>(), ["y", "z"]);
        assert_eq!(step.args.len(), 2);
        assert_eq!(step.no_cache, None);
        assert_eq!(step.target.as_deref(), Some("t"));
        assert_eq!(step.expect.layers, None);
    }

    #[test]
    fn images_keep_the_order_in_which_they_are_written() {
        let case =
            Case::parse(r#"{"id": "a", "images": {"z": {"dockerfile": "1"}, "b": {"dockerfile": "2"}}}"#);
        let names: Vec<_> = case
            .unwrap()
            .first
            .images
            .0
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["z", "b"]);
    }
}
