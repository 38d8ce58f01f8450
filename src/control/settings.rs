//! Deadlines and intervals of the control loop.

use crate::model::PoolName;
use crate::model::instance::template_tag;
use crate::policy::Settings as Policy;
use std::collections::BTreeMap;
use std::time::Duration;

/// What the control loop needs to know. The configuration builds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The cluster's id.
    pub cluster: String,
    /// This instance's identity in the lease.
    pub owner: String,
    /// The policy's part.
    pub policy: Policy,
    /// The lease.
    pub lease: Lease,
    /// Operations.
    pub operations: Operations,
    /// The launch template of each pool.
    pub templates: BTreeMap<PoolName, Template>,
}

/// The lease's times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// What a rival waits without seeing a heartbeat. The holder trusts half of it.
    pub duration: Duration,
    /// Between two heartbeats, and between two looks of a rival.
    pub heartbeat: Duration,
}

/// The deadlines of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operations {
    /// The deadline of one request to EC2 or Kubernetes. The lease must outlast it.
    pub request_timeout: Duration,
    /// From launch to Ready.
    pub join_timeout: Duration,
    /// From cordon to empty.
    pub drain_timeout: Duration,
    /// How often an operation looks again at what it waits for.
    pub retry: Duration,
    /// How long before a spot instance's end the drain stops waiting.
    pub interruption_margin: Duration,
    /// Pods that become unschedulable together are served together: so long an urgent turn waits for more of them.
    pub batch: Duration,
}

/// A launch template and its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Its id (`lt-…`) or name.
    pub template: String,
    /// Its version; `None` is the default version at the time of the launch.
    pub version: Option<String>,
}

impl Template {
    /// Gives the version that a launch takes now; `defaults` are the default versions, by pool.
    #[must_use]
    pub fn version_of(&self, pool: &PoolName, defaults: &BTreeMap<PoolName, String>) -> Option<String> {
        self.version.clone().or_else(|| defaults.get(pool).cloned())
    }
}

impl Settings {
    /// Names the launch template and version that a launch would take now, by pool, as far as they are known.
    #[must_use]
    pub fn templates_now(&self, defaults: &BTreeMap<PoolName, String>) -> BTreeMap<PoolName, String> {
        let named = self
            .templates
            .iter()
            .filter_map(|(pool, template)| Some((pool.clone(), template_tag(&template.template, &template.version_of(pool, defaults)?))));
        named.collect()
    }

    /// Lists the queries of `[[metric]]` rules.
    pub fn queries(&self) -> impl Iterator<Item = (&crate::model::RuleName, &str)> {
        self.policy.metrics.iter().map(|rule| (&rule.name, rule.query.as_str()))
    }
}
