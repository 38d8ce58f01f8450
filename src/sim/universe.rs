//! Everything that is true, the queue of what happens next, and the task that lets it happen.

use super::client::Mishap;
use super::clock::SkewedClock;
use super::dynamodb::Table;
use super::ec2::Ec2;
use super::faults::{Fault, Faults};
use super::ice::Ice;
use super::kubernetes::Kubernetes;
use super::oracle::Oracle;
use super::plants::Plant;
use super::prometheus::Prometheus;
use super::sqs::Queue;
use super::streams::{self, Purpose};
use super::workload::Workload;
use crate::model::{ClusterView, InstanceId, NodeName, PodKey};
use jiff::{SignedDuration, Timestamp};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How many lines of the log are kept to be shown; all of them count towards its digest.
const LOG_KEPT: usize = 2000;

/// No request is under way for longer. Its sender has given it up before, but the lease outlasts it.
const LATEST: Duration = Duration::from_secs(4);

/// Nobody looks so often before time passes, unless something goes round and round.
const MOST_LOOKS: u32 = 300_000;

/// What happens at some time.
pub enum Event {
    /// A request of a controller arrives.
    Arrives(Box<dyn FnOnce(&mut Truth) + Send>),
    /// A machine has booted its kernel.
    Runs(InstanceId),
    /// A machine's kubelet registers its node.
    Joins(InstanceId),
    /// Nothing has been heard of a node for a while.
    FallsSilent(NodeName, String),
    /// A silent node's pods are given up.
    GivesUp(NodeName, String),
    /// A pod's containers run.
    PodRuns(PodKey, String),
    /// A pod has ended.
    PodEnds(PodKey, String),
    /// The scheduler makes a pass.
    Schedules,
    /// Workloads are looked at, and Prometheus scrapes.
    Minute,
    /// Spot prices move.
    MarketMoves,
    /// EC2 takes a spot machine back.
    Reclaims(InstanceId),
    /// The market announces that it takes a machine back, as EC2 has foreseen.
    Wants(InstanceId),
    /// A workload begins to replace all its pods.
    RollsOut(usize),
    /// One more pod of a workload is replaced by its successor.
    Rolls(usize, u32),
    /// A message becomes visible.
    MessageDue,
    /// A fault begins.
    FaultBegins(usize),
    /// A fault ends.
    FaultEnds(usize),
    /// A node that flaps changes its mind.
    Flaps(NodeName, usize),
    /// The oracle looks at what lasts.
    OracleLooks,
}

/// Random numbers of the world itself.
pub struct Random {
    /// How long calls take.
    pub latency: ChaCha8Rng,
    /// How long machines boot.
    pub boot: ChaCha8Rng,
    /// The spot market.
    pub market: ChaCha8Rng,
    /// Workloads.
    pub workload: ChaCha8Rng,
    /// Where faults strike.
    pub strikes: ChaCha8Rng,
    /// The queue.
    pub messages: ChaCha8Rng,
}

/// How it stands with a controller's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// It does not run, and is started again.
    Stopped,
    /// It runs.
    Running,
    /// It runs and has been asked to end.
    Ending,
    /// It has ended and is never started again.
    Over,
}

