//! Sends what happens to a chat: grouped, at a pace, in order, and never in anybody's way.
//!
//! What happens within [`GATHER`] of one another becomes one message. Messages leave at most one a second
//! after a small burst, which is Slack's own limit. Who asks for patience is given it. While nothing can be sent,
//! what happens waits, up to [`WAITING`] happenings; then the oldest go and the next message says how many. A
//! message whose answer is lost is sent again, so it may arrive twice.

use super::leads;
use super::messages::{self, message};
use super::outlets::{Line, Next, bounded, stopped, unheard};
use super::tally::Tally;
use crate::config::{Recurrence, SlackConfig};
use crate::control::status::Status;
use crate::model::Happening;
use crate::ports::{Chat, Clock, Entropy, Telemetry};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::Instant;

/// So long a happening waits for others to go with it.
pub const GATHER: Duration = Duration::from_secs(3);
/// How many happenings wait at most.
pub const WAITING: usize = 200;
/// How many happenings one message takes.
const TOGETHER: usize = 20;
/// Messages that may leave at once after a quiet time.
const BURST: u32 = 3;
/// What one message costs of the burst in time.
const PACE: Duration = Duration::from_secs(1);
/// How many reports wait at most.
const REPORTS: usize = 4;
/// A clock that is set back by less than this makes no report due again.
const SET_BACK: SignedDuration = SignedDuration::from_hours(1);

/// A report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Report {
    /// What the day has cost.
    Daily,
    /// What the week suggests.
    Weekly,
}

/// What reaches the sender.
pub struct Sources {
    /// What happens.
    pub happenings: broadcast::Receiver<Arc<Happening>>,
    /// How the fleet stands.
    pub status: watch::Receiver<Arc<Status>>,
    /// Says every few seconds that it is time to look whether a report is due.
    pub ticks: mpsc::Receiver<()>,
    /// Set when the daemon is to end and the loop has ended.
    pub stop: watch::Receiver<bool>,
}

