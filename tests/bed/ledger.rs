//! The ledger as an outsider reads it, and what must hold between it and EC2's calls.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;
use serde_json::Value;

use crate::proxy::call::Call;

/// The daemon's table.
pub const TABLE: &str = "node-fleet";

type Item = HashMap<String, AttributeValue>;

/// All records of one cluster.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Its owner and epoch.
    pub lock: Option<(String, u64)>,
    pub epoch: u64,
    pub state: State,
    pub operations: Vec<Operation>,
}

/// The record that operators read.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub node_count: Option<u64>,
    pub scaling_in_progress: Option<bool>,
    pub last_scale_time: Option<String>,
    pub is_paused: bool,
}

/// An operation in the journal.
#[derive(Clone, Debug)]
pub struct Operation {
    pub id: String,
    /// `launch` or `retire`.
    pub kind: String,
    pub state: String,
    /// The epoch it was begun in.
    pub epoch: u64,
    /// The epoch of whoever wrote it last.
    pub writer_epoch: u64,
    pub body: Value,
}

impl Ledger {
    /// Reads the records of a cluster.
    pub async fn read(client: &aws_sdk_dynamodb::Client, cluster: &str) -> Result<Self> {
        let request = client.query().table_name(TABLE).consistent_read(true).key_condition_expression("cluster_id = :cluster");
        let request = request.expression_attribute_values(":cluster", AttributeValue::S(cluster.to_owned()));
        let answer = request.send().await.context("read the ledger")?;
        ensure!(answer.last_evaluated_key().is_none_or(HashMap::is_empty), "the ledger is larger than a page");
        let mut ledger = Self::default();
        for item in answer.items() {
            ledger.take(item)?;
        }
        Ok(ledger)
    }

    fn take(&mut self, item: &Item) -> Result<()> {
        match text(item, "record")? {
            "lock" => self.lock = Some((text(item, "owner")?.to_owned(), number(item, "epoch")?)),
            "epoch" => self.epoch = number(item, "epoch")?,
            "state" => {
                self.state = State {
                    node_count: number(item, "node_count").ok(),
                    scaling_in_progress: item.get("scaling_in_progress").and_then(|value| value.as_bool().ok().copied()),
                    last_scale_time: text(item, "last_scale_time").ok().map(str::to_owned),
                    is_paused: item.contains_key("pause"),
                }
            }
            record if record.starts_with("demand#") => {}
            record => match record.strip_prefix("operation#") {
                Some(id) => self.operations.push(Operation::read(id, item)?),
                None => bail!("the ledger has a record {record}"),
            },
        }
        Ok(())
    }

    /// The operations of a kind that are in a state.
    pub fn of(&self, kind: &str, state: &str) -> Vec<&Operation> {
        self.operations.iter().filter(|operation| operation.kind == kind && operation.state == state).collect()
    }

    /// The operation of this id.
    pub fn operation(&self, id: &str) -> Result<&Operation> {
        self.operations.iter().find(|operation| operation.id == id).with_context(|| format!("the journal has no operation {id}"))
    }

    /// Says what is still under way, or is not yet counted, with so many living workers.
    pub fn unsettled(&self, workers: usize) -> Option<String> {
        let open: Vec<String> = self.operations.iter().filter(|operation| !operation.is_over()).map(ToString::to_string).collect();
        let counted = self.state.node_count == u64::try_from(workers).ok();
        let settled = open.is_empty() && counted && self.state.scaling_in_progress == Some(false);
        (!settled).then(|| format!("{:?} with {workers} workers; open: {open:?}", self.state))
    }

    /// When the fleet was last scaled.
    pub fn last_scale(&self) -> Result<Timestamp> {
        let text = self.state.last_scale_time.as_ref().context("the ledger has no last_scale_time")?;
        text.parse().with_context(|| format!("last_scale_time `{text}` is not ISO 8601"))
    }

    /// Holds the journal against the log: every effect belongs to exactly one operation and took place
    /// once, and no operation claims one that did not.
    pub fn account_for(&self, calls: &[Call]) -> Result<()> {
        for operation in &self.operations {
            operation.check(self.epoch)?;
        }
        let effective: Vec<&Call> = calls.iter().filter(|call| call.took_effect()).collect();
        self.account_for_launches(effective.iter().copied().filter(|call| call.action == "CreateFleet"))?;
        let terminations = effective.iter().filter(|call| call.action == "TerminateInstances");
        self.account_for_terminations(&terminations.flat_map(|call| call.under("InstanceId.").into_values()).collect())
    }

