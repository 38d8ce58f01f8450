//! How each fault begins and ends in the world.

use super::super::dynamodb::TODAY;
use super::super::ec2::Kind;
use super::super::universe::{Crash, Event, Truth};
use super::{Fault, Request, Undo};
use crate::model::instance::CLUSTER_TAG;
use crate::model::scheduling::{HOSTNAME_LABEL, Labels};
use crate::model::{InstanceId, Market, NodeName, OfferKey};
use crate::ports::Notice;
use jiff::SignedDuration;
use rand::RngExt;
use rand::seq::SliceRandom;
use std::collections::BTreeMap;
use std::time::Duration;

/// A node that flaps changes its mind this often.
const FLAP: Duration = Duration::from_secs(50);
/// The share of nodes that fall ill together.
const ILL: f64 = 0.45;

impl Truth {
    /// Lets a fault begin.
    pub fn fault_begins(&mut self, index: usize) {
        let planned = self.faults.planned(index);
        self.note(format_args!("fault {} begins", planned.fault));
        *self.faults.active.entry(planned.fault).or_default() += 1;
        self.after(planned.lasts, Event::FaultEnds(index));
        if let Some(undo) = self.strike(planned.fault, index) {
            self.faults.undo.insert(index, undo);
        }
    }

    /// Lets a fault end.
    pub fn fault_ends(&mut self, index: usize) {
        let fault = self.faults.planned(index).fault;
        self.note(format_args!("fault {fault} ends"));
        if let Some(times) = self.faults.active.get_mut(&fault) {
            *times -= 1;
            if *times == 0 {
                self.faults.active.remove(&fault);
            }
        }
        self.faults.last = self.now;
        if let Some(undo) = self.faults.undo.remove(&index) {
            self.relent(undo);
        }
    }

