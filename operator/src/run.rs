//! Puts everything together: logs, client, endpoints, election, controller, shutdown.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use kube::{
    Client,
    runtime::events::{Recorder, Reporter},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing_subscriber::EnvFilter;

use crate::{
    config::{Config, LogFormat, Options},
    controller,
    http::{self, Health},
    leader,
    metrics::Metrics,
    observe, registry,
};

/// Between two looks whether the CRD is there.
const LOOK_FOR_CRD: Duration = Duration::from_secs(2);

/// Sets up the log.
pub fn log(options: &Options) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&options.log)
        .with_context(|| format!("failed to understand --log {:?}", options.log))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false);
    match options.log_format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}

/// Runs the operator until SIGTERM or SIGINT.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let config = Arc::new(Config::read(&options.config)?);
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(until_signal(stop));

    let metrics = Arc::new(Metrics::default());
    let health = Health::new(Arc::clone(&metrics));
    let server = http::serve(options.listen, health.clone(), when_true(stopped.clone()));
    let server = tokio::spawn(server);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), listen = %options.listen, runner = config.runner.image, "starting");

    let client = Client::try_default()
        .await
        .context("failed to find the cluster: run in a pod or set KUBECONFIG")?;
    wait_for_api(&client, options.namespace.as_deref(), &health, stopped.clone()).await;
    let identity = options
        .identity
        .clone()
        .unwrap_or_else(|| format!("pid-{}", std::process::id()));
    if !*stopped.borrow() {
        let manager = leader::manager(
            client.clone(),
            options.lease_namespace.as_deref(),
            &options.lease_name,
            &identity,
        )
        .await
        .context("failed to reach the lease; check the Role in the operator's namespace")?;
        health.set_ready();
        let reporter = Reporter {
            controller: "slipway-operator".to_owned(),
            instance: Some(identity),
        };
        let recorder = Recorder::new(client.clone(), reporter);
        let connect: Arc<dyn registry::Connect> = Arc::new(registry::Client::new(config.registries.clone()));
        // On the heap: what a whole reconcile holds is too large for a stack.
        Box::pin(leader::lead(manager, stopped, Arc::clone(&metrics), |stopped| {
            controller::run(
                client.clone(),
                options.namespace.clone(),
                Arc::clone(&config),
                Arc::clone(&connect),
                Arc::clone(&metrics),
                recorder.clone(),
                when_true(stopped),
            )
        }))
        .await;
    }
    server
        .await
        .context("the endpoints ended early")?
        .with_context(|| format!("failed to listen on {}", options.listen))
}

/// Waits for the CRD and the right to read it, and tells that in `/readyz` and the log instead of exiting.
async fn wait_for_api(
    client: &Client,
    namespace: Option<&str>,
    health: &Health,
    mut stopped: watch::Receiver<bool>,
) {
    while let Err(error) = observe::api_is_there(client, namespace).await {
        let why =
            format!("cannot list ImageBuilds: {error}; are CRD and ClusterRole of the chart installed?");
        tracing::warn!("{why}");
        health.set_waiting(why);
        tokio::select! {
            () = tokio::time::sleep(LOOK_FOR_CRD) => {}
            _ = stopped.wait_for(|stop| *stop) => return,
        }
    }
}

async fn when_true(mut flag: watch::Receiver<bool>) {
    // An error means that the sender is gone, and then it is time to stop as well.
    let _ = flag.wait_for(|set| *set).await;
}

async fn until_signal(stop: watch::Sender<bool>) {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("failed to listen to signals");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
    }
    stop.send_replace(true);
    stop.closed().await;
}
