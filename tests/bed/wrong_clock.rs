//! A Prometheus whose clock is ahead: the bed's own, with the times of its samples moved on their way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::net::TcpListener;

/// How a form asks for the times of samples.
const TIMES: &[u8] = b"timestamp%28";

/// The front of the server.
#[derive(Clone)]
pub struct WrongClock {
    upstream: String,
    client: reqwest::Client,
    ahead_seconds: Arc<AtomicU32>,
    address: SocketAddr,
}

impl WrongClock {
    /// Serves on a free port for as long as the process lives, with the right time at first.
    pub async fn start(upstream: String) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let clock = Self { upstream, client: reqwest::Client::new(), ahead_seconds: Arc::default(), address: listener.local_addr()? };
        let router = Router::new().fallback(pass).with_state(clock.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(clock)
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sets how far the clock is ahead.
    pub fn set_ahead(&self, seconds: u32) {
        self.ahead_seconds.store(seconds, Ordering::Relaxed);
    }

    async fn forward(&self, method: Method, uri: &Uri, headers: &HeaderMap, body: Bytes) -> Result<(StatusCode, Vec<u8>)> {
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let asks_for_times = body.windows(TIMES.len()).any(|part| part == TIMES);
        let mut request = self.client.request(method, format!("{}{path}", self.upstream)).body(body);
        if let Some(kind) = headers.get(CONTENT_TYPE) {
            request = request.header(CONTENT_TYPE, kind.clone());
        }
        let answer = request.send().await?;
        let (status, bytes) = (answer.status(), answer.bytes().await?);
        let ahead = self.ahead_seconds.load(Ordering::Relaxed);
        if !asks_for_times || ahead == 0 {
            return Ok((status, bytes.to_vec()));
        }
        Ok((status, moved(serde_json::from_slice(&bytes)?, ahead).to_string().into_bytes()))
    }
}

async fn pass(State(clock): State<WrongClock>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    match clock.forward(method, &uri, &headers, body).await {
        Ok(answer) => answer.into_response(),
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{error:#}")).into_response(),
    }
}

/// Adds to every value of a vector.
fn moved(mut answer: Value, seconds: u32) -> Value {
    for series in answer["data"]["result"].as_array_mut().into_iter().flatten() {
        let time = series["value"][1].as_str().and_then(|text| text.parse::<f64>().ok());
        if let Some(time) = time {
            series["value"][1] = (time + f64::from(seconds)).to_string().into();
        }
    }
    answer
}
