//! What all AWS clients share: credentials, region, connections, and how errors are read.

use super::retry::Transient;
use super::{chain, quoted};
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use std::error::Error;
use std::time::Duration;

/// How long the making of a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How many idle connections are kept per host.
const IDLE_CONNECTIONS: usize = 4;

/// Builds the configuration that all AWS clients share.
///
/// Credentials come from the SDK's chain: environment, profile, web identity, container,
/// instance metadata. `AWS_ENDPOINT_URL` and `AWS_ENDPOINT_URL_<SERVICE>` are honoured by
/// the SDK. Its own retries are off and it has no deadline of its own: the adapters have,
/// since only they know what may be repeated.
pub async fn load(region: &str) -> SdkConfig {
    let http = aws_smithy_http_client::Builder::new()
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .tls_provider(tls::Provider::rustls(CryptoMode::Ring))
        .build_https();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(region.to_owned()))
        .http_client(http)
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).build())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let Ok(name) = AppName::new("node-fleet") {
        loader = loader.app_name(name);
    }
    loader.load().await
}

/// What an AWS call's failure means, whatever the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No answer, or half of one: the request may have taken effect.
    NoAnswer,
    /// The service had a fault of its own: the request may have taken effect.
    Fault,
    /// The service turned the request away unread: it has not taken effect.
    Throttled,
    /// There were no credentials to sign it with, so it was not sent. The instance's metadata service has such moments.
    Unsigned,
    /// The service does not permit it: it has not taken effect.
    Denied,
    /// The service has read the request and refuses it.
    Rejected,
}

/// The failure of an AWS call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What it means.
    pub kind: Kind,
    /// The service's code for it (`InvalidInstanceID.NotFound`); empty when there was no answer.
    pub code: String,
    /// The code and the service's own words, shortened.
    pub why: String,
}

impl Failure {
    /// Makes a failure that is the service's refusal.
    pub(crate) fn service(code: &str, message: &str, status: u16) -> Self {
        let why = if message.is_empty() { code.to_owned() } else { quoted(&format!("{code}: {message}")) };
        Self { kind: kind_of(code, status), code: code.to_owned(), why }
    }
}

impl Transient for Failure {
    fn may_pass(&self) -> bool {
        match self.kind {
            Kind::NoAnswer | Kind::Fault | Kind::Throttled | Kind::Unsigned => true,
            Kind::Denied | Kind::Rejected => false,
        }
    }

    fn may_have_landed(&self) -> bool {
        match self.kind {
            Kind::NoAnswer | Kind::Fault => true,
            Kind::Throttled | Kind::Unsigned | Kind::Denied | Kind::Rejected => false,
        }
    }

    fn timed_out(deadline: Duration) -> Self {
        Self { kind: Kind::NoAnswer, code: String::new(), why: format!("no answer within {deadline:?}") }
    }
}

impl<E> From<SdkError<E, HttpResponse>> for Failure
where
    E: ProvideErrorMetadata + Error + 'static,
{
    fn from(error: SdkError<E, HttpResponse>) -> Self {
        if let Some(missing) = no_credentials(&error) {
            let why = quoted(&format!("nothing was sent, since the daemon's AWS credentials are not to be had: {}", chain(missing)));
            return Self { kind: Kind::Unsigned, code: String::new(), why };
        }
        let status = error.raw_response().map_or(0, |response| response.status().as_u16());
        match &error {
            SdkError::ServiceError(service) => {
                let code = service.err().code().unwrap_or("no code");
                Self::service(code, service.err().message().unwrap_or_default(), status)
            }
            SdkError::ConstructionFailure(_) => Self { kind: Kind::Rejected, code: String::new(), why: chain(&error) },
            // Everything else has no readable answer.
            _ => Self { kind: Kind::NoAnswer, code: String::new(), why: chain(&error) },
        }
    }
}

/// Finds the failure to get credentials among an error's causes. A request is signed before it is sent.
fn no_credentials<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a CredentialsError> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(missing) = error.downcast_ref() {
            return Some(missing);
        }
        cause = error.source();
    }
    None
}

/// Reads what a service's error code means.
pub(crate) fn kind_of(code: &str, status: u16) -> Kind {
    match code {
        "RequestLimitExceeded"
        | "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "TooManyRequestsException"
        | "EC2ThrottledException"
        | "SlowDown"
        | "PriorRequestNotComplete"
        | "BandwidthLimitExceeded"
        | "ProvisionedThroughputExceededException"
        | "LimitExceededException" => Kind::Throttled,
        "UnauthorizedOperation"
        | "AuthFailure"
        | "AccessDenied"
        | "AccessDeniedException"
        | "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "SignatureDoesNotMatch"
        | "InvalidSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "RequestExpired"
        | "OptInRequired"
        | "PendingVerification"
        | "Blocked"
        | "NotAuthorized" => Kind::Denied,
        _ if status == 429 => Kind::Throttled,
        _ if status == 401 || status == 403 => Kind::Denied,
        _ if (400..500).contains(&status) => Kind::Rejected,
        _ => Kind::Fault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_smithy_runtime_api::client::result::ConnectorError;
    use aws_smithy_types::error::ErrorMetadata;

    #[test]
    fn codes_mean_what_the_caller_does_about_them() {
        let rows = [
            ("RequestLimitExceeded", 503, Kind::Throttled),
            ("UnauthorizedOperation", 403, Kind::Denied),
            ("ExpiredTokenException", 400, Kind::Denied),
            ("InvalidInstanceID.NotFound", 400, Kind::Rejected),
            ("InternalError", 500, Kind::Fault),
            ("Unavailable", 503, Kind::Fault),
            ("no code", 429, Kind::Throttled),
            ("no code", 502, Kind::Fault),
        ];
        for (code, status, kind) in rows {
            assert_eq!(Failure::service(code, "", status).kind, kind, "{code} with {status}");
        }
    }

    #[test]
    fn only_what_may_pass_is_repeated() {
        assert!(Failure::timed_out(Duration::from_secs(1)).may_pass());
        assert!(Failure::service("InternalError", "", 500).may_pass());
        assert!(!Failure::service("UnauthorizedOperation", "encoded", 403).may_pass());
        assert!(!Failure::service("InvalidParameterValue", "", 400).may_pass());
    }

    #[test]
    fn a_request_without_credentials_was_not_sent() {
        let missing = || CredentialsError::not_loaded("no provider in the chain has any");
        let unsigned = [
            SdkError::<ErrorMetadata, HttpResponse>::dispatch_failure(ConnectorError::other(missing().into(), None)),
            SdkError::construction_failure(missing()),
        ];
        for error in unsigned {
            let failure = Failure::from(error);
            assert_eq!(failure.kind, Kind::Unsigned);
            assert!(failure.may_pass() && !failure.may_have_landed());
            assert!(failure.why.contains("nothing was sent") && failure.why.contains("no provider in the chain"), "{}", failure.why);
        }
        let cut = SdkError::<ErrorMetadata, HttpResponse>::dispatch_failure(ConnectorError::other("connection reset".into(), None));
        assert!(Failure::from(cut).may_have_landed());
    }

    #[test]
    fn a_services_words_are_shortened() {
        let failure = Failure::service("UnauthorizedOperation", &"x".repeat(5000), 403);
        assert!(failure.why.chars().count() <= 310, "{}", failure.why.len());
    }
}
