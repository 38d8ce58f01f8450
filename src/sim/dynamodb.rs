//! The ledger's table: conditional writes over a lock, an epoch, a journal and a state.

use crate::model::ids::Epoch;
use crate::model::operation::RECORD_VERSION;
use crate::model::snapshot::Pause;
use crate::model::{Memory, Operation, OperationId, RuleName};
use crate::ports::ledger::{KeptDemand, StateSummary};
use crate::ports::{Claim, Grant, LedgerError, LedgerState, Lock, LockRecord};
use std::collections::BTreeMap;
use std::time::Duration;

/// One operation and the version of the build that wrote it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The operation.
    pub operation: Operation,
    /// The version of the record.
    pub version: u32,
    /// Who wrote it.
    pub writer: Writer,
}

/// Orders writes: the epoch of the writer, and the number of its write. A later one is never overwritten.
pub type Writer = (Epoch, u64);

/// The table of one cluster.
#[derive(Clone, Debug, Default)]
pub struct Table {
    lock: Option<LockRecord>,
    /// Who took the lock last, whatever became of its record.
    last: Option<String>,
    /// When the lock was taken or renewed last.
    pub renewed: Duration,
    remembered: Option<Writer>,
    epoch: u64,
    released: u64,
    /// The journal.
    pub journal: BTreeMap<OperationId, Entry>,
    memory: Memory,
    summary: Option<StateSummary>,
    /// What is known of demands, and who wrote it.
    demands: BTreeMap<RuleName, (KeptDemand, Writer)>,
    /// The switch.
    pub pause: Option<Pause>,
}

impl Table {
    /// Gives the lock's record.
    pub fn lock(&self) -> Lock {
        match &self.lock {
            Some(record) => Lock::Held(record.clone()),
            None if self.released == self.epoch => Lock::Free { epoch: Epoch(self.epoch) },
            None => Lock::Vanished { epoch: Epoch(self.epoch) },
        }
    }

    /// Gives who holds the lock.
    pub fn owner(&self) -> Option<&str> {
        self.lock.as_ref().map(|lock| lock.owner.as_str())
    }

    /// Gives who took the lock last, unless it was given back.
    pub fn last_owner(&self) -> Option<&str> {
        if self.released == self.epoch { None } else { self.last.as_deref() }
    }

    /// Gives the epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Removes the lock's record, as a person or the table's TTL might.
    pub fn lose_lock(&mut self) -> bool {
        self.lock.take().is_some()
    }

    fn held(&self, grant: &Grant) -> Result<(), LedgerError> {
        let held = self.lock.as_ref().is_some_and(|lock| lock.owner == grant.owner && lock.epoch == grant.epoch);
        if held { Ok(()) } else { Err(LedgerError::LeaseLost) }
    }

    /// Takes the lock and raises the epoch.
    pub fn acquire(&mut self, claim: &Claim) -> Result<Grant, LedgerError> {
        if self.lock() != claim.looked_at {
            return Err(LedgerError::Conflict);
        }
        self.epoch += 1;
        let epoch = Epoch(self.epoch);
        self.last = Some(claim.owner.clone());
        self.lock = Some(LockRecord { owner: claim.owner.clone(), duration: claim.duration, version: claim.version.clone(), epoch });
        Ok(Grant { owner: claim.owner.clone(), epoch })
    }

    /// Changes the lock's version.
    pub fn heartbeat(&mut self, grant: &Grant, version: &str) -> Result<(), LedgerError> {
        self.held(grant)?;
        if let Some(lock) = &mut self.lock {
            version.clone_into(&mut lock.version);
        }
        Ok(())
    }

    /// Gives the lock back.
    pub fn release(&mut self, grant: &Grant) -> Result<(), LedgerError> {
        self.held(grant)?;
        self.lock = None;
        self.released = self.epoch;
        Ok(())
    }

