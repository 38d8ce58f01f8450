//! The front door: a cluster from a seed, its controllers, and what became of them.

mod daemon;
mod picture;
mod run;
pub(in crate::sim) mod scenario;
mod shrink;
mod stage;

pub use daemon::{Daemon, Parts};
pub use picture::{Condition, MachinePicture, Picture};
pub use run::{Deaf, Outcome, Run, attempt, run};
pub use scenario::{Scenario, ScenarioError};
pub use shrink::shrink;
pub use stage::Stage;

#[cfg(test)]
mod tests;