    fn account_for_launches<'a>(&self, calls: impl Iterator<Item = &'a Call>) -> Result<()> {
        let mut made: BTreeMap<&str, &Call> = BTreeMap::new();
        for call in calls {
            let token = call.parameter("ClientToken").context("a CreateFleet without a token")?;
            ensure!(made.insert(token, call).is_none(), "two launches took effect for {token}");
        }
        for (token, call) in &made {
            let operation = self.operation(token)?;
            let known: BTreeSet<String> = operation.launched().into_iter().chain(operation.never_joined()).collect();
            let found: BTreeSet<String> = call.instances.iter().cloned().collect();
            ensure!(known == found, "{operation} knows {known:?}, and EC2 made {found:?}");
            let expected = if known.is_empty() { "failed" } else { "done" };
            ensure!(operation.state == expected, "{operation}, with {known:?}");
        }
        for operation in self.of("launch", "done") {
            ensure!(made.contains_key(operation.id.as_str()), "{operation}, without a launch");
        }
        Ok(())
    }

    fn account_for_terminations(&self, terminated: &BTreeSet<String>) -> Result<()> {
        let retired = self.of("retire", "done");
        for id in terminated {
            let own = retired.iter().filter(|operation| operation.body["order"]["instance"] == id.as_str()).count();
            let given_back = self.operations.iter().filter(|operation| operation.never_joined().contains(id)).count();
            ensure!(own + given_back == 1, "{id} was terminated by {own} retirements and {given_back} launches");
        }
        for operation in retired {
            let instance = operation.body["order"]["instance"].as_str();
            ensure!(instance.is_none_or(|id| terminated.contains(id)), "{operation}, without a termination");
        }
        Ok(())
    }
}

impl Operation {
    fn read(id: &str, item: &Item) -> Result<Self> {
        Ok(Self {
            id: id.to_owned(),
            kind: text(item, "kind")?.to_owned(),
            state: text(item, "state")?.to_owned(),
            epoch: number(item, "epoch")?,
            writer_epoch: number(item, "writer_epoch")?,
            body: serde_json::from_str(text(item, "body")?).with_context(|| format!("the body of {id}"))?,
        })
    }

    /// Is nothing left to do?
    pub fn is_over(&self) -> bool {
        matches!(self.state.as_str(), "done" | "failed" | "rolled_back")
    }

    /// The node of a retirement.
    pub fn node(&self) -> Option<&str> {
        self.body["order"]["node"]["name"].as_str()
    }

    /// Why a retirement was ordered.
    pub fn why(&self) -> &str {
        self.body["order"]["reason"]["why"].as_str().unwrap_or_default()
    }

    /// The instances of a launch that became nodes.
    pub fn launched(&self) -> Vec<String> {
        let joined = self.body["joined"].as_array().into_iter().flatten();
        joined.filter_map(|instance| instance["id"].as_str().map(str::to_owned)).collect()
    }

    /// The instances of a launch that did not.
    pub fn never_joined(&self) -> Vec<String> {
        let late = self.body["never_joined"].as_array().into_iter().flatten();
        late.filter_map(|instance| instance["id"].as_str().map(str::to_owned)).collect()
    }

    fn check(&self, epoch: u64) -> Result<()> {
        ensure!((1..=self.writer_epoch).contains(&self.epoch) && self.writer_epoch <= epoch, "{self}, in epoch {epoch}");
        let same = self.body["id"] == self.id.as_str() && self.body["state"] == self.state.as_str() && self.body["epoch"] == self.epoch;
        ensure!(same, "{self} has the body {}", self.body);
        Ok(())
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {} ({}, begun in epoch {}, written in {})", self.kind, self.id, self.state, self.epoch, self.writer_epoch)
    }
}

fn text<'a>(item: &'a Item, name: &str) -> Result<&'a str> {
    let value = item.get(name).and_then(|value| value.as_s().ok());
    value.map(String::as_str).with_context(|| format!("a record without the text {name}: {item:?}"))
}

fn number(item: &Item, name: &str) -> Result<u64> {
    let value = item.get(name).and_then(|value| value.as_n().ok()).and_then(|text| text.parse().ok());
    value.with_context(|| format!("a record without the number {name}: {item:?}"))
}
