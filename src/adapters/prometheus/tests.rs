//! Tests of the adapter against a small HTTP server of their own.

use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().expect("a time")
}

const GATE: Gate = Gate { oldest: Duration::from_mins(2), skew: Duration::from_secs(10) };

fn sample(node: &str, text: &str) -> Sample {
    let labels = BTreeMap::from([("node".to_owned(), node.to_owned())]);
    Sample { labels, value: text.parse().expect("a number"), text: text.to_owned(), evaluated: 0.0 }
}

fn at(node: &str, seconds_ago: i64) -> Sample {
    sample(node, &(now().as_second() - seconds_ago).to_string())
}

fn share_of(values: &[Sample], times: &[Sample]) -> Reading {
    shares("node", values, times, GATE, now()).remove("worker-1").expect("the node")
}

#[test]
fn a_share_passes_only_with_a_sound_value_and_a_recent_sample() {
    let fresh = [at("worker-1:9100", 30)];
    assert_eq!(share_of(&[sample("worker-1:9100", "0.7")], &fresh).value(), Some(0.7));
    assert_eq!(share_of(&[sample("worker-1", "-0.004")], &fresh).value(), Some(0.0), "a little below zero is zero");
    for text in ["NaN", "+Inf", "-Inf", "1.5", "-0.5", "37"] {
        assert_eq!(share_of(&[sample("worker-1", text)], &fresh), Reading::Missing(Missing::Nonsense { value: text.into() }));
    }
    let value = [sample("worker-1", "0.7")];
    assert!(matches!(share_of(&value, &[at("worker-1", 121)]), Reading::Missing(Missing::Stale { .. })));
    assert!(matches!(share_of(&value, &[at("worker-1", -11)]), Reading::Missing(Missing::Future { .. })));
    assert_eq!(share_of(&value, &[]), Reading::Missing(Missing::Empty), "the target is gone");
    assert!(matches!(share_of(&value, &[sample("worker-1", "NaN")]), Reading::Missing(Missing::Nonsense { .. })));
}

#[test]
fn the_oldest_sample_of_a_node_counts_and_a_node_named_twice_has_no_share() {
    let times = [at("worker-1", 5), at("worker-1:9100", 500)];
    assert!(matches!(share_of(&[sample("worker-1", "0.7")], &times), Reading::Missing(Missing::Stale { .. })));
    let twice = [sample("worker-1:9100", "0.7"), sample("worker-1:9101", "0.2"), sample("worker-1", "0.1")];
    assert!(matches!(share_of(&twice, &[at("worker-1", 5)]), Reading::Missing(Missing::Nonsense { .. })));
}

#[test]
fn a_rule_has_one_finite_value_or_none() {
    let time = Some(1_772_366_390.0);
    assert_eq!(single(Answer::Vector(vec![sample("a", "12")]), time, GATE, now()).value(), Some(12.0));
    assert_eq!(single(Answer::Scalar(sample("", "12")), time, GATE, now()).value(), Some(12.0));
    assert_eq!(single(Answer::Vector(vec![]), time, GATE, now()), Reading::Missing(Missing::Empty));
    let two = Answer::Vector(vec![sample("a", "1"), sample("b", "2")]);
    assert_eq!(single(two, time, GATE, now()), Reading::Missing(Missing::Nonsense { value: "2 values instead of one".into() }));
    assert!(matches!(single(Answer::Scalar(sample("", "NaN")), time, GATE, now()), Reading::Missing(Missing::Nonsense { .. })));
}

