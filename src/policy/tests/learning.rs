//! What the end of an operation teaches, row by row.

use super::*;
use crate::model::PoolName;
use crate::model::memory::PoolMemory;
use crate::model::offer::Families;
use crate::model::operation::{LaunchFailure, LaunchedInstance};
use crate::policy::learn;

fn key(instance_type: &str) -> OfferKey {
    OfferKey { instance_type: instance_type.into(), zone: "a".into(), market: Market::Spot }
}

/// A launch that two types would have served.
fn of_two_types(state: LaunchState) -> Operation {
    launch("op", LaunchOrder { instance_types: vec!["m5.large".into(), "m5.xlarge".into()], ..order(1) }, state)
}

fn failed(failure: LaunchFailure) -> Operation {
    of_two_types(LaunchState::Failed { failure })
}

/// One is over: the types that joined, id and type of what did not.
fn done(joined: &[&str], never_joined: &[(&str, &str)]) -> Operation {
    let joined = joined.iter().map(|kind| LaunchedInstance { id: "i-x".into(), instance_type: (*kind).into(), node: Some("n".into()) });
    let never = never_joined.iter().map(|(id, kind)| LaunchedInstance { id: (*id).into(), instance_type: (*kind).into(), node: None });
    of_two_types(LaunchState::Done { joined: joined.collect(), never_joined: never.collect(), left: Vec::new() })
}

/// An instance never joined and lives on.
fn left() -> Operation {
    let instance = LaunchedInstance { id: "i-left".into(), instance_type: "m5.large".into(), node: None };
    of_two_types(LaunchState::Done { joined: Vec::new(), never_joined: Vec::new(), left: vec![instance] })
}

/// EC2 has answered, and its instances boot.
fn joining() -> Operation {
    of_two_types(LaunchState::Joining { instances: Vec::new(), since: start() })
}

fn never_joined() -> Operation {
    done(&[], &[Y, Z])
}

const Y: (&str, &str) = ("i-y", "m5.large");
const Z: (&str, &str) = ("i-z", "m5.xlarge");

fn taught(settings: &Settings, operations: &[Operation]) -> Memory {
    operations.iter().fold(Memory::default(), |memory, operation| learn(settings, memory, operation, &[], start()))
}

fn workers(offer: OfferKey) -> (PoolName, OfferKey) {
    ("workers".into(), offer)
}

fn pause(rest: &Rest) -> i64 {
    rest.until.duration_since(start()).as_secs()
}

fn message() -> String {
    "no".into()
}

#[test]
fn each_failure_lets_rest_what_it_speaks_of() {
    let rows = [
        (LaunchFailure::InsufficientCapacity, Some("insufficient capacity"), None, None, None),
        (LaunchFailure::Refused { message: message() }, None, Some("refused: no"), None, None),
        (LaunchFailure::Unanswered { message: message() }, None, Some("EC2 did not answer: no"), None, None),
        (LaunchFailure::Quota { message: message() }, None, None, Some("account limit: no"), None),
        (LaunchFailure::TokenMismatch, None, None, None, Some("token_mismatch")),
        (LaunchFailure::Busy { message: message() }, None, None, None, None),
    ];
    for (failure, everywhere, of_pool, market, incident) in rows {
        let memory = taught(&settings(), &[failed(failure.clone())]);
        let rest = |why: &str| Rest { until: after(1), failures: 1, since: start(), why: why.into(), stopped: false };
        let both = |why| [(key("m5.large"), rest(why)), (key("m5.xlarge"), rest(why))];
        assert_eq!(memory.offers, everywhere.map(both).into_iter().flatten().collect(), "{failure:?}");
        let of_pool = of_pool.map(both).into_iter().flatten().map(|(offer, rest)| (workers(offer), rest));
        assert_eq!(memory.pool_offers, of_pool.collect(), "{failure:?}");
        assert_eq!(memory.quotas, market.map(|why| (key("m5.large").quota(), rest(why))).into_iter().collect(), "{failure:?}");
        assert_eq!(memory.incidents.keys().map(String::as_str).next(), incident, "{failure:?}");
        assert!(memory.incidents.values().all(|incident| incident.until == after(60)), "{failure:?}");
        assert_eq!(memory.never_joined_by_pool, BTreeMap::new(), "{failure:?}");
    }
}

