//! Sees demand coming: how many nodes to have, from one number a minute.
//!
//! ```text
//! observe ─► history ─► features ─► ridge, for each horizon ─► centre ─┐
//!               │                   how wrong it lately was ─► quantiles ├─► ways ─► portfolio ─► advise
//!               └───────────────────────────────────────────────────────┘   each lived through on paper
//! ```
//!
//! One demand (the cores or bytes of a pool) has one [`Forecaster`]. It is told each full minute and says how many
//! nodes should be bought for and how many held. It is a value: no clock, no randomness. Whoever takes over observes
//! the [`DemandHistory`] again, which the ledger keeps: a second's work for 28 days, and it knows what the one before knew.
//!
//! Forecasts are of changes, from levels, slopes, the days before by the operator's clock, the same minute of the hours before; a regression
//! learns them row by row and forgets over weeks. Their distribution is that of their own recent errors in units of
//! the size that was expected of them, and what is asked of it follows the coverage that was seen: what says 0.95 holds
//! in 95 of 100 minutes, whatever the demand does.
//!
//! Above it stand the [`Way`]s to follow a demand, reactive ones among them. All are lived through on paper, with the
//! [`Rests`] of the real fleet, and each hour each layer of nodes follows the one that was cheapest at the operator's
//! price of waiting. Where a forecast is no better than the naive ones ([`Record`]) and no way that needs it was cheaper
//! than those that do not, it steps back, and the reactive ways are among themselves; so it does where it is far worse.

#![expect(clippy::cast_precision_loss, clippy::cast_possible_wrap, reason = "minutes and nodes are far below 2^52")]

mod boots;
mod calendar;
mod candidates;
mod features;
mod history;
mod packed;
mod portfolio;
mod predictor;
mod residuals;
mod ridge;
mod score;
mod shadow;

pub use boots::{boot_minutes, boot_time};
pub use candidates::{Way, whole_nodes};
pub use history::{DemandHistory, KEPT, Minute, Refused};
pub use packed::Damaged;
pub use portfolio::{Cost, Following};
pub use score::{Record, SCORED, Score};
pub use shadow::Rests;

use crate::model::prospect::Wanted;
use candidates::{Ladder, Scene, highest, interpolated, lead};
use features::{FARTHEST, Past};
use jiff::tz::TimeZone;
use portfolio::Portfolio;
use predictor::{LEVELS, Outlook, Predictor};
use score::{Said, Scorer};
use serde::Serialize;
use std::collections::VecDeque;

/// Forecasts of a history shorter than this, in minutes, are not used.
const LEARNS_FOR: usize = 360;
/// So many minutes of its demand a forecast that acts of itself must have seen: each day of the week once.
pub const TRIAL: usize = 7 * 1440;
/// Demand for more nodes is of another unit than the node's.
const MOST_NODES: f64 = 1e6;
/// Without a value for longer than this, in minutes, nothing is said.
const BLIND_AFTER: i64 = 10;
/// The model is fitted anew once in so many minutes: that costs less than a millisecond.
const FITTED_EVERY: u64 = 60;
/// The distribution of errors is brought up to date once in so many minutes.
const SETTLED_EVERY: u64 = 15;

/// How a demand is followed.
#[derive(Debug, Clone, PartialEq)]
pub struct ForecastSettings {
    /// Demand that one node serves, in the unit of the demand; above zero.
    pub node: f64,
    /// Minutes from a launch to a ready node, 1 to 29; beyond that as with 29.
    pub boot: usize,
    /// What a node-minute of unmet demand costs in node-minutes.
    pub price_of_waiting: f64,
    /// How the fleet is left alone between changes.
    pub rests: Rests,
    /// By whose clock the days of the demand run.
    pub zone: TimeZone,
}

impl ForecastSettings {
    /// Counts the minutes until a node is there that the next evaluation asks for.
    fn replaced_in(&self) -> usize {
        self.boot.clamp(1, FARTHEST - 1).saturating_add(self.rests.every).min(FARTHEST)
    }

    /// Counts the minutes from the latest one that is known to the one that is bought for. It is also the one that is
    /// scored.
    fn reach(&self) -> usize {
        lead(self.replaced_in())
    }
}

