//! What can go wrong: the catalogue, what is planned, and what is wrong just now.

pub mod plan;
mod strike;

use super::prometheus::Trouble;
use crate::model::{InstanceId, NodeName, OfferKey};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// Nothing is planned for later than this, or for longer.
const FARTHEST: Duration = Duration::from_hours(24 * 366);

macro_rules! catalogue {
    ($($variant:ident $number:literal $name:literal $held:literal $expected:literal)*) => {
        /// A fault of the catalogue.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Fault {
            $(#[doc = $expected] $variant,)*
        }

        impl Fault {
            /// All of them, in the order of their numbers.
            pub const ALL: [Self; 59] = [$(Self::$variant),*];

            /// Gives its number.
            #[must_use]
            pub fn number(self) -> usize {
                match self { $(Self::$variant => $number),* }
            }

            /// Gives its name, as the command line takes it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// Names the invariant that it must not break.
            #[must_use]
            pub fn held_by(self) -> &'static str {
                match self { $(Self::$variant => $held),* }
            }

            /// Says what is expected of the daemon.
            #[must_use]
            pub fn expected(self) -> &'static str {
                match self { $(Self::$variant => $expected),* }
            }
        }
    };
}

catalogue! {
    PrometheusDown 1 "prometheus-down" "I6" "Holds; scales up for pending pods only."
    EmptyVector 2 "empty-vector" "I6" "Takes it for missing, not for zero."
    NotANumber 3 "not-a-number" "I6" "Rejects it."
    StaleSample 4 "stale-sample" "I6" "Stops at the age gate."
    PartialScrape 5 "partial-scrape" "I6" "Stops at the coverage gate."
    NetworkBroke 6 "network-broke" "I6" "Is vetoed by readiness although CPU is low."
    OscillatingLoad 7 "oscillating-load" "I10" "Hysteresis and cooldown keep it calm."
    PrometheusRestart 8 "prometheus-restart" "I6" "Waits until rates have warmed up."
    HugeAnswer 9 "huge-answer" "I9" "Stops at the size cap with a typed error."
    StaleList 10 "stale-list" "I4" "Reads again before a change."
    WatchGap 11 "watch-gap" "I10" "Lists anew."
    ApiServerDown 12 "api-server-down" "I6" "Terminates nothing but noticed spot instances."
    PatchConflict 13 "patch-conflict" "I10" "Reads again, with bounded retries."
    CrashBeforeLaunch 14 "crash-before-launch" "I1" "The launch is sent by the successor."
    CrashAfterLaunch 15 "crash-after-launch" "I1" "The same token brings the same instances."
    LaunchLanded 16 "launch-landed" "I1" "Repeats the request and adopts its instances."
    TokenMismatch 17 "token-mismatch" "I1" "Sets the operation aside, with an alert."
    ZoneFailover 18 "zone-failover" "I1" "Begins another operation in another zone."
    DescribeLag 19 "describe-lag" "I2" "Counts what is in flight."
    TerminateNotFound 20 "terminate-not-found" "I8" "Asks EC2 again before it believes it."
    CapacityInOneOffer 21 "capacity-in-one-offer" "I9" "Lets that offer rest and takes the next."
    NoSpotAnywhere 22 "no-spot-anywhere" "I10" "Buys on demand, with an alert."
    PartialFill 23 "partial-fill" "I2" "Counts what really came."
    RequestLimit 24 "request-limit" "I9" "Backs off with jitter; nothing rests."
    VcpuQuota 25 "vcpu-quota" "I9" "Lets the market rest, with an alert."
    AccessDenied 26 "access-denied" "I9" "Is degraded without a hot loop."
    NeverJoins 27 "never-joins" "I8" "Gives it back at its limit; three in a row stop the offer."
    FlappingNode 28 "flapping-node" "I9" "Repairs within bounds."
    HostnameReused 29 "hostname-reused" "I8" "Removes what is in the way, or gives the newcomer back."
    AddressRecycled 30 "address-recycled" "I4" "Goes by the provider id and leaves the stranger alone."
    RemovalRepeated 31 "removal-repeated" "I3" "Removes by id, once."
    OtherActor 32 "other-actor" "I10" "Sees it and makes up for it."
    BudgetNever 33 "budget-never" "I7" "Gives up at the deadline, uncordons, alerts."
    StuckTerminating 34 "stuck-terminating" "I7" "Gives up at the deadline."
    CrashInDrain 35 "crash-in-drain" "I10" "The drain is taken up or taken back."
    InstanceGone 36 "instance-gone" "I8" "Removes the node's object."
    NodeObjectGone 37 "node-object-gone" "I8" "Reaps the instance."
    ManyUnready 38 "many-unready" "I9" "Halts scale-down."
    SpotStorm 39 "spot-storm" "I3" "Drains and replaces all of them."
    DuplicateMessage 40 "duplicate-message" "I1" "Does nothing twice."
    LateMessage 41 "late-message" "I4" "Checks what is true now."
    ForgedMessage 42 "forged-message" "I4" "Checks form and ownership."
    QueueOutage 43 "queue-outage" "I10" "Falls back to what nodes and EC2 show."
    UndeletableMessage 44 "undeletable-message" "I1" "Handles it again without an effect."
    LedgerOutage 45 "ledger-outage" "I5" "Changes nothing past the lease's end."
    RenewalLanded 46 "renewal-landed" "I5" "Finds out by a consistent read."
    LeaderPaused 47 "leader-paused" "I5" "Looks at the lease again before it sends."
    WallClockJumps 48 "wall-clock-jumps" "I5" "Goes by the monotonic clock."
    ClockRunsFast 49 "clock-runs-fast" "I5" "Trusts half the lease only."
    LockDeleted 50 "lock-deleted" "I5" "The epoch never falls, and nobody leads at once."
    Partition 51 "partition" "I1" "Never acts twice."
    MetadataDown 52 "metadata-down" "I9" "Lives on its cached credentials, then backs off."
    BadReload 53 "bad-reload" "I2" "Keeps the last good configuration."
    PauseInOperation 54 "pause-in-operation" "I11" "Finishes it and starts nothing."
    RestartWhilePaused 55 "restart-while-paused" "I11" "Is still paused."
    AdminFlood 56 "admin-flood" "I9" "Takes what its limits allow."
    TagStripped 57 "tag-stripped" "I4" "Refuses to touch it."
    Killed 58 "killed" "I8" "Finds its state in the ledger."
    VersionSkew 59 "version-skew" "I1" "Gives the lease back when it cannot read the records."
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl std::str::FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let by_number = |fault: &Self| text.parse() == Ok(fault.number());
        Self::ALL.into_iter().find(|fault| fault.name() == text || by_number(fault)).ok_or_else(|| {
            let near = Self::ALL.into_iter().max_by(|a, b| {
                let likeness = |fault: &Self| strsim::jaro_winkler(fault.name(), text);
                likeness(a).total_cmp(&likeness(b))
            });
            let hint = near.map(|fault| format!("; did you mean `{fault}`?")).unwrap_or_default();
            format!("`{text}` is no fault of the catalogue (a name, or a number from 1 to 59){hint}")
        })
    }
}