#[test]
fn the_pause_doubles_with_each_failure_in_a_row_up_to_the_longest() {
    let mut settings = settings();
    settings.rest.first = Duration::from_secs(1);
    settings.rest.longest = Duration::from_hours(10_000);
    let rows = [(1, 1), (2, 2), (3, 4), (16, 1 << 15), (17, 1 << 16), (18, 1 << 16), (100, 1 << 16)];
    for (failures, seconds) in rows {
        let memory = taught(&settings, &vec![failed(LaunchFailure::InsufficientCapacity); failures]);
        let rest = &memory.offers[&key("m5.large")];
        assert_eq!((pause(rest), rest.failures as usize), (seconds, failures));
        let memory = taught(&settings, &vec![failed(LaunchFailure::Quota { message: message() }); failures]);
        let rest = &memory.quotas[&key("m5.large").quota()];
        assert_eq!((pause(rest), rest.failures as usize), (seconds, failures), "of a limit");
    }
    settings.rest.longest = Duration::from_secs(3);
    assert_eq!(pause(&taught(&settings, &vec![failed(LaunchFailure::InsufficientCapacity); 3]).offers[&key("m5.large")]), 3);
}

#[test]
fn what_ec2_named_as_empty_rests_once_and_the_other_types_with_it() {
    let rows = [
        (LaunchFailure::InsufficientCapacity, vec!["m5.large"], vec![("m5.large", 1), ("m5.xlarge", 1)]),
        (LaunchFailure::InsufficientCapacity, vec!["m5.large", "m5.xlarge"], vec![("m5.large", 1), ("m5.xlarge", 1)]),
        (LaunchFailure::Busy { message: message() }, vec!["m5.xlarge"], vec![("m5.xlarge", 1)]),
    ];
    for (failure, empty, expected) in rows {
        let empty: Vec<OfferKey> = empty.into_iter().map(key).collect();
        let memory = learn(&settings(), Memory::default(), &failed(failure), &empty, start());
        let expected: Vec<_> = expected.into_iter().map(|(kind, failures)| (key(kind), failures)).collect();
        let resting: Vec<_> = memory.offers.iter().map(|(key, rest)| (key.clone(), rest.failures)).collect();
        assert_eq!(resting, expected);
    }
}

#[test]
fn only_types_of_which_nothing_joined_are_suspects() {
    let rows = [
        ("nothing joined", never_joined(), vec![1, 1]),
        ("nothing joined, and EC2 does not end it", left(), vec![1]),
        ("one of two types joined", done(&["m5.large"], &[Z]), vec![1]),
        ("one of two of a type joined", done(&["m5.large"], &[Y]), vec![]),
        ("all joined", done(&["m5.large"], &[]), vec![]),
        ("nothing came and nothing failed to join", done(&[], &[]), vec![]),
        ("it is under way", of_two_types(LaunchState::Journalled), vec![]),
    ];
    for (what, operation, expected) in rows {
        let memory = taught(&settings(), &[operation]);
        assert_eq!(memory.never_joined_by_pool.values().copied().collect::<Vec<_>>(), expected, "{what}");
        assert_eq!((memory.pool_offers.len(), memory.offers.len()), (expected.len(), 0), "{what}");
    }
}

#[test]
fn what_ec2_takes_back_while_it_boots_says_nothing_about_its_offer() {
    let reclaimed = |name: &str| retire(name, RetireReason::SpotInterruption { deadline: start() }, RetireState::Done);
    let strikes = |operations: &[Operation]| taught(&settings(), operations).never_joined_by_pool.len();
    assert_eq!(strikes(&[reclaimed("y"), done(&[], &[Y])]), 0);
    assert_eq!(strikes(&[reclaimed("y"), done(&[], &[Y, Z])]), 1, "one of them was not taken back");
    assert_eq!(strikes(&[retire("y", underused(), RetireState::Done), done(&[], &[Y])]), 1);
    let mut scene = Scene::with_nodes(2);
    scene.memory = taught(&settings(), &[reclaimed("y")]);
    scene.turn(after(59));
    assert_eq!(scene.memory.reclaimed.len(), 1);
    scene.turn(after(60));
    assert_eq!(scene.memory.reclaimed.len(), 0);
}