/// What the world knows of one controller.
pub struct Client {
    /// How often it was started.
    pub incarnation: u32,
    /// How it stands with its process.
    pub process: Process,
    /// Who it is in the lease, while it runs.
    pub owner: String,
    /// Its clocks.
    pub clock: SkewedClock,
    /// Stops it, to go on later without knowing.
    pub ice: Arc<Ice>,
    /// It cannot reach the ledger.
    pub cut_off: bool,
    /// What its watches had seen when they stopped seeing.
    pub stale_view: Option<Arc<ClusterView>>,
    /// How many unschedulable pods it has been told of.
    pub seen_marks: u64,
    /// The newest records that its build can read and write.
    pub build: u32,
    /// Each kills it at a call.
    pub crashes: Vec<Crash>,
    /// It has had the catalogue of offers since it was started.
    pub has_catalogue: bool,
    /// How many records it has written, in all its lives.
    pub writes: u64,
    /// Answers to this call come so much later.
    pub slow: Option<(&'static str, Duration)>,
    /// What becomes of the next calls of these names.
    pub mishaps: Vec<(&'static str, Mishap)>,
    /// The bug that it has.
    pub plant: Option<Plant>,
    /// The latest utilisation that it was given: when, and whether it was complete and fresh.
    pub last_utilisation: Option<(Duration, bool)>,
    /// The latest answer of Kubernetes: when, and whether there was one.
    pub last_view: Option<(Duration, bool)>,
    /// The latest list of instances: when, and whether there was one.
    pub last_instances: Option<(Duration, bool)>,
}

impl Client {
    /// It runs.
    pub fn is_alive(&self) -> bool {
        matches!(self.process, Process::Running | Process::Ending)
    }

    /// Makes a controller that was never started.
    pub fn new(build: u32) -> Self {
        Self {
            incarnation: 0,
            process: Process::Stopped,
            owner: String::new(),
            clock: SkewedClock::default(),
            ice: Arc::default(),
            cut_off: false,
            stale_view: None,
            seen_marks: 0,
            build,
            crashes: Vec::new(),
            has_catalogue: false,
            writes: 0,
            slow: None,
            mishaps: Vec::new(),
            plant: None,
            last_utilisation: None,
            last_view: None,
            last_instances: None,
        }
    }
}

/// When a controller is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crash {
    /// The call it makes then; `None` is any.
    pub call: Option<&'static str>,
    /// Calls before this moment do not count.
    pub from: Duration,
    /// So many calls that would do are let through.
    pub after: u64,
    /// It is killed when the call has had its effect, and not before.
    pub with_effect: bool,
    /// The fault that wants it so.
    pub fault: Option<Fault>,
}

/// What has been seen of pods that found no node.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Waits {
    /// Pods that waited.
    pub pods: u64,
    /// How long they waited together.
    pub total: Duration,
    /// The longest.
    pub longest: Duration,
}

/// The log of what happened.
#[derive(Debug, Default)]
pub struct Log {
    lines: VecDeque<String>,
    digest: u64,
    count: u64,
}

