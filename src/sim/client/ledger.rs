//! DynamoDB for one controller.

use super::super::faults::Fault;
use super::super::plants::Plant;
use super::super::universe::Truth;
use super::cloud::aws_fate;
use super::{Fate, Sim, Trouble};
use crate::model::snapshot::Pause;
use crate::model::{Memory, Operation, OperationId, RuleName};
use crate::ports::ledger::{KeptDemand, StateSummary};
use crate::ports::{Claim, Grant, Ledger, LedgerError, LedgerState, Lock, Telemetry};
use jiff::Timestamp;

fn error(call: &'static str, trouble: Trouble) -> LedgerError {
    match trouble {
        Trouble::NoAnswer | Trouble::Throttled => LedgerError::Unavailable { call, why: "no answer within 2s".into() },
        Trouble::Denied => LedgerError::Denied { call, why: "AccessDeniedException".into() },
    }
}

impl<T: Telemetry> Sim<T> {
    /// Tells whether the controller takes what got no answer for what it would like to hear.
    fn trusts(&self) -> bool {
        self.universe.with(|truth| self.has(truth, Plant::TrustsForEver))
    }

    /// Numbers a write.
    fn next_write(&self) -> u64 {
        self.universe.with(|truth| {
            truth.clients[self.number].writes += 1;
            truth.clients[self.number].writes
        })
    }

    fn reach(&self, truth: &mut Truth) -> Fate {
        if let Some(fate) = aws_fate(truth) {
            return fate;
        }
        if truth.clients[self.number].cut_off {
            truth.faults.hit(Fault::Partition);
            return Fate::Fails(Trouble::NoAnswer);
        }
        if truth.faults.strikes(Fault::LedgerOutage, 1.0, &mut truth.random.strikes) {
            let lands = truth.now.as_millis().is_multiple_of(2);
            return if lands { Fate::Lands } else { Fate::Fails(Trouble::NoAnswer) };
        }
        Fate::Answered
    }
}

impl<T: Telemetry> Ledger for Sim<T> {
    async fn lock(&self) -> Result<Lock, LedgerError> {
        self.ask("lock", |truth| self.reach(truth), |truth| truth.table.lock()).await.map_err(|trouble| error("Query", trouble))
    }

    async fn acquire(&self, claim: &Claim) -> Result<Grant, LedgerError> {
        let (number, claim) = (self.number, claim.clone());
        let effect = move |truth: &mut Truth| {
            let before = truth.table.epoch();
            let outcome = truth.table.acquire(&claim);
            if truth.table.epoch() < before {
                truth.violated(5, "the epoch has fallen".into());
            }
            if outcome.is_ok() {
                truth.table.renewed = truth.now;
                truth.note(format_args!("controller {number} leads in epoch {}", truth.table.epoch()));
            }
            outcome
        };
        self.send("acquire", |truth| self.reach(truth), effect).await.map_err(|trouble| error("TransactWriteItems", trouble))?
    }

    async fn heartbeat(&self, grant: &Grant, version: &str, _: Timestamp) -> Result<(), LedgerError> {
        let fate = |truth: &mut Truth| match self.reach(truth) {
            Fate::Answered if truth.faults.strikes(Fault::RenewalLanded, 0.5, &mut truth.random.strikes) => Fate::Lands,
            fate => fate,
        };
        // A heartbeat that comes late is none, so that it may come with its sender.
        let (delay, fate) = self.enter_call("heartbeat", true, fate).await;
        super::pass(if fate == Fate::Answered { delay } else { super::NO_ANSWER_AFTER }).await;
        let beat = self.universe.with(|truth| {
            if !self.is_alive(truth) {
                return None;
            }
            match fate {
                Fate::Answered | Fate::Lands => {
                    let beat = truth.table.heartbeat(grant, version);
                    if beat.is_ok() {
                        truth.table.renewed = truth.now;
                    }
                    Some(beat)
                }
                Fate::Fails(trouble) => Some(Err(error("UpdateItem", trouble))),
            }
        });
        if self.universe.with(|truth| self.crashes(truth, "heartbeat", true)) {
            return std::future::pending().await;
        }
        match (beat, fate) {
            (None, _) => std::future::pending().await,
            (Some(Err(_)), _) if self.trusts() => Ok(()),
            (Some(_), Fate::Lands) => Err(error("UpdateItem", Trouble::NoAnswer)),
            (Some(outcome), Fate::Answered | Fate::Fails(_)) => outcome,
        }
    }

