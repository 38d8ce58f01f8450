//! How long forecasts and replays take.
#![expect(clippy::print_stdout, reason = "a benchmark speaks to whoever runs it")]

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use jiff::tz::TimeZone;
use node_fleet::policy::forecast::{DemandHistory, ForecastSettings, Forecaster, KEPT, Rests};
use node_fleet::sim::replay::{Boot, Conditions, Operator, Path, Progress, Rates, Shape, side_by_side};
use std::hint::black_box;
use std::time::Duration;

const SETTINGS: ForecastSettings = ForecastSettings { node: 1.0, boot: 2, price_of_waiting: 60.0, rests: Rests::NONE, zone: TimeZone::UTC };

struct Silent;

impl Progress for Silent {
    fn begins(&mut self, _: &str) {}
    fn passed(&mut self, _: u64) {}
}

/// The shipped defaults, with bounds that are out of the way.
fn operator() -> Operator {
    let example = include_str!("../config/node-fleet.toml").replace("max = 10\n", "max = 10000\n");
    let rule = "\n[[forecast]]\nname = \"demand\"\npool = \"workers\"\nquery = \"q\"\nper_node = 1.0\n";
    let config = node_fleet::config::parse(&(example + rule), "defaults", []).expect("they are valid");
    Operator::new(&config.policy, &"workers".into(), &"demand".into()).expect("it has the pool")
}

fn history(nodes: f64) -> DemandHistory {
    let mut history = DemandHistory::default();
    let recording = Shape::Bursty.days(28, 1).scaled(nodes);
    for (minute, value) in (0..).zip(recording.carried()) {
        history.observe(recording.start.plus(minute), f64::from(value)).expect("minutes run forward");
    }
    history
}

/// Observes the minutes after the history, and advises in each.
fn minutes(mut forecaster: Forecaster, number: i32) -> Forecaster {
    let latest = forecaster.history().latest().expect("it has a history");
    let value = forecaster.history().carried(latest).expect("it has a value");
    for ahead in 1..=number {
        let minute = latest.plus(i64::from(ahead));
        forecaster.observe(minute, value * (1.0 + 0.01 * f64::from(ahead % 7))).expect("minutes run forward");
        black_box(forecaster.advise(minute.plus(1)));
    }
    forecaster
}

fn forecast(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("forecast");
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(5));
    for nodes in [20.0, 60.0, 1000.0] {
        let history = history(nodes);
        let forecaster = Forecaster::from_history(SETTINGS, &history);
        // The minute after a history of whole hours is one in which the models are fitted.
        assert_eq!(KEPT % 60, 0);
        group.bench_function(format!("a refit and a decision, {nodes} nodes"), |bencher| {
            bencher.iter_batched(|| forecaster.clone(), |forecaster| minutes(forecaster, 1), BatchSize::LargeInput);
        });
        group.bench_function(format!("a day of decisions with its refits, {nodes} nodes"), |bencher| {
            bencher.iter_batched(|| forecaster.clone(), |forecaster| minutes(forecaster, 1440), BatchSize::LargeInput);
        });
        group.bench_function(format!("a takeover with 28 days, {nodes} nodes"), |bencher| {
            bencher.iter(|| Forecaster::from_history(SETTINGS, black_box(&history)));
        });
    }
    let year = Shape::Bursty.days(365, 1).scaled(60.0);
    let conditions = Conditions {
        boot: Boot::Fixed(120),
        price_of_waiting: 60.0,
        rates: Rates { on_demand: 0.192, spot: 0.067, on_demand_base: 1, spot_share: 0.7 },
        seed: 1,
        operator: operator(),
        path: Path::Counts,
    };
    group.bench_function("a year at 60 nodes under all policies and the optimum", |bencher| {
        bencher.iter(|| side_by_side(black_box(&year), &conditions, &mut Silent));
    });
    group.finish();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default());
}

criterion_group!(benches, forecast);
criterion_main!(benches);
