//! Keeps the token of changes over TCP: read at the start, on SIGHUP and now and then.

use crate::adapters::secrets_manager::{SecretError, Secrets};
use crate::config::SecretRef;
use crate::http::Token;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tracing::{error, info};

/// How long one reading may take.
const LIMIT: Duration = Duration::from_secs(10);
/// The first pause after a failure; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// How soon a rotation is noticed.
const ROTATION: Duration = Duration::from_mins(10);

/// Follows the secret for ever. `again` asks for a fresh reading.
///
/// Without a token changes over TCP are refused, and nothing else of the daemon needs it.
pub(super) async fn keep(secrets: Arc<Secrets>, reference: SecretRef, token: watch::Sender<Option<Arc<Token>>>, again: Arc<Notify>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let next = match read(&secrets, &reference).await {
            Ok(read) => {
                if token.send_replace(Some(Arc::new(read))).is_none() {
                    info!("the token of http.token is known");
                }
                pause = FIRST_PAUSE;
                ROTATION
            }
            Err(why) => {
                error!(error = %why, pause_s = pause.as_secs(), "the token of http.token cannot be had");
                match why {
                    // The last one is as good as it was.
                    SecretError::Unavailable { .. } => {}
                    // Somebody may have taken it back.
                    SecretError::Denied { .. } | SecretError::Unusable { .. } => drop(token.send_replace(None)),
                }
                let next = pause;
                pause = (pause * 2).min(LONGEST_PAUSE);
                next
            }
        };
        tokio::select! {
            biased;
            () = again.notified() => {
                secrets.invalidate(&reference).await;
                pause = FIRST_PAUSE;
            }
            () = sleep(next) => {}
        }
    }
}

async fn read(secrets: &Secrets, reference: &SecretRef) -> Result<Token, SecretError> {
    let secret = || "of http.token".to_owned();
    let late = |_| Err(SecretError::Unavailable { secret: secret(), why: format!("no answer within {LIMIT:?}") });
    let value = timeout(LIMIT, secrets.resolve(reference)).await.unwrap_or_else(late)?;
    Token::new(value.expose()).ok_or_else(|| SecretError::Unusable { secret: secret(), why: "it is empty".to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_config::{BehaviorVersion, Region, SdkConfig};

    #[tokio::test(start_paused = true)]
    async fn it_comes_when_it_can_be_had_is_followed_and_goes_with_its_secret() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        let sdk = SdkConfig::builder().behavior_version(BehaviorVersion::latest()).region(Region::new("us-east-1")).build();
        let secrets = Arc::new(Secrets::with_credentials(&sdk, None));
        let (sender, mut token) = watch::channel(None);
        let again = Arc::new(Notify::new());
        tokio::spawn(keep(secrets, SecretRef::File { path: path.clone() }, sender, Arc::clone(&again)));
        sleep(Duration::from_mins(30)).await;
        assert!(token.borrow().is_none(), "there is no such file");
        let mut becomes = async |text: &str, limit: Duration| {
            let read = token.wait_for(|token| token.as_ref().is_some_and(|token| token.is(text)));
            timeout(limit, read).await.expect("in time").expect("it is kept");
        };
        std::fs::write(&path, "one\n").expect("a file");
        becomes("one", LONGEST_PAUSE + LIMIT).await;
        std::fs::write(&path, "two").expect("a file");
        again.notify_one();
        becomes("two", LIMIT).await;
        std::fs::write(&path, "three").expect("a file");
        becomes("three", ROTATION + LIMIT).await;
        std::fs::remove_file(&path).expect("it is there");
        timeout(ROTATION + LIMIT, token.wait_for(Option::is_none)).await.expect("in time").expect("it is kept");
    }
}
