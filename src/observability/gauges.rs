//! Shows the controller's latest status as gauges, at the moment somebody asks.

use super::catalogue::{self, Entry, Kind};
use crate::control::status::{Role, Standing, Status, Way};
use crate::model::spend::{Cost, SeriesCost};
use crate::model::{Hold, LaunchState, Operation, Plan, PoolName, PoolReport};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Alerts that are shown as 0 while they are silent, so that a rule on them has something to see.
const KNOWN_ALERTS: [&str; 11] = [
    "account_limit",
    "drain_failed",
    "forecast_blind",
    "node_differs",
    "node_unidentified",
    "object_refused",
    "offer_stopped",
    "scheduler_disagrees",
    "spot_exhausted",
    "stray_left_alone",
    "token_mismatch",
];

type Labels<'a> = Vec<(&'static str, &'a str)>;
type Sample<'a> = (Labels<'a>, f64);

/// Reads the status when it is asked.
#[derive(Debug)]
pub(super) struct Gauges {
    status: watch::Receiver<Arc<Status>>,
    interval: Duration,
}

impl Gauges {
    /// `interval` is the evaluation's.
    pub(super) fn new(status: watch::Receiver<Arc<Status>>, interval: Duration) -> Self {
        Self { status, interval }
    }
}

impl Collector for Gauges {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let status = self.status.borrow().clone();
        let mut page = Page(encoder);
        if let Some(plan) = &status.plan {
            pools(&mut page, plan, &status.operations)?;
            fleet(&mut page, plan)?;
        }
        if let Some(cost) = &status.cost {
            spent(&mut page, cost)?;
        }
        forecasts(&mut page, &status)?;
        operations(&mut page, &status.operations)?;
        page.one(&catalogue::EVALUATION_INTERVAL, self.interval.as_secs_f64())?;
        daemon(&mut page, &status)
    }
}

/// Writes families one after the other.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn counters(&mut self, entry: &Entry, samples: &[Sample<'_>]) -> fmt::Result {
        debug_assert_eq!(entry.kind, Kind::Counter);
        let mut family = self.0.encode_descriptor(entry.family(), entry.help, None, MetricType::Counter)?;
        for (labels, value) in samples {
            ConstCounter::new(*value).encode(family.encode_family(labels)?)?;
        }
        Ok(())
    }

    fn family(&mut self, entry: &Entry, samples: &[Sample<'_>]) -> fmt::Result {
        debug_assert_eq!(entry.kind, Kind::Gauge);
        if samples.is_empty() {
            return Ok(());
        }
        let mut family = self.0.encode_descriptor(entry.name, entry.help, None, MetricType::Gauge)?;
        if let [(labels, value)] = samples
            && labels.is_empty()
        {
            return ConstGauge::new(*value).encode(family);
        }
        for (labels, value) in samples {
            ConstGauge::new(*value).encode(family.encode_family(labels)?)?;
        }
        Ok(())
    }

    fn one(&mut self, entry: &Entry, value: f64) -> fmt::Result {
        self.family(entry, &[(Vec::new(), value)])
    }
}

fn pools(page: &mut Page<'_>, plan: &Plan, operations: &[Operation]) -> fmt::Result {
    let by_pool = |value: fn(&PoolReport) -> Option<f64>| -> Vec<Sample<'_>> {
        plan.pools.iter().filter_map(|report| Some((vec![("pool", report.pool.as_str())], value(report)?))).collect()
    };
    let nodes: Vec<Sample<'_>> = plan
        .pools
        .iter()
        .flat_map(|report| {
            // EC2 shows an instance long before it is a node: until then it boots, and nothing is wrong with it.
            let missing = report.owned.saturating_sub(report.ready);
            let booting = missing.min(joining(operations, &report.pool));
            let states = [("ready", report.ready), ("booting", booting), ("not_ready", missing - booting), ("launching", report.in_flight)];
            states.map(|(state, number)| (vec![("pool", report.pool.as_str()), ("state", state)], f64::from(number)))
        })
        .collect();
    page.family(&catalogue::NODES, &nodes)?;
    page.family(&catalogue::NODES_DESIRED, &by_pool(|report| Some(f64::from(report.desired))))?;
    page.family(&catalogue::NODES_MIN, &by_pool(|report| Some(f64::from(report.min))))?;
    page.family(&catalogue::NODES_MAX, &by_pool(|report| Some(f64::from(report.max))))?;
    page.family(&catalogue::CPU_UTILISATION, &by_pool(|report| report.cpu))?;
    page.family(&catalogue::MEMORY_UTILISATION, &by_pool(|report| report.memory))?;
    page.family(&catalogue::COST, &by_pool(|report| Some(report.price.dollars())))
}

