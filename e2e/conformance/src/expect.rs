//! What a case expects: the `expect` object, key by key. Checking it is the business of `check`.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

/// All given keys must hold; without any, the build must just succeed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Expect {
    /// Strings that the error must contain; an empty list asks for any failure.
    pub(crate) error_contains: Option<Texts>,
    /// The same with regular expressions.
    pub(crate) error_matches: Option<Texts>,
    /// Source lines that the error points at.
    pub(crate) error_lines: Option<Vec<usize>>,
    pub(crate) config: Option<Value>,
    pub(crate) image: Option<Value>,
    pub(crate) manifest: Option<Value>,
    pub(crate) index: Option<Value>,
    pub(crate) env_has: Vec<String>,
    pub(crate) env_lacks: Vec<String>,
    pub(crate) files: BTreeMap<String, Short<FileWant>>,
    pub(crate) layers: Option<usize>,
    pub(crate) layer_files: BTreeMap<usize, LayerWant>,
    pub(crate) history: Option<Vec<Short<HistoryWant>>>,
    pub(crate) platforms: Option<BTreeMap<String, Expect>>,
    pub(crate) warnings: Option<Vec<WarningWant>>,
    pub(crate) log_contains: Texts,
    pub(crate) log_lacks: Texts,
    pub(crate) call_output_contains: Texts,
    pub(crate) only: Option<Vec<String>>,
    pub(crate) index_ref_names: Option<Vec<String>>,
    pub(crate) base_layers_kept: bool,
    pub(crate) same_digest_as_first: bool,
}

impl Expect {
    /// Whether the build must fail.
    pub(crate) fn is_failure(&self) -> bool {
        self.error_contains.is_some() || self.error_matches.is_some()
    }
}

/// Strings; one alone stands for a list of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Texts(pub(crate) Vec<String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self(vec![text])),
            other => serde_json::from_value(other)
                .map(Self)
                .map_err(serde::de::Error::custom),
        }
    }
}

/// A value whose most used part may be written as a text alone.
#[derive(Clone, Debug)]
pub(crate) struct Short<T>(pub(crate) T);

impl<'de, T: DeserializeOwned + From<String>> Deserialize<'de> for Short<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self(T::from(text))),
            other => serde_json::from_value(other)
                .map(Self)
                .map_err(serde::de::Error::custom),
        }
    }
}

/// What must lie at a path of the result; a text alone stands for its content.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FileWant {
    pub(crate) content: Option<String>,
    pub(crate) content_matches: Option<String>,
    pub(crate) sha256: Option<String>,
    pub(crate) size: Option<u64>,
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    /// All twelve bits, in octal.
    pub(crate) mode: Option<String>,
    pub(crate) uid: Option<u64>,
    pub(crate) gid: Option<u64>,
    pub(crate) mtime: Option<i64>,
    pub(crate) link: Option<String>,
    pub(crate) same_inode_as: Option<String>,
    pub(crate) absent: bool,
    /// Against the first build's content: a cache hit.
    pub(crate) same_as_first: bool,
    /// Against the first build's content: a cache miss.
    pub(crate) differs_from_first: bool,
}

impl From<String> for FileWant {
    fn from(content: String) -> Self {
        Self {
            content: Some(content),
            ..Self::default()
        }
    }
}

/// Paths in one layer's archive; whiteouts are written `.wh.name`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LayerWant {
    pub(crate) has: Vec<String>,
    pub(crate) lacks: Vec<String>,
    pub(crate) only: Option<Vec<String>>,
}

/// One history entry; a text alone stands for a part of `created_by`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HistoryWant {
    pub(crate) is: Option<String>,
    pub(crate) contains: Option<String>,
    pub(crate) empty_layer: Option<bool>,
    pub(crate) created: Option<String>,
}

impl From<String> for HistoryWant {
    fn from(text: String) -> Self {
        Self {
            contains: Some(text),
            ..Self::default()
        }
    }
}

/// One build warning.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WarningWant {
    pub(crate) rule: String,
    pub(crate) line: Option<usize>,
    #[serde(default)]
    pub(crate) detail_contains: String,
}
