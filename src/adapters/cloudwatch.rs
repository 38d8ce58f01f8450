//! CloudWatch: figures, by `PutMetricData`.
//!
//! The SDK's client for CloudWatch brings a second `http` and a licence that `deny.toml` does not know, for the sake
//! of protocols and compression that this one call does not need. So the call is written here, in CloudWatch's
//! oldest protocol (a form), and signed by the SDK's own signer.

use super::aws::{Failure, Kind};
use super::retry::retried;
use super::system_clock::SystemClock;
use super::{chain, quoted};
use crate::config::Config;
use crate::ports::outlets::Datum;
use crate::ports::{Clock, MetricStore, OutletError};
use aws_config::SdkConfig;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use reqwest::header::CONTENT_TYPE;
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use std::time::{Duration, SystemTime};

const OUTLET: &str = "cloudwatch";
/// The deadline of one call, its repetitions included.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long the making of a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest answer that is read.
const LARGEST: usize = 64 * 1024;
/// The version of the interface.
const VERSION: &str = "2010-08-01";
const FORM: &str = "application/x-www-form-urlencoded";
/// Names the endpoint of this service alone; the SDK's clients honour such variables too.
const ENDPOINT: &str = "AWS_ENDPOINT_URL_CLOUDWATCH";

/// CloudWatch as a [`MetricStore`].
#[derive(Debug)]
pub struct CloudWatch {
    client: Client,
    endpoint: Url,
    region: String,
    credentials: Option<SharedCredentialsProvider>,
    cluster: String,
    namespace: String,
    clock: SystemClock,
}

impl CloudWatch {
    /// Connects to nothing yet. The endpoint is that of `AWS_ENDPOINT_URL_CLOUDWATCH`, of `AWS_ENDPOINT_URL`, or the region's.
    ///
    /// # Errors
    /// When the endpoint is no URL, or the HTTP client cannot be made.
    pub fn new(sdk: &SdkConfig, config: &Config) -> Result<Self, OutletError> {
        // Another adapter may have installed it, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let region = config.cluster.region.clone();
        let configured = std::env::var(ENDPOINT).ok().or_else(|| sdk.endpoint_url().map(ToOwned::to_owned));
        let endpoint = configured.unwrap_or_else(|| endpoint_of(&region));
        let url = Url::parse(&endpoint);
        let endpoint =
            url.map_err(|why| denied(format!("the endpoint `{endpoint}` is no URL ({why}); right would be `{}`", endpoint_of(&region))))?;
        let client = Client::builder().connect_timeout(CONNECT_TIMEOUT).redirect(Policy::none()).build();
        Ok(Self {
            client: client.map_err(|error| denied(format!("the HTTP client cannot be made: {error}")))?,
            endpoint,
            region,
            credentials: sdk.credentials_provider(),
            cluster: config.cluster.id.clone(),
            namespace: config.cloudwatch.namespace.clone(),
            clock: SystemClock::new(),
        })
    }

    async fn call(&self, body: &str) -> Result<(), Failure> {
        let mut request = self.client.post(self.endpoint.clone()).header(CONTENT_TYPE, FORM).body(body.to_owned());
        for (name, value) in self.signature(body).await? {
            request = request.header(name, value);
        }
        let no_answer = |error: reqwest::Error| Failure { kind: Kind::NoAnswer, code: String::new(), why: chain(&error) };
        let mut answer = request.send().await.map_err(no_answer)?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let mut words = Vec::new();
        while words.len() < LARGEST
            && let Some(chunk) = answer.chunk().await.map_err(no_answer)?
        {
            words.extend_from_slice(&chunk);
        }
        let words = String::from_utf8_lossy(&words);
        let code = element(&words, "Code").unwrap_or("no code");
        Err(Failure::service(&quoted(code), element(&words, "Message").unwrap_or_default(), status.as_u16()))
    }

