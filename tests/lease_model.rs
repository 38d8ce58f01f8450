//! The lease and the fence as a model, searched through: at most one launch for one need, an epoch that never falls,
//! no effect by an instance that another one has replaced. Without the fence the search finds the bug.
//!
//! Time passes in ticks of which a lease has four. A holder trusts half a lease, counted on its own
//! clock from before its last successful heartbeat; a rival waits a whole one. Clocks run at one or
//! at two ticks a tick. An instance may be stopped at any moment and go on later without knowing;
//! a write may be lost, or land with its answer lost; a launch may be under way for a tick when its
//! sender is stopped or replaced. Whoever leads reads the journal and repeats what is in it with the
//! same token.

use stateright::{Checker, Model, Property};

/// A rival waits so long without seeing a change.
const LEASE: u8 = 4;
/// A holder trusts this much of it.
const TRUSTED: u8 = LEASE / 2;
/// The world is searched up to here.
const MOST_EPOCHS: u8 = 3;

/// One instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Instance {
    /// It stands still.
    stopped: bool,
    /// What it holds: its epoch, and how long it still trusts it.
    holds: Option<(u8, u8)>,
    /// What it has seen of the lock and the epoch, and for how long.
    seen: Option<((Option<Lock>, u8), u8)>,
    /// The operation that it has read from the journal or written there.
    knows: Option<u8>,
}

/// The lock's record: its owner, and what changes with each heartbeat and each taking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Lock {
    owner: u8,
    version: u8,
}

/// A launch that is under way: who sent it, in which epoch, with which token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Launch {
    sender: u8,
    epoch: u8,
    token: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    instances: Vec<Instance>,
    lock: Option<Lock>,
    /// The lock was given back, or never taken.
    free: bool,
    epoch: u8,
    highest: u8,
    beats: u8,
    stops: u8,
    /// The one operation that the need takes, once it is journalled: the epoch that began it is its token.
    journal: Option<u8>,
    flying: Option<Launch>,
    /// Tokens that have brought a machine.
    bought: Vec<u8>,
    /// A launch took effect although its sender had been replaced by one that might act.
    overtaken: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Tick,
    Stop(u8),
    GoOn(u8),
    /// A holder's heartbeat: it arrives and its answer does, it arrives only, it is lost.
    Beat(u8, Fate),
    /// A rival looks at the lock, and takes it if it may.
    Look(u8, Fate),
    /// A holder reads the journal, and writes the operation if there is none.
    Journal(u8, Fate),
    /// A holder sends the launch.
    Send(u8),
    /// The launch arrives.
    Arrive,
    /// Somebody removes the lock's record.
    Remove,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fate {
    Answered,
    AnswerLost,
    Lost,
}

const FATES: [Fate; 3] = [Fate::Answered, Fate::AnswerLost, Fate::Lost];

/// What is searched.
#[derive(Clone)]
struct Protocol {
    /// How fast each instance's clock runs.
    rates: Vec<u8>,
    /// Writes to the journal ask who holds the lock, and no launch is sent that the lease might not outlast.
    fenced: bool,
    /// A lock that nobody gave back is waited for before it is taken.
    waits_for_vanished: bool,
    /// Two times without a record are told apart by the epoch.
    knows_epochs: bool,
    /// The search goes no further than so many heartbeats …
    beats: u8,
    /// … and so many stops.
    stops: u8,
}

impl Protocol {
    fn holder(world: &World, who: u8) -> Option<(u8, u8)> {
        let instance = &world.instances[usize::from(who)];
        if instance.stopped { None } else { instance.holds }
    }

    fn take(world: &mut World, who: u8, fate: Fate) {
        if fate == Fate::Lost {
            return;
        }
        world.epoch += 1;
        world.highest = world.highest.max(world.epoch);
        world.lock = Some(Lock { owner: who, version: 16 * world.epoch });
        world.free = false;
        if fate == Fate::Answered {
            let instance = &mut world.instances[usize::from(who)];
            *instance = Instance { holds: Some((world.epoch, TRUSTED)), seen: None, knows: None, stopped: false };
        }
    }

