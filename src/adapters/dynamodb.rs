//! DynamoDB: the lease, the journal and the state, in one table.
//!
//! The partition key is `cluster_id`, the sort key `record`:
//!
//! | record | attributes |
//! |---|---|
//! | `lock` | `owner`, `lease_ms`, `version`, `epoch`, `expires_at` (the table's TTL) |
//! | `epoch` | `epoch`; it never expires, so that the epoch never falls; `released`, the last epoch that was given back |
//! | `state` | `node_count`, `scaling_in_progress`, `last_scale_time` (ISO 8601), `memory` (JSON), `pause` (JSON) |
//! | `demand#RULE` | `history` (packed), `query`, `expires_at` (28 days after it was written) |
//! | `operation#ID` | `body` (JSON), and to be read by people: `kind`, `state`, `pool`, `epoch`, `created` |
//!
//! Every read is consistent. Every write but those of the lock, the epoch and the pause is
//! a transaction that checks owner and epoch of the lock. It also carries the writer's
//! epoch and a number that grows with each write, and replaces nothing that is later: a
//! request that lands long after it was given up cannot undo what came after.
//!
//! DynamoDB refuses one of two writes that touch the same record at once, and all of these
//! touch the lock's. So this process makes them one after the other.

mod fault;
mod item;
mod journal;
mod lock;
mod schema;

pub use schema::TableState;

use super::retry::{Transient, retried};
use super::system_clock::SystemEntropy;
use crate::config::Config;
use crate::model::snapshot::Pause;
use crate::model::{Memory, Operation, OperationId, RuleName};
use crate::ports::ledger::{KeptDemand, StateSummary};
use crate::ports::{Claim, Grant, Ledger, LedgerError, LedgerState, Lock};
use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{ConditionCheck, TransactWriteItem};
use fault::Fault;
use item::{Item, number, text};
use jiff::Timestamp;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, timeout};

/// The condition that a record is written in the grant's name.
const HELD: &str = "#owner = :owner AND #epoch = :epoch";

/// DynamoDB as the controller's [`Ledger`].
///
/// `[ledger] timeout` bounds each call as a whole, with its repetitions and the reading
/// that decides what became of a write without an answer.
#[derive(Debug)]
pub struct DynamoDb {
    client: Client,
    table: String,
    cluster: String,
    timeout: Duration,
    /// Counts this process's writes; the next one's number.
    writes: AtomicU64,
    /// Held by the one write that touches the lock's record.
    turn: Mutex<()>,
}

impl DynamoDb {
    /// Speaks for the cluster. Sends nothing yet.
    #[must_use]
    pub fn new(sdk: &SdkConfig, config: &Config) -> Self {
        Self {
            client: Client::new(sdk),
            table: config.ledger.table.clone(),
            cluster: config.cluster.id.clone(),
            timeout: config.ledger.timeout,
            writes: AtomicU64::new(1),
            turn: Mutex::new(()),
        }
    }

    /// Makes the key of a record.
    fn key(&self, record: &str) -> Item {
        Item::from([("cluster_id".to_owned(), text(&self.cluster)), ("record".to_owned(), text(record))])
    }

    /// Reads one record.
    async fn get(&self, record: &str, deadline: Duration) -> Result<Option<Item>, LedgerError> {
        let call = async || {
            let request = self.client.get_item().table_name(&self.table).set_key(Some(self.key(record))).consistent_read(true);
            request.send().await.map_err(Fault::from)
        };
        let answer = retried(deadline, call).await.map_err(|fault| self.error("GetItem", fault))?;
        Ok(answer.item)
    }

    /// Waits until no other write of this process touches the lock's record. Gives what is left of the time.
    async fn turn(&self, deadline: Duration) -> Result<(MutexGuard<'_, ()>, Duration), Fault> {
        let asked = Instant::now();
        let turn = timeout(deadline, self.turn.lock()).await.map_err(|_| Fault::Contended)?;
        Ok((turn, deadline.saturating_sub(asked.elapsed())))
    }

    /// Writes all of the items or none, the lock's record among them. The deadline includes the wait for the turn.
    ///
    /// The token makes a repetition of the transaction have one effect, for ten minutes.
    async fn transact(&self, items: Vec<TransactWriteItem>, deadline: Duration) -> Result<(), Fault> {
        let (_turn, left) = self.turn(deadline).await?;
        let token = SystemEntropy::token();
        let call = async || {
            let request = self.client.transact_write_items().set_transact_items(Some(items.clone())).client_request_token(&token);
            request.send().await.map(|_| ()).map_err(Fault::from)
        };
        retried(left, call).await
    }

    /// The part of a transaction that holds only while the grant does.
    fn fence(&self, grant: &Grant) -> Result<TransactWriteItem, LedgerError> {
        let check = ConditionCheck::builder()
            .table_name(&self.table)
            .set_key(Some(self.key(item::LOCK)))
            .condition_expression(HELD)
            .set_expression_attribute_names(Some(item::names(&["owner", "epoch"])))
            .set_expression_attribute_values(Some(held_by(grant)))
            .build();
        let check = check.map_err(|error| self.error("TransactWriteItems", Fault::built(&error)))?;
        Ok(TransactWriteItem::builder().condition_check(check).build())
    }

    /// Numbers a write.
    fn next_write(&self) -> u64 {
        self.writes.fetch_add(1, Ordering::Relaxed)
    }

