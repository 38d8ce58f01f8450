//! `GET /metrics`

use super::Surface;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

/// The content type that goes with the text.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) async fn show(State(surface): State<Surface>) -> impl IntoResponse {
    ([(CONTENT_TYPE, OPEN_METRICS)], (surface.render)())
}
