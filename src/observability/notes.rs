//! Writes Kubernetes' Events, under the names that users of cluster-autoscaler know.
//!
//! `TriggeredScaleUp` and `NotTriggerScaleUp` on pods that wait, `ScaleDown`, `ScaleDownFailed` and
//! `SpotInterruption` on nodes. The same about the same thing is written once in [`SILENCE`]. What cannot be
//! written waits, bounded by [`WAITING`] and a longest pause; nothing waits for it.

use super::outlets::{Line, Next, bounded, stopped, unheard};
use crate::model::happening::Milestone;
use crate::model::plan::NodeRef;
use crate::model::{Happening, Launch, Operation, Retire, What};
use crate::ports::outlets::{Note, Subject};
use crate::ports::{Clock, Entropy, EventBoard, Telemetry};
use jiff::SignedDuration;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

/// So long the same is not said again.
pub const SILENCE: Duration = Duration::from_mins(10);
/// How many Events wait at most.
pub const WAITING: usize = 500;
/// An Event that could not be written for so long is of no use.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_mins(5);
/// How many things are remembered as said.
const REMEMBERED: usize = 4000;
/// Pods of one launch that are told of.
const PODS: usize = 50;
/// The API server's limit of a note, in bytes.
const LONGEST: usize = 1024;
/// Between two Events, so that a burst does not take the API server's time from others.
const PACE: Duration = Duration::from_millis(50);

/// What is said of a pod again with each turn for as long as it waits.
const NOT_TRIGGERED: &str = "NotTriggerScaleUp";

/// Gives the Events of something that has happened.
#[must_use]
pub fn notes(happening: &Happening) -> Vec<Note> {
    let note = |about: Subject, warning: bool, reason: &'static str, action: &'static str, text: &str| Note {
        about,
        warning,
        reason,
        action,
        text: shortened(text),
        at: happening.at,
    };
    match &happening.what {
        What::Moved { operation, begins, change } => match (operation, Milestone::of(operation, *begins)) {
            (Operation::Launch(launch), Milestone::Launched) => {
                let sizes = change.as_ref().map(|it| format!(" {}->{}", it.before, it.after)).unwrap_or_default();
                let text = format!("pod triggered scale-up: [{}{sizes}: {}]", launch.order.pool, bought(launch));
                let pods = launch.order.pods.iter().take(PODS).cloned();
                pods.map(|pod| note(Subject::Pod(pod), false, "TriggeredScaleUp", "ScaleUp", &text)).collect()
            }
            (Operation::Launch(launch), Milestone::LaunchFailed) => {
                let text = format!("scale-up of pool {} failed: {}", launch.order.pool, launch.failure_name());
                let pods = launch.order.pods.iter().take(PODS).cloned();
                pods.map(|pod| note(Subject::Pod(pod), true, "FailedToScaleUpGroup", "ScaleUp", &text)).collect()
            }
            (Operation::Retire(retire), milestone) => {
                let Some(going) = &retire.order.node else { return Vec::new() };
                about_node(going, retire, milestone)
                    .map(|(warning, reason, text)| note(Subject::Node(going.clone()), warning, reason, "ScaleDown", &text))
                    .into_iter()
                    .collect()
            }
            (
                Operation::Launch(_),
                Milestone::Arrived | Milestone::Leaves | Milestone::Interrupted | Milestone::Left | Milestone::RolledBack | Milestone::Step,
            ) => Vec::new(),
        },
        What::Waiting { pods } => {
            let text = |why: &str| format!("pod didn't trigger scale-up: {why}");
            pods.iter().map(|it| note(Subject::Pod(it.pod.clone()), false, NOT_TRIGGERED, "ScaleUp", &text(&it.why))).collect()
        }
        What::TookOver { .. }
        | What::Joined { .. }
        | What::Paused { .. }
        | What::Resumed { .. }
        | What::Alerted { .. }
        | What::Refused { .. } => Vec::new(),
    }
}

fn bought(launch: &Launch) -> String {
    let types = launch.request.instance_types.iter().take(3).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    format!("{} x {} {types} in {}", launch.order.count, launch.request.market, launch.order.zone)
}

/// Says what becomes of a node: whether that is a warning, its name, and the words.
fn about_node(node: &NodeRef, retire: &Retire, milestone: Milestone) -> Option<(bool, &'static str, String)> {
    match milestone {
        Milestone::Leaves => Some((false, "ScaleDown", format!("node-fleet drains the node and gives it back: {}", retire.order.reason))),
        Milestone::Interrupted => Some((true, "SpotInterruption", format!("node-fleet drains the node: {}", retire.order.reason))),
        Milestone::Left => Some((false, "ScaleDown", format!("node-fleet has removed the node {}", node.name))),
        Milestone::RolledBack => Some((true, "ScaleDownFailed", format!("the node stays: {}", rolled_back(retire)))),
        Milestone::Launched | Milestone::Arrived | Milestone::LaunchFailed | Milestone::Step => None,
    }
}

