use super::super::fakes::{Counted, Outside, Paused, instance, joining, launch, line, retire, unavailable};
use super::*;
use crate::control::status::{Decision, Role};
use crate::model::ids::Epoch;
use crate::model::offer::HourlyPrice;
use crate::model::operation::{LaunchFailure, LaunchedInstance};
use crate::model::plan::RetireReason;
use crate::model::{LaunchState, Operation, RetireState};
use std::collections::BTreeSet;

const AT: Timestamp = Timestamp::UNIX_EPOCH;
const PATIENCE: Duration = Duration::from_mins(6);

fn report(pool: &str, owned: u32, cpu: Option<f64>) -> PoolReport {
    PoolReport {
        pool: pool.into(),
        owned,
        spot: owned / 2,
        in_flight: 0,
        ready: owned,
        min: 1,
        max: 9,
        desired: owned,
        price: HourlyPrice(u64::from(owned) * 100_000),
        price_after: HourlyPrice(0),
        cpu,
        memory: Some(0.5),
        findings: Vec::new(),
    }
}

fn status(pools: Vec<PoolReport>) -> Status {
    let plan = Plan { pools, pending: 5, unplaceable_pods: 2, ..Plan::default() };
    let decision = Decision { at: AT, trigger: "tick", plan: plan.clone(), refused: Vec::new(), operations: Vec::new() };
    let (plan, decisions, last_turn) = (Some(Arc::new(plan)), [Arc::new(decision)].into(), Some(AT));
    Status { role: Role::Leader { epoch: Epoch(1) }, plan, decisions, last_turn, ..Status::first("prod", "me", AT) }
}

fn value(data: &[Datum], name: &str, pool: Option<&str>) -> Option<f64> {
    let mut found = data.iter().filter(|datum| datum.name == name && datum.pool.as_ref().map(crate::model::PoolName::as_str) == pool);
    let value = found.next().map(|datum| datum.value);
    assert!(found.next().is_none(), "{name} comes once");
    value
}

fn joined() -> Arc<Happening> {
    let what = What::Joined {
        pool: "a".into(),
        instance: "i-1".into(),
        instance_type: "m5.large".into(),
        node: "n".into(),
        took: Duration::from_secs(74),
    };
    Arc::new(Happening { at: AT, what })
}

#[test]
fn the_cluster_is_the_sum_or_the_mean_of_its_pools() {
    let data = standing(&status(vec![report("a", 2, Some(0.2)), report("b", 6, Some(0.6))]), AT, PATIENCE);
    for (name, pool, expected) in [
        ("Heartbeat", None, 1.0),
        ("CurrentNodeCount", None, 8.0),
        ("CurrentNodeCount", Some("b"), 6.0),
        ("ClusterCPUUtilization", None, 50.0),
        ("ClusterCPUUtilization", Some("a"), 20.0),
        ("ClusterMemoryUtilization", None, 50.0),
        ("PendingPods", None, 3.0),
        ("CostEstimates", None, 0.8),
        ("SpotShare", None, 50.0),
    ] {
        let found = value(&data, name, pool).unwrap_or_else(|| panic!("{name} of {pool:?}"));
        assert!((found - expected).abs() < 1e-9, "{name} of {pool:?} is {found}");
    }
}

#[test]
fn what_is_not_known_is_not_sent() {
    let data = standing(&status(vec![report("a", 2, None), report("b", 6, Some(f64::NAN))]), AT, PATIENCE);
    assert!(data.iter().all(|datum| datum.name != "ClusterCPUUtilization"), "{data:?}");
    let blind = standing(&status(Vec::new()), AT, PATIENCE);
    assert_eq!(blind.iter().map(|datum| datum.name).collect::<Vec<_>>(), ["Heartbeat"]);
    let standby = Status { role: Role::Standby { leader: None }, ..status(vec![report("a", 2, Some(0.1))]) };
    assert_eq!(standing(&standby, AT, PATIENCE), []);
}

#[test]
fn an_old_plan_says_nothing_and_a_loop_that_hangs_has_no_heartbeat() {
    let names = |status: &Status, minutes: i64| -> Vec<&str> {
        standing(status, AT + SignedDuration::from_mins(minutes), PATIENCE).iter().map(|datum| datum.name).collect()
    };
    let hangs = status(vec![report("a", 2, Some(0.1))]);
    assert!(names(&hangs, 6).contains(&"ClusterCPUUtilization"));
    assert_eq!(names(&hangs, 7), [""; 0]);
    let plans_nothing = Status { last_turn: Some(AT + SignedDuration::from_mins(6)), ..hangs };
    assert_eq!(names(&plans_nothing, 7), ["Heartbeat"]);
    assert_eq!(names(&Status { last_turn: None, ..plans_nothing }, 7), [""; 0]);
}

