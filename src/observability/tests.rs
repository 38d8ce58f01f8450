use super::catalogue::{Kind, METRICS};
use super::fakes::{instance, joining, launch};
use super::*;
use crate::control::status::{Expected, ForecastStatus, Minute, Role, SourceStatus, Standing, Stretch};
use crate::model::ids::Epoch;
use crate::model::offer::HourlyPrice;
use crate::model::plan::{Alert, Finding, OnDrainTimeout, RetireReason};
use crate::model::prospect::Wanted;
use crate::model::spend::{Cost, PeriodCost, Series, SeriesCost};
use crate::model::{Hold, LaunchState, Market, Operation, Plan, PoolReport, Retire, RetireOrder, RetireState};
use crate::ports::{Measurement, Telemetry};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

const AT: jiff::Timestamp = jiff::Timestamp::UNIX_EPOCH;

fn plan() -> Plan {
    let hold = Some(Hold::CoolingDown { until: AT });
    Plan {
        pools: vec![PoolReport {
            pool: "workers".into(),
            owned: 3,
            spot: 1,
            in_flight: 1,
            ready: 2,
            min: 2,
            max: 10,
            desired: 4,
            price: HourlyPrice(288_000),
            price_after: HourlyPrice(0),
            cpu: Some(0.71),
            memory: Some(0.5),
            findings: vec![Finding { rule: "cpu".into(), evidence: String::new(), wants: 1, hold, passed_over: Vec::new() }],
        }],
        holds: vec![Hold::Paused { reason: "x".into() }],
        pending: 5,
        alerts: vec![Alert { name: "spot_exhausted".into(), subject: String::new(), text: String::new() }],
        ..Plan::default()
    }
}

fn retirement() -> Operation {
    Operation::Retire(Retire {
        id: "r-1".into(),
        epoch: Epoch(7),
        created: AT,
        updated: AT,
        order: RetireOrder {
            pool: "workers".into(),
            instance: None,
            node: None,
            zone: "a".into(),
            market: Market::Spot,
            reason: RetireReason::Leaked,
            on_timeout: OnDrainTimeout::Force,
        },
        state: RetireState::Draining { since: AT },
    })
}

fn forecast() -> ForecastStatus {
    ForecastStatus {
        pool: "workers".into(),
        says: String::new(),
        standing: Standing::Trusted,
        wanted: Some(Wanted { buy: 3, hold: 4 }),
        known_minutes: 1,
        demand: Some(7.5),
        expected: Some(Expected { minute: Minute(3), centre: 8.0, quantile_90: 9.0, quantile_95: 10.0 }),
        following: vec![
            Stretch { first: 1, last: 3, kind: "reactive", way: String::new() },
            Stretch { first: 4, last: 4, kind: "balance", way: String::new() },
        ],
        loss_ratio: Some(0.5),
        coverage: Some([0.9, 0.95]),
    }
}

fn cost() -> Cost {
    let period = |dollars| PeriodCost {
        begins: jiff::civil::date(1970, 1, 1),
        node_hours: 2.0,
        dollars,
        on_demand_dollars: 3.0 * dollars,
        static_peak_dollars: 4.0 * dollars,
        by: Vec::new(),
    };
    let series = Series { pool: "workers".into(), market: Market::Spot, zone: "a".into(), instance_type: "m5.large".into() };
    Cost {
        since: AT,
        as_of: AT,
        today: period(0.25),
        yesterday: None,
        month: period(1.5),
        last_month: None,
        unpriced_node_seconds: 0,
        totals: vec![SeriesCost { series, node_seconds: 7200, dollars: 0.25 }],
    }
}

