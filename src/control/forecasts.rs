//! Follows the demands of the `[[forecast]]` rules: reads them from Prometheus, a slice of the past in each turn
//! until it has caught up, and says what they lead to.
//!
//! Nothing of it is written down. Whoever takes over reads the history again.

use super::settings::Settings;
use super::status::ForecastStatus;
use crate::model::operation::{LaunchState, Operation};
use crate::model::prospect::{Prospect, Wanted};
use crate::model::{Missing, OperationId, RuleName};
use crate::policy::ForecastRule;
use crate::policy::forecast::{Advice, ForecastSettings, Forecaster, KEPT, Minute, Standing};
use crate::ports::{Clock, Metrics, World};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;
use tracing::{info, warn};

/// The past that one turn reads: as many minutes as Prometheus gives at once.
const SLICE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// After so many minutes that are taken in, others have their turn.
const AT_A_TIME: usize = 64;
/// So many launches must have shown how long a boot takes.
const BOOTS_NEEDED: usize = 3;

/// The demands that are followed, by rule.
#[derive(Debug, Default)]
pub struct Forecasts {
    followed: BTreeMap<RuleName, Followed>,
}

#[derive(Debug)]
struct Followed {
    query: String,
    forecaster: Forecaster,
    /// Up to here the past is read.
    read: Option<Timestamp>,
    caught_up: bool,
    /// Why the latest reading failed.
    trouble: Option<Missing>,
}

impl Forecasts {
    /// Takes the rules as they are now. A rule with another query begins anew.
    pub fn follow(&mut self, settings: &Settings, operations: &BTreeMap<OperationId, Operation>) {
        let predictive = &settings.policy.predictive;
        let rules: &[ForecastRule] = if predictive.is_off() { &[] } else { &settings.policy.forecasts };
        self.followed.retain(|name, followed| rules.iter().any(|rule| rule.name == *name && rule.query == followed.query));
        // A node that is asked for one evaluation too late is there one evaluation later.
        let lead = boot_time(operations).unwrap_or(predictive.boot) + settings.policy.interval;
        let boot = usize::try_from(lead.as_secs().div_ceil(60)).unwrap_or(usize::MAX).max(1);
        for rule in rules {
            let wanted = ForecastSettings { node: rule.per_node, boot, price_of_waiting: predictive.price_of_waiting };
            match self.followed.get_mut(&rule.name) {
                Some(followed) => followed.forecaster.set(wanted),
                None => drop(self.followed.insert(rule.name.clone(), Followed::new(&rule.query, wanted))),
            }
        }
    }

    /// Reads what has come since the latest reading, or the next slice of the past.
    pub async fn read<W: World>(&mut self, world: &W) {
        let now = world.clock().now();
        for (rule, followed) in &mut self.followed {
            followed.read_on(world, rule, now).await;
        }
    }

    /// Lists why readings failed.
    pub fn troubles(&self) -> impl Iterator<Item = &Missing> {
        self.followed.values().filter_map(|followed| followed.trouble.as_ref())
    }

    /// Says what each demand leads to.
    #[must_use]
    pub fn prospects(&self, now: Timestamp) -> BTreeMap<RuleName, Prospect> {
        self.followed.iter().map(|(rule, followed)| (rule.clone(), followed.prospect(now))).collect()
    }

    /// Shows each forecast.
    #[must_use]
    pub fn shown(&self, settings: &Settings, now: Timestamp) -> BTreeMap<RuleName, ForecastStatus> {
        let pool_of = |name: &RuleName| settings.policy.forecasts.iter().find(|rule| rule.name == *name).map(|rule| rule.pool.clone());
        let shown = |(name, followed): (&RuleName, &Followed)| Some((name.clone(), followed.shown(pool_of(name)?, now)));
        self.followed.iter().filter_map(shown).collect()
    }
}

impl Followed {
    fn new(query: &str, settings: ForecastSettings) -> Self {
        Self { query: query.to_owned(), forecaster: Forecaster::new(settings), read: None, caught_up: false, trouble: None }
    }

