//! Reads `[[pool]]`, `[[metric]]` and `[[forecast]]`.

use super::reader::{Rule, Section, as_text, is_label};
use super::sections::SPAN;
use super::{PoolLaunch, PricesConfig};
use crate::model::plan::{OnDrainTimeout, RetireReason};
use crate::model::scheduling::{Taint, TaintEffect};
use crate::model::{PoolName, Resources, RuleName, SubnetId, quantity};
use crate::policy::schedule::{Recurrence, Schedule, ScheduleError};
use crate::policy::{AtOnce, BoundsSchedule, Disruption, ForecastRule, Headroom, MetricGoal, MetricRule, PoolSettings};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

const LABEL: Rule = ("must be lower-case letters, digits, `-` and `_`, at most 63", is_label);
const CPU: &str = "must be an amount of CPU like \"100m\"";
const MEMORY: &str = "must be an amount of memory like \"512Mi\"";
/// Rules whose names are taken.
const OWN_RULES: [&str; 7] = ["cpu", "memory", "bounds", "pending_pods", "headroom", "scale_down", "replacement"];
const ONE_VALUE: Rule = ("must be a PromQL query that gives one value", |text| !text.trim().is_empty());
const POSITIVE: (&str, fn(f64) -> bool) = ("must be a number above 0", |number| number > 0.0 && number.is_finite());
/// From an hour to ten years.
const AGE: RangeInclusive<Duration> = Duration::from_hours(1)..=Duration::from_hours(24 * 3653);
/// More workers than this are another program's.
const MOST_WORKERS: u32 = 10_000;

/// Reads all pools: the policy's part and what a launch needs.
pub(super) fn pools(root: &Section<'_>, prices: &PricesConfig) -> (Vec<PoolSettings>, Vec<PoolLaunch>) {
    let sections = root.tables("pool");
    if sections.is_empty() {
        root.problem("pool", "is missing; at least one [[pool]] is needed".into());
    }
    let (mut settings, mut launches): (Vec<PoolSettings>, Vec<PoolLaunch>) = (Vec::new(), Vec::new());
    for section in sections {
        let name = PoolName::new(section.text("name", LABEL));
        if settings.iter().any(|other| other.name == name) {
            section.problem("name", "is the name of another pool".into());
        }
        settings.push(policy_part(&section, name.clone()));
        launches.push(launch_part(&section, name, prices));
        section.finish();
    }
    (settings, launches)
}

fn policy_part(section: &Section<'_>, name: PoolName) -> PoolSettings {
    let (min, max) = (section.count("min", 0..=MOST_WORKERS), section.count("max", 1..=MOST_WORKERS));
    if min > max {
        section.contradiction("min", &["max"], format!("must not be above {} ({max})", section.path_of("max")));
    }
    PoolSettings {
        name,
        min,
        max,
        schedules: section.tables("schedule").iter().filter_map(|entry| schedule(entry, max, &section.path_of("max"))).collect(),
        headroom: section.tables("headroom").iter().map(headroom).collect(),
        disruption: section.tables("disruption").iter().map(disruption).collect(),
        max_node_age: section.has("max_node_age").then(|| section.duration("max_node_age", AGE)),
        on_demand_base: section.count("on_demand_base", 0..=MOST_WORKERS),
        spot_share: section.share_or_none("spot_share"),
        on_drain_timeout: section.choice("on_drain_timeout", &[("roll-back", OnDrainTimeout::RollBack), ("force", OnDrainTimeout::Force)]),
    }
}

fn disruption(section: &Section<'_>) -> Disruption {
    const REASON: Rule =
        ("must be one of above_maximum, cheaper, consolidated, drifted, expired, rebalanced, recommended, underused", |text| {
            RetireReason::VOLUNTARY.contains(&text)
        });
    let nodes = match (section.has("nodes"), section.has("share")) {
        (true, false) => AtOnce::Nodes(section.count("nodes", 0..=MOST_WORKERS)),
        (false, true) => AtOnce::Share(section.share_or_none("share")),
        (true, true) | (false, false) => {
            section.problem("nodes", "exactly one of nodes and share must be set".into());
            AtOnce::Nodes(0)
        }
    };
    let disruption = Disruption {
        nodes,
        reasons: section.has("reasons").then(|| section.texts("reasons", REASON).into_iter().collect()),
        schedule: scheduled(section),
    };
    section.finish_ref();
    disruption
}