/// A status in which every gauge has something to show.
fn status() -> Status {
    Status {
        version: "1.2.3",
        cluster: "c".into(),
        owner: "me".into(),
        role: Role::Leader { epoch: Epoch(7) },
        started: AT,
        published: AT,
        last_turn: Some(AT),
        turns: 1,
        pause: None,
        plan: Some(Arc::new(plan())),
        operations: vec![retirement()],
        sources: BTreeMap::from([("ec2", SourceStatus { ok: true, why: None, last_ok: Some(AT) })]),
        prices_read: BTreeMap::from([(Market::Spot, jiff::Timestamp::UNIX_EPOCH)]),
        forecasts: BTreeMap::from([("requests".into(), forecast())]),
        cost: Some(Arc::new(cost())),
        reload_error: None,
        decisions: VecDeque::new(),
    }
}

fn every_measurement() -> [Measurement; 14] {
    let took = Duration::from_millis(40);
    let pool = || "workers".to_owned();
    [
        Measurement::Turn { trigger: "tick", took },
        Measurement::Planned { took },
        Measurement::AuditRefused { invariant: "bounds" },
        Measurement::UnschedulableToLaunch { took },
        Measurement::Joined { took },
        Measurement::ScaledUp { pool: pool(), market: Market::OnDemand, instances: 3 },
        Measurement::ScaledDown { pool: pool(), reason: "underused" },
        Measurement::OperationFailed { kind: "launch", failure: "quota" },
        Measurement::RolledBack { pool: pool() },
        Measurement::NoticeReceived { kind: "foreign" },
        Measurement::Interrupted { pool: pool() },
        Measurement::NoticeToCordon { took },
        Measurement::PortFailed { port: "ec2", class: "throttled" },
        Measurement::Told { outlet: "slack", outcome: "sent", number: 2 },
    ]
}

fn rendered(status: Status) -> String {
    let (sender, receiver) = watch::channel(Arc::new(status));
    let (instruments, render) = metrics(receiver, Duration::from_mins(2));
    for measurement in every_measurement() {
        instruments.record(measurement);
    }
    let text = render();
    drop(sender);
    text
}

#[test]
fn the_registry_has_what_the_catalogue_says_and_nothing_else() {
    let text = rendered(status());
    let shown: BTreeSet<(String, String)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split_once(' ').map(|(name, kind)| (name.to_owned(), kind.to_owned())))
        .collect();
    let expected: BTreeSet<(String, String)> =
        METRICS.iter().map(|entry| (entry.family().to_owned(), entry.kind.name().to_owned())).collect();
    assert_eq!(shown, expected, "{text}");
    assert_eq!(text.matches("# TYPE ").count(), METRICS.len(), "no family comes twice");
    assert!(text.ends_with("# EOF\n"));
    for entry in METRICS {
        assert!(text.contains(&format!("# HELP {} {}", entry.family(), entry.help)), "{}", entry.name);
    }
}

#[test]
fn every_sample_has_the_labels_that_the_catalogue_says() {
    for line in rendered(status()).lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let entry = METRICS.iter().find(|entry| match entry.kind {
            Kind::Histogram => ["_bucket", "_sum", "_count"].iter().any(|suffix| name == format!("{}{suffix}", entry.name)),
            Kind::Counter | Kind::Gauge | Kind::Info => name == entry.name,
        });
        let entry = entry.unwrap_or_else(|| panic!("{line} is in no catalogue"));
        let labels = line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')).map_or("", |(labels, _)| labels);
        let keys: Vec<&str> =
            labels.split(',').filter_map(|pair| pair.split_once('=')).map(|(key, _)| key).filter(|key| *key != "le").collect();
        assert_eq!(keys, entry.labels, "{line}");
    }
}