fn figures_of(operation: Operation, begins: bool) -> (Milestone, Vec<Datum>) {
    let milestone = Milestone::of(&operation, begins);
    (milestone, figures(&Happening { at: AT, what: What::Moved { operation, begins, change: None } }))
}

/// Every move of an operation, whether it begins its effects, what it is to people, and the figure that CloudWatch is sent.
fn moves() -> Vec<(Operation, bool, Milestone, Option<&'static str>)> {
    let node = || instance("i-1", Some("n"));
    let done =
        |never_joined: Vec<LaunchedInstance>, left: Vec<LaunchedInstance>| LaunchState::Done { joined: vec![node()], never_joined, left };
    let late = || vec![instance("i-2", None)];
    let underused = || RetireReason::Underused { evidence: String::new() };
    let interrupted = || RetireReason::SpotInterruption { deadline: AT };
    let draining = || RetireState::Draining { since: AT };
    let rolled_back = RetireState::RolledBack { reason: String::new() };
    vec![
        (launch(LaunchState::Journalled), false, Milestone::Step, None),
        (launch(joining(&["i-1"])), true, Milestone::Launched, Some("ScaleUpEvents")),
        (launch(done(Vec::new(), Vec::new())), false, Milestone::Arrived, None),
        (launch(done(late(), Vec::new())), false, Milestone::LaunchFailed, Some("ScalingFailures")),
        (launch(done(Vec::new(), late())), false, Milestone::LaunchFailed, Some("ScalingFailures")),
        (
            launch(LaunchState::Failed { failure: LaunchFailure::InsufficientCapacity }),
            true,
            Milestone::LaunchFailed,
            Some("ScalingFailures"),
        ),
        (retire(underused(), draining()), true, Milestone::Leaves, None),
        (retire(underused(), draining()), false, Milestone::Step, None),
        (retire(interrupted(), draining()), true, Milestone::Interrupted, Some("SpotInterruptions")),
        (retire(interrupted(), RetireState::Terminated), false, Milestone::Step, None),
        (retire(underused(), RetireState::Done), false, Milestone::Left, Some("ScaleDownEvents")),
        (retire(interrupted(), RetireState::Done), false, Milestone::Left, Some("ScaleDownEvents")),
        (retire(underused(), rolled_back), false, Milestone::RolledBack, Some("ScalingFailures")),
    ]
}

#[test]
fn each_move_of_an_operation_sends_its_figure_once_and_nothing_else() {
    for (operation, begins, milestone, name) in moves() {
        let words = format!("{operation:?}");
        let (found, sent) = figures_of(operation, begins);
        assert_eq!(found, milestone, "{words}");
        let sent: Vec<(&str, f64)> = sent.iter().map(|datum| (datum.name, datum.value)).collect();
        assert_eq!(sent, name.map(|name| (name, 1.0)).into_iter().collect::<Vec<_>>(), "{words}");
    }
}

#[test]
fn what_is_sent_are_the_figures_of_the_list_with_their_units_and_no_others() {
    let mut sent = standing(&status(vec![report("a", 2, Some(0.1))]), AT, PATIENCE);
    sent.extend(figures(&joined()));
    sent.extend(moves().into_iter().flat_map(|(operation, begins, _, _)| figures_of(operation, begins).1));
    let names = |metrics: &[Metric]| -> BTreeSet<(&str, &str)> { metrics.iter().map(|(name, unit)| (*name, unit.name())).collect() };
    for (by_pool, list) in [(false, METRICS.as_slice()), (true, BY_POOL.as_slice())] {
        let found = sent.iter().filter(|datum| datum.pool.is_some() == by_pool).map(|datum| (datum.name, datum.unit.name()));
        assert_eq!(found.collect::<BTreeSet<_>>(), names(list), "of pools: {by_pool}");
    }
}

