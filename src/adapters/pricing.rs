//! The AWS price list: what instances cost on demand in the cluster's region.

use super::aws::{Failure, Kind};
use super::quoted;
use super::retry::retried;
use crate::model::InstanceType;
use crate::model::offer::HourlyPrice;
use aws_config::{Region, SdkConfig};
use aws_sdk_pricing::Client;
use aws_sdk_pricing::types::{Filter, FilterType};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tracing::{info, warn};

/// List prices change a few times a year.
const REFRESH: Duration = Duration::from_hours(24);
/// How long after a reading that was refused the next one is tried.
const REFRESH_AGAIN: Duration = Duration::from_hours(1);
/// How long after a reading that was merely slow, or failed in a way that passes, the next one goes on. What is not known
/// until then is not bought.
const GO_ON: Duration = Duration::from_mins(1);
/// Requests under way at once; each asks for one type.
const AT_ONCE: usize = 4;
/// Products in one answer: the filters leave one, in some regions a few.
const PRODUCTS: i32 = 20;
/// What the filters say besides the type and the region: a Linux machine of its own price, without a licence.
const PLAIN_LINUX: [(&str, &str); 5] = [
    ("operatingSystem", "Linux"),
    ("tenancy", "Shared"),
    ("capacitystatus", "Used"),
    ("preInstalledSw", "NA"),
    ("licenseModel", "No License required"),
];

/// By type.
pub type OnDemandPrices = BTreeMap<InstanceType, HourlyPrice>;

/// Reads the price list, and keeps what it has read: at most one reading a day, an hour after one that was refused, or a
/// minute after one that did not come to its end.
#[derive(Debug)]
pub struct PriceList {
    client: Client,
    region: String,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    prices: OnDemandPrices,
    /// The types that have been asked for, whether they have a price or not.
    asked: BTreeSet<InstanceType>,
    due: Option<Instant>,
    /// When a reading was whole for the last time.
    read_at: Option<Timestamp>,
}

impl PriceList {
    /// Speaks to the price list's endpoint that is nearest to the region. Sends nothing yet.
    #[must_use]
    pub fn new(sdk: &SdkConfig, region: &str) -> Self {
        let config = aws_sdk_pricing::config::Builder::from(sdk).region(Region::new(endpoint_region(region)));
        Self { client: Client::from_conf(config.build()), region: region.to_owned(), kept: Mutex::default() }
    }

    /// Gives the prices of the types, as far as they are known: a failure is logged, and leaves what was read before.
    ///
    /// Takes no longer than `deadline`. `now` is what [`Self::read_at`] tells afterwards.
    pub async fn on_demand(&self, types: &BTreeSet<InstanceType>, deadline: Duration, now: Timestamp) -> OnDemandPrices {
        if !self.is_due(types) {
            return self.kept().prices.clone();
        }
        let (found, failure) = self.read(types, deadline).await;
        if let Some(failure) = &failure {
            let why = denied(failure).unwrap_or_else(|| failure.why.clone());
            warn!(
                why,
                known = found.len(),
                "the price list could not be read whole; prices that are known, and those of the configuration, stand in"
            );
        } else {
            info!(types = found.len(), region = self.region, "on-demand prices were read from the price list");
        }
        let mut kept = self.kept();
        kept.asked.clone_from(types);
        kept.due = Some(Instant::now() + next_reading(failure.as_ref()));
        if failure.is_none() {
            kept.read_at = Some(now);
        }
        kept.prices.extend(found);
        kept.prices.clone()
    }

    /// Tells when the list was read whole for the last time.
    #[must_use]
    pub fn read_at(&self) -> Option<Timestamp> {
        self.kept().read_at
    }

    /// Asks for one type, whatever is kept.
    ///
    /// # Errors
    /// In words, with the permission that is missing.
    pub async fn probe(&self, instance_type: &InstanceType, deadline: Duration) -> Result<Option<HourlyPrice>, String> {
        let answer = self.price(instance_type.clone(), deadline).await;
        answer.map_err(|failure| denied(&failure).unwrap_or(failure.why))
    }