    /// Reads everything, as a build of this version can.
    pub fn load(&self, version: u32) -> Result<LedgerState, LedgerError> {
        if let Some((id, entry)) = self.journal.iter().find(|(_, entry)| entry.version > version) {
            return Err(LedgerError::Unreadable {
                record: format!("operation#{id}"),
                why: format!("it is of version {}, and this build knows versions up to {version}", entry.version),
            });
        }
        Ok(LedgerState {
            memory: self.memory.clone(),
            pause: self.pause.clone(),
            last_scale: self.summary.and_then(|summary| summary.last_scale),
            operations: self.journal.values().map(|entry| entry.operation.clone()).collect(),
        })
    }

    /// Writes an operation.
    pub fn record(&mut self, grant: &Grant, operation: &Operation, version: u32, number: u64) -> Result<(), LedgerError> {
        self.held(grant)?;
        let writer = (grant.epoch, number);
        if self.journal.get(operation.id()).is_some_and(|entry| entry.writer >= writer) {
            return Err(LedgerError::Conflict);
        }
        self.journal.insert(operation.id().clone(), Entry { operation: operation.clone(), version, writer });
        Ok(())
    }

    /// Forgets an operation.
    pub fn forget(&mut self, grant: &Grant, operation: &OperationId) -> Result<(), LedgerError> {
        self.held(grant)?;
        self.journal.remove(operation);
        Ok(())
    }

    /// Writes memory and summary.
    pub fn remember(&mut self, grant: &Grant, memory: &Memory, summary: StateSummary, number: u64) -> Result<(), LedgerError> {
        self.held(grant)?;
        let writer = (grant.epoch, number);
        if self.remembered.is_some_and(|before| before >= writer) {
            return Err(LedgerError::Conflict);
        }
        self.remembered = Some(writer);
        self.memory.clone_from(memory);
        self.summary = Some(summary);
        Ok(())
    }

    /// Writes what is known of a demand.
    pub fn keep_demand(&mut self, grant: &Grant, rule: &RuleName, demand: &KeptDemand, number: u64) -> Result<(), LedgerError> {
        self.held(grant)?;
        let writer = (grant.epoch, number);
        if self.demands.get(rule).is_some_and(|(_, before)| *before >= writer) {
            return Err(LedgerError::Conflict);
        }
        self.demands.insert(rule.clone(), (demand.clone(), writer));
        Ok(())
    }

    /// Reads what was kept of a demand.
    pub fn demand(&self, rule: &RuleName) -> Option<KeptDemand> {
        self.demands.get(rule).map(|(demand, _)| demand.clone())
    }
}

/// The version of records that today's build writes.
pub const TODAY: u32 = RECORD_VERSION;

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn claim(owner: &str, version: &str, looked_at: Lock) -> Claim {
        Claim { owner: owner.into(), duration: Duration::from_secs(20), version: version.into(), looked_at, now: Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn the_lock_goes_to_who_saw_it_last_and_the_epoch_never_falls() {
        let mut table = Table::default();
        let free = table.lock();
        assert_eq!(free, Lock::Free { epoch: Epoch(0) });
        let one = table.acquire(&claim("one", "v1", free.clone())).expect("it is free");
        assert_eq!(table.acquire(&claim("two", "v2", free.clone())), Err(LedgerError::Conflict));
        let first = table.lock();
        table.heartbeat(&one, "v3").expect("it is held");
        assert_eq!(table.acquire(&claim("two", "v2", first)), Err(LedgerError::Conflict));
        assert!(table.lose_lock());
        assert_eq!(table.lock(), Lock::Vanished { epoch: Epoch(1) });
        // No record now as there was none then, but somebody has had it meanwhile.
        assert_eq!(table.acquire(&claim("two", "v4", free)), Err(LedgerError::Conflict));
        let two = table.acquire(&claim("two", "v4", table.lock())).expect("nobody holds it");
        assert_eq!(two.epoch, Epoch(2));
        assert_eq!(table.heartbeat(&one, "v5"), Err(LedgerError::LeaseLost));
        table.release(&two).expect("it is held");
        assert_eq!((table.lock(), table.epoch()), (Lock::Free { epoch: Epoch(2) }, 2));
    }
}
