//! The records as items: their names, and how attributes are written and read.

use crate::model::ids::Epoch;
use crate::model::operation::RECORD_VERSION;
use crate::model::snapshot::Pause;
use crate::model::{Memory, Operation};
use crate::ports::ledger::KeptDemand;
use crate::ports::{LedgerError, LockRecord};
use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::time::Duration;

/// One record, or the values of an expression.
pub(super) type Item = HashMap<String, AttributeValue>;

/// The sort key of the lock.
pub(super) const LOCK: &str = "lock";
/// The sort key of the epoch.
pub(super) const EPOCH: &str = "epoch";
/// The sort key of the state.
pub(super) const STATE: &str = "state";
/// How the sort keys of demands begin. Before those of all other records, which are read without them.
pub(super) const DEMAND: &str = "demand#";
/// How the sort keys of operations begin.
pub(super) const OPERATION: &str = "operation#";

/// Makes a text attribute.
pub(super) fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

/// Makes a number attribute.
#[expect(clippy::needless_pass_by_value, reason = "numbers are passed by value")]
pub(super) fn number(value: impl ToString) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

/// Names attributes in an expression, since DynamoDB reserves hundreds of words.
pub(super) fn names(attributes: &[&str]) -> HashMap<String, String> {
    attributes.iter().map(|name| (format!("#{name}"), (*name).to_owned())).collect()
}

fn unreadable(record: &str, why: impl Into<String>) -> LedgerError {
    LedgerError::Unreadable { record: record.to_owned(), why: why.into() }
}

/// Reads a text attribute.
pub(super) fn text_of<'a>(item: &'a Item, record: &str, name: &str) -> Result<&'a str, LedgerError> {
    let value = item.get(name).and_then(|value| value.as_s().ok());
    value.map(String::as_str).ok_or_else(|| unreadable(record, format!("its attribute `{name}` is no text")))
}

/// Reads a number attribute.
pub(super) fn number_of(item: &Item, record: &str, name: &str) -> Result<u64, LedgerError> {
    let value = item.get(name).and_then(|value| value.as_n().ok()).and_then(|value| value.parse().ok());
    value.ok_or_else(|| unreadable(record, format!("its attribute `{name}` is no whole number")))
}

/// Reads a JSON text.
fn json_of<T: DeserializeOwned>(json: &str, record: &str) -> Result<T, LedgerError> {
    serde_json::from_str(json).map_err(|error| unreadable(record, error.to_string()))
}

/// Refuses a record that a later version has written.
fn check_version(item: &Item, record: &str) -> Result<(), LedgerError> {
    let version = number_of(item, record, "record_version")?;
    if version > u64::from(RECORD_VERSION) {
        return Err(unreadable(record, format!("it is of version {version}, and this build knows versions up to {RECORD_VERSION}")));
    }
    Ok(())
}

/// Reads the lock.
pub(super) fn lock_of(item: &Item) -> Result<LockRecord, LedgerError> {
    Ok(LockRecord {
        owner: text_of(item, LOCK, "owner")?.to_owned(),
        duration: Duration::from_millis(number_of(item, LOCK, "lease_ms")?),
        version: text_of(item, LOCK, "version")?.to_owned(),
        epoch: Epoch(number_of(item, LOCK, "epoch")?),
    })
}

/// Reads the last epoch that its holder gave back, of the epoch's record.
pub(super) fn released_of(item: &Item) -> Result<Option<Epoch>, LedgerError> {
    if !item.contains_key("released") {
        return Ok(None);
    }
    number_of(item, EPOCH, "released").map(|epoch| Some(Epoch(epoch)))
}

/// Reads an operation.
pub(super) fn operation_of(item: &Item, record: &str) -> Result<Operation, LedgerError> {
    check_version(item, record)?;
    let operation: Operation = json_of(text_of(item, record, "body")?, record)?;
    if record.strip_prefix(OPERATION) != Some(operation.id().as_str()) {
        return Err(unreadable(record, format!("it holds the operation {}", operation.id())));
    }
    Ok(operation)
}

