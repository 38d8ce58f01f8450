//! The lease and the fence as a model, searched through: at most one launch for one need, an epoch that every taking
//! raises, no effect by an instance that another one has replaced. Each part of the protocol is also taken out alone,
//! and the search finds what goes wrong without it.
//!
//! Time passes in ticks of which a lease has four. A holder trusts half a lease, counted on its own
//! clock from before its last successful heartbeat; a rival waits a whole one. Clocks run at one or
//! at two ticks a tick. No step is ever due: an instance that is stopped and goes on later without
//! knowing is one that makes no step for a while, and its clock runs on.
//!
//! A rival looks at the lock in one step and takes it in a later one, whatever happens in between. A
//! write may be lost, which is no step at all, or land with its answer lost; one to the journal may
//! also land as late as it likes. The lock's record may vanish at any moment. A launch may be under
//! way for a tick when its sender is stopped or replaced. Whoever leads reads the journal and repeats
//! what is in it with the same token. Giving the lock back is left out.

use stateright::{Checker, HasDiscoveries, Model, Property};

/// A rival waits so long without seeing a change.
const LEASE: u8 = 4;
/// A holder trusts this much of it.
const TRUSTED: u8 = LEASE / 2;
/// The world is searched up to here.
const MOST_TAKINGS: u8 = 3;

const ONCE: &str = "at most one launch has an effect";
const RISES: &str = "every taking raises the epoch";
const REPLACED: &str = "nobody acts who has been replaced";

/// One instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Instance {
    /// It has seen nothing that counts.
    Idle,
    /// It has seen this unchanged for so long.
    Watches { seen: Sight, waited: u8 },
    /// It has looked at this and may take the lock; it has yet to do so.
    Claims { looked_at: Sight },
    /// It holds the lock, as far as it knows, and still trusts that for so long. It knows the
    /// operation once it has read it from the journal or written it there.
    Holds { epoch: u8, left: u8, knows: Option<u8> },
}

/// What a look at lock and epoch shows: the version of the lock's record, if there is one, and the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Sight {
    version: Option<u8>,
    epoch: u8,
}

/// What a holder writes in the name of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Grant {
    owner: u8,
    epoch: u8,
}

/// The lock's record: whose it is, and what changes with each heartbeat and each taking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Lock {
    grant: Grant,
    version: u8,
}

/// A launch that is under way: in which epoch it was sent, with which token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Launch {
    epoch: u8,
    token: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    instances: Vec<Instance>,
    lock: Option<Lock>,
    /// What is on record.
    epoch: u8,
    /// The highest epoch in which the lock has been taken.
    highest: u8,
    /// How often it has been taken.
    takings: u8,
    /// How many heartbeats have landed.
    beats: u8,
    /// The one operation that the need takes, once it is journalled: the epoch that began it is its token.
    journal: Option<u8>,
    /// A write to the journal that its sender has given up, and that may yet land.
    late: Option<Grant>,
    flying: Option<Launch>,
    /// Tokens that have brought a machine.
    bought: Vec<u8>,
    /// A launch took effect although its sender had been replaced by one that might act.
    overtaken: bool,
}

impl World {
    fn sight(&self) -> Sight {
        Sight { version: self.lock.map(|lock| lock.version), epoch: self.epoch }
    }

    fn is_held(&self, grant: Grant) -> bool {
        self.lock.is_some_and(|lock| lock.grant == grant)
    }

    /// Writes the lock's record, with a version that none had before.
    fn write_lock(&mut self, grant: Grant) {
        self.lock = Some(Lock { grant, version: self.takings + self.beats });
    }

