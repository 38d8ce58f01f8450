//! The daemon in a replay: it decides from counts as its own plan does, and keeps its rests.

use super::*;
use crate::policy::forecast::Minute;
use crate::policy::uniform::Cause;
use crate::policy::{AtOnce, Consolidation, Disruption, PredictiveMode};
use proptest::prelude::*;
use std::time::Duration;

/// Minutes of a daemon, each with what was launched, ready and paid for.
struct Life {
    daemon: Daemon,
    fleet: Fleet,
    served: u32,
}

impl Life {
    fn new(operator: &Operator, boot: Boot, begin: u32, path: Path) -> Self {
        // Monday, 5 January 2026.
        let daemon = Daemon::new(operator, 0.192, Minute(29_459_520), path);
        let mut fleet = Fleet::new(boot, begin, 3);
        fleet.begin();
        fleet.pass(0, u32::MAX);
        Self { daemon, fleet, served: begin }
    }

    fn minute(&mut self, demand: &[f32]) -> Tick {
        self.fleet.begin();
        let view = View { demand, measured: true, served: self.served, fleet: &self.fleet };
        let want = self.daemon.decide(&view);
        let tick = self.fleet.pass(want.buy, want.hold);
        self.served = tick.ready;
        tick
    }
}

/// Lets a daemon that plans and one that counts live through the same demand.
fn both(operator: &Operator, boot: Boot, begin: u32, demand: &[f32]) -> (Daemon, u64) {
    let [mut plan, mut counts] = [Path::Plan, Path::Counts].map(|path| Life::new(operator, boot, begin, path));
    let mut launches = 0;
    for minute in 1..demand.len() {
        let (one, other) = (plan.minute(&demand[..minute]), counts.minute(&demand[..minute]));
        assert_eq!(one, other, "in minute {minute}, at a demand of {}", demand[minute - 1]);
        assert_eq!(plan.daemon.memory().pools, counts.daemon.memory().pools, "in minute {minute}");
        launches += u64::from(one.launched);
    }
    assert_eq!(plan.daemon.violations(), [""; 0]);
    assert_eq!(plan.daemon.steps, counts.daemon.steps);
    (counts.daemon, launches)
}

#[test]
fn counts_decide_as_the_plan_does_in_a_week_of_each_kind_of_demand() {
    for shape in Shape::ALL {
        for (days, boot) in [(7, Boot::Fixed(120)), (2, Boot::Spread { least: 60, most: 180, failing: 0.02 })] {
            let demand = shape.days(days, 5).scaled(8.0).carried();
            let (daemon, launches) = both(&operator(&usual()), boot, 4, &demand);
            assert!(launches > 20, "{} launched {launches}", shape.name());
            assert!(daemon.steps.iter().any(|step| step.nodes < 0));
        }
    }
}

prop_compose! {
    /// Settings in the whole of their range, as far as a replay shows them.
    fn settings()(
        min in 0_u32..4, max in 4_u32..14,
        [interval, cooldown_up, sustain_up, cooldown_down, sustain_down, sustain_roomy, age] in [1_u64..6, 0..12, 0..8, 0..15, 0..15, 0..40, 0..20],
        [cpu_above, cpu_target, cpu_below, roomy_below, share] in [0.3_f64..1.0, 0.2..1.0, 0.0..0.6, 0.0..0.9, 0.0..1.0],
        most in 1_u32..5,
        budget in prop::option::of(0_u32..3),
        ceiling in prop::option::of(5_u64..14),
        mode in prop::sample::select(vec![PredictiveMode::On, PredictiveMode::Auto, PredictiveMode::Shadow, PredictiveMode::Off]),
        consolidates in any::<bool>(),
    ) -> Settings {
        let minutes = Duration::from_mins;
        let mut settings = usual();
        let pool = &mut settings.pools[0];
        (pool.min, pool.max) = (min, max);
        pool.disruption = budget.map(|nodes| Disruption { nodes: AtOnce::Nodes(nodes), reasons: Some(["underused".to_owned()].into()), schedule: None }).into_iter().collect();
        settings.interval = minutes(interval);
        settings.price_ceiling = ceiling.map(|nodes| crate::model::offer::HourlyPrice(nodes * 192_000));
        settings.predictive.mode = mode;
        let up = &mut settings.scale_up;
        (up.cooldown, up.cpu_sustain, up.cpu_above, up.cpu_target) = (minutes(cooldown_up), minutes(sustain_up), cpu_above, cpu_target);
        let down = &mut settings.scale_down;
        (down.cooldown, down.sustain, down.min_node_age) = (minutes(cooldown_down), minutes(sustain_down), minutes(age));
        (down.cpu_below, down.share_at_once, down.most_at_once) = (cpu_below, share, most);
        settings.consolidation = consolidates.then(|| Consolidation { cpu_below: roomy_below, memory_below: 0.6, sustain: minutes(sustain_roomy) });
        settings
    }
}

