//! Slack: messages through an incoming webhook. The webhook is a secret: no error, log line or metric carries it.

use super::secrets_manager::{SecretError, Secrets};
use super::{chain, quoted};
use crate::config::SecretRef;
use crate::ports::{Chat, OutletError};
use reqwest::header::RETRY_AFTER;
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

const OUTLET: &str = "slack";
/// The deadline of one message, the reading of the secret included.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long the making of a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Slack answers with a word; more is not read.
const LARGEST: usize = 1024;

/// Slack as a [`Chat`].
#[derive(Debug)]
pub struct Slack {
    client: Client,
    webhook: SecretRef,
    secrets: Arc<Secrets>,
}

impl Slack {
    /// Connects to nothing yet. The webhook is read with each message, so that a rotation is followed.
    ///
    /// # Errors
    /// When the HTTP client cannot be made.
    pub fn new(webhook: SecretRef, secrets: Arc<Secrets>) -> Result<Self, OutletError> {
        // Another adapter may have installed it, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // A redirect would carry messages to somebody else.
        let client = Client::builder().connect_timeout(CONNECT_TIMEOUT).redirect(Policy::none()).build();
        let client = client.map_err(|error| denied(format!("the HTTP client cannot be made: {}", error.without_url())))?;
        Ok(Self { client, webhook, secrets })
    }

    async fn send(&self, message: &Value) -> Result<(), OutletError> {
        let webhook = self.secrets.resolve(&self.webhook).await.map_err(|error| match error {
            SecretError::Unavailable { .. } => unavailable(error.to_string()),
            SecretError::Denied { .. } | SecretError::Unusable { .. } => denied(error.to_string()),
        })?;
        let url = Url::parse(webhook.expose()).ok().filter(is_webhook);
        let url = url.ok_or_else(|| denied("the secret of slack.webhook is no https URL like the one that Slack shows".to_owned()))?;
        let answer = self.client.post(url).json(message).send().await;
        // Errors of reqwest quote the URL, which is the secret.
        let answer = answer.map_err(|error| unavailable(chain(&error.without_url())))?;
        judge(answer).await
    }
}

impl Chat for Slack {
    async fn post(&self, message: &Value) -> Result<(), OutletError> {
        let late = |_| Err(unavailable(format!("no answer within {TIMEOUT:?}")));
        let outcome = tokio::time::timeout(TIMEOUT, self.send(message)).await.unwrap_or_else(late);
        if matches!(outcome, Err(OutletError::Denied { .. })) {
            // Somebody may have put another one there.
            self.secrets.invalidate(&self.webhook).await;
        }
        outcome
    }
}

/// Tells whether messages may go there: over TLS, or to this machine.
fn is_webhook(url: &Url) -> bool {
    let here = url.host_str().is_some_and(|host| host == "localhost" || host == "127.0.0.1" || host == "[::1]");
    url.scheme() == "https" || (url.scheme() == "http" && here)
}

/// Says what an answer means.
async fn judge(answer: Response) -> Result<(), OutletError> {
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    if status == StatusCode::TOO_MANY_REQUESTS {
        let pause = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok()).map(Duration::from_secs);
        return Err(OutletError::Throttled { outlet: OUTLET, pause });
    }
    let words = words(answer).await;
    Err(refusal(status, &words))
}

/// Reads what Slack says of a message that it does not take.
async fn words(mut answer: Response) -> String {
    let mut body = Vec::new();
    while body.len() < LARGEST
        && let Ok(Some(chunk)) = answer.chunk().await
    {
        body.extend_from_slice(&chunk);
    }
    body.truncate(LARGEST);
    quoted(&String::from_utf8_lossy(&body))
}

/// Names a refusal by what follows. 400 and 413 are about the message, the other 4xx about the webhook.
fn refusal(status: StatusCode, words: &str) -> OutletError {
    let why = format!("{} {words}", status.as_u16());
    match status {
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => OutletError::Unacceptable { outlet: OUTLET, why },
        StatusCode::REQUEST_TIMEOUT => unavailable(why),
        status if status.is_server_error() => unavailable(why),
        _ => denied(format!("{why}; put a webhook that is valid into the secret of slack.webhook")),
    }
}

fn unavailable(why: String) -> OutletError {
    OutletError::Unavailable { outlet: OUTLET, why }
}

fn denied(why: String) -> OutletError {
    OutletError::Denied { outlet: OUTLET, why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    const CANARY: &str = "T0CANARY";

    /// Answers every request with the same text; without one it never answers.
    async fn fake(answer: Option<&'static str>) -> Slack {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it has one");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 65_536];
                let _ = stream.read(&mut request).await;
                match answer {
                    Some(answer) => drop(stream.write_all(answer.as_bytes()).await),
                    None => std::future::pending().await,
                }
            }
        });
        slack(&format!("http://{address}/services/{CANARY}\n"))
    }

    /// Makes one whose secret is this text.
    fn slack(webhook: &str) -> Slack {
        let folder = tempfile::tempdir().expect("a folder").keep();
        let path = folder.join("webhook");
        std::fs::write(&path, webhook).expect("a file");
        let sdk = aws_config::SdkConfig::builder().behavior_version(aws_config::BehaviorVersion::latest()).build();
        let secrets = Arc::new(Secrets::with_credentials(&sdk, None));
        Slack::new(SecretRef::File { path }, secrets).expect("a client")
    }

    #[tokio::test]
    async fn an_answer_is_named_by_what_follows_and_shows_nothing_of_the_webhook() {
        for (answer, class) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", None),
            ("HTTP/1.1 429 Too Many\r\nretry-after: 30\r\ncontent-length: 0\r\n\r\n", Some("throttled")),
            ("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n", Some("unavailable")),
            ("HTTP/1.1 404 No\r\ncontent-length: 10\r\n\r\nno_service", Some("denied")),
            ("HTTP/1.1 400 No\r\ncontent-length: 14\r\n\r\ninvalid_blocks", Some("invalid")),
            ("HTTP/1.1 302 Go\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n", Some("denied")),
            ("nonsense\r\n\r\n", Some("unavailable")),
        ] {
            let outcome = fake(Some(answer)).await.post(&json!({"text": "x"})).await;
            assert_eq!(outcome.as_ref().err().map(OutletError::class), class, "{answer}");
            assert!(!format!("{outcome:?}").contains(CANARY), "{outcome:?}");
            if class == Some("throttled") {
                assert_eq!(outcome, Err(OutletError::Throttled { outlet: "slack", pause: Some(Duration::from_secs(30)) }));
            }
        }
    }

    #[tokio::test]
    async fn what_cannot_be_reached_or_is_no_webhook_says_so_without_showing_it() {
        for (webhook, class) in [
            (format!("http://127.0.0.1:1/{CANARY}"), "unavailable"),
            (format!("http://example.com/{CANARY}"), "denied"),
            (CANARY.to_owned(), "denied"),
        ] {
            let error = slack(&webhook).post(&json!({})).await.expect_err("nobody is there");
            assert_eq!(error.class(), class, "{error}");
            assert!(!format!("{error:?} {error}").contains(CANARY), "{error:?}");
        }
        let absent = SecretRef::File { path: "/nowhere/webhook".into() };
        let sdk = aws_config::SdkConfig::builder().behavior_version(aws_config::BehaviorVersion::latest()).build();
        let slack = Slack::new(absent, Arc::new(Secrets::with_credentials(&sdk, None))).expect("a client");
        assert_eq!(slack.post(&json!({})).await.expect_err("no secret").class(), "denied");
    }
}