impl Log {
    fn push(&mut self, line: String) {
        // FNV-1a: it only has to differ when the lines do.
        for byte in line.bytes().chain([b'\n']) {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.count += 1;
        if self.lines.len() == LOG_KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// Gives the latest lines.
    pub fn lines(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    /// Gives a number that stands for all lines, and how many they were.
    pub fn digest(&self) -> (u64, u64) {
        (self.digest, self.count)
    }
}

/// Everything that is true.
pub struct Truth {
    /// The time since the world's beginning.
    pub now: Duration,
    /// What a wall clock showed at the world's beginning.
    pub start: Timestamp,
    queue: BTreeMap<(Duration, u64), Event>,
    numbered: u64,
    /// EC2.
    pub ec2: Ec2,
    /// Kubernetes.
    pub kubernetes: Kubernetes,
    /// Prometheus.
    pub prometheus: Prometheus,
    /// DynamoDB.
    pub table: Table,
    /// SQS.
    pub messages: Queue,
    /// Deployments.
    pub workloads: Vec<Workload>,
    /// Which deployment a pod is of.
    pub deployed: BTreeMap<PodKey, usize>,
    /// Where in the week the world begins.
    pub phase: Duration,
    /// Machines boot between so long and so long.
    pub boot: (Duration, Duration),
    /// How often the market takes a spot machine back, per machine and hour.
    pub reclaims_per_hour: f64,
    /// The share of changes that take up to seconds to arrive.
    pub late_calls: f64,
    /// The controllers.
    pub clients: Vec<Client>,
    /// What is wrong just now.
    pub faults: Faults,
    /// What must hold.
    pub oracle: Oracle,
    /// What happened.
    pub log: Log,
    /// Random numbers.
    pub random: Random,
    /// Nodes whose kubelet is broken although their machine runs.
    pub broken: BTreeSet<NodeName>,
    /// So many machines, from the next on, become no nodes.
    pub barren: u32,
    /// Pods whose eviction a webhook refuses.
    pub not_evictable: BTreeSet<PodKey>,
    /// Pods that a budget has kept where they are, once each.
    pub kept: BTreeSet<String>,
    /// How often a pod became unschedulable.
    pub marks: u64,
    /// How long pods found no node.
    pub waits: Waits,
    /// The most machines of ours at once.
    pub most_nodes: usize,
    /// The most that our machines would have cost in an hour, all of them on demand.
    pub peak_hourly: f64,
    /// How many calls the controllers have made.
    pub calls: u64,
    scheduling: bool,
    /// How often somebody has looked at the truth since time last passed.
    looks: u32,
    news: News,
}

/// Who is to be told once nobody holds the truth any more.
#[expect(clippy::struct_excessive_bools, reason = "each of them is somebody to be told")]
#[derive(Clone, Copy, Debug, Default)]
struct News {
    sooner: bool,
    changed: bool,
    urgent: bool,
    message: bool,
    killed: bool,
    thaw: bool,
}

/// What a world consists of at its beginning.
pub struct Beginning {
    /// Which world.
    pub seed: u64,
    /// What a wall clock shows.
    pub start: Timestamp,
    /// EC2 with the machines that run already.
    pub ec2: Ec2,
    /// Deployments.
    pub workloads: Vec<Workload>,
    /// Where in the week it is.
    pub phase: Duration,
    /// How long machines boot.
    pub boot: (Duration, Duration),
    /// How often the market takes a spot machine back, per machine and hour.
    pub reclaims_per_hour: f64,
    /// The share of changes that take up to seconds to arrive.
    pub late_calls: f64,
    /// The builds of the controllers, by the version of their records.
    pub builds: Vec<u32>,
    /// What goes wrong.
    pub faults: Faults,
    /// What must hold.
    pub oracle: Oracle,
}

impl Truth {
    fn new(beginning: Beginning) -> Self {
        let open = |purpose| streams::open(beginning.seed, purpose);
        let random = Random {
            latency: open(Purpose::Latency),
            boot: open(Purpose::Boot),
            market: open(Purpose::Market),
            workload: open(Purpose::Workload),
            strikes: open(Purpose::Strikes),
            messages: open(Purpose::Messages),
        };
        Self {
            now: Duration::ZERO,
            start: beginning.start,
            queue: BTreeMap::new(),
            numbered: 0,
            ec2: beginning.ec2,
            kubernetes: Kubernetes::default(),
            prometheus: Prometheus::default(),
            table: Table::default(),
            messages: Queue::default(),
            workloads: beginning.workloads,
            deployed: BTreeMap::new(),
            phase: beginning.phase,
            boot: beginning.boot,
            reclaims_per_hour: beginning.reclaims_per_hour,
            late_calls: beginning.late_calls,
            clients: beginning.builds.into_iter().map(Client::new).collect(),
            faults: beginning.faults,
            oracle: beginning.oracle,
            log: Log::default(),
            random,
            broken: BTreeSet::new(),
            barren: 0,
            not_evictable: BTreeSet::new(),
            kept: BTreeSet::new(),
            marks: 0,
            waits: Waits::default(),
            most_nodes: 0,
            peak_hourly: 0.0,
            calls: 0,
            scheduling: false,
            looks: 0,
            news: News::default(),
        }
    }

    /// Gives what a right wall clock shows.
    pub fn wall(&self) -> Timestamp {
        self.start + SignedDuration::try_from(self.now).unwrap_or(SignedDuration::MAX)
    }

    /// Lets something happen after a while.
    pub fn after(&mut self, delay: Duration, event: Event) {
        self.numbered += 1;
        let at = self.now + delay;
        self.news.sooner |= self.queue.first_key_value().is_none_or(|((first, _), _)| at < *first);
        self.queue.insert((at, self.numbered), event);
    }

    /// Draws a duration.
    pub fn between(random: &mut ChaCha8Rng, least: Duration, most: Duration) -> Duration {
        if least >= most { least } else { random.random_range(least..most) }
    }

    /// Draws how long a call takes: a change takes seconds where the network is bad.
    /// Most of those that only look, and of those that the lease makes every
    /// few seconds, take no time: the world would do little else.
    pub fn delay(&mut self, reads: bool) -> Duration {
        if !reads && self.late_calls > 0.0 && self.random.latency.random_bool(self.late_calls) {
            return Self::between(&mut self.random.latency, Duration::from_millis(40), LATEST);
        }
        let micros = self.random.latency.random_range(3_000..40_000);
        if reads && micros % 8 != 0 { Duration::ZERO } else { Duration::from_micros(micros) }
    }

    /// Lets the scheduler look soon.
    pub fn wake_scheduler(&mut self) {
        if !self.scheduling {
            self.scheduling = true;
            self.after(Duration::from_millis(20), Event::Schedules);
        }
    }

    /// Notes that the scheduler looks.
    pub fn scheduler_wakes(&mut self) {
        self.scheduling = false;
    }

    /// Tells watchers that a node or a pod has changed.
    pub fn tell_changed(&mut self) {
        self.news.changed = true;
    }

    /// Tells watchers that pods have become unschedulable.
    pub fn tell_urgent(&mut self) {
        self.marks += 1;
        self.news.urgent = true;
    }

    /// Tells those who poll that a message is visible.
    pub fn tell_message(&mut self) {
        self.news.message = true;
    }

    /// Tells whether no operation is under way.
    pub fn is_quiet(&self) -> bool {
        self.table.journal.values().all(|entry| entry.operation.is_over())
    }

    /// Tells the controllers' keepers that there is something for them.
    pub fn tell_thaw(&mut self) {
        self.news.thaw = true;
    }

    /// Asks a controller to end, as SIGTERM does.
    pub fn terminate(&mut self, client: usize) {
        let it = &mut self.clients[client];
        if it.process == Process::Running {
            it.process = Process::Ending;
            self.news.thaw = true;
        }
    }

    /// Ends a controller, as SIGKILL does.
    pub fn kill(&mut self, client: usize) {
        let it = &mut self.clients[client];
        if it.is_alive() {
            it.process = Process::Stopped;
            self.news.killed = true;
            self.note(format_args!("controller {client} is killed"));
        }
    }

    /// Ends a controller that is never started again.
    pub fn kill_for_good(&mut self, client: usize) {
        self.kill(client);
        self.clients[client].process = Process::Over;
    }

    /// Writes a line into the log.
    pub fn note(&mut self, what: std::fmt::Arguments<'_>) {
        let mut line = String::with_capacity(96);
        let seconds = self.now.as_secs();
        let _ = write!(line, "{:>3}:{:02}:{:02}.{:03} {what}", seconds / 3600, seconds / 60 % 60, seconds % 60, self.now.subsec_millis());
        self.log.push(line);
    }

    /// Gives the nearest time at which something happens.
    fn next(&self) -> Option<Duration> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    /// Lets everything happen that is due.
    fn catch_up(&mut self, until: Duration) {
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > until {
                break;
            }
            let ((at, _), event) = entry.remove_entry();
            self.now = at;
            self.happen(event);
        }
        self.looks = if self.now == until { self.looks.saturating_add(1) } else { 0 };
        self.now = until;
        if self.looks == MOST_LOOKS {
            self.violated(9, "a controller goes round without letting time pass".into());
            for client in 0..self.clients.len() {
                self.kill_for_good(client);
            }
        }
    }
}

/// The world, shared by all who live in it.
pub struct Universe {
    begin: Instant,
    truth: Mutex<Truth>,
    sooner: Notify,
    /// A node or a pod has changed.
    pub changed: Notify,
    /// Pods have become unschedulable.
    pub urgent: Notify,
    /// A message is visible.
    pub message: Notify,
    /// A controller was killed, may go on, or is asked for something.
    pub keepers: Notify,
}

impl Universe {
    /// Begins a world now.
    pub fn new(beginning: Beginning) -> Arc<Self> {
        Arc::new(Self {
            begin: Instant::now(),
            truth: Mutex::new(Truth::new(beginning)),
            sooner: Notify::new(),
            changed: Notify::new(),
            urgent: Notify::new(),
            message: Notify::new(),
            keepers: Notify::new(),
        })
    }

    /// Looks at the truth, and changes it perhaps. Whatever is due has happened before.
    pub fn with<T>(&self, act: impl FnOnce(&mut Truth) -> T) -> T {
        let mut truth = self.truth.lock().unwrap_or_else(PoisonError::into_inner);
        truth.catch_up(self.begin.elapsed());
        let outcome = act(&mut truth);
        let news = std::mem::take(&mut truth.news);
        drop(truth);
        self.tell(news);
        outcome
    }

    fn tell(&self, news: News) {
        if news.sooner {
            self.sooner.notify_one();
        }
        if news.changed {
            self.changed.notify_waiters();
        }
        if news.urgent {
            self.urgent.notify_waiters();
        }
        if news.message {
            self.message.notify_waiters();
        }
        if news.killed || news.thaw {
            self.keepers.notify_waiters();
        }
    }

    /// Gives the time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    /// Lets the world live, until it is dropped.
    pub async fn live(self: Arc<Self>) {
        loop {
            let next = self.with(|truth| truth.next());
            let due = async {
                match next {
                    Some(at) => tokio::time::sleep_until(self.begin + at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.sooner.notified() => {}
                () = due => {}
            }
        }
    }
}
