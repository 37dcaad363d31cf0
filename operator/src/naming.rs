//! Names and labels of what the operator creates. Deterministic, so that doing a thing twice does it once.

use sha2::{Digest as _, Sha256};

/// Pod names stay within this, so that they are fit for a host name and a label value.
pub const LIMIT: usize = 63;

/// The plan pod of an attempt.
pub fn plan_pod(build: &str, run: i64, attempt: u32) -> String {
    bounded(&format!("{build}-{run}-plan-{attempt}"))
}

/// The pod of a stage and an attempt.
pub fn stage_pod(build: &str, run: i64, stage: &str, attempt: u32) -> String {
    bounded(&format!("{build}-{run}-{stage}-{attempt}"))
}

/// The ConfigMap with the request of a run.
pub fn request(build: &str, run: i64) -> String {
    bounded(&format!("{build}-{run}-request"))
}

/// The claim of a cache mount.
pub fn claim(id: &str, architecture: &str, number: u32) -> String {
    bounded(&format!(
        "slipway-cache-{}-{architecture}-{number}",
        cache_label(id)
    ))
}

/// The value of the label `slipway.build/cache`: what is readable of the id, and a hash, so that two ids never meet.
pub fn cache_label(id: &str) -> String {
    let mut readable = String::new();
    for c in id.chars().map(|c| c.to_ascii_lowercase()) {
        if c.is_ascii_lowercase() || c.is_ascii_digit() {
            readable.push(c);
        } else if !readable.is_empty() && !readable.ends_with('-') {
            readable.push('-');
        }
    }
    readable.truncate(20);
    let hash = hex::encode(Sha256::digest(id));
    format!("{readable}-{}", hash.get(..8).unwrap_or_default())
        .replace("--", "-")
        .trim_start_matches('-')
        .to_owned()
}

/// The value of the label `slipway.build/build`.
pub fn build_label(build: &str) -> String {
    bounded(build)
}

/// `text` itself if it is a DNS label; else a shortened form with a hash of the whole, so that two texts never meet.
pub fn bounded(text: &str) -> String {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.len() <= LIMIT && text.chars().all(fits) {
        return text.to_owned();
    }
    let clean: String = text
        .chars()
        .map(|c| if fits(c) { c } else { '-' })
        .take(LIMIT - 9)
        .collect();
    let hash = hex::encode(Sha256::digest(text));
    format!(
        "{}-{}",
        clean.trim_end_matches('-'),
        hash.get(..8).unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_is_readable() {
        assert_eq!(plan_pod("shop", 3, 1), "shop-3-plan-1");
        assert_eq!(
            stage_pod("shop", 3, "build-linux-amd64", 2),
            "shop-3-build-linux-amd64-2"
        );
        assert_eq!(request("shop", 3), "shop-3-request");
    }

    #[test]
    fn a_claims_name_shows_its_id() {
        let name = claim("/root/.npm", "amd64", 0);
        assert!(
            name.starts_with("slipway-cache-root-npm-") && name.ends_with("-amd64-0"),
            "{name}"
        );
        let ids = [
            "/root/.npm",
            "root/npm",
            "/",
            "é",
            "",
            &"x/".repeat(200),
            &"x/".repeat(201),
        ];
        let names: Vec<_> = ids.iter().map(|id| claim(id, "arm-v7", 12)).collect();
        for (index, name) in names.iter().enumerate() {
            assert!(name.len() <= LIMIT && name.ends_with("-arm-v7-12"), "{name}");
            assert!(!names[..index].contains(name), "{name} twice");
            let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(name.chars().all(fits) && !name.contains("--"), "{name}");
        }
    }

    #[test]
    fn a_long_or_odd_name_is_bounded_and_stays_unique() {
        let long = "x".repeat(200);
        let names = [
            stage_pod(&long, 1, "a-linux-amd64", 1),
            stage_pod(&long, 1, "a-linux-amd64", 2),
            stage_pod("a.b", 1, "s", 1),
            stage_pod("a-b", 1, "s", 1),
            stage_pod("a", 1, "under_score-linux-amd64", 1),
        ];
        for (index, name) in names.iter().enumerate() {
            assert!(name.len() <= LIMIT && !name.contains(['.', '_']), "{name}");
            assert!(!names[..index].contains(name), "{name} twice");
        }
    }
}
