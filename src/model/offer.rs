//! What can be bought: an instance type in a zone on a market.

use super::ids::{InstanceType, PoolName, SubnetId, Zone};
use super::instance::Market;
use super::resources::{Bytes, Resources};
use super::scheduling::{Labels, Taint};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The local storage of an offer whose nodes' root volume the launch template does not name. The image decides it, which
/// EC2 does not tell: it forbids the offer nothing until a node of the pool has shown what there is.
pub const UNKNOWN_STORAGE: Bytes = Bytes(u64::MAX / 4);

/// Micro-dollars per hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HourlyPrice(pub u64);

impl HourlyPrice {
    /// Gives the price in dollars per hour.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "2^53 micro-dollars an hour are beyond any fleet")]
    pub fn dollars(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// Reads dollars per hour; `None` for what is not above nothing and below what any machine costs.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 1 and 10^10")]
    pub fn from_dollars(text: &str) -> Option<Self> {
        let micro_dollars = text.parse::<f64>().ok()? * 1e6;
        (1.0..1e10).contains(&micro_dollars).then(|| Self(micro_dollars.round() as u64))
    }
}

impl fmt::Display for HourlyPrice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "${:.4}/h", self.dollars())
    }
}

/// Identifies an offer. Failures are remembered by it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OfferKey {
    /// The type.
    pub instance_type: InstanceType,
    /// The zone.
    pub zone: Zone,
    /// The market.
    pub market: Market,
}

impl fmt::Display for OfferKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} in {}", self.market, self.instance_type, self.zone)
    }
}

impl OfferKey {
    /// Tells under which of the account's limits it falls.
    #[must_use]
    pub fn quota(&self) -> Quota {
        let name = self.instance_type.as_str();
        let family = &name[..name.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(name.len())];
        let families = match family {
            "dl" => Families::Dl,
            "f" => Families::F,
            "g" | "gr" | "vt" => Families::GAndVt,
            "hpc" => Families::Hpc,
            "inf" => Families::Inf,
            "p" => Families::P,
            "trn" => Families::Trn,
            "u" => Families::HighMemory,
            "x" => Families::X,
            _ => Families::Standard,
        };
        Quota { market: self.market, families }
    }
}

/// One of an account's limits on running instances: EC2 counts the vCPUs of these families on this market together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Quota {
    /// The market.
    pub market: Market,
    /// The families.
    pub families: Families,
}

impl fmt::Display for Quota {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.market, self.families.name())
    }
}

/// Families of instance types that one limit counts together, as the service quotas of EC2 name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Families {
    /// A, C, D, H, I, M, R, T and Z.
    Standard,
    /// DL.
    Dl,
    /// F.
    F,
    /// G and VT.
    GAndVt,
    /// U.
    HighMemory,
    /// HPC.
    Hpc,
    /// Inf.
    Inf,
    /// P.
    P,
    /// Trn.
    Trn,
    /// X.
    X,
}

impl Families {
    fn name(self) -> &'static str {
        match self {
            Self::Standard => "of the standard families",
            Self::Dl => "of the DL families",
            Self::F => "of the F families",
            Self::GAndVt => "of the G and VT families",
            Self::HighMemory => "of the high-memory families",
            Self::Hpc => "of the HPC families",
            Self::Inf => "of the Inf families",
            Self::P => "of the P families",
            Self::Trn => "of the Trn families",
            Self::X => "of the X families",
        }
    }
}

/// An instance that a pool may buy, and the node that it would become.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    /// What it is.
    pub key: OfferKey,
    /// The pool that may buy it.
    pub pool: PoolName,
    /// The subnet it would start in.
    pub subnet: SubnetId,
    /// What it costs.
    pub price: HourlyPrice,
    /// What the kubelet would offer, reservations taken off, daemon sets not.
    pub allocatable: Resources,
    /// The labels that the node would carry.
    pub labels: Labels,
    /// The taints that the node would carry.
    pub taints: Vec<Taint>,
}

/// Keeps a map as a list of pairs, since a JSON object's keys are texts only.
pub(super) mod pairs {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::collections::BTreeMap;

    pub fn serialize<K: Serialize, V: Serialize, S: Serializer>(map: &BTreeMap<K, V>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub fn deserialize<'de, K, V, D>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        Ok(Vec::<(K, V)>::deserialize(deserializer)?.into_iter().collect())
    }
}

/// Keeps a shared price list as a list of pairs.
pub(super) mod price_list {
    use super::{HourlyPrice, OfferKey, pairs};
    use serde::{Deserializer, Serializer};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    pub fn serialize<S: Serializer>(prices: &Arc<BTreeMap<OfferKey, HourlyPrice>>, serializer: S) -> Result<S::Ok, S::Error> {
        pairs::serialize(prices, serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<BTreeMap<OfferKey, HourlyPrice>>, D::Error> {
        pairs::deserialize(deserializer).map(Arc::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_read_and_what_makes_no_sense_is_not() {
        assert_eq!(HourlyPrice::from_dollars("0.033600"), Some(HourlyPrice(33_600)));
        for text in ["", "-0.1", "0", "NaN", "inf", "1e9", "0.0000001", "cheap"] {
            assert_eq!(HourlyPrice::from_dollars(text), None, "{text}");
        }
    }
}
