//! Prometheus, as the controller needs it.

use crate::model::snapshot::{Observed, UtilisationReport};
use crate::model::{Missing, Reading, RuleName};
use jiff::Timestamp;
use std::future::Future;

/// Prometheus. Whatever goes wrong is a [`Missing`], with its reason.
pub trait Metrics: Send + Sync {
    /// Reads how busy the nodes are. Values older than the age gate, from the future or
    /// outside 0 to 1 come back as missing.
    fn utilisation(&self) -> impl Future<Output = Observed<UtilisationReport>> + Send;

    /// Runs the query of a `[[metric]]` rule, which must give one value.
    fn query(&self, rule: &RuleName, promql: &str) -> impl Future<Output = Reading> + Send;

    /// Runs the query of a `[[forecast]]` rule at every minute from `first` to `last`, both whole minutes at most a
    /// week apart. Gives the values that there are, in the order of their time; a minute without one is left out.
    fn history(
        &self,
        promql: &str,
        first: Timestamp,
        last: Timestamp,
    ) -> impl Future<Output = Result<Vec<(Timestamp, f64)>, Missing>> + Send;
}
