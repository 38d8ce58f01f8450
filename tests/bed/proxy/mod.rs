//! The AWS endpoint of the bed: in front of moto and DynamoDB Local, with what they lack and with faults.
//!
//! It adds idempotent client tokens, capacity per offer, states that take time, a
//! price list, a call log, and faults at either side of a call's effect.

mod answer;
pub mod call;
pub mod capacity;
mod describe;
pub mod faults;
mod fleet;
mod prices;
pub mod xml;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};

use self::answer::Answer;
use self::call::{Call, write_form};
use self::capacity::{Capacity, Offers};
pub use self::describe::Delays;
use self::faults::{Decision, Faults, When};
use self::xml::Element;
use crate::wait::{Seen, until};

/// The access key with which the bed itself signs; its calls are not logged.
pub const BED_KEY: &str = "AKIABED";

/// How AWS refuses a launch for want of machines.
pub const NO_CAPACITY: &str = "InsufficientInstanceCapacity";

/// The servers behind the proxy.
#[derive(Clone)]
pub struct Upstream {
    client: reqwest::Client,
    moto: String,
    dynamodb: String,
}

/// The running proxy.
#[derive(Clone)]
pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    /// Errors, delays, cuts and holds.
    pub faults: Faults,
}

struct Shared {
    upstream: Upstream,
    calls: Mutex<Vec<Call>>,
    capacity: Mutex<Capacity>,
    delays: Mutex<Delays>,
    launched: Mutex<BTreeMap<String, Instant>>,
    /// By action, token and zone: the first request and its answer. Held over the
    /// whole launch, so that of two at once one waits for the other's answer.
    tokens: tokio::sync::Mutex<BTreeMap<String, Remembered>>,
}

struct Remembered {
    parameters: BTreeMap<String, String>,
    answer: Answer,
    instances: Vec<String>,
}

/// What a call's effect was.
struct Effect {
    answer: Answer,
    instances: Vec<String>,
    replayed: bool,
}

impl From<Answer> for Effect {
    fn from(answer: Answer) -> Self {
        Self { answer, instances: Vec::new(), replayed: false }
    }
}

struct Incomer {
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Proxy {
    /// Serves on a free port for as long as the process lives.
    pub async fn start(client: reqwest::Client, moto: &str, dynamodb: &str) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let upstream = Upstream { client, moto: moto.to_owned(), dynamodb: dynamodb.to_owned() };
        let shared = Shared {
            upstream,
            calls: Mutex::default(),
            capacity: Mutex::default(),
            delays: Mutex::default(),
            launched: Mutex::default(),
            tokens: tokio::sync::Mutex::default(),
        };
        let proxy = Self { shared: Arc::new(shared), address: listener.local_addr()?, faults: Faults::default() };
        let server = proxy.clone();
        tokio::spawn(async move {
            loop {
                if let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(server.clone().serve(stream));
                }
            }
        });
        Ok(proxy)
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// EC2 has `remaining` more instances of these offers together.
    pub fn limit_capacity(&self, offers: Offers, remaining: usize) {
        self.limit_with(offers, remaining, NO_CAPACITY);
    }

    /// The same with another error, such as `MaxSpotInstanceCountExceeded`.
    pub fn limit_with(&self, offers: Offers, remaining: usize, code: &str) {
        lock(&self.shared.capacity).limit(offers, remaining, code);
    }

    /// Everything is to be had again.
    pub fn unlimited_capacity(&self) {
        lock(&self.shared.capacity).clear();
    }

    /// How late describe calls show new instances, and when those run.
    pub fn set_delays(&self, delays: Delays) {
        *lock(&self.shared.delays) = delays;
    }

    /// When the instance counts as running; for the joiner, which asks moto itself.
    pub fn runs(&self, instance: &str) -> bool {
        let delay = lock(&self.shared.delays).running;
        lock(&self.shared.launched).get(instance).is_none_or(|since| since.elapsed() >= delay)
    }

