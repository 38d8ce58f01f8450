//! The journal of operations, the policy's memory and the pause.

use super::fault::Fault;
use super::item::{
    DEMAND, EPOCH, Item, LOCK, OPERATION, STATE, demand_of, memory_of, names, number, operation_of, pause_of, text, text_of,
};
use super::{DynamoDb, retried};
use crate::model::operation::RECORD_VERSION;
use crate::model::snapshot::Pause;
use crate::model::{Memory, Operation, OperationId, RuleName};
use crate::ports::ledger::{KeptDemand, StateSummary};
use crate::ports::{Grant, LedgerError, LedgerState};
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, Delete, Put, TransactWriteItem, Update};
use serde::Serialize;
use std::time::Duration;

/// The most pages of a megabyte that are read: a journal beyond them is not ours.
const PAGES: u32 = 20;
/// A record may be replaced by a later write only. A pause alone has no writer.
const LATER: &str = "attribute_not_exists(#writer_epoch) OR #writer_epoch < :writer_epoch OR (#writer_epoch = :writer_epoch AND #writer_number < :writer_number)";

impl DynamoDb {
    /// Reads all records of the cluster but those of demands.
    pub(super) async fn read_all(&self) -> Result<LedgerState, LedgerError> {
        let late = || self.error("Query", super::Transient::timed_out(self.timeout));
        tokio::time::timeout(self.timeout, self.read_pages()).await.unwrap_or_else(|_| Err(late()))
    }

    async fn read_pages(&self) -> Result<LedgerState, LedgerError> {
        let mut state = LedgerState::default();
        let mut after: Option<Item> = None;
        for _ in 0..PAGES {
            let (items, last) = self.page(after, self.timeout).await?;
            for item in &items {
                absorb(&mut state, item)?;
            }
            after = last;
            if after.is_none() {
                return Ok(state);
            }
        }
        Err(LedgerError::Unreadable { record: OPERATION.to_owned(), why: format!("the journal has more than {PAGES} pages") })
    }

    async fn page(&self, after: Option<Item>, deadline: Duration) -> Result<(Vec<Item>, Option<Item>), LedgerError> {
        let call = async || {
            let request = self
                .client
                .query()
                .table_name(&self.table)
                .consistent_read(true)
                .key_condition_expression("#cluster_id = :cluster AND #record >= :first");
            let request = request.set_expression_attribute_names(Some(names(&["cluster_id", "record"])));
            let request =
                request.expression_attribute_values(":cluster", text(&self.cluster)).expression_attribute_values(":first", text(EPOCH));
            let request = request.set_exclusive_start_key(after.clone());
            request.send().await.map_err(Fault::from)
        };
        let answer = retried(deadline, call).await.map_err(|fault| self.error("Query", fault))?;
        Ok((answer.items.unwrap_or_default(), answer.last_evaluated_key.filter(|key| !key.is_empty())))
    }

    pub(super) async fn write_operation(&self, grant: &Grant, operation: &Operation) -> Result<(), LedgerError> {
        let record = format!("{OPERATION}{}", operation.id());
        self.put_later(grant, &record, attributes(operation, &record)?).await
    }

    pub(super) async fn write_demand(&self, grant: &Grant, rule: &RuleName, demand: &KeptDemand) -> Result<(), LedgerError> {
        let attributes = Item::from([
            ("query".to_owned(), text(&demand.query)),
            ("history".to_owned(), AttributeValue::B(Blob::new(demand.history.clone()))),
            ("expires_at".to_owned(), number(demand.expires.as_second())),
            ("record_version".to_owned(), number(RECORD_VERSION)),
        ]);
        self.put_later(grant, &format!("{DEMAND}{rule}"), attributes).await
    }

    pub(super) async fn read_demand(&self, rule: &RuleName) -> Result<Option<KeptDemand>, LedgerError> {
        let record = format!("{DEMAND}{rule}");
        let item = self.get(&record, self.timeout).await?;
        item.map(|item| demand_of(&item, &record)).transpose()
    }

    /// Writes a record in place of an earlier one.
    async fn put_later(&self, grant: &Grant, record: &str, attributes: Item) -> Result<(), LedgerError> {
        let mut values = self.key(record);
        values.extend(attributes);
        values.extend([("writer_epoch".to_owned(), number(grant.epoch)), ("writer_number".to_owned(), number(self.next_write()))]);
        let conditions = [(":writer_epoch", "writer_epoch"), (":writer_number", "writer_number")];
        let conditions =
            conditions.into_iter().filter_map(|(name, attribute)| Some((name.to_owned(), values.get(attribute)?.clone()))).collect();
        let put = Put::builder()
            .table_name(&self.table)
            .set_item(Some(values))
            .condition_expression(LATER)
            .set_expression_attribute_names(Some(names(&["writer_epoch", "writer_number"])))
            .set_expression_attribute_values(Some(conditions))
            .build()
            .map_err(|error| self.error("TransactWriteItems", Fault::built(&error)))?;
        let items = vec![self.fence(grant)?, TransactWriteItem::builder().put(put).build()];
        self.fenced(self.transact(items, self.timeout).await)
    }

    pub(super) async fn delete_operation(&self, grant: &Grant, operation: &OperationId) -> Result<(), LedgerError> {
        let delete = Delete::builder()
            .table_name(&self.table)
            .set_key(Some(self.key(&format!("{OPERATION}{operation}"))))
            .build()
            .map_err(|error| self.error("TransactWriteItems", Fault::built(&error)))?;
        let items = vec![self.fence(grant)?, TransactWriteItem::builder().delete(delete).build()];
        self.fenced(self.transact(items, self.timeout).await)
    }

