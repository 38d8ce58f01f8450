//! The decision: pure functions, without async, clock, randomness or logging.

pub mod audit;
mod budgets;
mod buying;
mod fit;
mod fleet;
pub mod forecast;
mod foreseen;
mod headroom;
mod kind;
mod learn;
mod pending;
mod plan;
mod rules;
mod scale_down;
pub mod schedule;
mod seen;
pub mod settings;
mod sharing;
mod spending;
mod stay;
mod strays;
mod survey;
mod topology;
pub mod uniform;
mod worth;

pub use audit::{Invariant, Violation, audit};
pub use budgets::Budgets;
pub use fit::Misfit;
pub use learn::learn;
pub use plan::{explain, plan};
pub use scale_down::forbids;
pub use settings::{
    AtOnce, BoundsSchedule, Consolidation, Disruption, ForecastRule, Headroom, MetricGoal, MetricRule, OfferRest, PoolSettings, Predictive,
    PredictiveMode, Replacement, ScaleDown, ScaleUp, Settings,
};
pub use spending::{account, report};
pub use survey::survey;

#[cfg(test)]
mod tests;
