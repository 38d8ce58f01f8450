//! From the configuration to what the control loop is told.

use crate::config::{Config, PoolLaunch};
use crate::control::Settings;
use crate::control::settings::{Lease, Operations, Template};

/// Takes what the control loop needs from the configuration.
#[must_use]
pub fn settings(config: &Config, owner: &str) -> Settings {
    let operations = &config.operations;
    let template = |pool: &PoolLaunch| Template { template: pool.launch_template.clone(), version: pool.launch_template_version.clone() };
    Settings {
        cluster: config.cluster.id.clone(),
        owner: owner.to_owned(),
        policy: config.policy.clone(),
        lease: Lease { duration: config.ledger.lease, heartbeat: config.ledger.heartbeat },
        operations: Operations {
            request_timeout: operations.request_timeout,
            join_timeout: operations.join_timeout,
            drain_timeout: operations.drain_timeout,
            retry: operations.retry,
            interruption_margin: operations.interruption_margin,
            batch: operations.batch,
        },
        templates: config.pools.iter().map(|pool| (pool.pool.clone(), template(pool))).collect(),
    }
}
