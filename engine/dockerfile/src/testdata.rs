//! Reads the recorded behaviour for tests.

use std::path::PathBuf;

use serde::de::DeserializeOwned;

pub(crate) fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

pub(crate) fn text(name: &str) -> String {
    let path = path(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The `cases` of one of the JSON files.
pub(crate) fn cases<T: DeserializeOwned>(name: &str) -> Vec<T> {
    #[derive(serde::Deserialize)]
    struct File<T> {
        cases: Vec<T>,
    }
    let file: File<T> = serde_json::from_str(&text(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    file.cases
}