prop_compose! {
    /// Levels that last for some minutes, with noise upon them.
    fn demands()(levels in prop::collection::vec((0.0_f32..12.0, 1_usize..40), 1..25), noise in prop::collection::vec(-0.4_f32..0.4, 64)) -> Vec<f32> {
        let steps = levels.iter().flat_map(|(level, minutes)| std::iter::repeat_n(*level, *minutes));
        steps.zip(noise.iter().cycle()).map(|(level, noise)| (level + noise).max(0.0)).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]

    #[test]
    fn counts_decide_as_the_plan_does_whatever_the_settings_and_the_demand(
        settings in settings(), demand in demands(), seconds in 60_u32..400, spread in any::<bool>(), begin in 0_u32..9, cpu_use in 0.0_f64..1.0,
    ) {
        let mut operator = operator(&settings);
        operator.cpu_use = cpu_use;
        operator.settings_mut().join_timeout = Duration::from_mins(10);
        let boot = if spread { Boot::Spread { least: 60, most: seconds, failing: 0.1 } } else { Boot::Fixed(seconds) };
        both(&operator, boot, begin, &demand);
    }
}

fn changes_of(operator: &Operator, demand: &[f32], begin: u32) -> Vec<(usize, Cause, i64)> {
    let mut life = Life::new(operator, Boot::Fixed(120), begin, Path::Plan);
    for minute in 1..demand.len() {
        life.minute(&demand[..minute]);
    }
    life.daemon.steps.iter().map(|step| (step.minute, step.cause, step.nodes)).collect()
}

#[test]
fn the_daemon_buys_for_pending_pods_at_once_and_gives_back_with_its_rests() {
    let demand = steps(&[(2.0, 61), (5.0, 3), (2.0, 60)]);
    // Seen in minute 62. Nodes without pods go together, ten minutes after what was done last: at first the two that are old
    // enough for that.
    let found = changes_of(&operator(&usual()), &demand, 2);
    assert_eq!(found, [(62, Cause::PendingPods, 3), (72, Cause::Underused, -2), (82, Cause::Underused, -1)]);
}

#[test]
fn busy_nodes_buy_after_four_minutes_and_rest_five() {
    let mut operator = operator(&usual());
    operator.cpu_use = 1.0;
    operator.window = 1;
    // Two nodes at 90 % from minute 61 on: seen in 62, 64 and 66; three come to 60 %.
    let found = changes_of(&operator, &steps(&[(1.0, 61), (1.8, 30)]), 2);
    assert_eq!(found, [(66, Cause::Cpu, 1)]);
}

#[test]
fn the_days_of_a_replay_run_by_the_configured_clock() {
    let mut settings = usual();
    settings.predictive.zone = jiff::tz::TimeZone::get("Europe/Berlin").expect("it is known");
    let forecast = operator(&settings).forecast(3);
    assert_eq!((forecast.zone.iana_name(), forecast.boot), (Some("Europe/Berlin"), 3));
}
