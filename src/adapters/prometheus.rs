//! Prometheus: how busy the nodes are, and the values of the operator's own rules.

mod answer;
mod query;

use super::secrets_manager::Secrets;
use super::system_clock::SystemClock;
use super::{chain, quoted};
use crate::config::{PrometheusAuth, PrometheusConfig, SecretRef};
use crate::model::reading::Utilisation;
use crate::model::snapshot::{Observed, UtilisationReport};
use crate::model::{Missing, NodeName, Reading, RuleName};
use crate::ports::{Clock, Metrics};
use answer::{Answer, Sample};
use jiff::Timestamp;
use query::{Queries, Timed};
use reqwest::{Certificate, Client, RequestBuilder, Response, StatusCode, Url};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long the making of a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How far outside 0 to 1 a share may be and still be taken for the bound: `rate()`
/// extrapolates to the edges of its window, so an idle core reads a little above 1.
const TOLERANCE: f64 = 0.02;

/// The adapter could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PrometheusError {
    /// An endpoint is no URL of the API.
    #[error("the Prometheus endpoint `{endpoint}` cannot be used: {why} (right would be `http://127.0.0.1:9090`)")]
    Endpoint {
        /// The endpoint as configured.
        endpoint: String,
        /// What is wrong.
        why: String,
    },
    /// The private CA cannot be read.
    #[error("the CA of Prometheus `{path}` cannot be used: {why}")]
    Ca {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// The HTTP client cannot be made.
    #[error("the HTTP client of Prometheus cannot be made: {why}")]
    Client {
        /// What is wrong.
        why: String,
    },
}

/// Prometheus as the controller's [`Metrics`].
///
/// All queries of one reading go to the same endpoint. The endpoints are tried in their
/// order; each gets an equal part of what is left of `[prometheus] timeout`, so that one
/// that hangs does not take the others' time.
#[derive(Debug)]
pub struct Prometheus {
    client: Client,
    endpoints: Vec<Url>,
    auth: Option<PrometheusAuth>,
    secrets: Arc<Secrets>,
    queries: Queries,
    clock: SystemClock,
    timeout: Duration,
    largest: usize,
    rate_window: Duration,
    gate: Gate,
}

/// Between which times a sample is believed.
#[derive(Clone, Copy, Debug)]
struct Gate {
    oldest: Duration,
    skew: Duration,
}

/// When a Prometheus began.
enum Start {
    /// At this time.
    At(Timestamp),
    /// The endpoint is none that begins: it does not know the question.
    Nowhere,
    /// It did not say.
    Unknown,
}

/// What one endpoint did not give.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Failure {
    /// No answer, or an error.
    Unreachable(String),
    /// The query is refused: bad in itself, or about to be bad at every other endpoint.
    Refused(String),
    /// An answer that makes no sense.
    Nonsense(String),
}