    fn look(&self, world: &mut World, who: u8, fate: Fate) {
        if world.free {
            return Self::take(world, who, fate);
        }
        let lock = (world.lock, if self.knows_epochs { world.epoch } else { 0 });
        if world.lock.is_none() && !self.waits_for_vanished {
            return Self::take(world, who, fate);
        }
        let instance = &mut world.instances[usize::from(who)];
        match instance.seen {
            Some((seen, waited)) if seen == lock => {
                if waited >= LEASE {
                    Self::take(world, who, fate);
                }
            }
            _ => instance.seen = Some((lock, 0)),
        }
    }

    fn beat(world: &mut World, who: u8, epoch: u8, fate: Fate) {
        let held = world.lock.is_some_and(|lock| lock.owner == who) && world.epoch == epoch;
        world.beats += 1;
        match (held, fate) {
            (true, Fate::Answered | Fate::AnswerLost) => {
                if let Some(lock) = &mut world.lock {
                    lock.version += 1;
                }
                if fate == Fate::Answered {
                    world.instances[usize::from(who)].holds = Some((epoch, TRUSTED));
                }
            }
            (false, Fate::Answered) => {
                world.instances[usize::from(who)] = Instance { holds: None, seen: None, knows: None, stopped: false }
            }
            (false, Fate::AnswerLost) | (_, Fate::Lost) => {}
        }
    }

    fn journal(&self, world: &mut World, who: u8, epoch: u8, fate: Fate) {
        if fate == Fate::Lost {
            return;
        }
        let held = world.lock.is_some_and(|lock| lock.owner == who) && world.epoch == epoch;
        if self.fenced && !held {
            if fate == Fate::Answered {
                world.instances[usize::from(who)] = Instance { holds: None, seen: None, knows: None, stopped: false };
            }
            return;
        }
        let token = match world.journal {
            Some(token) if self.fenced => token,
            // Without the fence it may be written from what was read long ago.
            Some(_) | None => *world.journal.insert(epoch),
        };
        if fate == Fate::Answered {
            world.instances[usize::from(who)].knows = Some(token);
        }
    }