    #[expect(clippy::too_many_lines, reason = "the catalogue is long, and each fault has its line")]
    fn strike(&mut self, fault: Fault, index: usize) -> Option<Undo> {
        match fault {
            Fault::NetworkBroke | Fault::ManyUnready => return Some(self.fall_ill(fault)),
            Fault::StaleList | Fault::WatchGap => {
                let view = self.kubernetes.view();
                for client in self.clients.iter_mut().filter(|client| client.stale_view.is_none()) {
                    client.stale_view = Some(view.clone());
                }
                return Some(Undo::Watches);
            }
            Fault::CrashBeforeLaunch => return Some(self.arm(fault, "CreateFleet", false)),
            Fault::CrashAfterLaunch => return Some(self.arm(fault, "CreateFleet", true)),
            Fault::CrashInDrain => return Some(self.arm(fault, "evict", true)),
            Fault::Killed => {
                if let Some(leader) = self.leader() {
                    self.faults.hit(fault);
                    self.kill(leader);
                }
            }
            Fault::ZoneFailover => {
                let zone = self.ec2.zones.first().cloned()?;
                return Some(self.exhaust(|key| key.zone == zone));
            }
            Fault::CapacityInOneOffer => {
                // The one that was bought last: it will be asked for again.
                let ours = self.ec2.machines.values().filter(|machine| machine.pool().is_some());
                let newest = ours.max_by_key(|machine| (machine.launched, &machine.id))?;
                let (name, zone, market) = (newest.kind.name, newest.zone.clone(), newest.market);
                let chosen = OfferKey { instance_type: name.into(), zone, market };
                return Some(self.exhaust(|key| *key == chosen));
            }
            Fault::NoSpotAnywhere => return Some(self.exhaust(|key| key.market == Market::Spot)),
            Fault::DescribeLag => {
                self.ec2.lag = Duration::from_secs(self.random.strikes.random_range(15..50));
                return Some(Undo::Lag);
            }
            Fault::PartialFill => {
                self.ec2.halves_requests = true;
                return Some(Undo::Fill);
            }
            Fault::VcpuQuota => {
                self.ec2.quota = Some(0);
                return Some(Undo::Quota);
            }
            Fault::FlappingNode => {
                let name = self.some_workers(1).into_iter().next()?;
                self.after(FLAP, Event::Flaps(name, index));
            }
            Fault::AddressRecycled => self.recycle_address(),
            Fault::OtherActor | Fault::InstanceGone => {
                for name in self.some_workers(1) {
                    let Some(id) = self.kubernetes.nodes()[&name].instance.clone() else { continue };
                    self.faults.hit(fault);
                    self.note(format_args!("somebody else terminates {id}"));
                    self.note_loss(&id);
                    self.ends(&id);
                }
            }
            Fault::NodeObjectGone => {
                for name in self.some_workers(1) {
                    self.faults.hit(fault);
                    self.note(format_args!("somebody deletes the object of {name}"));
                    if let Some(id) = self.kubernetes.nodes().get(&name).and_then(|node| node.instance.clone()) {
                        self.note_loss(&id);
                    }
                    self.removes_node(&name);
                }
            }
            Fault::SpotStorm => self.storm(),
            Fault::ForgedMessage => self.forge(),
            Fault::LeaderPaused => {
                let leader = self.leader()?;
                self.faults.hit(fault);
                self.clients[leader].ice.freeze();
                return Some(Undo::Thaw(leader));
            }
            Fault::WallClockJumps => {
                let hours = if self.random.strikes.random_bool(0.5) { 1 } else { -1 };
                self.faults.hit(fault);
                self.clients.iter_mut().for_each(|client| client.clock.set_wrong_by(SignedDuration::from_hours(hours)));
                return Some(Undo::WallClocks);
            }
            Fault::ClockRunsFast => {
                let now = self.now;
                let client = self.random.strikes.random_range(0..self.clients.len().max(1));
                self.faults.hit(fault);
                self.clients.get_mut(client)?.clock.run_at(2.0, now);
                return Some(Undo::Rate(client));
            }
            Fault::LockDeleted => {
                if self.table.lose_lock() {
                    self.faults.hit(fault);
                }
            }
            Fault::Partition => {
                let leader = self.leader()?;
                self.clients[leader].cut_off = true;
                return Some(Undo::Reconnect(leader));
            }
            Fault::BadReload => self.ask(fault, Request::BadReload),
            Fault::AdminFlood => self.ask(fault, Request::Flood),
            Fault::PauseInOperation => {
                self.ask(fault, Request::Pause);
                return Some(Undo::Resume);
            }
            Fault::RestartWhilePaused => {
                self.ask(fault, Request::Pause);
                if let Some(leader) = self.leader() {
                    self.clients[leader].crashes.push(Crash {
                        call: None,
                        from: Duration::ZERO,
                        after: 40,
                        with_effect: false,
                        fault: None,
                    });
                }
                return Some(Undo::Resume);
            }
            Fault::TagStripped => self.strip_tag(),
            Fault::VersionSkew => self.upgrade_one(),
            Fault::BudgetNever => {
                self.write_budgets();
                return Some(Undo::Budgets);
            }
            Fault::PrometheusDown
            | Fault::EmptyVector
            | Fault::NotANumber
            | Fault::StaleSample
            | Fault::PartialScrape
            | Fault::OscillatingLoad
            | Fault::PrometheusRestart
            | Fault::HugeAnswer
            | Fault::ApiServerDown
            | Fault::PatchConflict
            | Fault::LaunchLanded
            | Fault::TokenMismatch
            | Fault::TerminateNotFound
            | Fault::RequestLimit
            | Fault::AccessDenied
            | Fault::NeverJoins
            | Fault::HostnameReused
            | Fault::RemovalRepeated
            | Fault::StuckTerminating
            | Fault::DuplicateMessage
            | Fault::LateMessage
            | Fault::QueueOutage
            | Fault::UndeletableMessage
            | Fault::LedgerOutage
            | Fault::RenewalLanded
            | Fault::MetadataDown => {}
        }
        None
    }

    fn relent(&mut self, undo: Undo) {
        let now = self.now;
        match undo {
            Undo::Capacity(keys) => keys.iter().for_each(|key| {
                self.ec2.capacity.remove(key);
            }),
            Undo::Quota => self.ec2.quota = None,
            Undo::Fill => self.ec2.halves_requests = false,
            Undo::Lag => self.ec2.lag = Duration::ZERO,
            Undo::Health(names) => names.iter().for_each(|name| self.heal(name)),
            Undo::Budgets => self.write_budgets(),
            Undo::Thaw(client) => self.clients[client].ice.thaw(),
            Undo::Reconnect(client) => self.clients[client].cut_off = false,
            Undo::Rate(client) => self.clients[client].clock.run_at(1.0, now),
            Undo::WallClocks => self.clients.iter_mut().for_each(|client| client.clock.set_wrong_by(SignedDuration::ZERO)),
            Undo::Watches => self.clients.iter_mut().for_each(|client| client.stale_view = None),
            Undo::Crashes(fault) => self.clients.iter_mut().for_each(|client| client.crashes.retain(|crash| crash.fault != Some(fault))),
            Undo::Resume => self.faults.requests.push(Request::Resume),
        }
        self.tell_changed();
        self.tell_thaw();
    }

