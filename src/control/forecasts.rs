//! Follows the demands of the `[[forecast]]` rules: reads them from Prometheus, some slices of the past in each turn
//! until it has caught up, and says what they lead to.
//!
//! The ledger keeps what is known of each demand. Whoever takes over has the past from there, even where Prometheus does
//! not go back as far, and reads on from where it ends.

use super::settings::Settings;
use super::slices::{Slices, whole_minute};
use super::status::{ForecastStatus, Stretch};
use crate::model::prospect::{Prospect, Wanted};
use crate::model::{Memory, Missing, PoolName, RuleName};
use crate::policy::forecast::{Advice, DemandHistory, ForecastSettings, Forecaster, KEPT, Minute, Rests, boot_minutes};
use crate::policy::{ForecastRule, PredictiveMode};
use crate::ports::ledger::KeptDemand;
use crate::ports::{Clock, Ledger, Measurement, Metrics, Telemetry, World};
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use tracing::{info, warn};

/// So many slices one turn reads: a past of four weeks, where Prometheus gives it by the week.
const SLICES_IN_A_TURN: usize = 6;
/// After so many minutes that are taken in, others have their turn.
const AT_A_TIME: usize = 64;

/// So often the ledger is given what is known of a demand: what came since is read again within one slice.
const KEPT_EVERY: SignedDuration = SignedDuration::from_hours(6);

/// The demands that are followed, by rule.
#[derive(Debug, Default)]
pub struct Forecasts {
    followed: BTreeMap<RuleName, Followed>,
    /// They act of themselves, each after its trial.
    act_of_themselves: bool,
    #[cfg(test)]
    wrecked: Option<(Timestamp, f64)>,
}

#[derive(Debug)]
struct Followed {
    query: String,
    per_node: f64,
    forecaster: Forecaster,
    /// Since when it is followed.
    begun: Option<Timestamp>,
    /// The ledger was asked for what it keeps.
    recalled: bool,
    /// When the ledger was last given what is known.
    kept: Option<Timestamp>,
    /// Up to here the past is read.
    read: Option<Timestamp>,
    slices: Slices,
    caught_up: bool,
    /// Why the latest reading failed.
    trouble: Option<Missing>,
}

impl Forecasts {
    /// Takes the rules as they are now. A rule with another query, or another size of nodes, begins anew.
    pub fn follow(&mut self, settings: &Settings, memory: &Memory) {
        let (predictive, rests) = (&settings.policy.predictive, Rests::of(&settings.policy));
        self.act_of_themselves = predictive.mode == PredictiveMode::Auto;
        #[cfg(test)]
        self.wrecked.clone_from(&predictive.wrecked);
        let rules: &[ForecastRule] = if predictive.is_off() { &[] } else { &settings.policy.forecasts };
        self.followed.retain(|name, followed| rules.iter().any(|rule| rule.name == *name && followed.is_of(rule)));
        for rule in rules {
            let boots = memory.pools.get(&rule.pool).map_or(&[][..], |pool| &pool.boots);
            let boot = boot_minutes(boots, predictive.boot);
            let wanted = ForecastSettings {
                node: rule.per_node,
                boot,
                price_of_waiting: predictive.price_of_waiting,
                rests,
                zone: predictive.zone.clone(),
            };
            match self.followed.get_mut(&rule.name) {
                Some(followed) => followed.forecaster.set(wanted),
                None => drop(self.followed.insert(rule.name.clone(), Followed::new(rule, wanted))),
            }
        }
    }

    /// Reads what has come since the latest reading, or the next slice of the past.
    pub async fn read<W: World>(&mut self, world: &W) {
        let now = world.clock().now();
        #[cfg(test)]
        if let Some((_, factor)) = self.wrecked.filter(|(from, _)| now >= *from) {
            self.followed.values_mut().for_each(|followed| followed.forecaster.wreck(factor));
        }
        join_all(self.followed.iter_mut().map(|(rule, followed)| followed.read_on(world, rule, now))).await;
    }

