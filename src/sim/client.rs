//! The world as one controller sees it: every port, each call with its delay, its faults and its place to crash.

mod cloud;
mod cluster;
mod ledger;
mod sources;

use super::clock::SkewedClock;
use super::faults::Fault;
use super::plants::Plant;
use super::streams::{self, Purpose};
use super::universe::{Crash, Event, Process, Truth, Universe};
use crate::model::{Happening, OperationId};
use crate::ports::{Clock, Entropy, Measurement, Monotonic, Telemetry, World};
use jiff::Timestamp;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// The deadline of a call that gets no answer.
const NO_ANSWER_AFTER: Duration = Duration::from_secs(2);

/// How a call came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// No answer; nothing has happened, or it has.
    NoAnswer,
    /// Too many requests.
    Throttled,
    /// Credentials or permissions.
    Denied,
}

/// What becomes of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// It has its effect, and no answer comes.
    AnswerLost,
    /// It is refused: there were too many.
    Throttled,
    /// It is refused: it is not allowed.
    Denied,
}

/// What a fault makes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is answered.
    Answered,
    /// It is not, and has no effect.
    Fails(Trouble),
    /// It has its effect, and no answer comes.
    Lands,
}

/// Lets time pass, where it does.
async fn pass(delay: Duration) {
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
}

/// The world of one start of one controller.
pub struct Sim<T> {
    universe: Arc<Universe>,
    number: usize,
    incarnation: u32,
    random: Mutex<ChaCha8Rng>,
    telemetry: T,
}

impl<T: Telemetry> Sim<T> {
    /// Gives a controller its world, at its next start.
    pub fn enter(universe: &Arc<Universe>, seed: u64, number: usize, telemetry: T) -> Self {
        let incarnation = universe.with(|truth| {
            let client = &mut truth.clients[number];
            client.incarnation += 1;
            client.process = Process::Running;
            client.ice.thaw();
            client.stale_view = None;
            (client.last_utilisation, client.last_view, client.last_instances) = (None, None, None);
            client.owner = format!("server-{number}/{}", client.incarnation);
            // It looks at everything anew, and so does its watch.
            client.seen_marks = 0;
            client.has_catalogue = false;
            client.incarnation
        });
        let purpose = Purpose::Controller { number: u32::try_from(number).unwrap_or(u32::MAX), incarnation };
        Self { universe: Arc::clone(universe), number, incarnation, random: Mutex::new(streams::open(seed, purpose)), telemetry }
    }

    /// Gives the identity under which this start holds the lease.
    pub fn owner(&self) -> String {
        format!("server-{}/{}", self.number, self.incarnation)
    }

    fn is_alive(&self, truth: &Truth) -> bool {
        truth.clients[self.number].is_alive() && truth.clients[self.number].incarnation == self.incarnation
    }

    /// Lets a call begin: it is counted, and the controller may die of it. Gives its delay and its fate.
    async fn enter_call(&self, call: &'static str, reads: bool, fate: impl FnOnce(&mut Truth) -> Fate) -> (Duration, Fate) {
        let begun = self.universe.with(|truth| {
            if !self.is_alive(truth) || self.crashes(truth, call, false) {
                return None;
            }
            truth.count_call(self.number, call);
            let mishap = self.mishap(truth, call);
            Some((truth.delay(reads), mishap.unwrap_or_else(|| fate(truth))))
        });
        match begun {
            Some(begun) => begun,
            None => std::future::pending().await,
        }
    }

    /// Takes what was meant for this call in particular.
    fn mishap(&self, truth: &mut Truth, call: &'static str) -> Option<Fate> {
        let mishaps = &mut truth.clients[self.number].mishaps;
        let place = mishaps.iter().position(|(name, _)| *name == call)?;
        Some(match mishaps.remove(place).1 {
            Mishap::AnswerLost => Fate::Lands,
            Mishap::Throttled => Fate::Fails(Trouble::Throttled),
            Mishap::Denied => Fate::Fails(Trouble::Denied),
        })
    }

    /// Tells whether the controller is killed at this call, and kills it.
    fn crashes(&self, truth: &mut Truth, call: &'static str, with_effect: bool) -> bool {
        let crashes = &mut truth.clients[self.number].crashes;
        let now = truth.now;
        let meant = |crash: &Crash| now >= crash.from && crash.with_effect == with_effect && crash.call.is_none_or(|wanted| wanted == call);
        let due = crashes.iter().position(|crash| meant(crash) && crash.after == 0);
        crashes.iter_mut().filter(|crash| meant(crash)).for_each(|crash| crash.after = crash.after.saturating_sub(1));
        let Some(due) = due else { return false };
        if let Some(fault) = crashes.remove(due).fault {
            truth.faults.hit(fault);
        }
        truth.note(format_args!("controller {} dies {} {call}", self.number, if with_effect { "after" } else { "before" }));
        truth.kill(self.number);
        true
    }

