//! Prometheus, as the controller needs it.

use crate::model::snapshot::{Observed, UtilisationReport};
use crate::model::{Reading, RuleName};
use std::future::Future;

/// Prometheus. Whatever goes wrong is a [`Missing`](crate::model::Missing), with its reason.
pub trait Metrics: Send + Sync {
    /// Reads how busy the nodes are. Values older than the age gate, from the future or
    /// outside 0 to 1 come back as missing.
    fn utilisation(&self) -> impl Future<Output = Observed<UtilisationReport>> + Send;

    /// Runs the query of a `[[metric]]` rule, which must give one value.
    fn query(&self, rule: &RuleName, promql: &str) -> impl Future<Output = Reading> + Send;
}
