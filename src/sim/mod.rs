//! The embedded world: EC2, Kubernetes, Prometheus, DynamoDB, SQS and time itself in one
//! process, behind the same ports as the real systems, deterministic from a seed.
//!
//! ```text
//! front ──► Controller<Sim> ──ports──► client ──► Universe: Truth + queue of events
//!                                        ▲              │
//!                              faults, delays, crashes  └─► oracle, with every effect
//! ```
//!
//! `Universe` owns one `Truth` and a queue of what
//! happens next; whoever looks at the truth finds that everything due has happened. Each
//! controller sees it through a [`Sim`] of its own, which delays, fails and loses its calls
//! and is where a controller is killed. Time is tokio's paused clock on a runtime with one
//! thread; randomness is `ChaCha8`, one stream for each purpose. The same seed and build give
//! the same log, byte for byte.
//!
//! The world knows nothing of the controller's insides, and the controller nothing of the
//! world's: [`front`] alone knows both, and puts them together.

mod client;
mod clock;
mod dynamodb;
mod ec2;
mod faults;
pub mod front;
mod ice;
mod kubernetes;
mod life;
mod oracle;
mod plants;
mod prometheus;
pub mod replay;
mod scheduler;
mod sqs;
mod streams;
mod trace;
mod universe;
mod workload;

pub use client::Sim;
pub use faults::{Fault, Planned};
pub use oracle::{Invariant, Violation};
pub use plants::Plant;
pub use trace::{Trace, TraceError};
