//! Who waits for claims, and whose turn it is to take some. All of it may be lost: an operator that starts learns who
//! waits from its first decisions.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::{
    Api, Client, ResourceExt as _, api::PostParams, core::DeserializeGuard, runtime::reflector::ObjectRef,
};
use slipway_crd::ImageBuild;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::{Waiter, of_labels, probe};

/// So long it is believed that there is, or is not, a default storage class.
const CLASS_IS_KNOWN: Duration = Duration::from_secs(30);

type Guarded = DeserializeGuard<ImageBuild>;

/// Shared by all reconciles.
pub struct Desk {
    inner: Mutex<Inner>,
    wakes: UnboundedSender<ObjectRef<Guarded>>,
}

#[derive(Default)]
struct Inner {
    turns: HashMap<String, Arc<AsyncMutex<()>>>,
    waiters: HashMap<String, Waiter>,
    class: Option<(Instant, bool)>,
}

impl Desk {
    /// Knows of nobody. The stream gives the builds that are to be looked at again.
    pub fn new() -> (Self, UnboundedReceiver<ObjectRef<Guarded>>) {
        let (wakes, woken) = unbounded();
        let inner = Mutex::default();
        (Self { inner, wakes }, woken)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for this namespace's turn. From the look at who uses which claim until the pods that were decided upon are
    /// created, nobody else may look: two builds that see the same free claim would both take it.
    pub async fn turn(&self, namespace: &str) -> OwnedMutexGuard<()> {
        let turn = Arc::clone(self.lock().turns.entry(namespace.to_owned()).or_default());
        turn.lock_owned().await
    }

    /// Tells that a build waits, or does not any more.
    pub fn waits(&self, uid: &str, waiter: Option<Waiter>) {
        let mut inner = self.lock();
        match waiter {
            Some(waiter) => inner.waiters.insert(uid.to_owned(), waiter),
            None => inner.waiters.remove(uid),
        };
    }

    /// The builds of a namespace that wait, other than `uid`.
    pub fn waiters(&self, namespace: &str, uid: &str) -> Vec<Waiter> {
        let inner = self.lock();
        inner
            .waiters
            .iter()
            .filter(|(other, waiter)| *other != uid && waiter.namespace == namespace)
            .map(|(_, waiter)| waiter.clone())
            .collect()
    }

    /// Learns that a pod has changed or gone: whoever waits in its namespace looks again.
    pub fn changed(&self, pod: &Pod) {
        if of_labels(pod.labels()).next().is_none() {
            return;
        }
        for waiter in self.waiters(&pod.namespace().unwrap_or_default(), "") {
            self.wake(&waiter);
        }
    }

    fn wake(&self, waiter: &Waiter) {
        let build = ObjectRef::new(&waiter.name).within(&waiter.namespace);
        // Nobody listens any more: the controller has ended.
        let _ = self.wakes.unbounded_send(build);
    }

    /// Whether a claim without a class would get the cluster's default one. Asked of the API server by a dry run, which
    /// needs no right to read storage classes.
    pub async fn has_default_class(&self, client: &Client, namespace: &str) -> Result<bool, kube::Error> {
        if let Some((since, known)) = self.lock().class
            && since.elapsed() < CLASS_IS_KNOWN
        {
            return Ok(known);
        }
        let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
        let params = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let known = match api.create(&params, &probe(namespace)).await {
            Ok(claim) => claim
                .spec
                .and_then(|spec| spec.storage_class_name)
                .is_some_and(|class| !class.is_empty()),
            // A quota or a policy: it will say its word about the claim itself too, where it is told as such.
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 409 | 422) => return Ok(true),
            Err(error) => return Err(error),
        };
        self.lock().class = Some((Instant::now(), known));
        Ok(known)
    }

    /// Learns that a build is gone: those that waited behind it look again.
    pub fn gone(&self, uid: &str) {
        let gone = self.lock().waiters.remove(uid);
        if let Some(gone) = gone {
            for waiter in self.waiters(&gone.namespace, uid) {
                self.wake(&waiter);
            }
        }
    }

    /// Forgets the builds that are not in `uids`; those that waited behind one look again.
    pub fn keep_only(&self, uids: &HashSet<String>) {
        let mut inner = self.lock();
        // One that nobody holds and nobody waits for.
        inner.turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        let gone: Vec<String> = inner
            .waiters
            .keys()
            .filter(|uid| !uids.contains(*uid))
            .cloned()
            .collect();
        drop(inner);
        for uid in gone {
            self.gone(&uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;
    use futures::FutureExt as _;

    fn waiter(name: &str) -> Waiter {
        let mut build = fixtures::build();
        build.metadata.name = Some(name.into());
        Waiter::of(&build, Vec::new())
    }

    fn pod(namespace: &str, label: &str) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.namespace = Some(namespace.into());
        pod.metadata.labels = Some([(label.to_owned(), "locked".to_owned())].into());
        pod
    }

    #[test]
    fn a_change_of_a_pod_with_a_claim_wakes_those_that_wait_in_its_namespace() {
        let (desk, mut woken) = Desk::new();
        desk.waits("u", Some(waiter("shop")));
        desk.changed(&pod("team", "app.kubernetes.io/name"));
        desk.changed(&pod("other", "cache.slipway.build/c"));
        assert!(woken.try_recv().is_err());
        desk.changed(&pod("team", "cache.slipway.build/c"));
        assert_eq!(woken.try_recv().unwrap().name, "shop");
        desk.waits("u", None);
        desk.changed(&pod("team", "cache.slipway.build/c"));
        assert!(woken.try_recv().is_err());
    }

    #[test]
    fn one_that_is_gone_is_in_nobodys_way() {
        let (desk, mut woken) = Desk::new();
        desk.waits("u", Some(waiter("gone")));
        desk.waits("v", Some(waiter("shop")));
        assert_eq!(desk.waiters("team", "v").len(), 1);
        desk.keep_only(&["v".to_owned()].into());
        assert!(desk.waiters("team", "v").is_empty());
        assert_eq!(woken.try_recv().unwrap().name, "shop");
    }

    #[tokio::test]
    async fn one_at_a_time_looks_at_a_namespace() {
        let (desk, _woken) = Desk::new();
        let turn = desk.turn("team").await;
        assert!(desk.turn("other").now_or_never().is_some());
        assert!(desk.turn("team").now_or_never().is_none());
        drop(turn);
        assert!(desk.turn("team").now_or_never().is_some());
    }
}
