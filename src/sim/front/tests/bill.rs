//! The ledger of costs against the world's own bill, which knows every machine.

use crate::model::Market;
use crate::model::spend::Spend;
use crate::sim::dynamodb::TODAY;
use crate::sim::front::{Deaf, Run, Scenario};
use crate::sim::universe::Truth;
use crate::sim::{Fault, Planned};
use std::time::Duration;

/// A week of the shop with two controllers, each day of which has its own trouble.
fn week() -> Scenario {
    let mut scenario = Scenario::shop(3, 7.0 * 24.0);
    let daily = [Fault::Killed, Fault::Partition, Fault::LedgerOutage, Fault::SpotStorm, Fault::DescribeLag];
    for day in 0..7_u64 {
        for (place, fault) in (0_u64..).zip(daily) {
            let at = Duration::from_hours(day * 24 + 2 + place * 4);
            scenario.faults.push(Planned { fault, at, lasts: Duration::from_mins(30) });
        }
    }
    scenario
}

/// What the machines of ours have cost up to a moment, node-hours and dollars, on one market.
fn bill(truth: &Truth, at: Duration, market: Market) -> (f64, f64) {
    let ours = truth.ec2.machines.values().filter(|it| it.is_ours(&truth.ec2.cluster) && it.market == market && it.launched <= at);
    ours.fold((0.0, 0.0), |(hours, dollars), machine| {
        let life = machine.ended.unwrap_or(at).min(at).saturating_sub(machine.launched);
        (hours + life.as_secs_f64() / 3600.0, dollars + machine.cost(at))
    })
}

#[test]
fn a_week_with_failovers_comes_to_what_the_world_bills() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let scenario = week();
    let (spend, truths, leaders) = runtime.block_on(async {
        let mut run = Run::begin(scenario, |_| Deaf);
        let outcome = run.to_the_end().await;
        assert_eq!(outcome.violations, [], "{}", outcome.log.join("\n"));
        run.universe.with(|truth| {
            let spend: Spend = truth.table.load(TODAY).expect("it is readable").memory.spend;
            let at = spend.at.expect("it is kept").duration_since(truth.start);
            let at = Duration::try_from(at).expect("after the beginning");
            let truths = [Market::OnDemand, Market::Spot].map(|market| bill(truth, at, market));
            (spend, truths, truth.table.epoch())
        })
    });
    assert!(leaders >= 7, "only {leaders} changes of the leader");
    for (market, (hours, paid)) in [Market::OnDemand, Market::Spot].into_iter().zip(truths) {
        let tallies = spend.totals.iter().filter(|(series, _)| series.market == market);
        let (seconds, dollars) = tallies.fold((0.0, 0.0), |(seconds, dollars), (_, tally)| {
            (seconds + std::time::Duration::from_secs(tally.seconds).as_secs_f64(), dollars + tally.paid.dollars())
        });
        println!("{market}: {:.2} node-hours of {hours:.2}, ${dollars:.4} of ${paid:.4}", seconds / 3600.0);
        assert!(paid > 1.0, "too little {market} to tell");
        assert!((seconds / 3600.0 / hours - 1.0).abs() < 0.01, "{market}: {} node-hours instead of {hours}", seconds / 3600.0);
        assert!((dollars / paid - 1.0).abs() < 0.01, "{market}: ${dollars} instead of ${paid}");
    }
    let month = spend.month.expect("it is kept").sum();
    println!("{leaders} leaders, ${:.2} in all; ${:.2} on demand", month.paid.dollars(), month.on_demand.dollars());
    assert!(month.paid < month.on_demand);
}