/// Counts the instances of a pool whose launch waits for them to become nodes.
fn joining(operations: &[Operation], pool: &PoolName) -> u32 {
    let waiting = operations.iter().map(|operation| match operation {
        Operation::Launch(launch) if launch.order.pool == *pool => match &launch.state {
            LaunchState::Joining { instances, .. } => instances.iter().filter(|instance| instance.node.is_none()).count(),
            LaunchState::Journalled | LaunchState::Done { .. } | LaunchState::Failed { .. } => 0,
        },
        Operation::Launch(_) | Operation::Retire(_) => 0,
    });
    u32::try_from(waiting.sum::<usize>()).unwrap_or(u32::MAX)
}

fn spent(page: &mut Page<'_>, cost: &Cost) -> fmt::Result {
    let markets: Vec<String> = cost.totals.iter().map(|total| total.series.market.to_string()).collect();
    let each = |value: fn(&SeriesCost) -> f64| -> Vec<Sample<'_>> {
        let labels = cost.totals.iter().zip(&markets).map(|(SeriesCost { series, .. }, market)| {
            let [pool, zone, kind] = [series.pool.as_str(), series.zone.as_str(), series.instance_type.as_str()];
            vec![("pool", pool), ("market", market.as_str()), ("zone", zone), ("instance_type", kind)]
        });
        labels.zip(cost.totals.iter().map(value)).collect()
    };
    #[expect(clippy::cast_precision_loss, reason = "2^53 seconds are beyond any fleet")]
    page.counters(&catalogue::NODE_SECONDS, &each(|total| total.node_seconds as f64))?;
    page.counters(&catalogue::COST_DOLLARS, &each(|total| total.dollars))?;
    let periods = [
        ("today", Some(&cost.today)),
        ("yesterday", cost.yesterday.as_ref()),
        ("month", Some(&cost.month)),
        ("last_month", cost.last_month.as_ref()),
    ];
    let periods = periods.into_iter().filter_map(|(name, period)| Some((name, period?)));
    let samples: Vec<Sample<'_>> = periods
        .flat_map(|(name, period)| {
            let bases = [("actual", period.dollars), ("on_demand", period.on_demand_dollars), ("static_peak", period.static_peak_dollars)];
            bases.map(|(basis, dollars)| (vec![("period", name), ("basis", basis)], dollars))
        })
        .collect();
    page.family(&catalogue::SPEND, &samples)
}

fn fleet(page: &mut Page<'_>, plan: &Plan) -> fmt::Result {
    page.one(&catalogue::PENDING_PODS, f64::from(plan.pending))?;
    page.one(&catalogue::UNPLACEABLE_PODS, f64::from(plan.unplaceable_pods))?;
    let mut holds: BTreeMap<Labels<'_>, usize> = BTreeMap::new();
    for report in &plan.pools {
        for (finding, hold) in report.findings.iter().filter_map(|finding| Some((finding, finding.hold.as_ref()?))) {
            let labels = vec![("pool", report.pool.as_str()), ("rule", finding.rule.as_str()), ("hold", hold_name(hold))];
            *holds.entry(labels).or_default() += 1;
        }
    }
    for hold in &plan.holds {
        *holds.entry(vec![("pool", ""), ("rule", ""), ("hold", hold_name(hold))]).or_default() += 1;
    }
    let holds: Vec<Sample<'_>> = holds.into_iter().map(|(labels, count)| (labels, number(count))).collect();
    page.family(&catalogue::HOLDS, &holds)?;
    let mut alerts: BTreeMap<&str, f64> = KNOWN_ALERTS.into_iter().map(|name| (name, 0.0)).collect();
    alerts.extend(plan.alerts.iter().map(|alert| (alert.name.as_str(), 1.0)));
    let alerts: Vec<Sample<'_>> = alerts.into_iter().map(|(name, value)| (vec![("name", name)], value)).collect();
    page.family(&catalogue::ALERT, &alerts)
}

