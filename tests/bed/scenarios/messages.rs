//! What the daemon tells: Slack, CloudWatch, and the events of pods.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use serde_json::Value;
use tokio::net::TcpListener;

use super::fleet::{LATER, SOON, fleet};
use crate::bed::Bed;
use crate::cluster::NAMESPACE;
use crate::configuration::Configuration;
use crate::control_plane::DAEMON_TOKEN;
use crate::daemon::SECRET_KEY;
use crate::ledger::TABLE;
use crate::proxy::call::Call;
use crate::wait::{Seen, until};
use crate::workload::Workload;

/// The end of the webhook's address. It is a secret.
const CANARY: &str = "T0000/B0000/canary-of-the-webhook";
/// The secrets of Prometheus and of the API; those of Kubernetes and AWS stand with their parts.
const PASSWORD: &str = "canary-of-prometheus";
const TOKEN: &str = "canary-of-the-api-0123456789";

/// Every secret of the daemon on the bed, also in the form in which HTTP carries a password.
fn secrets() -> [String; 6] {
    let basic = format!("bed:{PASSWORD}");
    [CANARY, PASSWORD, &basic, TOKEN, SECRET_KEY, DAEMON_TOKEN].map(ToOwned::to_owned)
}

/// A chat that is out of order at first, then asks for patience, and then takes messages.
#[derive(Clone, Default)]
struct Chat {
    taken: Arc<Mutex<Vec<Value>>>,
    answers: Arc<Mutex<Vec<u16>>>,
}

impl Chat {
    /// Serves on a free port for as long as the process lives, and gives the webhook.
    async fn start(&self) -> Result<String> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let router = Router::new().route(&format!("/services/{CANARY}"), post(message)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(format!("http://{address}/services/{CANARY}"))
    }

