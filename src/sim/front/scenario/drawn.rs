//! Worlds that are drawn from a seed.

use super::{MIB, PEACE, Scenario, base_policy, base_pool, settings, span};
use crate::control::settings::Lease;
use crate::model::offer::HourlyPrice;
use crate::model::plan::OnDrainTimeout;
use crate::model::scheduling::{
    Constraints, HOSTNAME_LABEL, Labels, Operator, PodAffinityTerm, Requirement, Selector, SpreadConstraint, Taint, TaintEffect,
    Toleration, ZONE_LABEL,
};
use crate::model::snapshot::DaemonSet;
use crate::model::{Bytes, MilliCpu, Resources, Zone};
use crate::policy::schedule::Schedule;
use crate::policy::{AtOnce, BoundsSchedule, Disruption, ForecastRule, Headroom, MetricGoal, MetricRule, Settings as Policy};
use crate::sim::ec2::{KINDS, Kind, PoolSpec, volumes};
use crate::sim::faults::{Fault, plan};
use crate::sim::prometheus::CORES;
use crate::sim::streams::{self, Purpose};
use crate::sim::workload::{Curve, Workload};
use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

impl Scenario {
    /// Draws a world from a seed. `allowed` are the faults that may come.
    #[must_use]
    pub fn from_seed(seed: u64, hours: f64, allowed: &[Fault]) -> Self {
        let mut random = streams::open(seed, Purpose::Scenario);
        let zones: Vec<Zone> =
            ["a", "b", "c"].iter().take(random.random_range(2..=3)).map(|zone| Zone::new(format!("eu-central-1{zone}"))).collect();
        let pools = pools(&mut random);
        let policy = policy(&mut random, &pools);
        let workloads = workloads(&mut random, &policy, &pools, hours);
        let mut rollouts = Vec::new();
        for workload in 0..workloads.len() {
            if random.random_bool(0.2) {
                rollouts.push((workload, span(hours * random.random_range(0.1..0.5))));
            }
        }
        let workers = policy.pools[0].min;
        let mut settings = settings(policy);
        let heartbeat = *[3, 6, 10].choose(&mut random).unwrap_or(&3);
        settings.lease = Lease { duration: Duration::from_secs(20 * heartbeat / 3), heartbeat: Duration::from_secs(heartbeat) };
        let mut scenario = Self {
            seed,
            hours,
            faults: Vec::new(),
            controllers: if random.random_bool(0.5) { 2 } else { 1 },
            settings,
            zones,
            pools,
            workloads,
            daemon_sets: daemon_sets(&mut random),
            workers,
            keeps_a_worker: false,
            new_template_at: None,
            recommends: false,
            attaches: None,
            company: true,
            boot: (Duration::from_secs(random.random_range(25..50)), Duration::from_secs(random.random_range(50..110))),
            reclaims_per_hour: if random.random_bool(0.5) { random.random_range(0.0..0.05) } else { 0.0 },
            late_calls: 0.0,
            phase: Duration::from_secs(random.random_range(0..7 * 24) * 3600),
            rollouts,
            peace_from: Some(span(hours * PEACE)),
            plant: None,
        };
        scenario.late_calls = if random.random_bool(0.5) { random.random_range(0.0..0.03) } else { 0.0 };
        scenario.team(&mut random);
        scenario.settings.policy.scale_down.share_at_once = *[0.1, 0.3, 1.0].choose(&mut random).unwrap_or(&0.1);
        scenario.faults = plan::faults(seed, hours, span(hours * PEACE), allowed);
        scenario.extras(&mut streams::open(seed, Purpose::Extras));
        scenario
    }

