//! The lock: taken with a new epoch, kept by heartbeats, given back.

use super::fault::Fault;
use super::item::{self, EPOCH, Item, LOCK, lock_of, names, number, number_of, released_of, text};
use super::{DynamoDb, HELD, Transient, held_by, retried};
use crate::model::ids::Epoch;
use crate::ports::{Claim, Grant, LedgerError, Lock, LockRecord};
use aws_sdk_dynamodb::types::{Delete, Put, TransactWriteItem, Update};
use jiff::Timestamp;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// After this long without a heartbeat DynamoDB may remove the lock: a safety valve, no
/// part of the protocol, since a rival goes by the version alone.
const TTL_SECONDS: i64 = 300;

/// The records of lock and epoch, read at once.
struct Holding {
    epoch: Option<Epoch>,
    released: Option<Epoch>,
    record: Option<LockRecord>,
}

impl Holding {
    fn lock(&self) -> Lock {
        let epoch = self.epoch.unwrap_or_default();
        match &self.record {
            Some(record) => Lock::Held(record.clone()),
            None if self.epoch == self.released => Lock::Free { epoch },
            None => Lock::Vanished { epoch },
        }
    }
}

impl DynamoDb {
    /// Tells a lock that was given back from one that somebody removed.
    pub(super) async fn look_at_lock(&self, deadline: Duration) -> Result<Lock, LedgerError> {
        Ok(self.read_holding(deadline).await?.lock())
    }

    async fn read_lock(&self, deadline: Duration) -> Result<Option<LockRecord>, LedgerError> {
        self.get(LOCK, deadline).await?.as_ref().map(lock_of).transpose()
    }

    /// Takes the lock and raises the epoch.
    ///
    /// A third of the time is for reading the epoch, a third for the transaction, and a
    /// third for finding out whether one without an answer has landed.
    pub(super) async fn take_lock(&self, claim: &Claim) -> Result<Grant, LedgerError> {
        let share = self.timeout / 3;
        let holding = self.read_holding(share).await?;
        if holding.lock() != claim.looked_at {
            return Err(LedgerError::Conflict);
        }
        let Holding { epoch: last, record, .. } = holding;
        // The lock's own epoch counts too, should the other record be missing.
        let highest = last.unwrap_or_default().max(record.map(|record| record.epoch).unwrap_or_default());
        let epoch = Epoch(highest.0 + 1);
        let build = |error| self.error("TransactWriteItems", Fault::built(&error));
        let items = vec![
            TransactWriteItem::builder().put(self.put_lock(claim, epoch).map_err(build)?).build(),
            TransactWriteItem::builder().update(self.raise_epoch(last, epoch).map_err(build)?).build(),
        ];
        match self.transact(items, share).await {
            Ok(()) => Ok(Grant { owner: claim.owner.clone(), epoch }),
            Err(fault) if fault.may_have_landed() => match self.read_lock(share).await? {
                Some(lock) if lock.version == claim.version && lock.owner == claim.owner => {
                    Ok(Grant { owner: lock.owner, epoch: lock.epoch })
                }
                _ => Err(self.error("TransactWriteItems", fault)),
            },
            Err(fault) => Err(self.error("TransactWriteItems", fault)),
        }
    }

    /// Reads epoch and lock at once: their keys are neighbours.
    async fn read_holding(&self, deadline: Duration) -> Result<Holding, LedgerError> {
        let values =
            Item::from([(":cluster".to_owned(), text(&self.cluster)), (":from".to_owned(), text(EPOCH)), (":to".to_owned(), text(LOCK))]);
        let call = async || {
            let request = self.client.query().table_name(&self.table).consistent_read(true);
            let request = request.key_condition_expression("#cluster_id = :cluster AND #record BETWEEN :from AND :to");
            let request = request.set_expression_attribute_names(Some(names(&["cluster_id", "record"])));
            request.set_expression_attribute_values(Some(values.clone())).send().await.map_err(Fault::from)
        };
        let answer = retried(deadline, call).await.map_err(|fault| self.error("Query", fault))?;
        let find = |record: &str| answer.items().iter().find(|found| item::text_of(found, record, "record") == Ok(record));
        let epoch = find(EPOCH).map(|found| number_of(found, EPOCH, "epoch").map(Epoch)).transpose()?;
        let released = find(EPOCH).map(released_of).transpose()?.flatten();
        Ok(Holding { epoch, released, record: find(LOCK).map(lock_of).transpose()? })
    }

