use super::*;
use crate::control::status::{Command, Decision, Status};
use crate::model::{Explanation, Plan, Question};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::path::Path;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};
use tower::ServiceExt;

/// A standby's status, before anything has happened.
pub(super) fn status() -> Status {
    Status::first("c", "me", jiff::Timestamp::UNIX_EPOCH)
}

struct Bed {
    address: SocketAddr,
    folder: tempfile::TempDir,
    stop: watch::Sender<bool>,
    status: watch::Sender<Arc<Status>>,
    commands: Option<mpsc::Receiver<Command>>,
    served: tokio::task::JoinHandle<()>,
}

impl Bed {
    async fn start(token: Option<&str>, limits: Limits) -> Self {
        Self::showing(Arc::new(|| "# EOF\n".to_owned()), token.map(known), limits).await
    }

    async fn showing(render: Render, token: Option<TokenWatch>, limits: Limits) -> Self {
        let (status, shown) = watch::channel(Arc::new(status()));
        let (sender, commands) = mpsc::channel(2);
        let surface =
            Surface { handle: Handle { status: shown, commands: sender }, pulse: Pulse::new(Duration::from_mins(2)), render, token };
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = tcp.local_addr().expect("an address");
        let folder = tempfile::tempdir().expect("a folder");
        let admin = AdminSocket::bind(&folder.path().join("run/admin.sock")).await.expect("a socket");
        let (stop, stopped) = watch::channel(false);
        let served = tokio::spawn(serve(surface, limits, tcp, Some(admin), stopped));
        Self { address, folder, stop, status, commands: Some(commands), served }
    }

    fn socket(&self) -> std::path::PathBuf {
        self.folder.path().join("run/admin.sock")
    }

    /// Answers each command as a controller would.
    fn obey(&mut self) {
        let mut commands = self.commands.take().expect("nobody obeys yet");
        tokio::spawn(async move {
            while let Some(command) = commands.recv().await {
                match command {
                    Command::Pause { reason, done, .. } if reason == "ledger" => drop(done.send(Err("the ledger does not answer".into()))),
                    Command::Pause { done, .. } | Command::Resume { done, .. } | Command::ResetOffers { done, .. } => {
                        drop(done.send(Ok(())));
                    }
                    Command::Evaluate { done } => drop(done.send(Ok(decision()))),
                    Command::Explain { question, done } => {
                        let known = question != Question::Node("gone".into());
                        drop(done.send(Ok(known.then(|| Explanation::new(&question, jiff::Timestamp::UNIX_EPOCH, "so".to_owned(), [])))));
                    }
                }
            }
        });
    }

    async fn tcp(&self, method: &str, path: &str, token: Option<&str>, body: &str) -> (u16, serde_json::Value) {
        let stream = TcpStream::connect(self.address).await.expect("a connection");
        ask(stream, method, path, token, body).await
    }

    async fn unix(&self, method: &str, path: &str, body: &str) -> (u16, serde_json::Value) {
        let stream = UnixStream::connect(self.socket()).await.expect("a connection");
        ask(stream, method, path, None, body).await
    }
}

/// A token as it is known; the empty one is not.
fn known(text: &str) -> TokenWatch {
    watch::channel(Token::new(text).map(Arc::new)).1
}

fn decision() -> Arc<Decision> {
    Arc::new(Decision {
        at: jiff::Timestamp::UNIX_EPOCH,
        trigger: "operator",
        plan: Plan::default(),
        refused: Vec::new(),
        operations: Vec::new(),
    })
}

async fn ask<S>(stream: S, method: &str, path: &str, token: Option<&str>, body: &str) -> (u16, serde_json::Value)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a handshake");
    tokio::spawn(connection);
    let mut request = hyper::Request::builder().method(method).uri(path).header("host", "node-fleet");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let response = sender.send_request(request.body(body.to_owned()).expect("a request")).await.expect("an answer");
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into()))
}