/// A fault that will come. Its text is one like `spot-storm@35480s+53s`: which, when it begins, how long it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Which.
    pub fault: Fault,
    /// When it begins.
    pub at: Duration,
    /// How long it lasts; some are over at once.
    pub lasts: Duration,
}

impl fmt::Display for Planned {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}@{}+{}", self.fault, in_seconds(self.at), in_seconds(self.lasts))
    }
}

impl std::str::FromStr for Planned {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            let most = in_seconds(FARTHEST);
            format!("`{text}` must be a fault, when it begins and how long it lasts (at most {most}), like `spot-storm@35480s+53s`")
        };
        let (fault, times) = text.split_once('@').ok_or_else(wrong)?;
        let (at, lasts) = times.split_once('+').ok_or_else(wrong)?;
        Ok(Self { fault: fault.parse()?, at: seconds(at).ok_or_else(wrong)?, lasts: seconds(lasts).ok_or_else(wrong)? })
    }
}

/// Writes a time in seconds, to the last nanosecond.
fn in_seconds(time: Duration) -> String {
    let fraction = format!(".{:09}", time.subsec_nanos());
    format!("{}{}s", time.as_secs(), fraction.trim_end_matches('0').trim_end_matches('.'))
}

/// Reads a time that was written in seconds.
fn seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.strip_suffix('s').map(|number| number.split_once('.').unwrap_or((number, "0")))?;
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanos = format!("{fraction:0<9}").parse().ok()?;
    Some(Duration::new(whole.parse().ok()?, nanos)).filter(|time| *time <= FARTHEST)
}