/// Sends until it is stopped. `cluster` is named in every message; `config` says when reports are due.
pub async fn keep<C: Chat, K: Clock + Entropy, T: Telemetry>(
    cluster: String,
    config: SlackConfig,
    chat: C,
    world: K,
    line: Line<T>,
    mut sources: Sources,
) {
    let now = world.now();
    let mut calendar = Calendar { config, looked: now };
    let mut desk =
        Desk { cluster, queue: VecDeque::new(), reports: VecDeque::new(), lost: 0, day: Tally::begin(now), week: Tally::begin(now) };
    let mut sender = Sender { line, world, pace: Pace::new(), not_before: None };
    let stop = sources.stop.clone();
    let work = async {
        loop {
            let due = desk.due().map(|due| due.max(sender.pace.next()).max(sender.not_before.unwrap_or(due)));
            tokio::select! {
                biased;
                () = stopped(&mut sources.stop) => break,
                heard = sources.happenings.recv() => if !desk.hear(heard, &sender.line) { break },
                Some(()) = sources.ticks.recv() => {
                    let (status, now) = (sources.status.borrow().clone(), sender.world.now());
                    for report in calendar.due(now) {
                        desk.report(report, &status, now, &sender.line);
                    }
                }
                Ok(()) = sources.status.changed() => {
                    let status = sources.status.borrow_and_update().clone();
                    desk.look(&status, &sender.world);
                }
                () = at(due) => sender.send(&mut desk, &chat).await,
            }
        }
        desk.hear_rest(&mut sources.happenings, &sender.line);
        while desk.due().is_some() && sender.not_before.is_none() {
            sender.send(&mut desk, &chat).await;
        }
    };
    bounded(stop, work).await;
    // What came while the last message hung is counted, too.
    desk.hear_rest(&mut sources.happenings, &sender.line);
    sender.line.dropped(desk.queue.len() + desk.reports.len());
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// When reports are due.
struct Calendar {
    config: SlackConfig,
    /// The latest look.
    looked: Timestamp,
}

impl Calendar {
    /// Gives the reports that have become due since the latest look, each once however long ago that was.
    fn due(&mut self, now: Timestamp) -> Vec<Report> {
        if now < self.looked && self.looked.duration_since(now) < SET_BACK {
            return Vec::new();
        }
        let since = std::mem::replace(&mut self.looked, now);
        let reports = [(&self.config.daily_report, Report::Daily), (&self.config.weekly_report, Report::Weekly)];
        let is_due = |when: &Option<Recurrence>| when.as_ref().is_some_and(|when| when.is_due(since, now));
        reports.into_iter().filter(|(when, _)| is_due(when)).map(|(_, report)| report).collect()
    }
}

/// What waits to be sent.
struct Desk {
    cluster: String,
    /// Happenings, each with when it was heard.
    queue: VecDeque<(Instant, Arc<Happening>)>,
    reports: VecDeque<Value>,
    /// Happenings that there was no room for.
    lost: u64,
    day: Tally,
    week: Tally,
}

impl Desk {
    /// Takes what was heard; `false` at the end of all hearing.
    fn hear<T: Telemetry>(&mut self, heard: Result<Arc<Happening>, RecvError>, line: &Line<T>) -> bool {
        match heard {
            Ok(happening) => {
                self.day.hear(&happening);
                self.week.hear(&happening);
                if messages::part(&happening).is_none() {
                    return true;
                }
                if self.queue.len() >= WAITING {
                    self.queue.pop_front();
                    self.lose(1, line);
                }
                self.queue.push_back((Instant::now(), happening));
                true
            }
            Err(RecvError::Lagged(number)) => {
                self.lose(number, line);
                true
            }
            Err(RecvError::Closed) => false,
        }
    }

    /// Takes what has been told already.
    fn hear_rest<T: Telemetry>(&mut self, happenings: &mut broadcast::Receiver<Arc<Happening>>, line: &Line<T>) {
        let (rest, lost) = unheard(happenings);
        if lost > 0 {
            self.lose(lost, line);
        }
        for happening in rest {
            self.hear(Ok(happening), line);
        }
    }

    fn lose<T: Telemetry>(&mut self, number: u64, line: &Line<T>) {
        self.lost += number;
        line.dropped(usize::try_from(number).unwrap_or(usize::MAX));
    }

    fn look(&mut self, status: &Status, clock: &impl Clock) {
        self.day.look(status, clock.now());
        self.week.look(status, clock.now());
    }

    /// Makes a report, on the instance that leads: one of them tells.
    fn report<T: Telemetry>(&mut self, report: Report, status: &Status, now: Timestamp, line: &Line<T>) {
        let cost = status.cost.as_deref();
        let message = match report {
            Report::Daily => messages::daily(&self.cluster, cost, &self.day.turn_over(now), now),
            Report::Weekly => messages::weekly(&self.cluster, cost, &self.week.turn_over(now), now),
        };
        if !leads(status) {
            return;
        }
        if self.reports.len() >= REPORTS {
            self.reports.pop_front();
            line.dropped(1);
        }
        self.reports.push_back(message);
    }

    /// Tells when the next message is complete.
    fn due(&self) -> Option<Instant> {
        let first = self.queue.front().map(|(heard, _)| if self.queue.len() >= TOGETHER { *heard } else { *heard + GATHER });
        if self.reports.is_empty() { first } else { Some(Instant::now()) }
    }

    /// Makes the next message, with how many happenings are in it; none is a report's.
    fn next(&self) -> Option<(Value, usize)> {
        if let Some(report) = self.reports.front() {
            return Some((report.clone(), 0));
        }
        let happenings = self.queue.iter().take(TOGETHER).map(|(_, happening)| &**happening);
        Some((message(&self.cluster, happenings, self.lost)?, self.queue.len().min(TOGETHER)))
    }

    /// Goes on after a message that has arrived.
    fn done(&mut self, happenings: usize) {
        if happenings > 0 {
            self.lost = 0;
        }
        self.skip(happenings);
    }

    /// Goes on after a message that was refused for what it is: the next one says how much was lost with it.
    fn refused(&mut self, happenings: usize) {
        self.lost += u64::try_from(happenings).unwrap_or(u64::MAX);
        self.skip(happenings);
    }

    fn skip(&mut self, happenings: usize) {
        if happenings == 0 {
            self.reports.pop_front();
        } else {
            self.queue.drain(..happenings);
        }
    }
}

struct Sender<K, T> {
    line: Line<T>,
    world: K,
    pace: Pace,
    not_before: Option<Instant>,
}

impl<K: Entropy, T: Telemetry> Sender<K, T> {
    async fn send<C: Chat>(&mut self, desk: &mut Desk, chat: &C) {
        let Some((message, happenings)) = desk.next() else { return };
        self.pace.take();
        self.not_before = None;
        match chat.post(&message).await {
            Ok(()) => {
                self.line.sent(1);
                desk.done(happenings);
            }
            Err(error) => match self.line.failed(&error, 1, self.world.fraction()) {
                Next::Wait(pause) => self.not_before = Some(Instant::now() + pause),
                Next::Drop => desk.refused(happenings),
            },
        }
    }
}

/// A bucket of [`BURST`] messages that fills by one each [`PACE`], kept as the time at which it is full.
struct Pace {
    full: Instant,
}

impl Pace {
    fn new() -> Self {
        Self { full: Instant::now() }
    }

    fn next(&self) -> Instant {
        self.full.checked_sub(PACE * (BURST - 1)).unwrap_or(self.full).max(Instant::now())
    }

    fn take(&mut self) {
        self.full = self.full.max(Instant::now()) + PACE;
    }
}

#[cfg(test)]
mod tests;
