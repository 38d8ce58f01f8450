//! `POST /api/v1/pause`, `/resume`, `/offers/reset` and `/evaluate`

use super::access::{Caller, permit};
use super::{Surface, failure};
use crate::control::status::Command;
use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;
use tracing::{info, warn};

/// A longer reason is refused: the ledger keeps it and every status repeats it.
const REASON_LENGTH: usize = 500;

type Body = Result<Bytes, BytesRejection>;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PauseRequest {
    reason: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

pub(super) async fn pause(
    State(surface): State<Surface>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let (by, request) = match asked::<PauseRequest>(&surface, caller, &headers, body) {
        Ok(asked) => asked,
        Err(refusal) => return refusal,
    };
    let reason = request.reason.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let reason = reason.unwrap_or_else(|| "no reason given".to_owned());
    if reason.chars().count() > REASON_LENGTH {
        return failure(StatusCode::BAD_REQUEST, format!("`reason` must have at most {REASON_LENGTH} characters"));
    }
    info!(%by, %reason, "pause asked for");
    let answer = json!({ "paused": true, "by": by, "reason": reason });
    match tell(&surface, |done| Command::Pause { by, reason, done }).await {
        Ok(()) => axum::Json(answer).into_response(),
        Err(refusal) => refusal,
    }
}

pub(super) async fn resume(
    State(surface): State<Surface>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let by = match asked::<Nothing>(&surface, caller, &headers, body) {
        Ok((by, Nothing {})) => by,
        Err(refusal) => return refusal,
    };
    info!(%by, "resume asked for");
    match tell(&surface, |done| Command::Resume { by, done }).await {
        Ok(()) => axum::Json(json!({ "paused": false })).into_response(),
        Err(refusal) => refusal,
    }
}

pub(super) async fn reset_offers(
    State(surface): State<Surface>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let by = match asked::<Nothing>(&surface, caller, &headers, body) {
        Ok((by, Nothing {})) => by,
        Err(refusal) => return refusal,
    };
    info!(%by, "it is asked that offers that rest are tried again");
    match tell(&surface, |done| Command::ResetOffers { by, done }).await {
        Ok(()) => axum::Json(json!({ "reset": true })).into_response(),
        Err(refusal) => refusal,
    }
}

pub(super) async fn evaluate(
    State(surface): State<Surface>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let by = match asked::<Nothing>(&surface, caller, &headers, body) {
        Ok((by, Nothing {})) => by,
        Err(refusal) => return refusal,
    };
    info!(%by, "evaluation asked for");
    match tell(&surface, |done| Command::Evaluate { done }).await {
        Ok(decision) => axum::Json(decision).into_response(),
        Err(refusal) => refusal,
    }
}

/// Finds out who asks and for what. Who may not ask is not told whether the question was right.
#[expect(clippy::result_large_err, reason = "the answer goes to the client as it is")]
fn asked<T>(surface: &Surface, caller: Caller, headers: &HeaderMap, body: Body) -> Result<(String, T), Response>
where
    T: Default + serde::de::DeserializeOwned,
{
    let by = permit(caller, headers, surface.token.as_ref()).map_err(|(code, why)| {
        warn!(?caller, why, "a change is refused");
        failure(code, why)
    })?;
    let body = body.map_err(|rejection| failure(rejection.status(), rejection.body_text()))?;
    if body.is_empty() {
        return Ok((by, T::default()));
    }
    let request = serde_json::from_slice(&body)
        .map_err(|error| failure(StatusCode::BAD_REQUEST, format!("the body is not what is expected here: {error}")))?;
    Ok((by, request))
}

/// Hands a command to the controller and waits for its answer.
pub(super) async fn tell<T>(surface: &Surface, command: impl FnOnce(oneshot::Sender<Result<T, String>>) -> Command) -> Result<T, Response> {
    let (done, answer) = oneshot::channel();
    surface.handle.commands.try_send(command(done)).map_err(|error| match error {
        TrySendError::Full(_) => failure(StatusCode::SERVICE_UNAVAILABLE, "too many commands wait already; try again"),
        TrySendError::Closed(_) => failure(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping"),
    })?;
    match answer.await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(why)) => Err(failure(StatusCode::SERVICE_UNAVAILABLE, why)),
        Err(_) => Err(failure(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping")),
    }
}
