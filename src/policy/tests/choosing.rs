//! Which offers are bought, at the borders.

use super::*;
use crate::model::InstanceType;
use crate::model::memory::Allocatable;
use crate::model::offer::UNKNOWN_STORAGE;
use crate::model::scheduling::{
    Constraints, HOSTNAME_LABEL, NodeSelectorTerm, Operator, PodAffinityTerm, Requirement, Selector, SpreadConstraint, Taint, TaintEffect,
    Toleration,
};
use crate::model::snapshot::DaemonSet;
use crate::policy::schedule::{ASKED, Schedule};
use crate::policy::{BoundsSchedule, MetricGoal, MetricRule};

/// Two full nodes and a pod that waits.
fn full() -> Scene {
    Scene::with_nodes(2).pods([running("a", 1800, "n0"), running("b", 1800, "n1"), pending("c", 1000)])
}

/// No node, pods that wait, and no wish for on-demand.
fn empty(pods: impl IntoIterator<Item = Pod>) -> Scene {
    let mut scene = Scene::with_nodes(0).pods(pods);
    let pool = &mut scene.settings.pools[0];
    (pool.min, pool.on_demand_base, pool.spot_share) = (0, 0, 1.0);
    scene
}

fn alone(offer: &Offer) -> bool {
    offer.key.instance_type.as_str() == "m5.large"
}

fn spot(instance_type: &str, dollars_micro: u64, allocatable: Resources) -> Offer {
    offer(instance_type, "a", Market::Spot, dollars_micro, allocatable)
}

fn types(order: &LaunchOrder) -> Vec<&str> {
    order.instance_types.iter().map(InstanceType::as_str).collect()
}

/// The market and the zone of the only order.
fn place(plan: &Plan) -> (Market, String) {
    let [order] = launches(plan)[..] else { panic!("one order: {plan:?}") };
    (order.market, order.zone.to_string())
}

fn no_offer(plan: &Plan) -> String {
    let Some(Hold::NoOffer { why }) = held(plan, "pending_pods") else { panic!("{plan:?}") };
    why
}

#[test]
fn a_price_ceiling_may_be_reached_and_not_passed() {
    let bought = |ceiling| {
        let mut scene = full();
        scene.settings.price_ceiling = Some(HourlyPrice(ceiling));
        scene.turn(start())
    };
    // Two nodes are 129,600 millionths an hour; the cheapest third is 33,600.
    assert_eq!(launched(&bought(163_200)), 1);
    let plan = bought(163_199);
    assert_eq!(launched(&plan), 0);
    assert_eq!(no_offer(&plan), "the price ceiling of $0.1632/h is reached at $0.1296/h");
}

#[test]
fn a_ceiling_counts_what_has_been_bought_in_the_same_turn() {
    let bought = |ceiling| {
        let mut scene = full().pods([pending("d", 1800), pending("e", 1800)]);
        scene.offers.retain(|offer| alone(offer) && offer.key.market == Market::Spot);
        scene.settings.price_ceiling = Some(HourlyPrice(ceiling));
        scene.snapshot.prices = Arc::new(offers().into_iter().map(|offer| (offer.key, offer.price)).collect());
        launched(&scene.turn(start()))
    };
    let rows = [(163_199, 0), (163_200, 1), (196_799, 1), (196_800, 2), (230_399, 2), (230_400, 3)];
    for (ceiling, expected) in rows {
        assert_eq!(bought(ceiling), expected, "{ceiling}");
    }
}

#[test]
fn no_ceiling_can_be_kept_while_a_members_price_is_not_known() {
    let mut scene = full();
    scene.instances[1].instance_type = "m4.large".into();
    assert_eq!(launched(&scene.clone().turn(start())), 1, "without a ceiling nobody asks");
    scene.settings.price_ceiling = Some(HourlyPrice(1_000_000));
    let plan = scene.clone().turn(start());
    assert_eq!(launched(&plan), 0);
    assert!(no_offer(&plan).contains("the price of spot m4.large in b is not known"), "{plan:?}");
    let old = OfferKey { instance_type: "m4.large".into(), zone: "b".into(), market: Market::Spot };
    scene.snapshot.prices = Arc::new([(old, HourlyPrice(1))].into());
    assert_eq!(launched(&scene.turn(start())), 1);
}