    /// The servers behind it, for those who must not be seen in the log.
    pub fn upstream(&self) -> &Upstream {
        &self.shared.upstream
    }

    /// All calls so far.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.shared.calls).clone()
    }

    /// The calls of one action.
    pub fn calls_of(&self, action: &str) -> Vec<Call> {
        lock(&self.shared.calls).iter().filter(|call| call.action == action).cloned().collect()
    }

    /// The launches (`CreateFleet`, `RunInstances`) that really made instances.
    pub fn launches(&self) -> Vec<Call> {
        let makes = |call: &&Call| matches!(call.action.as_str(), "CreateFleet" | "RunInstances");
        let effective = |call: &&Call| makes(call) && !call.replayed && !call.instances.is_empty();
        lock(&self.shared.calls).iter().filter(effective).cloned().collect()
    }

    /// The next call since call number `after` that passes the test, finished.
    pub async fn wait_for(&self, what: &str, after: usize, limit: Duration, test: impl Fn(&Call) -> bool) -> Result<Call> {
        until(what, limit, async || {
            let calls = self.calls();
            let fresh = || calls.iter().filter(|call| call.number > after);
            let found = fresh().find(|call| (call.status.is_some() || call.cut) && test(call)).cloned();
            let seen = || format!("{} other calls: {}", fresh().count(), actions(fresh()));
            Ok(found.map_or_else(|| Seen::NotYet(seen()), Seen::Done))
        })
        .await
    }

    /// The number of the latest call.
    pub fn mark(&self) -> usize {
        lock(&self.shared.calls).last().map_or(0, |call| call.number)
    }

    /// Forgets calls, faults, limits, delays and tokens.
    pub async fn reset(&self) {
        self.faults.clear();
        self.unlimited_capacity();
        self.set_delays(Delays::default());
        lock(&self.shared.calls).clear();
        lock(&self.shared.launched).clear();
        self.shared.tokens.lock().await.clear();
    }

    async fn serve(self, stream: TcpStream) {
        let service = service_fn(|request| self.clone().handle(request));
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        // A cut ends in an error here, and so does a killed client: both are wanted.
        let _ = connection.await;
    }

    /// An error closes the connection without an answer.
    async fn handle(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let incomer = Incomer { path, headers: parts.headers, body };
        let call = self.log(Call::read(&incomer.headers, &incomer.body));
        let answer = if call.action == "ReceiveMessage" {
            // Ends with its client: a dead poller must not take messages.
            self.run(call, incomer).await
        } else {
            // Goes on when its client dies: what is on the wire takes effect.
            tokio::spawn(async move { self.run(call, incomer).await }).await?
        };
        answer.map(Answer::response).ok_or_else(|| anyhow!("cut"))
    }

    /// Carries the call through its fate; none when its connection is to be cut.
    async fn run(&self, call: Call, incomer: Incomer) -> Option<Answer> {
        let fate = self.faults.meet(&call);
        tokio::time::sleep(fate.delay).await;
        let (before, after) = match fate.hold {
            Some((When::Before, gate)) => (Some(gate), None),
            Some((When::After, gate)) => (None, Some(gate)),
            None => (None, None),
        };
        if let Some(gate) = before
            && gate.pass(&call).await == Decision::Cut
        {
            return self.cut(&call);
        }
        if fate.cut == Some(When::Before) {
            return self.cut(&call);
        }
        let effect = match fate.fail {
            Some((code, status)) => Answer::error(&call, &code, "The bed says so.", status).into(),
            None => self.effect(&call, incomer).await.unwrap_or_else(|error| failure(&call, &error)),
        };
        let call = self.finish(&call, &effect);
        if let Some(gate) = after
            && gate.pass(&call).await == Decision::Cut
        {
            return self.cut(&call);
        }
        if fate.cut == Some(When::After) {
            return self.cut(&call);
        }
        Some(effect.answer)
    }

    async fn effect(&self, call: &Call, incomer: Incomer) -> Result<Effect> {
        let shared = &self.shared;
        match (call.service.as_str(), call.action.as_str()) {
            ("ec2", "CreateFleet" | "RunInstances") => self.launch(call).await,
            ("ec2", "DescribeInstances") => {
                let delays = *lock(&shared.delays);
                let ages = lock(&shared.launched).iter().map(|(id, at)| (id.clone(), at.elapsed())).collect();
                Ok(describe::instances(&shared.upstream, delays, &ages, call).await?.into())
            }
            ("ec2", "DescribeSpotPriceHistory") => Ok(prices::spot_history(call).into()),
            ("pricing", "GetProducts") => Ok(prices::products(call).into()),
            ("sqs", "ReceiveMessage") => Ok(shared.upstream.receive(call, incomer).await?.into()),
            _ => Ok(shared.upstream.forward(call, incomer).await?.into()),
        }
    }

    /// One effect for each client token, whoever asks how often.
    async fn launch(&self, call: &Call) -> Result<Effect> {
        let shared = &self.shared;
        let place = call.parameter("SubnetId").unwrap_or_default();
        let token = call.parameter("ClientToken").map(|token| format!("{} {token} {place}", call.action));
        let mut tokens = shared.tokens.lock().await;
        if let Some(first) = token.as_ref().and_then(|token| tokens.get(token)) {
            if first.parameters != call.parameters {
                let message = "The client token was used before with other parameters.";
                return Ok(Answer::error(call, "IdempotentParameterMismatch", message, 400).into());
            }
            return Ok(Effect { answer: first.answer.clone(), instances: first.instances.clone(), replayed: true });
        }
        let launched = if call.action == "CreateFleet" {
            fleet::create_fleet(&shared.upstream, &shared.capacity, call).await?
        } else {
            fleet::run_instances(&shared.upstream, &shared.capacity, call).await?
        };
        let now = Instant::now();
        lock(&shared.launched).extend(launched.instances.iter().map(|id| (id.clone(), now)));
        if let Some(token) = token.filter(|_| launched.answer.is_success()) {
            let (answer, instances) = (launched.answer.clone(), launched.instances.clone());
            tokens.insert(token, Remembered { parameters: call.parameters.clone(), answer, instances });
        }
        Ok(Effect { answer: launched.answer, instances: launched.instances, replayed: false })
    }

    fn log(&self, mut call: Call) -> Call {
        if call.caller != BED_KEY {
            let mut calls = lock(&self.shared.calls);
            call.number = calls.last().map_or(1, |last| last.number + 1);
            calls.push(call.clone());
        }
        call
    }

    fn finish(&self, call: &Call, effect: &Effect) -> Call {
        self.update(call, |entry| {
            entry.status = Some(effect.answer.status);
            entry.error = effect.answer.error_code();
            entry.instances.clone_from(&effect.instances);
            entry.replayed = effect.replayed;
        })
    }

    fn cut(&self, call: &Call) -> Option<Answer> {
        self.update(call, |entry| entry.cut = true);
        None
    }

    fn update(&self, call: &Call, change: impl Fn(&mut Call)) -> Call {
        let mut calls = lock(&self.shared.calls);
        match calls.iter_mut().find(|entry| entry.number == call.number && entry.at == call.at) {
            Some(entry) => {
                entry.took = entry.at.elapsed();
                change(entry);
                entry.clone()
            }
            None => call.clone(),
        }
    }
}

