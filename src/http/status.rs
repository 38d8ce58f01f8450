//! `GET /api/v1/status`, `GET /api/v1/decisions`, `GET /api/v1/forecast` and `GET /api/v1/cost`

use super::{Surface, failure};
use crate::control::status::{DECISIONS_KEPT, Decision};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How many decisions come unasked.
const DECISIONS_SHOWN: usize = 20;

pub(super) async fn show(State(surface): State<Surface>) -> Response {
    let status = surface.handle.status.borrow().clone();
    axum::Json(status).into_response()
}

pub(super) async fn forecasts(State(surface): State<Surface>) -> Response {
    let forecasts = surface.handle.status.borrow().forecasts.clone();
    axum::Json(serde_json::json!({ "forecasts": forecasts })).into_response()
}

pub(super) async fn cost(State(surface): State<Surface>) -> Response {
    let cost = surface.handle.status.borrow().cost.clone();
    axum::Json(serde_json::json!({ "cost": cost })).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    limit: Option<usize>,
}

#[derive(Serialize)]
struct Decisions {
    decisions: Vec<Arc<Decision>>,
}

pub(super) async fn decisions(State(surface): State<Surface>, page: Result<Query<Page>, QueryRejection>) -> Response {
    let limit = match page.map(|Query(page)| page.limit.unwrap_or(DECISIONS_SHOWN)) {
        Ok(limit) if (1..=DECISIONS_KEPT).contains(&limit) => limit,
        Ok(_) | Err(_) => return failure(StatusCode::BAD_REQUEST, format!("`limit` must be a number from 1 to {DECISIONS_KEPT}")),
    };
    let decisions = surface.handle.status.borrow().decisions.iter().take(limit).cloned().collect();
    axum::Json(Decisions { decisions }).into_response()
}