#[tokio::test]
async fn reads_are_answered_and_every_failure_is_json() {
    let bed = Bed::start(None, Limits::default()).await;
    let mut shown = status();
    shown.decisions = std::iter::repeat_with(decision).take(30).collect();
    bed.status.send_replace(Arc::new(shown));
    assert_eq!(bed.tcp("GET", "/metrics", None, "").await, (200, "# EOF\n".into()));
    assert_eq!(bed.tcp("GET", "/healthz", None, "").await.0, 200);
    assert_eq!(bed.tcp("GET", "/readyz", None, "").await.0, 503);
    let (code, shown) = bed.tcp("GET", "/api/v1/status", None, "").await;
    assert_eq!((code, shown["cluster"].as_str(), shown.get("decisions")), (200, Some("c"), None));
    for (query, number) in [("", 20), ("?limit=3", 3), ("?limit=200", 30)] {
        let (code, page) = bed.tcp("GET", &format!("/api/v1/decisions{query}"), None, "").await;
        assert_eq!((code, page["decisions"].as_array().map(Vec::len)), (200, Some(number)), "{query}");
    }
    for (method, path, code) in [
        ("GET", "/page", 404),
        ("GET", "/api/v2/status", 404),
        ("POST", "/metrics", 405),
        ("GET", "/api/v1/pause", 405),
        ("GET", "/api/v1/decisions?limit=0", 400),
        ("GET", "/api/v1/decisions?limit=x", 400),
        ("GET", "/api/v1/decisions?page=2", 400),
    ] {
        let (found, body) = bed.tcp(method, path, None, "").await;
        assert_eq!(found, code, "{method} {path}");
        assert!(body["error"].is_string(), "{method} {path}: {body}");
    }
}

