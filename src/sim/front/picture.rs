//! What a person sees of a world at one moment.

use super::super::faults::Fault;
use super::super::kubernetes::moves_in_a_drain;
use super::super::oracle::Violation;
use super::super::universe::{Truth, Universe, Waits};
use crate::model::{Market, Zone};
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::time::Duration;

/// How a machine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// It boots, or is no node for another reason.
    Booting,
    /// Its node takes pods.
    Ready,
    /// Its node is out of service.
    Cordoned,
    /// The market takes it back in a moment.
    Interrupted,
    /// Its node does not answer.
    NotReady,
}

/// One machine of ours.
#[derive(Clone, Debug, PartialEq)]
pub struct MachinePicture {
    /// Its node's name, or its id.
    pub name: String,
    /// Its zone.
    pub zone: Zone,
    /// How it is paid for.
    pub market: Market,
    /// Its type.
    pub kind: &'static str,
    /// How it does.
    pub condition: Condition,
    /// How busy its CPU is, 0 to 1.
    pub cpu: f64,
    /// Pods that a drain would move.
    pub pods: usize,
}

/// A world at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// Since its beginning.
    pub elapsed: Duration,
    /// What a wall clock shows.
    pub wall: Timestamp,
    /// Our machines, by zone and name.
    pub machines: Vec<MachinePicture>,
    /// Cores that the workloads ask for.
    pub demand: f64,
    /// Cores of the nodes that take pods.
    pub capacity: f64,
    /// Pods that run.
    pub running: usize,
    /// Pods that find no node.
    pub waiting: usize,
    /// Since when the first of them does.
    pub waiting_since: Option<Timestamp>,
    /// What the fleet costs, in dollars an hour.
    pub hourly: f64,
    /// What it has cost.
    pub spent: f64,
    /// What a fleet of the largest size so far would have cost, all of it on demand.
    pub peak_spent: f64,
    /// How long its machines ran together, in hours.
    pub node_hours: f64,
    /// Pods that found no node at first, and how long they waited.
    pub waits: Waits,
    /// Which controller leads.
    pub leader: Option<usize>,
    /// What is wrong just now.
    pub faults: BTreeSet<Fault>,
    /// What did not hold so far.
    pub violations: Vec<Violation>,
    /// How many lines the log has, and the latest of them.
    pub log: (u64, Vec<String>),
}

impl Picture {
    /// Takes a picture.
    #[must_use]
    pub fn of(universe: &Universe) -> Self {
        universe.with(picture)
    }
}

fn picture(truth: &mut Truth) -> Picture {
    let mut machines: Vec<MachinePicture> =
        truth.ec2.living().filter(|machine| machine.is_ours(&truth.ec2.cluster)).map(|it| one(truth, it)).collect();
    machines.sort_by(|a, b| a.zone.cmp(&b.zone).then_with(|| a.name.cmp(&b.name)));
    let serving = truth.kubernetes.nodes().values().filter(|node| node.is_ready() && !node.cordoned && node.pool().is_some());
    let capacity = serving.map(|node| node.allocatable.cpu.cores()).sum();
    let demand = truth.workloads.iter().map(|workload| workload.curve.at(truth.now, truth.phase)).sum();
    let since: Vec<Timestamp> = truth.kubernetes.waiting().filter_map(|pod| pod.unschedulable_since).collect();
    let waiting = since.len();
    let ours = || truth.ec2.machines.values().filter(|machine| machine.pool().is_some());
    let life = |machine: &super::super::ec2::Machine| machine.ended.unwrap_or(truth.now).saturating_sub(machine.launched);
    Picture {
        elapsed: truth.now,
        wall: truth.wall(),
        machines,
        demand,
        capacity,
        running: truth.deployed.len() - waiting.min(truth.deployed.len()),
        waiting,
        waiting_since: since.into_iter().min(),
        hourly: truth.ec2.hourly().dollars(),
        spent: ours().map(|machine| machine.cost(truth.now)).sum(),
        peak_spent: truth.peak_hourly * truth.now.as_secs_f64() / 3600.0,
        node_hours: ours().map(|machine| life(machine).as_secs_f64() / 3600.0).sum(),
        waits: truth.waits,
        leader: truth.leader(),
        faults: truth.faults.active(),
        violations: truth.oracle.violations().to_vec(),
        log: (truth.log.digest().1, truth.log.lines().map(ToOwned::to_owned).collect()),
    }
}

fn one(truth: &Truth, machine: &super::super::ec2::Machine) -> MachinePicture {
    let node = truth.kubernetes.node_of(&machine.id);
    let condition = match node {
        _ if machine.reclaimed_at.is_some() => Condition::Interrupted,
        None => Condition::Booting,
        Some(node) if !node.is_ready() => Condition::NotReady,
        Some(node) if node.cordoned => Condition::Cordoned,
        Some(_) => Condition::Ready,
    };
    MachinePicture {
        name: node.map_or_else(|| machine.id.to_string(), |node| node.name.to_string()),
        zone: machine.zone.clone(),
        market: machine.market,
        kind: machine.kind.name,
        condition,
        cpu: node.and_then(|node| truth.prometheus.cpu_of(&node.name)).unwrap_or(0.0),
        pods: node.map_or(0, |node| truth.kubernetes.on(&node.name).filter(|pod| moves_in_a_drain(pod)).count()),
    }
}
