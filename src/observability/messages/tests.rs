use super::super::fakes::{instance, joining, launch, retire};
use super::super::tally::Tally;
use super::*;
use crate::control::status::{Role, Status};
use crate::model::happening::WaitingPod;
use crate::model::ids::Epoch;
use crate::model::offer::HourlyPrice;
use crate::model::operation::LaunchFailure;
use crate::model::plan::{Alert, NodeRef, RetireReason};
use crate::model::snapshot::Pause;
use crate::model::spend::{Cost, PeriodCost, ShareCost};
use crate::model::{Market, Plan, PodKey, PoolReport};
use jiff::civil::date;
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;

const AT: Timestamp = Timestamp::UNIX_EPOCH;

fn after(seconds: i64) -> Timestamp {
    AT + SignedDuration::from_secs(seconds)
}

fn change(before: u32, after: u32) -> PoolChange {
    let price = |nodes: u32| HourlyPrice(u64::from(nodes) * 38_500);
    PoolChange { before, after, price_before: price(before), price_after: price(after) }
}

fn underused() -> RetireReason {
    RetireReason::Underused { evidence: "CPU 12 %, memory 31 % for 10 min".into() }
}

fn moved(operation: Operation, begins: bool, change: Option<PoolChange>) -> What {
    What::Moved { operation, begins, change }
}

fn pause() -> Pause {
    Pause { since: AT, by: "root".into(), reason: "maintenance".into() }
}

fn rendered(what: impl IntoIterator<Item = What>) -> String {
    let happenings: Vec<Happening> = what.into_iter().map(|what| Happening { at: AT, what }).collect();
    let message = message("prod", &happenings, 0).expect("it is for people");
    keeps_slacks_limits(&message);
    serde_json::to_string_pretty(&message).expect("it is plain data")
}

fn keeps_slacks_limits(message: &Value) {
    let blocks = message["blocks"].as_array().expect("blocks");
    assert!((1..=50).contains(&blocks.len()));
    for block in blocks {
        let (text, limit) = match block["type"].as_str() {
            Some("header") => (&block["text"]["text"], 150),
            Some("section") => (&block["text"]["text"], 3000),
            Some("context") => (&block["elements"][0]["text"], 3000),
            other => panic!("{other:?} is a block of nobody's"),
        };
        let length = text.as_str().expect("a text").chars().count();
        assert!((1..=limit).contains(&length), "{block}");
    }
    assert!(message.to_string().len() < 40_000, "Slack takes no longer one");
}

#[test]
fn a_scale_up_has_reason_evidence_before_and_after_and_price() {
    insta::assert_snapshot!("scale_up", rendered([moved(launch(joining(&["i-1", "i-2"])), true, Some(change(3, 5)))]));
}

#[test]
fn a_scale_up_that_ec2_fills_in_part_says_so() {
    insta::assert_snapshot!("scale_up_in_part", rendered([moved(launch(joining(&["i-1"])), true, Some(change(3, 5)))]));
}

#[test]
fn a_scale_up_that_is_done_names_its_nodes() {
    let joined = vec![instance("i-1", Some("worker-4")), instance("i-2", Some("worker-5"))];
    let done = LaunchState::Done { joined, never_joined: Vec::new(), left: Vec::new() };
    insta::assert_snapshot!("scale_up_done", rendered([moved(launch(done), false, None)]));
}

#[test]
fn a_failure_says_what_was_asked_for_and_what_follows() {
    let failure = LaunchFailure::Quota { message: "You have requested more vCPU capacity than <your> limit".into() };
    insta::assert_snapshot!("failure", rendered([moved(launch(LaunchState::Failed { failure }), true, None)]));
    let joined = vec![instance("i-1", Some("worker-4"))];
    let done = LaunchState::Done { joined, never_joined: vec![instance("i-2", None)], left: Vec::new() };
    insta::assert_snapshot!("never_joined", rendered([moved(launch(done), false, None)]));
}

#[test]
fn a_scale_down_has_reason_evidence_before_and_after_and_price() {
    insta::assert_snapshot!(
        "scale_down",
        rendered([moved(retire(underused(), RetireState::Draining { since: AT }), true, Some(change(5, 4)))])
    );
    insta::assert_snapshot!("scale_down_done", rendered([moved(retire(underused(), RetireState::Done), false, None)]));
}

#[test]
fn a_rollback_says_what_happened() {
    let state = RetireState::RolledBack { reason: "2 pods were still there after 5 min".into() };
    insta::assert_snapshot!("rollback", rendered([moved(retire(underused(), state), false, None)]));
}

