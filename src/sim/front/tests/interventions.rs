//! What people, and single strokes of fate, do to a fleet at a chosen moment.

use crate::control::status::{Command, Role};
use crate::model::ids::Epoch;
use crate::model::operation::RetireState;
use crate::model::plan::{NodeRef, OnDrainTimeout, RetireReason};
use crate::model::snapshot::Pause;
use crate::model::{Market, Node, NodeName, Operation, Retire, RetireOrder};
use crate::ports::Notice;
use crate::sim::client::Mishap;
use crate::sim::dynamodb::{Entry, TODAY};
use crate::sim::front::{Scenario, Stage};
use crate::sim::universe::Truth;
use crate::sim::workload::Curve;
use crate::sim::{Fault, Planned};
use std::time::Duration;
use tokio::sync::oneshot;

/// Four workers, two of which are enough.
pub(super) fn idle() -> Scenario {
    let mut scenario = Scenario::quiet(1, 1000.0, 2);
    scenario.workers = 4;
    scenario.workloads[0].curve = Curve::Constant(0.8);
    scenario
}

/// A fleet that wants nothing but spot, whose load has just bought a node.
pub(super) async fn with_a_spot_node() -> Stage {
    let mut scenario = Scenario::quiet(1, 1000.0, 3);
    scenario.settings.policy.pools[0].spot_share = 1.0;
    scenario.settings.policy.pools[0].on_demand_base = 0;
    let world = Stage::begin(scenario);
    pass(MINUTE).await;
    world.load(6.0);
    world.until("a spot node", MINUTE * 4, |truth| truth.log.lines().any(|line| line.contains(" joins "))).await;
    world
}

/// Writes a removal for economy into the journal, `r-1`, as a controller that ended right after it would have left it.
pub(super) fn journal_removal(truth: &mut Truth, node: &Node) {
    let order = RetireOrder {
        pool: node.pool().expect("its pool"),
        instance: node.instance.clone(),
        node: Some(NodeRef { name: node.name.clone(), uid: node.uid.clone() }),
        zone: "eu-central-1a".into(),
        market: Market::OnDemand,
        reason: RetireReason::Underused { evidence: String::new() },
        on_timeout: OnDrainTimeout::RollBack,
    };
    let now = truth.wall();
    let retire = Retire { id: "r-1".into(), epoch: Epoch(0), created: now, updated: now, order, state: RetireState::Journalled };
    truth.table.journal.insert("r-1".into(), Entry { operation: Operation::Retire(retire), version: TODAY, writer: (Epoch(0), 0) });
}

pub(super) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

