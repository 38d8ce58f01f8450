//! The table: making it on an empty account, and looking whether it is the right one.

use super::DynamoDb;
use super::fault::Fault;
use super::{item, retried};
use crate::ports::LedgerError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, TableDescription, TableStatus,
    TimeToLiveSpecification, TimeToLiveStatus,
};
use std::time::Duration;

/// The keys, in their order.
const KEYS: [(&str, KeyType); 2] = [("cluster_id", KeyType::Hash), ("record", KeyType::Range)];
/// The attribute after whose time DynamoDB removes an item.
const TTL: &str = "expires_at";
/// How long a new table may take to become active.
const CREATION: Duration = Duration::from_secs(90);
/// How often a new table is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// What is to be known of a table that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableState {
    /// Locks that were forgotten are removed. Without it nothing breaks, but they stay.
    pub expires: bool,
}

impl DynamoDb {
    /// Looks whether the table is there, has the right keys and may be read.
    ///
    /// # Errors
    /// When the ledger cannot be kept in it.
    pub async fn probe(&self) -> Result<TableState, LedgerError> {
        match self.describe().await? {
            None => Err(self.no_table("it does not exist")),
            Some(table) if table.table_status() != Some(&TableStatus::Active) && table.table_status() != Some(&TableStatus::Updating) => {
                Err(self.no_table("it is not active yet"))
            }
            Some(_) => {
                self.get(item::LOCK, self.timeout).await?;
                Ok(TableState { expires: self.expires().await? })
            }
        }
    }

    /// Makes the table, billed by request, and waits until it is active. One that is there already is left as it is.
    ///
    /// # Errors
    /// When it cannot be made, or is there with other keys.
    pub async fn create_table(&self) -> Result<(), LedgerError> {
        if self.describe().await?.is_none() {
            self.create().await?;
        }
        let active = async {
            loop {
                if let Some(TableStatus::Active | TableStatus::Updating) = self.describe().await?.as_ref().and_then(|it| it.table_status())
                {
                    return Ok(());
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let late = || Err(self.no_table(&format!("it has not become active within {CREATION:?}")));
        tokio::time::timeout(CREATION, active).await.unwrap_or_else(|_| late())?;
        if self.expires().await? { Ok(()) } else { self.let_locks_expire().await }
    }

    fn no_table(&self, why: &str) -> LedgerError {
        LedgerError::NoTable { table: self.table.clone(), why: why.to_owned() }
    }

    /// Reads the table's description; `None` when there is none.
    async fn describe(&self) -> Result<Option<TableDescription>, LedgerError> {
        let call = async || self.client.describe_table().table_name(&self.table).send().await.map_err(Fault::from);
        let described = match retried(self.timeout, call).await {
            Ok(answer) => answer.table,
            Err(fault) if fault.code() == "ResourceNotFoundException" => None,
            Err(fault) => return Err(self.error("DescribeTable", fault)),
        };
        match described.as_ref().map(check_keys) {
            Some(Err(why)) => Err(self.no_table(&why)),
            Some(Ok(())) | None => Ok(described),
        }
    }

    async fn create(&self) -> Result<(), LedgerError> {
        let built = |error| self.error("CreateTable", Fault::built(&error));
        let mut request = self.client.create_table().table_name(&self.table).billing_mode(BillingMode::PayPerRequest);
        for (name, kind) in KEYS {
            let definition = AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S);
            request = request.attribute_definitions(definition.build().map_err(built)?);
            request = request.key_schema(KeySchemaElement::builder().attribute_name(name).key_type(kind).build().map_err(built)?);
        }
        let call = async || request.clone().send().await.map(|_| ()).map_err(Fault::from);
        match retried(self.timeout, call).await {
            Ok(()) => Ok(()),
            // Another one makes it, or an earlier attempt of ours did.
            Err(fault) if fault.code() == "ResourceInUseException" => Ok(()),
            Err(fault) => Err(self.error("CreateTable", fault)),
        }
    }

    async fn expires(&self) -> Result<bool, LedgerError> {
        let call = async || self.client.describe_time_to_live().table_name(&self.table).send().await.map_err(Fault::from);
        let answer = retried(self.timeout, call).await.map_err(|fault| self.error("DescribeTimeToLive", fault))?;
        Ok(answer.time_to_live_description().is_some_and(|ttl| {
            let on = matches!(ttl.time_to_live_status(), Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling));
            on && ttl.attribute_name() == Some(TTL)
        }))
    }

    async fn let_locks_expire(&self) -> Result<(), LedgerError> {
        let specification = TimeToLiveSpecification::builder().attribute_name(TTL).enabled(true).build();
        let specification = specification.map_err(|error| self.error("UpdateTimeToLive", Fault::built(&error)))?;
        let call = async || {
            let request = self.client.update_time_to_live().table_name(&self.table).time_to_live_specification(specification.clone());
            request.send().await.map(|_| ()).map_err(Fault::from)
        };
        retried(self.timeout, call).await.map_err(|fault| self.error("UpdateTimeToLive", fault))
    }
}

/// Compares the table's keys with ours.
fn check_keys(table: &TableDescription) -> Result<(), String> {
    let found: Vec<_> = table.key_schema().iter().map(|key| (key.attribute_name(), key.key_type().clone())).collect();
    let texts = KEYS.iter().all(|(name, _)| {
        let definition = table.attribute_definitions().iter().find(|definition| definition.attribute_name() == *name);
        definition.is_some_and(|definition| *definition.attribute_type() == ScalarAttributeType::S)
    });
    if found == KEYS && texts {
        return Ok(());
    }
    let names: Vec<_> = found.iter().map(|(name, _)| *name).collect();
    Err(format!("its keys are {names:?}; they must be the texts `cluster_id` and `record`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(keys: &[(&str, KeyType)], kind: &ScalarAttributeType) -> TableDescription {
        let mut table = TableDescription::builder();
        for (name, role) in keys {
            table = table.key_schema(KeySchemaElement::builder().attribute_name(*name).key_type(role.clone()).build().expect("whole"));
            let definition = AttributeDefinition::builder().attribute_name(*name).attribute_type(kind.clone());
            table = table.attribute_definitions(definition.build().expect("whole"));
        }
        table.build()
    }

    #[test]
    fn a_table_with_other_keys_is_refused_by_name() {
        assert_eq!(check_keys(&table(&KEYS, &ScalarAttributeType::S)), Ok(()));
        assert!(check_keys(&table(&KEYS, &ScalarAttributeType::N)).is_err());
        let why = check_keys(&table(&[("LockID", KeyType::Hash)], &ScalarAttributeType::S)).expect_err("Terraform's");
        assert!(why.contains("LockID") && why.contains("cluster_id"), "{why}");
    }
}
