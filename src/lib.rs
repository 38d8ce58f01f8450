//! node-fleet keeps the number, kind, zone and market of the worker instances of a
//! self-managed K3s cluster on EC2 right: enough for the pods, cheap, and never at the
//! price of what runs.
//!
//! # The way data flows
//!
//! One direction, once round a turn:
//!
//! ```text
//! triggers ─► observe ─► Snapshot ─► policy::plan ─► Plan ─► audit ─► execute ─► publish
//!  tick        prometheus  each part    pure,          names    refuses   journal,  Status,
//!  pods        kubernetes  knows how    no clock,      exact    a plan    then      measurements
//!  notice      ec2         old it is    no I/O         nodes,   that      act
//!  operator    ledger                                  zones,   breaks an
//!                                                      markets  invariant
//! ```
//!
//! - [`model`] holds the nouns: nodes, pods, offers, snapshots, plans, operations.
//! - [`policy`] decides: [`policy::plan()`] makes a plan and the next memory from a snapshot
//!   and a memory; [`policy::audit()`] holds a plan against the invariants; [`policy::learn()`]
//!   draws conclusions from operations that are over. A refusal to act is a value
//!   ([`model::Hold`]), so "why not?" is always answerable.
//! - [`policy::forecast`] tells the demand that comes, and how many nodes to have for it; [`sim::replay`] holds it
//!   against other policies on a recorded demand, for `node-fleet simulate`.
//! - [`ports`] are the traits through which the world is reached, with errors named by what
//!   the caller does about them.
//! - [`control`] is the loop. One task owns all that changes; every call to the world runs
//!   beside it as a future. Operations are journalled before their first effect and driven by
//!   repeatable steps, each under the fence of the lease ([`control::lease`]).
//! - [`adapters`] are the real systems behind the ports (feature `live`): Kubernetes, EC2, DynamoDB, SQS,
//!   Secrets Manager, the price list, Prometheus, Slack, CloudWatch, the clocks and the evaluation's ticks.
//! - [`config`] reads one TOML file with overrides from the environment and names every
//!   problem at once; [`cli`] is the command line.
//! - [`sim`] is the embedded world: the same ports in memory, under a virtual clock, with
//!   every fault of its catalogue and an oracle that watches over the invariants. It serves
//!   `node-fleet demo` and `node-fleet fuzz`, and the tests.
//! - [`http`] sees one value, the controller's status, and can send it commands and questions;
//!   [`observability`] holds the log, the metrics and their catalogue, and tells Slack, CloudWatch and the readers of
//!   Kubernetes' Events what happens: the loop tells [`ports::Telemetry`] and waits for nobody, [`model::happening`] says
//!   what is promised, and [`ports::outlets`] are the ways out.
//!
//! # Who may know whom
//!
//! `tests/architecture.rs` scans the sources for `crate::` paths and holds this table:
//!
//! | module | may import |
//! |---|---|
//! | model | nothing of ours |
//! | policy, ports | model |
//! | control | model, policy, ports |
//! | adapters | model, ports, config |
//! | sim | model, ports, policy's settings and audit; its front door also control, its replay also `policy::plan()`, `policy::uniform` and `policy::forecast` |
//! | config | model, policy |
//! | http | model, `control::status` |
//! | observability | model, ports, config, `control::status` |
//! | cli | everything |
//!
//! # How it decides
//!
//! In three layers, pool by pool. Safety comes first and last: a pause, doubtful data, cooldowns, budgets, and the
//! audit of the finished plan. The reactive layer serves pods that wait, and sustained utilisation and metrics. The
//! predictive one ([`policy::forecast`]) follows the demands of `[[forecast]]` rules: the controller reads their past
//! from Prometheus and on with every full turn, and puts what they lead to, a number of nodes to buy up to and one to
//! hold, into the snapshot. It is a rule among the others, which wants nodes and forbids removals. The ledger
//! keeps that past, so that whoever takes over knows it.
//!
//! # How it buys and gives back
//!
//! A turn lays the nodes that exist, boot and may be bought on a board that knows the scheduler's
//! filters, and counts pods by domain instead of one by one. Pods that wait come by priority and
//! size. A node that is opened for one of them is of the type that costs least for what it then
//! holds, and is filled with it at once: cores and bytes have the prices at which the offers just
//! cover what waits. First fit decreasing is tried too, up to 200,000 pods that find no room, and while
//! the pods are few one type wherever it will do; the cheapest of those that serve most is taken. Headroom
//! is laid out as pods that nobody sees: they come last, buy room, and hold it against removals.
//! On-demand prices are those of the price list, spot prices those that EC2 tells for each zone; the
//! configuration's table stands in for both. The daemons of a new node lie on it before all else, and
//! what the nodes of a pool were seen to have, in room, labels and taints, is believed before what they
//! should have. An offer of which EC2 has none rests for every pool, one that is refused or never joins
//! for its own.
//!
//! Nodes go together, of one pool in a turn, when the pods of all of them find places on those
//! that stay: packed as full as can be, and moved one by one onto the emptiest node in several
//! orders, since nobody knows in which one they will be evicted. They share the disruption budgets
//! of their pods, and no workload without a budget loses all its replicas at once. A node without pods,
//! or with expendable ones alone, need not wait until its pool is idle: these need no other place, and
//! make way for those that do. The base of on-demand and, where the minimum allows it, the last node in
//! a zone stay. A drain asks the least important pods first, and those of a stateful set one by one,
//! while it has the time.
//!
//! A node is replaced, by cheaper ones, at its greatest age or for balance over zones, in two turns:
//! what takes its place is bought first, rehearsed like a removal with the new nodes on the board, and
//! it goes once they are there. The memory holds what is between the two.
//!
//! [`policy::explain()`] asks the same model once more, for people.
//!
//! # Exactly once, whatever breaks
//!
//! The lock in the ledger carries a version that its holder changes with each heartbeat. A
//! rival takes it after a whole lease without a change, counted on the rival's own monotonic
//! clock; the holder trusts half a lease, counted from before its last successful heartbeat.
//! A lock that nobody gave back and whose record is gone is waited for in the same way.
//! `tests/lease_model.rs` searches this protocol through.
//! Every write to the journal is one transaction with the condition that the writer still
//! holds the lock in its epoch, and no request is sent that the lease might not outlast. The
//! client token of a launch is its operation's id and the request is stored whole, so a
//! successor repeats identical bytes, and EC2 sees one launch.

#[cfg(feature = "live")]
pub mod adapters;
pub mod cli;
pub mod config;
pub mod control;
pub mod http;
pub mod model;
pub mod observability;
pub mod policy;
pub mod ports;
pub mod sim;
