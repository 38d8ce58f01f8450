//! A demand replayed under policies side by side: ours, imitations of what others have, and the optimum.
//!
//! Time runs by the minute. A policy decides on the demand of the last full minute; a node that it launches serves
//! when it has booted and is paid for from its launch. What exceeds the ready nodes in a minute waits. All policies see
//! the same demand, in nodes, and differ in nothing else: pods, types and zones are the matter of [`crate::sim::front`].
//!
//! This daemon is no imitation: [`crate::policy::plan()`] decides for it, on nodes and pods made of the demand, with the
//! operator's settings ([`Daemon`]); for long recordings [`crate::policy::uniform`] does, which decides the same.
//!
//! What counts comes after a warm-up, and is one number: node-minutes paid, and node-minutes unmet at a price that is
//! the operator's. [`clairvoyant()`] gives the least it could have been.

#![expect(clippy::cast_precision_loss, clippy::cast_possible_wrap, reason = "minutes and nodes are far below 2^52")]

mod bill;
mod board;
mod clairvoyant;
mod contestants;
mod course;
mod coverage;
mod daemon;
mod fleet;
mod foresight;
mod judge;
mod parquet_rows;
mod pods;
mod policies;
mod recording;
mod rows;
mod side_by_side;
mod synthetic;
mod tuning;

pub use bill::{Bill, HourlyDollars, Rates};
pub use clairvoyant::{Optimum, clairvoyant, clairvoyant_paths};
pub use contestants::{Contestant, HEADROOMS};
pub use course::{Course, Headroomed, Trajectory};
pub use coverage::Pinball;
pub use daemon::{Daemon, Operator, Path, Step};
pub use fleet::{Batch, Boot, Fleet, Joined, Tick};
pub use judge::{Day, Elasticity, Ratio, Tally, compare};
pub use policies::{AwsPredictiveLike, ClusterAutoscalerLike, KarpenterLike, Persistence, Policy, StaticPeak, Threshold, View};
pub use recording::{PodsAsNodes, Recording, RecordingError, Repairs};
pub use side_by_side::{Conditions, Outcome, Progress, SideBySide, side_by_side, work};
pub use synthetic::Shape;
pub use tuning::{Changes, Dial, LEAST_SAVING, Parts, TooShort, Tuned, held_out, held_out_work, tune};

#[cfg(test)]
mod tests;