    /// Asks something that changes nothing.
    async fn ask<A>(
        &self,
        call: &'static str,
        fate: impl FnOnce(&mut Truth) -> Fate,
        read: impl FnOnce(&mut Truth) -> A,
    ) -> Result<A, Trouble> {
        let (delay, fate) = self.enter_call(call, true, fate).await;
        match fate {
            Fate::Fails(trouble @ (Trouble::Throttled | Trouble::Denied)) => {
                pass(delay).await;
                Err(trouble)
            }
            Fate::Fails(Trouble::NoAnswer) | Fate::Lands => {
                tokio::time::sleep(NO_ANSWER_AFTER).await;
                Err(Trouble::NoAnswer)
            }
            Fate::Answered => {
                pass(delay).await;
                let answer = self.universe.with(|truth| {
                    let slow = truth.clients[self.number].slow.filter(|(slow, _)| *slow == call).map(|(_, delay)| delay);
                    self.is_alive(truth).then(|| (read(truth), slow.unwrap_or_default()))
                });
                let Some((answer, slow)) = answer else { return std::future::pending().await };
                pass(slow).await;
                Ok(answer)
            }
        }
    }

    /// Sends a change. It arrives whatever becomes of its sender meanwhile.
    async fn send<A: Send + 'static>(
        &self,
        call: &'static str,
        fate: impl FnOnce(&mut Truth) -> Fate,
        effect: impl FnOnce(&mut Truth) -> A + Send + 'static,
    ) -> Result<A, Trouble> {
        let (delay, fate) = self.enter_call(call, false, fate).await;
        if let Fate::Fails(trouble) = fate {
            tokio::time::sleep(if trouble == Trouble::NoAnswer { NO_ANSWER_AFTER } else { delay }).await;
            return Err(trouble);
        }
        let (answer, arrived) = oneshot::channel();
        self.universe.with(|truth| {
            let event = Event::Arrives(Box::new(move |truth: &mut Truth| {
                // Nobody may be left to hear it.
                let _ = answer.send(effect(truth));
            }));
            truth.after(delay, event);
        });
        let answer = tokio::time::timeout(NO_ANSWER_AFTER, arrived).await;
        let killed = self.universe.with(|truth| !self.is_alive(truth) || self.crashes(truth, call, true));
        if killed {
            return std::future::pending().await;
        }
        if fate == Fate::Lands {
            tokio::time::sleep(NO_ANSWER_AFTER).await;
            return Err(Trouble::NoAnswer);
        }
        match answer {
            Ok(Ok(answer)) => {
                tokio::time::sleep(delay / 2).await;
                Ok(answer)
            }
            // The world has ended.
            Ok(Err(_)) => std::future::pending().await,
            // It arrives after all, later.
            Err(_) => Err(Trouble::NoAnswer),
        }
    }

    /// Tells whether the controller has this bug.
    fn has(&self, truth: &Truth, plant: Plant) -> bool {
        truth.clients[self.number].plant == Some(plant)
    }

    /// Draws from this start's own stream.
    fn draw<D>(&self, draw: impl FnOnce(&mut ChaCha8Rng) -> D) -> D {
        draw(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn clock_of(&self, truth: &Truth) -> SkewedClock {
        truth.clients[self.number].clock
    }
}

impl<T: Telemetry + 'static> World for Sim<T> {
    type Cluster = Self;
    type Cloud = Self;
    type Metrics = Self;
    type Ledger = Self;
    type Notices = Self;
    type Clock = Self;
    type Entropy = Self;
    type Telemetry = Self;

    fn cluster(&self) -> &Self {
        self
    }
    fn cloud(&self) -> &Self {
        self
    }
    fn metrics(&self) -> &Self {
        self
    }
    fn ledger(&self) -> &Self {
        self
    }
    fn notices(&self) -> &Self {
        self
    }
    fn clock(&self) -> &Self {
        self
    }
    fn entropy(&self) -> &Self {
        self
    }
    fn telemetry(&self) -> &Self {
        self
    }
}

impl<T: Telemetry> Clock for Sim<T> {
    fn now(&self) -> Timestamp {
        self.universe.with(|truth| {
            let (skewed, wall) = (self.clock_of(truth), truth.wall());
            if skewed.wall(wall) != wall {
                truth.faults.hit(Fault::WallClockJumps);
            }
            skewed.wall(wall)
        })
    }

    fn monotonic(&self) -> Monotonic {
        self.universe.with(|truth| Monotonic(self.clock_of(truth).monotonic(truth.now)))
    }
}

impl<T: Telemetry> Entropy for Sim<T> {
    fn operation_id(&self) -> OperationId {
        OperationId::new(format!("op-{:012x}", self.draw(|random| random.random_range(0..1_u64 << 48))))
    }

    fn record_version(&self) -> String {
        format!("v-{:012x}", self.draw(|random| random.random_range(0..1_u64 << 48)))
    }

    fn fraction(&self) -> f64 {
        self.draw(|random| random.random_range(0.0..1.0))
    }
}

impl<T: Telemetry> Telemetry for Sim<T> {
    fn record(&self, measurement: Measurement) {
        self.telemetry.record(measurement);
    }

    fn tell(&self, happening: Happening) {
        self.telemetry.tell(happening);
    }
}
