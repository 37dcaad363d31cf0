//! `spec.secrets`: what one `RUN` may read and nothing keeps.

#![allow(
    unreachable_pub,
    reason = "KubeSchema repeats each type inside a function body"
)]

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::KeyRef;
use crate::rules;

/// A secret for `RUN --mount=type=secret`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Secret {
    /// The id that the Dockerfile uses.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new(rules::SECRET_ID.0).message(rules::SECRET_ID.1))]
    pub id: String,
    /// The key of a Secret that holds the value.
    pub secret_ref: KeyRef,
}