    fn grant(&self, who: u8) -> Option<Grant> {
        match self.instances[usize::from(who)] {
            Instance::Holds { epoch, .. } => Some(Grant { owner: who, epoch }),
            Instance::Idle | Instance::Watches { .. } | Instance::Claims { .. } => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Tick,
    /// A rival looks at lock and epoch.
    Look(u8),
    /// A rival that may takes the lock, if it still is as it was looked at.
    Take(u8, Fate),
    /// A holder's heartbeat.
    Beat(u8, Fate),
    /// A holder reads the journal, and writes the operation if there is none.
    Journal(u8, Fate),
    /// A holder has read that there is none, and gives up its write before that has landed.
    Delay(u8),
    /// That write lands after all.
    Land,
    /// A holder sends the launch.
    Send(u8),
    /// The launch arrives.
    Arrive,
    /// Somebody removes the lock's record.
    Remove,
}

/// What becomes of the answer to a write that lands, or is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fate {
    Answered,
    AnswerLost,
}

const FATES: [Fate; 2] = [Fate::Answered, Fate::AnswerLost];

/// What is searched.
#[derive(Clone)]
struct Protocol {
    /// How fast each instance's clock runs.
    rates: Vec<u8>,
    /// The search goes no further than so many heartbeats that land.
    beats: u8,
    /// A write to the journal may land as late as it likes.
    late: bool,
    /// The part that is taken out.
    without: Option<Part>,
}

/// A part of the protocol without which something goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Before a holder sends a write to the journal or a launch, it looks whether its lease outlasts that.
    Permit,
    /// A write to the journal asks, where it lands, who holds the lock and in which epoch.
    Fence,
    /// A lock that nobody gave back is waited for before it is taken.
    WaitForVanished,
    /// Two times without a record are told apart by the epoch.
    EpochOfVanished,
    /// The epoch has a record of its own, which stays when the lock's is gone.
    EpochRecord,
    /// A take raises the epoch that was looked at, and no other. Without, it reads the epoch once more.
    SameEpoch,
    /// A take replaces the version that was looked at, and no other.
    SameVersion,
    /// A take that is to replace a record fails if there is none any more.
    SameRecord,
}

impl Protocol {
    fn has(&self, part: Part) -> bool {
        self.without != Some(part)
    }

    fn look(&self, world: &mut World, who: u8) {
        let now = world.sight();
        let free = world.takings == 0 || (world.lock.is_none() && !self.has(Part::WaitForVanished));
        let same = |seen: Sight| seen.version == now.version && (seen.epoch == now.epoch || !self.has(Part::EpochOfVanished));
        let instance = &mut world.instances[usize::from(who)];
        let unchanged_for = match *instance {
            Instance::Watches { seen, waited } if same(seen) => Some(waited),
            Instance::Idle | Instance::Watches { .. } | Instance::Claims { .. } | Instance::Holds { .. } => None,
        };
        if free || unchanged_for.is_some_and(|waited| waited >= LEASE) {
            *instance = Instance::Claims { looked_at: now };
        } else if unchanged_for.is_none() {
            *instance = Instance::Watches { seen: now, waited: 0 };
        }
    }

    fn take(&self, world: &mut World, who: u8, looked_at: Sight, fate: Fate) {
        let lands = self.is_as_looked_at(world.sight(), looked_at);
        if lands {
            let last = if self.has(Part::SameEpoch) { looked_at.epoch } else { world.epoch };
            world.epoch = last + 1;
            world.highest = world.highest.max(world.epoch);
            world.takings += 1;
            world.write_lock(Grant { owner: who, epoch: world.epoch });
        }
        let knows_it = lands && fate == Fate::Answered;
        world.instances[usize::from(who)] =
            if knows_it { Instance::Holds { epoch: world.epoch, left: TRUSTED, knows: None } } else { Instance::Idle };
    }

    fn is_as_looked_at(&self, now: Sight, looked_at: Sight) -> bool {
        let gone = now.version.is_none() && !self.has(Part::SameRecord);
        let version = now.version == looked_at.version || gone || !self.has(Part::SameVersion);
        version && (now.epoch == looked_at.epoch || !self.has(Part::SameEpoch))
    }

    fn beat(world: &mut World, grant: Grant, fate: Fate) {
        let held = world.is_held(grant);
        if held {
            world.beats += 1;
            world.write_lock(grant);
        }
        if fate == Fate::Answered {
            let instance = &mut world.instances[usize::from(grant.owner)];
            *instance = match *instance {
                Instance::Holds { epoch, knows, .. } if held => Instance::Holds { epoch, left: TRUSTED, knows },
                Instance::Idle | Instance::Watches { .. } | Instance::Claims { .. } | Instance::Holds { .. } => Instance::Idle,
            };
        }
    }

    fn journal(&self, world: &mut World, grant: Grant, fate: Fate) {
        let allowed = world.is_held(grant) || !self.has(Part::Fence);
        let token = allowed.then(|| *world.journal.get_or_insert(grant.epoch));
        if fate == Fate::Answered {
            let instance = &mut world.instances[usize::from(grant.owner)];
            *instance = match *instance {
                Instance::Holds { epoch, left, .. } if allowed => Instance::Holds { epoch, left, knows: token },
                Instance::Idle | Instance::Watches { .. } | Instance::Claims { .. } | Instance::Holds { .. } => Instance::Idle,
            };
        }
    }

