//! A cluster, its workloads and its troubles, drawn from a seed.

mod drawn;

use super::super::dynamodb::TODAY;
use super::super::ec2::{Ec2, KINDS, Kind, PoolSpec, node_labels};
use super::super::faults::{Fault, Faults, Planned};
use super::super::oracle::{Oracle, Promises};
use super::super::plants::Plant;
use super::super::trace::Trace;
use super::super::universe::{Beginning, Truth};
use super::super::workload::{Curve, Workload};
use crate::control::Settings;
use crate::control::settings::{Lease, Operations, Template};
use crate::model::ids::Epoch;
use crate::model::instance::{InstanceState, tags};
use crate::model::plan::OnDrainTimeout;
use crate::model::scheduling::{Constraints, HOSTNAME_LABEL, Labels, Taint, TaintEffect, ZONE_LABEL};
use crate::model::snapshot::DaemonSet;
use crate::model::{Bytes, Market, MilliCpu, PoolName, Resources, Zone};
use crate::policy::{
    Consolidation, OfferRest, PoolSettings, Predictive, PredictiveMode, Replacement, ScaleDown, ScaleUp, Settings as Policy,
};
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::time::Duration;

/// A Monday at midnight: the world begins so much later as its phase says.
const BEGIN: i64 = 1_772_409_600;
/// What is left of the load at the end is constant.
const PEACE: f64 = 0.62;
const MIB: u64 = 1 << 20;

/// A whole world, before it begins.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Which.
    pub seed: u64,
    /// How long it is watched.
    pub hours: f64,
    /// What goes wrong, and when.
    pub faults: Vec<Planned>,
    /// How many controllers there are: a leader, and a standby perhaps.
    pub controllers: usize,
    /// What the controllers are told.
    pub settings: Settings,
    /// The zones.
    pub zones: Vec<Zone>,
    /// What the pools may buy.
    pub pools: Vec<PoolSpec>,
    /// What runs.
    pub workloads: Vec<Workload>,
    /// What comes to every node.
    pub daemon_sets: Vec<DaemonSet>,
    /// Workers that are there from the beginning.
    pub workers: u32,
    /// The server takes pods too, and a machine of somebody else is a node.
    pub company: bool,
    /// The first of the workers is annotated so that it must not be removed.
    pub keeps_a_worker: bool,
    /// When the launch templates get a second version.
    pub new_template_at: Option<Duration>,
    /// EC2 recommends to replace a machine before the market takes it back.
    pub recommends: bool,
    /// How many volumes a node attaches; `None` is as many as it likes.
    pub attaches: Option<u64>,
    /// How long machines boot.
    pub boot: (Duration, Duration),
    /// How often the market takes a spot machine back, per machine and hour.
    pub reclaims_per_hour: f64,
    /// The share of changes that take up to seconds to arrive.
    pub late_calls: f64,
    /// Where in the week it begins.
    pub phase: Duration,
    /// When workloads begin to replace all their pods.
    pub rollouts: Vec<(usize, Duration)>,
    /// From when on nothing goes wrong and the load stays as it is; `None` is never.
    pub peace_from: Option<Duration>,
    /// The bug that the controllers have, to show that the oracle sees it.
    pub plant: Option<Plant>,
}

/// Why no world can be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScenarioError {
    /// Nothing can be bought.
    #[error("pool {pool} offers nothing: it names no instance type that the world sells (one of {known})")]
    NoOffers {
        /// The pool.
        pool: PoolName,
        /// What is sold.
        known: String,
    },
    /// The bounds cannot be kept.
    #[error("pool {pool} wants at least {min} and at most {max} workers; min must not be above max, and max must be at least 1")]
    Bounds {
        /// The pool.
        pool: PoolName,
        /// The minimum.
        min: u32,
        /// The maximum.
        max: u32,
    },
    /// There is nowhere to be.
    #[error("the world has no zones; at least one is needed")]
    NoZones,
}

impl Scenario {
    /// A calm cluster of one pool that stays as large as it is: what is left when nothing happens.
    #[must_use]
    pub fn quiet(seed: u64, hours: f64, workers: u32) -> Self {
        let pools = vec![PoolSpec { name: "workers".into(), types: vec!["m5.large"], labels: Labels::new(), taints: Vec::new() }];
        let mut policy = base_policy(vec![base_pool("workers")]);
        policy.pools[0].min = workers;
        policy.pools[0].max = workers + 10;
        let requests = Resources { cpu: MilliCpu(250), memory: Bytes(512 * MIB), pods: 1, ..Resources::default() };
        let load = f64::from(workers) * 0.8;
        let workload = Workload::new("web", requests, Curve::Constant(load), 0.2);
        Self {
            seed,
            hours,
            faults: Vec::new(),
            controllers: 1,
            settings: settings(policy),
            zones: vec!["eu-central-1a".into(), "eu-central-1b".into()],
            pools,
            workloads: vec![workload],
            daemon_sets: Vec::new(),
            workers,
            keeps_a_worker: false,
            new_template_at: None,
            recommends: false,
            attaches: None,
            company: true,
            boot: (Duration::from_secs(40), Duration::from_mins(1)),
            reclaims_per_hour: 0.0,
            late_calls: 0.0,
            phase: Duration::ZERO,
            rollouts: Vec::new(),
            peace_from: None,
            plant: None,
        }
    }

