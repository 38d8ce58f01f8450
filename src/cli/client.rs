//! `node-fleet status`, `pause`, `resume`, `reset-offers`, `explain` and `evaluate`: what an operator asks of the running daemon, over its socket.

use crate::model::offer::HourlyPrice;
use anyhow::{Context, anyhow, bail};
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// The daemon answers sooner, or says that it could not.
const LIMIT: Duration = Duration::from_secs(15);
/// No answer of the daemon is larger.
const LARGEST: usize = 16 << 20;

/// Where the daemon listens.
#[derive(Debug, clap::Args)]
pub(super) struct Socket {
    /// The daemon's Unix socket (`http.socket`).
    #[arg(long, global = true, value_name = "PATH", env = "NODE_FLEET__HTTP__SOCKET", default_value = "/run/node-fleet/admin.sock")]
    socket: PathBuf,
    /// Prints the daemon's answer as it is.
    #[arg(long, global = true)]
    json: bool,
}

/// Shows what the daemon sees and does.
pub(super) fn status(socket: &Socket) -> anyhow::Result<ExitCode> {
    let status = ask(socket, "GET", "/api/v1/status", None)?;
    show(socket, &status, describe)
}

/// Stops the daemon from starting anything.
pub(super) fn pause(socket: &Socket, reason: Option<&str>) -> anyhow::Result<ExitCode> {
    let body = reason.map_or_else(|| json!({}), |reason| json!({ "reason": reason }));
    let answer = ask(socket, "POST", "/api/v1/pause", Some(&body))?;
    show(socket, &answer, |_| "paused: what is in flight finishes, nothing is started\n".to_owned())
}

/// Lets it start things again.
pub(super) fn resume(socket: &Socket) -> anyhow::Result<ExitCode> {
    let answer = ask(socket, "POST", "/api/v1/resume", Some(&json!({})))?;
    show(socket, &answer, |_| "resumed\n".to_owned())
}

/// Lets it try offers again that rest.
pub(super) fn reset_offers(socket: &Socket) -> anyhow::Result<ExitCode> {
    let answer = ask(socket, "POST", "/api/v1/offers/reset", Some(&json!({})))?;
    show(socket, &answer, |_| "every offer is tried again\n".to_owned())
}

/// What is to be explained.
#[derive(Debug, clap::Subcommand)]
pub(super) enum What {
    /// Why a pod waits, and which nodes and offers would take it.
    Pod {
        /// The pod.
        #[arg(value_name = "NAMESPACE/NAME")]
        pod: String,
    },
    /// Why a node is not given back.
    Node {
        /// The node.
        #[arg(value_name = "NAME")]
        node: String,
    },
    /// What can be bought now, and why the rest cannot.
    Offers,
}

/// Shows why it is so.
pub(super) fn explain(socket: &Socket, what: &What) -> anyhow::Result<ExitCode> {
    let path = match what {
        What::Pod { pod } => match pod.split('/').collect::<Vec<_>>()[..] {
            [namespace, name] if is_name(namespace) && is_name(name) => format!("pods/{namespace}/{name}"),
            _ => bail!("`{pod}` is no pod; right would be NAMESPACE/NAME, as in shop/web-0"),
        },
        What::Node { node } if is_name(node) => format!("nodes/{node}"),
        What::Node { node } => bail!("`{node}` is no node's name; `kubectl get nodes` lists them"),
        What::Offers => "offers".to_owned(),
    };
    let answer = ask(socket, "GET", &format!("/api/v1/explain/{path}"), None)?;
    show(socket, &answer, explanation)
}

/// Tells whether Kubernetes would take such a name: it needs no quoting in a path.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|character| character.is_ascii_alphanumeric() || "-.".contains(character))
}

/// Writes an explanation for people.
fn explanation(answer: &Value) -> String {
    let mut text = format!("{}: {} (as of {})\n", words(&answer["subject"]), words(&answer["verdict"]), words(&answer["as_of"]));
    for reason in list(&answer["reasons"]) {
        let names: Vec<String> = list(&reason["names"]).iter().map(words).collect();
        let others = reason["number"].as_u64().unwrap_or_default().saturating_sub(names.len() as u64);
        let others = if others > 0 { format!(" and {others} others") } else { String::new() };
        let _ = writeln!(text, "  {}: {}{others}", words(&reason["why"]), names.join(", "));
    }
    if let Some(left_out) = answer["left_out"].as_u64().filter(|number| *number > 0) {
        let _ = writeln!(text, "  and {left_out} other reasons");
    }
    text
}

