//! Faults of the AWS interface: errors, delays, cut connections, and calls held at a chosen point.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::watch;

use super::call::Call;

/// At which side of a call's effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Nothing happened yet.
    Before,
    /// It happened, and the caller does not know.
    After,
}

/// Which calls a fault is for.
#[derive(Clone)]
pub struct Matcher {
    test: Arc<dyn Fn(&Call) -> bool + Send + Sync>,
    skip: usize,
}

impl Matcher {
    /// Calls of one action.
    pub fn action(name: &str) -> Self {
        let name = name.to_owned();
        Self::that(move |call| call.action == name)
    }

    /// Calls of one service (`ec2`, `dynamodb`, `sqs`).
    pub fn service(name: &str) -> Self {
        let name = name.to_owned();
        Self::that(move |call| call.service == name)
    }

    /// Calls that pass a test.
    pub fn that(test: impl Fn(&Call) -> bool + Send + Sync + 'static) -> Self {
        Self { test: Arc::new(test), skip: 0 }
    }

    /// Of these, the calls of one caller (its access key).
    #[must_use]
    pub fn by(self, caller: &str) -> Self {
        let caller = caller.to_owned();
        self.and(move |call| call.caller == caller)
    }

    /// Of these, the calls one of whose parameters holds `text`.
    #[must_use]
    pub fn mentions(self, text: &str) -> Self {
        let text = text.to_owned();
        self.and(move |call| call.parameters.iter().any(|(key, value)| key.contains(&text) || value.contains(&text)))
    }

    /// Of these, the calls that pass a test as well.
    #[must_use]
    pub fn and(self, test: impl Fn(&Call) -> bool + Send + Sync + 'static) -> Self {
        let first = self.test;
        Self { test: Arc::new(move |call| first(call) && test(call)), skip: self.skip }
    }

    /// From the `n`th such call on, counted from 1.
    #[must_use]
    pub fn nth(self, n: usize) -> Self {
        Self { skip: n.saturating_sub(1), ..self }
    }

    /// Is the call one of them? Counting of [`Matcher::nth`] is left out.
    pub fn matches(&self, call: &Call) -> bool {
        (self.test)(call)
    }
}

/// What happens to a call. All that apply happen: delays first.
#[derive(Clone, Default)]
pub struct Fate {
    pub delay: Duration,
    pub fail: Option<(String, u16)>,
    pub cut: Option<When>,
    pub hold: Option<(When, Gate)>,
}

enum Effect {
    Fail { code: String, status: u16 },
    Delay(Duration),
    Cut(When),
    Hold(When, Gate),
}

struct Fault {
    matcher: Matcher,
    skip: usize,
    remaining: usize,
    effect: Effect,
}

impl Fault {
    /// A hold that was decided before any call came is none.
    fn is_given_up(&self) -> bool {
        matches!(&self.effect, Effect::Hold(_, gate) if gate.decision.borrow().is_some())
    }
}

/// The faults in force.
#[derive(Clone, Default)]
pub struct Faults {
    list: Arc<Mutex<Vec<Fault>>>,
}

impl Faults {
    /// The next `times` calls are answered with an error, without effect.
    pub fn fail_next(&self, matcher: Matcher, times: usize, code: &str, status: u16) {
        self.add(matcher, times, Effect::Fail { code: code.to_owned(), status });
    }

    /// The next `times` calls take that much longer.
    pub fn delay_next(&self, matcher: Matcher, times: usize, delay: Duration) {
        self.add(matcher, times, Effect::Delay(delay));
    }

    /// The next call loses its connection before or after its effect.
    pub fn cut_next(&self, matcher: Matcher, when: When) {
        self.add(matcher, 1, Effect::Cut(when));
    }

    /// The next `times` calls lose their connection.
    pub fn cut_many(&self, matcher: Matcher, times: usize, when: When) {
        self.add(matcher, times, Effect::Cut(when));
    }

    /// The next call stops before or after its effect until the hold decides.
    pub fn hold(&self, matcher: Matcher, when: When) -> Hold {
        let gate = Gate::default();
        self.add(matcher, 1, Effect::Hold(when, gate.clone()));
        Hold { gate }
    }

    /// No faults any more. Calls that are held lose their connection.
    pub fn clear(&self) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        for fault in list.drain(..) {
            if let Effect::Hold(_, gate) = fault.effect {
                gate.decide(Decision::Cut);
            }
        }
    }

    /// What is to happen to this call; counts it.
    pub fn meet(&self, call: &Call) -> Fate {
        let mut fate = Fate::default();
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.retain(|fault| fault.remaining > 0 && !fault.is_given_up());
        for fault in list.iter_mut().filter(|fault| fault.matcher.matches(call)) {
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            fault.remaining = fault.remaining.saturating_sub(1);
            match &fault.effect {
                Effect::Fail { code, status } => fate.fail = Some((code.clone(), *status)),
                Effect::Delay(delay) => fate.delay += *delay,
                Effect::Cut(when) => fate.cut = Some(*when),
                Effect::Hold(when, gate) => fate.hold = Some((*when, gate.clone())),
            }
        }
        fate
    }

    fn add(&self, matcher: Matcher, times: usize, effect: Effect) {
        let skip = matcher.skip;
        let fault = Fault { matcher, skip, remaining: times, effect };
        self.list.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
    }
}

/// What becomes of a held call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It goes on.
    Release,
    /// Its connection is closed without an answer.
    Cut,
}

/// The proxy's side of a hold.
#[derive(Clone)]
pub struct Gate {
    reached: Arc<watch::Sender<Option<Call>>>,
    decision: Arc<watch::Sender<Option<Decision>>>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { reached: Arc::new(watch::Sender::new(None)), decision: Arc::new(watch::Sender::new(None)) }
    }
}

impl Gate {
    /// Tells that the call is here, and waits for the decision.
    pub async fn pass(&self, call: &Call) -> Decision {
        self.reached.send_replace(Some(call.clone()));
        let mut decision = self.decision.subscribe();
        let decided = decision.wait_for(Option::is_some).await;
        decided.ok().and_then(|value| *value).unwrap_or(Decision::Cut)
    }

    fn decide(&self, decision: Decision) {
        self.decision.send_if_modified(|current| {
            let is_first = current.is_none();
            *current = current.or(Some(decision));
            is_first
        });
    }
}

/// The scenario's side of a hold. Dropping it cuts the call.
pub struct Hold {
    gate: Gate,
}

impl Hold {
    /// Waits until a call is held and gives it.
    ///
    /// # Errors
    /// When none comes within `limit`.
    pub async fn reached(&self, limit: Duration) -> Result<Call> {
        let mut reached = self.gate.reached.subscribe();
        let found = tokio::time::timeout(limit, reached.wait_for(Option::is_some)).await;
        let call = found.ok().and_then(Result::ok).and_then(|call| call.clone());
        call.with_context(|| format!("waited {:.1} s for a call to hold; none came", limit.as_secs_f64()))
    }

    /// Has a call come?
    pub fn is_reached(&self) -> bool {
        self.gate.reached.borrow().is_some()
    }

    /// Lets the call go on.
    pub fn release(self) {
        self.gate.decide(Decision::Release);
    }

    /// Closes the call's connection without an answer.
    pub fn cut(self) {
        self.gate.decide(Decision::Cut);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.gate.decide(Decision::Cut);
    }
}
