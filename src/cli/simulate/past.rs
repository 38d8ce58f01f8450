//! The past of a demand, read slice by slice as the daemon reads it.

use crate::control::slices::Slices;
use crate::model::Missing;
use crate::ports::Metrics;
use jiff::Timestamp;

/// The smallest slice is asked for so many times.
const ATTEMPTS: usize = 3;

/// A part of the past that nobody gives.
#[derive(Debug, thiserror::Error)]
#[error("from {first} to {last}: {missing}")]
pub(super) struct Unread {
    first: Timestamp,
    last: Timestamp,
    missing: Missing,
}

/// Reads what the query gave in each minute after `read`, up to `latest`. What takes too long is asked in smaller slices.
/// `watch` is told up to where it was read.
///
/// # Errors
/// When the smallest slice is not answered, either.
pub(super) async fn past<M: Metrics>(
    metrics: &M,
    query: &str,
    mut read: Timestamp,
    latest: Timestamp,
    mut watch: impl FnMut(Timestamp),
) -> Result<Vec<(Timestamp, f64)>, Unread> {
    let (mut slices, mut samples, mut attempts) = (Slices::default(), Vec::new(), 0);
    while let Some((first, last)) = slices.after(read, latest) {
        match metrics.history(query, first, last).await {
            Ok(answer) => {
                samples.extend(answer);
                slices.answered();
                (read, attempts) = (last, 0);
                watch(read);
            }
            Err(missing) => {
                if !slices.failed() {
                    attempts += 1;
                }
                if attempts == ATTEMPTS {
                    return Err(Unread { first, last, missing });
                }
            }
        }
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::snapshot::{Observed, UtilisationReport};
    use crate::model::{Reading, RuleName};
    use jiff::SignedDuration;
    use std::sync::Mutex;

    /// Answers for no more than so many minutes at once.
    struct Slow {
        most: i64,
        asked: Mutex<Vec<i64>>,
    }

    impl Slow {
        fn new(most: i64) -> Self {
            Self { most, asked: Mutex::default() }
        }
    }

    impl Metrics for Slow {
        async fn utilisation(&self) -> Observed<UtilisationReport> {
            Observed::Unknown(Missing::NotAsked)
        }

        async fn query(&self, _: &RuleName, _: &str) -> Reading {
            Reading::Missing(Missing::NotAsked)
        }

        async fn history(&self, _: &str, first: Timestamp, last: Timestamp) -> Result<Vec<(Timestamp, f64)>, Missing> {
            let minutes = last.duration_since(first).as_mins() + 1;
            self.asked.lock().expect("nobody panicked").push(minutes);
            if minutes > self.most {
                return Err(Missing::Unreachable { why: "no answer within 10s".to_owned() });
            }
            Ok((0..minutes).map(|minute| (first + SignedDuration::from_mins(minute), 1.0)).collect())
        }
    }

    fn days() -> (Timestamp, Timestamp) {
        let latest: Timestamp = "2026-03-20T10:20:00Z".parse().expect("a time");
        (latest - SignedDuration::from_hours(10 * 24), latest)
    }

    #[tokio::test]
    async fn what_takes_too_long_is_asked_in_smaller_slices_and_each_minute_comes_once() {
        let (begin, latest) = days();
        for most in [7 * 1440, 1440, 100] {
            let slow = Slow::new(most);
            let mut reached = begin;
            let samples = past(&slow, "q", begin, latest, |read| reached = read).await.expect("it answers");
            let minutes: Vec<i64> = samples.iter().map(|(at, _)| at.duration_since(begin).as_mins()).collect();
            assert!(minutes.iter().copied().eq(1..=14_400), "{most} minutes at once: {} minutes came", minutes.len());
            assert_eq!(reached, latest);
        }
    }

    #[tokio::test]
    async fn who_never_answers_is_given_up_at_an_hour_with_the_time_and_the_reason() {
        let (begin, latest) = days();
        let slow = Slow::new(10);
        let error = past(&slow, "q", begin, latest, |_| {}).await.expect_err("it never answers").to_string();
        assert_eq!(error, "from 2026-03-10T10:21:00Z to 2026-03-10T11:20:00Z: the source does not answer: no answer within 10s");
        let asked = slow.asked.lock().expect("nobody panicked");
        assert!(asked.ends_with(&[60, 60, 60]) && asked.len() < 15, "{asked:?}");
    }
}