/// Whether the forecast takes part in the decision, and why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "standing")]
pub enum Standing {
    /// It has earned its place.
    Trusted,
    /// There is too little history; the reactive ways are among themselves.
    Learning {
        /// When there will be enough, if no minute is missed; `None` before the first.
        ready_at: Option<Minute>,
    },
    /// It was worse than the naive ones lately and did not pay, or far worse; the reactive ways are among themselves.
    Demoted,
    /// The latest value is too old to say anything.
    Blind {
        /// The latest minute that is known.
        latest: Minute,
    },
}

impl Standing {
    /// Tells whether the forecast has a say: it knows enough of the past, and has earned its place.
    #[must_use]
    pub fn may_act(self) -> bool {
        match self {
            Self::Trusted => true,
            Self::Learning { .. } | Self::Demoted | Self::Blind { .. } => false,
        }
    }

    /// Tells whether the demand is not known.
    #[must_use]
    pub fn is_blind(self) -> bool {
        match self {
            Self::Blind { .. } | Self::Learning { ready_at: None } => true,
            Self::Trusted | Self::Demoted | Self::Learning { ready_at: Some(_) } => false,
        }
    }
}

/// What is expected of a minute to come.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Expected {
    /// The minute.
    pub minute: Minute,
    /// The centre of what is expected, in units of demand.
    pub centre: f64,
    /// What demand stays below in 90 of 100 minutes.
    pub quantile_90: f64,
    /// What demand stays below in 95 of 100 minutes.
    pub quantile_95: f64,
}

/// What to do in this minute, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Advice {
    /// How many nodes there should be; `None` while nothing can be said.
    pub want: Option<Wanted>,
    /// Whether the forecast takes part.
    pub standing: Standing,
    /// What is expected of the minute that is bought for: a boot and an evaluation ahead.
    pub expected: Option<Expected>,
    /// Which nodes follow which way.
    pub following: Vec<Following>,
    /// How the forecast did beside the naive ones.
    pub record: Record,
    /// What this advice has cost lately.
    pub cost: Cost,
    /// The reactive way that would have cost least lately, and what.
    pub best_reactive: Option<(Way, Cost)>,
}

impl std::fmt::Display for Advice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.standing {
            Standing::Trusted => {}
            Standing::Learning { ready_at: Some(minute) } => write!(f, "learning until {}; ", minute.begin())?,
            Standing::Learning { ready_at: None } => return write!(f, "no demand is known"),
            Standing::Demoted => {
                write!(f, "the forecast loses {:.2} times what a naive one does and stands back; ", self.record.relative_loss())?;
            }
            Standing::Blind { latest } => return write!(f, "no demand is known since {}", latest.begin()),
        }
        if let Some(expected) = self.expected {
            write!(f, "expects {:.1}, at most {:.1} (95 %); ", expected.centre, expected.quantile_95)?;
        }
        if let Some(want) = self.want {
            write!(f, "buys for {} and holds {} nodes", want.buy, want.hold)?;
        }
        for following in &self.following {
            write!(f, "; nodes {} to {}: {}", following.from + 1, following.to, following.way)?;
        }
        Ok(())
    }
}

/// Follows one demand.
#[derive(Debug, Clone)]
pub struct Forecaster {
    settings: ForecastSettings,
    history: DemandHistory,
    past: Past,
    predictor: Predictor,
    outlooks: Vec<Outlook>,
    scorer: Scorer,
    /// What was said of the minutes to come, the next one first.
    said: VecDeque<Said>,
    portfolio: Portfolio,
    minutes: u64,
    want: Wanted,
}

impl Forecaster {
    /// Makes one that knows nothing yet.
    #[must_use]
    pub fn new(settings: ForecastSettings) -> Self {
        Self {
            past: Past::new(settings.zone.clone()),
            settings,
            history: DemandHistory::default(),
            predictor: Predictor::new(),
            outlooks: Vec::new(),
            scorer: Scorer::new(),
            said: VecDeque::new(),
            portfolio: Portfolio::new(),
            minutes: 0,
            want: Wanted::default(),
        }
    }

