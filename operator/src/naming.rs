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
