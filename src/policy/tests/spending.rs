//! What instances come to, from what EC2 shows of them.

use super::*;
use crate::model::offer::HourlyPrice;
use crate::model::spend::{Cost, PriceSeconds, Spend};
use crate::policy::{account, report};
use std::collections::BTreeMap;

type Prices = BTreeMap<OfferKey, HourlyPrice>;

/// A dollar an hour on demand, and so much on the spot market.
fn prices(spot: u64) -> Prices {
    let key = |market| OfferKey { instance_type: "m5.large".into(), zone: "a".into(), market };
    Prices::from([(key(Market::OnDemand), HourlyPrice(1_000_000)), (key(Market::Spot), HourlyPrice(spot))])
}

/// Noon of a day in the middle of a month.
fn noon() -> Timestamp {
    "2026-03-17T12:00:00Z".parse().expect("a time")
}

/// A ledger that watches from a moment on, at which nothing ran.
fn watching(from: Timestamp) -> Spend {
    let mut spend = Spend::default();
    account(&mut spend, &[], &Prices::new(), from);
    spend
}

fn after(minutes: i64) -> Timestamp {
    noon() + SignedDuration::from_mins(minutes)
}

fn launched(name: &str, market: Market, at: Timestamp) -> Instance {
    Instance { launched: at, ..instance(name, "a", market) }
}

fn ended(instance: &Instance, at: Timestamp) -> Instance {
    Instance { state: InstanceState::Ending, ended: Some(at), ..instance.clone() }
}

fn cost(spend: &Spend) -> Cost {
    report(spend).expect("something is known")
}

#[track_caller]
fn comes_to(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
}

#[test]
fn an_instance_is_billed_by_the_second_from_its_launch_to_its_end() {
    let mut spend = watching(after(-30));
    let one = launched("n", Market::OnDemand, after(-30));
    account(&mut spend, std::slice::from_ref(&one), &prices(0), noon());
    comes_to(cost(&spend).today.dollars, 0.5);
    let end = noon() + SignedDuration::from_secs(90);
    for look in [after(2), after(4)] {
        account(&mut spend, &[ended(&one, end)], &prices(0), look);
    }
    comes_to(cost(&spend).today.dollars, 0.5 + 90.0 / 3600.0);
    assert_eq!(cost(&spend).totals[0].node_seconds, 1890);
}

#[test]
fn an_instance_that_lived_for_seconds_is_billed_for_a_minute() {
    let mut spend = watching(noon());
    let one = launched("n", Market::OnDemand, noon());
    account(&mut spend, &[ended(&one, noon() + SignedDuration::from_secs(7))], &prices(0), after(2));
    assert_eq!(cost(&spend).totals[0].node_seconds, 60);
}

#[test]
fn a_gap_of_the_daemon_loses_nothing_of_what_runs_or_ended_lately() {
    let mut spend = watching(noon());
    let (stays, goes) = (launched("stays", Market::OnDemand, noon()), launched("goes", Market::OnDemand, noon()));
    account(&mut spend, &[stays.clone(), goes.clone()], &prices(0), after(1));
    // Nobody looks for five hours; one was launched and another one ended meanwhile.
    let fresh = launched("fresh", Market::OnDemand, after(60));
    account(&mut spend, &[stays, ended(&goes, after(270)), fresh], &prices(0), after(300));
    comes_to(cost(&spend).today.dollars, 5.0 + 4.5 + 4.0);
}

#[test]
fn an_old_list_and_a_repeated_one_change_nothing() {
    let mut spend = watching(noon());
    let one = [launched("n", Market::OnDemand, noon())];
    account(&mut spend, &one, &prices(0), after(60));
    let known = spend.clone();
    for look in [after(60), after(30)] {
        account(&mut spend, &[], &prices(0), look);
        assert_eq!(spend, known);
    }
}

#[test]
fn a_spot_instance_pays_for_an_hour_what_the_market_asked_at_its_beginning() {
    let mut spend = watching(noon());
    let one = [launched("n", Market::Spot, noon())];
    for (minutes, price) in [(1, 300_000), (30, 900_000), (60, 400_000), (90, 100_000)] {
        account(&mut spend, &one, &prices(price), after(minutes));
    }
    comes_to(cost(&spend).today.dollars, 0.3 + 0.4 / 2.0);
    comes_to(cost(&spend).today.on_demand_dollars, 1.5);
}