impl Upstream {
    /// Calls EC2 of moto as the bed itself.
    pub async fn ec2(&self, action: &str, parameters: &BTreeMap<String, String>) -> Result<Answer> {
        let mut headers = signed("ec2")?;
        headers.insert(CONTENT_TYPE, "application/x-www-form-urlencoded".parse()?);
        let body = Bytes::from(write_form(action, parameters));
        self.send(&self.moto, Incomer { path: "/".to_owned(), headers, body }).await
    }

    /// Calls a service of moto that speaks JSON as the bed itself, such as `events` with `AWSEvents.PutEvents`.
    pub async fn json(&self, service: &str, target: &str, body: &Value) -> Result<Value> {
        let mut headers = signed(service)?;
        headers.insert(CONTENT_TYPE, "application/x-amz-json-1.1".parse()?);
        headers.insert("x-amz-target", target.parse()?);
        let body = Bytes::from(body.to_string());
        let answer = self.send(&self.moto, Incomer { path: "/".to_owned(), headers, body }).await?;
        ensure!(answer.is_success(), "{target}: {}", answer.text());
        serde_json::from_slice(&answer.body).with_context(|| format!("{target}: {}", answer.text()))
    }

    /// Subnet ids and their zones.
    pub async fn subnets(&self) -> Result<BTreeMap<String, String>> {
        let answer = self.ec2("DescribeSubnets", &BTreeMap::new()).await?;
        let root = Element::parse(&answer.text())?;
        let pair = |item: &Element| (item.at(&["subnetId"]).to_owned(), item.at(&["availabilityZone"]).to_owned());
        Ok(root.items("subnetSet").iter().map(pair).collect())
    }