    /// A cluster for a script: one pool of these types in these zones, no worker yet, and workloads of no pods: their
    /// names, what each pod would request, and how long it would take to end.
    #[must_use]
    pub fn bare(settings: Settings, zones: &[&str], types: Vec<&'static str>, workloads: &[(&'static str, Resources, Duration)]) -> Self {
        let idle = |(name, requests, grace): &(&'static str, Resources, Duration)| {
            let cores = requests.cpu.cores();
            let mut workload = Workload::new(name, requests.clone(), Curve::Constant(0.0), cores);
            (workload.least, workload.most, workload.max_unavailable, workload.grace) = (0, 0, None, *grace);
            workload
        };
        let name = settings.policy.pools.first().map(|pool| pool.name.clone()).unwrap_or_default();
        Self {
            zones: zones.iter().map(|zone| Zone::new(*zone)).collect(),
            pools: vec![PoolSpec { name, types, labels: Labels::new(), taints: Vec::new() }],
            workloads: workloads.iter().map(idle).collect(),
            workers: 0,
            company: false,
            boot: (Duration::from_secs(1), Duration::from_secs(2)),
            settings,
            ..Self::quiet(1, 24.0, 0)
        }
    }

    /// A large cluster under a daily load: so many nodes with so many pods at its peak.
    #[must_use]
    pub fn large(seed: u64, hours: f64, nodes: u32, pods: u32) -> Self {
        let mut scenario = Self::quiet(seed, hours, nodes);
        let each = f64::from(nodes) * 1.9 * 0.8 / f64::from(pods);
        let requests = Resources { cpu: MilliCpu(milli(each * 1000.0)), memory: Bytes(128 * MIB), pods: 1, ..Resources::default() };
        let high = each * f64::from(pods) * 0.9;
        let curve = Curve::Daily { low: high * 0.9, high, peak_hour: hours / 2.0, weekend: 1.0 };
        let mut workload = Workload::new("web", requests, curve, each * 0.9);
        workload.most = pods;
        scenario.workloads = vec![workload];
        // The kubelet's usual limit is far above what these types take on EC2.
        scenario.pools[0].types = vec!["m5.2xlarge"];
        scenario
    }

    /// A shop on its first day: a daily curve, jobs by the hour, a flash sale and an interrupted spot instance on the way.
    #[must_use]
    pub fn shop(seed: u64, hours: f64) -> Self {
        let types = vec!["m5.large", "m6i.large", "m5.xlarge", "m6i.xlarge"];
        let pools = vec![PoolSpec { name: "workers".into(), types, labels: Labels::new(), taints: Vec::new() }];
        let mut policy = base_policy(vec![base_pool("workers")]);
        policy.pools[0].max = 16;
        let pod = |milli, mib| Resources { cpu: MilliCpu(milli), memory: Bytes(mib * MIB), pods: 1, ..Resources::default() };
        let minutes = |number: u64| Duration::from_secs(number * 60);
        let daily = |low, high, peak_hour| Curve::Daily { low, high, peak_hour, weekend: 0.6 };
        let sale = Curve::FlashSale { at: minutes(150), height: 7.0, half_life: minutes(25) };
        let jobs = Curve::Cron { every: minutes(60), length: minutes(12), height: 3.0 };
        let web = Workload::new("web", pod(250, 256), daily(1.0, 6.0, 14.0), 0.18);
        let api = Workload::new("api", pod(500, 512), daily(0.8, 4.0, 15.0), 0.35);
        let checkout = Workload::new("checkout", pod(500, 384), Curve::Sum(vec![Curve::Constant(0.5), sale]), 0.35);
        let mut reports = Workload::new("reports", pod(1000, 1024), jobs, 0.9);
        (reports.max_unavailable, reports.least) = (None, 0);
        Self {
            faults: vec![Planned { fault: Fault::SpotStorm, at: minutes(330), lasts: minutes(2) }],
            workloads: vec![web, api, checkout, reports],
            daemon_sets: vec![DaemonSet {
                namespace: "kube-system".into(),
                name: "node-exporter".into(),
                labels: Labels::new(),
                requests: pod(50, 64),
                constraints: Constraints::default(),
            }],
            settings: settings(policy),
            zones: ["a", "b", "c"].iter().map(|zone| Zone::new(format!("eu-central-1{zone}"))).collect(),
            pools,
            controllers: 2,
            workers: 2,
            reclaims_per_hour: 0.02,
            phase: Duration::from_hours(7),
            ..Self::quiet(seed, hours, 2)
        }
    }

    /// The shop's cluster with recorded demand in place of its workloads: `trace` in cores once multiplied by `factor`.
    /// It begins at that time of the week at which the recording does.
    #[must_use]
    pub fn recorded(seed: u64, hours: f64, trace: &Trace, factor: f64) -> Self {
        let curve = Curve::Trace(trace.filled(factor).into());
        let requests = Resources { cpu: MilliCpu(500), memory: Bytes(512 * MIB), pods: 1, ..Resources::default() };
        let mut scenario = Self::shop(seed, hours);
        scenario.workloads = vec![Workload::new("recorded", requests, curve, 0.4)];
        scenario.faults.clear();
        scenario.phase = trace.phase();
        scenario
    }

    /// Says what is impossible about this world.
    ///
    /// # Errors
    /// What is impossible.
    pub fn check(&self) -> Result<(), ScenarioError> {
        if self.zones.is_empty() {
            return Err(ScenarioError::NoZones);
        }
        for pool in &self.pools {
            if !pool.types.iter().any(|name| Kind::named(name).is_some()) {
                let known = KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", ");
                return Err(ScenarioError::NoOffers { pool: pool.name.clone(), known });
            }
        }
        for pool in &self.settings.policy.pools {
            if pool.min > pool.max || pool.max == 0 {
                return Err(ScenarioError::Bounds { pool: pool.name.clone(), min: pool.min, max: pool.max });
            }
        }
        Ok(())
    }

    /// Gives how long it is watched.
    #[must_use]
    pub fn length(&self) -> Duration {
        span(self.hours)
    }

    /// Makes what the world begins with.
    pub(in super::super) fn beginning(&self) -> Beginning {
        let monday = Timestamp::from_second(BEGIN).unwrap_or(Timestamp::UNIX_EPOCH);
        let start = monday + jiff::SignedDuration::try_from(self.phase).unwrap_or_default();
        let mut ec2 = Ec2::new(&self.settings.cluster, self.zones.clone(), self.pools.clone());
        for pool in &self.pools {
            for kind in &pool.types {
                for zone in &self.zones {
                    ec2.set_spot_ratio((*kind).into(), zone.clone(), 0.35);
                }
            }
        }
        (ec2.new_template_at, ec2.recommends, ec2.attaches) = (self.new_template_at, self.recommends, self.attaches);
        let promises = Promises {
            policy: self.settings.policy.clone(),
            drain_timeout: self.settings.operations.drain_timeout,
            interruption_margin: self.settings.operations.interruption_margin,
            lease: self.settings.lease.duration,
        };
        Beginning {
            seed: self.seed,
            start,
            ec2,
            workloads: self.workloads.clone(),
            phase: self.phase,
            boot: self.boot,
            reclaims_per_hour: self.reclaims_per_hour,
            late_calls: self.late_calls,
            builds: vec![TODAY; self.controllers],
            faults: Faults::new(self.faults.clone()),
            oracle: Oracle::new(promises),
        }
    }

    /// Puts servers, the first workers and strangers into the world.
    pub(in super::super) fn populate(&self, truth: &mut Truth) {
        truth.kubernetes.daemon_sets.clone_from(&self.daemon_sets);
        let zone = self.zones[0].clone();
        let server = truth.stranger(zone.clone());
        let kind = KINDS[1];
        let labels = |name: &str| Labels::from([(HOSTNAME_LABEL.to_owned(), name.to_owned()), (ZONE_LABEL.to_owned(), zone.to_string())]);
        let mut node = truth.new_node("server-0".into(), Some(server), kind, labels("server-0"), Vec::new());
        node.control_plane = true;
        if !self.company {
            node.taints.push(foreign_taint());
        }
        truth.adds_node(node);
        if self.company {
            let stranger = truth.stranger(zone.clone());
            let node = truth.new_node("stranger".into(), Some(stranger), kind, labels("stranger"), vec![foreign_taint()]);
            truth.adds_node(node);
        }
        for (index, pool) in (0..self.workers).zip(std::iter::repeat(&self.pools[0])) {
            let zone = self.zones[index as usize % self.zones.len()].clone();
            let Some(kind) = pool.types.iter().find_map(|name| Kind::named(name)) else { continue };
            let operation = format!("op-begin-{index}").as_str().into();
            let tags = tags(&self.settings.cluster, &pool.name, &operation, Epoch(0), &format!("lt-{}:1", pool.name));
            let id = truth.ec2.add(kind, zone.clone(), Market::OnDemand, kind.price, tags, Duration::ZERO);
            if let Some(machine) = truth.ec2.machines.get_mut(&id) {
                machine.state = InstanceState::Running;
                machine.visible = Duration::ZERO;
            }
            let name = super::super::life::name_of(&id);
            let labels = node_labels(pool, kind, &zone, Market::OnDemand, Some(name.as_str()));
            let mut node = truth.new_node(name, Some(id), kind, labels, pool.taints.clone());
            node.keep = (self.keeps_a_worker && index == 0).then(|| "node-fleet.io/do-not-remove".into());
            truth.adds_node(node);
        }
    }
}

