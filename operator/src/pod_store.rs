//! The pods that the watch has shown, for many reconciles to wait for at once.

use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector;
use tokio::sync::OnceCell;

/// The watch has ended, and with it all hope for its first list.
#[derive(Debug, thiserror::Error)]
#[error("failed to read pods: the watch has ended")]
pub struct PodsGone;

/// A store of pods.
#[derive(Debug)]
pub struct PodStore {
    store: reflector::Store<Pod>,
    first_list: OnceCell<()>,
}

impl PodStore {
    /// Over a store that a watch fills.
    pub fn new(store: reflector::Store<Pod>) -> Self {
        Self {
            store,
            first_list: OnceCell::new(),
        }
    }

    /// Waits for the watch's first list.
    ///
    /// kube's own `wait_until_ready` wakes only whoever asked last: of several builds that a new leader finds, all but
    /// one would sleep for ever. So one waiter asks kube at a time, and the others wait for that one.
    ///
    /// # Errors
    /// When the watch has ended before.
    pub async fn ready(&self) -> Result<&reflector::Store<Pod>, PodsGone> {
        let wait = || async { self.store.wait_until_ready().await.map_err(|_| PodsGone) };
        self.first_list.get_or_try_init(wait).await?;
        Ok(&self.store)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use kube::runtime::watcher;

    use super::*;

    #[tokio::test]
    async fn everybody_who_waits_is_woken() {
        let (store, mut writer) = reflector::store::<Pod>();
        let pods = Arc::new(PodStore::new(store));
        let waiters: Vec<_> = (0..20)
            .map(|_| {
                let pods = Arc::clone(&pods);
                tokio::spawn(async move { pods.ready().await.is_ok() })
            })
            .collect();
        // On this one thread each of them runs, and begins to wait, before this task goes on.
        tokio::task::yield_now().await;
        writer.apply_watcher_event(&watcher::Event::Init);
        writer.apply_watcher_event(&watcher::Event::InitDone);
        for waiter in waiters {
            let woken = tokio::time::timeout(Duration::from_secs(10), waiter).await;
            assert!(woken.expect("a waiter sleeps for ever").unwrap());
        }
    }

    #[tokio::test]
    async fn who_waits_takes_over_from_one_that_gave_up() {
        let (store, mut writer) = reflector::store::<Pod>();
        let pods = Arc::new(PodStore::new(store));
        let spawn = || {
            let pods = Arc::clone(&pods);
            tokio::spawn(async move { pods.ready().await.is_ok() })
        };
        let (first, second) = (spawn(), spawn());
        tokio::task::yield_now().await;
        first.abort();
        assert!(first.await.is_err());
        writer.apply_watcher_event(&watcher::Event::Init);
        writer.apply_watcher_event(&watcher::Event::InitDone);
        let woken = tokio::time::timeout(Duration::from_secs(10), second).await;
        assert!(woken.expect("the second waiter sleeps for ever").unwrap());
    }

    #[tokio::test]
    async fn an_ended_watch_is_told() {
        let (store, writer) = reflector::store::<Pod>();
        drop(writer);
        assert!(PodStore::new(store).ready().await.is_err());
    }
}
