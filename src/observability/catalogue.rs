//! Every metric there is. The registry takes names and help from here, and the README its table.

use std::fmt::Write;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations by size.
    Histogram,
    /// A constant 1 whose labels are the news.
    Info,
}

impl Kind {
    /// Names it as OpenMetrics does.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }
}

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name under which Prometheus keeps it; a histogram's without `_bucket`, `_sum`, `_count`.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it tells.
    pub help: &'static str,
}

impl Entry {
    /// Gives the name of its family: without the suffix that OpenMetrics adds to samples.
    #[must_use]
    pub fn family(&self) -> &'static str {
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        self.name.strip_suffix(suffix).unwrap_or(self.name)
    }
}

const fn entry(name: &'static str, kind: Kind, labels: &'static [&'static str], help: &'static str) -> Entry {
    Entry { name, kind, labels, help }
}

macro_rules! catalogue {
    ($($constant:ident = $name:literal $kind:ident [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: Entry = entry($name, Kind::$kind, &[$($label),*], $help);
        )*
        /// All of them, in the order in which they are shown.
        pub const METRICS: &[Entry] = &[$($constant),*];
    };
}

catalogue! {
    TURN_DURATION = "node_fleet_turn_duration_seconds" Histogram ["trigger"]
        "Time of one turn, from its beginning to the execution of its plan";
    PLAN_DURATION = "node_fleet_plan_duration_seconds" Histogram []
        "Time in which a plan was made from a snapshot";
    AUDIT_REFUSALS = "node_fleet_audit_refusals_total" Counter ["invariant"]
        "Plans that the audit refused because they would have broken an invariant";
    UNSCHEDULABLE_TO_LAUNCH = "node_fleet_unschedulable_to_launch_seconds" Histogram []
        "Time from the oldest Unschedulable condition to the launch request it caused";
    JOIN_DURATION = "node_fleet_join_duration_seconds" Histogram []
        "Time from an instance's launch to its Ready node";
    INSTANCES_LAUNCHED = "node_fleet_instances_launched_total" Counter ["pool", "market"]
        "Instances that were launched";
    INSTANCES_RETIRED = "node_fleet_instances_retired_total" Counter ["pool", "reason"]
        "Instances that were given back";
    OPERATION_FAILURES = "node_fleet_operation_failures_total" Counter ["kind", "failure"]
        "Launches and retirements that failed";
    DRAIN_ROLLBACKS = "node_fleet_drain_rollbacks_total" Counter ["pool"]
        "Drains that did not end in time and were rolled back";
    NOTICES = "node_fleet_notices_total" Counter ["kind"]
        "Messages of the notices queue, by what they announce, whosever instances they are about and however often they come";
    INTERRUPTIONS = "node_fleet_interruptions_total" Counter ["pool"]
        "Instances of ours that go because EC2 takes them back, each once";
    NOTICE_TO_CORDON = "node_fleet_notice_to_cordon_seconds" Histogram []
        "Time from a spot interruption's arrival to its node's cordon";
    PORT_FAILURES = "node_fleet_port_failures_total" Counter ["port", "class"]
        "Failed calls to Kubernetes, EC2, DynamoDB, SQS and Prometheus, and to those who are told: Slack, CloudWatch, Events";
    TOLD = "node_fleet_told_total" Counter ["outlet", "outcome"]
        "Messages to Slack, data to CloudWatch and Kubernetes Events that were `sent` or `dropped`";
    NODES = "node_fleet_nodes" Gauge ["pool", "state"]
        "Workers of a pool: `ready`, `booting` (their launch still waits for the node), `not_ready` (an instance without a Ready node otherwise) or `launching` (asked for, not seen yet)";
    NODES_DESIRED = "node_fleet_nodes_desired" Gauge ["pool"]
        "Workers that the pool should have after the latest plan";
    NODES_MIN = "node_fleet_nodes_min" Gauge ["pool"]
        "The minimum in force";
    NODES_MAX = "node_fleet_nodes_max" Gauge ["pool"]
        "The maximum in force";
    CPU_UTILISATION = "node_fleet_cpu_utilisation_ratio" Gauge ["pool"]
        "Mean CPU utilisation of a pool, 0 to 1; absent when it cannot be trusted";
    MEMORY_UTILISATION = "node_fleet_memory_utilisation_ratio" Gauge ["pool"]
        "Mean memory utilisation of a pool, 0 to 1; absent when it cannot be trusted";
    COST = "node_fleet_cost_dollars_per_hour" Gauge ["pool"]
        "List price of a pool's instances, as far as it is known";
    NODE_SECONDS = "node_fleet_node_seconds_total" Counter ["pool", "market", "zone", "instance_type"]
        "How long instances ran, as they are billed; carried over restarts and failovers";
    COST_DOLLARS = "node_fleet_cost_dollars_total" Counter ["pool", "market", "zone", "instance_type"]
        "What they cost, reckoned from list and market prices; carried over restarts and failovers";
    SPEND = "node_fleet_spend_dollars" Gauge ["period", "basis"]
        "What `today`, `yesterday`, this `month` and `last_month` (UTC) came to: `actual`, the same instances `on_demand`, and a fleet always as large as at its `static_peak`";
    PENDING_PODS = "node_fleet_pending_pods" Gauge []
        "Pods that wait for a node, those that no node could take among them";
    UNPLACEABLE_PODS = "node_fleet_unplaceable_pods" Gauge []
        "Pods that wait and that no node of ours could take";
    HOLDS = "node_fleet_holds" Gauge ["pool", "rule", "hold"]
        "Reasons of the latest plan not to act; without pool and rule, those of the whole fleet";
    ALERT = "node_fleet_alert" Gauge ["name"]
        "1 while a human should look at this condition";
    FORECAST_DEMAND = "node_fleet_forecast_demand" Gauge ["rule", "value"]
        "A forecast rule's demand: `actual` now, and `expected`, `p90` and `p95` for the minute that is bought for, a boot and an evaluation ahead";
    FORECAST_NODES = "node_fleet_forecast_nodes" Gauge ["pool", "rule", "bound"]
        "Nodes that a forecast would `buy` up to and `hold` down to; absent while it has no say";
    FORECAST_FOLLOWING = "node_fleet_forecast_following_nodes" Gauge ["pool", "rule", "way"]
        "Nodes that a forecast rule would hold, by the kind of way that they follow: `reactive`, or by a forecast, `quantiles` or `balance`";
    FORECAST_LOSS_RATIO = "node_fleet_forecast_loss_ratio" Gauge ["rule"]
        "A forecast's pinball loss of about the last day as a share of the better naive forecast's; below 1 it earns its place";
    FORECAST_COVERAGE = "node_fleet_forecast_coverage_ratio" Gauge ["rule", "quantile"]
        "Share of minutes of about the last day whose demand stayed below the quantile";
    FORECAST_TRUSTED = "node_fleet_forecast_trusted" Gauge ["rule"]
        "1 while a forecast has earned a say";
    OPERATIONS = "node_fleet_operations" Gauge ["kind", "state"]
        "Operations that are under way";
    LEADER = "node_fleet_leader" Gauge []
        "1 on the instance that acts";
    EPOCH = "node_fleet_epoch" Gauge []
        "The epoch in which this instance leads; absent on a standby";
    PAUSED = "node_fleet_paused" Gauge []
        "1 while the fleet is paused";
    SOURCE_UP = "node_fleet_source_up" Gauge ["source"]
        "1 when the source answered last time";
    PRICES_READ = "node_fleet_prices_read_timestamp_seconds" Gauge ["market"]
        "When prices were read from AWS; absent where those of the configuration stand in";
    LAST_TURN = "node_fleet_last_turn_timestamp_seconds" Gauge []
        "When the latest turn ended";
    EVALUATION_INTERVAL = "node_fleet_evaluation_interval_seconds" Gauge []
        "How often a turn is due: `evaluation.interval`";
    RELOAD_FAILED = "node_fleet_config_reload_failed" Gauge []
        "1 while the latest reload of the configuration was refused";
    BUILD = "node_fleet_build_info" Info ["version"]
        "The build";
    RESIDENT_MEMORY = "process_resident_memory_bytes" Gauge []
        "Resident memory";
    START_TIME = "process_start_time_seconds" Gauge []
        "When the daemon started";
}

/// Renders the table of the README.
#[must_use]
pub fn markdown() -> String {
    let mut table = String::from("| metric | type | labels | meaning |\n|---|---|---|---|\n");
    for entry in METRICS {
        let labels: Vec<String> = entry.labels.iter().map(|label| format!("`{label}`")).collect();
        // Writing to a String does not fail.
        let _ = writeln!(table, "| `{}` | {} | {} | {} |", entry.name, entry.kind.name(), labels.join(", "), entry.help);
    }
    table
}
