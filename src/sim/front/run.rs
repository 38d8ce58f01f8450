//! Lets a world live with its controllers, and tells what became of it.

use super::super::client::Sim;
use super::super::faults::{Fault, Request};
use super::super::plants::CANARY;
use super::super::streams::{self, Purpose};
use super::super::universe::{Process, Truth, Universe, Waits};
use super::daemon::{Daemon, Parts, pass_on, shut_down};
use super::scenario::Scenario;
use crate::control::Settings;
use crate::control::status::{Command, Handle, Status};
use crate::model::Happening;
use crate::model::instance::InstanceState;
use crate::ports::{Measurement, Telemetry};
use crate::sim::oracle::Violation;
use rand::RngExt;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Once nothing is wrong any more, the fleet is as it should be after so much of the time that is left.
const SETTLED_BY: f64 = 0.6;
/// It is after so long at most.
const SETTLED_AFTER: Duration = Duration::from_mins(330);
/// It has so long at least: a world without that time is not judged by it.
const SETTLES_IN: Duration = Duration::from_mins(75);
/// How long steps in hand have when a controller is asked to end.
const STEPS_IN_HAND: Duration = Duration::from_secs(6);
/// The whole status is looked through in one of so many turns.
const LOOKS_AT_ALL_OF_IT: u64 = 50;
/// How many commands a flood consists of.
const FLOOD: usize = 200;

/// What became of a world.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What did not hold.
    pub violations: Vec<Violation>,
    /// Stands for the whole log: its digest, and the number of its lines.
    pub digest: (u64, u64),
    /// The last lines of the log.
    pub log: Vec<String>,
    /// How often each fault has changed what happened.
    pub hits: BTreeMap<Fault, u64>,
    /// What the fleet has cost, in dollars.
    pub dollars: f64,
    /// How long its machines ran, in hours.
    pub node_hours: f64,
    /// The most machines at once.
    pub most_nodes: usize,
    /// Pods that found no node.
    pub waits: Waits,
    /// How often capacity was bought.
    pub launches: usize,
    /// How many calls the controllers have made.
    pub calls: u64,
}

/// A world that lives, with its controllers.
pub struct Run {
    /// The world.
    pub universe: Arc<Universe>,
    /// How the operators reach each controller: `None` while it is down.
    pub handles: Vec<watch::Receiver<Option<Handle>>>,
    tasks: JoinSet<()>,
    scenario: Scenario,
}

/// Takes no measurements.
#[derive(Clone, Copy, Debug)]
pub struct Deaf;

impl Telemetry for Deaf {
    fn record(&self, _: Measurement) {}

    fn tell(&self, _: Happening) {}
}

/// Lives through a whole scenario in no time.
///
/// # Panics
/// When there can be no runtime, which needs neither threads nor sockets nor files.
#[must_use]
pub fn run(scenario: &Scenario) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.unwrap_or_else(|error| panic!("a runtime with nothing but time: {error}"));
    runtime.block_on(async {
        let mut run = Run::begin(scenario.clone(), |_| Deaf);
        run.to_the_end().await
    })
}

/// Lives through a whole scenario in no time, whatever becomes of it.
///
/// # Errors
/// When the world is impossible, or when something in it panics.
pub fn attempt(scenario: &Scenario) -> Result<Outcome, String> {
    scenario.check().map_err(|why| format!("this world is impossible: {why}"))?;
    std::panic::catch_unwind(AssertUnwindSafe(|| run(scenario))).map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str).or_else(|| payload.downcast_ref().copied());
        format!("it panics: {}", text.unwrap_or("without a word"))
    })
}