/// What the controllers' keepers are asked to do, since it is not the world's to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Pause the fleet.
    Pause,
    /// Resume it.
    Resume,
    /// Flood the operators' door.
    Flood,
    /// Reload a configuration that is bad.
    BadReload,
}

/// What is planned and what is wrong just now.
#[derive(Debug)]
pub struct Faults {
    plan: Vec<Planned>,
    active: BTreeMap<Fault, u32>,
    /// How often each fault has changed what happened.
    hits: BTreeMap<Fault, u64>,
    /// What each planned fault has to take back.
    undo: BTreeMap<usize, Undo>,
    /// Names that the next machines register under.
    borrowed_names: BTreeMap<InstanceId, NodeName>,
    /// What the controllers' keepers have to do.
    pub requests: Vec<Request>,
    /// When a fault last was wrong.
    pub last: Duration,
}

/// What has to be taken back at a fault's end.
#[derive(Clone, Debug)]
enum Undo {
    /// These offers have capacity again.
    Capacity(Vec<OfferKey>),
    /// The account may launch again.
    Quota,
    /// Requests are filled again.
    Fill,
    /// Lists are up to date again.
    Lag,
    /// These nodes are well again.
    Health(Vec<NodeName>),
    /// Budgets allow what they say again.
    Budgets,
    /// This controller goes on.
    Thaw(usize),
    /// This controller reaches the ledger again.
    Reconnect(usize),
    /// This controller's monotonic clock runs as it should again.
    Rate(usize),
    /// Wall clocks are right again.
    WallClocks,
    /// Watches see again.
    Watches,
    /// Controllers die no more of this fault.
    Crashes(Fault),
    /// An operator resumes the fleet.
    Resume,
}

impl Faults {
    /// Plans faults.
    pub fn new(plan: Vec<Planned>) -> Self {
        Self {
            plan,
            active: BTreeMap::new(),
            hits: BTreeMap::new(),
            undo: BTreeMap::new(),
            borrowed_names: BTreeMap::new(),
            requests: Vec::new(),
            last: Duration::ZERO,
        }
    }

    /// Lists when planned faults begin, by their place in the plan.
    pub fn beginnings(&self) -> Vec<(usize, Duration)> {
        self.plan.iter().enumerate().map(|(index, planned)| (index, planned.at)).collect()
    }

    /// Gives a planned fault.
    pub fn planned(&self, index: usize) -> Planned {
        self.plan[index]
    }

    /// Tells whether a fault is wrong just now.
    pub fn is_on(&self, fault: Fault) -> bool {
        self.active.contains_key(&fault)
    }

    /// Gives the latest planned fault of a kind that is wrong at this moment.
    pub fn current(&self, fault: Fault, now: Duration) -> Option<Planned> {
        let is_on = |planned: &&Planned| planned.fault == fault && planned.at <= now && now < planned.at + planned.lasts;
        self.plan.iter().rfind(is_on).copied()
    }

    /// Tells whether anything is wrong just now.
    pub fn any(&self) -> bool {
        !self.active.is_empty()
    }

    /// Notes that a fault has changed what happened.
    pub fn hit(&mut self, fault: Fault) {
        *self.hits.entry(fault).or_default() += 1;
    }

    /// Tells how often a fault has changed what happened.
    pub fn hits(&self, fault: Fault) -> u64 {
        self.hits.get(&fault).copied().unwrap_or(0)
    }

    /// Tells whether a fault strikes now, with this chance, and notes it.
    pub fn strikes(&mut self, fault: Fault, chance: f64, random: &mut ChaCha8Rng) -> bool {
        let struck = self.is_on(fault) && random.random_bool(chance);
        if struck {
            self.hit(fault);
        }
        struck
    }

    /// Tells what is wrong with Prometheus.
    pub fn prometheus(&mut self, now: Duration) -> Option<Trouble> {
        let stale = if (now.as_secs() / 240).is_multiple_of(2) { Trouble::Stale } else { Trouble::Future };
        let troubles = [
            (Fault::PrometheusDown, Trouble::Down),
            (Fault::HugeAnswer, Trouble::Huge),
            (Fault::EmptyVector, Trouble::Empty),
            (Fault::NotANumber, Trouble::Nan),
            (Fault::StaleSample, stale),
            (Fault::PartialScrape, Trouble::Partial),
            (Fault::PrometheusRestart, Trouble::Restarted),
        ];
        let (fault, trouble) = troubles.into_iter().find(|(fault, _)| self.is_on(*fault))?;
        self.hit(fault);
        Some(trouble)
    }

