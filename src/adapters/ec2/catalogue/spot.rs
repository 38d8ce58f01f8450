//! What spot instances cost now.

use super::{Source, chunks};
use crate::adapters::aws::Failure;
use crate::config::PricesConfig;
use crate::model::offer::HourlyPrice;
use crate::model::{InstanceType, Zone};
use crate::ports::{Clock, CloudError};
use aws_sdk_ec2::types as ec2;
use std::collections::{BTreeMap, BTreeSet};
use tracing::warn;

/// What spot prices are read for.
const SPOT_PRODUCT: &str = "Linux/UNIX";

/// By type and zone.
pub(super) type SpotPrices = BTreeMap<(InstanceType, Zone), HourlyPrice>;

impl Source<'_> {
    /// Reads the spot prices of now. Where EC2 refuses to tell them they are estimated; where it does not answer they
    /// are not, since prices that jump between the two would move nodes.
    pub(super) async fn spot_prices(&self, wanted: &BTreeSet<InstanceType>, prices: &PricesConfig) -> Result<SpotPrices, CloudError> {
        const CALL: &str = "DescribeSpotPriceHistory";
        let mut spot = SpotPrices::new();
        if !prices.read_spot {
            return Ok(spot);
        }
        let now = aws_sdk_ec2::primitives::DateTime::from_secs(self.clock.now().as_second());
        let wanted = wanted.iter().map(InstanceType::as_str).collect();
        for values in chunks(&wanted) {
            let names: Vec<ec2::InstanceType> = values.iter().map(|name| name.as_str().into()).collect();
            // From now on: the price that is in force is among them.
            let read = self.pages(CALL, |next: Option<String>| async {
                let request = self.client.describe_spot_price_history().set_instance_types(Some(names.clone())).set_next_token(next);
                let request = request.product_descriptions(SPOT_PRODUCT).start_time(now);
                let answer = request.send().await.map_err(Failure::from)?;
                Ok((answer.next_token().map(ToOwned::to_owned), answer))
            });
            let answers = match read.await {
                Ok(answers) => answers,
                Err(error @ (CloudError::Denied { .. } | CloudError::Invalid { .. })) => {
                    warn!(%error, share = prices.spot_ratio, "spot prices are estimated from on-demand prices");
                    return Ok(SpotPrices::new());
                }
                Err(error) => return Err(error),
            };
            let found = answers
                .iter()
                .flat_map(aws_sdk_ec2::operation::describe_spot_price_history::DescribeSpotPriceHistoryOutput::spot_price_history);
            spot.extend(newest(found));
        }
        Ok(spot)
    }
}

/// Keeps the newest price of each type and zone. One that makes no sense is left out.
fn newest<'a>(entries: impl Iterator<Item = &'a ec2::SpotPrice>) -> SpotPrices {
    let mut newest: BTreeMap<(InstanceType, Zone), (i64, HourlyPrice)> = BTreeMap::new();
    for entry in entries {
        let (Some(instance_type), Some(zone), Some(text)) = (entry.instance_type(), entry.availability_zone(), entry.spot_price()) else {
            continue;
        };
        let Some(price) = HourlyPrice::from_dollars(text) else {
            warn!(instance_type = instance_type.as_str(), zone, price = text, "the spot price makes no sense and is left out");
            continue;
        };
        let at = entry.timestamp().map_or(0, aws_sdk_ec2::primitives::DateTime::secs);
        let known = newest.entry((InstanceType::from(instance_type.as_str()), Zone::from(zone))).or_insert((at, price));
        if at >= known.0 {
            *known = (at, price);
        }
    }
    newest.into_iter().map(|(key, (_, price))| (key, price)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ec2::primitives::DateTime;

    fn entry(zone: &str, price: &str, at: i64) -> ec2::SpotPrice {
        let entry = ec2::SpotPrice::builder().instance_type("m5.large".into()).availability_zone(zone);
        entry.spot_price(price).timestamp(DateTime::from_secs(at)).build()
    }

    #[test]
    fn the_newest_price_of_a_zone_holds_in_whatever_order_they_come() {
        let entries = [entry("a", "0.0336", 20), entry("a", "0.0400", 10), entry("b", "0.0350", 5), entry("b", "0.0360", 6)];
        let prices = newest(entries.iter());
        assert_eq!(prices[&("m5.large".into(), "a".into())], HourlyPrice(33_600));
        assert_eq!(prices[&("m5.large".into(), "b".into())], HourlyPrice(36_000));
    }

    #[test]
    fn a_price_that_makes_no_sense_is_left_out() {
        for text in ["", "0", "cheap"] {
            assert!(newest([entry("a", text, 1)].iter()).is_empty(), "{text}");
        }
        assert!(newest([ec2::SpotPrice::builder().build()].iter()).is_empty());
    }
}