    fn is_due(&self, types: &BTreeSet<InstanceType>) -> bool {
        let kept = self.kept();
        kept.due.is_none_or(|due| Instant::now() >= due) || !types.is_subset(&kept.asked)
    }

    /// Reads what can be read within the deadline, and gives the first failure.
    async fn read(&self, types: &BTreeSet<InstanceType>, deadline: Duration) -> (OnDemandPrices, Option<Failure>) {
        let mut found = OnDemandPrices::new();
        let mut failed = None;
        // Those without a price come first, so that where there is no time for all, others have their turn.
        let mut types: Vec<&InstanceType> = types.iter().collect();
        let known = self.kept().prices.clone();
        types.sort_by_key(|name| known.contains_key(*name));
        let reading = async {
            let answers: Vec<BoxFuture<'_, _>> =
                types.into_iter().map(|name| self.price(name.clone(), deadline).map(move |answer| (name, answer)).boxed()).collect();
            let mut answers = futures::stream::iter(answers).buffer_unordered(AT_ONCE);
            while let Some((name, answer)) = answers.next().await {
                match answer {
                    Ok(Some(price)) => drop(found.insert(name.clone(), price)),
                    Ok(None) => warn!(instance_type = name.as_str(), region = self.region, "the price list has no price"),
                    Err(failure) => {
                        // What is refused or does not answer once is not asked for the other types as well.
                        failed = Some(failure);
                        return;
                    }
                }
            }
        };
        if tokio::time::timeout(deadline, Box::pin(reading)).await.is_err() {
            failed = Some(Failure { kind: Kind::NoAnswer, code: String::new(), why: format!("not all types within {deadline:?}") });
        }
        (found, failed)
    }