    /// Gives the headers that sign the form.
    async fn signature(&self, body: &str) -> Result<Vec<(String, String)>, Failure> {
        let unsigned = |why: String| Failure {
            kind: Kind::Unsigned,
            code: String::new(),
            why: quoted(&format!("nothing was sent, since it could not be signed: {why}")),
        };
        let provider = self.credentials.as_ref().ok_or_else(|| unsigned("there are no AWS credentials".to_owned()))?;
        let credentials = provider.provide_credentials().await.map_err(|error| unsigned(chain(&error)))?;
        let identity = credentials.into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("monitoring")
            .time(SystemTime::from(self.clock.now()))
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| unsigned(chain(&error)))?
            .into();
        let headers = std::iter::once((CONTENT_TYPE.as_str(), FORM));
        let request = SignableRequest::new("POST", self.endpoint.as_str(), headers, SignableBody::Bytes(body.as_bytes()));
        let signed = request.and_then(|request| sign(request, &parameters)).map_err(|error| unsigned(chain(&error)))?;
        let (instructions, _) = signed.into_parts();
        Ok(instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

impl MetricStore for CloudWatch {
    async fn put(&self, data: &[Datum]) -> Result<(), OutletError> {
        let body = form(&self.namespace, &self.cluster, data);
        retried(TIMEOUT, async || self.call(&body).await).await.map_err(|failure| error(&failure))
    }
}

/// Writes a call. Times are to the second, which is CloudWatch's own measure.
fn form(namespace: &str, cluster: &str, data: &[Datum]) -> String {
    let mut pairs = vec![
        ("Action".to_owned(), "PutMetricData".to_owned()),
        ("Version".to_owned(), VERSION.to_owned()),
        ("Namespace".to_owned(), namespace.to_owned()),
    ];
    for (number, datum) in (1..).zip(data) {
        let mut add = |key: &str, value: String| pairs.push((format!("MetricData.member.{number}.{key}"), value));
        add("MetricName", datum.name.to_owned());
        add("Unit", datum.unit.name().to_owned());
        add("Value", datum.value.to_string());
        add("Timestamp", datum.at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        let pool = datum.pool.as_ref().map(|pool| ("Pool", pool.as_str()));
        for (dimension, (name, value)) in (1..).zip(std::iter::once(("Cluster", cluster)).chain(pool)) {
            add(&format!("Dimensions.member.{dimension}.Name"), name.to_owned());
            add(&format!("Dimensions.member.{dimension}.Value"), value.to_owned());
        }
    }
    let mut url = Url::parse("http://form/").unwrap_or_else(|_| unreachable!("it is a URL"));
    url.query_pairs_mut().extend_pairs(pairs);
    url.query().unwrap_or_default().to_owned()
}

/// Gives the region's own endpoint.
fn endpoint_of(region: &str) -> String {
    let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
    format!("https://monitoring.{region}.amazonaws.com{suffix}/")
}

/// Finds the text of an element of an answer.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(text, _)| text)
}

fn error(failure: &Failure) -> OutletError {
    let why = failure.why.clone();
    match failure.kind {
        Kind::Throttled => OutletError::Throttled { outlet: OUTLET, pause: None },
        Kind::NoAnswer | Kind::Unsigned | Kind::Fault => OutletError::Unavailable { outlet: OUTLET, why },
        Kind::Denied => {
            denied(format!("{why}; grant the daemon's role `cloudwatch:PutMetricData` in the namespace of cloudwatch.namespace"))
        }
        Kind::Rejected => OutletError::Unacceptable { outlet: OUTLET, why },
    }
}

fn denied(why: String) -> OutletError {
    OutletError::Denied { outlet: OUTLET, why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::outlets::Unit;
    use aws_credential_types::Credentials;
    use jiff::Timestamp;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn datum(pool: Option<&str>) -> Datum {
        Datum { name: "CostEstimates", unit: Unit::None, pool: pool.map(Into::into), at: Timestamp::UNIX_EPOCH, value: 0.25 }
    }

    #[test]
    fn the_form_has_names_units_times_and_dimensions() {
        let written = form("node-fleet", "prod & more", &[datum(None), datum(Some("workers"))]);
        for part in [
            "Action=PutMetricData&Version=2010-08-01&Namespace=node-fleet&",
            "MetricData.member.1.MetricName=CostEstimates&MetricData.member.1.Unit=None&MetricData.member.1.Value=0.25&",
            "MetricData.member.1.Timestamp=1970-01-01T00%3A00%3A00Z&",
            "MetricData.member.1.Dimensions.member.1.Name=Cluster&MetricData.member.1.Dimensions.member.1.Value=prod+%26+more&",
            "MetricData.member.2.Dimensions.member.2.Name=Pool&MetricData.member.2.Dimensions.member.2.Value=workers",
        ] {
            assert!(written.contains(part), "{part} in {written}");
        }
    }

    #[test]
    fn a_full_call_stays_below_a_megabyte() {
        let data = vec![datum(Some(&"x".repeat(63))); crate::ports::outlets::DATA_AT_ONCE];
        assert!(form(&"n".repeat(255), &"c".repeat(63), &data).len() < 1_000_000);
    }

    fn store(endpoint: &str, credentials: Option<SharedCredentialsProvider>) -> CloudWatch {
        let _ = rustls::crypto::ring::default_provider().install_default();
        CloudWatch {
            client: Client::new(),
            endpoint: Url::parse(endpoint).expect("a URL"),
            region: "eu-central-1".into(),
            credentials,
            cluster: "prod".into(),
            namespace: "node-fleet".into(),
            clock: SystemClock::new(),
        }
    }

    async fn answered(answer: &'static str) -> (Result<(), OutletError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}/", listener.local_addr().expect("it has one"));
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a caller");
            let mut request = vec![0; 65_536];
            let length = stream.read(&mut request).await.expect("a request");
            stream.write_all(answer.as_bytes()).await.expect("it listens");
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let credentials = Credentials::new("AKIDEXAMPLE", "canary-7f3a", None, None, "test");
        let outcome = store(&endpoint, Some(SharedCredentialsProvider::new(credentials))).put(&[datum(None)]).await;
        (outcome, server.await.expect("it ends"))
    }

    #[tokio::test]
    async fn a_call_is_signed_for_the_service_and_shows_no_key() {
        let (outcome, request) = answered("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(outcome, Ok(()));
        assert!(request.contains("/eu-central-1/monitoring/aws4_request"), "{request}");
        assert!(request.to_lowercase().contains("signedheaders=content-type;host;x-amz-date"), "{request}");
        assert!(!request.contains("canary"), "{request}");
    }

    #[tokio::test(start_paused = true)]
    async fn without_credentials_it_is_tried_again_and_no_permission_is_asked_for() {
        let begun = tokio::time::Instant::now();
        let outcome = store("http://127.0.0.1:9/", None).put(&[datum(None)]).await;
        let error = outcome.expect_err("nothing can be sent");
        assert!(error.class() == "unavailable" && !error.to_string().contains("PutMetricData"), "{error}");
        assert!(begun.elapsed() > Duration::ZERO, "it is tried once");
    }

    #[tokio::test]
    async fn a_refusal_names_the_permission_or_what_is_wrong() {
        let denied = "HTTP/1.1 403 Forbidden\r\nconnection: close\r\n\r\n<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>";
        let (outcome, _) = answered(denied).await;
        let error = outcome.expect_err("it is refused");
        assert!(error.class() == "denied" && error.to_string().contains("cloudwatch:PutMetricData"), "{error}");
        let rejected =
            "HTTP/1.1 400 Bad\r\nconnection: close\r\n\r\n<Error><Code>InvalidParameterValue</Code><Message>NaN</Message></Error>";
        let (outcome, _) = answered(rejected).await;
        let error = outcome.expect_err("it is refused");
        assert!(error.class() == "invalid" && error.to_string().contains("NaN"), "{error}");
    }
}
