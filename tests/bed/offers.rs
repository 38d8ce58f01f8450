//! The instance types of the bed: what they hold and what they cost.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

/// Spot and on-demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Market {
    Spot,
    OnDemand,
}

impl Market {
    /// As EC2 writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Spot => "spot",
            Self::OnDemand => "on-demand",
        }
    }
}

/// One instance type, with the list price of us-east-1 in dollars per hour.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct InstanceType {
    pub on_demand: f64,
    pub vcpu: u32,
    pub memory_mib: u64,
}

impl InstanceType {
    /// Dollars per hour. Spot is about a third of the list price, and its zones differ a little.
    pub fn price(&self, market: Market, zone: &str) -> f64 {
        match market {
            Market::OnDemand => self.on_demand,
            Market::Spot if zone.ends_with('a') => self.on_demand * 0.35,
            Market::Spot => self.on_demand * 0.36,
        }
    }
}

/// Every type that the bed knows (`prices.json`).
pub static INSTANCE_TYPES: LazyLock<BTreeMap<String, InstanceType>> =
    LazyLock::new(|| serde_json::from_str(include_str!("prices.json")).unwrap_or_default());

/// The zones of the bed.
pub const ZONES: [&str; 2] = ["us-east-1a", "us-east-1b"];

/// The region of the bed.
pub const REGION: &str = "us-east-1";
