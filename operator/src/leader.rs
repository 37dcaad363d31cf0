//! One replica works, the others stand by: leader election by a Lease.

use std::{future::Future, sync::Arc};

use kube::Client;
use kube_lease_manager::{DurationSeconds, LeaseManager, LeaseManagerBuilder, LeaseManagerError};
use tokio::sync::watch;

use crate::metrics::Metrics;

/// A leader that is gone without a word is replaced after so many seconds. kube-lease-manager does not watch the lease,
/// so this is also how long a replica in reserve sleeps when the leader has let go.
const DURATION: DurationSeconds = 8;
/// The leader renews so many seconds before the lease ends.
const GRACE: DurationSeconds = 4;

/// The lease.
pub async fn manager(
    client: Client,
    namespace: Option<&str>,
    name: &str,
    identity: &str,
) -> Result<LeaseManager, LeaseManagerError> {
    let builder = LeaseManagerBuilder::new(client, name)
        .with_identity(identity)
        .with_duration(DURATION)
        .with_grace(GRACE)
        .with_field_manager(format!("slipway-{identity}"));
    let builder = match namespace {
        Some(namespace) => builder.with_namespace(namespace),
        None => builder,
    };
    builder.build().await
}

/// Runs `work` whenever this replica leads, until `shutdown` is true; then lets the lease go. `work` gets a future that
/// resolves when it is to stop; it is waited for, so that two replicas never work at once in a handover.
pub async fn lead<W>(
    manager: LeaseManager,
    mut shutdown: watch::Receiver<bool>,
    metrics: Arc<Metrics>,
    mut work: impl FnMut(watch::Receiver<bool>) -> W,
) where
    W: Future<Output = ()>,
{
    let (mut leads, task) = manager.watch().await;
    loop {
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => break,
            led = leads.wait_for(|leads| *leads) => {
                if led.is_err() {
                    tracing::error!("the election has ended");
                    break;
                }
            }
        }
        tracing::info!("leading");
        metrics.leads(true);
        let (stop, stopped) = watch::channel(false);
        let work = work(stopped);
        tokio::pin!(work);
        tokio::select! {
            () = &mut work => break,
            _ = shutdown.wait_for(|stop| *stop) => {
                stop.send_replace(true);
                work.await;
                break;
            }
            _ = leads.wait_for(|leads| !*leads) => {
                // Lost: another replica may be at work already, so nothing is brought to an end here.
                tracing::warn!("the lease is lost");
                metrics.leads(false);
            }
        }
    }
    metrics.leads(false);
    // With its last receiver gone the manager releases the lease.
    drop(leads);
    match task.await {
        Ok(Ok(_)) => tracing::info!("the lease is released"),
        Ok(Err(error)) => tracing::warn!(%error, "failed to release the lease"),
        Err(error) => tracing::warn!(%error, "the election ended early"),
    }
}
