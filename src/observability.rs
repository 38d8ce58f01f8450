//! What the daemon tells of itself: its log and its metrics.

pub mod catalogue;
mod gauges;
pub mod log;
mod telemetry;

pub use log::LogError;
pub use telemetry::Instruments;

use crate::control::status::Status;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use tokio::sync::watch;

/// Builds the instruments, and what renders them, together with the status, as OpenMetrics text.
#[must_use]
pub fn metrics(status: watch::Receiver<Arc<Status>>) -> (Instruments, Arc<dyn Fn() -> String + Send + Sync>) {
    let mut registry = Registry::default();
    let instruments = Instruments::register(&mut registry);
    registry.register_collector(Box::new(gauges::Gauges::new(status)));
    let render = move || {
        let mut text = String::new();
        // Writing to a String does not fail; what is there until a metric refuses is still true.
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        text
    };
    (instruments, Arc::new(render))
}

#[cfg(test)]
mod tests;