    /// Gives what the ledger is to keep, of the demands of which it was given nothing for long.
    pub fn due_for_keeping(&mut self, now: Timestamp) -> Vec<(RuleName, String, DemandHistory)> {
        let due = |followed: &Followed| followed.caught_up && followed.kept.is_none_or(|kept| now.duration_since(kept) >= KEPT_EVERY);
        let due = self.followed.iter_mut().filter(|(_, followed)| due(followed));
        due.map(|(rule, followed)| {
            followed.kept = Some(now);
            (rule.clone(), followed.query.clone(), followed.forecaster.history().clone())
        })
        .collect()
    }

    /// Lists why readings failed.
    pub fn troubles(&self) -> impl Iterator<Item = &Missing> {
        self.followed.values().filter_map(|followed| followed.trouble.as_ref())
    }

    /// Says what each demand leads to.
    #[must_use]
    pub fn prospects(&self, now: Timestamp) -> BTreeMap<RuleName, Prospect> {
        self.followed.iter().map(|(rule, followed)| (rule.clone(), followed.prospect(self.act_of_themselves, now))).collect()
    }

    /// Shows each forecast.
    #[must_use]
    pub fn shown(&self, settings: &Settings, now: Timestamp) -> BTreeMap<RuleName, ForecastStatus> {
        let pool_of = |name: &RuleName| settings.policy.forecasts.iter().find(|rule| rule.name == *name).map(|rule| rule.pool.clone());
        let shown = |(name, followed): (&RuleName, &Followed)| {
            let says = followed.prospect(self.act_of_themselves, now).evidence;
            Some((name.clone(), followed.shown(pool_of(name)?, says, now)))
        };
        self.followed.iter().filter_map(shown).collect()
    }
}

impl Followed {
    fn new(rule: &ForecastRule, settings: ForecastSettings) -> Self {
        Self {
            query: rule.query.clone(),
            per_node: rule.per_node,
            forecaster: Forecaster::new(settings),
            begun: None,
            recalled: false,
            kept: None,
            read: None,
            slices: Slices::default(),
            caught_up: false,
            trouble: None,
        }
    }

    fn is_of(&self, rule: &ForecastRule) -> bool {
        rule.query == self.query && rule.per_node.total_cmp(&self.per_node).is_eq()
    }

    /// Reads on, slice by slice.
    async fn read_on<W: World>(&mut self, world: &W, rule: &RuleName, now: Timestamp) {
        self.begun.get_or_insert(now);
        if !std::mem::replace(&mut self.recalled, true) {
            self.recall(world, rule, now).await;
        }
        for _ in 0..SLICES_IN_A_TURN {
            if !self.read_slice(world, rule, now).await {
                return;
            }
        }
    }

    /// Takes in what the ledger keeps of the demand. Without it the whole past is read.
    async fn recall<W: World>(&mut self, world: &W, rule: &RuleName, now: Timestamp) {
        let kept = match world.ledger().demand(rule).await {
            Ok(kept) => kept.filter(|kept| kept.query == self.query && kept.expires > now),
            Err(error) => {
                world.telemetry().record(Measurement::PortFailed { port: "dynamodb", class: error.class() });
                warn!(rule = rule.as_str(), %error, "the ledger does not give the demand's past");
                None
            }
        };
        let Some(kept) = kept else { return };
        let history = match DemandHistory::unpack(&kept.history) {
            Ok(history) => history,
            Err(error) => return warn!(rule = rule.as_str(), %error, "what the ledger keeps of the demand cannot be read"),
        };
        // Each value is of the minute that ended then.
        let values: Vec<(Timestamp, f64)> = history.iter().map(|(minute, value)| (minute.plus(1).begin(), value)).collect();
        let values = &values[values.partition_point(|(at, _)| *at < oldest(now))..values.partition_point(|(at, _)| *at <= now)];
        self.take_in(rule, values).await;
        self.read = values.last().map(|(at, _)| *at);
        info!(rule = rule.as_str(), minutes = values.len(), until = ?self.read, "the ledger gives the demand's past");
    }

