//! `GET /api/v1/explain/pods/{namespace}/{name}`, `/nodes/{name}` and `/offers`

use super::admin::tell;
use super::{Surface, failure};
use crate::control::status::Command;
use crate::model::{NodeName, PodKey, Question};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

pub(super) async fn pod(State(surface): State<Surface>, Path((namespace, name)): Path<(String, String)>) -> Response {
    answer(&surface, Question::Pod(PodKey { namespace, name })).await
}

pub(super) async fn node(State(surface): State<Surface>, Path(name): Path<String>) -> Response {
    answer(&surface, Question::Node(NodeName::new(name))).await
}

pub(super) async fn offers(State(surface): State<Surface>) -> Response {
    answer(&surface, Question::Offers).await
}

async fn answer(surface: &Surface, question: Question) -> Response {
    let missing = format!("there is no {question} in the cluster as the latest turn saw it");
    match tell(surface, |done| Command::Explain { question, done }).await {
        Ok(Some(explanation)) => axum::Json(explanation).into_response(),
        Ok(None) => failure(StatusCode::NOT_FOUND, missing),
        Err(refusal) => refusal,
    }
}
