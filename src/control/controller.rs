//! The loop. One task owns everything that changes; nothing in it waits for the world.
//!
//! Observations, steps of operations and ledger writes run as futures beside one another and
//! report back here, so a call that hangs delays nothing else: a spot notice is acted on
//! while CreateFleet waits for its answer.

mod interruptions;
mod leadership;
mod operations;
mod operators;
mod telling;
mod turns;

use super::driver::{Context, Stepped};
use super::forecasts::Forecasts;
use super::lease::{Fence, Leadership};
use super::observe::Observation;
use super::settings::Settings;
use super::status::{Command, Decision, Outlets, Status};
use crate::model::ids::Epoch;
use crate::model::plan::RetireReason;
use crate::model::snapshot::Pause;
use crate::model::{Instance, InstanceId, Memory, Operation, OperationId, Prospect, RuleName, Snapshot};
use crate::ports::{Clock, CloudError, Cluster, Delivery, Grant, LedgerError, LedgerState, World};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use telling::Telling;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::{info, warn};
use turns::LookingAround;

/// What reaches the loop from outside.
pub struct Inputs {
    /// The lease.
    pub leadership: watch::Receiver<Leadership>,
    /// Gives the lease back, when this instance cannot act under it.
    pub resign: mpsc::Sender<()>,
    /// The evaluation's clockwork.
    pub ticks: mpsc::Receiver<()>,
    /// EC2's notices.
    pub deliveries: mpsc::Receiver<Delivery>,
    /// What operators ask.
    pub commands: mpsc::Receiver<Command>,
    /// New settings, or why they were refused.
    pub reloads: mpsc::Receiver<Result<Settings, String>>,
    /// How it stands with those who are told.
    pub outlets: watch::Receiver<Outlets>,
    /// Set when the daemon is to end.
    pub stop: watch::Receiver<bool>,
}

/// What is running beside the loop.
enum Event {
    /// With how many words had been heard when the ledger was asked.
    Loaded(Grant, u64, Result<Box<LedgerState>, LedgerError>),
    /// The trigger, how many words had been heard when the turn began, and what there is.
    Observed(&'static str, u64, Box<Observation>),
    Stepped(Epoch, Box<Stepped>),
    Paused(Result<(), LedgerError>),
    Remembered(Result<(), LedgerError>),
    Forgotten(Result<(), LedgerError>),
    /// What is known of a demand was written.
    Kept(Result<(), LedgerError>),
    /// What EC2 shows, for notices about instances that were not known.
    Looked(Vec<Unknown>, Result<Vec<Instance>, CloudError>),
    Nothing,
}

/// An operator's pause (`None`: resumption), and who waits for it to hold.
struct Word {
    pause: Option<Pause>,
    done: oneshot::Sender<Result<(), String>>,
}

/// A notice about an instance that the latest list does not show.
struct Unknown {
    delivery: Delivery,
    instance: InstanceId,
    at: Timestamp,
}

/// How many of them wait at most; the queue keeps the rest.
const UNKNOWN_WAITING: usize = 64;

/// How long steps in hand may take once the daemon is to end; what follows must fit into ten seconds with it.
const LONGEST_FINISH: Duration = Duration::from_secs(6);

/// How it stands with the memory that is to be written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Remembering {
    /// Nothing is being written.
    #[default]
    Idle,
    /// It is being written.
    Busy,
    /// It is being written and has changed meanwhile.
    Again,
}

/// An operator who waits for a decision.
type Evaluation = oneshot::Sender<Result<Arc<Decision>, String>>;

/// The loop goes round at least so often, which is what feeds a watchdog.
const LONGEST_BEAT: Duration = Duration::from_secs(20);

/// The controller of one world.
pub struct Controller<W: World> {
    context: Context<W>,
    inputs: Inputs,
    status: watch::Sender<Arc<Status>>,
    beat: watch::Sender<u64>,
    running: FuturesUnordered<BoxFuture<'static, Event>>,
    /// The lease under which everything below was learnt; `None` on a standby.
    grant: Option<Grant>,
    loading: bool,
    memory: Memory,
    pause: Option<Pause>,
    /// Pauses and resumptions that the ledger has not answered; the first of them is being written.
    words: VecDeque<Word>,
    /// Counts what operators said and what the ledger answered to it.
    heard: u64,
    operations: BTreeMap<OperationId, Operation>,
    /// New reasons for retirements that are being driven, and who wakes their steps.
    amended: BTreeMap<OperationId, RetireReason>,
    amendments: watch::Sender<u64>,
    /// Messages to delete once their operation's effect is recorded.
    receipts: BTreeMap<OperationId, Vec<(String, crate::ports::Monotonic)>>,
    instances: Vec<Instance>,
    /// Notices about instances that nobody knows, until EC2 is asked about them all at once.
    unknown: Vec<Unknown>,
    looking: bool,
    /// The turns for those who do not wait for Prometheus.
    urgent_look: LookingAround,
    /// The others.
    full_look: LookingAround,
    remembering: Remembering,
    /// What people have been told.
    telling: Telling,
    /// The demands that are followed; `None` while a turn reads on, or before the first one.
    forecasts: Option<Forecasts>,
    /// What they said in the latest turn that read.
    prospects: BTreeMap<RuleName, Prospect>,
    /// Workers that exist or are on their way, as the latest turn that was not blind counted them.
    node_count: Option<u32>,
    /// When a turn is made in place of one that was urgent and blind.
    wake_at: Option<Instant>,
    /// Launches in a row that EC2 was too busy for.
    busy: u32,
    /// Operators who want a decision of a turn that has not begun.
    evaluations: Vec<Evaluation>,
    /// Those whose turn it is.
    answering: Vec<Evaluation>,
    decisions: VecDeque<Arc<Decision>>,
    /// What the latest turn saw, for questions.
    seen: Option<Arc<Snapshot>>,
    /// What the latest turn saw that asked for utilisation too.
    measured: Option<Arc<Snapshot>>,
    /// Questions are answered one at a time.
    explaining: Arc<Semaphore>,
    shown: Status,
}

