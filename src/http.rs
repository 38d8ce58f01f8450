//! The daemon's HTTP surface: health, metrics and status for everyone, changes for those who may.
//!
//! Reads are answered on a TCP address (loopback unless an operator opens it) and on the
//! Unix socket. Changes are taken from root and from the daemon's own user over the
//! socket, or over TCP with a bearer token. From beyond this machine the API's reads need
//! the token as well; metrics and health do not. Whatever goes wrong is told as
//! `{"error": "…"}`.

pub mod access;
mod admin;
mod explain;
pub mod health;
mod metrics;
pub mod openapi;
mod page;
pub mod server;
mod status;

pub use access::{Token, TokenWatch};
pub use health::Pulse;
pub use server::{AdminSocket, Limits, SocketError, serve};

use crate::control::status::Handle;
use access::Caller;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tracing::warn;

/// Renders the metrics.
pub type Render = Arc<dyn Fn() -> String + Send + Sync>;

/// What the handlers share.
#[derive(Clone)]
pub struct Surface {
    /// The controller.
    pub handle: Handle,
    /// How the loop is doing.
    pub pulse: Arc<Pulse>,
    /// Renders the metrics.
    pub render: Render,
    /// What allows changes over TCP; `None` when no token is configured, which allows none.
    pub token: Option<TokenWatch>,
}

/// Builds the routes.
pub fn router(surface: Surface, limits: &Limits) -> Router {
    let time = limits.request;
    let api = Router::new()
        .route("/api/v1/openapi.json", get(openapi::show))
        .route("/api/v1/status", get(status::show))
        .route("/api/v1/decisions", get(status::decisions))
        .route("/api/v1/forecast", get(status::forecasts))
        .route("/api/v1/cost", get(status::cost))
        .route("/api/v1/explain/pods/{namespace}/{name}", get(explain::pod))
        .route("/api/v1/explain/nodes/{name}", get(explain::node))
        .route("/api/v1/explain/offers", get(explain::offers))
        .route("/api/v1/pause", post(admin::pause))
        .route("/api/v1/resume", post(admin::resume))
        .route("/api/v1/offers/reset", post(admin::reset_offers))
        .route("/api/v1/evaluate", post(admin::evaluate))
        .route_layer(middleware::from_fn_with_state(surface.clone(), guard));
    Router::new()
        .route("/", get(page::show))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::show))
        .merge(api)
        .fallback(|| async { failure(StatusCode::NOT_FOUND, "there is nothing at this path") })
        .method_not_allowed_fallback(|| async { failure(StatusCode::METHOD_NOT_ALLOWED, "this path does not know this method") })
        .layer(DefaultBodyLimit::max(limits.body))
        .layer(middleware::from_fn(move |request: Request, next: Next| in_time(time, request, next)))
        .with_state(surface)
}

/// Refuses whoever is beyond this machine and does not show the token.
async fn guard(State(surface): State<Surface>, Extension(caller): Extension<Caller>, request: Request, next: Next) -> Response {
    if let Err((code, why)) = access::admit(caller, request.headers(), surface.token.as_ref()) {
        warn!(?caller, why, "a request is refused");
        return failure(code, why);
    }
    next.run(request).await
}

/// Ends a request that takes too long, however slowly its body comes.
async fn in_time(limit: Duration, request: Request, next: Next) -> Response {
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => failure(StatusCode::GATEWAY_TIMEOUT, "this took too long; what was asked for may still come about"),
    }
}

/// Answers that it did not work.
fn failure(code: StatusCode, text: impl AsRef<str>) -> Response {
    (code, axum::Json(json!({ "error": text.as_ref() }))).into_response()
}

#[cfg(test)]
mod tests;