    fn tick(&self, world: &mut World) {
        for (instance, rate) in world.instances.iter_mut().zip(&self.rates) {
            // A stopped instance's clock runs on: that is how it knows, once it goes on.
            if let Some((_, left)) = &mut instance.holds {
                *left = left.saturating_sub(*rate);
            }
            if let Some((_, waited)) = &mut instance.seen {
                *waited = (*waited + rate).min(LEASE);
            }
        }
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let instance = Instance { stopped: false, holds: None, seen: None, knows: None };
        vec![World {
            instances: vec![instance; self.rates.len()],
            lock: None,
            free: true,
            epoch: 0,
            highest: 0,
            beats: 0,
            stops: 0,
            journal: None,
            flying: None,
            bought: Vec::new(),
            overtaken: false,
        }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        // A launch that is under way arrives before much more happens.
        if world.flying.is_some() {
            steps.push(Step::Arrive);
        } else {
            steps.push(Step::Tick);
        }
        if world.lock.is_some() {
            steps.push(Step::Remove);
        }
        for (who, instance) in (0_u8..).zip(&world.instances) {
            if instance.stopped {
                steps.push(Step::GoOn(who));
                continue;
            }
            if world.stops < self.stops {
                steps.push(Step::Stop(who));
            }
            match instance.holds {
                Some((_, left)) => {
                    steps.extend(FATES.map(|fate| Step::Beat(who, fate)));
                    let trusts = left >= 1 || !self.fenced;
                    if instance.knows.is_none() && trusts {
                        steps.extend(FATES.map(|fate| Step::Journal(who, fate)));
                    }
                    if instance.knows.is_some() && trusts && world.flying.is_none() {
                        steps.push(Step::Send(who));
                    }
                }
                None => steps.extend(FATES.map(|fate| Step::Look(who, fate))),
            }
        }
    }

    fn next_state(&self, last: &World, step: Step) -> Option<World> {
        let mut world = last.clone();
        match step {
            Step::Tick => self.tick(&mut world),
            Step::Stop(who) => {
                world.instances[usize::from(who)].stopped = true;
                world.stops += 1;
            }
            Step::GoOn(who) => world.instances[usize::from(who)].stopped = false,
            Step::Beat(who, fate) => Self::beat(&mut world, who, Self::holder(last, who)?.0, fate),
            Step::Look(who, fate) => self.look(&mut world, who, fate),
            Step::Journal(who, fate) => self.journal(&mut world, who, Self::holder(last, who)?.0, fate),
            Step::Send(who) => {
                let (epoch, _) = Self::holder(last, who)?;
                let token = last.instances[usize::from(who)].knows?;
                world.flying = Some(Launch { sender: who, epoch, token });
            }
            Step::Arrive => {
                let launch = world.flying.take()?;
                // The same token has one effect.
                if !world.bought.contains(&launch.token) {
                    world.bought.push(launch.token);
                    world.overtaken |= launch.epoch < world.epoch;
                }
                self.tick(&mut world);
            }
            Step::Remove => world.lock = None,
        }
        (world != *last).then_some(world)
    }

    fn within_boundary(&self, world: &World) -> bool {
        world.epoch <= MOST_EPOCHS && world.beats <= self.beats
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("at most one launch has an effect", |_, world: &World| world.bought.len() <= 1),
            Property::always("the epoch never falls", |_, world: &World| world.epoch == world.highest),
            Property::always("nobody acts who has been replaced", |_, world: &World| !world.overtaken),
            Property::sometimes("a launch has an effect", |_, world: &World| !world.bought.is_empty()),
            Property::sometimes("somebody takes over", |_, world: &World| world.epoch >= 2),
        ]
    }
}

const SOUND: Protocol = Protocol { rates: Vec::new(), fenced: true, waits_for_vanished: true, knows_epochs: true, beats: 2, stops: 2 };

/// Searches for a step after which the property does not hold any more.
fn breaks(protocol: Protocol, property: &'static str) {
    let checker = protocol.checker().threads(2).spawn_bfs().join();
    assert!(checker.discovery(property).is_some(), "the search has not found that {property} does not hold");
}

fn holds(protocol: Protocol) -> usize {
    let checker = protocol.checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    checker.unique_state_count()
}

#[test]
fn two_instances_never_act_at_once() {
    let states = holds(Protocol { rates: vec![1, 1], ..SOUND });
    println!("{states} states");
    assert!(states > 100_000, "the search has seen only {states} states");
}

#[test]
fn three_instances_never_act_at_once() {
    let states = holds(Protocol { rates: vec![1, 1, 1], beats: 1, stops: 1, ..SOUND });
    println!("{states} states");
    assert!(states > 100_000, "the search has seen only {states} states");
}

#[test]
fn a_clock_that_runs_twice_as_fast_does_no_harm_to_holder_or_rival() {
    for rates in [[2, 1], [1, 2]] {
        println!("{} states", holds(Protocol { rates: rates.to_vec(), ..SOUND }));
    }
}

#[test]
fn without_the_fence_the_search_finds_two_launches() {
    breaks(Protocol { rates: vec![1, 1], fenced: false, ..SOUND }, "at most one launch has an effect");
}

#[test]
fn a_removed_lock_that_is_taken_at_once_lets_two_act() {
    breaks(Protocol { rates: vec![1, 1], waits_for_vanished: false, ..SOUND }, "nobody acts who has been replaced");
}

#[test]
fn a_lock_that_is_removed_twice_must_not_be_taken_for_one_that_is_gone_for_long() {
    breaks(Protocol { rates: vec![1, 1], knows_epochs: false, ..SOUND }, "nobody acts who has been replaced");
}