    /// Lets a flapping node change its mind, until the fault is over.
    pub fn flaps(&mut self, name: &NodeName, index: usize) {
        let planned = self.faults.planned(index);
        let over = self.now >= planned.at + planned.lasts;
        if over {
            self.heal(name);
            return;
        }
        let Some(ready) = self.kubernetes.nodes().get(name).map(crate::model::Node::is_ready) else { return };
        if self.lives(name) {
            self.faults.hit(Fault::FlappingNode);
            self.set_ready(name, !ready);
        }
        self.after(FLAP, Event::Flaps(name.clone(), index));
    }

    /// Gives the controller that holds the lock.
    pub fn leader(&self) -> Option<usize> {
        let owner = self.table.owner()?;
        self.clients.iter().position(|client| client.is_alive() && client.owner == owner)
    }

    fn arm(&mut self, fault: Fault, call: &'static str, with_effect: bool) -> Undo {
        for client in &mut self.clients {
            client.crashes.push(Crash { call: Some(call), from: Duration::ZERO, after: 0, with_effect, fault: Some(fault) });
        }
        Undo::Crashes(fault)
    }

    fn ask(&mut self, fault: Fault, request: Request) {
        self.faults.hit(fault);
        self.faults.requests.push(request);
        self.tell_thaw();
    }

    fn exhaust(&mut self, hits: impl Fn(&OfferKey) -> bool) -> Undo {
        let keys: Vec<OfferKey> = self.ec2.offers().iter().map(|offer| offer.key.clone()).filter(|key| hits(key)).collect();
        for key in &keys {
            self.ec2.capacity.insert(key.clone(), 0);
        }
        Undo::Capacity(keys)
    }

