//! Reads the sections, one function each.

use super::pools::{ZONE, is_cron};
use super::reader::{Rule, Section, as_number};
use super::{
    CloudWatchConfig, ClusterConfig, HttpConfig, KubernetesConfig, LedgerConfig, LogConfig, LogFormat, NoticesConfig, OperationsConfig,
    PricesConfig, PrometheusAuth, PrometheusConfig, Recurrence, SlackConfig,
};
use crate::model::InstanceType;
use crate::model::offer::HourlyPrice;
use crate::policy::{Consolidation, OfferRest, Predictive, PredictiveMode, Replacement, ScaleDown, ScaleUp};
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

const NAME: Rule = ("must be a name without spaces", |text| !text.is_empty() && text.len() <= 255 && !text.contains(char::is_whitespace));
const PATH: Rule = ("must be an absolute path", |text| text.starts_with('/'));
const QUERY: Rule = ("must be a PromQL query", |text| !text.trim().is_empty());
const URL: Rule = ("must be an http or https URL like \"http://127.0.0.1:9090\", without a user or password in it", |text| {
    text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")).is_some_and(|rest| {
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        !host.is_empty() && !host.starts_with(':') && !host.contains('@') && !rest.contains(char::is_whitespace)
    })
});
/// Deadlines and intervals that are shorter than this make no sense over a network.
const REQUEST: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_mins(1);
/// Spans over which the fleet is watched or waited for.
pub(super) const SPAN: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24);
const MAY_BE_NONE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(24);

/// Says what a base URL of Prometheus must be, where this is none.
#[must_use]
pub fn wrong_endpoint(url: &str) -> Option<&'static str> {
    let (must_be, is_one) = URL;
    (!is_one(url)).then_some(must_be)
}

pub(super) fn cluster(root: &Section<'_>) -> ClusterConfig {
    const ID: Rule = ("must be 1 to 63 letters, digits, `-`, `_` or `.`", |text| {
        (1..=63).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    });
    const REGION: Rule = ("must be an AWS region like \"eu-central-1\"", |text| {
        text.split('-').count() >= 3 && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    });
    let section = root.table("cluster");
    let config = ClusterConfig { id: section.text("id", ID), region: section.text("region", REGION) };
    section.finish();
    config
}

pub(super) fn kubernetes(root: &Section<'_>) -> KubernetesConfig {
    let section = root.table("kubernetes");
    let config = KubernetesConfig {
        kubeconfig: section.has("kubeconfig").then(|| section.text("kubeconfig", PATH).into()),
        timeout: section.duration("timeout", REQUEST),
        events: section.flag("events"),
    };
    section.finish();
    config
}

pub(super) fn prometheus(root: &Section<'_>) -> PrometheusConfig {
    const LABEL: Rule = ("must be a Prometheus label name", |text| {
        !text.is_empty()
            && !text.starts_with(|c: char| c.is_ascii_digit())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    });
    let section = root.table("prometheus");
    let endpoints = section.texts("endpoints", URL);
    if endpoints.is_empty() && section.has("endpoints") {
        section.problem("endpoints", "must name at least one URL".into());
    }
    let config = PrometheusConfig {
        endpoints,
        auth: prometheus_auth(&section),
        ca_file: section.has("ca_file").then(|| section.text("ca_file", PATH).into()),
        timeout: section.duration("timeout", REQUEST),
        max_response_bytes: section.count("max_response_bytes", 1024..=1 << 30) as usize,
        max_sample_age: section.duration("max_sample_age", SPAN),
        max_clock_skew: section.duration("max_clock_skew", MAY_BE_NONE),
        rate_window: section.duration("rate_window", SPAN),
        node_label: section.text("node_label", LABEL),
        cpu_query: section.has("cpu_query").then(|| section.text("cpu_query", QUERY)),
        memory_query: section.has("memory_query").then(|| section.text("memory_query", QUERY)),
    };
    section.whole_seconds("rate_window", config.rate_window);
    section.finish();
    config
}

