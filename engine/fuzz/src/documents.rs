//! JSON that a registry or a user sends: manifests, indexes, image configs, schedules, plans.

use slipway_oci::{Digest, ImageConfig, ImageIndex, ImageManifest, Platform, Reference};
use slipway_plan::{BuildPlan, protocol::Schedule};

/// Reads a manifest, an index, a schedule, a plan; and the text as reference, digest and platform.
pub fn manifest(data: &[u8]) {
    if let Ok(manifest) = serde_json::from_slice::<ImageManifest>(data) {
        let _ = serde_json::to_vec(&manifest).expect("a manifest can be written");
    }
    if let Ok(index) = serde_json::from_slice::<ImageIndex>(data) {
        for platform in ["linux/amd64", "linux/arm/v6", "windows/amd64"] {
            let platform: Platform = platform.parse().expect("a platform");
            let _ = platform.choose(&index);
        }
    }
    if let Ok(schedule) = serde_json::from_slice::<Schedule>(data) {
        let _ = serde_json::to_vec(&schedule).expect("a schedule can be written");
    }
    if let Ok(plan) = serde_json::from_slice::<BuildPlan>(data) {
        let _ = serde_json::to_vec(&plan).expect("a plan can be written");
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(reference) = text.parse::<Reference>() {
        let again: Reference = reference
            .to_string()
            .parse()
            .expect("a reference can be read again");
        assert_eq!(again, reference);
        let _ = (reference.familiar(), reference.without_tag_and_digest());
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
    if let Ok(platform) = text.parse::<Platform>() {
        let again: Platform = platform
            .to_string()
            .parse()
            .expect("a platform can be read again");
        assert_eq!(again, platform);
    }
}

/// Reads an image config; what is read can be written, and read again as the same.
pub fn config(data: &[u8]) {
    let Ok(mut config) = serde_json::from_slice::<ImageConfig>(data) else {
        return;
    };
    let text = serde_json::to_vec(&config).expect("a config can be written");
    let again: ImageConfig = serde_json::from_slice(&text).expect("a config can be read again");
    assert_eq!(again, config);
    let _ = config.platform();
    let _ = config.config.env("PATH");
    config.config.set_env("PATH", "/bin");
    assert_eq!(config.config.env("PATH"), Some("/bin"));
}