    async fn read_on<W: World>(&mut self, world: &W, rule: &RuleName, now: Timestamp) {
        let latest = whole_minute(now);
        let kept = SignedDuration::from_mins(i64::try_from(KEPT).unwrap_or(i64::MAX));
        let from = self.read.unwrap_or_else(|| whole_minute(now.saturating_sub(kept).unwrap_or(Timestamp::MIN)));
        let to = latest.min(from.saturating_add(SLICE).unwrap_or(latest));
        let first = from.saturating_add(SignedDuration::from_mins(1)).unwrap_or(latest);
        if first > to {
            return;
        }
        match world.metrics().history(&self.query, first, to).await {
            Ok(values) => {
                self.trouble = None;
                self.take_in(rule, &values).await;
                self.read = Some(to);
                if to == latest && !std::mem::replace(&mut self.caught_up, true) {
                    info!(rule = rule.as_str(), minutes = self.forecaster.history().span(), "the demand's history is read");
                }
            }
            Err(missing) => {
                warn!(rule = rule.as_str(), %missing, "the demand's history cannot be read");
                self.trouble = Some(missing);
            }
        }
    }

    /// Takes in values, each of the minute that ended then. Years of minutes would keep everything else waiting.
    async fn take_in(&mut self, rule: &RuleName, values: &[(Timestamp, f64)]) {
        let mut refused = None;
        for values in values.chunks(AT_A_TIME) {
            for (at, value) in values {
                if let Err(why) = self.forecaster.observe(Minute::of_second(at.as_second() - 60), *value) {
                    refused = Some(why);
                }
            }
            tokio::task::yield_now().await;
        }
        if let Some(why) = refused {
            warn!(rule = rule.as_str(), %why, "a value of the demand is left out");
        }
    }

    fn advice(&self, now: Timestamp) -> Advice {
        self.forecaster.advise(Minute::of_second(now.as_second()))
    }

    fn prospect(&self, now: Timestamp) -> Prospect {
        let advice = self.advice(now);
        let wanted = self.wanted(&advice);
        let evidence = match (&self.trouble, self.caught_up) {
            (Some(missing), _) => format!("the history cannot be read: {missing}"),
            (None, false) => "the history is being read".to_owned(),
            (None, true) => advice.to_string(),
        };
        Prospect { wanted, evidence }
    }

    /// Gives what the forecast wants where it may: it knows the whole past, and has earned its place.
    fn wanted(&self, advice: &Advice) -> Option<Wanted> {
        let may = self.caught_up
            && match advice.standing {
                Standing::Trusted => true,
                Standing::Learning { .. } | Standing::Demoted | Standing::Blind { .. } => false,
            };
        advice.want.filter(|_| may).map(|want| Wanted { buy: want.buy, hold: want.hold })
    }

    fn shown(&self, pool: crate::model::PoolName, now: Timestamp) -> ForecastStatus {
        let advice = self.advice(now);
        let latest = self.forecaster.history().latest();
        ForecastStatus {
            pool,
            says: self.prospect(now).evidence,
            standing: advice.standing,
            wanted: self.wanted(&advice),
            known_minutes: self.forecaster.history().span(),
            demand: latest.and_then(|minute| self.forecaster.history().get(minute)),
            expected: advice.expected,
            following: advice.following.iter().map(|it| format!("nodes {} to {}: {}", it.from + 1, it.to, it.way)).collect(),
            loss_ratio: Some(advice.record.relative_loss()).filter(|ratio| advice.record.minutes > 0 && ratio.is_finite()),
            coverage: (advice.record.minutes > 0).then_some(advice.record.forecast.coverage),
        }
    }
}

fn whole_minute(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second().div_euclid(60) * 60).unwrap_or(at)
}

/// Learns from the journal how long nine in ten launches took to join; `None` while too few did.
fn boot_time(operations: &BTreeMap<OperationId, Operation>) -> Option<Duration> {
    let mut took: Vec<SignedDuration> = operations
        .values()
        .filter_map(|operation| match operation {
            Operation::Launch(launch) => match launch.state {
                LaunchState::Done { .. } => Some(launch.updated.duration_since(launch.created)),
                LaunchState::Journalled | LaunchState::Joining { .. } | LaunchState::Failed { .. } => None,
            },
            Operation::Retire(_) => None,
        })
        .collect();
    took.sort_unstable();
    let place = (took.len() * 9).div_ceil(10).saturating_sub(1);
    took.get(place).filter(|_| took.len() >= BOOTS_NEEDED).and_then(|took| Duration::try_from(*took).ok())
}