/// Makes the daemon decide now, and shows what it decided.
pub(super) fn evaluate(socket: &Socket) -> anyhow::Result<ExitCode> {
    let decision = ask(socket, "POST", "/api/v1/evaluate", Some(&json!({})))?;
    show(socket, &decision, |decision| {
        let mut text = plan(&decision["plan"]);
        for refusal in list(&decision["refused"]) {
            let _ = writeln!(text, "refused by the audit: {}", words(refusal));
        }
        text
    })
}

fn show(socket: &Socket, answer: &Value, describe: impl Fn(&Value) -> String) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    if socket.json {
        writeln!(out, "{answer:#}")?;
    } else {
        write!(out, "{}", describe(answer))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn ask(socket: &Socket, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asking = exchange(&socket.socket, method, path, body);
    let (code, text) =
        runtime.block_on(async { timeout(LIMIT, asking).await }).map_err(|_| anyhow!("the daemon did not answer within {LIMIT:?}"))??;
    let answer: Value = serde_json::from_slice(&text).context("the daemon's answer is no JSON")?;
    if code == 200 {
        return Ok(answer);
    }
    bail!("the daemon refuses: {}", words(&answer["error"]))
}

async fn exchange(socket: &Path, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<(u16, Bytes)> {
    let stream = UnixStream::connect(socket).await.with_context(|| {
        format!("cannot reach the daemon at {} (is it running? --socket or NODE_FLEET__HTTP__SOCKET names another place)", socket.display())
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let body = body.map(ToString::to_string).unwrap_or_default();
    let request = Request::builder().method(method).uri(path).header("host", "node-fleet").header("content-type", "application/json");
    let answer = sender.send_request(request.body(Full::new(Bytes::from(body)))?).await?;
    let code = answer.status().as_u16();
    let bytes = Limited::new(answer.into_body(), LARGEST).collect().await.map_err(|error| anyhow!(error))?.to_bytes();
    Ok((code, bytes))
}

/// Writes a status for people.
fn describe(status: &Value) -> String {
    let mut text = String::new();
    let role = match status["role"]["role"].as_str() {
        Some("leader") => format!("leader in epoch {}", words(&status["role"]["epoch"])),
        _ => format!("standby, leader: {}", status["role"]["leader"].as_str().unwrap_or("not known")),
    };
    let _ = writeln!(text, "cluster {}: {role} ({})", words(&status["cluster"]), words(&status["owner"]));
    if status["pause"].is_object() {
        let pause = &status["pause"];
        let _ = writeln!(text, "PAUSED since {} by {}: {}", words(&pause["since"]), words(&pause["by"]), words(&pause["reason"]));
    }
    if let Some(error) = status["reload_error"].as_str() {
        let _ = writeln!(text, "RELOAD REFUSED: {error}");
    }
    for (name, source) in status["sources"].as_object().into_iter().flatten() {
        let state = if source["ok"] == true { "ok".to_owned() } else { format!("FAILING: {}", words(&source["why"])) };
        let _ = writeln!(text, "source {name}: {state}");
    }
    for market in ["on-demand", "spot"] {
        let read =
            status["prices_read"][market].as_str().map_or_else(|| "those of the configuration".to_owned(), |at| format!("read at {at}"));
        let _ = writeln!(text, "{market} prices: {read}");
    }
    text.push_str(&plan(&status["plan"]));
    for operation in list(&status["operations"]).iter().take(20) {
        let _ = writeln!(text, "{}", operation_line(operation));
    }
    text
}

fn operation_line(operation: &Value) -> String {
    let [kind, id, state, updated] = ["kind", "id", "state", "updated"].map(|key| words(&operation[key]));
    format!("{kind} {id} in pool {}: {state}, {updated}", words(&operation["order"]["pool"]))
}

/// Writes a plan for people.
fn plan(plan: &Value) -> String {
    let mut text = String::new();
    for pool in list(&plan["pools"]) {
        let share = |key: &str| pool[key].as_f64().map_or_else(|| "unknown".to_owned(), |share| format!("{:.0} %", share * 100.0));
        let _ = writeln!(
            text,
            "pool {}: {} ready of {} wanted ({} to {}), {} launching, CPU {}, memory {}, {} now and {} after this plan",
            words(&pool["pool"]),
            pool["ready"],
            pool["desired"],
            pool["min"],
            pool["max"],
            pool["in_flight"],
            share("cpu"),
            share("memory"),
            price(&pool["price"]),
            price(&pool["price_after"]),
        );
        for finding in list(&pool["findings"]) {
            let _ = writeln!(
                text,
                "  {}: wants {:+}; {}{}",
                words(&finding["rule"]),
                finding["wants"].as_i64().unwrap_or(0),
                words(&finding["evidence"]),
                held(&finding["hold"])
            );
            for passed_over in list(&finding["passed_over"]) {
                let _ = writeln!(text, "    passed over: {}", words(passed_over));
            }
        }
    }
    for hold in list(&plan["holds"]) {
        let _ = writeln!(text, "the whole fleet{}", held(hold));
    }
    for pod in list(&plan["unplaceable"]) {
        let _ = writeln!(text, "no node of ours can take {}: {}", words(&pod["pod"]), words(&pod["why"]));
    }
    for alert in list(&plan["alerts"]) {
        let _ = writeln!(text, "ALERT {}: {}", words(&alert["name"]), words(&alert["text"]));
    }
    for action in list(&plan["actions"]) {
        let _ = writeln!(
            text,
            "does: {} {} in {}: {}",
            words(&action["action"]),
            words(&action["pool"]),
            words(&action["zone"]),
            words(&action["reason"])
        );
    }
    text
}

/// Writes a price: micro-dollars an hour.
fn price(value: &Value) -> String {
    HourlyPrice(value.as_u64().unwrap_or_default()).to_string()
}

/// Writes a hold with what belongs to it.
fn held(hold: &Value) -> String {
    let Some(fields) = hold.as_object() else { return String::new() };
    let name = fields.get("hold").and_then(Value::as_str).unwrap_or("held");
    let details = fields.iter().filter(|(key, _)| *key != "hold").map(|(key, value)| format!(" {key} {}", words(value)));
    format!(" [held: {}{}]", name.replace('_', " "), details.collect::<String>())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Writes a value without the quotes of JSON.
fn words(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_written_for_people() {
        let status = json!({
            "cluster": "c", "owner": "server-1/1/a", "role": {"role": "leader", "epoch": 7},
            "pause": {"since": "2026-01-01T00:00:00Z", "by": "uid 0", "reason": "maintenance"},
            "sources": {"ec2": {"ok": true}, "prometheus": {"ok": false, "why": "refused"}},
            "prices_read": {"on-demand": "2026-01-01T00:00:00Z"},
            "plan": {"pools": [{"pool": "workers", "ready": 2, "desired": 3, "min": 2, "max": 10, "in_flight": 1, "cpu": 0.5, "memory": null, "price": 96_000, "price_after": 192_000,
                "findings": [{"rule": "cpu", "wants": 1, "evidence": "71 %", "hold": {"hold": "cooling_down", "until": "12:00"}}]}]},
            "operations": [{"kind": "launch", "id": "o-1", "order": {"pool": "workers"}, "state": "joining", "updated": "now"}],
        });
        let text = describe(&status);
        for line in [
            "cluster c: leader in epoch 7 (server-1/1/a)",
            "PAUSED since 2026-01-01T00:00:00Z by uid 0: maintenance",
            "source prometheus: FAILING: refused",
            "on-demand prices: read at 2026-01-01T00:00:00Z",
            "spot prices: those of the configuration",
            "pool workers: 2 ready of 3 wanted (2 to 10), 1 launching, CPU 50 %, memory unknown, $0.0960/h now and $0.1920/h after this plan",
            "  cpu: wants +1; 71 % [held: cooling down until 12:00]",
            "launch o-1 in pool workers: joining, now",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} is not in:\n{text}");
        }
    }

    #[test]
    fn an_explanation_is_written_for_people() {
        let answer = json!({
            "subject": "pod shop/web-0", "verdict": "at the maximum", "left_out": 2, "as_of": "2026-01-01T00:00:00Z",
            "reasons": [{"why": "not enough cpu", "number": 12, "names": ["node n1", "node n2"]}],
        });
        assert_eq!(
            explanation(&answer),
            "pod shop/web-0: at the maximum (as of 2026-01-01T00:00:00Z)\n  not enough cpu: node n1, node n2 and 10 others\n  and 2 other reasons\n"
        );
    }
}
