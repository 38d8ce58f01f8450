//! The real systems behind the ports, one file each.
//!
//! An adapter turns a port's call into requests and every answer, however odd, into the
//! port's types. Each call has one deadline, retries included; what may be repeated is
//! repeated with full jitter inside that deadline, and nothing else is.

pub mod aws;
pub mod cloudwatch;
pub mod cron;
pub mod dynamodb;
pub mod ec2;
pub mod kubernetes;
pub mod live;
pub mod pricing;
pub mod prometheus;
mod retry;
pub mod secrets_manager;
pub mod slack;
pub mod sqs;
pub mod system_clock;

/// The longest text of another system that an error or a log line of ours carries, in characters.
const QUOTED: usize = 300;

/// Shortens another system's words to what an error may carry, on one line.
pub(crate) fn quoted(text: &str) -> String {
    let mut words: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(QUOTED).collect();
    if text.chars().nth(QUOTED).is_some() {
        words.push('…');
    }
    words
}

/// Writes an error with its causes, which libraries leave to the caller, on one line.
///
/// A cause that the error's own text repeats is not said twice.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    quoted(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer: {0}")]
    struct Outer(#[source] std::fmt::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("outermost")]
    struct Outermost(#[source] Outer);

    #[test]
    fn an_error_is_written_with_its_causes_each_once() {
        let inner = std::fmt::Error.to_string();
        assert_eq!(chain(&Outermost(Outer(std::fmt::Error))), format!("outermost: outer: {inner}"));
    }

    #[test]
    fn words_of_others_are_bounded_and_stay_on_one_line() {
        assert_eq!(quoted("a\nb\u{1b}[31m"), "a b [31m");
        assert_eq!(quoted(&"ü".repeat(QUOTED)), "ü".repeat(QUOTED));
        assert_eq!(quoted(&"ü".repeat(QUOTED + 1)), format!("{}…", "ü".repeat(QUOTED)));
    }
}
