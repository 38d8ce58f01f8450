//! What a replay found, in words and as a table.

use super::operator;
use crate::policy::PredictiveMode;
use crate::sim::replay::{Conditions, Contestant, Outcome, Path, Pinball, Rates, Recording, Repairs, SideBySide};

/// A share of demand that waits beyond another's, and so many times it, is clearly more.
const MORE_WAITING: f64 = 0.001;
const CLEARLY: f64 = 1.1;

/// Says in one sentence what came out.
pub(super) fn summary(found: &SideBySide) -> String {
    let (ours, others) = (&found.outcomes[0], &found.outcomes[1..]);
    let against = |name: &str| others.iter().find(|outcome| outcome.policy.starts_with(name));
    let threshold = ["threshold 70/30, one step", "threshold 70/30, proportional"].into_iter().filter_map(against);
    let threshold = threshold.min_by(|one, other| one.cost.total_cmp(&other.cost));
    let begin = format!(
        "On these {} node-fleet would have cost ${:.2}, with {:.0} node-minutes of demand waiting ({:.2} %)",
        spoken(found.days),
        ours.dollars,
        ours.unmet_node_minutes,
        100.0 * ours.unmet_share
    );
    let rivals = [(threshold, "a 70/30 threshold"), (against("cluster-autoscaler-like"), "a cluster-autoscaler")];
    let rivals: Vec<String> = rivals.iter().filter_map(|(other, name)| other.map(|other| compared(ours, other, name))).collect();
    format!("{begin}: {}.{}", rivals.join(", and "), forecasting(found).unwrap_or_default())
}

/// Says how long it was: days, or hours where there are few of them.
pub(super) fn spoken(days: f64) -> String {
    if days < 2.0 { format!("{:.0} hours", 24.0 * days) } else { format!("{days:.0} days") }
}

/// Holds node-fleet against another. Dollars that were saved by letting more wait are no saving to speak of.
pub(super) fn compared(ours: &Outcome, other: &Outcome, name: &str) -> String {
    let (least, waits) = (ours.dollars, format!("which leaves {:.0} waiting", other.unmet_node_minutes));
    let leaves_more = ours.unmet_share - other.unmet_share > MORE_WAITING && ours.unmet_node_minutes > CLEARLY * other.unmet_node_minutes;
    match other.dollars {
        dollars if dollars > 0.0 && (least / dollars - 1.0).abs() < 0.005 => format!("as much as {name}, {waits}"),
        dollars if dollars > 0.0 && least <= dollars && leaves_more => {
            format!(
                "less than {name} with its ${dollars:.2}, but only by serving less: that one leaves {:.0} waiting",
                other.unmet_node_minutes
            )
        }
        dollars if dollars > 0.0 && least <= dollars => format!("{:.0} % less than {name}, {waits}", 100.0 * (1.0 - least / dollars)),
        dollars if dollars > 0.0 => format!("{:.0} % more than {name}, {waits}", 100.0 * (least / dollars - 1.0)),
        _ if least > 0.0 => format!("more than the $0.00 of {name}, {waits}"),
        _ => format!("as little as {name}, {waits}"),
    }
}

/// Says that the pool's bounds hold for node-fleet alone, where they are felt.
pub(super) fn bounded_by(conditions: &Conditions, recording: &Recording) -> Option<String> {
    let settings = conditions.operator.settings();
    let pool = settings.pools.first()?;
    let peak = recording.values.iter().flatten().copied().fold(0.0_f32, f32::max).ceil();
    let least = (pool.min > 0).then(|| format!("at least {} nodes", pool.min));
    let most = (f64::from(pool.max) < f64::from(peak)).then(|| format!("at most {} nodes, where the peak needs {peak:.0}", pool.max));
    let dollars = settings.price_ceiling.map(|price| format!("at most ${:.2} an hour", price.dollars()));
    let bounds: Vec<String> = [least, most, dollars].into_iter().flatten().collect();
    let bounds = Some(bounds.join(", ")).filter(|bounds| !bounds.is_empty())?;
    Some(format!(" The pool's bounds ({bounds}) hold for node-fleet alone; the others have none."))
}

/// Says what the forecast would have come to, where node-fleet as it is configured does without it in some of what counts.
pub(super) fn forecasting(found: &SideBySide) -> Option<String> {
    let outcome = found.outcomes.iter().find(|outcome| outcome.policy == Contestant::OursForecasting.name())?;
    let (dollars, waiting) = (outcome.dollars, outcome.unmet_node_minutes);
    Some(format!(" With its forecast taking part in all of it, it would have cost ${dollars:.2}, with {waiting:.0} waiting."))
}