    /// Makes one that has observed a history.
    #[must_use]
    pub fn from_history(settings: ForecastSettings, history: &DemandHistory) -> Self {
        let mut forecaster = Self::new(settings);
        for (minute, value) in history.iter() {
            let taken = forecaster.observe(minute, value);
            debug_assert!(taken.is_ok(), "a history holds demand in order: {taken:?}");
        }
        forecaster
    }

    /// Changes what nodes are like or what waiting costs. Records of the ways are kept, unless the size of a node
    /// changes: then they are of another fleet.
    pub fn set(&mut self, settings: ForecastSettings) {
        if (settings.node - self.settings.node).abs() > f64::EPSILON * self.settings.node {
            self.portfolio = Portfolio::new();
        }
        if settings.reach() != self.settings.reach() {
            self.said.clear();
        }
        self.past.set_zone(&settings.zone);
        self.settings = settings;
    }

    /// Takes the demand of a full minute. Minutes left out are a gap: in it, levels stay and nothing is learnt.
    ///
    /// # Errors
    /// When the minute is not after the latest one, or the value is no demand; then nothing is changed.
    pub fn observe(&mut self, minute: Minute, value: f64) -> Result<(), Refused> {
        if value > MOST_NODES * self.settings.node {
            return Err(Refused::Absurd { value });
        }
        let before = self.history.latest();
        self.history.observe(minute, value)?;
        // As it is kept, so that whoever observes the history again computes with the same numbers.
        let value = self.history.carried(minute).unwrap_or(value);
        let missing = before.map_or(0, |latest| usize::try_from(minute.0 - latest.0 - 1).unwrap_or(usize::MAX));
        if missing >= KEPT {
            // Nothing of what was before is comparable, and the history has begun anew.
            let history = std::mem::take(&mut self.history);
            *self = Self { history, ..Self::new(self.settings.clone()) };
            self.pass(1, minute, Some(value));
            return Ok(());
        }
        let span = self.history.span();
        for (at, ago) in (span - missing..span).zip((1..=missing).rev()) {
            self.pass(at, minute.plus(-(ago as i64)), None);
        }
        self.pass(span, minute, Some(value));
        Ok(())
    }

    /// Lets a minute pass, the last of the first `span` of the history.
    fn pass(&mut self, span: usize, minute: Minute, value: Option<f64>) {
        let levels = &self.history.levels()[..span];
        self.past.advance(levels, minute);
        self.predictor.learn(value);
        let reach = self.settings.reach();
        let said = (self.said.len() >= reach).then(|| self.said.pop_front()).flatten();
        if let Some(value) = value {
            self.portfolio.charge(value / self.settings.node);
            if let Some(said) = said {
                self.scorer.score(&said, value, self.settings.node);
            }
        }
        if self.minutes.is_multiple_of(FITTED_EVERY) {
            self.predictor.fit();
        }
        if self.minutes.is_multiple_of(SETTLED_EVERY) {
            self.predictor.settle();
        }
        self.minutes += 1;
        self.outlooks = self.predictor.look(&self.past, levels);
        let knows = span >= LEARNS_FOR;
        if knows {
            let quantiles = SCORED.map(|level| self.quantile(reach, level));
            let then = span - 1 + reach;
            let yesterday = self.past.days_before(levels, then, 1).map(|at| f64::from(levels[at]));
            self.said.push_back(Said { quantiles, persistence: f64::from(levels[span - 1]), seasonal: yesterday });
        }
        let ForecastSettings { node, boot, price_of_waiting: price, rests, .. } = self.settings;
        let boot = boot.clamp(1, FARTHEST - 1);
        let (replaced_in, outlooks) = (self.settings.replaced_in(), if knows { &self.outlooks[..] } else { &[] });
        let scene = Scene {
            highest: highest(levels),
            node,
            boot,
            replaced_in,
            price,
            rests,
            is_due: rests.is_due(minute.plus(1)),
            ladder: Ladder::of(&self.predictor, outlooks, node, replaced_in, price),
            outlooks,
        };
        self.want = self.portfolio.decide(&scene, self.is_trusted());
    }

