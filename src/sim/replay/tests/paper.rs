//! What the paper fleets of the forecast promise must hold for the real one.

use super::*;
use crate::sim::replay::side_by_side::Run;

/// Bursts that nobody announces are the worst that a forecast can meet. Paper that waits longer for its nodes than the
/// daemon does, or gives them back at other times, buys too many of them.
#[test]
fn where_nothing_can_be_foreseen_the_forecast_costs_next_to_nothing() {
    for seed in [1, 7] {
        let recording = Shape::Bursty.days(28, seed).scaled(8.0);
        let conditions = conditions(Boot::Fixed(120), 60.0, 1.0);
        let demand = recording.carried();
        let run = Run { recording: &recording, demand: &demand, warm_up: 14 * 1440, conditions: &conditions };
        let cost = |contestant: Contestant| {
            let tally = run.replay(&mut *contestant.policy(&recording, &conditions), |_, _, _| {}, &mut Silent);
            tally.sum().cost(conditions.price_of_waiting)
        };
        let ours = cost(Contestant::Ours);
        for (contestant, most) in [(Contestant::OursReactive, 1.01), (Contestant::ClusterAutoscaler(0.0), 1.02)] {
            let ratio = ours / cost(contestant);
            assert!(ratio < most, "seed {seed}: {ratio} of {}", contestant.name());
        }
    }
}
