//! Waiting with a deadline: every wait of the bed says what it waited for and what it saw last.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// What one look at the world found.
pub enum Seen<T> {
    /// It is there.
    Done(T),
    /// Not there; the text tells what was seen instead.
    NotYet(String),
}

/// Looks again and again until `probe` finds what it looks for or `limit` is over.
///
/// # Errors
/// When the time is over: what was waited for, how long, and what was seen last.
/// An error of the probe counts as "not yet": servers come and go in this bed.
pub async fn until<T>(what: &str, limit: Duration, mut probe: impl AsyncFnMut() -> Result<Seen<T>>) -> Result<T> {
    let started = Instant::now();
    let mut pause = Duration::from_millis(20);
    loop {
        let left = limit.saturating_sub(started.elapsed()).max(Duration::from_secs(1));
        let last = match tokio::time::timeout(left, probe()).await {
            Ok(Ok(Seen::Done(value))) => return Ok(value),
            Ok(Ok(Seen::NotYet(text))) => text,
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "nothing: the look itself hangs".to_owned(),
        };
        if started.elapsed() >= limit {
            bail!("waited {:.1} s for {what}; last seen: {last}", started.elapsed().as_secs_f64());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// Watches that something stays true for the whole of `span`.
///
/// # Errors
/// As soon as `probe` says `NotYet`, with its text. An error of the probe is no answer; when the span is over, at least
/// half of the looks must have had one.
pub async fn holds(what: &str, span: Duration, mut probe: impl AsyncFnMut() -> Result<Seen<()>>) -> Result<()> {
    let started = Instant::now();
    let (mut answers, mut errors) = (0, Vec::new());
    while started.elapsed() < span {
        match probe().await {
            Ok(Seen::Done(())) => answers += 1,
            Ok(Seen::NotYet(text)) => bail!("{what} did not hold: after {:.1} s {text}", started.elapsed().as_secs_f64()),
            Err(error) => errors.push(error),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    match errors.pop() {
        Some(last) if errors.len() >= answers => Err(last.context(format!("whether {what} could not be seen"))),
        _ => Ok(()),
    }
}