#[tokio::test]
async fn the_page_comes_with_a_policy_and_the_ledger_of_costs_beside_it() {
    let bed = Bed::start(None, Limits::default()).await;
    let stream = TcpStream::connect(bed.address).await.expect("a connection");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a handshake");
    tokio::spawn(connection);
    let request = hyper::Request::builder().uri("/").header("host", "node-fleet").body(String::new()).expect("a request");
    let answer = sender.send_request(request).await.expect("an answer");
    let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert_eq!((answer.status().as_u16(), header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(header("content-security-policy").starts_with("default-src 'none'; script-src 'sha256-"));
    assert_eq!((header("x-content-type-options"), header("x-frame-options")), ("nosniff", "DENY"));
    assert_eq!(bed.tcp("GET", "/api/v1/cost", None, "").await, (200, json!({ "cost": null })));
}

#[tokio::test]
async fn the_socket_takes_changes_from_its_own_user() {
    let mut bed = Bed::start(None, Limits::default()).await;
    bed.obey();
    let (code, answer) = bed.unix("POST", "/api/v1/pause", r#"{"reason":"maintenance"}"#).await;
    assert_eq!((code, answer["paused"].as_bool(), answer["reason"].as_str()), (200, Some(true), Some("maintenance")));
    assert_eq!(bed.unix("POST", "/api/v1/pause", "").await.1["reason"], "no reason given");
    assert_eq!(bed.unix("POST", "/api/v1/resume", "").await, (200, json!({ "paused": false })));
    assert_eq!(bed.unix("POST", "/api/v1/offers/reset", "{}").await, (200, json!({ "reset": true })));
    assert_eq!(bed.unix("POST", "/api/v1/offers/reset", r#"{"offer":"x"}"#).await.0, 400);
    assert_eq!(bed.unix("POST", "/api/v1/evaluate", "{}").await.1["trigger"], "operator");
    for (body, code) in [
        ("{", 400),
        (r#"{"resaon":"x"}"#, 400),
        (r#"{"reason":7}"#, 400),
        (&format!(r#"{{"reason":"{}"}}"#, "x".repeat(501)), 400),
        (r#"{"reason":"ledger"}"#, 503),
        (&"x".repeat(17 << 10), 413),
    ] {
        let (found, answer) = bed.unix("POST", "/api/v1/pause", body).await;
        assert_eq!(found, code, "{answer}");
        assert!(answer["error"].is_string(), "{answer}");
    }
}

#[tokio::test]
async fn tcp_takes_changes_with_the_token_only() {
    let mut closed = Bed::start(None, Limits::default()).await;
    closed.obey();
    let (code, answer) = closed.tcp("POST", "/api/v1/pause", Some("canary"), "").await;
    assert_eq!(code, 403);
    assert!(answer["error"].as_str().is_some_and(|text| text.contains("http.token")), "{answer}");
    let mut open = Bed::start(Some("canary"), Limits::default()).await;
    open.obey();
    for path in ["/api/v1/resume", "/api/v1/offers/reset"] {
        assert_eq!(open.tcp("POST", path, None, "").await.0, 401, "{path}");
        assert_eq!(open.tcp("POST", path, Some("canari"), "").await.0, 401, "{path}");
        assert_eq!(open.tcp("POST", path, Some("canary"), "").await.0, 200, "{path}");
    }
}

#[tokio::test]
async fn a_token_that_comes_late_and_is_changed_is_followed() {
    let (token, watched) = watch::channel(None);
    let mut bed = Bed::showing(Arc::new(String::new), Some(watched), Limits::default()).await;
    bed.obey();
    let (code, answer) = bed.tcp("POST", "/api/v1/resume", Some("canary"), "").await;
    assert_eq!(code, 503);
    assert!(answer["error"].as_str().is_some_and(|text| text.contains("the token cannot be had now")), "{answer}");
    for text in ["canary", "finch"] {
        token.send_replace(Token::new(text).map(Arc::new));
        assert_eq!(bed.tcp("POST", "/api/v1/resume", Some(text), "").await.0, 200, "{text}");
    }
    assert_eq!(bed.tcp("POST", "/api/v1/resume", Some("canary"), "").await.0, 401, "the old one is void");
}

#[tokio::test]
async fn from_beyond_this_machine_the_api_needs_the_token_and_metrics_and_health_do_not() {
    let far = Caller::Tcp(SocketAddr::from(([10, 0, 0, 1], 4711)));
    let near = Caller::Tcp(SocketAddr::from(([127, 0, 0, 1], 4711)));
    for path in ["/api/v1/status", "/api/v1/decisions"] {
        assert_eq!(look(far, None, None, path).await, 403, "{path} without a token configured");
        assert_eq!(look(far, Some("canary"), None, path).await, 401, "{path} without the token");
        assert_eq!(look(far, Some("canary"), Some("canari"), path).await, 401, "{path} with another token");
        assert_eq!(look(far, Some(""), Some("canary"), path).await, 503, "{path} while the token cannot be had");
        assert_eq!(look(far, Some("canary"), Some("canary"), path).await, 200, "{path} with the token");
        assert_eq!(look(near, Some("canary"), None, path).await, 200, "{path} from here");
    }
    for (path, code) in [("/metrics", 200), ("/healthz", 200), ("/readyz", 503), ("/", 200)] {
        assert_eq!(look(far, Some("canary"), None, path).await, code, "{path}");
    }
}

/// The code that a caller gets for a GET, where `known_as` is configured (`Some("")`: and cannot be had) and `shown` is sent.
async fn look(caller: Caller, known_as: Option<&str>, shown: Option<&str>, path: &str) -> u16 {
    let (_status, status) = watch::channel(Arc::new(status()));
    let surface = Surface {
        handle: Handle { status, commands: mpsc::channel(1).0 },
        pulse: Pulse::new(Duration::from_mins(2)),
        render: Arc::new(String::new),
        token: known_as.map(known),
    };
    let mut request = hyper::Request::builder().uri(path).extension(caller);
    if let Some(token) = shown {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(axum::body::Body::empty()).expect("a request");
    let response = router(surface, &Limits::default()).oneshot(request).await.expect("an answer");
    response.status().as_u16()
}

#[tokio::test]
async fn a_controller_that_is_busy_or_gone_is_told_of() {
    let mut bed = Bed::start(None, Limits { request: Duration::from_millis(200), ..Limits::default() }).await;
    // Two commands fit; nobody takes them.
    for _ in 0..2 {
        assert_eq!(bed.unix("POST", "/api/v1/resume", "").await.0, 504);
    }
    let (code, answer) = bed.unix("POST", "/api/v1/resume", "").await;
    assert_eq!(code, 503);
    assert!(answer["error"].as_str().is_some_and(|text| text.contains("wait already")), "{answer}");
    bed.commands = None;
    assert_eq!(bed.unix("POST", "/api/v1/resume", "").await.1["error"], "the daemon is stopping");
}

#[tokio::test]
async fn a_slow_client_is_cut_off() {
    let limits = Limits { head_time: Duration::from_millis(100), request: Duration::from_millis(200), ..Limits::default() };
    let mut bed = Bed::start(None, limits).await;
    bed.obey();
    let mut idle = TcpStream::connect(bed.address).await.expect("a connection");
    let mut slow_head = TcpStream::connect(bed.address).await.expect("a connection");
    slow_head.write_all(b"GET /healthz HTTP/1.1\r\nHost:").await.expect("it is sent");
    let mut slow_body = UnixStream::connect(bed.socket()).await.expect("a connection");
    slow_body.write_all(b"POST /api/v1/pause HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{").await.expect("it is sent");
    for stream in [&mut idle, &mut slow_head] {
        let mut rest = Vec::new();
        tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest))
            .await
            .expect("it is closed in time")
            .expect("it is read");
    }
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(5), slow_body.read_to_end(&mut answer)).await.expect("in time").expect("it is read");
    assert!(String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 504"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn a_client_that_does_not_take_its_answer_gives_its_place_up() {
    let limits = Limits {
        connections: 1,
        head_time: Duration::from_mins(1),
        request: Duration::from_secs(1),
        write: Duration::from_secs(1),
        ..Limits::default()
    };
    // More than the buffers between the two hold, so that the rest waits for the client.
    let bed = Bed::showing(Arc::new(|| "x".repeat(32 << 20)), None, limits).await;
    for head in ["", "Connection: close\r\n"] {
        let mut greedy = TcpStream::connect(bed.address).await.expect("a connection");
        greedy.write_all(format!("GET /metrics HTTP/1.1\r\nHost: x\r\n{head}\r\n").as_bytes()).await.expect("it is sent");
        let mut first = [0; 1];
        greedy.read_exact(&mut first).await.expect("the answer begins");
        let answer = tokio::time::timeout(Duration::from_secs(20), bed.tcp("GET", "/healthz", None, "")).await;
        assert_eq!(answer.expect("the place is free again").0, 200, "{head:?}");
        drop(greedy);
    }
}

#[tokio::test]
async fn a_flood_on_tcp_leaves_the_socket_free_and_passes() {
    let limits = Limits { connections: 2, head_time: Duration::from_millis(300), ..Limits::default() };
    let bed = Bed::start(None, limits).await;
    let mut flood = Vec::new();
    for _ in 0..10 {
        flood.push(TcpStream::connect(bed.address).await.expect("a connection"));
    }
    assert_eq!(bed.unix("GET", "/healthz", "").await.0, 200);
    let answer = tokio::time::timeout(Duration::from_secs(10), bed.tcp("GET", "/healthz", None, "")).await;
    assert_eq!(answer.expect("idle connections are closed, so its turn comes").0, 200);
}

#[tokio::test]
async fn an_oversized_head_is_refused() {
    let bed = Bed::start(None, Limits::default()).await;
    let mut stream = TcpStream::connect(bed.address).await.expect("a connection");
    let head = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX-Filler: {}\r\n\r\n", "x".repeat(32 << 10));
    // The server may close before it has taken everything.
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await.expect("it is closed in time");
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("admin.sock");
    let mode = |path: &Path| std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path).expect("a file").permissions()) & 0o777;
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
    let living = AdminSocket::bind(&path).await.expect("the stale one makes room");
    assert_eq!(mode(&path), 0o660);
    assert!(matches!(AdminSocket::bind(&path).await, Err(SocketError::InUse { .. })));
    drop(living);
    assert!(!path.exists(), "the file goes with the socket");
    std::fs::write(&path, "precious").expect("a file");
    assert!(matches!(AdminSocket::bind(&path).await, Err(SocketError::NotASocket { .. })));
    assert_eq!(std::fs::read_to_string(&path).expect("it is still there"), "precious");
}

#[tokio::test]
async fn it_ends_when_it_is_told_to() {
    let bed = Bed::start(None, Limits::default()).await;
    let idle = TcpStream::connect(bed.address).await.expect("a connection");
    bed.stop.send_replace(true);
    tokio::time::timeout(Duration::from_secs(5), bed.served).await.expect("it ends").expect("it ends well");
    assert!(!bed.folder.path().join("run/admin.sock").exists());
    drop(idle);
}

#[tokio::test]
async fn questions_are_answered_by_the_controller() {
    let mut bed = Bed::start(None, Limits::default()).await;
    bed.obey();
    for (path, subject) in [("pods/shop/web-0", "pod shop/web-0"), ("nodes/n1", "node n1"), ("offers", "offers")] {
        let (code, answer) = bed.tcp("GET", &format!("/api/v1/explain/{path}"), None, "").await;
        assert_eq!((code, answer["subject"].as_str(), answer["verdict"].as_str()), (200, Some(subject), Some("so")));
    }
    let (code, answer) = bed.tcp("GET", "/api/v1/explain/nodes/gone", None, "").await;
    assert_eq!((code, answer["error"].as_str()), (404, Some("there is no node gone in the cluster as the latest turn saw it")));
    assert_eq!(bed.tcp("GET", "/api/v1/explain/pods/shop", None, "").await.0, 404);
}