impl Prometheus {
    /// Connects to nothing yet. With a private CA, that CA alone is trusted; otherwise the system's.
    ///
    /// # Errors
    /// When an endpoint is no URL, or the CA cannot be read.
    pub fn new(config: &PrometheusConfig, secrets: Arc<Secrets>) -> Result<Self, PrometheusError> {
        let endpoints = config.endpoints.iter().map(|endpoint| base(endpoint)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            client: client(config, &endpoints)?,
            endpoints,
            auth: config.auth.clone(),
            secrets,
            queries: Queries::new(config),
            clock: SystemClock::new(),
            timeout: config.timeout,
            largest: config.max_response_bytes,
            rate_window: config.rate_window,
            gate: Gate { oldest: config.max_sample_age, skew: config.max_clock_skew },
        })
    }

    /// Asks each endpoint for its build, to show which of them answer.
    ///
    /// # Errors
    /// When one of them does not answer, with a line for each that does not.
    pub async fn probe(&self) -> Result<(), Vec<String>> {
        let mut silent = Vec::new();
        for endpoint in &self.endpoints {
            let asked = tokio::time::timeout(self.timeout, self.vector(endpoint, "vector(1)", false)).await;
            match asked.unwrap_or_else(|_| Err(late(self.timeout))) {
                Ok(_) => {}
                Err(failure) => silent.push(failure.at(endpoint)),
            }
        }
        if silent.is_empty() { Ok(()) } else { Err(silent) }
    }

    /// Tries the endpoints in order. One that knows nothing, as a replica that has just come, has the next one asked. A
    /// failure at all of them is one failure that names each.
    async fn anywhere<'a, T, F, Fut>(&'a self, ask: F, knows_nothing: impl Fn(&T) -> bool) -> Result<T, Missing>
    where
        F: Fn(&'a Url) -> Fut,
        Fut: Future<Output = Result<T, Failure>>,
    {
        let end = Instant::now() + self.timeout;
        let (mut failures, mut nothing) = (Vec::new(), None);
        for (endpoint, left) in self.endpoints.iter().zip((1..=u32::try_from(self.endpoints.len()).unwrap_or(u32::MAX)).rev()) {
            let share = end.saturating_duration_since(Instant::now()) / left;
            match tokio::time::timeout(share, Box::pin(ask(endpoint))).await.unwrap_or_else(|_| Err(late(share))) {
                Ok(answer) if knows_nothing(&answer) => nothing = Some(answer),
                Ok(answer) => return Ok(answer),
                Err(failure) => failures.push((endpoint, failure)),
            }
        }
        nothing.ok_or_else(|| missing(&failures))
    }

    /// Reads all that a utilisation report needs from one endpoint.
    async fn report(&self, endpoint: &Url) -> Result<UtilisationReport, Failure> {
        let Queries { label, cpu, memory } = &self.queries;
        let (cpu, cpu_times, memory, memory_times, start) = tokio::join!(
            self.vector(endpoint, &cpu.value, cpu.own),
            self.vector(endpoint, &cpu.time, cpu.own),
            self.vector(endpoint, &memory.value, memory.own),
            self.vector(endpoint, &memory.time, memory.own),
            self.start(endpoint),
        );
        let now = self.clock.now();
        let cpu = shares(label, &cpu?, &cpu_times?, self.gate, now);
        let memory = shares(label, &memory?, &memory_times?, self.gate, now);
        let names: BTreeSet<&NodeName> = cpu.keys().chain(memory.keys()).collect();
        let of = |readings: &BTreeMap<NodeName, Reading>, name| readings.get(name).cloned().unwrap_or(Reading::Missing(Missing::Empty));
        let nodes = names.into_iter().map(|name| (name.clone(), Utilisation { cpu: of(&cpu, name), memory: of(&memory, name) })).collect();
        let window = jiff::SignedDuration::try_from(self.rate_window).unwrap_or(jiff::SignedDuration::MAX);
        let warming_up = match start {
            Start::At(start) => now.duration_since(start) < window,
            // Thanos, Mimir: there is no single process whose start would matter.
            Start::Nowhere => false,
            // It may have begun a moment ago.
            Start::Unknown => true,
        };
        Ok(UtilisationReport { nodes, warming_up })
    }

    /// Reads the value of a rule and when it was sampled.
    async fn value(&self, endpoint: &Url, promql: &str) -> Result<Reading, Failure> {
        let query = Timed::own(promql);
        let (value, time) = tokio::join!(self.answer(endpoint, &query.value, query.own), self.answer(endpoint, &query.time, query.own));
        // The time of a query that is no vector cannot be asked for; the evaluation's is then the best there is.
        let time = match time {
            Ok(Answer::Vector(samples)) => samples.iter().map(|sample| sample.value).reduce(f64::min),
            Ok(Answer::Scalar(_)) | Err(Failure::Refused(_)) => None,
            Err(failure) => return Err(failure),
        };
        Ok(single(value?, time, self.gate, self.clock.now()))
    }

    /// Runs a query at every minute of a time.
    async fn course(&self, endpoint: &Url, promql: &str, first: Timestamp, last: Timestamp) -> Result<Vec<(Timestamp, f64)>, Failure> {
        let url = joined(endpoint, "api/v1/query_range");
        let [lookback, timeout] = [self.gate.oldest, self.timeout].map(|time| format!("{}ms", time.as_millis()));
        let [start, end] = [first, last].map(|at| at.as_second().to_string());
        let form =
            [("query", promql), ("start", &start), ("end", &end), ("step", "60"), ("lookback_delta", &lookback), ("timeout", &timeout)];
        let body = self.body(|| self.client.post(url.clone()).form(&form)).await?;
        answer::course(&body)
    }

    /// Asks when Prometheus was started.
    async fn start(&self, endpoint: &Url) -> Start {
        let url = joined(endpoint, "api/v1/status/runtimeinfo");
        let asked = async {
            let response = self.send(self.client.get(url)).await?;
            let status = response.status();
            if status.is_success() { self.read(response).await.map(|body| (status, body)) } else { Ok((status, Vec::new())) }
        };
        // A part of the time: an endpoint that does not answer this must not spoil the reading.
        match tokio::time::timeout(self.timeout / 4, asked).await {
            Ok(Ok((status, body))) if status.is_success() => answer::start(&body).map_or(Start::Unknown, Start::At),
            Ok(Ok((StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST | StatusCode::NOT_IMPLEMENTED, _))) => Start::Nowhere,
            Ok(Ok(_) | Err(_)) | Err(_) => Start::Unknown,
        }
    }

    /// Runs a query whose answer must be a vector.
    async fn vector(&self, endpoint: &Url, promql: &str, own: bool) -> Result<Vec<Sample>, Failure> {
        match self.answer(endpoint, promql, own).await? {
            Answer::Vector(samples) => Ok(samples),
            Answer::Scalar(_) => Err(Failure::Nonsense("a scalar where a value per node was asked for".to_owned())),
        }
    }

    /// Runs a query. In an operator's own one, samples that are too old do not count: once it has
    /// reckoned with them, their age is lost.
    async fn answer(&self, endpoint: &Url, promql: &str, own: bool) -> Result<Answer, Failure> {
        let url = joined(endpoint, "api/v1/query");
        let lookback = format!("{}ms", self.gate.oldest.as_millis());
        // Prometheus itself gives up when nobody waits any more.
        let timeout = format!("{}ms", self.timeout.as_millis());
        let mut form = vec![("query", promql), ("timeout", timeout.as_str())];
        if own {
            form.insert(1, ("lookback_delta", lookback.as_str()));
        }
        let body = self.body(|| self.client.post(url.clone()).form(&form)).await?;
        answer::parse(&body)
    }

    /// Sends a request and reads the answer. A refused secret is read anew, once.
    async fn body(&self, request: impl Fn() -> RequestBuilder) -> Result<Vec<u8>, Failure> {
        let mut response = self.send(request()).await?;
        if response.status() == StatusCode::UNAUTHORIZED
            && let Some(reference) = self.secret()
        {
            self.secrets.invalidate(reference).await;
            response = self.send(request()).await?;
        }
        let status = response.status();
        let body = self.read(response).await?;
        // The API puts its own errors into the answers 400, 422 and 503.
        if status.is_success() || answer::is_api_error(&body) { Ok(body) } else { Err(Failure::Unreachable(format!("HTTP {status}"))) }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let request = match &self.auth {
            None => request,
            Some(PrometheusAuth::Basic { username, password }) => {
                request.basic_auth(username, Some(self.resolve(password).await?.expose()))
            }
            Some(PrometheusAuth::Bearer { token }) => request.bearer_auth(self.resolve(token).await?.expose()),
        };
        request.send().await.map_err(|error| Failure::Unreachable(chain(&error.without_url())))
    }

    async fn resolve(&self, reference: &SecretRef) -> Result<crate::config::Secret, Failure> {
        self.secrets.resolve(reference).await.map_err(|error| Failure::Unreachable(error.to_string()))
    }

    fn secret(&self) -> Option<&SecretRef> {
        match &self.auth {
            None => None,
            Some(PrometheusAuth::Basic { password, .. }) => Some(password),
            Some(PrometheusAuth::Bearer { token }) => Some(token),
        }
    }

    /// Reads the body piece by piece and stops at the limit.
    async fn read(&self, mut response: Response) -> Result<Vec<u8>, Failure> {
        let too_large = || Failure::Nonsense(format!("an answer of more than {} bytes", self.largest));
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| Failure::Unreachable(chain(&error.without_url())))? {
            if body.len() + piece.len() > self.largest {
                return Err(too_large());
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }
}

impl Metrics for Prometheus {
    async fn utilisation(&self) -> Observed<UtilisationReport> {
        match self.anywhere(|endpoint| self.report(endpoint), |report| report.nodes.is_empty()).await {
            Ok(report) if report.nodes.is_empty() => Observed::Unknown(Missing::Empty),
            Ok(value) => Observed::Known { value, at: self.clock.now() },
            Err(missing) => Observed::Unknown(missing),
        }
    }

    async fn query(&self, _rule: &RuleName, promql: &str) -> Reading {
        let knows_nothing = |reading: &Reading| *reading == Reading::Missing(Missing::Empty);
        self.anywhere(|endpoint| self.value(endpoint, promql), knows_nothing).await.unwrap_or_else(Reading::Missing)
    }

    async fn history(&self, promql: &str, first: Timestamp, last: Timestamp) -> Result<Vec<(Timestamp, f64)>, Missing> {
        self.anywhere(|endpoint| self.course(endpoint, promql, first, last), Vec::is_empty).await
    }
}

impl Gate {
    /// Takes a sample of this time and value, or says why not.
    fn pass(self, value: f64, sampled: Timestamp, now: Timestamp) -> Reading {
        let age = now.duration_since(sampled);
        let longer = |bound: Duration| jiff::SignedDuration::try_from(bound).unwrap_or(jiff::SignedDuration::MAX);
        if age > longer(self.oldest) {
            Reading::Missing(Missing::Stale { sampled })
        } else if -age > longer(self.skew) {
            Reading::Missing(Missing::Future { sampled })
        } else {
            Reading::Value { value, sampled }
        }
    }
}

impl Failure {
    fn at(&self, endpoint: &Url) -> String {
        let (Self::Unreachable(why) | Self::Refused(why) | Self::Nonsense(why)) = self;
        quoted(&format!("{}:{}: {why}", endpoint.host_str().unwrap_or_default(), endpoint.port_or_known_default().unwrap_or_default()))
    }
}

fn late(time: Duration) -> Failure {
    Failure::Unreachable(format!("no answer within {time:?}"))
}

/// Makes one reason of what all endpoints did.
fn missing(failures: &[(&Url, Failure)]) -> Missing {
    let all: Vec<_> = failures.iter().map(|(endpoint, failure)| failure.at(endpoint)).collect();
    let why = if all.is_empty() { "no endpoint is configured".to_owned() } else { all.join("; ") };
    let nonsense = !failures.is_empty() && failures.iter().all(|(_, failure)| matches!(failure, Failure::Nonsense(_)));
    if nonsense { Missing::Nonsense { value: why } } else { Missing::Unreachable { why } }
}

/// Joins the shares of the nodes with the times of the samples behind them.
///
/// A share without such a time comes from a target that is gone: `rate()` still sees its
/// past. A node that the answer names twice has no trustworthy share.
fn shares(label: &str, values: &[Sample], times: &[Sample], gate: Gate, now: Timestamp) -> BTreeMap<NodeName, Reading> {
    let mut sampled: BTreeMap<NodeName, f64> = BTreeMap::new();
    for (node, sample) in named(label, times) {
        let oldest = sampled.entry(node).or_insert(sample.value);
        *oldest = oldest.min(sample.value);
    }
    let mut readings = BTreeMap::new();
    for (node, sample) in named(label, values) {
        let reading = match (share(sample), sampled.get(&node)) {
            (Err(nonsense), _) => Reading::Missing(nonsense),
            (Ok(_), None) => Reading::Missing(Missing::Empty),
            (Ok(value), Some(time)) => stamped(value, *time, gate, now),
        };
        let twice = readings.insert(node.clone(), reading).is_some();
        if twice {
            let value = format!("{} and another one for the same node", sample.text);
            readings.insert(node, Reading::Missing(Missing::Nonsense { value }));
        }
    }
    readings
}

/// Names each sample's node; a sample without the label is of no node.
fn named<'a>(label: &'a str, samples: &'a [Sample]) -> impl Iterator<Item = (NodeName, &'a Sample)> {
    let named = move |sample: &'a Sample| Some((query::node_of(sample.labels.get(label)?)?, sample));
    samples.iter().filter_map(named)
}

