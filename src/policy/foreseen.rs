//! What follows from forecasts: what they buy and hold, and for how long what is not known holds.

use super::rules::{Demand, Verdict, silent};
use super::settings::{ForecastRule, PoolSettings, PredictiveMode, Settings};
use crate::model::plan::{Alert, Hold};
use crate::model::prospect::Wanted;
use crate::model::{Prospect, RuleName, Snapshot};
use jiff::{SignedDuration, Timestamp};

/// So long what a forecast would hold may not go while its demand is not known.
const BLIND_HOLDS: SignedDuration = SignedDuration::from_hours(6);
/// After so long it is said that it is not known.
const BLIND_TOLD: SignedDuration = SignedDuration::from_mins(30);

/// Judges the `[[forecast]]` rules of a pool of which `total` nodes stay, booting ones included.
pub fn judge(settings: &Settings, pool: &PoolSettings, snapshot: &Snapshot, total: u32, now: Timestamp) -> Vec<Verdict> {
    let rules = settings.forecasts.iter().filter(|rule| rule.pool == pool.name && !settings.predictive.is_off());
    let max = pool.bounds(now).max;
    rules.map(|rule| judge_one(settings.predictive.mode, &rule.name, snapshot.prospects.get(&rule.name), (total, max), now)).collect()
}

/// Tells whether what a forecast says is followed.
fn acts(mode: PredictiveMode, prospect: Option<&Prospect>) -> bool {
    match mode {
        PredictiveMode::On => true,
        // What is not read yet may be long.
        PredictiveMode::Auto => prospect.is_none_or(|prospect| !prospect.on_trial),
        PredictiveMode::Shadow | PredictiveMode::Off => false,
    }
}

/// Names the forecasts that should take part and have not known their demand for a while.
pub fn alerts(settings: &Settings, snapshot: &Snapshot, now: Timestamp) -> Vec<Alert> {
    let of_rule = |rule: &ForecastRule| {
        let prospect = snapshot.prospects.get(&rule.name).filter(|prospect| acts(settings.predictive.mode, Some(prospect)))?;
        let since = prospect.blind_since.filter(|since| now.duration_since(*since) > BLIND_TOLD)?;
        let (name, evidence, until) = (&rule.name, &prospect.evidence, since.saturating_add(BLIND_HOLDS).unwrap_or(Timestamp::MAX));
        Some(Alert {
            name: "forecast_blind".into(),
            subject: name.to_string(),
            text: format!(
                "forecast {name} has not known its demand since {since:.0}: {evidence}; it buys nothing, and holds all nodes of pool {} until {until:.0}",
                rule.pool
            ),
        })
    };
    settings.forecasts.iter().filter(|_| !settings.predictive.is_off()).filter_map(of_rule).collect()
}

/// Says what follows from a forecast where so many nodes stay and so many may be.
pub fn judge_one(mode: PredictiveMode, rule: &RuleName, prospect: Option<&Prospect>, (total, max): (u32, u32), now: Timestamp) -> Verdict {
    let rule = rule.clone();
    let acts = acts(mode, prospect);
    // Missing is never zero: what the forecast would hold is not known. But what nobody mends does not hold for ever.
    let holds = |since: Timestamp| now.duration_since(since) <= BLIND_HOLDS;
    let blind = |why: &str| acts.then(|| Hold::BadData { why: why.to_owned() });
    let Some(prospect) = prospect else {
        let why = "the demand is not read yet";
        return silent(rule, why, blind(why));
    };
    let Some(wanted) = prospect.wanted else {
        let hold = prospect.blind_since.filter(|since| holds(*since)).and_then(|_| blind(&prospect.evidence));
        return silent(rule, &prospect.evidence, hold);
    };
    // Above the maximum in force nothing is held.
    let wanted = Wanted { hold: wanted.hold.min(max), ..wanted };
    let evidence = prospect.evidence.clone();
    let (buys, holds) = (wanted.buy > total, wanted.hold > 0 && total <= wanted.hold);
    if !acts {
        let hold = (buys || holds).then_some(Hold::Shadowed { buy: wanted.buy, hold_nodes: wanted.hold });
        return Verdict { rule, evidence, demand: None, hold, vetoes_removal: false, keeps: 0 };
    }
    let demand = buys.then_some(Demand::Nodes(wanted.buy));
    Verdict { rule, evidence, demand, hold: None, vetoes_removal: holds, keeps: wanted.hold }
}
