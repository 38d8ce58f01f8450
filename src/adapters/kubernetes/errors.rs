//! Names failed requests by what the caller does about them.

use super::super::{chain, quoted};
use crate::ports::ClusterError;
use kube::client::AuthError;
use kube::core::Status;
use std::future::Future;
use std::time::Duration;
use tokio::time::timeout;

/// What is said of credentials that cannot be had. An exec plugin's own output may hold the token.
const NO_CREDENTIALS: &str =
    "the kubeconfig's credentials are not to be had; try its exec plugin by hand, or look at its token file and certificate";

/// Waits for an answer no longer than the deadline, and leaves the API server's refusals to the caller.
pub(super) async fn within<T>(
    deadline: Duration,
    call: &'static str,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<kube::Result<T>, ClusterError> {
    timeout(deadline, request).await.map_err(|_| late(deadline, call))
}

/// Waits for several requests that are one call no longer than the deadline.
pub(super) async fn whole<T>(
    deadline: Duration,
    call: &'static str,
    requests: impl Future<Output = Result<T, ClusterError>>,
) -> Result<T, ClusterError> {
    timeout(deadline, requests).await.unwrap_or_else(|_| Err(late(deadline, call)))
}

fn late(deadline: Duration, call: &'static str) -> ClusterError {
    ClusterError::Unavailable { call, why: format!("no answer within {deadline:?}") }
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
    let why = words(error);
    match error {
        kube::Error::Api(status) => classify_status(call, status),
        _ if lacks_credentials(error) => ClusterError::Denied { call, why },
        kube::Error::BuildRequest(_) | kube::Error::HttpError(_) => ClusterError::Invalid { call, why },
        _ => ClusterError::Unavailable { call, why },
    }
}

fn classify_status(call: &'static str, status: &Status) -> ClusterError {
    let why = refusal(status);
    match status.code {
        401 | 403 => ClusterError::Denied { call, why },
        404 | 410 => ClusterError::Gone { call },
        409 => ClusterError::Conflict { call },
        408 | 429 => ClusterError::Unavailable { call, why },
        400..=499 => ClusterError::Invalid { call, why },
        _ => ClusterError::Unavailable { call, why },
    }
}

/// Says what went wrong, on one line and without secrets.
pub(super) fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => refusal(status),
        _ if lacks_credentials(error) => NO_CREDENTIALS.to_owned(),
        _ => chain(error),
    }
}

/// Says what the API server refuses.
pub(super) fn refusal(status: &Status) -> String {
    quoted(&format!("{} {}: {}", status.code, status.reason, status.message))
}

/// Tells whether the credentials could not be had: when the client was made, or when they were due anew.
fn lacks_credentials(error: &kube::Error) -> bool {
    match error {
        kube::Error::Auth(_) => true,
        kube::Error::Service(error) => error.is::<AuthError>(),
        _ => false,
    }
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
        let long = kube::Error::Api(Status::failure(&"x\n".repeat(10_000), "").with_code(500).boxed());
        assert!(words(&long).chars().count() <= 301 && !words(&long).contains('\n'));
        let io = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
        assert!(words(&kube::Error::Service(Box::new(io))).contains("connection refused"));
    }

    #[test]
    fn what_a_credential_plugin_says_is_not_repeated() {
        let failed = || AuthError::AuthExec("canary-7f3a".to_owned());
        for error in [kube::Error::Auth(failed()), kube::Error::Service(Box::new(failed()))] {
            let ClusterError::Denied { why, .. } = classify("get nodes", &error) else { panic!("{error:?}") };
            assert!(why.contains("credentials") && !why.contains("canary"), "{why}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_hangs_is_given_up_at_its_deadline() {
        let answer = ask::<()>(Duration::from_secs(3), "get nodes", std::future::pending()).await;
        let late = ClusterError::Unavailable { call: "get nodes", why: "no answer within 3s".into() };
        assert_eq!(answer, Err(late.clone()));
        assert_eq!(whole::<()>(Duration::from_secs(3), "get nodes", std::future::pending()).await, Err(late));
    }
}
