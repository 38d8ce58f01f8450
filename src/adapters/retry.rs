//! Repeats what failed in passing: a few times, with full jitter, inside one deadline.

use super::system_clock::SystemEntropy;
use crate::ports::Entropy;
use std::future::Future;
use std::time::Duration;

/// How often a call is tried in all.
const ATTEMPTS: u32 = 4;
/// The longest pause before the second attempt; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause before any attempt.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// An error that knows whether it may pass by itself.
pub(crate) trait Transient: Sized {
    /// Tells whether the same call may succeed when it is repeated at once.
    fn may_pass(&self) -> bool;
    /// Tells whether the call may have taken effect although it failed.
    fn may_have_landed(&self) -> bool;
    /// Makes the error of a call that had no answer within the time.
    fn timed_out(deadline: Duration) -> Self;
    /// Makes the error of a call whose last attempt failed so, after an earlier one that may have taken effect.
    ///
    /// The last attempt's own where nobody asks whether the call has taken effect.
    fn after_ambiguous(self, _earlier: Self) -> Self {
        self
    }
}

/// Makes the call, and again while its error may pass, until the deadline.
///
/// When the deadline cuts an attempt short, the error says so: that attempt may have
/// taken effect. When it falls into a pause, the error is the last attempt's. Either way
/// it tells of the first attempt before it that may have taken effect.
pub(crate) async fn retried<T, E, F, Fut>(deadline: Duration, mut call: F) -> Result<T, E>
where
    E: Transient,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let mut answered: Option<E> = None;
    let mut ambiguous: Option<E> = None;
    let attempts = async {
        let mut attempt = 1;
        loop {
            if let Some(error) = answered.take()
                && error.may_have_landed()
            {
                ambiguous.get_or_insert(error);
            }
            match Box::pin(call()).await {
                Ok(value) => return Ok(value),
                Err(error) if attempt >= ATTEMPTS || !error.may_pass() => return Err(error),
                Err(error) => answered = Some(error),
            }
            tokio::time::sleep(pause(attempt, SystemEntropy.fraction())).await;
            attempt += 1;
        }
    };
    let outcome = match tokio::time::timeout(deadline, attempts).await {
        Ok(outcome) => outcome,
        Err(_) => Err(answered.unwrap_or_else(|| E::timed_out(deadline))),
    };
    match (outcome, ambiguous) {
        (Err(last), Some(earlier)) => Err(last.after_ambiguous(earlier)),
        (outcome, _) => outcome,
    }
}

/// Makes the call once, with a deadline.
pub(crate) async fn once<T, E, Fut>(deadline: Duration, call: Fut) -> Result<T, E>
where
    E: Transient,
    Fut: Future<Output = Result<T, E>>,
{
    tokio::time::timeout(deadline, Box::pin(call)).await.unwrap_or_else(|_| Err(E::timed_out(deadline)))
}

/// Draws the pause after the attempt: anything from nothing to the doubled bound.
fn pause(attempt: u32, fraction: f64) -> Duration {
    let bound = FIRST_PAUSE.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(LONGEST_PAUSE);
    bound.mul_f64(fraction.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[derive(Debug, PartialEq)]
    enum Fault {
        Passing,
        Unanswered,
        Final,
        TimedOut,
        After(Box<Self>, Box<Self>),
    }

    impl Transient for Fault {
        fn may_pass(&self) -> bool {
            matches!(self, Self::Passing | Self::Unanswered)
        }

        fn may_have_landed(&self) -> bool {
            matches!(self, Self::Unanswered | Self::TimedOut)
        }

        fn timed_out(_: Duration) -> Self {
            Self::TimedOut
        }

        fn after_ambiguous(self, earlier: Self) -> Self {
            Self::After(Box::new(earlier), Box::new(self))
        }
    }

    const DEADLINE: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn gives_up_after_four_attempts_and_at_once_when_it_cannot_pass() {
        let calls = Cell::new(0);
        let outcome: Result<(), Fault> = retried(DEADLINE, async || {
            calls.set(calls.get() + 1);
            Err(Fault::Passing)
        })
        .await;
        assert_eq!((outcome, calls.get()), (Err(Fault::Passing), 4));
        let outcome: Result<(), Fault> = retried(DEADLINE, async || {
            calls.set(calls.get() + 1);
            Err(Fault::Final)
        })
        .await;
        assert_eq!((outcome, calls.get()), (Err(Fault::Final), 5));
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_the_deadline_cuts_is_a_timeout_even_after_another_fault() {
        let calls = Cell::new(0);
        let outcome: Result<(), Fault> = retried(DEADLINE, async || {
            calls.set(calls.get() + 1);
            if calls.get() == 1 {
                return Err(Fault::Passing);
            }
            std::future::pending().await
        })
        .await;
        assert_eq!(outcome, Err(Fault::TimedOut));
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_may_have_landed_is_not_forgotten() {
        let after = |last: Fault| -> Result<(), Fault> { Err(Fault::After(Box::new(Fault::Unanswered), Box::new(last))) };
        let play = async |script: Vec<Fault>, deadline: Duration| {
            let mut script = script.into_iter();
            retried::<(), _, _, _>(deadline, || std::future::ready(Err(script.next().unwrap_or(Fault::Final)))).await
        };
        assert_eq!(play(vec![Fault::Unanswered, Fault::Passing, Fault::Final], DEADLINE).await, after(Fault::Final));
        assert_eq!(play(vec![Fault::Passing, Fault::Final], DEADLINE).await, Err(Fault::Final));
        assert_eq!(play(vec![Fault::Unanswered], DEADLINE).await, after(Fault::Final));
        let calls = Cell::new(0);
        let cut: Result<(), Fault> = retried(DEADLINE, async || {
            calls.set(calls.get() + 1);
            if calls.get() == 1 { Err(Fault::Unanswered) } else { std::future::pending().await }
        })
        .await;
        assert_eq!(cut, after(Fault::TimedOut));
        let landed = Cell::new(false);
        let repeated = retried(DEADLINE, async || if landed.replace(true) { Ok(()) } else { Err(Fault::Unanswered) }).await;
        assert_eq!(repeated, Ok(()), "the repetition has its answer");
    }

    #[test]
    fn pauses_double_up_to_their_bound() {
        assert_eq!(pause(1, 1.0), FIRST_PAUSE);
        assert_eq!(pause(2, 0.5), FIRST_PAUSE);
        assert_eq!(pause(30, 1.0), LONGEST_PAUSE);
        assert_eq!(pause(3, 0.0), Duration::ZERO);
    }
}