/// Takes a value for a share from 0 to 1.
fn share(sample: &Sample) -> Result<f64, Missing> {
    if (-TOLERANCE..=1.0 + TOLERANCE).contains(&sample.value) {
        Ok(sample.value.clamp(0.0, 1.0))
    } else {
        Err(Missing::Nonsense { value: sample.text.clone() })
    }
}

fn stamped(value: f64, time: f64, gate: Gate, now: Timestamp) -> Reading {
    match answer::timestamp(time) {
        Some(sampled) => gate.pass(value, sampled, now),
        None => Reading::Missing(Missing::Nonsense { value: format!("the time {time}") }),
    }
}

/// Takes the one finite value of a rule's answer.
fn single(answer: Answer, time: Option<f64>, gate: Gate, now: Timestamp) -> Reading {
    let sample = match answer {
        Answer::Scalar(sample) => sample,
        Answer::Vector(mut samples) => match (samples.pop(), samples.len()) {
            (None, _) => return Reading::Missing(Missing::Empty),
            (Some(sample), 0) => sample,
            (Some(_), more) => return Reading::Missing(Missing::Nonsense { value: format!("{} values instead of one", more + 1) }),
        },
    };
    if !sample.value.is_finite() {
        return Reading::Missing(Missing::Nonsense { value: sample.text });
    }
    stamped(sample.value, time.unwrap_or(sample.evaluated), gate, now)
}