#[test]
fn what_ran_before_its_price_was_known_is_charged_once_it_is() {
    let mut spend = watching(noon());
    let (stays, goes) = (launched("stays", Market::OnDemand, noon()), launched("goes", Market::OnDemand, noon()));
    account(&mut spend, &[stays.clone(), goes.clone()], &Prices::new(), after(60));
    comes_to(cost(&spend).today.dollars, 0.0);
    account(&mut spend, &[stays.clone(), ended(&goes, after(90))], &Prices::new(), after(90));
    account(&mut spend, &[stays], &prices(0), after(120));
    let cost = cost(&spend);
    comes_to(cost.today.dollars, 2.0);
    comes_to(cost.today.node_hours, 3.5);
    assert_eq!(cost.unpriced_node_seconds, 5400);
}

#[test]
fn a_stopped_instance_costs_nothing_until_it_comes_back() {
    let mut spend = watching(noon());
    let one = launched("n", Market::OnDemand, noon());
    account(&mut spend, std::slice::from_ref(&one), &prices(0), after(30));
    let stopped = Instance { state: InstanceState::Stopped, ended: Some(after(45)), ..one.clone() };
    account(&mut spend, std::slice::from_ref(&stopped), &prices(0), after(60));
    account(&mut spend, &[stopped], &prices(0), after(120));
    // EC2 shows the time at which it was started again.
    account(&mut spend, &[Instance { launched: after(150), ..one }], &prices(0), after(180));
    comes_to(cost(&spend).today.dollars, 0.75 + 0.5);
}

#[test]
fn days_and_months_end_at_midnight_in_utc() {
    let eve: Timestamp = "2026-03-31T22:00:00Z".parse().expect("a time");
    let mut spend = watching(eve);
    let one = [launched("n", Market::OnDemand, eve)];
    account(&mut spend, &one, &prices(0), eve + SignedDuration::from_mins(30));
    account(&mut spend, &one, &prices(0), eve + SignedDuration::from_hours(5));
    let cost = cost(&spend);
    comes_to(cost.today.dollars, 3.0);
    comes_to(cost.month.dollars, 3.0);
    comes_to(cost.yesterday.as_ref().expect("it is known").dollars, 2.0);
    comes_to(cost.last_month.expect("it is known").dollars, 2.0);
    // Two days without a word: yesterday is another day.
    account(&mut spend, &[], &prices(0), eve + SignedDuration::from_hours(53));
    comes_to(report(&spend).and_then(|cost| cost.yesterday).expect("it is known").dollars, 0.0);
}

#[test]
fn an_instance_that_is_not_shown_for_a_moment_is_not_billed_twice() {
    let mut spend = watching(noon());
    let one = launched("n", Market::OnDemand, noon());
    account(&mut spend, std::slice::from_ref(&one), &prices(0), after(30));
    account(&mut spend, &[], &prices(0), after(32));
    account(&mut spend, std::slice::from_ref(&one), &prices(0), after(60));
    account(&mut spend, &[ended(&one, after(60))], &prices(0), after(62));
    account(&mut spend, &[], &prices(0), after(64));
    account(&mut spend, &[ended(&one, after(60))], &prices(0), after(66));
    comes_to(cost(&spend).today.dollars, 1.0);
    account(&mut spend, &[], &prices(0), after(200));
    assert!(spend.meters.is_empty(), "what EC2 has forgotten is forgotten");
}

#[test]
fn an_end_after_the_look_is_billed_once() {
    let mut spend = Spend::default();
    let one = launched("n", Market::OnDemand, noon());
    account(&mut spend, &[], &prices(0), noon());
    account(&mut spend, std::slice::from_ref(&one), &prices(0), after(60));
    // EC2 answers later than it was asked, or its clock is ahead of ours.
    for look in [90, 92, 94] {
        account(&mut spend, &[ended(&one, after(91))], &prices(0), after(look));
    }
    comes_to(cost(&spend).today.dollars, 1.5);
}

#[test]
fn more_instances_than_meters_are_billed_once() {
    let mut spend = Spend::default();
    let many: Vec<Instance> = (0..3500).map(|number| launched(&format!("{number:04}"), Market::OnDemand, noon())).collect();
    for look in [0, 1, 2, 3, 5, 8, 13, 30, 60, 120] {
        account(&mut spend, &many, &prices(0), after(look));
        assert_eq!(spend.meters.len(), 3000);
    }
    comes_to(cost(&spend).today.node_hours, 2.0 * 3500.0);
}

#[test]
fn an_end_of_which_ec2_does_not_tell_the_time_is_when_it_was_first_seen() {
    let mut spend = watching(noon());
    let one = launched("n", Market::OnDemand, noon());
    account(&mut spend, std::slice::from_ref(&one), &prices(0), after(60));
    let over = Instance { state: InstanceState::Ending, ..one };
    for look in [61, 63, 90, 119] {
        account(&mut spend, std::slice::from_ref(&over), &prices(0), after(look));
        comes_to(cost(&spend).today.dollars, 61.0 / 60.0);
    }
}

