//! Annotations as exporters take them: `annotation.key`, `annotation-index.key`, `annotation-manifest[linux/arm64].key`.

use crate::image::Annotations;
use slipway_oci::Platform;

/// Annotations with the places that they are for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnnotationSet(Vec<Annotation>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Annotation {
    level: Level,
    platform: Option<Platform>,
    key: String,
    value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Manifest,
    ManifestDescriptor,
    Index,
    IndexDescriptor,
}

impl AnnotationSet {
    /// Adds one in the form of an exporter's attribute: `annotation…`. `None`: not an annotation.
    pub fn add_attribute(&mut self, name: &str, value: &str) -> Option<Result<(), String>> {
        let rest = name.strip_prefix("annotation")?;
        let (head, key) = match rest.split_once('.') {
            // A key may hold dots, and so may the platform's version: the first dot after the bracket counts.
            Some(_) if rest.contains('[') => {
                let end = rest.find(']')?;
                (&rest[..=end], rest[end + 1..].strip_prefix('.')?)
            }
            Some(parts) => parts,
            None => return None,
        };
        Some(self.add(head.trim_start_matches('-'), key, value))
    }

    /// Adds one in the form of `--annotation`: `[LEVEL[PLATFORM],…:]KEY=VALUE`.
    pub fn add_flag(&mut self, text: &str) -> Result<(), String> {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| format!("annotation {text:?} is not KEY=VALUE"))?;
        let (levels, key) = match name.split_once(':') {
            Some((levels, key)) if is_levels(levels) => (levels, key),
            _ => ("manifest", name),
        };
        for level in levels.split(',') {
            self.add(level.trim(), key, value)?;
        }
        Ok(())
    }

    fn add(&mut self, head: &str, key: &str, value: &str) -> Result<(), String> {
        let (level, platform) = match head.split_once('[') {
            Some((level, platform)) => {
                let text = platform.trim_end_matches(']');
                let platform = text
                    .parse()
                    .map_err(|error| format!("annotation for {text:?}: {error}"))?;
                (level, Some(platform))
            }
            None => (head, None),
        };
        let level = match level {
            "" | "manifest" => Level::Manifest,
            "manifest-descriptor" => Level::ManifestDescriptor,
            "index" => Level::Index,
            "index-descriptor" => Level::IndexDescriptor,
            other => return Err(format!("{other:?} is no place for an annotation")),
        };
        self.0.push(Annotation {
            level,
            platform,
            key: key.into(),
            value: value.into(),
        });
        Ok(())
    }

    fn select(&self, level: Level, platform: Option<&Platform>) -> Annotations {
        // Those for all platforms first, so that one for this platform wins.
        let mut found: Vec<&Annotation> = self
            .0
            .iter()
            .filter(|one| one.level == level && (one.platform.is_none() || one.platform.as_ref() == platform))
            .collect();
        found.sort_by_key(|one| one.platform.is_some());
        found
            .into_iter()
            .map(|one| (one.key.clone(), one.value.clone()))
            .collect()
    }

    /// Those of a platform's manifest.
    pub fn manifest(&self, platform: &Platform) -> Annotations {
        self.select(Level::Manifest, Some(platform))
    }

    /// Those of a platform's descriptor in the index.
    pub fn manifest_descriptor(&self, platform: &Platform) -> Annotations {
        self.select(Level::ManifestDescriptor, Some(platform))
    }

    /// Those of the index.
    pub fn index(&self) -> Annotations {
        self.select(Level::Index, None)
    }

    /// Those of the index's descriptor in an OCI layout.
    pub fn index_descriptor(&self) -> Annotations {
        self.select(Level::IndexDescriptor, None)
    }
}

fn is_levels(text: &str) -> bool {
    text.split(',').all(|level| {
        let level = level.trim().split('[').next().unwrap_or_default();
        ["manifest", "manifest-descriptor", "index", "index-descriptor"].contains(&level)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_go_where_they_are_for() {
        let mut set = AnnotationSet::default();
        set.add_attribute("annotation.a.b", "1").unwrap().unwrap();
        set.add_attribute("annotation-index.k", "2").unwrap().unwrap();
        set.add_attribute("annotation[linux/arm64].a.b", "3")
            .unwrap()
            .unwrap();
        set.add_flag("index,manifest-descriptor:x=y=z").unwrap();
        set.add_flag("org.example:key=v").unwrap();
        assert!(set.add_attribute("annotation-nowhere.k", "v").unwrap().is_err());
        assert!(set.add_attribute("name", "v").is_none());
        let amd: Platform = "linux/amd64".parse().unwrap();
        let arm: Platform = "linux/arm64".parse().unwrap();
        assert_eq!(set.manifest(&amd)["a.b"], "1");
        assert_eq!(set.manifest(&arm)["a.b"], "3");
        assert_eq!(set.manifest(&amd)["org.example:key"], "v");
        assert_eq!(
            (set.index()["k"].as_str(), set.index()["x"].as_str()),
            ("2", "y=z")
        );
        assert_eq!(set.manifest_descriptor(&amd)["x"], "y=z");
    }
}
