//! Reads why the steps of a build ran, as its plan pod has written it down.

use crate::error::{BuildError, Result};
use slipway_oci::Digest;
use slipway_plan::{
    explain::{EXPLANATION_TYPE, Explanation},
    protocol::FailureReason,
};
use slipway_registry::Repository;

/// An explanation larger than this is none.
const LIMIT: u64 = 16 << 20;

/// The explanation that belongs to a plan: `status.plan.digest` of an ImageBuild, in its cache repository.
///
/// # Errors
/// Those of the registry; a plan of a version that explained nothing.
pub async fn read(repository: &Repository, plan: &Digest) -> Result<Explanation> {
    let artifact = repository.get_artifact(plan).await?;
    let layer = artifact.layer(EXPLANATION_TYPE).ok_or_else(|| {
        BuildError::new(
            FailureReason::RegistryError,
            format!(
                "{repository}@{plan} explains nothing: it is no plan, or of an older version; build again"
            ),
        )
    })?;
    let bytes = repository.read_blob(&layer.digest, LIMIT).await?;
    serde_json::from_slice(&bytes).map_err(|error| {
        BuildError::new(
            FailureReason::RegistryError,
            format!("the explanation of {repository}@{plan} cannot be read: {error}"),
        )
    })
}
