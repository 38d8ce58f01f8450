//! The decision: pure functions, without async, clock, randomness or logging.

pub mod schedule;
pub mod settings;

pub use settings::{BoundsSchedule, MetricGoal, MetricRule, OfferRest, PoolSettings, ScaleDown, ScaleUp, Settings};