/// Reads what was kept of a demand.
pub(super) fn demand_of(item: &Item, record: &str) -> Result<KeptDemand, LedgerError> {
    check_version(item, record)?;
    let seconds = number_of(item, record, "expires_at")?;
    let expires = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    let expires = expires.ok_or_else(|| unreadable(record, "its attribute `expires_at` is no time"))?;
    let history = item.get("history").and_then(|value| value.as_b().ok()).map(|blob| blob.as_ref().to_vec());
    let history = history.ok_or_else(|| unreadable(record, "its attribute `history` is not binary"))?;
    Ok(KeptDemand { query: text_of(item, record, "query")?.to_owned(), history, expires })
}

/// Reads the pause from the state.
pub(super) fn pause_of(item: &Item) -> Result<Option<Pause>, LedgerError> {
    if !item.contains_key("pause") {
        return Ok(None);
    }
    json_of(text_of(item, STATE, "pause")?, STATE).map(Some)
}

/// Reads memory and last scaling from the state, which a pause alone may have made.
pub(super) fn memory_of(item: &Item) -> Result<(Memory, Option<Timestamp>), LedgerError> {
    if !item.contains_key("memory") {
        return Ok((Memory::default(), None));
    }
    check_version(item, STATE)?;
    let memory = json_of(text_of(item, STATE, "memory")?, STATE)?;
    let last = match item.get("last_scale_time") {
        None => None,
        Some(_) => {
            let text = text_of(item, STATE, "last_scale_time")?;
            Some(text.parse().map_err(|_| unreadable(STATE, "its attribute `last_scale_time` is no time"))?)
        }
    };
    Ok((memory, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(attributes: &[(&str, AttributeValue)]) -> Item {
        attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    #[test]
    fn a_lock_is_read_whole_or_not_at_all() {
        let whole = item(&[("owner", text("a")), ("lease_ms", number(15_000)), ("version", text("v")), ("epoch", number(4))]);
        let lock = lock_of(&whole).expect("readable");
        assert_eq!((lock.duration, lock.epoch), (Duration::from_secs(15), Epoch(4)));
        for missing in ["owner", "lease_ms", "version", "epoch"] {
            let mut part = whole.clone();
            part.remove(missing);
            assert!(matches!(lock_of(&part), Err(LedgerError::Unreadable { why, .. }) if why.contains(missing)));
        }
        let negative = Item::from([("epoch".to_owned(), number(-1))]);
        assert!(number_of(&negative, LOCK, "epoch").is_err());
    }

    #[test]
    fn a_record_of_a_later_version_is_refused_and_not_guessed() {
        let later = item(&[("record_version", number(RECORD_VERSION + 1)), ("body", text("{}")), ("memory", text("{}"))]);
        for error in [operation_of(&later, "operation#1").expect_err("later"), memory_of(&later).expect_err("later")] {
            assert!(matches!(error, LedgerError::Unreadable { why, .. } if why.contains("version 2")));
        }
        let damaged = item(&[("record_version", number(RECORD_VERSION)), ("body", text("{"))]);
        assert!(matches!(operation_of(&damaged, "operation#1"), Err(LedgerError::Unreadable { .. })));
    }

    #[test]
    fn a_demand_is_read_whole_or_not_at_all() {
        let history = AttributeValue::B(aws_sdk_dynamodb::primitives::Blob::new([1, 2, 3]));
        let kept =
            item(&[("record_version", number(RECORD_VERSION)), ("query", text("q")), ("history", history), ("expires_at", number(60))]);
        let expires = Timestamp::from_second(60).expect("a time");
        assert_eq!(demand_of(&kept, "demand#orders"), Ok(KeptDemand { query: "q".into(), history: vec![1, 2, 3], expires }));
        for name in ["query", "history", "expires_at", "record_version"] {
            let mut damaged = kept.clone();
            damaged.insert(name.to_owned(), AttributeValue::Bool(true));
            assert!(matches!(demand_of(&damaged, "demand#orders"), Err(LedgerError::Unreadable { why, .. }) if why.contains(name)));
        }
    }

    #[test]
    fn a_state_that_only_a_pause_has_made_has_no_memory() {
        let pause = Pause { since: Timestamp::UNIX_EPOCH, by: "ops".into(), reason: "upgrade".into() };
        let paused = item(&[("pause", text(serde_json::to_string(&pause).expect("json")))]);
        assert_eq!(pause_of(&paused), Ok(Some(pause)));
        assert_eq!(memory_of(&paused), Ok((Memory::default(), None)));
        assert_eq!(pause_of(&Item::new()), Ok(None));
    }
}