impl Run {
    /// Begins a world and starts its controllers. `telemetry` takes the measurements of each.
    pub fn begin<T: Telemetry + Clone + 'static>(scenario: Scenario, telemetry: impl Fn(usize) -> T) -> Self {
        let universe = Universe::new(scenario.beginning());
        universe.with(|truth| {
            scenario.populate(truth);
            truth.begin();
            for (workload, at) in &scenario.rollouts {
                truth.plan_rollout(*workload, *at);
            }
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&universe).live());
        let mut handles = Vec::new();
        let mut reloads = Vec::new();
        for number in 0..scenario.controllers {
            let (tell, handle) = watch::channel(None);
            let (reload, bad) = mpsc::channel(4);
            handles.push(handle);
            reloads.push(reload);
            let mut settings = scenario.settings.clone();
            if let Some(plant) = scenario.plant {
                plant.lie(&mut settings.policy);
                universe.with(|truth| truth.clients[number].plant = Some(plant));
            }
            let keeper = Keeper { universe: Arc::clone(&universe), number, settings, seed: scenario.seed, handle: tell, bad };
            tasks.spawn(keeper.keep(telemetry(number)));
        }
        tasks.spawn(operate(Arc::clone(&universe), handles.clone(), reloads));
        Self { universe, handles, tasks, scenario }
    }

    /// Lives until the scenario's end, with what is checked when peace has come.
    pub async fn to_the_end(&mut self) -> Outcome {
        let length = self.scenario.length();
        let begin = Instant::now();
        if let Some(peace) = self.scenario.peace_from {
            self.live_until(begin + peace).await;
            self.universe.with(Truth::make_peace);
            let settled = length.saturating_sub(peace).mul_f64(SETTLED_BY).min(SETTLED_AFTER);
            if settled >= self.settles_in() {
                for after in [self.settles_in(), settled] {
                    self.live_until(begin + peace + after).await;
                    self.universe.with(|truth| {
                        if let Some(why) = truth.unsettled() {
                            truth.violated(10, format!("peace has reigned for {after:?} and still {why}"));
                        }
                    });
                }
                self.universe.with(Truth::settles);
            }
        }
        self.live_until(begin + length).await;
        self.universe.with(Truth::check_at_rest);
        shut_down(&mut self.tasks).await;
        self.outcome()
    }

    /// Gives how long the fleet may take until it is as it should be: offers whose machines never join stop for a while.
    fn settles_in(&self) -> Duration {
        let policy = &self.scenario.settings.policy;
        let stops = self.scenario.faults.iter().any(|planned| planned.fault == Fault::NeverJoins);
        if stops { SETTLES_IN + policy.rest.stopped + policy.join_timeout } else { SETTLES_IN }
    }

    /// Lets time pass. A panic of the world or of a controller goes on here.
    async fn live_until(&mut self, end: Instant) {
        loop {
            tokio::select! {
                biased;
                Some(end) = self.tasks.join_next() => pass_on(end),
                () = tokio::time::sleep_until(end) => return,
            }
        }
    }

    /// Tells what became of the world so far.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.universe.with(|truth| {
            let now = truth.now;
            let ours: Vec<_> = truth.ec2.machines.values().filter(|machine| machine.pool().is_some()).collect();
            let hours = |machine: &&super::super::ec2::Machine| {
                machine.ended.unwrap_or(now).saturating_sub(machine.launched).as_secs_f64() / 3600.0
            };
            Outcome {
                violations: truth.oracle.violations().to_vec(),
                digest: truth.log.digest(),
                log: truth.log.lines().map(ToOwned::to_owned).collect(),
                hits: Fault::ALL.into_iter().map(|fault| (fault, truth.faults.hits(fault))).filter(|(_, hits)| *hits > 0).collect(),
                dollars: ours.iter().map(|machine| machine.cost(now)).sum(),
                node_hours: ours.iter().map(hours).sum(),
                most_nodes: truth.most_nodes,
                waits: truth.waits,
                launches: ours.iter().filter(|machine| machine.state != InstanceState::Stopped).count(),
                calls: truth.calls,
            }
        })
    }
}

/// Starts a controller, and again when it has died.
struct Keeper {
    universe: Arc<Universe>,
    number: usize,
    settings: Settings,
    seed: u64,
    handle: watch::Sender<Option<Handle>>,
    bad: mpsc::Receiver<()>,
}

impl Keeper {
    async fn keep<T: Telemetry + Clone + 'static>(mut self, telemetry: T) {
        let purpose = Purpose::Controller { number: u32::try_from(self.number).unwrap_or(u32::MAX), incarnation: 0 };
        let mut random = streams::open(self.seed, purpose);
        // Two servers never boot at the same moment.
        tokio::time::sleep(Duration::from_millis(random.random_range(0..3000))).await;
        loop {
            let world = Arc::new(Sim::enter(&self.universe, self.seed, self.number, telemetry.clone()));
            let ice = self.universe.with(|truth| Arc::clone(&truth.clients[self.number].ice));
            let (status, _) = watch::channel(Arc::new(Status::first("", "", jiff::Timestamp::UNIX_EPOCH)));
            let mut daemon = Daemon::start(Parts { world, settings: self.settings.clone(), ice, status });
            self.handle.send_replace(Some(daemon.handle.clone()));
            let asked = self.attend(&mut daemon).await;
            self.handle.send_replace(None);
            if asked {
                daemon.terminate(STEPS_IN_HAND).await;
                self.universe.with(|truth| truth.clients[self.number].process = Process::Over);
                return;
            }
            daemon.kill().await;
            if self.universe.with(|truth| truth.clients[self.number].process == Process::Over) {
                return;
            }
            tokio::time::sleep(Duration::from_secs(random.random_range(5..60))).await;
        }
    }

    /// Waits until the controller is dead, or asked to end, and tells which.
    async fn attend(&mut self, daemon: &mut Daemon) -> bool {
        let mut status = daemon.handle.status.clone();
        loop {
            let told = self.universe.keepers.notified();
            let (alive, asked) = self.universe.with(|truth| {
                let client = &truth.clients[self.number];
                (client.is_alive(), client.process == Process::Ending)
            });
            if !alive || asked {
                return asked;
            }
            tokio::select! {
                biased;
                () = told => {}
                end = daemon.ended() => {
                    // Noted before a panic goes on: not everybody waits for this task.
                    self.universe.with(|truth| {
                        truth.violated(10, format!("controller {} has ended although nobody asked it to", self.number));
                        truth.kill(self.number);
                    });
                    pass_on(end);
                    return false;
                }
                Some(()) = self.bad.recv() => {
                    let _ = daemon.reload.try_send(Err("pool.workers.min = 7: must not be above max (3)".into()));
                }
                Ok(()) = status.changed() => {
                    let latest = Arc::clone(&status.borrow_and_update());
                    self.universe.with(|truth| look_at(truth, &latest));
                }
            }
        }
    }
}

