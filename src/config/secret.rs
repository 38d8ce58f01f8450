//! References to secrets. The values themselves never pass through the configuration.

use std::fmt;
use std::path::PathBuf;

/// Where a secret is to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretRef {
    /// AWS Secrets Manager.
    SecretsManager {
        /// The secret's name or ARN.
        name: String,
        /// The key in a JSON secret; `None` takes the whole text.
        key: Option<String>,
    },
    /// A credential of systemd (`LoadCredential=`), a file in `$CREDENTIALS_DIRECTORY`.
    Credential {
        /// The credential's name.
        name: String,
    },
    /// A file that only the daemon may read.
    File {
        /// Its path.
        path: PathBuf,
    },
}

/// A secret's value. It has no `Display`, and its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value; white space at its end is not part of it.
    #[must_use]
    pub fn new(value: &str) -> Self {
        Self(value.trim_end().to_owned())
    }

    /// Gives the value, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_nothing_of_itself() {
        let secret = Secret::new("canary-7f3a\n");
        assert_eq!(secret.expose(), "canary-7f3a");
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }
}