    async fn release(&self, grant: &Grant) -> Result<(), LedgerError> {
        let (number, grant) = (self.number, grant.clone());
        let effect = move |truth: &mut Truth| {
            let outcome = truth.table.release(&grant);
            if outcome.is_ok() {
                truth.note(format_args!("controller {number} gives the lease back"));
            }
            outcome
        };
        self.send("release", |truth| self.reach(truth), effect).await.map_err(|trouble| error("TransactWriteItems", trouble))?
    }

    async fn load(&self) -> Result<LedgerState, LedgerError> {
        let read = |truth: &mut Truth| {
            let build = truth.clients[self.number].build;
            let state = truth.table.load(build);
            if state.is_err() {
                truth.faults.hit(Fault::VersionSkew);
            }
            state
        };
        self.ask("load", |truth| self.reach(truth), read).await.map_err(|trouble| error("Query", trouble))?
    }

    async fn record(&self, grant: &Grant, operation: &Operation) -> Result<(), LedgerError> {
        let (number, grant, operation, write) = (self.number, grant.clone(), operation.clone(), self.next_write());
        let effect = move |truth: &mut Truth| {
            let build = truth.clients[number].build;
            if truth.table.owner() == Some(grant.owner.as_str()) {
                truth.check_begun(number, &operation);
            }
            truth.table.record(&grant, &operation, build, write)
        };
        let outcome = self.send("record", |truth| self.reach(truth), effect).await.map_err(|trouble| error("TransactWriteItems", trouble));
        if self.trusts() { Ok(()) } else { outcome? }
    }

    async fn forget(&self, grant: &Grant, operation: &OperationId) -> Result<(), LedgerError> {
        let (grant, operation) = (grant.clone(), operation.clone());
        let effect = move |truth: &mut Truth| truth.table.forget(&grant, &operation);
        self.send("forget", |truth| self.reach(truth), effect).await.map_err(|trouble| error("TransactWriteItems", trouble))?
    }

    async fn remember(&self, grant: &Grant, memory: &Memory, summary: StateSummary) -> Result<(), LedgerError> {
        let (grant, memory, write) = (grant.clone(), memory.clone(), self.next_write());
        let effect = move |truth: &mut Truth| truth.table.remember(&grant, &memory, summary, write);
        self.send("remember", |truth| self.reach(truth), effect).await.map_err(|trouble| error("TransactWriteItems", trouble))?
    }

    async fn keep_demand(&self, grant: &Grant, rule: &RuleName, demand: &KeptDemand) -> Result<(), LedgerError> {
        let (grant, rule, demand, write) = (grant.clone(), rule.clone(), demand.clone(), self.next_write());
        let effect = move |truth: &mut Truth| truth.table.keep_demand(&grant, &rule, &demand, write);
        self.send("keep_demand", |truth| self.reach(truth), effect).await.map_err(|trouble| error("TransactWriteItems", trouble))?
    }

    async fn demand(&self, rule: &RuleName) -> Result<Option<KeptDemand>, LedgerError> {
        let read = |truth: &mut Truth| truth.table.demand(rule);
        self.ask("demand", |truth| self.reach(truth), read).await.map_err(|trouble| error("GetItem", trouble))
    }

    async fn set_pause(&self, pause: Option<&Pause>) -> Result<(), LedgerError> {
        let pause = pause.cloned();
        let effect = move |truth: &mut Truth| {
            truth.note(format_args!("{}", if pause.is_some() { "the fleet is paused" } else { "the fleet is resumed" }));
            truth.note_pause(pause.is_some());
            truth.table.pause = pause;
        };
        self.send("set_pause", |truth| self.reach(truth), effect).await.map_err(|trouble| error("UpdateItem", trouble))
    }

    async fn pause(&self) -> Result<Option<Pause>, LedgerError> {
        let read = |truth: &mut Truth| truth.table.pause.clone().filter(|_| !self.has(truth, Plant::DeafToPause));
        let answer = self.ask("pause", |truth| self.reach(truth), read).await.map_err(|trouble| error("GetItem", trouble));
        if self.trusts() { Ok(answer.unwrap_or_default()) } else { answer }
    }
}