fn base(endpoint: &str) -> Result<Url, PrometheusError> {
    // What stands before an `@` may be a password, whether the rest is a URL or not.
    let shown = endpoint.rsplit_once('@').map_or_else(|| endpoint.to_owned(), |(_, rest)| format!("…@{rest}"));
    let wrong = |why: String| PrometheusError::Endpoint { endpoint: shown.clone(), why };
    let url = Url::parse(endpoint).map_err(|error| wrong(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || url.cannot_be_a_base() {
        return Err(wrong("it is neither http nor https".to_owned()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("a password belongs under [prometheus.auth]".to_owned()));
    }
    Ok(url)
}

/// Appends to the base URL's path, which may have a prefix.
fn joined(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/{path}", base.path().trim_end_matches('/')));
    url.set_query(None);
    url
}

fn client(config: &PrometheusConfig, endpoints: &[Url]) -> Result<Client, PrometheusError> {
    // Another adapter may have installed it, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder()
        .connect_timeout(CONNECT_TIMEOUT.min(config.timeout))
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(4);
    let builder = match &config.ca_file {
        Some(path) => {
            let wrong = |why: String| PrometheusError::Ca { path: path.display().to_string(), why };
            let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
            let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| wrong(chain(&error)))?;
            if certificates.is_empty() {
                return Err(wrong("it holds no certificate".to_owned()));
            }
            builder.tls_certs_only(certificates)
        }
        // The system's certificates are read only where a connection needs them.
        None if endpoints.iter().all(|endpoint| endpoint.scheme() == "http") => builder.tls_certs_only([]),
        None => builder,
    };
    builder.build().map_err(|error| PrometheusError::Client { why: chain(&error) })
}

#[cfg(test)]
mod tests;