pub(super) fn table(found: &SideBySide) -> String {
    let header = ["policy", "node-hours", "dollars", "unmet", "min. over", "launches", "cost", "x optimum", "ours to this (95 %)"];
    let row = |outcome: &Outcome| {
        let ratio = outcome.ours_to_this.map(|it| match it.low.zip(it.high) {
            Some((low, high)) => format!("{:.3} ({low:.3}-{high:.3})", it.ratio),
            None => format!("{:.3} (too short)", it.ratio),
        });
        [
            outcome.policy.clone(),
            format!("{:.0}", outcome.node_hours),
            format!("{:.2}", outcome.dollars),
            format!("{:.3} %", 100.0 * outcome.unmet_share),
            outcome.minutes_over.to_string(),
            outcome.launches.to_string(),
            format!("{:.0}", outcome.cost),
            outcome.to_clairvoyant.map(|ratio| format!("{ratio:.3}")).unwrap_or_default(),
            ratio.unwrap_or_default(),
        ]
    };
    let rows: Vec<[String; 9]> = std::iter::once(header.map(str::to_owned)).chain(found.outcomes.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 9] = std::array::from_fn(width);
    let line = |row: &[String; 9]| {
        let cells = row.iter().zip(widths).enumerate();
        let cells = cells.map(|(column, (cell, width))| if column == 0 { format!("{cell:width$}") } else { format!("{cell:>width$}") });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

pub(super) fn remarks(told: &operator::Told, conditions: &Conditions, recording: &Recording, found: &SideBySide) -> String {
    let cost = format!(
        "Cost is node-minutes paid, and {} for each that was unmet. {:.1} days before these taught the forecast.",
        conditions.price_of_waiting, found.warm_up_days
    );
    let lines = [Some(cost), Some(billed(&conditions.rates)), Some(decided(told, conditions)), coverage(found)]
        .into_iter()
        .chain(repaired(recording.repairs));
    lines.flatten().fold("\n".to_owned(), |text, line| text + &line + "\n")
}

/// Says at which prices the dollars were reckoned, and on which market nodes are.
pub(super) fn billed(rates: &Rates) -> String {
    let Rates { on_demand, spot, on_demand_base: base, spot_share } = rates;
    if *spot_share <= 0.0 {
        return format!("A node costs ${on_demand:.4} an hour, on demand.");
    }
    let nodes = if *base == 1 { "node is" } else { "nodes are" };
    let share = 100.0 * spot_share;
    format!(
        "A node costs ${on_demand:.4} an hour on demand and ${spot:.4} on spot; {base} {nodes} on demand, and of those above {share:.0} % on spot, under every policy."
    )
}

pub(super) fn coverage(found: &SideBySide) -> Option<String> {
    let [at_90, at_95] = found.coverage?.map(|share| 100.0 * share);
    let covered = format!("Demand stayed below the forecast's 90 % in {at_90:.1} % of the minutes, and below its 95 % in {at_95:.1} %.");
    Some(covered + &found.pinball.map(lost).unwrap_or_default())
}

/// Says what the forecast lost beside the naive ones: coverage alone is steered, and an uncertain forecast has it, too.
pub(super) fn lost(pinball: Pinball) -> String {
    let seasonal = pinball.seasonal.map(|loss| format!(", and {loss:.3} of one that says \"as yesterday\"")).unwrap_or_default();
    format!(
        " Its mean pinball loss was {:.3} nodes, against {:.3} of a forecast that says \"as it is\"{seasonal}, each with a margin.",
        pinball.forecast, pinball.persistence
    )
}

pub(super) fn repaired(repairs: Repairs) -> [Option<String>; 2] {
    let Repairs { period_seconds: period, gaps, missing_minutes: missing } = repairs;
    let gaps = (gaps > 0).then(|| format!("The recording has gaps, {gaps} of them with {missing} minutes: they are not counted."));
    let period = (period > 60).then(|| format!("It has a value every {period} seconds: each stands until the next."));
    [gaps, period]
}

/// Says whose settings decided for node-fleet, and what a replay leaves out.
pub(super) fn decided(told: &operator::Told, conditions: &Conditions) -> String {
    let policy = &told.config.policy;
    let how = match conditions.path {
        Path::Plan => "by its own plan, turn by turn",
        Path::Counts => "from counts, as its plan does",
    };
    let mode = match policy.predictive.mode {
        PredictiveMode::On => "its forecast takes part",
        PredictiveMode::Auto => "its forecast takes part once it knows a week of the demand",
        PredictiveMode::Shadow => "predictive.mode is \"shadow\": its forecast takes no part",
        PredictiveMode::Off => "predictive.mode is \"off\": its forecast takes no part",
    };
    format!(
        "node-fleet decides {how}, with {} ({mode}): every {:?}, with its rests; pods use {:.0} % of what they request.\nLeft out: other pods' sizes, zones, spot interruptions, headroom, [[metric]] rules, how long a drain takes.",
        told.name,
        policy.interval,
        100.0 * conditions.operator.cpu_use
    )
}