    /// Picks workers of ours that are Ready.
    fn some_workers(&mut self, number: usize) -> Vec<NodeName> {
        let mut names: Vec<NodeName> = self
            .kubernetes
            .nodes()
            .values()
            .filter(|node| node.is_ready() && !node.control_plane && node.pool().is_some() && node.instance.is_some())
            .map(|node| node.name.clone())
            .collect();
        names.shuffle(&mut self.random.strikes);
        names.truncate(number);
        names
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a fleet is small")]
    fn fall_ill(&mut self, fault: Fault) -> Undo {
        let workers = self.kubernetes.nodes().values().filter(|node| !node.control_plane && node.pool().is_some()).count();
        let number = ((workers as f64) * ILL).ceil() as usize;
        let names = self.some_workers(number);
        for name in &names {
            self.faults.hit(fault);
            self.broken.insert(name.clone());
            self.set_ready(name, false);
        }
        Undo::Health(names)
    }

    /// Tells whether a node's machine lives.
    pub(in super::super) fn lives(&self, name: &NodeName) -> bool {
        let instance = self.kubernetes.nodes().get(name).and_then(|node| node.instance.as_ref());
        instance.and_then(|id| self.ec2.machines.get(id)).is_some_and(super::super::ec2::Machine::lives)
    }

    fn heal(&mut self, name: &NodeName) {
        self.broken.remove(name);
        if self.lives(name) {
            self.set_ready(name, true);
        }
    }

    /// A worker of ours ends, and a stranger registers under its name.
    fn recycle_address(&mut self) {
        for name in self.some_workers(1) {
            let Some(id) = self.kubernetes.nodes()[&name].instance.clone() else { continue };
            let Some(zone) = self.ec2.machines.get(&id).map(|machine| machine.zone.clone()) else { continue };
            self.faults.hit(Fault::AddressRecycled);
            self.note_loss(&id);
            self.ends(&id);
            self.removes_node(&name);
            let stranger = self.stranger(zone);
            let labels = Labels::from([(HOSTNAME_LABEL.to_owned(), name.to_string())]);
            let Some(kind) = Kind::named("m5.large") else { continue };
            self.note(format_args!("{stranger} of somebody else takes the name {name}"));
            let node = self.new_node(name, Some(stranger), kind, labels, Vec::new());
            self.adds_node(node);
        }
    }

    /// Lets a new machine register under the name of a worker that is there, while that fault lasts.
    pub fn borrows_name(&mut self, id: &InstanceId) {
        if !self.faults.is_on(Fault::HostnameReused) {
            return;
        }
        let worker = |node: &&crate::model::Node| !node.control_plane && node.pool().is_some();
        let workers: Vec<_> = self.kubernetes.nodes().values().filter(worker).collect();
        // Rather the name of one that is gone.
        let dead = workers.iter().find(|node| !self.lives(&node.name));
        if let Some(name) = dead.or(workers.first()).map(|node| node.name.clone()) {
            self.faults.lend_name(id, name);
        }
    }

    /// Starts a machine of somebody else.
    pub fn stranger(&mut self, zone: crate::model::Zone) -> InstanceId {
        let now = self.now;
        let kind = Kind::named("m5.large").unwrap_or(super::super::ec2::KINDS[0]);
        let tags = BTreeMap::from([("Project".to_owned(), "something-else".to_owned())]);
        let id = self.ec2.add(kind, zone, Market::OnDemand, kind.price, tags, now);
        self.oracle.protect(&id);
        id
    }

    fn storm(&mut self) {
        let mut spot: Vec<InstanceId> = self
            .ec2
            .living()
            .filter(|machine| machine.market == Market::Spot && machine.reclaimed_at.is_none())
            .map(|it| it.id.clone())
            .collect();
        spot.shuffle(&mut self.random.strikes);
        spot.truncate(spot.len().div_ceil(2));
        for id in spot {
            self.faults.hit(Fault::SpotStorm);
            self.reclaim(&id);
        }
    }

    /// Puts messages into the queue that are none, or about instances that they are not about.
    fn forge(&mut self) {
        self.faults.hit(Fault::ForgedMessage);
        let now = self.now;
        self.messages.send(Err("the message is no EventBridge event".into()), now);
        let (at, far) = (self.wall(), self.wall() + SignedDuration::from_hours(24 * 365));
        let zone = self.ec2.zones[0].clone();
        let stranger = self.stranger(zone);
        let mut targets = vec![stranger, "i-00000000000000000".into()];
        targets.extend(self.ec2.living().filter(|it| it.market == Market::OnDemand).map(|it| it.id.clone()).take(1));
        for instance in targets {
            self.messages.send(Ok(Notice::SpotInterruption { instance: instance.clone(), at }), now);
            self.messages.send(Ok(Notice::SpotInterruption { instance: instance.clone(), at: far }), now);
            self.messages.send(Ok(Notice::StateChange { instance, state: "terminated".into() }), now);
        }
        self.tell_message();
    }

    fn strip_tag(&mut self) {
        for name in self.some_workers(1) {
            let Some(id) = self.kubernetes.nodes()[&name].instance.clone() else { continue };
            self.faults.hit(Fault::TagStripped);
            self.disown(&id);
        }
    }

    /// Takes the cluster's tag off a machine: from now on it is somebody else's.
    pub fn disown(&mut self, id: &InstanceId) {
        if let Some(machine) = self.ec2.machines.get_mut(id) {
            machine.tags.remove(CLUSTER_TAG);
            self.oracle.protect(id);
            self.note(format_args!("somebody takes a tag off {id}"));
        }
    }

    /// One controller comes back as a newer build, and the one that leads is killed.
    fn upgrade_one(&mut self) {
        let leader = self.leader();
        let other = (0..self.clients.len()).find(|client| Some(*client) != leader);
        let upgraded = other.or(leader);
        if let Some(client) = upgraded {
            self.faults.hit(Fault::VersionSkew);
            self.clients[client].build = TODAY + 1;
            self.kill(client);
            if let Some(leader) = leader.filter(|leader| *leader != client) {
                self.clients[leader].crashes.push(Crash { call: None, from: Duration::ZERO, after: 200, with_effect: false, fault: None });
            }
        }
    }
}