fn prometheus_auth(section: &Section<'_>) -> Option<PrometheusAuth> {
    if !section.has("auth") {
        return None;
    }
    let auth = section.table("auth");
    let found = if auth.has("token") {
        auth.secret("token").map(|token| PrometheusAuth::Bearer { token })
    } else {
        let username = auth.text("username", NAME);
        auth.secret("password").map(|password| PrometheusAuth::Basic { username, password })
    };
    auth.finish();
    found
}

pub(super) fn ledger(root: &Section<'_>) -> LedgerConfig {
    let section = root.table("ledger");
    let config = LedgerConfig {
        table: section.text("table", NAME),
        // A rival takes over after a whole lease, and the lock's own TTL is five minutes.
        lease: section.duration("lease", Duration::from_secs(2)..=Duration::from_mins(2)),
        heartbeat: section.duration("heartbeat", Duration::from_millis(100)..=Duration::from_mins(1)),
        timeout: section.duration("timeout", REQUEST),
    };
    section.finish();
    config
}

pub(super) fn notices(root: &Section<'_>) -> NoticesConfig {
    let section = root.table("notices");
    let config = NoticesConfig {
        queue_url: section.has("queue_url").then(|| section.text("queue_url", URL)),
        wait: section.duration("wait", Duration::from_secs(1)..=Duration::from_secs(20)),
    };
    section.whole_seconds("wait", config.wait);
    section.finish();
    config
}

pub(super) fn operations(root: &Section<'_>) -> OperationsConfig {
    let section = root.table("operations");
    let config = OperationsConfig {
        request_timeout: section.duration("request_timeout", REQUEST),
        join_timeout: section.duration("join_timeout", SPAN),
        drain_timeout: section.duration("drain_timeout", SPAN),
        // A spot instance has two minutes.
        retry: section.duration("retry", Duration::from_millis(100)..=Duration::from_secs(5)),
        interruption_margin: section.duration("interruption_margin", Duration::ZERO..=Duration::from_secs(110)),
        batch: section.duration("batch", Duration::ZERO..=Duration::from_secs(1)),
    };
    section.finish();
    config
}

pub(super) fn http(root: &Section<'_>) -> HttpConfig {
    const SOCKET: Rule = ("must be an absolute path, or \"\" for none", |text| text.is_empty() || text.starts_with('/'));
    let section = root.table("http");
    let listen = section.parsed("listen", "must be an address with a port like \"127.0.0.1:9477\"", |text| text.parse().ok());
    let socket = section.text("socket", SOCKET);
    let config = HttpConfig {
        listen: listen.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        socket: (!socket.is_empty()).then(|| socket.into()),
        token: if section.has("token") { section.secret("token") } else { None },
    };
    section.finish();
    config
}