    /// Says how many nodes there should be in a minute, from what was observed before it; `None` while nothing can be
    /// said, and then what there is should stay.
    #[must_use]
    pub fn want(&self, now: Minute) -> Option<Wanted> {
        match self.standing(now) {
            Standing::Trusted | Standing::Demoted | Standing::Learning { ready_at: Some(_) } => Some(self.want),
            Standing::Learning { ready_at: None } | Standing::Blind { .. } => None,
        }
    }

    /// Gives what is wanted where the forecast may take part, and whether it may not because the demand is not known.
    #[must_use]
    pub fn say(&self, now: Minute) -> (Option<Wanted>, bool) {
        let standing = self.standing(now);
        (self.want(now).filter(|_| standing.may_act()), standing.is_blind())
    }

    /// Says what to do in a minute, and why.
    #[must_use]
    pub fn advise(&self, now: Minute) -> Advice {
        let want = self.want(now);
        Advice {
            want,
            standing: self.standing(now),
            expected: self.expect(self.settings.reach()).filter(|_| want.is_some()),
            following: self.portfolio.following(want.map_or(0, |want| want.hold)),
            record: self.scorer.record(),
            cost: self.portfolio.own_cost(),
            best_reactive: self.portfolio.best_reactive(self.settings.price_of_waiting),
        }
    }

    /// Tells whether the forecast takes part in the decisions of a minute, and why not.
    #[must_use]
    pub fn standing(&self, now: Minute) -> Standing {
        match self.history.latest() {
            None => Standing::Learning { ready_at: None },
            Some(latest) if now.0 - latest.0 > BLIND_AFTER => Standing::Blind { latest },
            Some(latest) if self.history.span() < LEARNS_FOR || self.scorer.is_new() => {
                let missing = LEARNS_FOR.saturating_sub(self.history.span()) as i64;
                Standing::Learning { ready_at: Some(latest.plus(missing + self.scorer.missing())) }
            }
            Some(_) if self.is_trusted() => Standing::Trusted,
            Some(_) => Standing::Demoted,
        }
    }

    /// Counts the minutes of demand that are missing to a week, which a forecast that acts of itself must have seen.
    #[must_use]
    pub fn missing_to_a_week(&self) -> usize {
        TRIAL.saturating_sub(self.history.measured())
    }

    /// Gives what is expected so many minutes after the latest one, 1 to 30; `None` while it learns.
    #[must_use]
    pub fn expect(&self, ahead: usize) -> Option<Expected> {
        let latest = self.history.latest().filter(|_| self.history.span() >= LEARNS_FOR && (1..=FARTHEST).contains(&ahead))?;
        Some(Expected {
            minute: latest.plus(ahead as i64),
            centre: interpolated(ahead, |place| self.outlooks[place].centre),
            quantile_90: self.quantile(ahead, SCORED[0]),
            quantile_95: self.quantile(ahead, SCORED[1]),
        })
    }

    /// Gives how the forecast did beside the naive ones.
    #[must_use]
    pub fn record(&self) -> Record {
        self.scorer.record()
    }

    /// Gives what was observed.
    #[must_use]
    pub fn history(&self) -> &DemandHistory {
        &self.history
    }

    /// Tells whether the forecast has earned its place: it is no worse than the naive ones, or whoever followed it would
    /// have fared better all the same than without it; but not where it is far worse, which the days before do not make
    /// good. Where it stands back, nobody follows a naive one in its place.
    fn is_trusted(&self) -> bool {
        self.scorer.is_trusted() || (self.portfolio.pays() && !self.scorer.is_far_worse())
    }

    fn quantile(&self, ahead: usize, level: f64) -> f64 {
        let place = LEVELS.partition_point(|it| *it < level - 1e-9).min(LEVELS.len() - 1);
        interpolated(ahead, |at| self.outlooks[at].quantiles[place])
    }

    /// Makes every forecast wrong by a factor, for tests of what then happens.
    #[cfg(test)]
    pub(crate) fn wreck(&mut self, factor: f64) {
        self.predictor.wreck(factor);
    }
}

#[cfg(test)]
mod tests;
