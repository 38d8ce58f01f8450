//! `GET /api/v1/openapi.json`: what the surface is, for machines.
//!
//! Written by hand, so that the nouns need not know of it. `tests/openapi.rs` holds it against the routes and against
//! what a daemon in the simulated world really answers.

use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

/// The document.
pub const DOCUMENT: &str = include_str!("openapi.json");

pub(super) async fn show() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], DOCUMENT)
}