impl<W: World> Controller<W> {
    /// Builds a controller. `beat` counts the turns of its loop, for a watchdog.
    pub fn new(world: Arc<W>, settings: Settings, inputs: Inputs, status: watch::Sender<Arc<Status>>, beat: watch::Sender<u64>) -> Self {
        let shown = (**status.borrow()).clone();
        let (amendments, amended) = watch::channel(0);
        let fence = Fence::new(inputs.leadership.clone());
        let context = Context { world, fence, settings: Arc::new(settings), amended };
        Self {
            context,
            inputs,
            status,
            beat,
            running: FuturesUnordered::new(),
            grant: None,
            loading: false,
            memory: Memory::default(),
            pause: None,
            words: VecDeque::new(),
            heard: 0,
            operations: BTreeMap::new(),
            amended: BTreeMap::new(),
            amendments,
            receipts: BTreeMap::new(),
            instances: Vec::new(),
            unknown: Vec::new(),
            looking: false,
            urgent_look: LookingAround::default(),
            full_look: LookingAround::default(),
            remembering: Remembering::Idle,
            telling: Telling::default(),
            forecasts: None,
            prospects: BTreeMap::new(),
            node_count: None,
            wake_at: None,
            busy: 0,
            evaluations: Vec::new(),
            answering: Vec::new(),
            decisions: VecDeque::new(),
            seen: None,
            measured: None,
            explaining: Arc::new(Semaphore::new(1)),
            shown,
        }
    }

    /// Runs until it is stopped. Steps that are in hand then are finished up to their journal entry.
    pub async fn run(mut self) {
        let world = Arc::clone(&self.context.world);
        self.follow_lease();
        loop {
            self.beat.send_modify(|beat| *beat = beat.wrapping_add(1));
            tokio::select! {
                biased;
                () = stopped(&mut self.inputs.stop) => break,
                changed = self.inputs.leadership.changed() => match changed {
                    Ok(()) => self.follow_lease(),
                    Err(_) => break,
                },
                // While the journal is read a notice waits: whom it concerns is not known yet.
                Some(delivery) = self.inputs.deliveries.recv(), if !self.loading && self.unknown.len() < UNKNOWN_WAITING => {
                    self.deliver(delivery);
                }
                Some(event) = self.running.next(), if !self.running.is_empty() => self.handle(event),
                Some(command) = self.inputs.commands.recv() => self.command(command),
                Some(reload) = self.inputs.reloads.recv() => self.reload(reload),
                Ok(()) = self.inputs.outlets.changed() => {
                    self.note_outlets();
                    self.publish();
                }
                () = world.cluster().urgent() => self.turn("pods"),
                Some(()) = self.inputs.ticks.recv() => self.turn("tick"),
                () = wake(self.wake_at) => {
                    self.wake_at = None;
                    self.turn("pods");
                }
                // The watchdog is fed by a loop that turns, also when there is nothing to do.
                () = tokio::time::sleep(LONGEST_BEAT) => {}
            }
        }
        self.finish().await;
    }

    /// Lets what is in hand report, within a bound, so that the journal has it.
    async fn finish(&mut self) {
        info!(running = self.running.len(), "stopping");
        let limit = tokio::time::sleep(self.context.settings.operations.request_timeout.min(LONGEST_FINISH));
        tokio::pin!(limit);
        self.grant = None;
        while !self.running.is_empty() {
            tokio::select! {
                biased;
                event = self.running.next() => if let Some(event) = event { self.handle(event) },
                () = &mut limit => break,
            }
        }
    }

    fn now(&self) -> Timestamp {
        self.context.world.clock().now()
    }

    fn spawn(&self, future: impl Future<Output = Event> + Send + 'static) {
        self.running.push(Box::pin(future));
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Loaded(grant, heard, state) => self.loaded(grant, heard, state),
            Event::Observed(trigger, heard, observation) => self.observed(trigger, heard, *observation),
            Event::Stepped(epoch, stepped) => self.stepped(epoch, *stepped),
            Event::Paused(outcome) => self.paused(outcome),
            Event::Remembered(answer) => {
                self.written(answer);
                if std::mem::take(&mut self.remembering) == Remembering::Again {
                    self.remember();
                }
            }
            Event::Forgotten(answer) | Event::Kept(answer) => self.written(answer),
            Event::Nothing => {}
            Event::Looked(asked, answer) => self.looked(asked, answer),
        }
    }

    fn written(&mut self, answer: Result<(), LedgerError>) {
        if let Err(error) = answer {
            warn!(%error, "the ledger could not be written");
            self.source("dynamodb", Err(error.to_string()));
            self.publish();
        }
    }

    fn publish(&mut self) {
        self.shown.published = self.now();
        self.shown.pause.clone_from(&self.pause);
        let mut operations: Vec<Operation> = self.operations.values().cloned().collect();
        operations.sort_by(|a, b| a.is_over().cmp(&b.is_over()).then(b.updated().cmp(&a.updated())).then_with(|| a.id().cmp(b.id())));
        self.shown.operations = operations;
        self.shown.decisions.clone_from(&self.decisions);
        self.status.send_replace(Arc::new(self.shown.clone()));
    }
}

/// Waits for the moment, or for ever when there is none.
async fn wake(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Waits until the daemon is to end; an end of the sender is one, too.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