#[test]
fn an_offer_is_stopped_by_its_third_launch_in_a_row_that_never_joined() {
    let row = |operations: &[Operation]| {
        let memory = taught(&settings(), operations);
        let offer = |kind| memory.pool_offers.get(&workers(key(kind))).map(|rest| (rest.stopped, pause(rest) / 60));
        (offer("m5.large"), offer("m5.xlarge"))
    };
    let (joins, never) = (|| done(&["m5.large"], &[]), never_joined);
    assert_eq!(row(&[never()]), (Some((false, 1)), Some((false, 1))));
    assert_eq!(row(&[never(), never()]), (Some((false, 2)), Some((false, 2))));
    assert_eq!(row(&[never(), never(), never()]), (Some((true, 24 * 60)), Some((true, 24 * 60))));
    assert_eq!(row(&[never(), never(), never(), never()]).0, Some((true, 24 * 60)), "and it stays so");
    let interrupted = row(&[never(), never(), joins(), never()]);
    assert_eq!(interrupted, (Some((false, 1)), Some((true, 24 * 60))), "only the type that joined is cleared");
    assert_eq!(row(&[never(), never(), failed(LaunchFailure::InsufficientCapacity)]).0, Some((false, 2)), "another failure does not count");
    let stopped = taught(&settings(), &[never(), never(), never()]);
    assert_eq!(stopped.pool_offers[&workers(key("m5.large"))].why, "3 launches in a row never joined");
}

#[test]
fn an_instance_that_joins_clears_its_offer_and_its_limit() {
    let quota = |market| {
        let order = LaunchOrder { market, ..order(1) };
        launch("op", order, LaunchState::Failed { failure: LaunchFailure::Quota { message: message() } })
    };
    let before = [never_joined(), quota(Market::Spot), quota(Market::OnDemand)];
    let after_it = |operation| taught(&settings(), &[&before[..], &[operation]].concat());
    let memory = after_it(done(&["m5.xlarge"], &[Y]));
    assert_eq!(memory.pool_offers.keys().collect::<Vec<_>>(), [&workers(key("m5.large"))]);
    assert_eq!(memory.never_joined_by_pool.keys().collect::<Vec<_>>(), [&workers(key("m5.large"))]);
    assert_eq!(memory.quotas.keys().map(|quota| quota.market).collect::<Vec<_>>(), [Market::OnDemand]);
    let memory = after_it(done(&[], &[]));
    assert_eq!((memory.pool_offers.len(), memory.never_joined_by_pool.len(), memory.quotas.len()), (2, 2, 2), "nothing has joined");
}

#[test]
fn what_fails_for_one_pool_says_nothing_about_another() {
    let of_pool = |pool: &str, operation: Operation| {
        let mut operation = operation;
        if let Operation::Launch(launch) = &mut operation {
            launch.order.pool = pool.into();
        }
        operation
    };
    let never = || of_pool("broken", never_joined());
    let memory = taught(&settings(), &[never(), of_pool("web", done(&["m5.large"], &[])), never(), never()]);
    assert!(memory.rest(&"broken".into(), &key("m5.large")).is_some_and(|rest| rest.stopped), "the other one's success disarms nothing");
    assert_eq!(memory.rest(&"web".into(), &key("m5.large")), None);
    let memory = taught(&settings(), &[of_pool("broken", failed(LaunchFailure::InsufficientCapacity))]);
    assert!(memory.rest(&"web".into(), &key("m5.large")).is_some(), "where EC2 has none it has none for anybody");
}

