//! The ledger: the lease, the journal and the state, in DynamoDB.
//!
//! Reads are consistent. Every write but the lock's own is one transaction with the
//! condition that the writer still holds the lock in the current epoch.

use crate::model::ids::Epoch;
use crate::model::snapshot::Pause;
use crate::model::{Memory, Operation, OperationId, RuleName};
use jiff::Timestamp;
use std::future::Future;
use std::time::Duration;

/// Why a call to the ledger failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Somebody else holds the lock, or the epoch has moved on: stop acting.
    #[error("the lease is lost")]
    LeaseLost,
    /// The record has changed since it was read: read it again.
    #[error("the record has changed")]
    Conflict,
    /// No answer, throttled, or a fault on its side. A write may have landed.
    #[error("DynamoDB does not answer {call}: {why}")]
    Unavailable {
        /// The API call.
        call: &'static str,
        /// What went wrong.
        why: String,
    },
    /// Credentials or permissions: nothing helps but an operator.
    #[error("DynamoDB refuses {call}: {why}; grant the daemon's role `dynamodb:{call}` on the table")]
    Denied {
        /// The API call.
        call: &'static str,
        /// DynamoDB's own words.
        why: String,
    },
    /// A record cannot be read: it is from a later version, or damaged.
    #[error("the record `{record}` cannot be read: {why}")]
    Unreadable {
        /// The record's key.
        record: String,
        /// What is wrong.
        why: String,
    },
    /// The table is not there, or has another key schema.
    #[error("the table `{table}` cannot be used: {why}; `node-fleet check --create-table` makes it")]
    NoTable {
        /// The table's name.
        table: String,
        /// What is wrong.
        why: String,
    },
}

impl LedgerError {
    /// Names its class, as metrics show it.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::LeaseLost => "lease_lost",
            Self::Conflict => "conflict",
            Self::Unavailable { .. } => "unavailable",
            Self::Denied { .. } => "denied",
            Self::Unreadable { .. } => "unreadable",
            Self::NoTable { .. } => "no_table",
        }
    }
}

/// The lock as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockRecord {
    /// Who holds it.
    pub owner: String,
    /// How long the holder's heartbeats keep it; what a rival waits without seeing a change.
    pub duration: Duration,
    /// Changed by the holder at each heartbeat.
    pub version: String,
    /// The epoch it was taken in.
    pub epoch: Epoch,
}

/// What there is of the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Nobody holds it: it was given back, or never taken.
    Free {
        /// The last epoch it was taken in; 0 is never.
        epoch: Epoch,
    },
    /// Its record is gone although nobody gave it back: its holder may not know yet.
    Vanished {
        /// The epoch it was taken in. Whoever takes it raises that, so that two times without a record are told apart.
        epoch: Epoch,
    },
    /// Somebody holds it.
    Held(LockRecord),
}

/// An attempt to take the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Who wants it.
    pub owner: String,
    /// How long its heartbeats will keep it.
    pub duration: Duration,
    /// The record's version once it is taken.
    pub version: String,
    /// What allows it: the lock as it was looked at. If it is otherwise by then, even only in its epoch, somebody else
    /// has had it meanwhile.
    pub looked_at: Lock,
    /// The wall clock's time, for the TTL that removes a forgotten lock.
    pub now: Timestamp,
}

/// The lock, taken: what fences every write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The holder.
    pub owner: String,
    /// The epoch.
    pub epoch: Epoch,
}

/// What the ledger knows besides the lock.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LedgerState {
    /// The policy's memory.
    pub memory: Memory,
    /// Set while the fleet is paused.
    pub pause: Option<Pause>,
    /// The last time capacity was added or given back.
    pub last_scale: Option<Timestamp>,
    /// Operations that are not over, and the latest of those that are.
    pub operations: Vec<Operation>,
}

/// What the state record shows besides the policy's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateSummary {
    /// Workers that exist or are on their way; `None` where that is not known, and what is written stays.
    pub node_count: Option<u32>,
    /// An operation is under way.
    pub scaling_in_progress: bool,
    /// The last time capacity was added or given back.
    pub last_scale: Option<Timestamp>,
}

/// A demand's past, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptDemand {
    /// The query that gave it: of another one it means nothing.
    pub query: String,
    /// The history, packed; 200 KB at most.
    pub history: Vec<u8>,
    /// When nothing of it is of use any more. It may be there for some days yet.
    pub expires: Timestamp,
}

/// DynamoDB.
pub trait Ledger: Send + Sync {
    /// Reads the lock.
    fn lock(&self) -> impl Future<Output = Result<Lock, LedgerError>> + Send;

    /// Takes the lock and raises the epoch, in one transaction. `Conflict` when somebody was quicker.
    fn acquire(&self, claim: &Claim) -> impl Future<Output = Result<Grant, LedgerError>> + Send;

    /// Changes the lock's version. `LeaseLost` when it is not the grant's any more.
    fn heartbeat(&self, grant: &Grant, version: &str, now: Timestamp) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Gives the lock back, so that a standby need not wait.
    fn release(&self, grant: &Grant) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Reads state and journal.
    fn load(&self) -> impl Future<Output = Result<LedgerState, LedgerError>> + Send;

    /// Writes an operation, fenced.
    fn record(&self, grant: &Grant, operation: &Operation) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Forgets an operation that is over, fenced.
    fn forget(&self, grant: &Grant, operation: &OperationId) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Writes the policy's memory and the summary, fenced. Leaves the pause alone.
    fn remember(&self, grant: &Grant, memory: &Memory, summary: StateSummary) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Writes what is known of a rule's demand, fenced.
    fn keep_demand(&self, grant: &Grant, rule: &RuleName, demand: &KeptDemand) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Reads what was kept of a rule's demand.
    fn demand(&self, rule: &RuleName) -> impl Future<Output = Result<Option<KeptDemand>, LedgerError>> + Send;

    /// Sets or lifts the pause. Not fenced: an operator may reach a standby, and must be obeyed.
    fn set_pause(&self, pause: Option<&Pause>) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Reads the pause alone.
    fn pause(&self) -> impl Future<Output = Result<Option<Pause>, LedgerError>> + Send;
}