    fn put_lock(&self, claim: &Claim, epoch: Epoch) -> Result<Put, aws_smithy_types::error::operation::BuildError> {
        let mut record = self.key(LOCK);
        record.extend([
            ("owner".to_owned(), text(&claim.owner)),
            ("lease_ms".to_owned(), number(claim.duration.as_millis())),
            ("version".to_owned(), text(&claim.version)),
            ("epoch".to_owned(), number(epoch)),
            ("expires_at".to_owned(), number(expires(claim.now))),
        ]);
        let put = Put::builder().table_name(&self.table).set_item(Some(record));
        match &claim.looked_at {
            Lock::Free { .. } | Lock::Vanished { .. } => {
                put.condition_expression("attribute_not_exists(#cluster_id)").set_expression_attribute_names(Some(names(&["cluster_id"])))
            }
            Lock::Held(record) => put
                .condition_expression("#version = :replaces")
                .set_expression_attribute_names(Some(names(&["version"])))
                .expression_attribute_values(":replaces", text(&record.version)),
        }
        .build()
    }

    fn raise_epoch(&self, last: Option<Epoch>, epoch: Epoch) -> Result<Update, aws_smithy_types::error::operation::BuildError> {
        let update = Update::builder()
            .table_name(&self.table)
            .set_key(Some(self.key(EPOCH)))
            .update_expression("SET #epoch = :epoch")
            .set_expression_attribute_names(Some(names(&["epoch"])))
            .expression_attribute_values(":epoch", number(epoch));
        match last {
            None => update.condition_expression("attribute_not_exists(#epoch)"),
            Some(last) => update.condition_expression("#epoch = :last").expression_attribute_values(":last", number(last)),
        }
        .build()
    }

    /// Changes the lock's version. Half of the time is for finding out what became of a write without an answer.
    ///
    /// It waits for its turn for half of the rest at most, and then goes without it: to meet another
    /// write may cost a repetition, to come too late the lease.
    pub(super) async fn beat(&self, grant: &Grant, version: &str, now: Timestamp) -> Result<(), LedgerError> {
        let mut values = held_by(grant);
        values.extend([(":version".to_owned(), text(version)), (":expires_at".to_owned(), number(expires(now)))]);
        let call = async || {
            let request = self.client.update_item().table_name(&self.table).set_key(Some(self.key(LOCK)));
            let request = request.update_expression("SET #version = :version, #expires_at = :expires_at").condition_expression(HELD);
            let request = request.set_expression_attribute_names(Some(names(&["owner", "epoch", "version", "expires_at"])));
            request.set_expression_attribute_values(Some(values.clone())).send().await.map(|_| ()).map_err(Fault::from)
        };
        let half = self.timeout / 2;
        let asked = Instant::now();
        let turn = timeout(half / 2, self.turn.lock()).await.ok();
        let outcome = retried(half.saturating_sub(asked.elapsed()), call).await;
        drop(turn);
        match outcome {
            Ok(()) => Ok(()),
            Err(Fault::Condition { .. }) => Err(LedgerError::LeaseLost),
            Err(fault) if fault.may_have_landed() => match self.read_lock(half).await? {
                Some(lock) if lock.owner != grant.owner || lock.epoch != grant.epoch => Err(LedgerError::LeaseLost),
                Some(lock) if lock.version == version => Ok(()),
                Some(_) => Err(self.error("UpdateItem", fault)),
                None => Err(LedgerError::LeaseLost),
            },
            Err(fault) => Err(self.error("UpdateItem", fault)),
        }
    }

    /// Deletes the lock and notes that this was its holder's doing. One that is gone already is given back.
    pub(super) async fn drop_lock(&self, grant: &Grant) -> Result<(), LedgerError> {
        let build = |error| self.error("TransactWriteItems", Fault::built(&error));
        let delete = Delete::builder()
            .table_name(&self.table)
            .set_key(Some(self.key(LOCK)))
            .condition_expression(format!("attribute_not_exists(#owner) OR ({HELD})"))
            .set_expression_attribute_names(Some(names(&["owner", "epoch"])))
            .set_expression_attribute_values(Some(held_by(grant)));
        let note = Update::builder()
            .table_name(&self.table)
            .set_key(Some(self.key(EPOCH)))
            .update_expression("SET #released = :epoch")
            .condition_expression("#epoch = :epoch")
            .set_expression_attribute_names(Some(names(&["epoch", "released"])))
            .expression_attribute_values(":epoch", number(grant.epoch));
        let items = vec![
            TransactWriteItem::builder().delete(delete.build().map_err(build)?).build(),
            TransactWriteItem::builder().update(note.build().map_err(build)?).build(),
        ];
        match self.transact(items, self.timeout).await {
            Ok(()) => Ok(()),
            Err(Fault::Condition { .. }) => Err(LedgerError::LeaseLost),
            Err(fault) => Err(self.error("TransactWriteItems", fault)),
        }
    }
}

/// Gives the second at which DynamoDB may remove a lock that is forgotten now.
fn expires(now: Timestamp) -> i64 {
    now.as_second().saturating_add(TTL_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forgotten_lock_lives_for_five_minutes() {
        let now: Timestamp = "2026-03-01T12:00:00.9Z".parse().expect("a time");
        assert_eq!(expires(now) - now.as_second(), 300);
        assert_eq!(expires(Timestamp::MAX), Timestamp::MAX.as_second() + 300);
    }
}