    /// Adds what some clusters have: pods that keep their nodes, important ones, headroom, budgets, an age for nodes, a forecast, volumes, a metric.
    fn extras(&mut self, random: &mut ChaCha8Rng) {
        let keeps = random.random_range(0..6);
        let important = random.random_bool(0.2);
        if let Some(workload) = self.workloads.last_mut() {
            workload.do_not_disrupt = keeps == 0;
            workload.safe_to_evict = (keeps == 1).then_some(false);
            workload.priority = if important { 1000 } else { 0 };
        }
        self.keeps_a_worker = random.random_bool(0.15);
        let pool = &mut self.settings.policy.pools[0];
        if random.random_bool(0.2) {
            let each = Resources { cpu: MilliCpu(500), memory: Bytes(512 * MIB), pods: 1, ..Resources::default() };
            pool.headroom.push(Headroom { pods: random.random_range(1..=3), each, schedule: None });
        }
        if random.random_bool(0.2) {
            pool.max_node_age = Some(Duration::from_hours(random.random_range(3..=12)));
        }
        if random.random_bool(0.2) {
            let nodes = if random.random_bool(0.5) { AtOnce::Nodes(1) } else { AtOnce::Share(0.2) };
            pool.disruption.push(Disruption { nodes, reasons: None, schedule: None });
        }
        if random.random_bool(0.2) {
            self.settings.policy.replacement = None;
        }
        if random.random_bool(0.15) {
            self.new_template_at = Some(span(self.hours * random.random_range(0.1..0.4)));
        }
        self.recommends = random.random_bool(0.3);
        if random.random_bool(0.15) {
            let (pool, per_node) = (self.settings.policy.pools[0].name.clone(), random.random_range(1.0..3.0));
            self.settings.policy.forecasts.push(ForecastRule { name: "cores".into(), pool, query: CORES.into(), per_node });
        }
        if random.random_bool(0.15)
            && let Some(workload) = self.workloads.first_mut()
        {
            self.attaches = Some(random.random_range(1..=4));
            workload.requests.extended.insert(volumes(), 1);
        }
        if random.random_bool(0.15) {
            let (query, goal) = if random.random_bool(0.5) {
                (CORES, MetricGoal::PerNode(random.random_range(1.0..3.0)))
            } else {
                ("cpu", MetricGoal::Threshold(random.random_range(0.5..0.9)))
            };
            let (pool, sustain) = (self.settings.policy.pools[0].name.clone(), Duration::from_secs(60 * random.random_range(2..=6)));
            self.settings.policy.metrics.push(MetricRule { name: "metric".into(), pool, query: query.into(), goal, sustain });
        }
    }

    /// Keeps a second pool, if there is one, for some of the workloads: it is tainted, and they tolerate and want it.
    fn team(&mut self, random: &mut ChaCha8Rng) {
        let Some(pool) = self.pools.get_mut(1).filter(|_| random.random_bool(0.7)) else { return };
        let (key, value) = ("team".to_owned(), "batch".to_owned());
        pool.labels.insert(key.clone(), value.clone());
        pool.taints.push(Taint { key: key.clone(), value: value.clone(), effect: TaintEffect::NoSchedule });
        for workload in self.workloads.iter_mut().skip(1).step_by(2) {
            let mut constraints = Constraints::clone(&workload.constraints);
            constraints.tolerations.push(Toleration { key: Some(key.clone()), value: Some(value.clone()), effect: None });
            let operator = Operator::In(BTreeSet::from([value.clone()]));
            constraints.node_selector.0.push(Requirement { key: key.clone(), operator });
            workload.constraints = Arc::new(constraints);
        }
    }
}

fn pools(random: &mut ChaCha8Rng) -> Vec<PoolSpec> {
    let number = if random.random_bool(0.2) { 2 } else { 1 };
    let spec = |random: &mut ChaCha8Rng, index: usize| {
        let mut types: Vec<&'static str> = KINDS.iter().map(|kind| kind.name).collect();
        types.shuffle(random);
        types.truncate(random.random_range(1..=4));
        // Every pod of the world fits the smallest of these.
        if types == ["t3.medium"] {
            types.push("m5.large");
        }
        PoolSpec { name: format!("pool-{index}").as_str().into(), types, labels: Labels::new(), taints: Vec::new() }
    };
    (0..number).map(|index| spec(random, index)).collect()
}

fn policy(random: &mut ChaCha8Rng, pools: &[PoolSpec]) -> Policy {
    let pool = |random: &mut ChaCha8Rng, spec: &PoolSpec| {
        let mut pool = base_pool(spec.name.as_str());
        pool.max = random.random_range(4..=12);
        pool.min = random.random_range(1..=3);
        pool.on_demand_base = random.random_range(0..=2);
        pool.spot_share = *[0.0, 0.5, 0.7, 1.0].choose(random).unwrap_or(&0.7);
        pool.on_drain_timeout = if random.random_bool(0.3) { OnDrainTimeout::Force } else { OnDrainTimeout::RollBack };
        if random.random_bool(0.15)
            && let Ok(schedule) = Schedule::new("0 21 * * *", "0 9 * * *", "Europe/Berlin")
        {
            pool.schedules = vec![BoundsSchedule { schedule, min: pool.min, max: pool.max.div_ceil(2).max(pool.min) }];
        }
        pool
    };
    let settings = pools.iter().map(|spec| pool(random, spec)).collect();
    let mut policy = base_policy(settings);
    policy.replace_interrupted_while_paused = random.random_bool(0.3);
    if random.random_bool(0.1) {
        policy.price_ceiling = Some(HourlyPrice(random.random_range(600_000..2_500_000)));
    }
    policy
}