pub(super) fn log(root: &Section<'_>) -> LogConfig {
    let section = root.table("log");
    let filter = |text: &str| text.parse::<tracing_subscriber::filter::Targets>().ok().map(|_| text.to_owned());
    let formats = [("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json), ("journald", LogFormat::Journald)];
    let config = LogConfig {
        level: section.parsed("level", "must be a filter like \"info\" or \"node_fleet=debug,info\"", filter).unwrap_or_default(),
        format: section.choice("format", &formats),
    };
    section.finish();
    config
}

pub(super) fn slack(root: &Section<'_>) -> SlackConfig {
    const REPORT: Rule =
        ("must be a cron pattern of five fields like \"0 8 * * *\", or \"\" for never", |text| text.is_empty() || is_cron(text));
    let section = root.table("slack");
    let zone = section.text("timezone", ZONE);
    // What cannot be read has been reported.
    let report = |key| Some(section.text(key, REPORT)).filter(|it| !it.is_empty()).and_then(|it| Recurrence::new(&it, &zone).ok());
    let config = SlackConfig {
        webhook: if section.has("webhook") { section.secret("webhook") } else { None },
        daily_report: report("daily_report"),
        weekly_report: report("weekly_report"),
    };
    section.finish();
    config
}

pub(super) fn cloudwatch(root: &Section<'_>) -> CloudWatchConfig {
    const NAMESPACE: Rule =
        ("must be 1 to 255 letters, digits or `.-_/#: `, and not begin with \"AWS/\", which is CloudWatch's own", |text| {
            (1..=255).contains(&text.len())
                && !text.starts_with("AWS/")
                && !text.starts_with(':')
                && !text.trim().is_empty()
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_/#: ".contains(&byte))
        });
    let section = root.table("cloudwatch");
    let config = CloudWatchConfig {
        enabled: section.flag("enabled"),
        namespace: section.text("namespace", NAMESPACE),
        // Alarms look at minutes, some at five of them.
        interval: section.duration("interval", Duration::from_secs(30)..=Duration::from_mins(2)),
    };
    section.finish();
    config
}

/// `[evaluation]`, which becomes a part of the policy's settings.
pub(super) struct Evaluation {
    pub(super) interval: Duration,
    pub(super) min_coverage: f64,
    pub(super) max_unready_share: f64,
    pub(super) price_ceiling: Option<HourlyPrice>,
    pub(super) replace_interrupted_while_paused: bool,
    pub(super) stray_grace: Duration,
    pub(super) unhealthy_after: Duration,
    pub(super) startup_taints: BTreeSet<String>,
    pub(super) critical_priority: i32,
    pub(super) expendable_below: i32,
}

pub(super) fn evaluation(root: &Section<'_>) -> Evaluation {
    const TAINT: Rule = ("must be a taint's key like \"ebs.csi.aws.com/agent-not-ready\"", |text| {
        !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c == ':' || c == '=')
    });
    let section = root.table("evaluation");
    let priority = |key| i32::try_from(section.integer(key, i64::from(i32::MIN)..=i64::from(i32::MAX))).unwrap_or_default();
    let ceiling = || section.number("price_ceiling", ("must be dollars per hour above 0", |price| price > 0.0 && price < 1e6));
    let config = Evaluation {
        interval: section.duration("interval", Duration::from_secs(1)..=Duration::from_hours(1)),
        min_coverage: section.share("min_coverage"),
        max_unready_share: section.share_or_none("max_unready_share"),
        price_ceiling: section.has("price_ceiling").then(|| micro_dollars(ceiling())),
        replace_interrupted_while_paused: section.flag("replace_interrupted_while_paused"),
        stray_grace: section.duration("stray_grace", SPAN),
        unhealthy_after: section.duration("unhealthy_after", SPAN),
        startup_taints: section.texts("startup_taints", TAINT).into_iter().collect(),
        critical_priority: priority("critical_priority"),
        expendable_below: priority("expendable_below"),
    };
    section.whole_seconds("interval", config.interval);
    section.finish();
    config
}

pub(super) fn scale_up(root: &Section<'_>) -> ScaleUp {
    let section = root.table("scale_up");
    let config = ScaleUp {
        cpu_above: section.share("cpu_above"),
        cpu_target: section.share("cpu_target"),
        cpu_sustain: section.duration("cpu_sustain", SPAN),
        memory_above: section.share("memory_above"),
        memory_target: section.share("memory_target"),
        memory_sustain: section.duration("memory_sustain", SPAN),
        cooldown: section.duration("cooldown", SPAN),
    };
    section.finish();
    config
}

pub(super) fn scale_down(root: &Section<'_>) -> ScaleDown {
    let section = root.table("scale_down");
    let config = ScaleDown {
        enabled: section.flag("enabled"),
        cpu_below: section.share("cpu_below"),
        memory_below: section.share("memory_below"),
        sustain: section.duration("sustain", SPAN),
        cooldown: section.duration("cooldown", SPAN),
        longest_cooldown: section.duration("longest_cooldown", Duration::from_secs(1)..=Duration::from_hours(7 * 24)),
        min_node_age: section.duration("min_node_age", MAY_BE_NONE),
        share_at_once: section.share("share_at_once"),
        most_at_once: section.count("most_at_once", 1..=10_000),
    };
    section.finish();
    config
}

pub(super) fn consolidation(root: &Section<'_>) -> Option<Consolidation> {
    let section = root.table("consolidation");
    let enabled = section.flag("enabled");
    let config = Consolidation {
        cpu_below: section.share("cpu_below"),
        memory_below: section.share("memory_below"),
        sustain: section.duration("sustain", SPAN),
    };
    section.finish();
    enabled.then_some(config)
}

pub(super) fn replacement(root: &Section<'_>) -> Option<Replacement> {
    const PRICE: (&str, fn(f64) -> bool) = ("must be dollars, 0 or more", |price| (0.0..1e6).contains(&price));
    let section = root.table("replacement");
    let enabled = section.flag("enabled");
    let config = Replacement {
        saving_lasts: section.duration("saving_lasts", Duration::from_mins(1)..=Duration::from_hours(24 * 365)),
        least_saving: section.share_or_none("least_saving"),
        price_of_a_move: section.number("price_of_a_move", PRICE),
        balances_zones: section.flag("balances_zones"),
        drifted: section.flag("drifted"),
        recommended: section.flag("recommended"),
    };
    section.finish();
    enabled.then_some(config)
}

pub(super) fn rest(root: &Section<'_>) -> OfferRest {
    let section = root.table("rest");
    let config = OfferRest {
        first: section.duration("first", SPAN),
        longest: section.duration("longest", SPAN),
        stop_after_never_joined: section.count("stop_after_never_joined", 1..=100),
        stopped: section.duration("stopped", Duration::from_secs(1)..=Duration::from_hours(7 * 24)),
        node: section.duration("node", SPAN),
    };
    section.finish();
    config
}

pub(super) fn predictive(root: &Section<'_>) -> Predictive {
    const BOOT: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_mins(25);
    const WAITING: [(&str, f64); 3] = [("thrifty", 8.0), ("balanced", 20.0), ("careful", 60.0)];
    let section = root.table("predictive");
    let modes = PredictiveMode::ALL.map(|mode| (mode.name(), mode));
    let predictive = Predictive {
        mode: section.choice("mode", &modes),
        price_of_waiting: section.number_or_choice("price_of_waiting", 1.0..=1000.0, &WAITING),
        boot: section.duration("boot", BOOT),
        // What cannot be read has been reported.
        zone: TimeZone::get(&section.text("timezone", ZONE)).unwrap_or(TimeZone::UTC),
        #[cfg(test)]
        wrecked: None,
    };
    section.finish();
    predictive
}

pub(super) fn prices(root: &Section<'_>) -> PricesConfig {
    const EXPECTED: &str = "must be dollars per hour above 0";
    let section = root.table("prices");
    let as_of = section.day("as_of");
    let (read_on_demand, read_spot) = (section.flag("read_on_demand"), section.flag("read_spot"));
    let spot_ratio = section.share("spot_ratio");
    let mut on_demand = BTreeMap::new();
    for (name, value) in section.free("on_demand") {
        match as_number(value).filter(|price| *price > 0.0 && *price < 10_000.0) {
            Some(price) => {
                on_demand.insert(InstanceType::from(name), micro_dollars(price));
            }
            None => section.entry_problem("on_demand", name, value, EXPECTED),
        }
    }
    section.finish();
    PricesConfig { as_of, on_demand, read_on_demand, read_spot, spot_ratio }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "prices are above 0 and below a million dollars")]
fn micro_dollars(dollars: f64) -> HourlyPrice {
    HourlyPrice((dollars * 1e6).round() as u64)
}