    async fn price(&self, instance_type: InstanceType, deadline: Duration) -> Result<Option<HourlyPrice>, Failure> {
        let own = [("instanceType", instance_type.as_str()), ("regionCode", self.region.as_str())];
        let filters: Result<Vec<Filter>, _> = own.into_iter().chain(PLAIN_LINUX).map(|(field, value)| filter(field, value)).collect();
        let filters = filters.map_err(|error| Failure { kind: Kind::Rejected, code: String::new(), why: error.to_string() })?;
        let answer = retried(deadline, || async {
            let request = self.client.get_products().service_code("AmazonEC2").max_results(PRODUCTS);
            request.set_filters(Some(filters.clone())).send().await.map_err(Failure::from)
        });
        let answer = answer.await?;
        Ok(answer.price_list().iter().filter_map(|product| read_product(product, &instance_type, &self.region)).min())
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn filter(field: &str, value: &str) -> Result<Filter, aws_sdk_pricing::error::BuildError> {
    Filter::builder().r#type(FilterType::TermMatch).field(field).value(value).build()
}

/// Says how long after a reading the next one is due.
fn next_reading(failure: Option<&Failure>) -> Duration {
    match failure.map(|failure| failure.kind) {
        None => REFRESH,
        Some(Kind::Denied | Kind::Rejected) => REFRESH_AGAIN,
        Some(Kind::NoAnswer | Kind::Fault | Kind::Throttled | Kind::Unsigned) => GO_ON,
    }
}

/// Names the permission that a refusal lacks.
fn denied(failure: &Failure) -> Option<String> {
    (failure.kind == Kind::Denied).then(|| format!("{}; grant the daemon's role `pricing:GetProducts`", failure.why))
}

/// The price list answers in few regions only: the one for the same part of the world.
fn endpoint_region(region: &str) -> &'static str {
    match region.split('-').next() {
        Some("cn") => "cn-northwest-1",
        Some("eu") => "eu-central-1",
        Some("ap") => "ap-south-1",
        _ => "us-east-1",
    }
}

/// Reads a product's price in dollars an hour; one that makes no sense is left out by name.
fn read_product(product: &str, instance_type: &InstanceType, region: &str) -> Option<HourlyPrice> {
    let product: Value = match serde_json::from_str(product) {
        Ok(product) => product,
        Err(error) => {
            warn!(instance_type = instance_type.as_str(), %error, "a product of the price list cannot be read and is left out");
            return None;
        }
    };
    let attribute = |name: &str| product["product"]["attributes"][name].as_str();
    if attribute("instanceType") != Some(instance_type.as_str()) || attribute("regionCode") != Some(region) {
        return None;
    }
    let terms = product["terms"]["OnDemand"].as_object()?;
    let dimensions = terms.values().filter_map(|term| term["priceDimensions"].as_object()).flat_map(serde_json::Map::values);
    let dimensions = dimensions.filter(|dimension| dimension["unit"] == "Hrs");
    let texts = dimensions.filter_map(|dimension| dimension["pricePerUnit"]["USD"].as_str());
    let read = texts.filter_map(|text| {
        let price = HourlyPrice::from_dollars(text);
        if price.is_none() {
            warn!(instance_type = instance_type.as_str(), price = quoted(text), "the list price makes no sense and is left out");
        }
        price
    });
    read.min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn product(instance_type: &str, region: &str, unit: &str, dollars: &str) -> String {
        let dimension = json!({"unit": unit, "pricePerUnit": {"USD": dollars}});
        let term = json!({"priceDimensions": {"sku.term.rate": dimension}});
        let attributes = json!({"instanceType": instance_type, "regionCode": region});
        json!({"product": {"attributes": attributes}, "terms": {"OnDemand": {"sku.term": term}}}).to_string()
    }

    fn read(product: &str) -> Option<HourlyPrice> {
        read_product(product, &"m5.large".into(), "eu-west-1")
    }

    #[test]
    fn what_was_merely_slow_is_asked_again_soon_and_what_was_refused_is_not() {
        let failed = |kind| next_reading(Some(&Failure { kind, code: String::new(), why: String::new() }));
        assert_eq!(next_reading(None), Duration::from_hours(24));
        assert_eq!(failed(Kind::NoAnswer), Duration::from_mins(1), "not all types within the deadline");
        assert_eq!((failed(Kind::Throttled), failed(Kind::Fault)), (GO_ON, GO_ON));
        assert_eq!((failed(Kind::Denied), failed(Kind::Rejected)), (Duration::from_hours(1), REFRESH_AGAIN));
    }

    #[test]
    fn the_price_of_an_hour_is_read_from_a_product() {
        assert_eq!(read(&product("m5.large", "eu-west-1", "Hrs", "0.1070000000")), Some(HourlyPrice(107_000)));
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        for dollars in ["0.0000000000", "-1", "NaN", "cheap", "1e9", ""] {
            assert_eq!(read(&product("m5.large", "eu-west-1", "Hrs", dollars)), None, "{dollars}");
        }
        assert_eq!(read(&product("m5.xlarge", "eu-west-1", "Hrs", "0.1")), None, "another type");
        assert_eq!(read(&product("m5.large", "us-east-1", "Hrs", "0.1")), None, "another region");
        assert_eq!(read(&product("m5.large", "eu-west-1", "Quantity", "0.1")), None, "an upfront fee");
        for text in ["", "{", "[]", "{}", r#"{"terms": 3}"#] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn each_region_asks_an_endpoint_of_its_part_of_the_world() {
        let rows =
            [("us-west-2", "us-east-1"), ("eu-north-1", "eu-central-1"), ("ap-south-2", "ap-south-1"), ("cn-north-1", "cn-northwest-1")];
        for (region, endpoint) in rows {
            assert_eq!(endpoint_region(region), endpoint, "{region}");
        }
    }
}