#[test]
fn an_interruption_names_the_deadline() {
    let reason = RetireReason::SpotInterruption { deadline: after(120) };
    let Operation::Retire(mut retire) = retire(reason, RetireState::Draining { since: AT }) else { panic!("it is one") };
    retire.order.market = Market::Spot;
    insta::assert_snapshot!("interruption", rendered([moved(Operation::Retire(retire), true, None)]));
}

#[test]
fn pause_and_resumption_name_who_asked() {
    insta::assert_snapshot!("pause", rendered([What::Paused { pause: pause() }]));
    insta::assert_snapshot!("resume", rendered([What::Resumed { by: Some("root".into()) }]));
}

#[test]
fn a_takeover_tells_what_its_predecessor_may_not_have_told() {
    let (under_way, lately) = (vec![launch(joining(&["i-1"]))], vec![retire(underused(), RetireState::Done)]);
    let what = What::TookOver { owner: "server-2/41/x".into(), epoch: Epoch(8), pause: Some(pause()), under_way, lately };
    insta::assert_snapshot!("takeover", rendered([what]));
}

#[test]
fn conditions_and_refusals_are_told() {
    let alert = Alert { name: "spot_exhausted".into(), subject: String::new(), text: "no spot capacity in any zone for 15 min".into() };
    insta::assert_snapshot!("alert", rendered([What::Alerted { alert }]));
    insta::assert_snapshot!("refusal", rendered([What::Refused { violations: vec!["pool workers would have 11 of 10 nodes".into()] }]));
}

#[test]
fn what_happens_together_is_one_message() {
    let drained = moved(retire(underused(), RetireState::Draining { since: AT }), true, Some(change(5, 4)));
    insta::assert_snapshot!("grouped", rendered([drained, What::Paused { pause: pause() }, What::Resumed { by: None }]));
}

#[test]
fn steps_and_waiting_pods_are_no_messages() {
    let pods = vec![WaitingPod { pod: PodKey::default(), why: String::new() }];
    let quiet = [
        moved(launch(LaunchState::Journalled), false, None),
        moved(retire(underused(), RetireState::Terminated), false, None),
        What::Waiting { pods },
    ];
    assert_eq!(message("prod", &quiet.map(|what| Happening { at: AT, what }), 0), None);
}

#[test]
fn times_are_told_to_the_second() {
    let happening = Happening { at: AT + SignedDuration::new(1, 234_567_891), what: What::Resumed { by: None } };
    let message = message("prod", [&happening], 0).expect("a message");
    assert_eq!(message["blocks"][1]["elements"][0]["text"], "cluster *prod* · 1970-01-01T00:00:01Z");
}

#[test]
fn what_could_not_be_sent_is_counted_even_when_nothing_else_is_to_be_said() {
    let message = message("prod", [], 3).expect("a message");
    assert!(message["blocks"][0]["text"]["text"].as_str().is_some_and(|text| text.contains("3 earlier messages")), "{message}");
}

#[test]
fn hostile_and_endless_texts_stay_texts_within_the_limits() {
    let evil = format!("<!channel> <https://evil|click> & \n\u{202e}{}", "<".repeat(9000));
    let reason = RetireReason::Underused { evidence: evil.clone() };
    let Operation::Retire(mut retire) = retire(reason, RetireState::Draining { since: AT }) else { panic!("it is one") };
    (retire.order.pool, retire.order.zone) = (evil.as_str().into(), evil.as_str().into());
    retire.order.node = Some(NodeRef { name: evil.as_str().into(), uid: String::new() });
    let operation = Operation::Retire(retire);
    let many = (0..300).flat_map(|_| {
        [
            moved(operation.clone(), true, Some(change(2, 1))),
            What::Paused { pause: Pause { since: AT, by: evil.clone(), reason: evil.clone() } },
            What::Refused { violations: vec![evil.clone(); 50] },
        ]
    });
    let happenings: Vec<Happening> = many.map(|what| Happening { at: AT, what }).collect();
    for count in [1, 2, 3, 20, 21, 900] {
        let message = message(&evil, &happenings[..count], 7).expect("a message");
        keeps_slacks_limits(&message);
        let text = message.to_string();
        assert!(!text.contains("<!") && !text.contains("<https") && !text.contains('\u{202e}'), "{text}");
    }
}

fn status(owned: u32, cpu: f64) -> Status {
    let report = PoolReport {
        pool: "workers".into(),
        owned,
        spot: 1,
        in_flight: 0,
        ready: owned,
        min: 2,
        max: 6,
        desired: owned,
        price: HourlyPrice(u64::from(owned) * 50_000),
        price_after: HourlyPrice(0),
        cpu: Some(cpu),
        memory: Some(0.4),
        findings: Vec::new(),
    };
    let plan = Some(Arc::new(Plan { pools: vec![report], ..Plan::default() }));
    Status { role: Role::Leader { epoch: Epoch(7) }, plan, ..Status::first("prod", "me", AT) }
}

