//! A demand that rises every morning, and a fleet that has seen it before.

use crate::control::status::{ForecastStatus, Standing};
use crate::model::operation::Operation;
use crate::model::plan::LaunchReason;
use crate::policy::{ForecastRule, PredictiveMode};
use crate::sim::front::{Scenario, Stage};
use crate::sim::prometheus::CORES;
use crate::sim::workload::Curve;
use std::time::Duration;

const DAY: Duration = Duration::from_hours(24);
/// Days that the forecast learns from before they count.
const LEARNING: u32 = 4;
/// Cores of demand that a node of the pool serves: seven pods of 0.2 cores find room on it.
const PER_NODE: f64 = 1.3;

/// A cluster that needs two nodes at night and, from one minute to the next, six by day.
fn office(mode: PredictiveMode) -> Scenario {
    let mut scenario = Scenario::quiet(3, 1000.0, 2);
    let day = Curve::Cron { every: DAY, length: Duration::from_hours(9), height: 6.0 };
    scenario.workloads[0].curve = Curve::Sum(vec![Curve::Constant(1.2), day]);
    // The world begins at the end of an office day.
    scenario.phase = Duration::from_hours(10);
    let policy = &mut scenario.settings.policy;
    policy.predictive.mode = mode;
    policy.forecasts = vec![ForecastRule { name: "cores".into(), pool: "workers".into(), query: CORES.into(), per_node: PER_NODE }];
    scenario
}

/// Lets the days pass that are learnt from, and so many more. Gives on how many mornings of these pods found no node.
async fn mornings(world: &Stage, days: u32) -> u32 {
    let mut waited = 0;
    // The first morning is fourteen hours after the beginning.
    tokio::time::sleep(Duration::from_mins(14 * 60 - 1)).await;
    for day in 0..LEARNING + days {
        let before = world.with(|truth| truth.marks);
        tokio::time::sleep(Duration::from_mins(10)).await;
        if day >= LEARNING {
            waited += u32::from(world.with(|truth| truth.marks) > before);
        }
        tokio::time::sleep(Duration::from_mins(24 * 60 - 10)).await;
    }
    waited
}

fn bought_ahead(world: &Stage) -> usize {
    world.with(|truth| {
        let ahead = |operation: &Operation| {
            matches!(operation, Operation::Launch(launch) if matches!(&launch.order.reason, LaunchReason::Rule { rule, .. } if rule.as_str() == "cores"))
        };
        truth.table.journal.values().filter(|entry| ahead(&entry.operation)).count()
    })
}

#[tokio::test(start_paused = true)]
async fn capacity_is_ready_before_the_rise_on_nearly_every_morning() {
    let world = Stage::begin(office(PredictiveMode::On));
    let waited = mornings(&world, 20).await;
    assert!(waited <= 1, "pods waited on {waited} of 20 mornings\n{}", world.log());
    assert_eq!(world.violations(), [""; 0], "{}", world.log());
    assert!(bought_ahead(&world) > 0);
}

#[tokio::test(start_paused = true)]
async fn a_wrecked_forecast_is_demoted_within_a_day_and_pods_are_served_without_it() {
    for factor in [0.3, 3.0] {
        let mut scenario = office(PredictiveMode::On);
        let wrecked = 5 * DAY;
        scenario.settings.policy.predictive.wrecked = Some((scenario.beginning().start + wrecked, factor));
        let world = Stage::begin(scenario);
        let begun = tokio::time::Instant::now();
        tokio::time::sleep(wrecked).await;
        assert_eq!(standing(&world), Some(Standing::Trusted), "{factor}");
        let demoted = async {
            while standing(&world) != Some(Standing::Demoted) {
                tokio::time::sleep(Duration::from_mins(2)).await;
            }
        };
        let demoted = tokio::time::timeout(DAY, demoted).await;
        assert!(demoted.is_ok(), "{factor}: {:?} after a day\n{}", standing(&world), world.log());
        // Half an hour after the next mornings' rise, when six nodes serve the demand, no pod waits, and there are not far more.
        for day in 7..9 {
            tokio::time::sleep_until(begun + day * DAY + Duration::from_mins(14 * 60 + 30)).await;
            assert_eq!(world.with(|truth| truth.kubernetes.waits()), 0, "{factor}, day {day}: {}", world.log());
            let nodes = world.with(|truth| truth.ec2.living().filter(|machine| machine.pool().is_some()).count());
            assert!(nodes <= 8, "{factor}, day {day}: {nodes} nodes\n{}", world.log());
        }
        assert_eq!(world.violations(), [""; 0], "{factor}: {}", world.log());
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_takes_over_knows_the_past_of_a_demand_that_prometheus_has_lost() {
    let world = Stage::begin(office(PredictiveMode::On));
    tokio::time::sleep(5 * DAY).await;
    let before = forecast(&world).expect("it is followed").known_minutes;
    assert!(before > 7000, "{before} minutes of five days are known");
    world.with(|truth| {
        truth.prometheus.lose_demand();
        truth.kill(0);
    });
    tokio::time::sleep(Duration::from_mins(30)).await;
    let after = forecast(&world).expect("it is followed");
    assert_eq!(after.standing, Standing::Trusted, "{}\n{}", after.says, world.log());
    // What came since it was last kept is a gap, which counts.
    assert!(after.known_minutes > before, "{} minutes are known, and before {before}", after.known_minutes);
    assert_eq!(world.violations(), [""; 0], "{}", world.log());
}

fn forecast(world: &Stage) -> Option<ForecastStatus> {
    let handle = world.0.handles.first()?.borrow().clone()?;
    let status = handle.status.borrow().clone();
    status.forecasts.values().next().cloned()
}

fn standing(world: &Stage) -> Option<Standing> {
    forecast(world).map(|forecast| forecast.standing)
}

#[tokio::test(start_paused = true)]
async fn pods_wait_every_morning_for_a_fleet_that_only_watches() {
    let world = Stage::begin(office(PredictiveMode::Shadow));
    let waited = mornings(&world, 3).await;
    assert_eq!(waited, 3, "the world shows no rise that a forecast would be needed for");
    assert_eq!(bought_ahead(&world), 0);
    assert_eq!(world.violations(), [""; 0], "{}", world.log());
}

#[tokio::test(start_paused = true)]
async fn a_forecast_that_acts_of_itself_watches_for_a_week_and_then_buys_ahead() {
    let world = Stage::begin(office(PredictiveMode::Auto));
    // The journal forgets within the day: it is looked at in the mornings, just after the rise.
    tokio::time::sleep(6 * DAY + Duration::from_mins(14 * 60 + 5)).await;
    assert_eq!(bought_ahead(&world), 0, "{}", world.log());
    tokio::time::sleep(2 * DAY).await;
    assert!(bought_ahead(&world) > 0, "{}", world.log());
    assert_eq!(world.violations(), [""; 0], "{}", world.log());
}
