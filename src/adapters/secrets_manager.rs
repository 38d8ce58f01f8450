//! Resolves references to secrets. No error, log line or `Debug` output carries a value.

use super::aws::{Failure, Kind};
use super::retry::retried;
use crate::config::{Secret, SecretRef};
use aws_config::SdkConfig;
use aws_sdk_secretsmanager::Client;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::warn;

/// How long a value is used before it is read again, so that a rotation is followed.
const REFRESH: Duration = Duration::from_mins(5);
/// How long a value outlives the permission to read it: a policy that is edited in two steps ends nothing, and one that was
/// taken away for good does.
const OUTLIVES_DENIAL: Duration = Duration::from_hours(1);
/// The deadline of one reading.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A larger file is no secret; Secrets Manager's own limit is the same.
const LARGEST: u64 = 64 * 1024;

/// Why a secret is not to be had, named by who can help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Secrets Manager does not answer: try again later.
    #[error("the secret {secret} is not to be had now: {why}")]
    Unavailable {
        /// Where it should be.
        secret: String,
        /// What went wrong.
        why: String,
    },
    /// A permission is missing.
    #[error("the secret {secret} is refused: {why}; let the daemon read it (`secretsmanager:GetSecretValue`, or the file's mode)")]
    Denied {
        /// Where it should be.
        secret: String,
        /// What went wrong.
        why: String,
    },
    /// There is none, or it has not the form that the reference expects.
    #[error("the secret {secret} cannot be used: {why}")]
    Unusable {
        /// Where it should be.
        secret: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Resolves references, and keeps the values for five minutes.
pub struct Secrets {
    client: Client,
    credentials: Option<PathBuf>,
    // A handful at most, so a list will do.
    kept: Mutex<Vec<Kept>>,
}

struct Kept {
    reference: SecretRef,
    secret: Secret,
    /// When it was asked for last, with or without success.
    asked: Instant,
    /// When it was read last.
    read: Instant,
}

impl Kept {
    /// Tells whether its value stays in use although it could not be read for this reason.
    fn outlives(&self, error: &SecretError) -> bool {
        match error {
            SecretError::Unavailable { .. } => true,
            SecretError::Denied { .. } => self.read.elapsed() < OUTLIVES_DENIAL,
            SecretError::Unusable { .. } => false,
        }
    }
}

impl Secrets {
    /// Takes the place of systemd's credentials from `CREDENTIALS_DIRECTORY`.
    #[must_use]
    pub fn new(sdk: &SdkConfig) -> Self {
        Self::with_credentials(sdk, std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from))
    }

    /// Takes systemd's credentials from the directory given.
    #[must_use]
    pub fn with_credentials(sdk: &SdkConfig, credentials: Option<PathBuf>) -> Self {
        Self { client: Client::new(sdk), credentials, kept: Mutex::new(Vec::new()) }
    }

    /// Gives the value that the reference names.
    ///
    /// A value that is due for a refresh, while its source does not answer, goes on being used; where the source refuses it,
    /// for an hour.
    ///
    /// # Errors
    /// When there is no value and never was one since the start or the last [`Self::invalidate`], when it has been refused
    /// for an hour, or when what is there is no secret.
    pub async fn resolve(&self, reference: &SecretRef) -> Result<Secret, SecretError> {
        // Held while reading, so that many that ask at once cause one reading.
        let mut kept = self.kept.lock().await;
        let known = kept.iter().position(|entry| entry.reference == *reference);
        if let Some(entry) = known.and_then(|index| kept.get(index))
            && entry.asked.elapsed() < REFRESH
        {
            return Ok(entry.secret.clone());
        }
        match (self.read(reference).await, known.and_then(|index| kept.get_mut(index))) {
            (Ok(secret), Some(entry)) => {
                let now = Instant::now();
                (entry.secret, entry.asked, entry.read) = (secret.clone(), now, now);
                Ok(secret)
            }
            (Ok(secret), None) => {
                let now = Instant::now();
                kept.push(Kept { reference: reference.clone(), secret: secret.clone(), asked: now, read: now });
                Ok(secret)
            }
            (Err(error), Some(entry)) if entry.outlives(&error) => {
                warn!(%error, "the secret's last value stays in use");
                entry.asked = Instant::now();
                Ok(entry.secret.clone())
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Forgets the value, after the one who was shown it has refused it.
    pub async fn invalidate(&self, reference: &SecretRef) {
        self.kept.lock().await.retain(|entry| entry.reference != *reference);
    }

    async fn read(&self, reference: &SecretRef) -> Result<Secret, SecretError> {
        match reference {
            SecretRef::SecretsManager { name, key } => self.fetch(name, key.as_deref()).await,
            SecretRef::Credential { name } => {
                let secret = format!("credential `{name}`");
                let unusable = |why: &str| SecretError::Unusable { secret: secret.clone(), why: why.to_owned() };
                let directory =
                    self.credentials.as_ref().ok_or_else(|| unusable("CREDENTIALS_DIRECTORY is not set (LoadCredential= in the unit)"))?;
                if name.is_empty() || name.contains('/') || name == ".." || name == "." {
                    return Err(unusable("its name is no file name"));
                }
                read_file(secret, &directory.join(name)).await
            }
            SecretRef::File { path } => read_file(format!("file `{}`", path.display()), path).await,
        }
    }

    async fn fetch(&self, name: &str, key: Option<&str>) -> Result<Secret, SecretError> {
        let secret = match key {
            Some(key) => format!("`{name}` (key `{key}`) in Secrets Manager"),
            None => format!("`{name}` in Secrets Manager"),
        };
        let answer = retried(TIMEOUT, async || self.client.get_secret_value().secret_id(name).send().await.map_err(Failure::from)).await;
        let answer = answer.map_err(|failure| match failure.kind {
            Kind::NoAnswer | Kind::Fault | Kind::Throttled | Kind::Unsigned => {
                SecretError::Unavailable { secret: secret.clone(), why: failure.why }
            }
            Kind::Denied => SecretError::Denied { secret: secret.clone(), why: failure.why },
            Kind::Rejected => SecretError::Unusable { secret: secret.clone(), why: failure.why },
        })?;
        let text = answer.secret_string().ok_or_else(|| "it is binary, not text".to_owned());
        text.and_then(|text| pick(text, key)).map_err(|why| SecretError::Unusable { secret, why })
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Secrets").finish_non_exhaustive()
    }
}

/// Takes the key's value from a JSON secret, or the whole text. Says what is wrong without showing it.
fn pick(text: &str, key: Option<&str>) -> Result<Secret, String> {
    let value = match key {
        None => text.to_owned(),
        Some(key) => {
            // serde_json's own errors may quote the input.
            let object: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(text).map_err(|_| "it is no JSON object".to_owned())?;
            match object.get(key) {
                Some(serde_json::Value::String(value)) => value.clone(),
                Some(_) => return Err(format!("the value of its key `{key}` is no text")),
                None => return Err(format!("it has no key `{key}`")),
            }
        }
    };
    let secret = Secret::new(&value);
    if secret.expose().is_empty() { Err("it is empty".to_owned()) } else { Ok(secret) }
}

async fn read_file(secret: String, path: &Path) -> Result<Secret, SecretError> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => SecretError::Denied { secret: secret.clone(), why: error.to_string() },
        _ => SecretError::Unusable { secret: secret.clone(), why: error.to_string() },
    };
    let mut text = String::new();
    let reading = async { tokio::fs::File::open(path).await?.take(LARGEST + 1).read_to_string(&mut text).await };
    let length = reading.await.map_err(failed)?;
    if length as u64 > LARGEST {
        return Err(SecretError::Unusable { secret, why: format!("it is larger than {LARGEST} bytes") });
    }
    pick(&text, None).map_err(|why| SecretError::Unusable { secret, why })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANARY: &str = "canary-7f3a";

    fn offline() -> SdkConfig {
        SdkConfig::builder().behavior_version(aws_config::BehaviorVersion::latest()).region(aws_config::Region::new("us-east-1")).build()
    }

    #[test]
    fn a_json_secrets_key_is_picked_and_what_is_wrong_is_said_without_the_value() {
        let json = format!(r#"{{"password":"{CANARY}","port":5,"empty":""}}"#);
        assert_eq!(pick(&json, Some("password")), Ok(Secret::new(CANARY)));
        assert_eq!(pick(CANARY, None), Ok(Secret::new(CANARY)));
        for (text, key) in [(json.as_str(), "user"), (&json, "port"), (&json, "empty"), (CANARY, "password"), ("[1]", "password")] {
            let why = pick(text, Some(key)).expect_err(key);
            assert!(!why.contains(CANARY), "{why}");
        }
        assert!(pick("\n", None).is_err());
    }

    #[tokio::test]
    async fn credentials_and_files_are_read_again_after_an_invalidation() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("token");
        std::fs::write(&path, "one\n").expect("writable");
        let secrets = Secrets::with_credentials(&offline(), Some(directory.path().to_owned()));
        let credential = SecretRef::Credential { name: "token".into() };
        let file = SecretRef::File { path: path.clone() };
        assert_eq!(secrets.resolve(&credential).await, Ok(Secret::new("one")));
        std::fs::write(&path, "two").expect("writable");
        assert_eq!(secrets.resolve(&credential).await, Ok(Secret::new("one")), "kept for a while");
        secrets.invalidate(&credential).await;
        assert_eq!(secrets.resolve(&credential).await, Ok(Secret::new("two")));
        assert_eq!(secrets.resolve(&file).await, Ok(Secret::new("two")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_outlives_silence_and_for_an_hour_a_refusal() {
        let (secret, why) = (String::new(), String::new());
        let silence = SecretError::Unavailable { secret: secret.clone(), why: why.clone() };
        let refusal = SecretError::Denied { secret: secret.clone(), why: why.clone() };
        let nonsense = SecretError::Unusable { secret, why };
        let reference = SecretRef::Credential { name: "token".into() };
        let now = Instant::now();
        let mut kept = Kept { reference, secret: Secret::new(CANARY), asked: now, read: now };
        for (minutes, refused) in [(0, true), (59, true), (2, false)] {
            tokio::time::advance(Duration::from_mins(minutes)).await;
            // That it was asked for in vain makes it no younger.
            kept.asked = Instant::now();
            let found = [&silence, &refusal, &nonsense].map(|error| kept.outlives(error));
            assert_eq!(found, [true, refused, false], "after {minutes} more minutes");
        }
    }

    #[tokio::test]
    async fn what_is_no_secret_is_an_error_that_names_the_place() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("huge"), vec![b'x'; 70_000]).expect("writable");
        std::fs::write(directory.path().join("empty"), "").expect("writable");
        let secrets = Secrets::with_credentials(&offline(), Some(directory.path().to_owned()));
        for name in ["huge", "empty", "absent", "../etc/passwd", ""] {
            let error = secrets.resolve(&SecretRef::Credential { name: name.into() }).await.expect_err(name);
            assert!(matches!(error, SecretError::Unusable { .. }) && error.to_string().contains(name), "{error}");
        }
        let without = Secrets::with_credentials(&offline(), None);
        let error = without.resolve(&SecretRef::Credential { name: "token".into() }).await.expect_err("no directory");
        assert!(error.to_string().contains("CREDENTIALS_DIRECTORY"), "{error}");
    }
}
