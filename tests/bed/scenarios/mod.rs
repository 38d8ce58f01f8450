//! The scenarios of the bed, in the order in which they run.

use anyhow::Result;
use futures::future::LocalBoxFuture;

use crate::bed::Bed;

mod the_bed_itself;

/// One scenario: its name is a sentence, its error says what was not so.
pub struct Scenario {
    pub name: &'static str,
    pub run: fn(&mut Bed) -> LocalBoxFuture<'_, Result<()>>,
}

/// Every scenario.
pub const ALL: &[Scenario] = &[Scenario { name: "the_bed_itself", run: |bed| Box::pin(the_bed_itself::run(bed)) }];
