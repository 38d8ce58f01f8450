//! This daemon in a replay: its forecast, its rules, its rests and its configuration, turn by turn.

use super::board::Board;
use super::foresight::Foresight;
use super::policies::{Policy, View};
use crate::model::prospect::{Prospect, Wanted};
use crate::model::{Bytes, Memory, MilliCpu, PoolName, Resources, RuleName};
use crate::policy::forecast::{ForecastSettings, Forecaster, Minute, Rests, boot_minutes, whole_nodes as nodes};
use crate::policy::uniform::{self, Cause, Moves, Sight};
use crate::policy::{PredictiveMode, Settings};
use jiff::{SignedDuration, Timestamp};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

/// So many launches of the pool tell how long a boot takes, as in the daemon.
const BOOTS_KEPT: usize = 20;
/// Turns that are made more often than this are made once a minute.
const SHORTEST_INTERVAL: Duration = Duration::from_mins(1);

/// What the operator has configured, as far as a replay of one demand shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Operator {
    settings: Settings,
    rule: RuleName,
    /// What pods use of the CPU that they request, 0 to 1.
    pub cpu_use: f64,
    /// Over so many minutes the CPU in use is averaged, as the query's `rate` does.
    pub window: usize,
}

impl Operator {
    /// Takes the settings of one pool, or `None` where there is no such pool. `rule` is the `[[forecast]]` whose demand is
    /// replayed; others, headroom, greatest ages and replacements are left out, since one number of demand does not show them.
    #[must_use]
    pub fn new(settings: &Settings, pool: &PoolName, rule: &RuleName) -> Option<Self> {
        let mut settings = settings.clone();
        settings.pools.retain(|it| it.name == *pool);
        let only = settings.pools.first_mut()?;
        (only.spot_share, only.max_node_age) = (0.0, None);
        only.headroom.clear();
        settings.metrics.retain(|it| it.pool == *pool);
        settings.forecasts.retain(|it| it.pool == *pool && it.name == *rule);
        settings.replacement = None;
        settings.interval = settings.interval.max(SHORTEST_INTERVAL);
        // A boot that is longer is refused before the replay; what is late here is late by the minute's rounding.
        settings.join_timeout = settings.join_timeout.saturating_add(SHORTEST_INTERVAL);
        Some(Self { settings, rule: rule.clone(), cpu_use: 0.4, window: 5 })
    }

    /// Gives what is decided by.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Gives how a demand in nodes is forecast whose launches take so many minutes.
    pub(super) fn forecast(&self, boot: usize) -> ForecastSettings {
        let predictive = &self.settings.predictive;
        ForecastSettings {
            node: 1.0,
            boot,
            price_of_waiting: predictive.price_of_waiting,
            rests: Rests::of(&self.settings),
            zone: predictive.zone.clone(),
        }
    }

    /// Changes what is decided by, but for what a replay leaves out.
    pub fn settings_mut(&mut self) -> &mut Settings {
        &mut self.settings
    }
}

/// How the turns are decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Path {
    /// By the daemon's own plan, on a cluster made of the replay's counts.
    Plan,
    /// By [`uniform::turn`], which decides the same from the counts alone, and is made for long recordings.
    Counts,
}

/// A turn that changed the fleet.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Step {
    /// The minute of the replay.
    pub minute: usize,
    /// Why.
    pub cause: Cause,
    /// Nodes that were launched; below zero, given back.
    pub nodes: i64,
    /// Demand of the last full minute, in nodes.
    pub demand: f32,
    /// Nodes that served.
    pub ready: u32,
    /// What the forecast wanted, where it had a say.
    pub wanted: Option<Wanted>,
}

/// Who forecasts.
#[derive(Debug)]
enum Source {
    /// Nobody.
    Nobody,
    /// The daemon itself, as it does in production.
    Own(Box<Forecaster>),
    /// What was said before, for many replays of one demand.
    Before(Rc<Foresight>),
}