    fn taken(&self) -> Vec<Value> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn answers(&self) -> Vec<u16> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn message(State(chat): State<Chat>, body: String) -> (StatusCode, HeaderMap) {
    let mut answers = chat.answers.lock().unwrap_or_else(PoisonError::into_inner);
    let (status, mut headers) = (*[500, 429].get(answers.len()).unwrap_or(&200), HeaderMap::new());
    answers.push(status);
    if status == 429 {
        headers.insert("retry-after", 1.into());
    }
    if status == 200 {
        let body = serde_json::from_str(&body).unwrap_or(Value::String(body));
        chat.taken.lock().unwrap_or_else(PoisonError::into_inner).push(body);
    }
    (StatusCode::from_u16(status).unwrap_or(StatusCode::OK), headers)
}

/// A scale-up is told in the chat, which fails at first, in CloudWatch and on the pods; no secret is told anywhere.
pub async fn slack_cloudwatch_and_pods_hear_of_it(bed: &mut Bed) -> Result<()> {
    let chat = Chat::default();
    let secret = |name: &str, text: &str| {
        let file = bed.folder().join(name);
        std::fs::write(&file, text)?;
        anyhow::Ok(format!("{{ file = \"{}\" }}", file.display()))
    };
    let (webhook, password, bearer) = (secret("webhook", &chat.start().await?)?, secret("password", PASSWORD)?, secret("token", TOKEN)?);
    let more = format!(
        "[slack]\nwebhook = {webhook}\n[cloudwatch]\nenabled = true\ninterval = \"30s\"\n\
         [prometheus.auth]\nusername = \"bed\"\npassword = {password}\n[http]\ntoken = {bearer}\n"
    );
    let daemon = fleet(bed, &Configuration { more, ..Configuration::default() }).await?;
    bed.cluster.apply(&Workload::new("shop", 4, "1500m", "256Mi")).await?;
    let pods = bed.cluster.wait_for_running("shop", 4, LATER).await?;
    let ours: BTreeSet<String> = pods.into_iter().filter_map(|pod| pod.metadata.uid).collect();
    let told = until("a message about the scale-up", LATER, async || {
        let taken = chat.taken();
        let found = taken.iter().find(|message| message.to_string().contains("Scale-up: workers")).cloned();
        Ok(found.map_or_else(|| Seen::NotYet(format!("answers {:?}, taken {taken:?}", chat.answers())), Seen::Done))
    })
    .await?;
    ensure!(told["blocks"].as_array().is_some_and(|blocks| blocks.len() >= 3), "{told}");
    ensure!(chat.answers().starts_with(&[500, 429, 200]), "{:?}", chat.answers());
    let tells = |call: &Call, name: &str| call.parameters.iter().any(|(key, value)| key.ends_with(".MetricName") && value == name);
    for name in ["ScaleUpEvents", "Heartbeat", "CurrentNodeCount"] {
        let sent = bed.proxy.wait_for(name, 0, LATER, |call| call.action == "PutMetricData" && tells(call, name)).await?;
        ensure!(sent.status == Some(200) && !sent.cut, "{sent:?}");
    }
    let events: Api<Event> = Api::namespaced(bed.cluster.client.clone(), NAMESPACE);
    let event = until("an event on a pod of the shop", SOON, async || {
        let all = events.list(&ListParams::default()).await?.items;
        let of_pod = |event: &&Event| event.regarding.as_ref().and_then(|it| it.uid.as_ref()).is_some_and(|uid| ours.contains(uid));
        let found = all.iter().filter(of_pod).find(|event| event.reason.as_deref() == Some("TriggeredScaleUp")).cloned();
        Ok(found.map_or_else(|| Seen::NotYet(format!("{} events", all.len())), Seen::Done))
    })
    .await?;
    println!("  {}; on a pod: {}", told["text"], event.note.as_deref().unwrap_or_default());
    for outlet in ["slack", "cloudwatch", "events"] {
        let label = format!("outlet=\"{outlet}\"");
        let sent = daemon.metric("node_fleet_told_total", &[&label, "outcome=\"sent\""]).await?;
        ensure!(sent.is_some_and(|sent| sent > 0.0), "{outlet}: {sent:?}");
    }
    let log = std::fs::read_to_string(daemon.log()).context("the daemon's log")?;
    let pod = event.regarding.as_ref().and_then(|it| it.name.as_ref()).context("an event on a pod")?;
    let pod = format!("/api/v1/explain/pods/{NAMESPACE}/{pod}");
    let mut surfaces = vec![("the log", log)];
    for path in ["/api/v1/cost", "/api/v1/forecast", "/api/v1/explain/offers", &pod] {
        let (code, told) = daemon.get(path).await?;
        ensure!(code == 200, "{path}: {code} {told}");
        surfaces.push((path, told));
    }
    for path in ["/metrics", "/api/v1/status", "/api/v1/decisions", "/healthz", "/readyz"] {
        surfaces.push((path, daemon.get(path).await?.1));
    }
    let requests: Vec<String> = bed.proxy.calls().iter().map(|call| format!("{:?}", call.parameters)).collect();
    surfaces.push(("a request to AWS", requests.concat()));
    surfaces.push(("the ledger", format!("{:?}", bed.aws.dynamodb.scan().table_name(TABLE).send().await?.items())));
    surfaces.push(("an event", serde_json::to_string(&events.list(&ListParams::default()).await?.items)?));
    surfaces.push(("a message", serde_json::to_string(&chat.taken())?));
    let (_, refused) = daemon.get("/api/v1/no-such-thing").await?;
    surfaces.push(("an error of the API", refused));
    let encoded = secrets().map(|secret| STANDARD_NO_PAD.encode(secret));
    for (surface, text) in surfaces {
        ensure!(text.len() > 1, "{surface} is empty");
        ensure!(!text.contains("canary-of"), "a secret stands in {surface}");
        ensure!(!encoded.iter().any(|secret| text.contains(secret)), "an encoded secret stands in {surface}");
    }
    Ok(())
}
