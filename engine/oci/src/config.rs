//! The config blob of an image: OCI's (image specification, "Image Configuration") and what Docker adds to it.
//!
//! The order of the fields is the one that BuildKit writes, and absent, `null` and empty are one thing, as they are for it.

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeMap};
use std::collections::{BTreeMap, BTreeSet};

/// The `PATH` that a container gets where its image sets none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An image's config blob.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// `amd64`, in Go's words.
    #[serde(default, deserialize_with = "nullable")]
    pub architecture: String,
    /// Who made it (`MAINTAINER`).
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub author: String,
    /// How to run it.
    #[serde(default, deserialize_with = "nullable")]
    pub config: ContainerConfig,
    /// RFC 3339 time of its last layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// One entry for each instruction that made it, oldest first.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
    /// `linux`.
    #[serde(default, deserialize_with = "nullable")]
    pub os: String,
    /// Features of the operating system that it needs.
    #[serde(
        rename = "os.features",
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub os_features: Vec<String>,
    /// Version of the operating system (Windows).
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Its layers.
    #[serde(default, deserialize_with = "nullable")]
    pub rootfs: RootFs,
    /// `v7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Whatever else was in the blob.
    #[serde(flatten)]
    pub extra: BTreeMap<String, serde_json::Value>,
}

/// How a container of the image is run: the `config` object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerConfig {
    /// `user[:group]`, names or numbers.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub user: String,
    /// `80/tcp`.
    #[serde(default, with = "set_as_map", skip_serializing_if = "BTreeSet::is_empty")]
    pub exposed_ports: BTreeSet<String>,
    /// `NAME=value`, in order.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The program.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Its arguments, or the program where there is no entrypoint.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Directories for data that outlives the container.
    #[serde(default, with = "set_as_map", skip_serializing_if = "BTreeSet::is_empty")]
    pub volumes: BTreeSet<String>,
    /// The directory that the program starts in.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub working_dir: String,
    /// Free metadata.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks it to end.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub stop_signal: String,
    /// Windows: the command line is escaped already.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub args_escaped: bool,
    /// Docker: how to ask whether it is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Docker: instructions for the builds that have this image as their base.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    /// Docker: the shell of shell-form instructions.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
    /// Docker: seconds between the stop signal and the kill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// Whatever else was there.
    #[serde(flatten)]
    pub extra: BTreeMap<String, serde_json::Value>,
}

/// `HEALTHCHECK`. Times are nanoseconds; 0 means the runtime's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", command]`; empty: as inherited.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Time between two checks.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Time after which a check has failed.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Time after the start in which failures do not count.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Time between two checks during the start period.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row that make it unhealthy.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub retries: i64,
}

/// One instruction of the image's history.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub created_by: String,
    /// Who made it.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub author: String,
    /// `buildkit.dockerfile.v0` for what the Dockerfile front end made.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub comment: String,
    /// It made no layer.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub empty_layer: bool,
}

/// The layers of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default = "layers")]
    pub kind: String,
    /// Digests of the uncompressed layers, lowest first.
    #[serde(default, deserialize_with = "nullable")]
    pub diff_ids: Vec<crate::Digest>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self {
            kind: layers(),
            diff_ids: Vec::new(),
        }
    }
}

impl ImageConfig {
    /// The config of an image with nothing in it, for `platform`, as `FROM scratch` begins.
    pub fn scratch(platform: &crate::Platform) -> Self {
        Self {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone(),
            os_version: platform.os_version.clone(),
            os_features: platform.os_features.clone(),
            config: ContainerConfig {
                env: vec![DEFAULT_PATH.to_owned()],
                working_dir: "/".to_owned(),
                ..ContainerConfig::default()
            },
            ..Self::default()
        }
    }

    /// The platform that the image says it is for.
    pub fn platform(&self) -> crate::Platform {
        crate::Platform {
            os: self.os.clone(),
            architecture: self.architecture.clone(),
            variant: self.variant.clone(),
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
        }
        .normalized()
    }
}

impl ContainerConfig {
    /// The value of an environment variable.
    pub fn env(&self, name: &str) -> Option<&str> {
        self.env
            .iter()
            .rev()
            .find_map(|entry| match entry.split_once('=') {
                Some((key, value)) if key == name => Some(value),
                None if entry == name => Some(""),
                _ => None,
            })
    }

    /// Sets an environment variable, in its place if it is there and at the end if not.
    pub fn set_env(&mut self, name: &str, value: &str) {
        let entry = format!("{name}={value}");
        match self
            .env
            .iter_mut()
            .find(|old| old.split('=').next() == Some(name))
        {
            Some(old) => *old = entry,
            None => self.env.push(entry),
        }
    }
}

fn layers() -> String {
    "layers".to_owned()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// Docker writes `null` for what is empty.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Go's way of writing a set: an object whose values are all `{}`.
mod set_as_map {
    use super::{BTreeSet, Deserialize, Deserializer, SerializeMap, Serializer};

    pub(super) fn serialize<S: Serializer>(set: &BTreeSet<String>, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(set.len()))?;
        for key in set {
            map.serialize_entry(key, &serde_json::Map::new())?;
        }
        map.end()
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeSet<String>, D::Error> {
        let map: Option<serde_json::Map<String, serde_json::Value>> = Option::deserialize(deserializer)?;
        Ok(map.unwrap_or_default().into_iter().map(|(key, _)| key).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_docker_config_full_of_nulls_is_read() {
        let text = r#"{"architecture":"arm","variant":"v7","os":"linux","docker_version":"1.0","config":{"Hostname":"","User":"",
            "Env":null,"Cmd":["sh"],"Volumes":null,"ExposedPorts":{"80/tcp":{}},"OnBuild":null,"Healthcheck":{"Test":["NONE"]},
            "StopTimeout":3},"rootfs":{"type":"layers","diff_ids":null},"history":null}"#;
        let config: ImageConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.config.cmd, ["sh"]);
        assert_eq!(config.config.exposed_ports.iter().next().unwrap(), "80/tcp");
        assert_eq!(config.config.stop_timeout, Some(3));
        assert_eq!(config.platform().to_string(), "linux/arm/v7");
        assert_eq!(config.extra["docker_version"], "1.0");
        let again: ImageConfig = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
        assert_eq!(again, config);
    }

    #[test]
    fn fields_are_written_in_buildkits_order() {
        let mut config = ImageConfig::scratch(&"linux/arm64".parse().unwrap());
        config.author = "me".into();
        config.config.labels.insert("a".into(), "b".into());
        config.config.volumes.insert("/data".into());
        config.config.shell = vec!["/bin/sh".into()];
        config.history.push(History {
            created_by: "VOLUME /data".into(),
            empty_layer: true,
            ..History::default()
        });
        assert_eq!(
            serde_json::to_string(&config).unwrap(),
            concat!(
                r#"{"architecture":"arm64","author":"me","config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:"#,
                r#"/usr/bin:/sbin:/bin"],"Volumes":{"/data":{}},"WorkingDir":"/","Labels":{"a":"b"},"Shell":["/bin/sh"]},"#,
                r#""history":[{"created_by":"VOLUME /data","empty_layer":true}],"os":"linux","#,
                r#""rootfs":{"type":"layers","diff_ids":[]}}"#
            )
        );
    }

    #[test]
    fn an_environment_variable_keeps_its_place() {
        let mut config = ContainerConfig::default();
        for (name, value) in [("A", "1"), ("B", "2"), ("A", "3")] {
            config.set_env(name, value);
        }
        assert_eq!(config.env, ["A=3", "B=2"]);
        assert_eq!((config.env("A"), config.env("C")), (Some("3"), None));
    }
}
