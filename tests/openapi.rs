//! The `OpenAPI` document against the routes, and against what is really answered in a simulated world.

use axum::body::Body;
use http_body_util::BodyExt;
use hyper::Request;
use jsonschema::Validator;
use node_fleet::control::status::Handle;
use node_fleet::http::access::Caller;
use node_fleet::http::{Limits, Pulse, Surface, router};
use node_fleet::sim::front::{Deaf, Run, Scenario};
use node_fleet::sim::{Fault, Planned};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tower::ServiceExt;

/// The world is looked at so often.
const LOOK: Duration = Duration::from_secs(197);

fn document() -> Value {
    serde_json::from_str(node_fleet::http::openapi::DOCUMENT).expect("it is JSON")
}

/// Gives every route of the router's source: its path and its method.
fn routes() -> BTreeSet<(String, String)> {
    let source = include_str!("../src/http.rs");
    let (_, calls) = source.split_once("pub fn router").expect("it builds the routes");
    let calls = calls.split(".route(\"").skip(1);
    calls
        .map(|call| {
            let (path, rest) = call.split_once("\", ").expect("a path and a handler");
            let (method, _) = rest.split_once('(').expect("a method");
            (path.to_owned(), method.to_owned())
        })
        .collect()
}

#[test]
fn every_route_is_documented_and_every_documented_path_is_a_route() {
    let document = document();
    let paths = document["paths"].as_object().expect("it has paths");
    let documented: BTreeSet<(String, String)> = paths
        .iter()
        .flat_map(|(path, methods)| methods.as_object().expect("methods").keys().map(|method| (path.clone(), method.clone())))
        .collect();
    assert!(documented.len() > 10, "the scan has found next to nothing");
    assert_eq!(documented, routes());
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
}

/// Builds what judges an answer: by path, method and code. Formats are part of the judgement.
fn judge(document: &Value, path: &str, method: &str, code: u16) -> Validator {
    let code = code.to_string();
    let schema = &document["paths"][path][method]["responses"][&code]["content"]["application/json"]["schema"];
    assert!(schema.is_object(), "{method} {path} does not document the answer {code}");
    let whole = json!({ "allOf": [schema], "components": document["components"] });
    jsonschema::draft202012::options().should_validate_formats(true).build(&whole).unwrap_or_else(|why| panic!("{path}: {why}"))
}

/// Fills a documented path in.
fn filled(path: &str, with: &[(&str, &str)]) -> String {
    // At every look there are only a few decisions that the one before has not seen.
    let path = path.replace("/decisions", "/decisions?limit=3");
    with.iter().fold(path, |path, (name, value)| path.replace(&format!("{{{name}}}"), value))
}

async fn ask(surface: &Surface, method: &str, path: &str, body: &'static str) -> (u16, Value) {
    let caller = Caller::Trusted { uid: 0 };
    let request =
        Request::builder().method(method.to_uppercase().as_str()).uri(path).extension(caller).body(Body::from(body)).expect("a request");
    let answer = router(surface.clone(), &Limits::default()).oneshot(request).await.expect("an answer");
    let code = answer.status().as_u16();
    let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap_or_else(|_| panic!("{method} {path}: {}", String::from_utf8_lossy(&bytes))))
}

