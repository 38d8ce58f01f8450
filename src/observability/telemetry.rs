//! Counts and times what the controller and the adapters report.

use super::catalogue::{self, Entry};
use crate::model::Happening;
use crate::ports::{Measurement, Telemetry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use tokio::sync::broadcast;

/// How many happenings wait for the slowest listener: more than any hour of a large fleet has.
pub const HAPPENINGS_KEPT: usize = 1024;

type Labels = Vec<(&'static str, String)>;
type Counters = Family<Labels, Counter>;
type Histograms = Family<Labels, Histogram, fn() -> Histogram>;

/// A turn asks Kubernetes, EC2 and Prometheus: tens of milliseconds, seconds in trouble.
const TURNS: [f64; 11] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// A plan is pure computation.
const PLANS: [f64; 10] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 1.0];
/// From a condition that somebody waits on to our reaction: a second is the goal.
const REACTIONS: [f64; 11] = [0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0, 15.0, 60.0];
/// A machine boots in one to five minutes; at `operations.join_timeout` it is given back.
const JOINS: [f64; 13] = [10.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0, 240.0, 300.0, 420.0, 600.0, 900.0];

/// Takes measurements. Clones share what they count.
#[derive(Clone, Debug)]
pub struct Instruments {
    turns: Histograms,
    plans: Histogram,
    audit_refusals: Counters,
    unschedulable_to_launch: Histogram,
    joins: Histogram,
    launched: Counters,
    retired: Counters,
    failures: Counters,
    rollbacks: Counters,
    notices: Counters,
    interruptions: Counters,
    notice_to_cordon: Histogram,
    port_failures: Counters,
    told: Counters,
    happenings: broadcast::Sender<Arc<Happening>>,
}

impl Instruments {
    /// Builds them into the registry.
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            turns: {
                let family = Histograms::new_with_constructor(|| Histogram::new(TURNS));
                add(registry, &catalogue::TURN_DURATION, family.clone());
                family
            },
            plans: histogram(registry, &catalogue::PLAN_DURATION, &PLANS),
            audit_refusals: counters(registry, &catalogue::AUDIT_REFUSALS),
            unschedulable_to_launch: histogram(registry, &catalogue::UNSCHEDULABLE_TO_LAUNCH, &REACTIONS),
            joins: histogram(registry, &catalogue::JOIN_DURATION, &JOINS),
            launched: counters(registry, &catalogue::INSTANCES_LAUNCHED),
            retired: counters(registry, &catalogue::INSTANCES_RETIRED),
            failures: counters(registry, &catalogue::OPERATION_FAILURES),
            rollbacks: counters(registry, &catalogue::DRAIN_ROLLBACKS),
            notices: counters(registry, &catalogue::NOTICES),
            interruptions: counters(registry, &catalogue::INTERRUPTIONS),
            notice_to_cordon: histogram(registry, &catalogue::NOTICE_TO_CORDON, &REACTIONS),
            port_failures: counters(registry, &catalogue::PORT_FAILURES),
            told: counters(registry, &catalogue::TOLD),
            happenings: broadcast::Sender::new(HAPPENINGS_KEPT),
        }
    }
}

impl Instruments {
    /// Listens to what happens from now on. Who falls behind by more than `HAPPENINGS_KEPT` loses the oldest, and is
    /// told how many.
    #[must_use]
    pub fn happenings(&self) -> broadcast::Receiver<Arc<Happening>> {
        self.happenings.subscribe()
    }
}

impl Telemetry for Instruments {
    fn record(&self, measurement: Measurement) {
        match measurement {
            Measurement::Turn { trigger, took } => {
                self.turns.get_or_create(&vec![("trigger", trigger.to_owned())]).observe(took.as_secs_f64());
            }
            Measurement::Planned { took } => self.plans.observe(took.as_secs_f64()),
            Measurement::AuditRefused { invariant } => count(&self.audit_refusals, [("invariant", invariant)], 1),
            Measurement::UnschedulableToLaunch { took } => self.unschedulable_to_launch.observe(took.as_secs_f64()),
            Measurement::Joined { took } => self.joins.observe(took.as_secs_f64()),
            Measurement::ScaledUp { pool, market, instances } => {
                count(&self.launched, [("pool", pool.as_str()), ("market", &market.to_string())], u64::from(instances));
            }
            Measurement::ScaledDown { pool, reason } => count(&self.retired, [("pool", pool.as_str()), ("reason", reason)], 1),
            Measurement::OperationFailed { kind, failure } => count(&self.failures, [("kind", kind), ("failure", failure)], 1),
            Measurement::RolledBack { pool } => count(&self.rollbacks, [("pool", pool.as_str())], 1),
            Measurement::NoticeReceived { kind } => count(&self.notices, [("kind", kind)], 1),
            Measurement::Interrupted { pool } => count(&self.interruptions, [("pool", pool.as_str())], 1),
            Measurement::NoticeToCordon { took } => self.notice_to_cordon.observe(took.as_secs_f64()),
            Measurement::PortFailed { port, class } => count(&self.port_failures, [("port", port), ("class", class)], 1),
            Measurement::Told { outlet, outcome, number } => count(&self.told, [("outlet", outlet), ("outcome", outcome)], number),
        }
    }

    fn tell(&self, happening: Happening) {
        // Nobody listens where nothing is configured.
        let _ = self.happenings.send(Arc::new(happening));
    }
}

fn count<const N: usize>(counters: &Counters, labels: [(&'static str, &str); N], by: u64) {
    let labels: Labels = labels.into_iter().map(|(key, value)| (key, value.to_owned())).collect();
    counters.get_or_create(&labels).inc_by(by);
}

fn counters(registry: &mut Registry, entry: &Entry) -> Counters {
    let counters = Counters::default();
    add(registry, entry, counters.clone());
    counters
}

fn histogram(registry: &mut Registry, entry: &Entry, buckets: &[f64]) -> Histogram {
    let histogram = Histogram::new(buckets.iter().copied());
    add(registry, entry, histogram.clone());
    histogram
}

fn add(registry: &mut Registry, entry: &Entry, metric: impl prometheus_client::registry::Metric) {
    registry.register(entry.family(), entry.help, metric);
}
