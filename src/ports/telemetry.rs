//! Measurements of the controller itself, and what it tells people.

use crate::model::{Happening, Market};
use std::time::Duration;

/// Something worth counting or timing.
#[derive(Clone, Debug, PartialEq)]
pub enum Measurement {
    /// A turn took this long.
    Turn {
        /// What began it: `tick`, `pods`, `notice`, `operator`.
        trigger: &'static str,
        /// From its beginning to the plan's execution.
        took: Duration,
    },
    /// A plan was made in this time.
    Planned {
        /// How long `policy::plan` took.
        took: Duration,
    },
    /// A plan was refused by the audit.
    AuditRefused {
        /// The invariant that it would have broken.
        invariant: &'static str,
    },
    /// From the oldest `Unschedulable` condition to the sending of the request it caused.
    UnschedulableToLaunch {
        /// How long.
        took: Duration,
    },
    /// An instance became a Ready node.
    Joined {
        /// From launch to Ready.
        took: Duration,
    },
    /// Capacity was added.
    ScaledUp {
        /// The pool.
        pool: String,
        /// The market.
        market: Market,
        /// How many instances.
        instances: u32,
    },
    /// Capacity was given back.
    ScaledDown {
        /// The pool.
        pool: String,
        /// The reason's name.
        reason: &'static str,
    },
    /// An operation failed.
    OperationFailed {
        /// `launch` or `retire`.
        kind: &'static str,
        /// The failure's name.
        failure: &'static str,
    },
    /// A drain was rolled back.
    RolledBack {
        /// The pool.
        pool: String,
    },
    /// A notice came.
    NoticeReceived {
        /// Its kind, `malformed` or `foreign`.
        kind: &'static str,
    },
    /// An instance of ours begins to go because EC2 takes it back.
    Interrupted {
        /// The pool.
        pool: String,
    },
    /// From a spot interruption's arrival to its node's cordon.
    NoticeToCordon {
        /// How long.
        took: Duration,
    },
    /// A port call failed.
    PortFailed {
        /// `kubernetes`, `ec2`, `dynamodb`, `sqs`, `prometheus`, or an outlet of [`super::outlets`].
        port: &'static str,
        /// The error's class.
        class: &'static str,
    },
    /// Something was, or could not be, told to those outside.
    Told {
        /// `slack`, `cloudwatch` or `events`.
        outlet: &'static str,
        /// `sent`, or `dropped` for ever.
        outcome: &'static str,
        /// How many messages, data or Events.
        number: u64,
    },
}

/// Where measurements go.
pub trait Telemetry: Send + Sync {
    /// Takes one.
    fn record(&self, measurement: Measurement);

    /// Takes what has happened, for people. Waits for nobody: who does not keep up loses the oldest, and counts them.
    fn tell(&self, happening: Happening);
}
