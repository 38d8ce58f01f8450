//! What the daemon tells of itself: its log, its metrics, and what happens, to Slack, CloudWatch and Kubernetes' Events.

pub mod catalogue;
pub mod chat;
pub mod figures;
mod gauges;
pub mod log;
pub mod messages;
pub mod notes;
pub mod outlets;
pub mod tally;
mod telemetry;

#[cfg(test)]
mod fakes;

pub use log::LogError;
pub use telemetry::Instruments;

use crate::control::status::{Role, Status};
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Builds the instruments, and what renders them, together with the status, as OpenMetrics text. `interval` is the
/// evaluation's.
#[must_use]
pub fn metrics(status: watch::Receiver<Arc<Status>>, interval: Duration) -> (Instruments, Arc<dyn Fn() -> String + Send + Sync>) {
    let mut registry = Registry::default();
    let instruments = Instruments::register(&mut registry);
    registry.register_collector(Box::new(gauges::Gauges::new(status, interval)));
    let render = move || {
        let mut text = String::new();
        // Writing to a String does not fail; what is there until a metric refuses is still true.
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        text
    };
    (instruments, Arc::new(render))
}

/// Tells whether this instance acts, and so tells.
fn leads(status: &Status) -> bool {
    match status.role {
        Role::Leader { .. } => true,
        Role::Standby { .. } => false,
    }
}

#[cfg(test)]
mod tests;