#[test]
fn the_alarms_watch_what_is_sent() {
    let source = include_str!("../../../pulumi/src/metrics.ts");
    let body = source.split_once("export const METRICS = {").and_then(|(_, rest)| rest.split_once('}')).expect("the list of metrics").0;
    let theirs: BTreeSet<(&str, &str)> = body
        .lines()
        .filter_map(|line| line.trim().trim_end_matches(',').split_once(": "))
        .map(|(name, unit)| (name, unit.trim_matches('"')))
        .collect();
    let ours: BTreeSet<(&str, &str)> = METRICS.iter().map(|(name, unit)| (*name, unit.name())).collect();
    assert_eq!(theirs, ours);
    assert!(source.contains(&format!("export const DIMENSIONS = [\"{CLUSTER}\"] as const;")));
    let namespace =
        crate::config::parse(include_str!("../../../config/node-fleet.toml"), "f", []).expect("it is good").cloudwatch.namespace;
    assert!(source.contains(&format!("export const NAMESPACE = \"{namespace}\";")), "{namespace}");
}

struct Scene {
    store: Arc<Outside<Vec<Datum>>>,
    tell: broadcast::Sender<Arc<Happening>>,
    counted: Counted,
    _status: watch::Sender<Arc<Status>>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

fn scene(failures: usize) -> Scene {
    scene_with(Outside::new(std::iter::repeat_with(unavailable).take(failures)))
}

fn scene_with(store: Arc<Outside<Vec<Datum>>>) -> Scene {
    let (tell, happenings) = broadcast::channel(64);
    let (status, shown) = watch::channel(Arc::new(status(vec![report("a", 2, Some(0.5))])));
    let (stop, stopped) = watch::channel(false);
    let (line, counted, _) = line("cloudwatch");
    let sources = Sources { happenings, status: shown, stop: stopped };
    // The one turn of this status is to be enough.
    let task = tokio::spawn(keep(Duration::from_mins(1), Duration::from_hours(3), Arc::clone(&store), Paused::new(), line, sources));
    Scene { store, tell, counted, _status: status, stop, task }
}

async fn minutes(minutes: u64) {
    tokio::time::sleep(Duration::from_mins(minutes)).await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_most_of_an_hour_loses_nothing_and_every_figure_keeps_its_time() {
    // Pauses double to a minute: these failures take about fifty minutes.
    let scene = scene(54);
    scene.tell.send(joined()).expect("it listens");
    minutes(70).await;
    let data: Vec<Datum> = scene.store.take().into_iter().flat_map(|(_, data)| data).collect();
    let beats: Vec<i64> = data.iter().filter(|datum| datum.name == "Heartbeat").map(|datum| datum.at.as_second()).collect();
    assert_eq!(beats, (0..beats.len()).map(|minute| i64::try_from(minute).expect("few") * 60).collect::<Vec<_>>());
    assert!(beats.len() >= 69, "{}", beats.len());
    assert_eq!(value(&data, "NodeJoinLatency", None), Some(74.0));
    assert_eq!(scene.counted.told("dropped"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_longer_outage_drops_the_oldest_and_counts_them() {
    let scene = scene(200);
    minutes(400).await;
    let data: Vec<Datum> = scene.store.take().into_iter().flat_map(|(_, data)| data).collect();
    assert!(scene.counted.told("dropped") > 500, "{}", scene.counted.told("dropped"));
    assert!(data.iter().any(|datum| datum.name == "Heartbeat"));
    let mut batch: VecDeque<Datum> = std::iter::repeat_n(data[0].clone(), KEPT + 5).collect();
    let dropped = forget(&mut batch, data[0].at);
    assert_eq!((dropped, batch.len()), (5, KEPT));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_holds_nobody_up_at_the_end() {
    let store = Outside { takes: Duration::from_hours(1), ..Arc::into_inner(Outside::new([])).expect("it is ours") };
    let scene = scene_with(Arc::new(store));
    minutes(1).await;
    let start = Instant::now();
    scene.stop.send_replace(true);
    scene.task.await.expect("it ends");
    assert_eq!(start.elapsed(), super::super::outlets::LAST_WORDS);
    assert!(scene.counted.told("dropped") > 0, "what was not sent is counted");
}

#[tokio::test(start_paused = true)]
async fn what_waits_at_the_end_is_sent_while_that_works_and_counted_otherwise() {
    for (failures, sent) in [(0, 1), (1, 0)] {
        let scene = scene(failures);
        scene.tell.send(joined()).expect("it listens");
        // It hears of both at once.
        scene.stop.send_replace(true);
        scene.task.await.expect("it ends");
        let data: Vec<Datum> = scene.store.take().into_iter().flat_map(|(_, data)| data).collect();
        assert_eq!((data.len(), scene.counted.told("dropped")), (sent, 1 - u64::try_from(sent).expect("few")));
    }
}