#[test]
fn a_limit_rests_what_it_counts_and_nothing_else() {
    let families = |name: &str| key(name).quota().families;
    for (name, expected) in [
        ("m5.large", Families::Standard),
        ("c7gn.xlarge", Families::Standard),
        ("im4gn.large", Families::Standard),
        ("t3.medium", Families::Standard),
        ("g5.xlarge", Families::GAndVt),
        ("vt1.3xlarge", Families::GAndVt),
        ("p5.48xlarge", Families::P),
        ("x2idn.16xlarge", Families::X),
        ("inf2.xlarge", Families::Inf),
        ("u-6tb1.metal", Families::HighMemory),
    ] {
        assert_eq!(families(name), expected, "{name}");
    }
    let mut scene = Scene::with_nodes(2).pods([running("a", 1800, "n0"), running("b", 1800, "n1"), pending("c", 1000)]);
    let order = LaunchOrder { instance_types: vec!["g5.xlarge".into()], ..order(1) };
    let refused = launch("op", order, LaunchState::Failed { failure: LaunchFailure::Quota { message: message() } });
    scene.memory = taught(&settings(), &[refused]);
    let plan = scene.turn(start());
    assert_eq!((launched(&plan), launches(&plan)[0].market), (1, Market::Spot), "spot of other families is bought");
    assert!(plan.alerts.iter().any(|alert| alert.text.contains("spot of the G and VT families")), "{:?}", plan.alerts);
}

#[test]
fn growth_that_a_rule_wanted_and_did_not_get_is_no_reason_to_wait() {
    let rule = || LaunchReason::Rule { rule: "cpu".into(), evidence: String::new() };
    let busy = || LaunchState::Failed { failure: LaunchFailure::Busy { message: message() } };
    let rows = [
        ("at once", rule(), busy(), 0, false),
        ("a minute before the pool's growth", rule(), busy(), 60, false),
        ("more than a minute before it", rule(), busy(), 61, true),
        ("a minute after it", rule(), busy(), -60, false),
        ("more than a minute after it", rule(), busy(), -61, true),
        ("for pods", LaunchReason::PendingPods { pods: 1 }, busy(), 0, true),
        ("for the minimum", LaunchReason::BelowMinimum, busy(), 0, true),
        ("it came", rule(), LaunchState::Done { joined: Vec::new(), never_joined: Vec::new(), left: Vec::new() }, 0, true),
    ];
    for (what, reason, state, second, stays) in rows {
        let mut memory = Memory::default();
        memory.pools.insert(
            "workers".into(),
            PoolMemory { last_up: Some(later(second)), last_rule_up: Some(later(second)), ..PoolMemory::default() },
        );
        memory.pools.insert("other".into(), PoolMemory { last_up: Some(start()), ..PoolMemory::default() });
        let memory = learn(&settings(), memory, &launch("op", LaunchOrder { reason, ..order(1) }, state), &[], start());
        assert_eq!(memory.pools["workers"].last_up, stays.then(|| later(second)), "{what}");
        assert_eq!(memory.pools["workers"].last_rule_up, stays.then(|| later(second)), "{what}");
        assert_eq!(memory.pools["other"].last_up, Some(start()), "{what}");
    }
}

#[test]
fn a_removal_that_is_rolled_back_leaves_its_node_alone_and_says_so() {
    let rows = [
        (underused(), Some("drain_failed")),
        (RetireReason::Consolidated { evidence: String::new() }, Some("drain_failed")),
        (RetireReason::AboveMaximum, Some("drain_failed")),
        (RetireReason::SpotInterruption { deadline: start() }, Some("drain_failed")),
        (RetireReason::NeverJoined, Some("stray_left_alone")),
        (RetireReason::Leaked, Some("stray_left_alone")),
        (RetireReason::InstanceGone, Some("stray_left_alone")),
        (RetireReason::Unhealthy { since: start() }, Some("stray_left_alone")),
    ];
    for (reason, incident) in rows {
        let rolled_back = RetireState::RolledBack { reason: "a budget".into() };
        let memory = taught(&settings(), &[retire("n1", reason.clone(), rolled_back)]);
        assert_eq!(memory.resting_nodes, [("n1".into(), after(15))].into(), "{reason:?}");
        let shown: Vec<_> = memory.incidents.iter().map(|(name, incident)| (name.as_str(), incident.until)).collect();
        assert_eq!(shown, incident.map(|name| (name, after(60))).into_iter().collect::<Vec<_>>(), "{reason:?}");
        let text = memory.incidents.into_values().map(|incident| incident.text).collect::<String>();
        assert!(text.contains("n1") && text.contains("a budget"), "{text}");
        let again = if incident == Some("stray_left_alone") { vec![("node n1 uid-n1".to_owned(), start())] } else { Vec::new() };
        assert_eq!(memory.strays.into_iter().collect::<Vec<_>>(), again, "{reason:?}");
    }
    for state in [RetireState::Journalled, RetireState::Terminated, RetireState::Done, RetireState::RollingBack { reason: message() }] {
        assert_eq!(taught(&settings(), &[retire("n1", underused(), state.clone())]), Memory::default(), "{state:?}");
    }
}

