//! `/healthz`, `/readyz` and `/metrics`.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{Router, extract::State, http::StatusCode, http::header, response::IntoResponse, routing::get};

use crate::metrics::Metrics;

/// What the endpoints tell.
#[derive(Clone)]
pub struct Health {
    metrics: Arc<Metrics>,
    ready: Arc<AtomicBool>,
    /// Why it is not ready.
    waits_for: Arc<Mutex<String>>,
}

impl Health {
    /// Healthy, and not ready yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            ready: Arc::default(),
            waits_for: Arc::new(Mutex::new("starting".to_owned())),
        }
    }

    /// From now on it can take over work, as leader or in reserve.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    /// It cannot work yet, because of this.
    pub fn set_waiting(&self, why: String) {
        *self.waits_for.lock().unwrap_or_else(PoisonError::into_inner) = why;
        self.ready.store(false, Ordering::Release);
    }
}

/// Serves until `shutdown` resolves.
pub async fn serve(
    listen: SocketAddr,
    health: Health,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind(listen).await?;
    axum::serve(listener, router(health))
        .with_graceful_shutdown(shutdown)
        .await
}

fn router(health: Health) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(health)
}

async fn ready(State(health): State<Health>) -> (StatusCode, String) {
    if health.ready.load(Ordering::Acquire) {
        return (StatusCode::OK, "ok".to_owned());
    }
    (
        StatusCode::SERVICE_UNAVAILABLE,
        health
            .waits_for
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone(),
    )
}

async fn metrics(State(health): State<Health>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], health.metrics.text())
}