#[test]
fn types_stand_in_for_each_other_up_to_half_as_much_again() {
    let large = || capacity(1900, 7);
    let mut scene = empty([pending("p", 1000)]);
    scene.offers = vec![
        spot("chosen", 1_000_000, large()),
        spot("as-cheap", 1_000_000, large()),
        spot("dear", 1_500_000, large()),
        spot("too-dear", 1_500_001, large()),
        spot("too-small", 900_000, capacity(999, 7)),
        offer("elsewhere", "b", Market::Spot, 1_000_000, large()),
        offer("on-demand", "a", Market::OnDemand, 1_000_000, large()),
        Offer { pool: "other".into(), ..spot("of-another-pool", 1_000_000, large()) },
        Offer { subnet: "subnet-z".into(), ..spot("of-another-subnet", 1_000_000, large()) },
        Offer { labels: Labels::new(), ..spot("without-labels", 1_000_000, large()) },
    ];
    // `as-cheap` is before `chosen` by its name, and so it is the one that is chosen.
    let plan = scene.clone().turn(start());
    assert_eq!(types(launches(&plan)[0]), ["as-cheap", "chosen", "without-labels", "dear"]);
    assert_eq!(launches(&plan)[0].price, HourlyPrice(1_500_000), "it costs what the dearest would");
    // Under a ceiling nothing may come that is dearer than what was reckoned with.
    for ceiling in [1_000_000, 100_000_000] {
        scene.settings.price_ceiling = Some(HourlyPrice(ceiling));
        let plan = scene.clone().turn(start());
        assert_eq!(types(launches(&plan)[0]), ["as-cheap", "chosen", "without-labels"], "{ceiling}");
        assert_eq!(launches(&plan)[0].price, HourlyPrice(1_000_000));
    }
    scene.settings.price_ceiling = None;
    let key = OfferKey { instance_type: "chosen".into(), zone: "a".into(), market: Market::Spot };
    scene.memory.offers.insert(key, Rest { until: after(5), failures: 1, since: start(), why: "x".into(), stopped: false });
    assert_eq!(types(launches(&scene.turn(start()))[0]), ["as-cheap", "without-labels", "dear"], "what rests stands in for nobody");
}

#[test]
fn preferences_choose_the_node_and_are_given_up_where_none_meets_them() {
    let mut waits = pending("w", 1000);
    let zone = |zone: &str| Requirement { key: ZONE_LABEL.into(), operator: Operator::In([zone.to_owned()].into()) };
    let liked = |name: &str| NodeSelectorTerm { labels: Selector(vec![zone(name)]), ..NodeSelectorTerm::default() };
    let prefer = |pod: &mut Pod, name: &str| {
        let constraints = Arc::new(Constraints { node_affinity: vec![liked(name)], ..Constraints::default() });
        pod.preferring = None;
        pod.preferring = Some(Arc::new(Pod { constraints, ..pod.clone() }));
    };
    for (name, rests, bought) in [("b", false, "b"), ("a", false, "a"), ("elsewhere", false, "a"), ("b", true, "a")] {
        prefer(&mut waits, name);
        let mut scene = empty([waits.clone()]);
        if rests {
            for offer in scene.offers.iter().filter(|offer| offer.key.zone.as_str() == name) {
                let rest = Rest { until: after(5), failures: 1, since: start(), why: "x".into(), stopped: false };
                scene.memory.offers.insert(offer.key.clone(), rest);
            }
        }
        let plan = scene.turn(start());
        assert_eq!((launched(&plan), launches(&plan)[0].zone.as_str()), (1, bought), "{name}");
    }
}