fn workloads(random: &mut ChaCha8Rng, policy: &Policy, pools: &[PoolSpec], hours: f64) -> Vec<Workload> {
    let number = random.random_range(2..=5);
    let kind = pools[0].types.iter().filter_map(|name| Kind::named(name)).min_by_key(|kind| kind.milli_cpu).unwrap_or(KINDS[1]);
    let cores = f64::from(policy.pools[0].max) * kind.allocatable().cpu.cores();
    (0..number)
        .map(|index| {
            let milli = random.random_range(1..=6) * 200;
            let requests = Resources {
                cpu: MilliCpu(milli),
                memory: Bytes(random.random_range(1..=8) * 192 * MIB),
                ephemeral_storage: Bytes::default(),
                pods: 1,
                extended: BTreeMap::new(),
            };
            let share = cores * random.random_range(0.1..0.9) / f64::from(number);
            let mut workload = Workload::new(
                &format!("app-{index}"),
                requests,
                curve(random, share, hours),
                MilliCpu(milli).cores() * random.random_range(0.4..0.9),
            );
            workload.most = 60;
            workload.grace = Duration::from_secs(random.random_range(2..45));
            workload.max_unavailable = if random.random_bool(0.6) { Some(random.random_range(1..=2)) } else { None };
            workload.memory_share = random.random_range(0.3..0.8);
            workload.constraints = constraints(random, &workload.labels);
            if !workload.constraints.pod_anti_affinity.is_empty() {
                workload.most = policy.pools[0].min.max(2);
            }
            workload
        })
        .collect()
}

fn curve(random: &mut ChaCha8Rng, share: f64, hours: f64) -> Curve {
    match random.random_range(0..6) {
        0 => Curve::Constant(share),
        1 => Curve::Cron {
            every: Duration::from_secs(random.random_range(1..5) * 1800),
            length: Duration::from_secs(random.random_range(1..15) * 60),
            height: share,
        },
        2 => {
            let sale = Curve::FlashSale {
                at: span(hours * random.random_range(0.1..0.5)),
                height: share,
                half_life: Duration::from_secs(random.random_range(10..60) * 60),
            };
            Curve::Sum(vec![Curve::Constant(share * 0.2), sale])
        }
        _ => Curve::Daily { low: share * 0.15, high: share, peak_hour: random.random_range(9.0..19.0), weekend: 0.6 },
    }
}

fn constraints(random: &mut ChaCha8Rng, labels: &Arc<Labels>) -> Arc<Constraints> {
    let own = Selector(
        labels
            .iter()
            .map(|(key, value)| crate::model::scheduling::Requirement {
                key: key.clone(),
                operator: crate::model::scheduling::Operator::In(BTreeSet::from([value.clone()])),
            })
            .collect(),
    );
    let mut constraints = Constraints::default();
    match random.random_range(0..10) {
        0 => {
            let term = PodAffinityTerm {
                selector: Some(own),
                namespaces: Some(BTreeSet::from(["default".into()])),
                topology_key: HOSTNAME_LABEL.into(),
            };
            constraints.pod_anti_affinity.push(term);
        }
        1 => constraints.spread.push(SpreadConstraint {
            topology_key: ZONE_LABEL.into(),
            max_skew: 1,
            selector: own,
            min_domains: None,
            ignores_node_affinity: false,
            honors_taints: false,
        }),
        _ => {}
    }
    Arc::new(constraints)
}

fn daemon_sets(random: &mut ChaCha8Rng) -> Vec<DaemonSet> {
    let set = |name: &str, milli| DaemonSet {
        namespace: "kube-system".into(),
        name: name.into(),
        labels: Labels::new(),
        requests: Resources { cpu: MilliCpu(milli), memory: Bytes(64 * MIB), pods: 1, ..Resources::default() },
        constraints: Constraints::default(),
    };
    [("node-exporter", 50), ("log-shipper", 100)]
        .into_iter()
        .filter(|_| random.random_bool(0.5))
        .map(|(name, milli)| set(name, milli))
        .collect()
}