/// Answers every request with what the function gives, and counts them.
async fn server(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("bound"));
    let requests = Arc::new(AtomicUsize::new(0));
    let (counted, answer) = (Arc::clone(&requests), Arc::new(answer));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (counted, answer) = (Arc::clone(&counted), Arc::clone(&answer));
            tokio::spawn(async move {
                let mut request = vec![0; 8192];
                let mut length = 0;
                loop {
                    let read = stream.read(&mut request[length..]).await.unwrap_or(0);
                    length += read;
                    let text = String::from_utf8_lossy(&request[..length]);
                    let whole = text.starts_with("GET") || text.split_once("\r\n\r\n").is_some_and(|(_, body)| body.contains("timeout="));
                    if whole || read == 0 {
                        break;
                    }
                }
                counted.fetch_add(1, Ordering::SeqCst);
                let answer = answer(&String::from_utf8_lossy(&request[..length]));
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    (address, requests)
}

fn http(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn one(value: &str) -> String {
    let time = SystemClock::new().now().as_second();
    http(
        "200 OK",
        &format!(
            r#"{{"status":"success","data":{{"resultType":"vector","result":[{{"metric":{{"node":"worker-1"}},"value":[{time},"{value}"]}}]}}}}"#
        ),
    )
}

/// Answers as Thanos does: with no start, a time for a query of times, and the value for any other.
fn sound(value: &'static str) -> impl Fn(&str) -> String + Send + Sync + 'static {
    move |request| {
        if request.starts_with("GET") {
            http("404 Not Found", "")
        } else if request.contains("timestamp") {
            one(&SystemClock::new().now().as_second().to_string())
        } else {
            one(value)
        }
    }
}

fn config(endpoints: Vec<String>) -> PrometheusConfig {
    PrometheusConfig {
        endpoints,
        auth: None,
        ca_file: None,
        timeout: Duration::from_secs(2),
        max_response_bytes: 10_000,
        max_sample_age: Duration::from_mins(2),
        max_clock_skew: Duration::from_secs(10),
        rate_window: Duration::from_mins(5),
        node_label: "node".into(),
        cpu_query: None,
        memory_query: None,
    }
}

fn prometheus(config: &PrometheusConfig) -> Prometheus {
    let sdk = aws_config::SdkConfig::builder()
        .behavior_version(aws_config::BehaviorVersion::latest())
        .region(aws_config::Region::new("us-east-1"))
        .build();
    Prometheus::new(config, Arc::new(Secrets::with_credentials(&sdk, None))).expect("made")
}

#[tokio::test]
async fn the_next_endpoint_answers_when_one_hangs_and_one_is_gone() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let silent = (format!("http://{}", silent.local_addr().expect("bound")), silent);
    let (good, _) = server(sound("0.5")).await;
    let adapter = prometheus(&config(vec!["http://127.0.0.1:1".into(), silent.0.clone(), good]));
    let Observed::Known { value, .. } = adapter.utilisation().await else { panic!("the third answers") };
    assert_eq!(value.nodes["worker-1"].cpu.value(), Some(0.5));
    assert_eq!(value.nodes["worker-1"].memory.value(), Some(0.5));
    assert!(!value.warming_up, "there is no start to be had");
}

#[tokio::test]
async fn an_endpoint_that_knows_nothing_has_the_next_one_asked() {
    let (young, _) = server(|_| http("200 OK", r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#)).await;
    let (old, _) = server(sound("0.5")).await;
    let adapter = prometheus(&config(vec![young, old]));
    let Observed::Known { value, .. } = adapter.utilisation().await else { panic!("the second knows") };
    assert_eq!(value.nodes["worker-1"].cpu.value(), Some(0.5));
    let empty = r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#;
    let full = r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[60,"3"],[120,"4"]]}]}}"#;
    let ((young, _), (old, _)) = (server(|_| http("200 OK", empty)).await, server(|_| http("200 OK", full)).await);
    let at = |second| jiff::Timestamp::from_second(second).expect("a time");
    let course = vec![(at(60), 3.0), (at(120), 4.0)];
    assert_eq!(prometheus(&config(vec![young.clone(), old])).history("q", at(60), at(120)).await, Ok(course));
    assert_eq!(prometheus(&config(vec!["http://127.0.0.1:1".into(), young])).history("q", at(60), at(120)).await, Ok(vec![]));
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_cut_off() {
    let (huge, _) = server(|_| http("200 OK", &"x".repeat(50_000))).await;
    let adapter = prometheus(&config(vec![huge]));
    let Observed::Unknown(Missing::Nonsense { value }) = adapter.utilisation().await else { panic!("too large") };
    assert!(value.contains("more than 10000 bytes"), "{value}");
}

