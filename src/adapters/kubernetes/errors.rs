//! Names failed requests by what the caller does about them.

use crate::ports::ClusterError;
use kube::core::Status;
use std::error::Error;
use std::future::Future;
use std::time::Duration;
use tokio::time::timeout;

/// The longest reason that is passed on.
const LONGEST_REASON: usize = 400;

/// Waits for an answer no longer than the deadline, and leaves the API server's refusals to the caller.
pub(super) async fn within<T>(
    deadline: Duration,
    call: &'static str,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<kube::Result<T>, ClusterError> {
    timeout(deadline, request).await.map_err(|_| ClusterError::Unavailable { call, why: format!("no answer within {deadline:?}") })
}

/// Waits for an answer no longer than the deadline.
pub(super) async fn ask<T>(
    deadline: Duration,
    call: &'static str,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, ClusterError> {
    within(deadline, call, request).await?.map_err(|error| classify(call, &error))
}

/// Names a failure by what the caller does about it.
pub(super) fn classify(call: &'static str, error: &kube::Error) -> ClusterError {
    match error {
        kube::Error::Api(status) => classify_status(call, status),
        kube::Error::Auth(_) => ClusterError::Denied { call, why: chain(error) },
        kube::Error::BuildRequest(_) | kube::Error::HttpError(_) => ClusterError::Invalid { call, why: chain(error) },
        _ => ClusterError::Unavailable { call, why: chain(error) },
    }
}

fn classify_status(call: &'static str, status: &Status) -> ClusterError {
    let why = bounded(&format!("{} {}: {}", status.code, status.reason, status.message));
    match status.code {
        401 | 403 => ClusterError::Denied { call, why },
        404 | 410 => ClusterError::Gone { call },
        409 => ClusterError::Conflict { call },
        408 | 429 => ClusterError::Unavailable { call, why },
        400..=499 => ClusterError::Invalid { call, why },
        _ => ClusterError::Unavailable { call, why },
    }
}

/// Joins an error with its causes, since the outermost often says nothing ("client error").
pub(super) fn chain(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return bounded(&format!("{} {}: {}", status.code, status.reason, status.message));
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let words = next.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = next.source();
    }
    bounded(&text)
}

fn bounded(text: &str) -> String {
    text.chars().take(LONGEST_REASON).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16) -> ClusterError {
        classify("get nodes", &kube::Error::Api(Status::failure("words", "Reason").with_code(code).boxed()))
    }

    #[test]
    fn every_refusal_is_named_by_what_to_do() {
        for code in [401, 403] {
            assert!(matches!(refused(code), ClusterError::Denied { .. }), "{code}");
        }
        for code in [404, 410] {
            assert!(matches!(refused(code), ClusterError::Gone { .. }), "{code}");
        }
        assert!(matches!(refused(409), ClusterError::Conflict { .. }));
        for code in [400, 405, 413, 415, 422] {
            assert!(matches!(refused(code), ClusterError::Invalid { .. }), "{code}");
        }
        for code in [0, 408, 429, 500, 502, 503, 504] {
            assert!(matches!(refused(code), ClusterError::Unavailable { .. }), "{code}");
        }
    }

    #[test]
    fn a_reason_is_bounded_and_names_the_causes() {
        let long = kube::Error::Api(Status::failure(&"x".repeat(10_000), "").with_code(500).boxed());
        assert!(chain(&long).len() <= LONGEST_REASON);
        let io = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
        assert!(chain(&kube::Error::Service(Box::new(io))).contains("connection refused"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_hangs_is_given_up_at_its_deadline() {
        let answer = ask::<()>(Duration::from_secs(3), "get nodes", std::future::pending()).await;
        assert_eq!(answer, Err(ClusterError::Unavailable { call: "get nodes", why: "no answer within 3s".into() }));
    }
}
