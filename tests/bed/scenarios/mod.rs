//! The scenarios of the bed, in the order in which they run.

use std::time::Duration;

use anyhow::Result;
use futures::future::LocalBoxFuture;

use crate::bed::Bed;

mod fidelity;
pub mod fleet;
mod foreseeing;
mod growing;
mod load;
mod messages;
mod notices;
mod packing;
mod panels;
mod reality;
mod rights;
mod shrinking;
mod succession;
mod surface;
mod the_bed_itself;

/// No scenario may take longer; a hanging one must not hang the run. Below the 15 minutes for
/// which the journal keeps operations that are over.
const LIMIT: Duration = Duration::from_secs(840);

/// One scenario: its name is a sentence, its error says what was not so.
pub struct Scenario {
    pub name: &'static str,
    pub run: fn(&mut Bed) -> LocalBoxFuture<'_, Result<()>>,
}

impl Scenario {
    /// How long it may take. Only those of `fidelity`, which have no journal, grow with what they are asked to do.
    pub fn limit(&self) -> Duration {
        if self.name.starts_with("fidelity::") { LIMIT.max(fidelity::limit()) } else { LIMIT }
    }
}

macro_rules! scenarios {
    ($($module:ident::$name:ident),* $(,)?) => {
        /// Every scenario.
        pub const ALL: &[Scenario] =
            &[$(Scenario { name: concat!(stringify!($module), "::", stringify!($name)), run: |bed| Box::pin($module::$name(bed)) }),*];
    };
}

scenarios! {
    the_bed_itself::run,
    surface::operators,
    surface::under_systemd,
    surface::stopped_in_the_middle,
    growing::pods_get_nodes,
    growing::cpu_must_last,
    growing::capacity_runs_out,
    growing::some_never_join,
    foreseeing::a_rise_is_bought_for,
    foreseeing::a_past_is_replayed,
    load::users_come_and_go,
    shrinking::load_falls,
    shrinking::protected_nodes_stay,
    shrinking::blind_is_careful,
    shrinking::drain_rolls_back,
    shrinking::drain_is_forced,
    succession::killed_at_every_step,
    succession::killed_when_it_goes_wrong,
    succession::shipped_lease,
    succession::awakened,
    succession::cut_connections,
    succession::paused,
    messages::slack_cloudwatch_and_pods_hear_of_it,
    rights::each_is_used_and_no_other,
    panels::each_query_gives_data,
    notices::interruption,
    notices::strangers_live,
    packing::mixed_pods,
    packing::three_half_empty_nodes_become_two,
    packing::a_dear_node_is_replaced,
    reality::pods_get_nodes,
    reality::the_maximum_holds,
    reality::empty_nodes_go,
    reality::a_node_is_drained,
    reality::a_drain_is_taken_back,
    reality::a_type_is_sold_out,
    reality::spot_is_sold_out,
    reality::a_machine_never_joins,
    reality::a_machine_is_interrupted,
    reality::an_answer_is_lost,
    reality::a_launch_is_throttled,
    fidelity::pods_fit_where_the_model_says,
}