    /// Writes everything of the state but the pause.
    pub(super) async fn write_memory(&self, grant: &Grant, memory: &Memory, summary: StateSummary) -> Result<(), LedgerError> {
        let mut set = vec![
            ("memory", text(json(memory, STATE)?)),
            ("record_version", number(RECORD_VERSION)),
            ("scaling_in_progress", AttributeValue::Bool(summary.scaling_in_progress)),
            ("writer_epoch", number(grant.epoch)),
            ("writer_number", number(self.next_write())),
        ];
        set.extend(summary.node_count.map(|nodes| ("node_count", number(nodes))));
        let mut named: Vec<&str> = set.iter().map(|(name, _)| *name).collect();
        let remove = match summary.last_scale {
            Some(last) => {
                set.push(("last_scale_time", text(last.to_string())));
                ""
            }
            None => " REMOVE #last_scale_time",
        };
        named.push("last_scale_time");
        let assignments: Vec<String> = set.iter().map(|(name, _)| format!("#{name} = :{name}")).collect();
        let update = Update::builder()
            .table_name(&self.table)
            .set_key(Some(self.key(STATE)))
            .update_expression(format!("SET {}{remove}", assignments.join(", ")))
            .condition_expression(LATER)
            .set_expression_attribute_names(Some(names(&named)))
            .set_expression_attribute_values(Some(set.into_iter().map(|(name, value)| (format!(":{name}"), value)).collect()))
            .build()
            .map_err(|error| self.error("TransactWriteItems", Fault::built(&error)))?;
        let items = vec![self.fence(grant)?, TransactWriteItem::builder().update(update).build()];
        self.fenced(self.transact(items, self.timeout).await)
    }

    /// Writes the pause alone, so that neither it nor the memory overwrites the other.
    pub(super) async fn write_pause(&self, pause: Option<&Pause>) -> Result<(), LedgerError> {
        let pause = pause.map(|pause| json(pause, STATE)).transpose()?;
        let call = async || {
            let request = self.client.update_item().table_name(&self.table).set_key(Some(self.key(STATE)));
            let request = request.set_expression_attribute_names(Some(names(&["pause"])));
            let request = match &pause {
                Some(pause) => request.update_expression("SET #pause = :pause").expression_attribute_values(":pause", text(pause)),
                None => request.update_expression("REMOVE #pause"),
            };
            request.send().await.map(|_| ()).map_err(Fault::from)
        };
        retried(self.timeout, call).await.map_err(|fault| self.error("UpdateItem", fault))
    }
}

/// Adds what one record says. Records of a kind that this build does not know are another one's.
fn absorb(state: &mut LedgerState, found: &Item) -> Result<(), LedgerError> {
    match text_of(found, "record", "record")? {
        LOCK | EPOCH => {}
        STATE => {
            (state.memory, state.last_scale) = memory_of(found)?;
            state.pause = pause_of(found)?;
        }
        record if record.starts_with(OPERATION) => state.operations.push(operation_of(found, record)?),
        record => {
            let record = record.to_owned();
            return Err(LedgerError::Unreadable { record, why: "this build knows no such record".to_owned() });
        }
    }
    Ok(())
}

/// Gives an operation's attributes besides the key: the whole as JSON, and what people look for.
fn attributes(operation: &Operation, record: &str) -> Result<Item, LedgerError> {
    let (kind, epoch, created) = match operation {
        Operation::Launch(launch) => ("launch", launch.epoch, launch.created),
        Operation::Retire(retire) => ("retire", retire.epoch, retire.created),
    };
    Ok(Item::from([
        ("body".to_owned(), text(json(operation, record)?)),
        ("record_version".to_owned(), number(RECORD_VERSION)),
        ("kind".to_owned(), text(kind)),
        ("state".to_owned(), text(operation.state_name())),
        ("pool".to_owned(), text(operation.pool().as_str())),
        ("epoch".to_owned(), number(epoch)),
        ("created".to_owned(), text(created.to_string())),
    ]))
}

fn json(value: &impl Serialize, record: &str) -> Result<String, LedgerError> {
    serde_json::to_string(value).map_err(|error| LedgerError::Unreadable { record: record.to_owned(), why: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retirement() -> Operation {
        let json = serde_json::json!({
            "kind": "retire", "id": "op-9", "epoch": 3, "created": "2026-03-01T12:00:00Z", "updated": "2026-03-01T12:00:00Z",
            "state": "journalled",
            "order": {
                "pool": "general", "instance": "i-0123456789abcdef0", "node": null, "zone": "eu-central-1a", "market": "spot",
                "reason": {"why": "leaked"}, "on_timeout": "force"
            },
        });
        serde_json::from_value(json).expect("an operation")
    }

    #[test]
    fn an_operation_reads_back_as_it_was_written() {
        let operation = retirement();
        let record = format!("{OPERATION}{}", operation.id());
        let mut written = attributes(&operation, &record).expect("attributes");
        written.insert("record".to_owned(), text(&record));
        assert_eq!(written["created"], text("2026-03-01T12:00:00Z"));
        let mut state = LedgerState::default();
        absorb(&mut state, &written).expect("readable");
        assert_eq!(state.operations, [operation]);
        written.insert("record".to_owned(), text("operation#another"));
        assert!(absorb(&mut state, &written).is_err(), "a body under another's key is damaged");
    }

    #[test]
    fn a_record_of_an_unknown_kind_is_from_a_later_version() {
        let unknown = Item::from([("record".to_owned(), text("forecast"))]);
        assert!(
            matches!(absorb(&mut LedgerState::default(), &unknown), Err(LedgerError::Unreadable { record, .. }) if record == "forecast")
        );
        let own = Item::from([("record".to_owned(), text(LOCK))]);
        assert_eq!(absorb(&mut LedgerState::default(), &own), Ok(()));
    }
}