#[tokio::test]
async fn errors_name_the_endpoint_and_what_it_said() {
    let (bad, _) = server(|_| http("400 Bad Request", r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#)).await;
    let (gone, _) = server(|_| http("502 Bad Gateway", "<html>")).await;
    let reading = prometheus(&config(vec![bad, gone])).query(&"queue".into(), "sum(").await;
    let Reading::Missing(Missing::Unreachable { why }) = reading else { panic!("{reading:?}") };
    assert!(why.contains("bad_data: parse error") && why.contains("502"), "{why}");
}

#[tokio::test]
async fn no_node_at_all_is_missing_and_not_an_idle_fleet() {
    let (empty, _) = server(|_| http("200 OK", r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#)).await;
    let adapter = prometheus(&config(vec![empty]));
    assert_eq!(adapter.utilisation().await, Observed::Unknown(Missing::Empty));
    assert_eq!(adapter.query(&"queue".into(), "queue").await, Reading::Missing(Missing::Empty));
}

#[tokio::test]
async fn a_young_prometheus_is_warming_up() {
    let started = SystemClock::new().now();
    let (young, _) = server(move |request| {
        if request.starts_with("GET") {
            http("200 OK", &format!(r#"{{"status":"success","data":{{"startTime":"{started}"}}}}"#))
        } else {
            sound("0.5")(request)
        }
    })
    .await;
    let Observed::Known { value, .. } = prometheus(&config(vec![young])).utilisation().await else { panic!("it answers") };
    assert!(value.warming_up);
}

#[tokio::test]
async fn a_prometheus_that_does_not_say_when_it_began_may_be_young() {
    for (answer, warming_up) in
        [("500 Internal Server Error", true), ("503 Service Unavailable", true), ("200 OK", true), ("404 Not Found", false)]
    {
        let (endpoint, _) = server(move |request| if request.starts_with("GET") { http(answer, "") } else { sound("0.5")(request) }).await;
        let Observed::Known { value, .. } = prometheus(&config(vec![endpoint])).utilisation().await else { panic!("it answers") };
        assert_eq!(value.warming_up, warming_up, "{answer}");
    }
}

#[tokio::test]
async fn an_operators_own_query_does_not_see_samples_that_are_too_old() {
    let (endpoint, requests) = server(|request| {
        let bounded = request.contains("lookback_delta=120000ms");
        match (request.starts_with("GET"), request.contains("node_memory"), bounded) {
            (false, shipped, bounded) if shipped != bounded => sound("0.5")(request),
            _ => http("404 Not Found", ""),
        }
    })
    .await;
    let adapter = prometheus(&PrometheusConfig { cpu_query: Some("busy".into()), ..config(vec![endpoint]) });
    assert_eq!(adapter.query(&"queue".into(), "sum(queue)").await.value(), Some(0.5));
    assert_eq!(requests.load(Ordering::SeqCst), 2, "the value and its time");
    let Observed::Known { value, .. } = adapter.utilisation().await else { panic!("it answers") };
    assert_eq!((value.nodes["worker-1"].cpu.value(), value.nodes["worker-1"].memory.value()), (Some(0.5), Some(0.5)));
}

#[tokio::test]
async fn a_refused_token_is_read_again_once_and_never_shown() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("token");
    std::fs::write(&path, "canary-old").expect("writable");
    let (guarded, requests) =
        server(|request| if request.contains("Bearer canary-new") { one("7") } else { http("401 Unauthorized", "") }).await;
    let auth = PrometheusAuth::Bearer { token: SecretRef::File { path: path.clone() } };
    let adapter = prometheus(&PrometheusConfig { auth: Some(auth), ..config(vec![guarded]) });
    let refused = format!("{:?}", adapter.query(&"queue".into(), "queue").await);
    assert!(refused.contains("401") && !refused.contains("canary"), "{refused}");
    assert_eq!(requests.load(Ordering::SeqCst), 4, "two queries, each once more");
    std::fs::write(&path, "canary-new").expect("writable");
    assert!(matches!(adapter.query(&"queue".into(), "vector(7)").await, Reading::Missing(Missing::Stale { .. })), "the time it gives is 7");
    assert!(!format!("{adapter:?}").contains("canary"));
}

#[test]
fn endpoints_are_urls_without_passwords_and_may_have_a_prefix() {
    let url = base("https://metrics.internal/prometheus/").expect("a URL");
    assert_eq!(joined(&url, "api/v1/query").as_str(), "https://metrics.internal/prometheus/api/v1/query");
    for wrong in ["metrics.internal", "ftp://metrics.internal", "unix:/run/x"] {
        assert!(base(wrong).is_err(), "{wrong}");
    }
    for secret in ["http://ops:canary@metrics", "http://ops:canary@metrics:port", "ops:canary@metrics", "ftp://canary@metrics"] {
        let error = base(secret).expect_err("a password");
        assert!(!error.to_string().contains("canary"), "{error}");
    }
}

#[tokio::test]
async fn a_private_ca_must_hold_a_certificate() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "no certificate").expect("writable");
    let sdk = aws_config::SdkConfig::builder().behavior_version(aws_config::BehaviorVersion::latest()).build();
    let secrets = Arc::new(Secrets::with_credentials(&sdk, None));
    let with_ca = PrometheusConfig { ca_file: Some(file.path().to_owned()), ..config(vec!["https://127.0.0.1:1".into()]) };
    assert!(matches!(Prometheus::new(&with_ca, secrets), Err(PrometheusError::Ca { .. })));
}