#[test]
fn an_instance_without_a_node_that_may_not_go_is_looked_at_again_by_its_id() {
    let Operation::Retire(mut lost) = retire("n1", RetireReason::Leaked, RetireState::RolledBack { reason: message() }) else {
        panic!("a retirement")
    };
    lost.order.node = None;
    let memory = taught(&settings(), &[Operation::Retire(lost)]);
    assert_eq!((memory.strays, memory.resting_nodes), ([("instance i-n1".to_owned(), start())].into(), BTreeMap::new()));
}

#[test]
fn a_join_says_nothing_about_what_failed_after_its_launch_was_begun() {
    type Row = (&'static str, Vec<(i64, Operation, bool)>, [Option<u32>; 3]);
    let join = || done(&["m5.large"], &[]);
    let reached = || failed(LaunchFailure::Quota { message: message() });
    let refused = || failed(LaunchFailure::Refused { message: message() });
    // The operations are of the scene's start; what they teach is learned at these seconds, and EC2 has named the type as empty.
    let rests = |operations: &[(i64, Operation, bool)]| {
        let memory = operations.iter().fold(Memory::default(), |memory, (second, operation, empty)| {
            let empty: Vec<OfferKey> = empty.then(|| key("m5.large")).into_iter().collect();
            learn(&settings(), memory, operation, &empty, later(*second))
        });
        let (everywhere, of_pool) = (memory.offers.get(&key("m5.large")), memory.pool_offers.get(&workers(key("m5.large"))));
        [everywhere, of_pool, memory.quotas.get(&key("m5.large").quota())].map(|rest| rest.map(|rest| rest.failures))
    };
    let rows: [Row; 6] = [
        ("the limit was reached by another launch meanwhile", vec![(1, reached(), false), (90, join(), false)], [None, None, Some(1)]),
        ("the limit was reached before", vec![(0, reached(), false), (90, join(), false)], [None; 3]),
        ("another launch was refused meanwhile", vec![(1, refused(), false), (90, join(), false)], [None, Some(1), None]),
        ("the launch itself was filled in part", vec![(2, joining(), true), (90, join(), false)], [Some(1), None, None]),
        (
            "it was filled in part, and not for the first time",
            vec![(-60, joining(), true), (2, joining(), true), (90, join(), false)],
            [Some(2), None, None],
        ),
        ("EC2 had none before", vec![(-60, joining(), true), (90, join(), false)], [None; 3]),
    ];
    for (what, operations, expected) in rows {
        assert_eq!(rests(&operations), expected, "{what}");
    }
}

#[test]
fn a_stop_ends_with_any_instance_that_joins() {
    let at = |second, memory, operation| learn(&settings(), memory, &operation, &[], later(second));
    let stopped = [1, 2, 3].into_iter().fold(Memory::default(), |memory, second| at(second, memory, never_joined()));
    assert!(stopped.pool_offers[&workers(key("m5.large"))].stopped);
    let joined = at(90, stopped.clone(), done(&["m5.large"], &[]));
    assert_eq!(joined.pool_offers.get(&workers(key("m5.large"))), None, "its instances do join");
    assert!(joined.pool_offers[&workers(key("m5.xlarge"))].stopped, "of the other type none has");
}