#[test]
fn a_static_fleet_is_reckoned_at_the_peak_and_on_demand() {
    let mut spend = watching(noon());
    let (one, two) = (launched("n", Market::Spot, noon()), launched("m", Market::Spot, after(30)));
    account(&mut spend, std::slice::from_ref(&one), &prices(250_000), after(30));
    account(&mut spend, &[one.clone(), two.clone()], &prices(250_000), after(60));
    account(&mut spend, &[one, ended(&two, after(60))], &prices(250_000), after(120));
    comes_to(cost(&spend).today.dollars, 0.25 * 2.5);
    comes_to(cost(&spend).today.static_peak_dollars, 2.0 * 2.0);
}

#[test]
fn what_ran_before_the_first_look_is_in_no_figure() {
    let mut spend = Spend::default();
    let (old, gone) = (launched("old", Market::Spot, after(-14 * 1440 - 10)), launched("gone", Market::OnDemand, after(-1)));
    let fleet = [old, ended(&gone, noon() - SignedDuration::from_secs(50))];
    account(&mut spend, &fleet, &prices(250_000), noon());
    account(&mut spend, &fleet, &prices(500_000), after(60));
    let cost = cost(&spend);
    assert_eq!((cost.since, cost.yesterday.is_none(), cost.last_month.is_none()), (noon(), true, true));
    for period in [&cost.today, &cost.month] {
        comes_to(period.node_hours, 1.0);
        // Its hours begin ten minutes before those of the clock.
        comes_to(period.dollars, 0.25 * 50.0 / 60.0 + 0.5 * 10.0 / 60.0);
        comes_to(period.on_demand_dollars, 1.0);
        comes_to(period.static_peak_dollars, 1.0);
    }
}

#[test]
fn kinds_beyond_the_bound_are_summed_up() {
    let mut spend = watching(noon());
    let many: Vec<Instance> = (0..500)
        .map(|number| Instance {
            instance_type: format!("t{number}").as_str().into(),
            ..launched(&number.to_string(), Market::Spot, noon())
        })
        .collect();
    account(&mut spend, &many, &Prices::new(), after(60));
    assert_eq!(spend.totals.len(), 401);
    comes_to(cost(&spend).today.node_hours, 500.0);
}

#[test]
fn the_record_stays_small_and_is_read_back_as_it_was() {
    let mut spend = watching(noon());
    let many: Vec<Instance> = (0..1000).map(|number| launched(&format!("{number:017x}"), Market::Spot, after(-number))).collect();
    account(&mut spend, &many, &prices(345_678), after(1));
    let text = serde_json::to_string(&spend).expect("it is plain data");
    // DynamoDB takes 400 KiB.
    assert!(text.len() < 80_000, "{} bytes for a thousand instances", text.len());
    // A thousand nodes that live for some minutes each, in four hundred kinds, and one that ends without saying when.
    let mut churned = watching(noon());
    for round in 0..20 {
        let alive = |number: i64| Instance {
            instance_type: format!("t{}", number % 400).as_str().into(),
            ..launched(&format!("{round:x}{number:016x}"), Market::Spot, after(round * 10))
        };
        let living: Vec<Instance> = (0..1000).map(alive).collect();
        account(&mut churned, &living, &prices(345_678), after(round * 10 + 4));
        let gone: Vec<Instance> = living.iter().map(|it| ended(it, after(round * 10 + 5))).collect();
        account(&mut churned, &gone, &prices(345_678), after(round * 10 + 6));
        account(&mut churned, &gone, &prices(345_678), after(round * 10 + 8));
    }
    assert_eq!(churned.meters.len(), 0, "what has ended and says when needs no meter");
    comes_to(cost(&churned).today.node_hours, 20.0 * 1000.0 * 5.0 / 60.0);
    let size = serde_json::to_string(&churned).expect("it is plain data").len();
    assert!(size < 150_000, "{size} bytes");
    assert_eq!(serde_json::from_str::<Spend>(&text).expect("it is read"), spend);
    assert_eq!(serde_json::from_str::<Spend>("{}").expect("it is read"), Spend::default());
}

#[test]
fn sums_of_prices_stay_exact() {
    let mut sum = PriceSeconds::default();
    (0..3600).for_each(|_| sum.add(PriceSeconds::of(HourlyPrice(33_333), 1)));
    comes_to(sum.dollars(), 0.033_333);
}