fn headroom(section: &Section<'_>) -> Headroom {
    let cpu = section.parsed("cpu", CPU, |text| quantity::cpu(text).ok()).unwrap_or_default();
    let memory = section.parsed("memory", MEMORY, |text| quantity::bytes(text).ok()).unwrap_or_default();
    let headroom = Headroom {
        pods: section.count("pods", 1..=1000),
        each: Resources { cpu, memory, pods: 1, ..Resources::default() },
        schedule: scheduled(section),
    };
    section.finish_ref();
    headroom
}

/// Reads when something holds; `None` is always.
fn scheduled(section: &Section<'_>) -> Option<Schedule> {
    let is_timed = ["start", "end", "timezone"].iter().any(|key| section.has(key));
    is_timed.then(|| times(section)).flatten()
}

fn schedule(section: &Section<'_>, pool_max: u32, pool_max_key: &str) -> Option<BoundsSchedule> {
    let schedule = times(section);
    let (min, max) = (section.count("min", 0..=MOST_WORKERS), section.count("max", 0..=MOST_WORKERS));
    if min > max {
        section.contradiction("min", &["max"], format!("must not be above {} ({max})", section.path_of("max")));
    }
    if max > pool_max {
        section.report().contradiction(&section.path_of("max"), &[pool_max_key], format!("must not be above {pool_max_key} ({pool_max})"));
    }
    section.finish_ref();
    schedule.map(|schedule| BoundsSchedule { schedule, min, max })
}

/// When something is.
const CRON: Rule = ("must be a cron pattern of five fields like \"0 21 * * *\"", is_cron);
/// Where clocks show the hour that a pattern means.
pub(super) const ZONE: Rule = ("must be an IANA time zone like \"Europe/Berlin\"", |text| {
    !matches!(Recurrence::new("0 0 * * *", text), Err(ScheduleError::Zone { .. }))
});

/// Tells a cron pattern of five fields.
pub(super) fn is_cron(text: &str) -> bool {
    !matches!(Recurrence::new(text, "UTC"), Err(ScheduleError::Pattern { .. }))
}

/// Reads when something begins and ends.
fn times(section: &Section<'_>) -> Option<Schedule> {
    let (start, end, zone) = (section.text("start", CRON), section.text("end", CRON), section.text("timezone", ZONE));
    Schedule::new(&start, &end, &zone).ok()
}

fn launch_part(section: &Section<'_>, pool: PoolName, prices: &PricesConfig) -> PoolLaunch {
    const TEMPLATE: Rule =
        ("must be a launch template's id (lt-…) or name", |text| !text.is_empty() && !text.contains(char::is_whitespace));
    const SUBNET: Rule = ("must be a subnet's id like \"subnet-0123456789abcdef0\"", |text| text.starts_with("subnet-"));
    const TYPE: Rule = ("must be an instance type like \"m5.large\"", |text| {
        text.split_once('.').is_some_and(|(family, size)| !family.is_empty() && !size.is_empty())
    });
    let subnets = section.texts("subnets", SUBNET);
    if subnets.is_empty() && section.has("subnets") {
        section.problem("subnets", "must name at least one subnet".into());
    }
    let types = section.texts("instance_types", TYPE);
    if types.is_empty() && section.has("instance_types") {
        section.problem("instance_types", "must name at least one instance type".into());
    }
    // With the price list at hand the table only stands in.
    for unpriced in types.iter().filter(|name| !prices.read_on_demand && !prices.on_demand.contains_key(name.as_str())) {
        let right = format!("set prices.on_demand.\"{unpriced}\", or prices.read_on_demand = true");
        section.problem("instance_types", format!("{unpriced} has no price; {right}"));
    }
    let version = section.has("launch_template_version").then(|| section.count("launch_template_version", 1..=u32::MAX).to_string());
    PoolLaunch {
        pool,
        launch_template: section.text("launch_template", TEMPLATE),
        launch_template_version: version,
        subnets: subnets.into_iter().map(SubnetId::new).collect(),
        instance_types: types.into_iter().map(crate::model::InstanceType::new).collect(),
        labels: labels(section),
        taints: taints(section),
        reserved_cpu: section.parsed("reserved_cpu", CPU, |text| quantity::cpu(text).ok()).unwrap_or_default(),
        reserved_memory: section.parsed("reserved_memory", MEMORY, |text| quantity::bytes(text).ok()).unwrap_or_default(),
        max_pods: section.count("max_pods", 1..=1000),
    }
}

