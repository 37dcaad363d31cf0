//! Waiting for a condition with a bounded deadline: never for time alone.

use std::{fmt::Debug, future::Future, time::Duration};

use anyhow::{Result, anyhow, bail};
use kube::{
    Api,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

/// Between two looks at something that cannot be watched.
const INTERVAL: Duration = Duration::from_millis(100);

/// Calls `look` until it returns a value. `None` means "not yet"; an error ends the wait at once.
///
/// # Errors
/// What `look` returned, or that `what` did not come within `limit`.
pub async fn until<T, F, Fut>(what: &str, limit: Duration, mut look: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Option<T>>>,
{
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = look().await? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("{what}: not within {} s", limit.as_secs());
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Watches one object until `condition` holds, and returns it as it was then.
///
/// # Errors
/// When that did not happen within `limit`; the error shows the object as last seen.
pub async fn object<K>(
    api: &Api<K>,
    name: &str,
    what: &str,
    limit: Duration,
    mut condition: impl FnMut(&K) -> bool,
) -> Result<K>
where
    K: kube::Resource + Clone + Debug + DeserializeOwned + serde::Serialize + Send + 'static,
{
    use futures::TryStreamExt as _;
    let mut last: Option<K> = None;
    let watch = async {
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let stream = watcher(api.clone(), config).default_backoff().applied_objects();
        let mut stream = std::pin::pin!(stream);
        loop {
            match stream.try_next().await {
                Ok(Some(seen)) if condition(&seen) => return Some(seen),
                Ok(Some(seen)) => last = Some(seen),
                Ok(None) => return None,
                // The watcher backs off and starts anew; the deadline bounds it.
                Err(_) => {}
            }
        }
    };
    let found = tokio::time::timeout(limit, watch).await;
    if let Ok(Some(seen)) = found {
        Ok(seen)
    } else {
        let seen = last.map_or_else(
            || "it does not exist".to_owned(),
            |k| serde_json::to_string_pretty(&k).unwrap_or_default(),
        );
        Err(anyhow!(
            "{name}: {what}: not within {} s; last seen: {seen}",
            limit.as_secs()
        ))
    }
}

/// Waits until an object is gone.
///
/// # Errors
/// When it is still there after `limit`.
pub async fn gone<K>(api: &Api<K>, name: &str, limit: Duration) -> Result<()>
where
    K: kube::Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    until(&format!("{name} is gone"), limit, || async {
        match api.get_metadata_opt(name).await {
            Ok(Some(_)) => Ok(None),
            Ok(None) => Ok(Some(())),
            Err(error) => Err(error.into()),
        }
    })
    .await
}
