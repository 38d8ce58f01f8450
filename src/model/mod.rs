//! The nouns of node-fleet: what a cluster, a fleet and a decision consist of.
//!
//! Plain values without I/O. Everything that is iterated is ordered, so that two
//! machines that see the same world write the same plan.

pub mod explanation;
pub mod happening;
pub mod ids;
pub mod instance;
pub mod memory;
pub mod node;
pub mod offer;
pub mod operation;
pub mod plan;
pub mod pod;
pub mod prospect;
pub mod quantity;
pub mod reading;
pub mod resources;
pub mod scheduling;
pub mod snapshot;
pub mod spend;

pub use explanation::{Explanation, Question};
pub use happening::{Happening, What};
pub use ids::{InstanceId, InstanceType, NodeName, OperationId, PoolName, RuleName, SubnetId, Zone};
pub use instance::{Instance, InstanceState, Market};
pub use memory::Memory;
pub use node::{Node, Readiness};
pub use offer::{Offer, OfferKey};
pub use operation::{Launch, LaunchRequest, LaunchState, Operation, Retire, RetireState};
pub use plan::{Action, Hold, LaunchOrder, Plan, PoolReport, RetireOrder};
pub use pod::{Pod, PodKey, PodPhase};
pub use prospect::Prospect;
pub use reading::{Missing, Reading};
pub use resources::{Bytes, MilliCpu, Resources};
pub use snapshot::{ClusterView, Snapshot};
