//! What becomes of launches that do not go as they should.

use super::interventions::{MINUTE, pass};
use crate::model::{LaunchState, Operation};
use crate::sim::client::Mishap;
use crate::sim::front::{Scenario, Stage};
use crate::sim::universe::Truth;
use jiff::SignedDuration;

#[tokio::test(start_paused = true)]
async fn a_launch_that_could_not_be_journalled_in_time_is_never_sent() {
    let world = Stage::begin(Scenario::quiet(1, 1000.0, 2));
    pass(MINUTE).await;
    // Heartbeats pass, and transactions do not.
    world.with(|truth| truth.clients[0].mishaps = vec![("record", Mishap::Throttled); 1000]);
    world.load(8.0);
    world.until("pods that find no node", MINUTE * 2, |truth| truth.marks > 0).await;
    pass(MINUTE * 6).await;
    assert_eq!(world.with(|truth| truth.table.journal.len()), 0);
    world.with(|truth| truth.clients[0].mishaps.clear());
    world.until("room for all", MINUTE * 4, |truth| truth.kubernetes.waits() == 0).await;
    let begun_late = |truth: &mut Truth| {
        let launches = truth.table.journal.values().filter_map(|entry| match &entry.operation {
            Operation::Launch(launch) => Some((launch.updated.duration_since(launch.created), &launch.state)),
            Operation::Retire(_) => None,
        });
        launches.map(|(took, state)| (took > SignedDuration::from_mins(4), matches!(state, LaunchState::Failed { .. }))).collect::<Vec<_>>()
    };
    let launches = world.with(begun_late);
    assert!(launches.contains(&(true, true)) && launches.contains(&(false, false)), "{launches:?}");
    assert!(launches.iter().all(|(late, failed)| late == failed), "{launches:?}: {}", world.log());
    world.is_sound();
}
