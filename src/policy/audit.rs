//! Holds a plan against the invariants. The runtime's guard, the property tests' oracle and
//! the simulator's checker are this one function.

use super::fleet::{Fleet, cost, count, prices};
use super::settings::Settings;
use crate::model::offer::HourlyPrice;
use crate::model::snapshot::Observed;
use crate::model::{Action, Plan, RetireOrder, Snapshot};
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::fmt;

/// The invariant that a plan would break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// I2: owned and in flight never exceed the maximum, nor the price ceiling.
    Maximum,
    /// I3: voluntary removal never goes below the minimum.
    Minimum,
    /// I4: what is foreign, a server or protected is never touched.
    Ownership,
    /// I6: nothing is removed voluntarily on missing or doubtful data.
    Evidence,
    /// I11: nothing is started while paused.
    Pause,
}

impl Invariant {
    /// Gives its stable name, as metrics and logs show it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Maximum => "I2",
            Self::Minimum => "I3",
            Self::Ownership => "I4",
            Self::Evidence => "I6",
            Self::Pause => "I11",
        }
    }
}

/// What is wrong with a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The invariant.
    pub invariant: Invariant,
    /// How the plan breaks it.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.invariant.name(), self.text)
    }
}

/// Lists everything that is wrong with a plan.
#[must_use]
pub fn audit(settings: &Settings, snapshot: &Snapshot, plan: &Plan, now: Timestamp) -> Vec<Violation> {
    let fleet = Fleet::new(settings, snapshot);
    let mut violations = Vec::new();
    let mut say = |invariant, text: String| violations.push(Violation { invariant, text });
    bounds(settings, &fleet, plan, now, &mut say);
    ceiling(settings, snapshot, &fleet, plan, &mut say);
    let mut named = BTreeSet::new();
    for action in &plan.actions {
        match action {
            Action::Launch(order) => {
                let replacement = settings.replace_interrupted_while_paused && !order.reason_is_discretionary();
                if snapshot.pause.is_some() && !replacement {
                    say(Invariant::Pause, format!("a launch in {} although paused", order.zone));
                }
            }
            Action::Retire(order) => {
                if snapshot.pause.is_some() {
                    say(Invariant::Pause, "a retirement although paused".into());
                }
                retirement(settings, snapshot, order, &mut say);
                if !named.insert((order.instance.clone(), order.node.clone())) {
                    say(Invariant::Minimum, "the same node twice".into());
                }
            }
        }
    }
    violations
}

fn bounds(settings: &Settings, fleet: &Fleet<'_>, plan: &Plan, now: Timestamp, say: &mut impl FnMut(Invariant, String)) {
    for pool in &settings.pools {
        let bounds = pool.bounds(now);
        let launches: u32 = launches(plan).filter(|order| order.pool == pool.name).map(|order| order.count).sum();
        let total = fleet.total(&pool.name);
        if launches > 0 && total + launches > bounds.max {
            say(Invariant::Maximum, format!("pool {} would have {} of at most {}", pool.name, total + launches, bounds.max));
        }
        let voluntary = count(retirements(plan).filter(|order| order.pool == pool.name && order.reason.is_voluntary()).count());
        let staying = fleet.pool(&pool.name).iter().filter(|member| member.serves()).count();
        if voluntary > 0 && count(staying) < bounds.min + voluntary {
            say(
                Invariant::Minimum,
                format!("pool {} would keep {} of at least {}", pool.name, i64::from(count(staying)) - i64::from(voluntary), bounds.min),
            );
        }
    }
    for order in launches(plan) {
        if !settings.pools.iter().any(|pool| pool.name == order.pool) {
            say(Invariant::Maximum, format!("a launch for the unknown pool {}", order.pool));
        }
    }
}

fn ceiling(settings: &Settings, snapshot: &Snapshot, fleet: &Fleet<'_>, plan: &Plan, say: &mut impl FnMut(Invariant, String)) {
    let (Some(ceiling), Observed::Known { value: offers, .. }) = (settings.price_ceiling, &snapshot.offers) else { return };
    let more: u64 = launches(plan).map(|order| order.price.0.saturating_mul(u64::from(order.count))).sum();
    if more == 0 {
        return;
    }
    match cost(fleet, &prices(offers, &snapshot.prices)) {
        Ok(now) if now.0.saturating_add(more) <= ceiling.0 => {}
        Ok(now) => {
            say(Invariant::Maximum, format!("the fleet would cost {} of at most {ceiling}", HourlyPrice(now.0.saturating_add(more))));
        }
        Err(offer) => say(Invariant::Maximum, format!("a launch although the price of {offer} is not known and {ceiling} is the ceiling")),
    }
}

fn retirement(settings: &Settings, snapshot: &Snapshot, order: &RetireOrder, say: &mut impl FnMut(Invariant, String)) {
    let (Observed::Known { value: cluster, .. }, Observed::Known { value: instances, .. }) = (&snapshot.cluster, &snapshot.instances)
    else {
        say(Invariant::Evidence, "a retirement although Kubernetes or EC2 is not known".into());
        return;
    };
    if let Some(id) = &order.instance
        && !instances.iter().any(|instance| instance.id == *id && instance.pool.as_ref() == Some(&order.pool))
    {
        say(Invariant::Ownership, format!("instance {id} is not one of pool {}", order.pool));
    }
    if !settings.pools.iter().any(|pool| pool.name == order.pool) && order.reason.is_voluntary() {
        say(Invariant::Ownership, format!("pool {} is not ours", order.pool));
    }
    if let Some(reference) = &order.node {
        match cluster.nodes.get(&reference.name) {
            Some(node) if node.uid == reference.uid => {
                if node.control_plane {
                    say(Invariant::Ownership, format!("node {} is a server", node.name));
                }
                if order.reason.is_voluntary()
                    && let Some(annotation) = &node.keep
                {
                    say(Invariant::Ownership, format!("node {} is annotated {annotation}", node.name));
                }
                if order.instance.is_some() && node.instance != order.instance {
                    say(Invariant::Ownership, format!("node {} is not of the instance", node.name));
                }
            }
            Some(_) | None => say(Invariant::Ownership, format!("node {} is not there", reference.name)),
        }
    }
    let doubtful = !matches!(&snapshot.utilisation, Observed::Known { value, .. } if !value.warming_up);
    if order.reason.is_voluntary() && doubtful {
        say(Invariant::Evidence, "a voluntary removal without utilisation".into());
    }
}

fn launches(plan: &Plan) -> impl Iterator<Item = &crate::model::LaunchOrder> {
    plan.actions.iter().filter_map(|action| match action {
        Action::Launch(order) => Some(order),
        Action::Retire(_) => None,
    })
}

fn retirements(plan: &Plan) -> impl Iterator<Item = &RetireOrder> {
    plan.actions.iter().filter_map(|action| match action {
        Action::Retire(order) => Some(order),
        Action::Launch(_) => None,
    })
}