    /// Lets the late write land. It was made from a journal that was read long ago.
    fn land(&self, world: &mut World, grant: Grant) {
        if !self.has(Part::Fence) {
            world.journal = Some(grant.epoch);
        } else if world.is_held(grant) {
            world.journal = world.journal.or(Some(grant.epoch));
        }
    }

    fn arrive(&self, world: &mut World, launch: Launch) {
        // The same token has one effect.
        if !world.bought.contains(&launch.token) {
            world.bought.push(launch.token);
            world.overtaken |= launch.epoch < world.highest;
        }
        self.tick(world);
    }

    fn tick(&self, world: &mut World) {
        for (instance, rate) in world.instances.iter_mut().zip(&self.rates) {
            match instance {
                Instance::Holds { left, .. } => *left = left.saturating_sub(*rate),
                Instance::Watches { waited, .. } => *waited = (*waited + rate).min(LEASE),
                Instance::Idle | Instance::Claims { .. } => {}
            }
        }
    }

    fn remove(&self, world: &mut World) {
        world.lock = None;
        if !self.has(Part::EpochRecord) {
            world.epoch = 0;
        }
    }

    /// Forgets what no look can show again, which is as good as not to have seen it: a version never comes again,
    /// and neither does a time without a record, where the epoch names it. This keeps the search small.
    fn forget(&self, world: &mut World) {
        let now = world.sight();
        let named = self.has(Part::EpochOfVanished) && self.has(Part::EpochRecord);
        for instance in &mut world.instances {
            if let Instance::Watches { seen, .. } = *instance
                && seen != now
                && (seen.version.is_some() || named)
            {
                *instance = Instance::Idle;
            }
        }
    }

    fn steps_of(&self, world: &World, who: u8, instance: Instance, steps: &mut Vec<Step>) {
        match instance {
            Instance::Idle | Instance::Watches { .. } => steps.push(Step::Look(who)),
            Instance::Claims { .. } => steps.extend(FATES.map(|fate| Step::Take(who, fate))),
            Instance::Holds { left, knows, .. } => {
                steps.extend(FATES.map(|fate| Step::Beat(who, fate)));
                let permitted = left >= 1 || !self.has(Part::Permit);
                if permitted && knows.is_none() {
                    steps.extend(FATES.map(|fate| Step::Journal(who, fate)));
                    if self.late && world.journal.is_none() && world.late.is_none() {
                        steps.push(Step::Delay(who));
                    }
                }
                if permitted && knows.is_some() && world.flying.is_none() {
                    steps.push(Step::Send(who));
                }
            }
        }
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            instances: vec![Instance::Idle; self.rates.len()],
            lock: None,
            epoch: 0,
            highest: 0,
            takings: 0,
            beats: 0,
            journal: None,
            late: None,
            flying: None,
            bought: Vec::new(),
            overtaken: false,
        }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        // A launch that is under way arrives before much more happens.
        steps.push(if world.flying.is_some() { Step::Arrive } else { Step::Tick });
        if world.lock.is_some() {
            steps.push(Step::Remove);
        }
        if world.late.is_some() {
            steps.push(Step::Land);
        }
        for (who, instance) in (0_u8..).zip(&world.instances) {
            self.steps_of(world, who, *instance, steps);
        }
    }

    fn next_state(&self, last: &World, step: Step) -> Option<World> {
        let mut world = last.clone();
        match step {
            Step::Tick => self.tick(&mut world),
            Step::Look(who) => self.look(&mut world, who),
            Step::Take(who, fate) => {
                let Instance::Claims { looked_at } = last.instances[usize::from(who)] else { return None };
                self.take(&mut world, who, looked_at, fate);
            }
            Step::Beat(who, fate) => Self::beat(&mut world, last.grant(who)?, fate),
            Step::Journal(who, fate) => self.journal(&mut world, last.grant(who)?, fate),
            Step::Delay(who) => world.late = Some(last.grant(who)?),
            Step::Land => {
                let grant = world.late.take()?;
                self.land(&mut world, grant);
            }
            Step::Send(who) => {
                let Instance::Holds { epoch, knows: Some(token), .. } = last.instances[usize::from(who)] else { return None };
                world.flying = Some(Launch { epoch, token });
            }
            Step::Arrive => {
                let launch = world.flying.take()?;
                self.arrive(&mut world, launch);
            }
            Step::Remove => self.remove(&mut world),
        }
        self.forget(&mut world);
        (world != *last).then_some(world)
    }

    fn within_boundary(&self, world: &World) -> bool {
        world.takings <= MOST_TAKINGS && world.beats <= self.beats
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONCE, |_, world: &World| world.bought.len() <= 1),
            // A taking adds one to an epoch that was on record: each of them has raised it if the highest is their number.
            Property::always(RISES, |_, world: &World| world.highest == world.takings),
            Property::always(REPLACED, |_, world: &World| !world.overtaken),
            Property::sometimes("a launch has an effect", |_, world: &World| !world.bought.is_empty()),
            Property::sometimes("somebody takes over", |_, world: &World| world.takings >= 2),
        ]
    }
}