/// Looks at what a controller shows of itself: plans that its audit refused, and what nobody should read there.
fn look_at(truth: &mut Truth, status: &Status) {
    if let Some(latest) = status.decisions.front().filter(|latest| !latest.refused.is_empty()) {
        truth.refused(&latest.refused);
    }
    let told = status.sources.values().filter_map(|source| source.why.as_deref()).chain(status.reload_error.as_deref());
    if told.into_iter().any(|text| text.contains(CANARY)) {
        truth.violated(12, "a secret is in the status".into());
    }
    if status.turns.is_multiple_of(LOOKS_AT_ALL_OF_IT) && serde_json::to_string(status).is_ok_and(|text| text.contains(CANARY)) {
        truth.violated(12, "a secret is in the status as HTTP shows it".into());
    }
}

/// Does what faults ask of operators, until it is done.
async fn operate(universe: Arc<Universe>, handles: Vec<watch::Receiver<Option<Handle>>>, reloads: Vec<mpsc::Sender<()>>) {
    let mut wishes: Vec<Request> = Vec::new();
    loop {
        let told = universe.keepers.notified();
        wishes.extend(universe.with(|truth| std::mem::take(&mut truth.faults.requests)));
        if wishes.is_empty() {
            told.await;
            continue;
        }
        let wish = wishes[0];
        let done = match wish {
            Request::BadReload => {
                for reload in &reloads {
                    let _ = reload.try_send(());
                }
                true
            }
            Request::Flood => {
                flood(&handles);
                true
            }
            Request::Pause => speak(&handles, |done| Command::Pause { by: "ada".into(), reason: "maintenance".into(), done }).await,
            Request::Resume => speak(&handles, |done| Command::Resume { by: "ada".into(), done }).await,
        };
        if done {
            wishes.remove(0);
        } else {
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    }
}

/// Says something to whichever controller listens. Tells whether it was heard and obeyed.
async fn speak(handles: &[watch::Receiver<Option<Handle>>], command: impl Fn(oneshot::Sender<Result<(), String>>) -> Command) -> bool {
    for handle in handles {
        let Some(handle) = handle.borrow().clone() else { continue };
        let (done, answer) = oneshot::channel();
        if handle.commands.try_send(command(done)).is_err() {
            continue;
        }
        if let Ok(Ok(Ok(()))) = tokio::time::timeout(Duration::from_secs(10), answer).await {
            return true;
        }
    }
    false
}

/// Asks every controller for more than it takes.
fn flood(handles: &[watch::Receiver<Option<Handle>>]) {
    for handle in handles {
        let Some(handle) = handle.borrow().clone() else { continue };
        for _ in 0..FLOOD {
            let (done, _) = oneshot::channel();
            if handle.commands.try_send(Command::Evaluate { done }).is_err() {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_panic_of_a_task_ends_the_world() {
        let lives = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
            runtime.block_on(async {
                let mut run = Run::begin(Scenario::quiet(1, 1.0, 2), |_| Deaf);
                run.tasks.spawn(async { panic!("the last words") });
                run.to_the_end().await
            })
        };
        let payload = std::panic::catch_unwind(AssertUnwindSafe(lives)).expect_err("it panics");
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"the last words"));
    }

    #[test]
    fn an_impossible_world_does_not_begin() {
        let mut nowhere = Scenario::quiet(1, 1.0, 2);
        nowhere.zones.clear();
        assert!(attempt(&nowhere).is_err_and(|why| why.contains("impossible") && why.contains("no zones")));
    }
}