    /// Gives what the demand of every workload is multiplied by.
    pub fn load_factor(&mut self, now: Duration) -> f64 {
        if !self.is_on(Fault::OscillatingLoad) {
            return 1.0;
        }
        self.hit(Fault::OscillatingLoad);
        if (now.as_secs() / 360).is_multiple_of(2) { 0.4 } else { 1.8 }
    }

    /// Gives the share of the load that reaches the pods.
    pub fn traffic(&self) -> f64 {
        if self.is_on(Fault::NetworkBroke) { 0.02 } else { 1.0 }
    }

    /// Tells whether a machine that starts now will become a node.
    pub fn lets_join(&mut self) -> bool {
        if self.is_on(Fault::NeverJoins) {
            self.hit(Fault::NeverJoins);
            return false;
        }
        true
    }

    /// Gives the name that a machine registers under, where that is not its own.
    pub fn name_for(&self, id: &InstanceId) -> Option<NodeName> {
        self.borrowed_names.get(id).cloned()
    }

    /// Lets a machine register under another's name.
    pub fn lend_name(&mut self, id: &InstanceId, name: NodeName) {
        self.borrowed_names.insert(id.clone(), name);
    }

    /// Notes that a node was refused for its name.
    pub fn refused_join(&mut self) {
        self.hit(Fault::HostnameReused);
    }

    /// Tells whether a pod's end does not come.
    pub fn keeps_from_ending(&mut self) -> bool {
        if self.is_on(Fault::StuckTerminating) {
            self.hit(Fault::StuckTerminating);
            return true;
        }
        false
    }

    /// Tells whether a workload's budget allows nothing.
    pub fn forbids_evictions(&self) -> bool {
        self.is_on(Fault::BudgetNever)
    }

    /// Gives how much later than usual a message comes.
    pub fn message_delay(&mut self, random: &mut ChaCha8Rng) -> Duration {
        if !self.is_on(Fault::LateMessage) {
            return Duration::ZERO;
        }
        self.hit(Fault::LateMessage);
        Duration::from_secs(random.random_range(90..1800))
    }

    /// Gives how often a message comes.
    pub fn message_copies(&mut self, random: &mut ChaCha8Rng) -> u32 {
        if !self.is_on(Fault::DuplicateMessage) {
            return 1;
        }
        self.hit(Fault::DuplicateMessage);
        random.random_range(2..4)
    }

    /// Lists the faults that are wrong now.
    pub fn active(&self) -> BTreeSet<Fault> {
        self.active.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_complete_and_every_name_is_read() {
        for (place, fault) in Fault::ALL.into_iter().enumerate() {
            assert_eq!(fault.number(), place + 1, "{fault}");
            assert_eq!(fault.name().parse(), Ok(fault));
            assert_eq!(fault.number().to_string().parse(), Ok(fault));
        }
        let error = "spot-strom".parse::<Fault>().expect_err("no such fault");
        assert!(error.contains("did you mean `spot-storm`"), "{error}");
    }

    #[test]
    fn what_is_planned_is_read_as_it_is_written() {
        let storm = |at, lasts| Planned { fault: Fault::SpotStorm, at, lasts };
        let rows = [
            (storm(Duration::from_secs(35_480), Duration::from_secs(53)), "spot-storm@35480s+53s"),
            (storm(Duration::new(35_480, 120_000_007), Duration::from_millis(500)), "spot-storm@35480.120000007s+0.5s"),
            (storm(Duration::ZERO, FARTHEST), "spot-storm@0s+31622400s"),
        ];
        for (planned, text) in rows {
            assert_eq!(planned.to_string(), text);
            assert_eq!(text.parse(), Ok(planned));
        }
    }

    #[test]
    fn a_plan_that_makes_no_sense_is_named() {
        let wrong =
            ["", "spot-storm", "spot-storm@5s", "spot-storm@5+5", "spot-storm@-5s+5s", "spot-storm@5s+31622401s", "spot-storm@5.s+5s"];
        for text in wrong {
            let error = text.parse::<Planned>().expect_err(text);
            assert!(error.contains(&format!("`{text}`")) && error.contains("`spot-storm@35480s+53s`"), "{error}");
        }
        let error = "spot-strom@5s+5s".parse::<Planned>().expect_err("no such fault");
        assert!(error.contains("`spot-strom`") && error.contains("`spot-storm`"), "{error}");
    }
}