/// Everything that is asked at each look: the documented path, the method, what fills the path in, and the body.
type Question = (&'static str, &'static str, Vec<(&'static str, &'static str)>, &'static str);

fn questions() -> Vec<Question> {
    let get = |path| (path, "get", Vec::new(), "");
    let post = |path, body| (path, "post", Vec::new(), body);
    vec![
        get("/healthz"),
        get("/readyz"),
        get("/api/v1/openapi.json"),
        get("/api/v1/status"),
        get("/api/v1/decisions"),
        get("/api/v1/forecast"),
        get("/api/v1/cost"),
        get("/api/v1/explain/offers"),
        ("/api/v1/explain/nodes/{name}", "get", vec![("name", "gone")], ""),
        ("/api/v1/explain/nodes/{name}", "get", vec![("name", "server-0")], ""),
        ("/api/v1/explain/pods/{namespace}/{name}", "get", vec![("namespace", "shop"), ("name", "gone")], ""),
        post("/api/v1/evaluate", "{}"),
        post("/api/v1/pause", r#"{"reason":"maintenance"}"#),
        post("/api/v1/pause", r#"{"wrong":1}"#),
        post("/api/v1/resume", ""),
        post("/api/v1/offers/reset", ""),
    ]
}

/// Eight hours of a shop with an interrupted market, an offer that runs out, machines that never join, and a death of the daemon.
fn world() -> Scenario {
    let mut scenario = Scenario::shop(5, 8.0);
    scenario.controllers = 1;
    let faults = [Fault::SpotStorm, Fault::CapacityInOneOffer, Fault::NeverJoins, Fault::PrometheusDown, Fault::Killed];
    for (place, fault) in (0_u32..).zip(faults) {
        scenario.faults.push(Planned { fault, at: Duration::from_mins(40) * (place + 1), lasts: Duration::from_mins(25) });
    }
    scenario
}

/// Notes which variants of tagged values an answer shows.
fn note(answer: &Value, seen: &mut BTreeSet<String>) {
    match answer {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let (true, Some(text)) = (["state", "hold", "why", "action", "role"].contains(&name.as_str()), value.as_str()) {
                    seen.insert(format!("{name} {text}"));
                }
                note(value, seen);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| note(item, seen)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn what_a_living_daemon_answers_is_what_the_document_says() {
    let document = document();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let (seen, counted) = runtime.block_on(async {
        let scenario = world();
        let looks = scenario.length().as_secs() / LOOK.as_secs();
        let run = Run::begin(scenario, |_| Deaf);
        let dead = Pulse::new(Duration::from_mins(2));
        let mut judges: BTreeMap<(String, String, u16), Validator> = BTreeMap::new();
        let (mut seen, mut counted) = (BTreeSet::new(), BTreeMap::new());
        for look in 0..looks {
            tokio::time::sleep(LOOK).await;
            let Some(handle): Option<Handle> = run.handles[0].borrow().clone() else { continue };
            // Nobody feeds the pulse here: it is well at its beginning, and ill for ever after.
            let pulse = if look % 10 == 3 { Arc::clone(&dead) } else { Pulse::new(Duration::from_mins(2)) };
            let surface = Surface { handle, pulse, render: Arc::new(String::new), token: None };
            // The changes are asked for now and then, so that the world is not paused all the time.
            for (path, method, with, body) in questions().into_iter().filter(|it| it.1 == "get" || look % 20 == 7) {
                let (code, answer) = ask(&surface, method, &filled(path, &with), body).await;
                let key = (path.to_owned(), method.to_owned(), code);
                let judge = judges.entry(key.clone()).or_insert_with(|| judge(&document, path, method, code));
                let complaints: Vec<String> =
                    judge.iter_errors(&answer).map(|error| format!("{}: {error}", error.instance_path())).collect();
                assert_eq!(complaints, Vec::<String>::new(), "{method} {path} {code}: {answer:#}");
                note(&answer, &mut seen);
                *counted.entry(key).or_insert(0) += 1;
            }
        }
        (seen, counted)
    });
    println!("{} answers are judged, of {} kinds", counted.values().sum::<u32>(), counted.len());
    let good = |path: &str| counted.iter().any(|((asked, _, code), _)| asked == path && *code == 200);
    for (path, ..) in questions() {
        assert!(good(path) || path.contains("/pods/"), "{path} was never answered well");
    }
    // What makes an answer hard to describe has been there.
    for variant in [
        "state joining",
        "state done",
        "state draining",
        "hold cooling_down",
        "why pending_pods",
        "action launch",
        "action retire",
        "role leader",
    ] {
        assert!(seen.contains(variant), "{variant} was never seen");
    }
}

#[test]
fn an_answer_that_is_not_as_documented_is_found() {
    let document = document();
    let cost = judge(&document, "/api/v1/cost", "get", 200);
    assert!(cost.is_valid(&json!({ "cost": null })));
    for wrong in [json!({}), json!({ "cost": {} }), json!({ "cost": null, "more": 1 })] {
        assert!(!cost.is_valid(&wrong), "{wrong}");
    }
    let decisions = judge(&document, "/api/v1/decisions", "get", 200);
    let decision = |at: &str, hold: &Value| {
        let finding = json!({ "rule": "cpu", "evidence": "", "wants": 1, "hold": hold });
        let pool = json!({ "pool": "w", "owned": 1, "spot": 0, "in_flight": 0, "ready": 1, "min": 1, "max": 2, "desired": 1, "price": 1, "price_after": 1, "cpu": null, "memory": 0.5, "findings": [finding] });
        let plan =
            json!({ "actions": [], "pools": [pool], "holds": [], "pending": 0, "unplaceable": [], "unplaceable_pods": 0, "alerts": [] });
        json!({ "decisions": [{ "at": at, "trigger": "tick", "plan": plan, "refused": [], "operations": [] }] })
    };
    let at = "2026-03-02T07:00:00Z";
    assert!(decisions.is_valid(&decision(at, &json!({ "hold": "at_maximum", "max": 3 }))));
    assert!(!decisions.is_valid(&decision("yesterday", &Value::Null)));
    for hold in
        [json!({ "hold": "tired" }), json!({ "hold": "at_maximum" }), json!({ "hold": "at_maximum", "max": -1 }), json!("at_maximum")]
    {
        assert!(!decisions.is_valid(&decision(at, &hold)), "{hold}");
    }
}

#[test]
fn the_document_is_read_from_this_machine_and_guarded_from_others() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let first = node_fleet::control::status::Status::first("c", "me", jiff::Timestamp::UNIX_EPOCH);
        let (_keep, status) = tokio::sync::watch::channel(Arc::new(first));
        let handle = Handle { status, commands: tokio::sync::mpsc::channel(1).0 };
        let surface = Surface { handle, pulse: Pulse::new(Duration::from_mins(2)), render: Arc::new(String::new), token: None };
        for (address, code) in [([127, 0, 0, 1], 200), ([10, 0, 0, 1], 403)] {
            let caller = Caller::Tcp(SocketAddr::from((address, 4711)));
            let request = Request::builder().uri("/api/v1/openapi.json").extension(caller).body(Body::empty()).expect("a request");
            let answer = router(surface.clone(), &Limits::default()).oneshot(request).await.expect("an answer");
            assert_eq!(answer.status().as_u16(), code, "{address:?}");
        }
    });
}