impl Stage {
    pub(super) async fn until(&self, what: &str, limit: Duration, is: impl Fn(&mut Truth) -> bool) {
        self.is_so(what, limit, is).await.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Waits until a node is cordoned, and names it.
    pub(super) async fn cordoned(&self) -> NodeName {
        let find = |truth: &mut Truth| truth.kubernetes.nodes().values().find(|node| node.cordoned).map(|node| node.name.clone());
        self.until("a cordon", Duration::from_mins(40), |truth| find(truth).is_some()).await;
        self.with(find).expect("it is there")
    }

    pub(super) fn count(&self, text: &str) -> usize {
        self.with(|truth| truth.log.lines().filter(|line| line.contains(text)).count())
    }

    /// Looks whether every invariant has held.
    pub(super) fn is_sound(&self) {
        assert_eq!(self.violations(), [""; 0], "{}", self.log());
    }

    pub(super) fn leader(&self) -> Option<usize> {
        let leads = |number: &usize| {
            let handle = self.0.handles[*number].borrow().clone();
            handle.is_some_and(|handle| matches!(handle.status.borrow().role, Role::Leader { .. }))
        };
        (0..self.0.handles.len()).find(leads)
    }

    async fn say(&self, command: impl Fn(oneshot::Sender<Result<(), String>>) -> Command) {
        let leader = self.leader().expect("somebody leads");
        let handle = self.0.handles[leader].borrow().clone().expect("it lives");
        let (done, answer) = oneshot::channel();
        handle.commands.send(command(done)).await.expect("it listens");
        answer.await.expect("an answer").expect("it is done");
    }

    async fn pause(&self) {
        self.say(|done| Command::Pause { by: "ada".into(), reason: "maintenance".into(), done }).await;
    }

    async fn resume(&self) {
        self.say(|done| Command::Resume { by: "ada".into(), done }).await;
    }

    fn is_paused(&self) -> bool {
        let leader = self.leader().expect("somebody leads");
        self.0.handles[leader].borrow().as_ref().is_some_and(|handle| handle.status.borrow().pause.is_some())
    }

    /// Lets the load become so many cores.
    pub(super) fn load(&self, cores: f64) {
        self.with(|truth| truth.workloads[0].curve = Curve::Constant(cores));
    }
}

pub(super) const MINUTE: Duration = Duration::from_mins(1);

#[tokio::test(start_paused = true)]
async fn an_urgent_turn_shows_what_prometheus_said_last() {
    let world = Stage::begin(Scenario::quiet(1, 1000.0, 2));
    pass(MINUTE * 10).await;
    world.load(6.0);
    for _ in 0..600 {
        pass(Duration::from_secs(1)).await;
        let handle = world.0.handles[world.leader().expect("somebody leads")].borrow().clone().expect("it lives");
        let status = handle.status.borrow().clone();
        if status.decisions.front().is_some_and(|decision| decision.trigger == "pods") {
            let report = &status.plan.as_ref().expect("a plan").pools[0];
            assert!(report.cpu.is_some() && report.memory.is_some(), "{report:?}");
            return;
        }
    }
    panic!("no urgent turn came");
}

#[tokio::test(start_paused = true)]
async fn pods_that_find_no_node_get_one_bought_within_a_second() {
    let world = Stage::begin(Scenario::quiet(1, 1000.0, 2));
    pass(MINUTE).await;
    world.load(8.0);
    world.until("pods that find no node", MINUTE * 2, |truth| truth.marks > 0).await;
    pass(Duration::from_secs(1)).await;
    assert!(world.count(" buys ") > 0, "{}", world.log());
    world.until("room for all", MINUTE * 3, |truth| truth.kubernetes.waits() == 0).await;
    world.is_sound();
}

#[tokio::test(start_paused = true)]
async fn who_asks_a_leader_that_still_reads_its_journal_is_answered() {
    let world = Stage::begin(Scenario::quiet(1, 1000.0, 2));
    world.with(|truth| truth.clients[0].mishaps.push(("load", Mishap::Throttled)));
    while world.leader().is_none() {
        pass(Duration::from_millis(1)).await;
    }
    let turns = |world: &Stage| {
        let handle = world.0.handles[0].borrow().clone().expect("it lives");
        handle.status.borrow().turns
    };
    assert_eq!(turns(&world), 0, "its journal is read already");
    let handle = world.0.handles[0].borrow().clone().expect("it lives");
    let (done, answer) = oneshot::channel();
    handle.commands.send(Command::Evaluate { done }).await.expect("it listens");
    assert!(answer.await.expect("an answer").is_ok());
    assert!(turns(&world) > 0);
}

#[tokio::test(start_paused = true)]
async fn an_idle_fleet_shrinks_to_its_minimum_one_node_at_a_time_and_stays_in_both_zones() {
    let world = Stage::begin(idle());
    pass(MINUTE * 14).await;
    assert_eq!(world.count(" terminates "), 1, "{}", world.log());
    pass(MINUTE * 120).await;
    assert_eq!(world.count(" terminates "), 2, "{}", world.log());
    let zones = world.with(|truth| {
        truth.ec2.living().filter(|it| it.pool().is_some()).map(|it| it.zone.clone()).collect::<std::collections::BTreeSet<_>>()
    });
    assert_eq!(zones.len(), 2);
    world.is_sound();
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_loses_its_tag_in_its_drain_is_left_alone_and_its_node_is_back_in_service() {
    let mut scenario = idle();
    scenario.workloads[0].grace = MINUTE;
    let world = Stage::begin(scenario);
    let name = world.cordoned().await;
    let id = world.with(|truth| truth.kubernetes.nodes()[&name].instance.clone()).expect("a machine");
    world.with(|truth| truth.disown(&id));
    world.until("a node in service", MINUTE * 3, |truth| !truth.kubernetes.nodes()[&name].cordoned).await;
    pass(MINUTE * 20).await;
    assert_eq!(world.count(&format!(" terminates {id}")), 0, "{}", world.log());
    assert!(world.with(|truth| truth.ec2.machines[&id].lives()));
    world.is_sound();
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_loses_its_tag_before_it_joins_is_not_given_back() {
    let mut scenario = Scenario::quiet(1, 1000.0, 2);
    scenario.faults = vec![Planned { fault: Fault::NeverJoins, at: MINUTE, lasts: MINUTE * 5 }];
    let world = Stage::begin(scenario);
    pass(MINUTE * 2).await;
    world.load(5.4);
    world.until("a launch", MINUTE * 2, |truth| truth.log.lines().any(|line| line.contains(" buys "))).await;
    let young = |truth: &mut Truth| truth.ec2.living().map(|machine| machine.id.clone()).max();
    let id = world.with(young).expect("a machine");
    world.with(|truth| truth.disown(&id));
    pass(MINUTE * 20).await;
    assert_eq!(world.count(&format!(" terminates {id}")), 0, "{}", world.log());
    assert!(world.count(" joins ") > 0, "another one serves the pods: {}", world.log());
    world.is_sound();
}

#[tokio::test(start_paused = true)]
async fn offers_whose_machines_never_join_stop_until_an_operator_resets_them() {
    let mut scenario = Scenario::quiet(1, 1000.0, 2);
    scenario.settings.policy.rest.stopped = Duration::from_hours(100);
    scenario.settings.policy.pools[0].spot_share = 0.5;
    scenario.faults = vec![Planned { fault: Fault::NeverJoins, at: MINUTE, lasts: Duration::from_hours(24) }];
    let world = Stage::begin(scenario);
    pass(MINUTE * 2).await;
    world.load(8.0);
    pass(Duration::from_hours(20)).await;
    // Three launches of one type in two zones on two markets, and perhaps one each that is under way when the third fails.
    let bought = world.count(" buys ");
    assert!((12..=16).contains(&bought), "{}", world.log());
    pass(Duration::from_hours(5)).await;
    assert_eq!(world.count(" buys "), bought, "{}", world.log());
    world.say(|done| Command::ResetOffers { by: "ada".into(), done }).await;
    world.until("room for all", MINUTE * 3, |truth| truth.kubernetes.waits() == 0).await;
    world.is_sound();
}

#[tokio::test(start_paused = true)]
async fn a_pause_finishes_what_is_in_flight_and_starts_nothing() {
    let world = Stage::begin(Scenario::quiet(1, 1000.0, 2));
    pass(MINUTE).await;
    world.load(5.4);
    world.until("a launch", MINUTE * 2, |truth| truth.log.lines().any(|line| line.contains(" buys "))).await;
    world.pause().await;
    let bought = world.count(" buys ");
    world.load(12.0);
    pass(MINUTE * 30).await;
    assert_eq!((world.count(" buys "), world.count(" joins ")), (bought, bought), "{}", world.log());
    assert!(world.is_paused());
    world.resume().await;
    world.until("room for all", MINUTE * 4, |truth| truth.kubernetes.waits() == 0).await;
    world.is_sound();
}

#[tokio::test(start_paused = true)]
async fn an_operators_word_outlives_what_the_ledger_said_before_it() {
    let world = Stage::begin(Scenario::quiet(1, 1000.0, 2));
    pass(MINUTE).await;
    world.with(|truth| truth.clients[0].slow = Some(("pause", Duration::from_secs(5))));
    world.load(8.0);
    world.until("pods that find no node", MINUTE * 2, |truth| truth.marks > 0).await;
    pass(Duration::from_secs(2)).await;
    world.pause().await;
    pass(Duration::from_secs(20)).await;
    assert!(world.is_paused());
    assert_eq!(world.count(" buys "), 0, "the turn that was under way started something: {}", world.log());
    world.resume().await;
    for _ in 0..20 {
        assert!(!world.is_paused());
        pass(Duration::from_secs(1)).await;
    }
    assert!(world.count(" buys ") > 0, "{}", world.log());
}

#[tokio::test(start_paused = true)]
async fn an_instance_whose_node_cannot_be_read_is_not_given_back() {
    let world = Stage::begin(Scenario::quiet(1, 1000.0, 2));
    pass(MINUTE).await;
    world.load(5.4);
    world.until("a launch", MINUTE * 2, |truth| truth.log.lines().any(|line| line.contains(" buys "))).await;
    world.with(|truth| truth.kubernetes.make_new_nodes_unreadable());
    pass(MINUTE * 40).await;
    assert!(world.count(" joins ") > 0);
    assert_eq!(world.count(" terminates "), 0, "{}", world.log());
}

#[tokio::test(start_paused = true)]
async fn an_instance_whose_node_never_is_ready_is_given_back_with_it() {
    let world = Stage::begin(Scenario::quiet(1, 1000.0, 2));
    pass(MINUTE).await;
    world.with(|truth| truth.kubernetes.let_new_nodes_be_ready(false));
    world.load(5.4);
    world.until("a node that is not Ready", MINUTE * 5, |truth| truth.kubernetes.nodes().values().any(|node| !node.is_ready())).await;
    world.with(|truth| truth.kubernetes.let_new_nodes_be_ready(true));
    let failed = |truth: &mut Truth| truth.kubernetes.nodes().values().find(|node| !node.is_ready()).cloned();
    let node = world.with(failed).expect("the node");
    let id = node.instance.expect("its instance");
    world.until("its end", MINUTE * 10, |truth| truth.ec2.living().all(|machine| machine.id != id)).await;
    assert_eq!(world.count(&format!(" terminates {id}")), 1, "{}", world.log());
    world.until("its object's end", MINUTE, |truth| !truth.kubernetes.nodes().contains_key(&node.name)).await;
    world.until("room for all", MINUTE * 4, |truth| truth.kubernetes.waits() == 0).await;
    world.is_sound();
}

#[tokio::test(start_paused = true)]
async fn pods_that_came_while_kubernetes_was_away_are_served_when_it_is_back() {
    let mut scenario = Scenario::quiet(1, 1000.0, 2);
    scenario.faults = vec![Planned { fault: Fault::ApiServerDown, at: MINUTE, lasts: MINUTE * 3 }];
    let world = Stage::begin(scenario);
    pass(MINUTE + Duration::from_secs(1)).await;
    world.load(8.0);
    pass(MINUTE * 3 + Duration::from_secs(9)).await;
    assert!(world.count(" buys ") > 0, "{}", world.log());
    world.is_sound();
}

#[tokio::test(start_paused = true)]
async fn a_standby_takes_over_within_thirty_seconds_and_the_pause_holds_under_it() {
    let mut scenario = Scenario::quiet(1, 1000.0, 2);
    scenario.controllers = 2;
    let world = Stage::begin(scenario);
    pass(MINUTE).await;
    let first = world.leader().expect("somebody leads");
    world.pause().await;
    world.with(|truth| {
        truth.kill_for_good(first);
    });
    pass(Duration::from_secs(30)).await;
    assert_eq!(world.leader(), Some(1 - first), "{}", world.log());
    assert!(world.is_paused());
    world.load(8.0);
    pass(MINUTE * 10).await;
    assert_eq!(world.count(" buys "), 0);
    world.is_sound();
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_stops_before_the_other_begins() {
    let mut scenario = Scenario::quiet(1, 1000.0, 2);
    scenario.controllers = 2;
    let world = Stage::begin(scenario);
    pass(MINUTE).await;
    let first = world.leader().expect("somebody leads");
    world.with(|truth| truth.clients[first].cut_off = true);
    pass(Duration::from_secs(11)).await;
    world.load(8.0);
    world.until("pods that find no node", MINUTE * 2, |truth| truth.marks > 0).await;
    pass(Duration::from_mins(1)).await;
    assert_eq!(world.leader(), Some(1 - first), "{}", world.log());
    world.with(|truth| truth.clients[first].cut_off = false);
    world.until("room for all", MINUTE * 4, |truth| truth.kubernetes.waits() == 0).await;
    assert_eq!(world.leader(), Some(1 - first));
    world.is_sound();
}

#[tokio::test(start_paused = true)]
async fn a_notice_that_comes_while_nobody_leads_is_acted_on_by_whoever_does_next() {
    let world = with_a_spot_node().await;
    world.with(|truth| {
        truth.kill(0);
    });
    world.interrupt().expect("a spot machine");
    pass(Duration::from_secs(100)).await;
    assert_eq!(world.count(" cordons "), 1, "{}", world.log());
    pass(MINUTE).await;
    assert_eq!((world.count(" terminates "), world.count("the market takes")), (1, 0), "{}", world.log());
    world.is_sound();
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_cordoned_and_may_stay_after_all_is_back_in_service_under_the_successor() {
    let mut scenario = Scenario::quiet(1, 1000.0, 3);
    scenario.settings.policy.scale_down.enabled = false;
    let world = Stage::begin(scenario);
    let name = world.with(|truth| {
        // Its predecessor ended between the cordon and the journal, and then a person annotated the node.
        let node = truth.kubernetes.nodes().values().find(|node| node.pool().is_some()).cloned().expect("a worker");
        journal_removal(truth, &node);
        truth.kubernetes.change_node(&node.name, |node| {
            (node.cordoned, node.cordoned_by, node.keep) = (true, Some("r-1".to_owned()), Some("node-fleet.io/do-not-remove".to_owned()));
        });
        node.name
    });
    pass(Duration::from_secs(40)).await;
    assert!(world.with(|truth| !truth.kubernetes.nodes()[&name].cordoned), "{}", world.log());
    assert_eq!(world.count(" terminates "), 0);
}

/// A fleet that is about to give a node back whose pods do not go at once.
async fn in_a_drain(world: &Stage) -> NodeName {
    pass(MINUTE * 5).await;
    world.with(|truth| truth.workloads[0].grace = Duration::from_secs(90));
    world.cordoned().await
}

#[tokio::test(start_paused = true)]
async fn a_node_that_somebody_puts_back_into_service_stays() {
    let world = Stage::begin(idle());
    let name = in_a_drain(&world).await;
    world.with(|truth| truth.kubernetes.change_node(&name, |node| node.cordoned = false));
    pass(MINUTE * 9).await;
    assert_eq!(world.count(" terminates "), 0, "{}", world.log());
    assert!(world.with(|truth| truth.kubernetes.nodes()[&name].cordoned_by.is_none()));
    world.is_sound();
}

#[tokio::test(start_paused = true)]
async fn an_instance_whose_node_vanishes_in_a_drain_is_not_terminated_for_economy() {
    let world = Stage::begin(idle());
    let name = in_a_drain(&world).await;
    world.with(|truth| truth.removes_node(&name));
    pass(MINUTE * 5).await;
    assert_eq!(world.count(" terminates "), 0, "{}", world.log());
    // It is a stray now, and goes as one.
    pass(MINUTE * 20).await;
    assert!(world.count(" terminates ") >= 1, "{}", world.log());
    world.is_sound();
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_cannot_be_evicted_does_not_keep_the_others() {
    let world = Stage::begin(idle());
    let others = |truth: &mut Truth, name: &NodeName| truth.kubernetes.on(name).filter(|pod| pod.terminating_since.is_none()).count();
    pass(MINUTE * 5).await;
    // A webhook says no to every second pod.
    world.with(|truth| {
        let keys: Vec<_> = truth.kubernetes.pods().keys().cloned().collect();
        truth.not_evictable = keys.into_iter().step_by(2).collect();
        truth.workloads[0].max_unavailable = None;
    });
    let name = world.cordoned().await;
    pass(Duration::from_secs(30)).await;
    let left = world.with(|truth| {
        let kept = truth.kubernetes.on(&name).filter(|pod| truth.not_evictable.contains(&pod.key)).count();
        (others(truth, &name), kept)
    });
    assert_eq!(left.0, left.1, "{}", world.log());
    world.is_sound();
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_ends_orderly_gives_the_lease_back() {
    let mut scenario = Scenario::quiet(1, 1000.0, 2);
    scenario.controllers = 2;
    let world = Stage::begin(scenario);
    pass(MINUTE).await;
    let first = world.leader().expect("somebody leads");
    world.with(|truth| truth.terminate(first));
    pass(Duration::from_secs(12)).await;
    assert_eq!(world.leader(), Some(1 - first), "{}", world.log());
    assert_eq!(world.count("gives the lease back"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_is_in_the_ledger_holds_from_the_first_turn_on() {
    let world = Stage::begin(Scenario::quiet(1, 1000.0, 2));
    world.with(|truth| {
        let since = truth.wall();
        truth.table.pause = Some(Pause { since, by: "ada".into(), reason: "maintenance".into() });
        truth.note_pause(true);
    });
    world.load(6.0);
    pass(MINUTE * 10).await;
    assert!(world.is_paused());
    assert_eq!(world.count(" buys "), 0);
    world.is_sound();
}

#[tokio::test(start_paused = true)]
async fn what_ec2_could_not_give_is_bought_elsewhere_at_once() {
    let world = Stage::begin(Scenario::quiet(1, 1000.0, 2));
    pass(MINUTE).await;
    world.with(|truth| {
        let offers = truth.ec2.offers();
        let in_a = offers.iter().filter(|offer| offer.key.zone.as_str() == "eu-central-1a");
        truth.ec2.capacity.extend(in_a.map(|offer| (offer.key.clone(), 1)));
    });
    world.load(8.0);
    world.until("a launch", MINUTE * 3, |truth| truth.log.lines().any(|line| line.contains(" buys "))).await;
    // The next tick is far, and no pod is newly unschedulable.
    pass(Duration::from_secs(1)).await;
    assert_eq!(world.count(" in subnet-eu-central-1a for "), 1, "{}", world.log());
    assert_eq!(world.count(" in subnet-eu-central-1b for "), 2, "one order, and another for what did not come: {}", world.log());
    world.until("room for all", MINUTE * 2, |truth| truth.kubernetes.waits() == 0).await;
    world.is_sound();
}

#[tokio::test(start_paused = true)]
async fn pods_do_not_wait_for_a_prometheus_that_keeps_a_turn_waiting() {
    let world = Stage::begin(Scenario::quiet(1, 1000.0, 2));
    world.with(|truth| truth.clients[0].slow = Some(("query", Duration::from_secs(115))));
    pass(MINUTE * 5).await;
    world.load(8.0);
    world.until("pods that find no node", MINUTE * 2, |truth| truth.marks > 0).await;
    pass(Duration::from_secs(1)).await;
    assert!(world.count(" buys ") > 0, "{}", world.log());
    world.is_sound();
}

#[tokio::test(start_paused = true)]
async fn a_node_object_stays_until_the_machine_of_its_last_pods_is_off() {
    let mut scenario = idle();
    scenario.workloads[0].cores_per_pod = 0.08;
    scenario.settings.policy.pools[0].on_drain_timeout = OnDrainTimeout::Force;
    scenario.faults = vec![Planned { fault: Fault::StuckTerminating, at: MINUTE, lasts: Duration::from_hours(10) }];
    let world = Stage::begin(scenario);
    world.until("an end", MINUTE * 60, |truth| truth.log.lines().any(|line| line.contains(" terminates "))).await;
    assert!(world.with(|truth| truth.kubernetes.nodes().values().any(|node| node.cordoned)), "{}", world.log());
    pass(Duration::from_secs(20)).await;
    assert_eq!(world.count("removes the object"), 0, "{}", world.log());
    pass(Duration::from_secs(30)).await;
    assert_eq!(world.count("removes the object"), 1, "{}", world.log());
    world.is_sound();
}

/// How many workers there are in each zone, and how many of all are on-demand.
fn lies(truth: &mut Truth) -> (Vec<usize>, usize, usize) {
    let mut zones: std::collections::BTreeMap<_, usize> = truth.ec2.zones.iter().map(|zone| (zone.clone(), 0)).collect();
    let (mut all, mut on_demand) = (0, 0);
    for machine in truth.ec2.living().filter(|machine| machine.pool().is_some()) {
        *zones.entry(machine.zone.clone()).or_insert(0) += 1;
        all += 1;
        on_demand += usize::from(machine.market == Market::OnDemand);
    }
    (zones.into_values().collect(), all, on_demand)
}

/// How many of so many workers are on-demand: the base of one, and three in ten of the others, rounded either way.
fn share(all: usize) -> std::ops::RangeInclusive<usize> {
    let above_base = 3 * (all - 1);
    1 + above_base / 10..=1 + above_base.div_ceil(10)
}

fn skew(zones: &[usize]) -> usize {
    zones.iter().max().zip(zones.iter().min()).map_or(0, |(most, least)| most - least)
}

#[tokio::test(start_paused = true)]
async fn an_hour_of_a_spot_storm_leaves_the_share_of_spot_and_the_zones_as_they_should_be() {
    const STORMS: u32 = 15;
    let mut scenario = Scenario::quiet(1, 1000.0, 1);
    scenario.zones.push("eu-central-1c".into());
    (scenario.workers, scenario.settings.policy.pools[0].max) = (1, 20);
    let (begins, every) = (Duration::from_mins(20), Duration::from_mins(4));
    // Each takes half of the spot machines.
    scenario.faults = (0..STORMS).map(|number| Planned { fault: Fault::SpotStorm, at: begins + every * number, lasts: MINUTE }).collect();
    let world = Stage::begin(scenario);
    pass(MINUTE * 2).await;
    world.load(20.0);
    pass(begins.saturating_sub(MINUTE * 2)).await;
    for storm in 1..=STORMS {
        // Two minutes after the notice EC2 would take what has not been given back.
        pass(MINUTE * 3).await;
        let (zones, all, on_demand) = world.with(lies);
        assert!(share(all).contains(&on_demand), "{on_demand} of {all} are on-demand after storm {storm}: {}", world.log());
        assert!(skew(&zones) <= 1, "{zones:?} after storm {storm}: {}", world.log());
        assert_eq!(world.with(|truth| truth.kubernetes.waits()), 0, "after storm {storm}: {}", world.log());
        pass(MINUTE).await;
    }
    let (_, all, _) = world.with(lies);
    assert!(world.count("the market wants") > all * 4, "the fleet has gone over more than four times: {}", world.log());
    assert_eq!(world.count("the market takes"), 0, "all were given back in time: {}", world.log());
    world.is_sound();
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_the_account_is_an_alert_and_is_run_into_a_few_times_only() {
    let mut scenario = Scenario::quiet(1, 1000.0, 2);
    scenario.faults = vec![Planned { fault: Fault::VcpuQuota, at: MINUTE, lasts: MINUTE * 80 }];
    let world = Stage::begin(scenario);
    pass(MINUTE * 2).await;
    world.load(8.0);
    let alerts = || {
        let handle = world.0.handles[world.leader().expect("somebody leads")].borrow().clone().expect("it lives");
        let plan = handle.status.borrow().plan.clone().expect("a plan");
        plan.alerts.iter().filter(|alert| alert.name == "account_limit").count()
    };
    assert_eq!(alerts(), 0);
    world.until("a refusal", MINUTE * 5, |truth| truth.log.lines().any(|line| line.contains("buys nothing"))).await;
    pass(MINUTE * 3).await;
    assert!(alerts() > 0, "{}", world.log());
    pass(MINUTE * 70).await;
    // Each market rests for 5, 10, 20 and 40 minutes, and one turn may ask in two zones.
    let refused = world.count("buys nothing: account limit");
    assert!((2..=20).contains(&refused), "{refused}: {}", world.log());
    world.until("room for all", MINUTE * 70, |truth| truth.kubernetes.waits() == 0).await;
    world.until("calm", MINUTE * 70, |_| alerts() == 0).await;
    world.is_sound();
}

#[tokio::test(start_paused = true)]
async fn after_an_hour_without_spot_the_fleet_returns_to_its_share_and_to_even_zones() {
    let mut scenario = Scenario::quiet(1, 1000.0, 1);
    scenario.workers = 1;
    scenario.faults = vec![Planned { fault: Fault::NoSpotAnywhere, at: MINUTE, lasts: Duration::from_hours(1) }];
    let world = Stage::begin(scenario);
    pass(MINUTE * 2).await;
    world.load(9.0);
    world.until("room for all", MINUTE * 10, |truth| truth.kubernetes.waits() == 0 && truth.marks > 0).await;
    let (_, all, on_demand) = world.with(lies);
    assert_eq!(all, on_demand, "there is no spot: {}", world.log());
    pass(Duration::from_hours(5)).await;
    let (zones, all, on_demand) = world.with(lies);
    assert!(share(all).contains(&on_demand), "{on_demand} of {all} are on-demand: {}", world.log());
    assert!(skew(&zones) <= 1, "{zones:?}: {}", world.log());
    assert_eq!(world.with(|truth| truth.kubernetes.waits()), 0);
    let bought = world.count(" buys ");
    pass(Duration::from_hours(6)).await;
    assert_eq!(world.count(" buys "), bought, "it rests then: {}", world.log());
    world.is_sound();
}

#[tokio::test(start_paused = true)]
async fn a_memory_that_cannot_be_written_shows_as_trouble_with_the_ledger() {
    let world = Stage::begin(Scenario::quiet(1, 1000.0, 2));
    pass(MINUTE).await;
    let ledger = || {
        let handle = world.0.handles[world.leader().expect("somebody leads")].borrow().clone().expect("it lives");
        handle.status.borrow().sources["dynamodb"].clone()
    };
    assert!(ledger().ok);
    world.with(|truth| truth.clients[0].mishaps = vec![("remember", Mishap::Throttled); 1000]);
    world.until("trouble", MINUTE * 10, |_| ledger().why.is_some_and(|why| why.contains("TransactWriteItems"))).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_of_somebody_elses_machine_begins_no_turn() {
    let world = Stage::begin(Scenario::quiet(1, 1000.0, 2));
    pass(MINUTE * 10 + Duration::from_secs(30)).await;
    let ours = world.with(|truth| truth.ec2.living().find(|machine| machine.pool().is_some()).expect("a worker").id.clone());
    for (instance, turns) in [("i-00000000000000000".into(), 0), (ours, 1)] {
        let handle = world.0.handles[world.leader().expect("somebody leads")].borrow().clone().expect("it lives");
        let before = handle.status.borrow().turns;
        world.with(|truth| truth.announce(&Notice::StateChange { instance, state: "stopping".into() }));
        pass(Duration::from_secs(10)).await;
        assert_eq!(handle.status.borrow().turns - before, turns, "{}", world.log());
    }
}

#[tokio::test(start_paused = true)]
async fn what_asks_for_a_turn_while_one_looks_around_waits_for_its_end() {
    let mut scenario = Scenario::quiet(1, 1000.0, 2);
    scenario.settings.operations.batch = Duration::from_secs(5);
    let world = Stage::begin(scenario);
    // Half-way between two ticks.
    pass(MINUTE * 2).await;
    let ours = world.with(|truth| truth.ec2.living().find(|machine| machine.pool().is_some()).expect("a worker").id.clone());
    world.load(6.0);
    world.until("pods that find no node", MINUTE * 2, |truth| truth.marks > 0).await;
    let handle = world.0.handles[world.leader().expect("somebody leads")].borrow().clone().expect("it lives");
    let before = handle.status.borrow().turns;
    world.with(|truth| truth.announce(&Notice::StateChange { instance: ours.clone(), state: "stopping".into() }));
    pass(Duration::from_secs(4)).await;
    assert_eq!(handle.status.borrow().turns, before, "{}", world.log());
    pass(Duration::from_secs(3)).await;
    assert!(handle.status.borrow().turns >= before + 2, "{}", world.log());
}