/// A day with 2 nodes for half of it and 6 for the other half, and all that can happen in it.
fn lived(hours: i64) -> Tally {
    let mut tally = Tally::begin(AT);
    for minute in 0..hours * 60 {
        let busy = minute * 2 >= hours * 60;
        tally.look(&if busy { status(6, 0.8) } else { status(2, 0.1) }, after(minute * 60));
    }
    let failure = LaunchFailure::InsufficientCapacity;
    let spot = RetireReason::SpotInterruption { deadline: after(120) };
    for what in [
        moved(launch(joining(&["i-1", "i-2"])), true, None),
        moved(launch(LaunchState::Failed { failure }), true, None),
        moved(retire(underused(), RetireState::Done), false, None),
        moved(retire(underused(), RetireState::RolledBack { reason: String::new() }), false, None),
        moved(retire(spot, RetireState::Draining { since: AT }), true, None),
        What::Alerted { alert: Alert { name: "spot_exhausted".into(), subject: String::new(), text: String::new() } },
        What::Joined {
            pool: "workers".into(),
            instance: "i-1".into(),
            instance_type: "m6a.large".into(),
            node: "worker-4".into(),
            took: std::time::Duration::from_mins(5),
        },
    ] {
        tally.hear(&Happening { at: AT, what });
    }
    tally.turn_over(after(hours * 3600))
}

/// What the ledger has: two pools and both markets yesterday, and a month that began before the first look.
fn cost() -> Cost {
    let share = |pool: &str, market, node_hours, dollars| ShareCost { pool: pool.into(), market, node_hours, dollars };
    let period = |begins, dollars| PeriodCost {
        begins,
        node_hours: 20.0 * dollars,
        dollars,
        on_demand_dollars: 2.0 * dollars,
        static_peak_dollars: 3.0 * dollars,
        by: vec![
            share("", Market::OnDemand, 1.5, 0.06),
            share("workers", Market::OnDemand, 24.0, 2.4),
            share("workers", Market::Spot, 72.0, 2.34),
        ],
    };
    Cost {
        since: after(3600),
        as_of: after(24 * 3600),
        today: period(date(1970, 1, 2), 0.0),
        yesterday: Some(period(date(1970, 1, 1), 4.8)),
        month: period(date(1970, 1, 1), 4.8),
        last_month: None,
        unpriced_node_seconds: 0,
        totals: Vec::new(),
    }
}

#[test]
fn a_day_is_summed_up() {
    let message = daily("prod", Some(&cost()), &lived(24), after(24 * 3600));
    keeps_slacks_limits(&message);
    insta::assert_snapshot!("daily_report", serde_json::to_string_pretty(&message).expect("plain data"));
}

#[test]
fn a_week_recommends_what_it_has_seen_reasons_for() {
    let message = weekly("prod", Some(&cost()), &lived(168), after(168 * 3600));
    keeps_slacks_limits(&message);
    insta::assert_snapshot!("weekly_recommendations", serde_json::to_string_pretty(&message).expect("plain data"));
}

#[test]
fn the_dollars_of_reports_are_the_ledgers_whatever_this_instance_saw() {
    let fresh = Tally::begin(after(24 * 3600 - 60));
    for report in [daily, weekly] {
        let message = report("prod", Some(&cost()), &fresh, after(24 * 3600)).to_string();
        assert!(message.contains("$4.80 for 96.0 node-hours"), "{message}");
        assert!(report("prod", None, &fresh, after(24 * 3600)).to_string().contains("not known yet"));
    }
    let today = Cost { yesterday: None, ..cost() };
    assert!(daily("prod", Some(&today), &fresh, after(24 * 3600)).to_string().contains("1970-01-02 (UTC) so far"));
}

#[test]
fn the_day_that_has_just_ended_is_told_although_the_ledger_has_not_looked_since() {
    let day = |begins| PeriodCost { begins, ..cost().today };
    let late = Cost { today: day(date(1970, 1, 1)), yesterday: Some(day(date(1969, 12, 31))), ..cost() };
    let message = daily("prod", Some(&late), &lived(24), after(24 * 3600 + 5)).to_string();
    assert!(message.contains("1970-01-01 (UTC): "), "{message}");
}

#[test]
fn a_span_without_a_look_is_not_counted_and_the_report_says_so() {
    let mut tally = Tally::begin(AT);
    tally.look(&status(4, 0.5), AT);
    let tally = tally.turn_over(after(24 * 3600));
    assert!((tally.hours() - 5.0 / 60.0).abs() < 1e-9, "{}", tally.hours());
    assert!(daily("prod", None, &tally, after(24 * 3600)).to_string().contains("saw 0.1 of 24.0 h"));
}