    /// Reads what became of a fenced transaction: its first item is the fence.
    fn fenced(&self, outcome: Result<(), Fault>) -> Result<(), LedgerError> {
        match outcome {
            Ok(()) => Ok(()),
            // Whatever an earlier attempt has done: no later one will do anything.
            Err(fault) if fault.condition() == Some(0) => Err(LedgerError::LeaseLost),
            Err(fault) => Err(self.error("TransactWriteItems", fault)),
        }
    }

    /// Names a fault by what the controller does about it.
    fn error(&self, call: &'static str, fault: Fault) -> LedgerError {
        fault.into_error(call, &self.table)
    }
}

/// The values of [`HELD`].
fn held_by(grant: &Grant) -> Item {
    Item::from([(":owner".to_owned(), text(&grant.owner)), (":epoch".to_owned(), number(grant.epoch.0))])
}

impl Ledger for DynamoDb {
    async fn lock(&self) -> Result<Lock, LedgerError> {
        self.look_at_lock(self.timeout).await
    }

    async fn acquire(&self, claim: &Claim) -> Result<Grant, LedgerError> {
        self.take_lock(claim).await
    }

    async fn heartbeat(&self, grant: &Grant, version: &str, now: Timestamp) -> Result<(), LedgerError> {
        self.beat(grant, version, now).await
    }

    async fn release(&self, grant: &Grant) -> Result<(), LedgerError> {
        self.drop_lock(grant).await
    }

    async fn load(&self) -> Result<LedgerState, LedgerError> {
        self.read_all().await
    }

    async fn record(&self, grant: &Grant, operation: &Operation) -> Result<(), LedgerError> {
        self.write_operation(grant, operation).await
    }

    async fn forget(&self, grant: &Grant, operation: &OperationId) -> Result<(), LedgerError> {
        self.delete_operation(grant, operation).await
    }

    async fn remember(&self, grant: &Grant, memory: &Memory, summary: StateSummary) -> Result<(), LedgerError> {
        self.write_memory(grant, memory, summary).await
    }

    async fn keep_demand(&self, grant: &Grant, rule: &RuleName, demand: &KeptDemand) -> Result<(), LedgerError> {
        self.write_demand(grant, rule, demand).await
    }

    async fn demand(&self, rule: &RuleName) -> Result<Option<KeptDemand>, LedgerError> {
        self.read_demand(rule).await
    }

    async fn set_pause(&self, pause: Option<&Pause>) -> Result<(), LedgerError> {
        self.write_pause(pause).await
    }

    async fn pause(&self) -> Result<Option<Pause>, LedgerError> {
        let state = self.get(item::STATE, self.timeout).await?;
        state.as_ref().map_or(Ok(None), item::pause_of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::Epoch;
    use aws_sdk_dynamodb::types::AttributeValue;

    fn ledger() -> DynamoDb {
        let sdk = SdkConfig::builder()
            .behavior_version(aws_config::BehaviorVersion::latest())
            .region(aws_config::Region::new("us-east-1"))
            .build();
        DynamoDb {
            client: Client::new(&sdk),
            table: "fleet".into(),
            cluster: "prod".into(),
            timeout: Duration::from_secs(1),
            writes: AtomicU64::new(1),
            turn: Mutex::new(()),
        }
    }

    #[tokio::test]
    async fn a_failed_fence_is_a_lost_lease_and_a_failed_record_a_conflict() {
        let ledger = ledger();
        assert_eq!(ledger.fenced(Err(Fault::Condition { item: 0 })), Err(LedgerError::LeaseLost));
        assert_eq!(ledger.fenced(Err(Fault::Condition { item: 1 })), Err(LedgerError::Conflict));
        let unanswered = || Fault::timed_out(Duration::from_secs(1));
        assert!(matches!(ledger.fenced(Err(unanswered())), Err(LedgerError::Unavailable { .. })));
        let doubtful = |item| Fault::Condition { item }.after_ambiguous(unanswered());
        assert_eq!(ledger.fenced(Err(doubtful(0))), Err(LedgerError::LeaseLost));
        let own = ledger.fenced(Err(doubtful(1)));
        assert!(matches!(own, Err(LedgerError::Unavailable { .. })), "it may be the write itself that has landed: {own:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_waits_for_its_turn_no_longer_than_its_deadline() {
        let ledger = ledger();
        let other = ledger.turn.lock().await;
        let asked = Instant::now();
        assert_eq!(ledger.transact(Vec::new(), Duration::from_secs(1)).await, Err(Fault::Contended), "nothing was sent");
        assert_eq!(asked.elapsed(), Duration::from_secs(1));
        let (waited, ()) = tokio::join!(ledger.turn(Duration::from_secs(1)), async {
            tokio::time::sleep(Duration::from_millis(400)).await;
            drop(other);
        });
        let (_turn, left) = waited.expect("its turn has come");
        assert_eq!(left, Duration::from_millis(600));
    }

    #[tokio::test]
    async fn every_fence_asks_for_owner_and_epoch() {
        let fence = ledger().fence(&Grant { owner: "a".into(), epoch: Epoch(3) }).expect("complete");
        let check = fence.condition_check().expect("a check");
        assert_eq!(check.condition_expression(), "#owner = :owner AND #epoch = :epoch");
        let names = check.expression_attribute_names().expect("names");
        assert_eq!((names["#owner"].as_str(), names["#epoch"].as_str()), ("owner", "epoch"));
        let values = check.expression_attribute_values().expect("values");
        assert_eq!(values.get(":owner"), Some(&text("a")));
        assert_eq!(values.get(":epoch"), Some(&AttributeValue::N("3".into())));
        assert_eq!(check.key().get("record"), Some(&text(item::LOCK)));
    }
}