fn labels(section: &Section<'_>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for (name, value) in section.free("labels") {
        match as_text(value) {
            Some(text) => {
                labels.insert(name.to_owned(), text.to_owned());
            }
            None => section.entry_problem("labels", name, value, "must be a text"),
        }
    }
    labels
}

fn taints(section: &Section<'_>) -> Vec<Taint> {
    const TAINT: Rule = ("must be a taint like \"dedicated=web:NoSchedule\"", |text| taint(text).is_some());
    if !section.has("taints") {
        return Vec::new();
    }
    section.texts("taints", TAINT).iter().filter_map(|text| taint(text)).collect()
}

fn taint(text: &str) -> Option<Taint> {
    let (left, effect) = text.rsplit_once(':')?;
    let (key, value) = left.split_once('=').unwrap_or((left, ""));
    let effect = match effect {
        "NoSchedule" => TaintEffect::NoSchedule,
        "PreferNoSchedule" => TaintEffect::PreferNoSchedule,
        "NoExecute" => TaintEffect::NoExecute,
        _ => return None,
    };
    (!key.is_empty()).then(|| Taint { key: key.to_owned(), value: value.to_owned(), effect })
}

/// Reads the demands that are forecast.
pub(super) fn forecasts(root: &Section<'_>, pools: &[PoolSettings], metrics: &[MetricRule]) -> Vec<ForecastRule> {
    let mut rules: Vec<ForecastRule> = Vec::new();
    for section in root.tables("forecast") {
        let name = RuleName::new(section.text("name", LABEL));
        let taken = rules.iter().map(|rule| &rule.name).chain(metrics.iter().map(|rule| &rule.name)).any(|other| *other == name);
        if taken || OWN_RULES.contains(&name.as_str()) {
            section.problem("name", "is the name of another rule".into());
        }
        let pool = PoolName::new(section.text("pool", LABEL));
        if !pools.iter().any(|known| known.name == pool) {
            section.contradiction("pool", &[], "names no [[pool]]".into());
        }
        let (query, per_node) = (section.text("query", ONE_VALUE), section.number("per_node", POSITIVE));
        rules.push(ForecastRule { name, pool, query, per_node });
        section.finish();
    }
    rules
}

/// Reads the rules on applications' metrics.
pub(super) fn metrics(root: &Section<'_>, pools: &[PoolSettings]) -> Vec<MetricRule> {
    let mut rules: Vec<MetricRule> = Vec::new();
    for section in root.tables("metric") {
        let name = RuleName::new(section.text("name", LABEL));
        if rules.iter().any(|other| other.name == name) || OWN_RULES.contains(&name.as_str()) {
            section.problem("name", "is the name of another rule".into());
        }
        let pool = PoolName::new(section.text("pool", LABEL));
        if !pools.iter().any(|known| known.name == pool) {
            section.contradiction("pool", &[], "names no [[pool]]".into());
        }
        let query = section.text("query", ONE_VALUE);
        let goal = match (section.has("per_node"), section.has("threshold")) {
            (true, false) => MetricGoal::PerNode(section.number("per_node", POSITIVE)),
            (false, true) => MetricGoal::Threshold(section.number("threshold", POSITIVE)),
            (true, true) | (false, false) => {
                section.problem("threshold", "exactly one of per_node and threshold must be set".into());
                MetricGoal::Threshold(1.0)
            }
        };
        rules.push(MetricRule { name, pool, query, goal, sustain: section.duration("sustain", SPAN) });
        section.finish();
    }
    rules
}