fn forecasts(page: &mut Page<'_>, status: &Status) -> fmt::Result {
    let (mut demand, mut nodes, mut following) = (Vec::new(), Vec::new(), Vec::new());
    let (mut loss, mut coverage, mut trusted) = (Vec::new(), Vec::new(), Vec::new());
    for (rule, forecast) in &status.forecasts {
        let rule = || ("rule", rule.as_str());
        let expected = forecast.expected.iter().flat_map(|it| [("expected", it.centre), ("p90", it.quantile_90), ("p95", it.quantile_95)]);
        let values = forecast.demand.map(|it| ("actual", it)).into_iter().chain(expected);
        demand.extend(values.map(|(kind, it)| (vec![rule(), ("value", kind)], it)));
        let bounds = forecast.wanted.iter().flat_map(|it| [("buy", it.buy), ("hold", it.hold)]);
        nodes.extend(bounds.map(|(bound, it)| (vec![("pool", forecast.pool.as_str()), rule(), ("bound", bound)], f64::from(it))));
        following.extend(Way::KINDS.map(|kind| {
            let stretches = forecast.following.iter().filter(|it| it.kind == kind);
            let count: u32 = stretches.map(|it| it.last - it.first + 1).sum();
            (vec![("pool", forecast.pool.as_str()), rule(), ("way", kind)], f64::from(count))
        }));
        loss.extend(forecast.loss_ratio.map(|it| (vec![rule()], it)));
        let shares = forecast.coverage.iter().flat_map(|[p90, p95]| [("0.90", *p90), ("0.95", *p95)]);
        coverage.extend(shares.map(|(quantile, it)| (vec![rule(), ("quantile", quantile)], it)));
        trusted.push((vec![rule()], f64::from(u8::from(forecast.standing == Standing::Trusted))));
    }
    page.family(&catalogue::FORECAST_DEMAND, &demand)?;
    page.family(&catalogue::FORECAST_NODES, &nodes)?;
    page.family(&catalogue::FORECAST_FOLLOWING, &following)?;
    page.family(&catalogue::FORECAST_LOSS_RATIO, &loss)?;
    page.family(&catalogue::FORECAST_COVERAGE, &coverage)?;
    page.family(&catalogue::FORECAST_TRUSTED, &trusted)
}

fn operations(page: &mut Page<'_>, operations: &[Operation]) -> fmt::Result {
    // A series that comes and goes with what it counts would be seen by few scrapes.
    let mut counts: BTreeMap<(&str, &str), usize> = Operation::UNDER_WAY.into_iter().map(|state| (state, 0)).collect();
    for operation in operations.iter().filter(|operation| !operation.is_over()) {
        *counts.entry((operation.kind_name(), operation.state_name())).or_default() += 1;
    }
    let sample = |((kind, state), count)| (vec![("kind", kind), ("state", state)], number(count));
    page.family(&catalogue::OPERATIONS, &counts.into_iter().map(sample).collect::<Vec<_>>())
}