/// The daemon: asked every minute, it makes a turn when its evaluation is due, and at once for pods that wait.
///
/// A turn sees the demand of the last full minute as pods that fill a node each, the CPU that they use, and what its own
/// forecast says, made as the daemon makes it: with the boot time that its launches have shown,
/// and without a say until it is trusted. A drain takes no time here, and no offer runs out.
#[derive(Debug)]
pub struct Daemon {
    operator: Operator,
    node: Resources,
    price: u64,
    source: Source,
    start: Minute,
    memory: Memory,
    board: Option<Board>,
    prospect: Prospect,
    /// Demand that was served, of the last minutes.
    served: VecDeque<f64>,
    before: (u32, u32),
    retired: Option<usize>,
    /// What changed the fleet, turn by turn.
    pub steps: Vec<Step>,
}

impl Daemon {
    /// Makes one for a demand in nodes whose first value is of minute `start`. Forecasts that only watch are not made.
    #[must_use]
    pub fn new(operator: &Operator, dollars_per_hour: f64, start: Minute, path: Path) -> Self {
        let settings = &operator.settings;
        let predictive = &settings.predictive;
        let boot = boot_minutes(&[], predictive.boot);
        let acts = match predictive.mode {
            PredictiveMode::On | PredictiveMode::Auto => !settings.forecasts.is_empty(),
            PredictiveMode::Shadow | PredictiveMode::Off => false,
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a price of some dollars")]
        let price = (dollars_per_hour * 1e6).round() as u64;
        Self {
            source: if acts { Source::Own(Box::new(Forecaster::new(operator.forecast(boot)))) } else { Source::Nobody },
            node: Resources { cpu: MilliCpu(1000), memory: Bytes(1 << 30), pods: 110, ..Resources::default() },
            price,
            start,
            memory: Memory::default(),
            board: (path == Path::Plan).then(Board::default),
            prospect: Prospect { wanted: None, blind_since: None, on_trial: true, evidence: String::new() },
            served: VecDeque::new(),
            before: (0, 0),
            retired: None,
            steps: Vec::new(),
            operator: operator.clone(),
        }
    }

    /// Takes what was forecast before in place of its own forecasts, where it makes any.
    pub(super) fn foreseeing(mut self, foresight: &Rc<Foresight>) -> Self {
        self.source = match self.source {
            Source::Nobody => Source::Nobody,
            Source::Own(_) | Source::Before(_) => Source::Before(Rc::clone(foresight)),
        };
        self
    }

    /// Gives what it has learnt of the demand; `None` where it forecasts nothing itself.
    #[must_use]
    pub fn forecaster(&self) -> Option<&Forecaster> {
        match &self.source {
            Source::Own(forecaster) => Some(forecaster),
            Source::Nobody | Source::Before(_) => None,
        }
    }

    fn forecasts(&self) -> bool {
        match self.source {
            Source::Own(_) | Source::Before(_) => true,
            Source::Nobody => false,
        }
    }

    /// Gives what it remembers from turn to turn.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Lists plans that its audit refused; there should be none.
    #[must_use]
    pub fn violations(&self) -> &[String] {
        self.board.as_ref().map_or(&[], |board| &board.violations)
    }

    fn pool(&self) -> PoolName {
        self.operator.settings.pools.first().map(|pool| pool.name.clone()).unwrap_or_default()
    }

    /// Learns how long its launches took.
    fn learn_boots(&mut self, view: &View) {
        let ended = view.fleet.over().iter().filter(|batch| batch.failed == 0).map(|batch| batch.slowest);
        let mut ended = ended.peekable();
        if ended.peek().is_some() {
            let pool = self.pool();
            let boots = &mut self.memory.pools.entry(pool).or_default().boots;
            boots.extend(ended);
            boots.drain(..boots.len().saturating_sub(BOOTS_KEPT));
        }
    }

    fn is_due(&self, minute: usize) -> bool {
        let interval = usize::try_from(self.operator.settings.interval.as_secs()).unwrap_or(usize::MAX).max(1);
        minute * 60 / interval > (minute - 1) * 60 / interval
    }

    /// Reads on, and says what the demand leads to.
    fn foresee(&mut self, minute: usize) {
        let settings = &self.operator.settings;
        let boots = settings.pools.first().and_then(|pool| self.memory.pools.get(&pool.name)).map_or(&[][..], |pool| &pool.boots);
        let boot = boot_minutes(boots, settings.predictive.boot);
        let (wanted, blind) = match &mut self.source {
            Source::Nobody => return,
            Source::Own(forecaster) => {
                forecaster.set(self.operator.forecast(boot));
                self.prospect.on_trial = forecaster.missing_to_a_week() > 0;
                forecaster.say(self.start.plus(minute as i64))
            }
            Source::Before(foresight) => {
                self.prospect.on_trial = false;
                foresight.say(boot, Rests::of(settings).every, minute)
            }
        };
        let now = self.time(minute);
        self.prospect.wanted = wanted;
        self.prospect.blind_since = blind.then(|| self.prospect.blind_since.unwrap_or(now));
    }

    fn time(&self, minute: usize) -> Timestamp {
        self.start.plus(minute as i64).begin()
    }

    /// Gives the share of the serving nodes' CPU that is in use.
    fn cpu(&self, ready: u32) -> f64 {
        let mean = self.served.iter().sum::<f64>() / self.served.len().max(1) as f64;
        (self.operator.cpu_use * mean / f64::from(ready.max(1))).min(1.0)
    }

    fn turn(&mut self, view: &View, launched: u32, full: bool) -> Moves {
        let minute = view.now();
        let now = self.time(minute);
        let settings = &self.operator.settings;
        let youngest = SignedDuration::try_from(settings.scale_down.min_node_age).unwrap_or(SignedDuration::MAX);
        let is_grown = |since: i64| SignedDuration::from_mins(minute as i64 - since) >= youngest;
        let sight = Sight {
            ready: view.ready(),
            grown: view.fleet.joined().take_while(|joined| is_grown(joined.minute)).map(|joined| joined.all - joined.gone).sum(),
            booting: view.have() - view.ready() + launched,
            pods: nodes(view.last()),
            cpu: full.then(|| self.cpu(view.ready())),
            prospect: self.forecasts().then_some((&self.operator.rule, &self.prospect)),
            displaces: self.retired.is_some_and(|retired| minute - retired <= 1),
            node: &self.node,
            price: self.price,
        };
        match &mut self.board {
            Some(board) => board.turn(settings, &sight, view.fleet, minute as i64, &mut self.memory, now),
            None => {
                let pool = settings.pools.first().map(|pool| pool.name.clone()).unwrap_or_default();
                uniform::turn(settings, &sight, self.memory.pools.entry(pool).or_default(), now)
            }
        }
    }

    fn note(&mut self, view: &View, moves: &Moves) {
        let wanted = self.prospect.wanted.filter(|_| self.forecasts());
        #[expect(clippy::cast_possible_truncation, reason = "it was single precision before")]
        let (demand, ready) = (view.last() as f32, view.ready());
        let mut step = |cause, nodes| self.steps.push(Step { minute: view.now(), cause, nodes, demand, ready, wanted });
        moves.launches.iter().for_each(|(cause, nodes)| step(*cause, i64::from(*nodes)));
        moves.retires.iter().for_each(|(cause, nodes)| step(*cause, -i64::from(*nodes)));
    }
}

impl Policy for Daemon {
    fn decide(&mut self, view: &View) -> Wanted {
        let minute = view.now();
        if let Source::Own(forecaster) = &mut self.source
            && view.measured
        {
            // Demand that was read is finite and not negative, and minutes come in order: nothing is refused.
            let taken = forecaster.observe(self.start.plus(minute as i64 - 1), view.last());
            debug_assert!(taken.is_ok(), "{taken:?}");
        }
        self.learn_boots(view);
        let (pods, waits) = (nodes(view.last()), nodes(view.last()).saturating_sub(view.ready()));
        let comes = waits > 0 && (pods > self.before.0 || waits > self.before.1);
        self.before = (pods, waits);
        let mut launched = 0;
        if comes {
            let moves = self.turn(view, 0, false);
            launched = moves.launched();
            self.note(view, &moves);
        }
        if self.served.len() >= self.operator.window.max(1) {
            self.served.pop_front();
        }
        self.served.push_back(view.last().min(f64::from(view.served)));
        let mut retired = 0;
        if self.is_due(minute) {
            self.foresee(minute);
            let moves = self.turn(view, launched, true);
            (launched, retired) = (launched + moves.launched(), moves.retired());
            self.note(view, &moves);
        }
        if retired > 0 {
            self.retired = Some(minute);
        }
        Wanted { buy: if launched > 0 { view.have() + launched } else { 0 }, hold: view.have() - retired }
    }
}