    async fn forward(&self, call: &Call, incomer: Incomer) -> Result<Answer> {
        let server = if call.service == "dynamodb" { &self.dynamodb } else { &self.moto };
        self.send(server, incomer).await
    }

    /// Long polling on this side of moto: there, a poll whose client has died
    /// lives on and takes the next message with it.
    async fn receive(&self, call: &Call, incomer: Incomer) -> Result<Answer> {
        let mut request: Value = serde_json::from_slice(&incomer.body).context("ReceiveMessage is not JSON")?;
        let patience = call.parameter("WaitTimeSeconds").and_then(|text| text.parse().ok()).unwrap_or(0);
        let end = Instant::now() + Duration::from_secs(patience);
        request["WaitTimeSeconds"] = Value::from(0);
        let body = Bytes::from(request.to_string());
        loop {
            let again = Incomer { path: incomer.path.clone(), headers: incomer.headers.clone(), body: body.clone() };
            let answer = self.send(&self.moto, again).await?;
            if !answer.is_success() || answer.text().contains("ReceiptHandle") || Instant::now() >= end {
                return Ok(answer);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn send(&self, server: &str, incomer: Incomer) -> Result<Answer> {
        let mut headers = incomer.headers;
        for own in [HOST, CONTENT_LENGTH, CONNECTION, TRANSFER_ENCODING] {
            headers.remove(own);
        }
        let url = format!("{server}{}", incomer.path);
        let answer =
            self.client.post(&url).headers(headers).body(incomer.body).send().await.with_context(|| format!("forward to {url}"))?;
        let status = answer.status().as_u16();
        let mut headers = answer.headers().clone();
        for own in [CONTENT_LENGTH, CONNECTION, TRANSFER_ENCODING] {
            headers.remove(own);
        }
        Ok(Answer { status, headers, body: answer.bytes().await? })
    }
}

/// The header by which moto knows the service; it looks at no signature.
fn signed(service: &str) -> Result<HeaderMap> {
    let credential = format!("AWS4-HMAC-SHA256 Credential={BED_KEY}/20260101/us-east-1/{service}/aws4_request, Signature=0");
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, credential.parse()?);
    Ok(headers)
}

fn failure(call: &Call, error: &anyhow::Error) -> Effect {
    Answer::error(call, "InternalError", &format!("the bed's proxy: {error:#}"), 500).into()
}

fn actions<'a>(calls: impl Iterator<Item = &'a Call>) -> String {
    let mut counts = BTreeMap::<&str, usize>::new();
    calls.for_each(|call| *counts.entry(&call.action).or_default() += 1);
    counts.iter().map(|(action, count)| format!("{action} {count}")).collect::<Vec<_>>().join(", ")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