const SOUND: Protocol = Protocol { rates: Vec::new(), beats: 2, late: true, without: None };

fn two_without(part: Part) -> Protocol {
    Protocol { rates: vec![1, 1], without: Some(part), ..SOUND }
}

/// Searches for a step after which the property does not hold any more.
fn breaks(protocol: Protocol, property: &'static str) {
    let found = HasDiscoveries::AnyOf([property].into());
    let checker = protocol.checker().threads(2).finish_when(found).spawn_bfs().join();
    assert!(checker.discovery(property).is_some(), "the search has not found that this does not hold: {property}");
}

/// Searches everything. Gives the properties that do not hold, and the number of states.
fn broken(protocol: Protocol) -> (Vec<&'static str>, usize) {
    let checker = protocol.checker().threads(2).spawn_bfs().join();
    let broken = [ONCE, RISES, REPLACED].into_iter().filter(|&property| checker.discovery(property).is_some()).collect();
    (broken, checker.unique_state_count())
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
    assert!(states > 10_000, "the search has seen only {states} states");
}

#[test]
fn three_instances_never_act_at_once() {
    let states = holds(Protocol { rates: vec![1, 1, 1], beats: 1, ..SOUND });
    println!("{states} states");
    assert!(states > 100_000, "the search has seen only {states} states");
}

#[test]
fn a_clock_that_runs_twice_as_fast_does_no_harm_to_holder_or_rival() {
    for rates in [[2, 1], [1, 2]] {
        println!("{} states", holds(Protocol { rates: rates.to_vec(), ..SOUND }));
    }
}

/// Nobody asks where a launch arrives, for EC2 knows no epoch: that its sender has not been replaced follows from the
/// permit alone. There is one machine all the same, since the fence keeps one operation in the journal, whose token
/// the replaced instance and its successor both send.
#[test]
fn without_the_permit_one_acts_that_has_been_replaced_but_one_machine_comes() {
    let (broken, states) = broken(two_without(Part::Permit));
    println!("{states} states");
    assert_eq!(broken, [REPLACED]);
}

/// The permit is asked before a write is sent, the fence where it lands, and no deadline of the sender's bounds the time
/// between. A write that lands after a successor found the journal empty brings in a second operation, which the next
/// leader carries out. Whoever sends a launch holds the lease, so that the permit has nothing against it.
#[test]
fn without_the_fence_a_late_write_brings_a_second_launch() {
    let (broken, states) = broken(two_without(Part::Fence));
    println!("{states} states");
    assert_eq!(broken, [ONCE]);
}

/// Nobody else may take the lock while a holder is permitted to write. So it is for late writes that the fence is there.
#[test]
fn where_no_write_is_late_the_permit_does_without_the_fence() {
    println!("{} states", holds(Protocol { late: false, ..two_without(Part::Fence) }));
}

#[test]
fn a_removed_lock_that_is_taken_at_once_lets_two_act() {
    breaks(two_without(Part::WaitForVanished), REPLACED);
}

#[test]
fn a_lock_that_is_removed_twice_must_not_be_taken_for_one_that_is_gone_for_long() {
    breaks(two_without(Part::EpochOfVanished), REPLACED);
}

#[test]
fn an_epoch_that_is_kept_in_the_locks_record_alone_begins_again_with_it() {
    breaks(two_without(Part::EpochRecord), RISES);
}

/// A lock that was taken and removed after the look has no record, just like the one that was looked at.
#[test]
fn a_take_that_reads_the_epoch_once_more_lets_two_act() {
    breaks(two_without(Part::SameEpoch), REPLACED);
}

/// The holder's heartbeat may land after the look.
#[test]
fn a_take_that_replaces_any_version_lets_two_act() {
    breaks(two_without(Part::SameVersion), REPLACED);
}

/// The holder's heartbeat may land after the look, and the record be removed after the heartbeat.
#[test]
fn a_take_that_is_content_with_no_record_in_place_of_the_one_looked_at_lets_two_act() {
    breaks(two_without(Part::SameRecord), REPLACED);
}
