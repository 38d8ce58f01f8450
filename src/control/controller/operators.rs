//! What operators ask: pause, resume, evaluate, and a new configuration.

use super::super::settings::Settings;
use super::super::status::Command;
use super::{Controller, Event, Word};
use crate::model::snapshot::Pause;
use crate::model::{Explanation, Question, Snapshot};
use crate::policy;
use crate::ports::{Ledger, LedgerError, World};
use std::sync::Arc;
use tokio::sync::oneshot;
use tracing::{error, info};

impl<W: World> Controller<W> {
    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Pause { by, reason, done } => self.set_pause(Some(Pause { since: self.now(), by, reason }), done),
            Command::Resume { by, done } => {
                info!(%by, "resuming");
                self.note_resumer(&by);
                self.set_pause(None, done);
            }
            Command::ResetOffers { done, .. } if self.grant.is_none() => {
                let _ = done.send(Err("this instance does not lead; ask the leader".into()));
            }
            Command::ResetOffers { by, done } => {
                info!(%by, "offers that rest are tried again");
                self.memory.offers.clear();
                self.memory.pool_offers.clear();
                self.memory.quotas.clear();
                self.memory.never_joined_by_pool.clear();
                self.memory.allocatable.clear();
                self.memory.differences.clear();
                self.memory.trusted_from = Some(self.now());
                let _ = done.send(Ok(()));
                self.turn("operator");
            }
            Command::Explain { question, done } => self.explain(question, done),
            Command::Evaluate { done } if self.grant.is_none() && !self.loading => {
                let _ = done.send(Err("this instance does not lead; ask the leader".into()));
            }
            Command::Evaluate { done } => {
                self.evaluations.retain(|waiting| !waiting.is_closed());
                self.evaluations.push(done);
                // While the journal is read there is none; the one that follows is full, and answers.
                self.turn("operator");
            }
        }
    }

    /// Answers from what a turn has seen, beside the loop: a question must not hold a decision up.
    fn explain(&self, question: Question, done: oneshot::Sender<Result<Option<Explanation>, String>>) {
        let seen = match &question {
            Question::Node(_) => self.measured.as_ref(),
            Question::Pod(_) | Question::Offers => self.seen.as_ref(),
        };
        let refuse = |done: oneshot::Sender<_>, why: &str| {
            let _ = done.send(Err(why.into()));
        };
        if self.grant.is_none() {
            return refuse(done, "this instance does not lead; ask the leader");
        }
        let Some(seen) = seen.cloned() else { return refuse(done, "no turn is over yet; ask again in a moment") };
        let Ok(permit) = Arc::clone(&self.explaining).try_acquire_owned() else {
            return refuse(done, "another question is being answered; ask again in a moment");
        };
        let snapshot = Snapshot { operations: self.operations.clone(), pause: self.pause.clone(), ..(*seen).clone() };
        let (settings, memory, now) = (Arc::clone(&self.context.settings), self.memory.clone(), self.now());
        tokio::task::spawn_blocking(move || {
            if done.is_closed() {
                return;
            }
            let answer = policy::explain(&settings.policy, &snapshot, &memory, &question, now);
            // Who has an answer may ask the next question.
            drop(permit);
            let _ = done.send(Ok(answer));
        });
    }

    /// Words reach the ledger one after the other, so that the last of them is what holds.
    fn set_pause(&mut self, pause: Option<Pause>, done: oneshot::Sender<Result<(), String>>) {
        if let Some(pause) = &pause {
            info!(by = %pause.by, reason = %pause.reason, "pausing");
            // From this moment nothing is started, whatever the ledger's answer.
            self.pause = Some(pause.clone());
        }
        self.heard += 1;
        self.words.push_back(Word { pause, done });
        if self.words.len() == 1 {
            self.write_word();
        }
    }

    pub(super) fn write_word(&self) {
        let Some(word) = self.words.front() else { return };
        let (ports, pause) = (Arc::clone(&self.context.world), word.pause.clone());
        self.spawn(async move { Event::Paused(ports.ledger().set_pause(pause.as_ref()).await) });
    }

    pub(super) fn paused(&mut self, outcome: Result<(), LedgerError>) {
        let Some(word) = self.words.pop_front() else { return };
        self.heard += 1;
        match outcome {
            Ok(()) if self.words.is_empty() => {
                self.pause = word.pause;
                self.tell_pause();
            }
            Ok(()) => {}
            // What was said does not hold: the next turn hears from the ledger what does.
            Err(_) => self.forget_resumer(),
        }
        self.publish();
        let _ = word.done.send(outcome.map_err(|error| error.to_string()));
        self.write_word();
        self.turn("operator");
    }

    /// Takes the ledger's word for the pause, unless it was asked before it had the operator's, which is newer.
    pub(super) fn believe(&mut self, heard: u64, pause: Option<&Pause>) {
        if heard == self.heard && self.words.is_empty() {
            self.pause = pause.cloned();
        }
    }

    pub(super) fn reload(&mut self, reload: Result<Settings, String>) {
        match reload {
            Ok(settings) => {
                info!("the new configuration is in force");
                self.context.settings = Arc::new(settings);
                // They may be of other rules.
                self.prospects.clear();
                self.shown.reload_error = None;
                self.turn("operator");
            }
            Err(why) => {
                error!(%why, "the new configuration is refused; the old one stays in force");
                self.shown.reload_error = Some(why);
            }
        }
        self.publish();
    }
}