fn foreign_taint() -> Taint {
    Taint { key: "somebody-else".into(), value: "yes".into(), effect: TaintEffect::NoSchedule }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a pod takes less than a machine")]
fn milli(thousandths: f64) -> u64 {
    thousandths.clamp(1.0, 1e9) as u64
}

fn span(hours: f64) -> Duration {
    Duration::from_secs_f64((hours * 3600.0).max(0.0))
}

pub(in crate::sim) fn base_pool(name: &str) -> PoolSettings {
    PoolSettings {
        name: name.into(),
        min: 2,
        max: 10,
        schedules: Vec::new(),
        headroom: Vec::new(),
        disruption: Vec::new(),
        max_node_age: None,
        on_demand_base: 1,
        spot_share: 0.7,
        on_drain_timeout: OnDrainTimeout::RollBack,
    }
}

pub(in crate::sim) fn base_policy(pools: Vec<PoolSettings>) -> Policy {
    let minutes = Duration::from_mins;
    Policy {
        pools,
        metrics: Vec::new(),
        forecasts: Vec::new(),
        predictive: Predictive {
            mode: PredictiveMode::On,
            price_of_waiting: 20.0,
            boot: minutes(2),
            zone: jiff::tz::TimeZone::UTC,
            #[cfg(test)]
            wrecked: None,
        },
        scale_up: ScaleUp {
            cpu_above: 0.7,
            cpu_target: 0.6,
            cpu_sustain: minutes(4),
            memory_above: 0.75,
            memory_target: 0.65,
            memory_sustain: minutes(4),
            cooldown: minutes(5),
        },
        scale_down: ScaleDown {
            enabled: true,
            cpu_below: 0.3,
            memory_below: 0.5,
            sustain: minutes(10),
            cooldown: minutes(10),
            longest_cooldown: Duration::from_hours(6),
            min_node_age: minutes(10),
            share_at_once: 0.1,
            most_at_once: 50,
        },
        consolidation: Some(Consolidation { cpu_below: 0.5, memory_below: 0.6, sustain: minutes(30) }),
        replacement: Some(Replacement {
            saving_lasts: Duration::from_hours(12),
            least_saving: 0.15,
            price_of_a_move: 0.002,
            balances_zones: true,
            drifted: true,
            recommended: true,
        }),
        rest: OfferRest {
            first: minutes(5),
            longest: minutes(60),
            stop_after_never_joined: 3,
            stopped: Duration::from_hours(2),
            node: minutes(30),
        },
        interval: minutes(2),
        max_unready_share: 0.2,
        min_coverage: 1.0,
        price_ceiling: None,
        replace_interrupted_while_paused: false,
        stray_grace: minutes(10),
        unhealthy_after: minutes(15),
        join_timeout: minutes(5),
        startup_taints: BTreeSet::new(),
        critical_priority: 1_000_000_000,
        expendable_below: -10,
    }
}

fn settings(policy: Policy) -> Settings {
    let templates = policy.pools.iter().map(|pool| (pool.name.clone(), Template { template: format!("lt-{}", pool.name), version: None }));
    Settings {
        cluster: "simulated".into(),
        owner: String::new(),
        lease: Lease { duration: Duration::from_secs(20), heartbeat: Duration::from_secs(3) },
        operations: Operations {
            request_timeout: Duration::from_secs(5),
            join_timeout: policy.join_timeout,
            drain_timeout: Duration::from_mins(5),
            retry: Duration::from_secs(1),
            interruption_margin: Duration::from_secs(30),
            batch: Duration::from_millis(100),
        },
        templates: templates.collect(),
        policy,
    }
}