#[test]
fn even_spread_that_is_preferred_buys_in_the_emptiest_zone_and_no_second_node() {
    let labels: Arc<Labels> = Arc::new([("app".to_owned(), "web".to_owned())].into());
    let web = |pod: Pod| Pod { labels: Arc::clone(&labels), ..pod };
    let spread = SpreadConstraint {
        topology_key: ZONE_LABEL.into(),
        max_skew: 1,
        selector: Selector(vec![Requirement { key: "app".into(), operator: Operator::In(["web".to_owned()].into()) }]),
        min_domains: None,
        ignores_node_affinity: false,
        honors_taints: false,
    };
    let waits = |name: &str, prefers: bool| {
        let pod = web(pending(name, 600));
        let constraints = Arc::new(Constraints { spread: vec![spread.clone()], ..Constraints::default() });
        Pod { preferring: prefers.then(|| Arc::new(Pod { constraints, ..pod.clone() })), ..pod }
    };
    // Two full nodes in `a`, one in `b`: the pool's own balance asks for `b`, where the other pod of the kind is.
    let residents = [running("r0", 1800, "n0"), web(running("r1", 1800, "n1")), running("r2", 1800, "n2")];
    for (prefers, zone) in [(true, "a"), (false, "b")] {
        let mut scene = Scene::with_nodes(3).pods(residents.clone()).pods([waits("w0", prefers), waits("w1", prefers)]);
        let plan = scene.turn(start());
        assert_eq!((launched(&plan), launches(&plan)[0].zone.as_str()), (1, zone), "it prefers: {prefers}");
    }
}

#[test]
fn what_is_known_better_of_one_type_does_not_make_it_unlike_another() {
    let mut scene = empty([]);
    scene.settings.pools[0].min = 1;
    scene.offers = vec![spot("m5.large", 1_000_000, capacity(1900, 7)), spot("m6i.large", 1_000_000, capacity(1900, 7))];
    let seen = Allocatable { has: capacity(1950, 8), sets: BTreeMap::new(), others: Resources::default(), seen: start() };
    scene.memory.allocatable.insert(("workers".into(), "m5.large".into()), seen);
    assert_eq!(types(launches(&scene.turn(start()))[0]), ["m5.large", "m6i.large"]);
}

