//! Where the log goes: to journald under systemd, otherwise to stderr as text or JSON.

use crate::config::{LogConfig, LogFormat};
use std::io;
use std::os::unix::fs::MetadataExt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// What libraries say that our own lines say already, or better. An operator's filter comes after it.
const LIBRARIES: &str = "kube_client=off,kube_runtime=off,aws_config=error,hyper_util=warn";

/// Why the log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be read.
    #[error("`{level}` is no filter (right would be `info` or `node_fleet=debug,info`)")]
    Level {
        /// The filter.
        level: String,
        /// What the parser says.
        source: tracing_subscriber::filter::ParseError,
    },
    /// journald is asked for and is not there.
    #[error("journald cannot be reached")]
    Journald(#[source] io::Error),
    /// There is a log already.
    #[error("the log has been set up before")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Sets the log up, for the whole process.
///
/// # Errors
/// When the filter cannot be read, or journald is asked for by name and is not there.
pub fn init(config: &LogConfig) -> Result<(), LogError> {
    let level = &config.level;
    let filter = EnvFilter::try_new(format!("{LIBRARIES},{level}")).map_err(|source| LogError::Level { level: level.clone(), source })?;
    let under_systemd = || std::env::var("JOURNAL_STREAM").is_ok_and(|stream| is_stderr(&stream));
    let layer = match config.format {
        LogFormat::Json => json(),
        LogFormat::Journald => journald().map_err(LogError::Journald)?,
        LogFormat::Auto if under_systemd() => journald().unwrap_or_else(|_| text()),
        LogFormat::Auto | LogFormat::Text => text(),
    };
    Ok(tracing_subscriber::registry().with(layer.with_filter(filter)).try_init()?)
}

type Output = Box<dyn Layer<Registry> + Send + Sync>;

fn text() -> Output {
    let colours = io::IsTerminal::is_terminal(&io::stderr());
    tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(colours).boxed()
}

fn json() -> Output {
    tracing_subscriber::fmt::layer().with_writer(io::stderr).json().flatten_event(true).boxed()
}

#[cfg(feature = "live")]
fn journald() -> io::Result<Output> {
    // Without a prefix the fields are `journalctl`'s own: `journalctl NODE=ip-10-0-0-1`.
    Ok(tracing_journald::layer()?.with_field_prefix(None).boxed())
}

#[cfg(not(feature = "live"))]
fn journald() -> io::Result<Output> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this build has no journald (feature `live`)"))
}

/// Tells whether `JOURNAL_STREAM` (device and inode) is this process's stderr, and not just
/// inherited from a parent that systemd started.
fn is_stderr(stream: &str) -> bool {
    let Ok(stderr) = std::fs::metadata("/proc/self/fd/2") else { return false };
    is_file(stream, stderr.dev(), stderr.ino())
}

fn is_file(stream: &str, device: u64, inode: u64) -> bool {
    stream.split_once(':').is_some_and(|(dev, ino)| dev.parse() == Ok(device) && ino.parse() == Ok(inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inherited_journal_stream_is_not_taken_for_our_own() {
        assert!(is_file("8:1234", 8, 1234));
        for other in ["8:1235", "9:1234", "", "8", "8:1234:", "x:y"] {
            assert!(!is_file(other, 8, 1234), "{other}");
        }
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_named() {
        let error = init(&LogConfig { level: "node_fleet=loud=very".into(), format: LogFormat::Text }).expect_err("it is no filter");
        assert!(error.to_string().contains("node_fleet=loud=very"), "{error}");
    }
}