    /// Reads the next slice. Tells whether more is left, and this one could be read.
    async fn read_slice<W: World>(&mut self, world: &W, rule: &RuleName, now: Timestamp) -> bool {
        let latest = whole_minute(now);
        let oldest = oldest(now);
        // A clock that has been set back must not make it wait until the future has come.
        let from = self.read.unwrap_or(oldest).clamp(oldest, latest);
        let Some((first, to)) = self.slices.after(from, latest) else { return false };
        match world.metrics().history(&self.query, first, to).await {
            Ok(values) => {
                self.trouble = None;
                self.slices.answered();
                self.take_in(rule, &values).await;
                // In the latest minutes a sample may still come in late.
                let end = if to == latest { values.last().map(|(at, _)| *at) } else { Some(to) };
                self.read = end.or(self.read);
                if to == latest && !std::mem::replace(&mut self.caught_up, true) {
                    self.tell(rule);
                }
                to < latest
            }
            Err(missing) => {
                warn!(rule = rule.as_str(), %missing, slice = ?to.duration_since(first), "the demand's history cannot be read");
                self.slices.failed();
                self.trouble = Some(missing);
                false
            }
        }
    }

    fn tell(&self, rule: &RuleName) {
        let minutes = self.forecaster.history().span();
        if minutes == 0 {
            warn!(rule = rule.as_str(), query = self.query, "the query of the demand gives no value for the last 28 days");
        } else {
            info!(rule = rule.as_str(), minutes, "the demand's history is read");
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

    /// Says what the demand leads to, and, where forecasts act of themselves, when this one will.
    fn prospect(&self, acts_of_itself: bool, now: Timestamp) -> Prospect {
        let advice = self.advice(now);
        let missing = self.forecaster.missing_to_a_week();
        // Before the past is read nobody knows how long it is; where it has never been read, there may be none.
        let on_trial = if self.caught_up { missing > 0 } else { self.trouble.is_some() && self.forecaster.history().span() == 0 };
        let evidence = match (&self.trouble, self.caught_up) {
            (Some(missing), _) => format!("the demand cannot be read: {missing}; {advice}"),
            (None, false) => "the demand's history is being read".to_owned(),
            (None, true) => advice.to_string(),
        };
        let evidence = if on_trial && acts_of_itself { format!("{}; {evidence}", self.watches(missing)) } else { evidence };
        let blind_since = (advice.standing.is_blind() || !self.caught_up).then(|| self.blind_since(now));
        Prospect { wanted: self.wanted(&advice), blind_since, on_trial, evidence }
    }

    /// Since when a demand is not known that is not known: its latest value, and while the past is read, its beginning.
    fn blind_since(&self, now: Timestamp) -> Timestamp {
        let latest = self.forecaster.history().latest().filter(|_| self.caught_up);
        latest.map(Minute::begin).or(self.begun).unwrap_or(now)
    }

    /// Says until when it only watches, with so many minutes missing to a week.
    fn watches(&self, missing: usize) -> String {
        let latest = self.forecaster.history().latest().map(Minute::begin);
        let missing = SignedDuration::from_mins(i64::try_from(missing).unwrap_or(i64::MAX) + 1);
        match latest.and_then(|latest| latest.checked_add(missing).ok()) {
            Some(until) => format!("it only watches until {until}, when a week of its demand is known"),
            None => "it only watches until a week of its demand is known".to_owned(),
        }
    }

    /// Gives what the forecast wants where it may: it knows the whole past, and has earned its place.
    fn wanted(&self, advice: &Advice) -> Option<Wanted> {
        advice.want.filter(|_| self.caught_up && advice.standing.may_act())
    }

    fn shown(&self, pool: PoolName, says: String, now: Timestamp) -> ForecastStatus {
        let advice = self.advice(now);
        let latest = self.forecaster.history().latest();
        ForecastStatus {
            pool,
            says,
            standing: advice.standing,
            wanted: self.wanted(&advice),
            known_minutes: self.forecaster.history().span(),
            demand: latest.and_then(|minute| self.forecaster.history().get(minute)),
            expected: advice.expected,
            following: advice.following.iter().map(Stretch::from).collect(),
            loss_ratio: Some(advice.record.relative_loss()).filter(|ratio| advice.record.minutes > 0 && ratio.is_finite()),
            coverage: (advice.record.minutes > 0).then_some(advice.record.forecast.coverage),
        }
    }
}

/// The beginning of the past that matters.
fn oldest(now: Timestamp) -> Timestamp {
    let kept = SignedDuration::from_mins(i64::try_from(KEPT).unwrap_or(i64::MAX));
    whole_minute(now.saturating_sub(kept).unwrap_or(Timestamp::MIN))
}

/// Makes of a demand's past what the ledger keeps until nothing of it matters any more.
#[must_use]
pub fn to_be_kept(query: String, history: &DemandHistory, now: Timestamp) -> KeptDemand {
    let expires = now.saturating_add(now.duration_since(oldest(now))).unwrap_or(Timestamp::MAX);
    KeptDemand { query, history: history.pack(), expires }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::tz::TimeZone;

    /// A demand of so many minutes up to `now`, whose past is read.
    fn followed(minutes: i64, now: Timestamp) -> Followed {
        let rule = ForecastRule { name: "cores".into(), pool: "workers".into(), query: "q".into(), per_node: 1.0 };
        let settings = ForecastSettings { node: 1.0, boot: 4, price_of_waiting: 20.0, rests: Rests::NONE, zone: TimeZone::UTC };
        let mut followed = Followed { caught_up: true, ..Followed::new(&rule, settings) };
        let end = Minute::of_second(now.as_second());
        for minute in -minutes..0 {
            let demand = 5.0 + f64::from(i32::try_from(minute.rem_euclid(1440)).expect("a day is short")) / 400.0;
            followed.forecaster.observe(end.plus(minute), demand).expect("it is a demand");
        }
        followed
    }

    #[test]
    fn a_forecast_that_acts_of_itself_says_when_it_will() {
        let now: Timestamp = "2026-03-10T12:00:00Z".parse().expect("a time");
        let says = |followed: &Followed, acts_of_itself| followed.prospect(acts_of_itself, now);
        let week = 7 * 1440;
        let young = followed(week - 1440, now);
        let prospect = says(&young, true);
        assert!(prospect.on_trial && prospect.wanted.is_some());
        let until = "it only watches until 2026-03-11T12:00:00Z, when a week of its demand is known; expects";
        assert!(prospect.evidence.starts_with(until), "{}", prospect.evidence);
        assert!(!says(&young, false).evidence.contains("it only watches"), "in the other modes the week means nothing");
        let unread = Followed { caught_up: false, ..young };
        assert!(!says(&unread, true).on_trial, "nobody knows how long its past is");
        assert!(says(&unread, true).wanted.is_none(), "who does not know the whole past wants nothing");
        let hours = |hours| SignedDuration::from_hours(hours);
        assert_eq!(says(&followed(week, now), true).blind_since, None);
        let later = followed(week, now).prospect(true, now + hours(7));
        assert_eq!(later.blind_since, Some(now - SignedDuration::from_mins(1)), "its query gives nothing any more");
        let begun = Followed { begun: Some(now - hours(1)), caught_up: false, ..followed(week, now - hours(24)) };
        assert_eq!(says(&begun, true).blind_since, Some(now - hours(1)), "while the past is read, old values say nothing");
        let refused = Followed { caught_up: false, trouble: Some(Missing::Empty), ..followed(0, now) };
        assert!(says(&refused, true).on_trial, "what was never read forbids nothing for ever");
        let prospect = says(&followed(week, now), true);
        assert!(!prospect.on_trial && prospect.evidence.starts_with("expects"), "{}", prospect.evidence);
        let prospect = says(&followed(0, now), true);
        assert!(
            prospect.on_trial && prospect.blind_since == Some(now) && prospect.evidence.contains("until a week"),
            "{}",
            prospect.evidence
        );
    }
}