#[test]
fn a_type_stands_in_only_if_it_holds_all_the_pods_of_the_node() {
    let stand_ins = |pods: u64| {
        let mut scene = empty((0..pods).map(|index| pending(&format!("p{index}"), 1000)));
        scene.offers = vec![spot("two", 1_000_000, capacity(2000, 7)), spot("two-less-a-bit", 1_200_000, capacity(1999, 7))];
        types(launches(&scene.turn(start()))[0]).into_iter().map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(stand_ins(1), ["two", "two-less-a-bit"]);
    assert_eq!(stand_ins(2), ["two"]);
}

#[test]
fn on_demand_has_its_base_and_its_share_above_it() {
    let on_demand = |base: u32, share: f64, pods: usize| {
        let mut scene = empty((0..pods).map(|index| pending(&format!("p{index:02}"), 1800)));
        scene.offers.retain(alone);
        scene.settings.pools[0].on_demand_base = base;
        scene.settings.pools[0].spot_share = share;
        scene.settings.pools[0].max = 40;
        let plan = scene.turn(start());
        assert_eq!(launched(&plan) as usize, pods);
        launches(&plan).iter().filter(|order| order.market == Market::OnDemand).map(|order| order.count).sum::<u32>()
    };
    let rows = [
        (0, 1.0, 4, 0),
        (0, 0.0, 4, 4),
        (2, 1.0, 1, 1),
        (2, 1.0, 2, 2),
        (2, 1.0, 5, 2),
        (0, 0.5, 1, 0),
        (0, 0.5, 2, 1),
        (0, 0.5, 3, 1),
        (0, 0.5, 4, 2),
        (1, 0.5, 2, 1),
        (1, 0.5, 3, 2),
        (0, 0.9, 9, 0),
        (0, 0.9, 10, 1),
        (0, 0.9, 19, 1),
        (0, 0.9, 20, 2),
        (1, 0.7, 4, 1),
        (1, 0.7, 5, 2),
        (3, 0.9, 12, 3),
        (3, 0.9, 13, 4),
    ];
    for (base, share, pods, expected) in rows {
        assert_eq!(on_demand(base, share, pods), expected, "base {base}, spot share {share}, {pods} nodes");
    }
}

#[test]
fn the_emptiest_zone_comes_first_and_then_the_first_by_its_name() {
    let leaving = |scene: Scene, name: &str| scene.under_way(retire(name, underused(), RetireState::Journalled));
    let third = |zone: &str| {
        let mut scene = full();
        scene.instances.push(instance("n2", zone, Market::Spot));
        scene
    };
    let rows = [
        ("one in each", full(), (Market::Spot, "a")),
        ("two in the first", third("a"), (Market::Spot, "b")),
        ("two in the second", third("b"), (Market::Spot, "a")),
        ("the one in the second leaves", leaving(full(), "n1"), (Market::Spot, "b")),
        ("the one in the first leaves, the base", leaving(full(), "n0"), (Market::OnDemand, "a")),
    ];
    for (what, mut scene, (market, zone)) in rows {
        assert_eq!(place(&scene.turn(start())), (market, zone.to_owned()), "{what}");
    }
}

#[test]
fn a_zone_in_which_types_rest_is_left_alone_while_there_is_another() {
    let zone = |resting: usize, elsewhere: bool| {
        let mut scene = empty([pending("w", 1000)]);
        let types = (0..6).map(|number| format!("m{number}.large"));
        let zones = if elsewhere { &["a", "b"][..] } else { &["a"][..] };
        let both = types.flat_map(|name| zones.iter().map(move |zone| offer(&name, zone, Market::Spot, 33_600, capacity(1900, 7))));
        scene.offers = both.collect();
        let full = scene.offers.iter().filter(|offer| offer.key.zone.as_str() == "a").take(resting);
        let rest = || Rest { until: after(5), failures: 1, since: start(), why: "insufficient capacity".into(), stopped: false };
        scene.memory.offers = full.map(|offer| (offer.key.clone(), rest())).collect();
        launches(&scene.turn(start()))[0].zone.to_string()
    };
    assert_eq!([0, 2, 3, 5].map(|resting| zone(resting, true)), ["a", "a", "b", "b"]);
    assert_eq!(zone(5, false), "a", "what is left is tried where there is nothing else");
}

#[test]
fn the_wanted_market_comes_before_the_emptiest_zone() {
    let mut scene = full();
    scene.instances[0].zone = "b".into();
    scene.offers.retain(|offer| offer.key.market == Market::OnDemand || offer.key.zone.as_str() == "b");
    assert_eq!(place(&scene.turn(start())), (Market::Spot, "b".to_owned()));
}

#[test]
fn what_leaves_counts_towards_the_maximum_until_it_is_gone() {
    let bought = |state: Option<RetireState>| {
        let mut scene = full().pods([pending("d", 1800), pending("e", 1800)]);
        scene.offers.retain(alone);
        scene.settings.pools[0].max = 3;
        if let Some(state) = state {
            scene = scene.under_way(retire("n1", underused(), state));
        }
        let plan = scene.turn(start());
        assert_eq!(held(&plan, "pending_pods"), Some(Hold::AtMaximum { max: 3 }));
        launched(&plan)
    };
    assert_eq!(bought(None), 1);
    assert_eq!(bought(Some(RetireState::Draining { since: start() })), 1);
    assert_eq!(bought(Some(RetireState::Terminated)), 2);
}

#[test]
fn a_rest_is_over_at_its_end() {
    let rest = |second, stopped| Rest { until: later(second), failures: 1, since: start(), why: "x".into(), stopped };
    let spot_offers = || offers().into_iter().filter(|offer| offer.key.market == Market::Spot);
    for (second, rests) in [(-1, false), (0, false), (1, true)] {
        let expected = if rests { Market::OnDemand } else { Market::Spot };
        let mut offers = full();
        offers.memory.pool_offers = spot_offers().map(|offer| ((offer.pool, offer.key), rest(second, true))).collect();
        let mut market = full();
        market.memory.quotas.insert(spot_offers().next().expect("an offer").key.quota(), rest(second, false));
        for (what, mut scene, alert) in [("offers", offers, "offer_stopped"), ("market", market, "account_limit")] {
            let plan = scene.turn(start());
            assert_eq!(place(&plan).0, expected, "{what}, {second} s");
            for name in [alert, "spot_exhausted"] {
                assert_eq!(plan.alerts.iter().any(|alert| alert.name == name), rests, "{what}, {second} s, {name}");
            }
        }
    }
}

#[test]
fn spot_is_not_missed_while_one_offer_of_it_is_left_or_none_is_wanted() {
    let rest = || Rest { until: after(5), failures: 1, since: start(), why: "x".into(), stopped: false };
    let resting = |left: usize, share: f64, change: fn(&mut Vec<Offer>)| {
        let mut scene = full();
        change(&mut scene.offers);
        scene.settings.pools[0].spot_share = share;
        let spot = scene.offers.iter().filter(|offer| offer.key.market == Market::Spot).skip(left);
        scene.memory.offers = spot.map(|offer| (offer.key.clone(), rest())).collect();
        scene.turn(start()).alerts.iter().any(|alert| alert.name == "spot_exhausted")
    };
    assert!(resting(0, 0.7, |_| {}));
    assert!(!resting(1, 0.7, |_| {}), "one is left");
    assert!(!resting(0, 0.0, |_| {}), "none is wanted");
    assert!(!resting(0, 0.7, |offers| offers.retain(|offer| offer.key.market == Market::OnDemand)), "there is none");
}

#[test]
fn a_rule_buys_the_cheapest_by_the_core_and_the_minimum_the_cheapest() {
    let mut scene = Scene::with_nodes(4).busy(0.71, 0.5);
    let first = |plan: &Plan| launches(plan)[0].instance_types[0].to_string();
    assert_eq!(first(&scene.clone().turns(0, 4)), "m5.xlarge");
    assert_eq!(first(&Scene::with_nodes(0).turn(start())), "m5.large");
    for offer in scene.offers.iter_mut().filter(|offer| !alone(offer)) {
        offer.price.0 = offer.price.0 * 105 / 100;
    }
    assert_eq!(first(&scene.clone().turns(0, 4)), "m5.large");
    let requests = Resources { cpu: MilliCpu(1000), ..Resources::default() };
    scene.view.daemon_sets.push(DaemonSet {
        namespace: "kube-system".into(),
        name: "agent".into(),
        labels: Labels::new(),
        requests,
        constraints: Constraints::default(),
    });
    assert_eq!(first(&scene.turns(0, 4)), "m5.xlarge", "only what daemon sets leave counts");
}

#[test]
fn a_rule_pays_for_what_it_wants() {
    let kinds = [("lean", 1_000_000, capacity(4000, 8)), ("fat", 1_100_000, capacity(2000, 32)), ("small", 900_000, capacity(1000, 4))];
    let first = |change: fn(&mut Scene), busy: (f64, f64)| {
        let mut scene = Scene::with_nodes(4).busy(busy.0, busy.1);
        scene.offers = kinds.iter().map(|(name, price, has)| spot(name, *price, has.clone())).collect();
        change(&mut scene);
        let plan = (0..10).map(|turn| scene.turn(after(2 * turn))).find(|plan| launched(plan) > 0).expect("a rule that buys");
        launches(&plan)[0].instance_types[0].to_string()
    };
    assert_eq!(first(|_| {}, (0.9, 0.2)), "lean", "cores");
    assert_eq!(first(|_| {}, (0.2, 0.9)), "fat", "memory");
    let queue = |scene: &mut Scene| {
        let goal = MetricGoal::PerNode(10.0);
        let rule = MetricRule { name: "queue".into(), pool: "workers".into(), query: "q".into(), goal, sustain: Duration::ZERO };
        scene.settings.metrics.push(rule);
        scene.snapshot.metrics.insert("queue".into(), Reading::Value { value: 60.0, sampled: start() });
    };
    assert_eq!(first(queue, (0.4, 0.4)), "small", "nodes");
}

#[test]
fn a_root_volume_that_no_template_names_is_known_of_all_types_once_a_node_of_one_has_come() {
    let buys = |gib: u64, change: &dyn Fn(&mut Scene)| {
        let mut scene = Scene::with_nodes(2).pods([running("a", 1800, "n0"), running("b", 1800, "n1")]);
        for offer in &mut scene.offers {
            offer.allocatable.ephemeral_storage = UNKNOWN_STORAGE;
        }
        change(&mut scene);
        scene.turn(start());
        let mut pod = pending("p", 500);
        pod.requests.ephemeral_storage = Bytes(gib * GIB);
        let plan = scene.pods([pod]).turn(after(2));
        let why = plan.unplaceable.first().map(|pod| pod.why.clone());
        (launches(&plan).first().map(|order| types(order).into_iter().map(ToOwned::to_owned).collect::<Vec<_>>()), why)
    };
    let has = |scene: &mut Scene, gib: u64| {
        for node in scene.view.nodes.values_mut() {
            node.allocatable.ephemeral_storage = Bytes(gib * GIB);
        }
    };
    let never = "no node that can be launched would take it: not enough ephemeral-storage";
    assert_eq!(
        buys(20, &|scene: &mut Scene| has(scene, 7)),
        (None, Some(never.to_owned())),
        "m5.large has shown it, m5.xlarge has the same image"
    );
    assert_eq!(buys(7, &|scene: &mut Scene| has(scene, 7)).0, Some(vec!["m5.large".to_owned()]));
    assert_eq!(buys(20, &|scene: &mut Scene| has(scene, 0)).0, Some(vec!["m5.xlarge".to_owned()]), "a kubelet that does not know yet");
    let named = |scene: &mut Scene| {
        has(scene, 7);
        for offer in &mut scene.offers {
            offer.allocatable.ephemeral_storage = Bytes(50 * GIB);
        }
    };
    assert_eq!(buys(20, &named).0, Some(vec!["m5.xlarge".to_owned()]), "the template names another volume");
    let nobody = |scene: &mut Scene| {
        (scene.view.nodes, scene.instances, scene.settings.pools[0].min) = (BTreeMap::new(), Vec::new(), 0);
        scene.view.pods.clear();
    };
    assert!(buys(20, &nobody).0.is_some(), "the first node has to show it");
}

#[test]
fn what_daemons_really_take_is_not_there_for_pods() {
    // Its set asks for nothing; the namespace's defaults give its pods 0.3 cores.
    let daemon = |name: &str, on: &str| Pod { owner: Owner::DaemonSet, ..running(name, 300, on) };
    let full = [running("a", 1600, "n0"), running("b", 1600, "n1"), daemon("d0", "n0"), daemon("d1", "n1")];
    let types = |pod: Pod| {
        let mut scene = Scene::with_nodes(2).pods(full.clone());
        scene.offers.retain(alone);
        scene.turn(start());
        let mut scene = scene.pods([pod]);
        let plan = scene.turn(after(2));
        launches(&plan).iter().map(|order| order.instance_types[0].to_string()).collect::<Vec<_>>()
    };
    assert_eq!(types(pending("p", 1600)), ["m5.large"]);
    assert_eq!(types(pending("p", 1601)), Vec::<String>::new(), "no node has so much left");
}

#[test]
fn no_order_is_for_more_than_ec2_starts_at_once() {
    let mut scene = empty([]);
    (scene.settings.pools[0].min, scene.settings.pools[0].max) = (2500, 3000);
    scene.offers = vec![spot("m5.large", 1_000_000, capacity(1900, 7))];
    let plan = scene.turn(start());
    assert_eq!(launches(&plan).iter().map(|order| order.count).collect::<Vec<_>>(), [1000, 1000, 500]);
}

#[test]
fn the_last_schedule_that_is_active_gives_the_bounds() {
    let mut scene = Scene::with_nodes(2);
    for (from, to, min) in [("0 9 * * *", "0 21 * * *", 5), ("0 11 * * *", "0 13 * * *", 3)] {
        let schedule = Schedule::new(from, to, "UTC").expect("a schedule");
        scene.settings.pools[0].schedules.push(BoundsSchedule { schedule, min, max: 10 });
    }
    for (minute, min) in [(-181, 2), (-180, 5), (-61, 5), (-60, 3), (59, 3), (60, 5), (539, 5), (540, 2)] {
        assert_eq!(scene.settings.pools[0].bounds(after(minute)).min, min, "{minute} minutes after noon");
    }
}

#[test]
fn schedules_are_asked_as_often_for_sixty_nodes_as_for_one() {
    let asked = |pods: usize| {
        let mut scene = empty((0..pods).map(|index| pending(&format!("p{index:02}"), 1800)));
        scene.offers = vec![spot("m5.large", 1_000_000, capacity(1900, 7))];
        let schedule = Schedule::new("0 9 * * *", "0 21 * * *", "Europe/Berlin").expect("a schedule");
        scene.settings.pools[0].schedules.push(BoundsSchedule { schedule, min: 0, max: 60 });
        let before = ASKED.get();
        assert_eq!(launched(&scene.turn(start())) as usize, pods.min(60), "the schedule's maximum holds");
        ASKED.get() - before
    };
    assert_eq!((asked(60), asked(61)), (asked(1), asked(1)));
}

#[test]
fn pods_try_the_pools_in_their_order() {
    let two_pools = |maxima: [u32; 2]| {
        let mut scene = full();
        let spare = PoolSettings { name: "spare".into(), min: 0, max: maxima[1], ..scene.settings.pools[0].clone() };
        scene.settings.pools[0].max = maxima[0];
        scene.settings.pools.push(spare);
        let of_spare = scene.offers.iter().map(|offer| Offer { pool: "spare".into(), ..offer.clone() }).collect::<Vec<_>>();
        scene.offers.splice(0..0, of_spare);
        scene.turn(start())
    };
    assert_eq!(launches(&two_pools([3, 5]))[0].pool.as_str(), "workers");
    assert_eq!(launches(&two_pools([2, 5]))[0].pool.as_str(), "spare");
    let plan = two_pools([2, 0]);
    assert_eq!((launched(&plan), held(&plan, "pending_pods")), (0, Some(Hold::AtMaximum { max: 2 })), "the first says why");
    assert_eq!(plan.pools[1].findings[0].hold, None);
}

#[test]
fn orders_for_equal_nodes_are_one_and_name_no_more_pods_than_fit_into_the_journal() {
    let mut scene = empty((0..400).map(|index| pending(&format!("p{index:03}"), 10)));
    scene.offers = vec![spot("big", 1_000_000, Resources { pods: 200, ..capacity(10_000, 1000) })];
    let plan = scene.turn(start());
    let [order] = launches(&plan)[..] else { panic!("one order: {plan:?}") };
    assert_eq!((order.count, order.pods.len()), (2, 250));
    assert_eq!(order.reason, LaunchReason::PendingPods { pods: 400 });
}

#[test]
fn what_is_said_of_a_pod_that_nothing_holds_is_the_offer_short_of_the_fewest() {
    let mut giant = pending("giant", 64_000);
    giant.requests.memory = Bytes(10 * GIB);
    for reversed in [false, true] {
        let mut scene = empty([giant.clone()]);
        if reversed {
            scene.offers.reverse();
        }
        let plan = scene.turn(start());
        assert_eq!(plan.unplaceable[0].why, "no node that can be launched would take it: not enough cpu");
    }
}

#[test]
fn without_any_offer_a_pod_is_held_and_not_called_unplaceable() {
    let mut scene = full();
    scene.offers.clear();
    let plan = scene.turn(start());
    assert_eq!((no_offer(&plan).as_str(), plan.unplaceable_pods), ("what can be launched is not known yet", 0));
}

#[test]
fn orders_are_apart_where_anything_about_them_differs() {
    let orders = |change: &dyn Fn(&mut Scene)| {
        let mut scene = empty([pending("p", 1800), pending("q", 1800)]);
        scene.offers = vec![spot("m5.large", 33_600, capacity(1900, 7))];
        change(&mut scene);
        let plan = scene.turn(start());
        launches(&plan).iter().map(|order| order.count).collect::<Vec<_>>()
    };
    let large = |zone, market| offer("m5.large", zone, market, 33_600, capacity(1900, 7));
    assert_eq!(orders(&|_| {}), [2], "nothing differs");
    assert_eq!(orders(&|scene| scene.settings.pools[0].min = 3), [2, 1], "the reason");
    assert_eq!(orders(&|scene| scene.offers.push(large("b", Market::Spot))), [1, 1], "the zone");
    let on_demand = |scene: &mut Scene| {
        scene.offers.push(large("a", Market::OnDemand));
        scene.settings.pools[0].on_demand_base = 1;
    };
    assert_eq!(orders(&on_demand), [1, 1], "the market");
    let two_types = |scene: &mut Scene| {
        scene.offers.push(spot("m5.xlarge", 70_000, capacity(3900, 15)));
        *scene = scene.clone().pods([pending("tall", 3800)]);
    };
    assert_eq!(orders(&two_types), [1, 2], "the type");
    let two_pools = |scene: &mut Scene| {
        scene.offers.push(Offer { pool: "spare".into(), ..large("a", Market::Spot) });
        let spare = PoolSettings { name: "spare".into(), ..scene.settings.pools[0].clone() };
        scene.settings.pools[0].max = 1;
        scene.settings.pools.push(spare);
    };
    assert_eq!(orders(&two_pools), [1, 1], "the pool");
}

fn app() -> Selector {
    Selector(vec![Requirement { key: "app".into(), operator: Operator::In(["x".to_owned()].into()) }])
}

#[test]
fn the_type_is_bought_that_costs_the_least_for_the_pods_that_wait() {
    let first = |constraints: Constraints, cpus: &[u64]| {
        let constraints = Arc::new(constraints);
        let labels = Arc::new(Labels::from([("app".into(), "x".into())]));
        let pods = cpus.iter().enumerate().map(|(n, cpu)| Pod {
            constraints: Arc::clone(&constraints),
            labels: Arc::clone(&labels),
            ..pending(&format!("p{n}"), *cpu)
        });
        let mut scene = empty(pods);
        scene.offers = vec![spot("small", 1_000_000, capacity(1000, 7)), spot("big", 2_900_000, capacity(4000, 15))];
        let plan = scene.turn(start());
        (launches(&plan)[0].instance_types[0].to_string(), launched(&plan))
    };
    let spread = || Constraints {
        spread: vec![SpreadConstraint {
            topology_key: ZONE_LABEL.into(),
            max_skew: 100,
            selector: app(),
            min_domains: None,
            ignores_node_affinity: false,
            honors_taints: false,
        }],
        ..Constraints::default()
    };
    let apart = Constraints {
        pod_anti_affinity: vec![PodAffinityTerm { selector: Some(app()), namespaces: None, topology_key: HOSTNAME_LABEL.into() }],
        ..Constraints::default()
    };
    let rows: [(&[u64], &str, u32); 7] = [
        (&[1000], "small", 1),
        (&[1000, 1000], "small", 2),
        (&[1000, 1000, 1000], "big", 1),
        (&[1000, 1000, 1000, 1000], "big", 1),
        (&[1000, 999], "small", 2),
        (&[1000, 999, 998], "big", 1),
        (&[1000, 400, 400], "small", 2),
    ];
    for (cpus, expected, nodes) in rows {
        assert_eq!(first(Constraints::default(), cpus), (expected.to_owned(), nodes), "{cpus:?}");
        assert_eq!(first(spread(), cpus), (expected.to_owned(), nodes), "{cpus:?}, spread");
    }
    assert_eq!(first(apart, &[1000, 1000, 1000, 1000]), ("small".to_owned(), 4), "a node for each");
}

#[test]
fn pods_that_a_type_would_not_take_do_not_count_for_it() {
    let elsewhere = Selector(vec![Requirement { key: ZONE_LABEL.into(), operator: Operator::In(["z".to_owned()].into()) }]);
    let elsewhere = Arc::new(Constraints { node_selector: elsewhere, ..Constraints::default() });
    let others = (0..3).map(|n| Pod { constraints: Arc::clone(&elsewhere), ..pending(&format!("q{n}"), 900) });
    let mut scene = empty([pending("p", 1000)]).pods(others);
    scene.offers = vec![spot("small", 1_000_000, capacity(1000, 7)), spot("big", 2_900_000, capacity(4000, 15))];
    let plan = scene.turn(start());
    assert_eq!((types(launches(&plan)[0])[0], launched(&plan), plan.unplaceable_pods), ("small", 1, 3));
}

#[test]
fn a_daemon_set_that_does_not_come_to_the_node_takes_nothing_there() {
    let tolerant = || Constraints { tolerations: vec![Toleration { key: None, value: None, effect: None }], ..Constraints::default() };
    let bought = |constraints: Constraints| {
        let mut scene = empty([Pod { constraints: Arc::new(tolerant()), ..pending("p", 3800) }]);
        for offer in &mut scene.offers {
            offer.taints.push(Taint { key: "team".into(), value: String::new(), effect: TaintEffect::NoSchedule });
        }
        let requests = Resources { cpu: MilliCpu(200), ..Resources::default() };
        scene.view.daemon_sets.push(DaemonSet {
            namespace: "kube-system".into(),
            name: "agent".into(),
            labels: Labels::new(),
            requests,
            constraints,
        });
        launched(&scene.turn(start()))
    };
    assert_eq!((bought(Constraints::default()), bought(tolerant())), (1, 0));
}
