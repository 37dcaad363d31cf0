//! Manifests with several documents.

use anyhow::{Context, Result};
use serde_json::Value;

/// The documents of a YAML (or JSON) text, empty ones left out.
pub fn documents(text: &str) -> Result<Vec<Value>> {
    let values: Vec<Value> = serde_yaml::from_multiple(text).context("failed to parse a manifest")?;
    Ok(values.into_iter().filter(|value| !value.is_null()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_may_have_comments_and_several_documents() {
        let all = documents("# why\nkind: A\n---\nkind: B\nmetadata: {name: x}\n").unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!(all[1]["metadata"]["name"], "x");
    }
}