fn daemon(page: &mut Page<'_>, status: &Status) -> fmt::Result {
    let flag = |flag: bool| f64::from(u8::from(flag));
    match &status.role {
        Role::Leader { epoch } => {
            page.one(&catalogue::LEADER, 1.0)?;
            #[expect(clippy::cast_precision_loss, reason = "2^53 changes of leader take longer than any cluster lives")]
            page.one(&catalogue::EPOCH, epoch.0 as f64)?;
        }
        Role::Standby { .. } => page.one(&catalogue::LEADER, 0.0)?,
    }
    page.one(&catalogue::PAUSED, flag(status.pause.is_some()))?;
    let sources: Vec<Sample<'_>> = status.sources.iter().map(|(name, source)| (vec![("source", *name)], flag(source.ok))).collect();
    page.family(&catalogue::SOURCE_UP, &sources)?;
    let prices: Vec<Sample<'_>> = status.prices_read.iter().map(|(market, at)| (vec![("market", market.name())], seconds(*at))).collect();
    page.family(&catalogue::PRICES_READ, &prices)?;
    if let Some(at) = status.last_turn {
        page.one(&catalogue::LAST_TURN, seconds(at))?;
    }
    page.one(&catalogue::RELOAD_FAILED, flag(status.reload_error.is_some()))?;
    let build = &catalogue::BUILD;
    Info::new(vec![("version", status.version)]).encode(page.0.encode_descriptor(build.family(), build.help, None, MetricType::Info)?)?;
    if let Some(bytes) = resident_memory() {
        page.one(&catalogue::RESIDENT_MEMORY, bytes)?;
    }
    page.one(&catalogue::START_TIME, seconds(status.started))
}

/// Names a hold, as its JSON does.
fn hold_name(hold: &Hold) -> &'static str {
    match hold {
        Hold::Paused { .. } => "paused",
        Hold::Blind { .. } => "blind",
        Hold::BadData { .. } => "bad_data",
        Hold::CoolingDown { .. } => "cooling_down",
        Hold::AtMaximum { .. } => "at_maximum",
        Hold::AtMinimum { .. } => "at_minimum",
        Hold::Underway { .. } => "underway",
        Hold::NotSustained { .. } => "not_sustained",
        Hold::Replacing { .. } => "replacing",
        Hold::Budget { .. } => "budget",
        Hold::Shadowed { .. } => "shadowed",
        Hold::UnreadyNodes { .. } => "unready_nodes",
        Hold::PodsWaiting { .. } => "pods_waiting",
        Hold::Wanted { .. } => "wanted",
        Hold::NoOffer { .. } => "no_offer",
        Hold::NoCandidate { .. } => "no_candidate",
    }
}

/// Reads the resident memory in bytes; `None` where the kernel does not tell.
fn resident_memory() -> Option<f64> {
    resident_of(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn resident_of(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024.0)
}

fn seconds(at: jiff::Timestamp) -> f64 {
    at.as_duration().as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "what is counted here fits into memory many times")]
fn number(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_resident_memory_from_the_kernels_words() {
        assert_eq!(resident_of("Name:\tx\nVmRSS:\t   12345 kB\nThreads:\t4\n"), Some(12_641_280.0));
        for odd in ["", "VmRSS:\t12345", "VmRSS:\tmuch kB"] {
            assert_eq!(resident_of(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_hold_has_the_name_that_its_json_has() {
        let until = jiff::Timestamp::UNIX_EPOCH;
        for hold in [
            Hold::Paused { reason: String::new() },
            Hold::Blind { why: String::new() },
            Hold::BadData { why: String::new() },
            Hold::CoolingDown { until },
            Hold::AtMaximum { max: 1 },
            Hold::AtMinimum { min: 1 },
            Hold::Underway { operation: "o".into() },
            Hold::NotSustained { since: None },
            Hold::Shadowed { buy: 1, hold_nodes: 1 },
            Hold::UnreadyNodes { unready: 1, total: 2 },
            Hold::PodsWaiting { pods: 1 },
            Hold::Wanted { rule: "cpu".into() },
            Hold::NoOffer { why: String::new() },
            Hold::NoCandidate { why: Vec::new() },
        ] {
            let json = serde_json::to_value(&hold).expect("it is plain data");
            assert_eq!(json["hold"], hold_name(&hold));
        }
    }
}