fn rolled_back(retire: &Retire) -> &str {
    use crate::model::RetireState;
    match &retire.state {
        RetireState::RolledBack { reason } | RetireState::RollingBack { reason } => reason,
        RetireState::Journalled
        | RetireState::Draining { .. }
        | RetireState::Drained { .. }
        | RetireState::Terminated
        | RetireState::Done => "it was not drained",
    }
}

/// Gives the words by which an Event is known as said before. Why a pod waits stays the same while the numbers, times and
/// names in it change: words with digits do not count there.
fn gist(note: &Note) -> String {
    if note.reason != NOT_TRIGGERED {
        return note.text.clone();
    }
    let words = note.text.split_whitespace().filter(|word| !word.contains(|c: char| c.is_ascii_digit()));
    words.collect::<Vec<_>>().join(" ")
}

/// Cuts a text to what a note may hold, between two characters.
fn shortened(text: &str) -> String {
    let mut end = text.len().min(LONGEST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// Writes until it is stopped; what waits then is written while that works, and counted as lost otherwise.
pub async fn keep<B: EventBoard, K: Clock + Entropy, T: Telemetry>(
    board: B,
    world: K,
    mut line: Line<T>,
    mut happenings: broadcast::Receiver<Arc<Happening>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut desk = Desk { waiting: VecDeque::new(), said: BTreeMap::new() };
    let mut not_before = Instant::now();
    let ending = stop.clone();
    let work = async {
        loop {
            tokio::select! {
                biased;
                () = stopped(&mut stop) => break,
                heard = happenings.recv() => match heard {
                    Ok(happening) => line.dropped(notes(&happening).into_iter().map(|note| desk.take(note)).sum()),
                    Err(RecvError::Lagged(number)) => line.dropped(usize::try_from(number).unwrap_or(usize::MAX)),
                    Err(RecvError::Closed) => break,
                },
                () = tokio::time::sleep_until(not_before), if !desk.waiting.is_empty() => {
                    not_before = Instant::now() + write(&mut desk, &board, &world, &mut line).await;
                }
            }
        }
        desk.hear_rest(&mut happenings, &line);
        while !desk.waiting.is_empty() {
            write(&mut desk, &board, &world, &mut line).await;
            if !line.works() {
                break;
            }
        }
    };
    bounded(ending, work).await;
    // What came while the last Event hung is counted, too.
    desk.hear_rest(&mut happenings, &line);
    line.dropped(desk.waiting.len());
}

/// Writes the oldest Event, and gives how long to wait before the next one.
async fn write<B: EventBoard, K: Clock + Entropy, T: Telemetry>(desk: &mut Desk, board: &B, world: &K, line: &mut Line<T>) -> Duration {
    let Some(note) = desk.waiting.front() else { return PACE };
    let outcome = board.write(note).await;
    let old = world.now().duration_since(note.at) > LONGEST_WAIT;
    match outcome {
        Ok(()) => {
            desk.waiting.pop_front();
            line.sent(1);
            PACE
        }
        Err(error) => match line.failed(&error, 1, world.fraction()) {
            Next::Drop => {
                desk.waiting.pop_front();
                PACE
            }
            Next::Wait(pause) => {
                if old {
                    desk.waiting.pop_front();
                    line.dropped(1);
                }
                pause
            }
        },
    }
}

struct Desk {
    waiting: VecDeque<Note>,
    /// What has been said, and when.
    said: BTreeMap<(Subject, &'static str, String), Instant>,
}

impl Desk {
    /// Takes what has been told already.
    fn hear_rest<T: Telemetry>(&mut self, happenings: &mut broadcast::Receiver<Arc<Happening>>, line: &Line<T>) {
        let (rest, lost) = unheard(happenings);
        line.dropped(usize::try_from(lost).unwrap_or(usize::MAX));
        line.dropped(rest.iter().flat_map(|happening| notes(happening)).map(|note| self.take(note)).sum());
    }

    /// Takes an Event unless it has been said lately; gives how many had to go for it.
    fn take(&mut self, note: Note) -> usize {
        let now = Instant::now();
        self.said.retain(|_, at| now.duration_since(*at) < SILENCE);
        let key = (note.about.clone(), note.reason, gist(&note));
        if self.said.contains_key(&key) {
            return 0;
        }
        // Beyond the bound the same may be said twice, which harms nobody.
        if self.said.len() < REMEMBERED {
            self.said.insert(key, now);
        }
        self.waiting.push_back(note);
        usize::from(self.waiting.len() > WAITING && self.waiting.pop_front().is_some())
    }
}

#[cfg(test)]
mod tests;