#[test]
fn the_gauges_show_the_status() {
    let text = rendered(status());
    for line in [
        "node_fleet_nodes{pool=\"workers\",state=\"ready\"} 2.0",
        "node_fleet_nodes{pool=\"workers\",state=\"booting\"} 0.0",
        "node_fleet_nodes{pool=\"workers\",state=\"not_ready\"} 1.0",
        "node_fleet_nodes{pool=\"workers\",state=\"launching\"} 1.0",
        "node_fleet_nodes_desired{pool=\"workers\"} 4.0",
        "node_fleet_cpu_utilisation_ratio{pool=\"workers\"} 0.71",
        "node_fleet_cost_dollars_per_hour{pool=\"workers\"} 0.288",
        "node_fleet_holds{pool=\"workers\",rule=\"cpu\",hold=\"cooling_down\"} 1.0",
        "node_fleet_holds{pool=\"\",rule=\"\",hold=\"paused\"} 1.0",
        "node_fleet_node_seconds_total{pool=\"workers\",market=\"spot\",zone=\"a\",instance_type=\"m5.large\"} 7200.0",
        "node_fleet_cost_dollars_total{pool=\"workers\",market=\"spot\",zone=\"a\",instance_type=\"m5.large\"} 0.25",
        "node_fleet_spend_dollars{period=\"month\",basis=\"static_peak\"} 6.0",
        "node_fleet_alert{name=\"spot_exhausted\"} 1.0",
        "node_fleet_alert{name=\"offer_stopped\"} 0.0",
        "node_fleet_operations{kind=\"retire\",state=\"draining\"} 1.0",
        "node_fleet_operations{kind=\"launch\",state=\"joining\"} 0.0",
        "node_fleet_leader 1.0",
        "node_fleet_epoch 7.0",
        "node_fleet_paused 0.0",
        "node_fleet_evaluation_interval_seconds 120.0",
        "node_fleet_source_up{source=\"ec2\"} 1.0",
        "node_fleet_prices_read_timestamp_seconds{market=\"spot\"} 0.0",
        "node_fleet_build_info{version=\"1.2.3\"} 1",
        "node_fleet_instances_launched_total{pool=\"workers\",market=\"on-demand\"} 3",
        "node_fleet_turn_duration_seconds_count{trigger=\"tick\"} 1",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line} is missing in\n{text}");
    }
}

#[test]
fn an_instance_that_boots_is_not_one_without_a_ready_node() {
    let states = |operations: Vec<Operation>| -> Vec<String> {
        let text = rendered(Status { operations, ..status() });
        text.lines()
            .filter(|line| line.starts_with("node_fleet_nodes{"))
            .map(|line| line.rsplit_once('=').expect("a state").1.to_owned())
            .collect()
    };
    let expected = |booting: u32, not_ready: u32| {
        [("ready", 2), ("booting", booting), ("not_ready", not_ready), ("launching", 1)]
            .map(|(state, number)| format!("\"{state}\"}} {number}.0"))
    };
    let done = LaunchState::Done { joined: Vec::new(), never_joined: Vec::new(), left: vec![instance("i-1", None)] };
    let Operation::Launch(mut other) = launch(joining(&["i-1"])) else { panic!("it is one") };
    other.order.pool = "others".into();
    let joined = LaunchState::Joining { instances: vec![instance("i-1", Some("n"))], since: AT };
    for (operation, booting) in [
        (launch(joining(&["i-1"])), 1),
        // EC2's list does not show both of them yet.
        (launch(joining(&["i-1", "i-2"])), 1),
        (launch(joined), 0),
        (launch(done), 0),
        (Operation::Launch(other), 0),
    ] {
        let words = format!("{operation:?}");
        assert_eq!(states(vec![retirement(), operation]), expected(booting, 1 - booting), "{words}");
    }
}

#[test]
fn what_is_not_known_is_absent_and_not_zero() {
    let mut blind = plan();
    (blind.pools[0].cpu, blind.pools[0].memory) = (None, None);
    let text = rendered(Status { role: Role::Standby { leader: None }, last_turn: None, plan: Some(Arc::new(blind)), ..status() });
    for absent in ["node_fleet_cpu_utilisation_ratio", "node_fleet_memory_utilisation_ratio", "node_fleet_epoch", "node_fleet_last_turn"] {
        assert!(!text.contains(absent), "{absent} in\n{text}");
    }
    assert!(text.contains("node_fleet_leader 0.0"));
}
