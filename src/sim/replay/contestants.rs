//! Who stands side by side.

use super::daemon::Daemon;
use super::policies::{AwsPredictiveLike, ClusterAutoscalerLike, KarpenterLike, Persistence, Policy, StaticPeak, Threshold};
use super::recording::Recording;
use super::side_by_side::Conditions;
use crate::policy::PredictiveMode;
use crate::policy::forecast::{TRIAL, whole_nodes};

/// The headrooms among which the best reactive policy is sought in hindsight.
pub const HEADROOMS: [f64; 14] = [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0];

/// Who follows the demand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Contestant {
    /// This daemon as the operator runs it.
    Ours,
    /// This daemon with its forecast taking part from the beginning.
    OursForecasting,
    /// This daemon without its forecast.
    OursReactive,
    /// The peak, always.
    StaticPeak,
    /// 70/30, one node at a time.
    ThresholdStep,
    /// 70/30, all the way.
    ThresholdProportional,
    /// cluster-autoscaler with a headroom.
    ClusterAutoscaler(f64),
    /// Karpenter with a headroom.
    Karpenter(f64),
    /// EC2's predictive scaling.
    AwsPredictive,
    /// The last value with a calibrated margin.
    Persistence,
}

impl Contestant {
    /// Lists all that may stand side by side, ours first.
    pub const ALL: [Self; 10] = [
        Self::Ours,
        Self::OursForecasting,
        Self::OursReactive,
        Self::StaticPeak,
        Self::ThresholdStep,
        Self::ThresholdProportional,
        Self::ClusterAutoscaler(0.0),
        Self::Karpenter(0.0),
        Self::AwsPredictive,
        Self::Persistence,
    ];

    /// Lists those that stand side by side. The forecast has a row of its own where it takes no part in some of what counts,
    /// as the operator has it.
    pub(super) fn table(recording: &Recording, warm_up: usize, conditions: &Conditions) -> Vec<Self> {
        let takes_part = match conditions.operator.settings().predictive.mode {
            PredictiveMode::On => true,
            PredictiveMode::Auto => recording.values.iter().take(warm_up).flatten().count() >= TRIAL,
            PredictiveMode::Shadow | PredictiveMode::Off => false,
        };
        Self::ALL.into_iter().filter(|contestant| !takes_part || *contestant != Self::OursForecasting).collect()
    }

    /// Gives whether this daemon's forecast takes part; `None` for the others.
    fn mode(self, conditions: &Conditions) -> Option<PredictiveMode> {
        match self {
            Self::Ours => Some(conditions.operator.settings().predictive.mode),
            Self::OursForecasting => Some(PredictiveMode::On),
            Self::OursReactive => Some(PredictiveMode::Off),
            Self::StaticPeak
            | Self::ThresholdStep
            | Self::ThresholdProportional
            | Self::ClusterAutoscaler(_)
            | Self::Karpenter(_)
            | Self::AwsPredictive
            | Self::Persistence => None,
        }
    }

    /// Makes it, where it is this daemon.
    pub(super) fn daemon(self, recording: &Recording, conditions: &Conditions) -> Option<Daemon> {
        self.mode(conditions).map(|mode| daemon(recording, conditions, mode))
    }

    /// Lists the reactive ones among which the best is sought in hindsight.
    pub(super) fn tuned() -> impl Iterator<Item = Self> {
        HEADROOMS.into_iter().flat_map(|headroom| [Self::ClusterAutoscaler(headroom), Self::Karpenter(headroom)])
    }

    /// Tells whether it is among those of `table` that are looked at first: four lines can be told apart.
    pub(super) fn leads(self, table: &[Self]) -> bool {
        match self {
            Self::Ours | Self::OursForecasting | Self::ClusterAutoscaler(_) | Self::Karpenter(_) => true,
            Self::OursReactive => !table.contains(&Self::OursForecasting),
            Self::StaticPeak | Self::ThresholdStep | Self::ThresholdProportional | Self::AwsPredictive | Self::Persistence => false,
        }
    }

    /// Gives the name for people.
    #[must_use]
    pub fn name(self) -> String {
        let with = |name: &str, headroom: f64| {
            if headroom > 0.0 { format!("{name} + {:.0} %", headroom * 100.0) } else { name.to_owned() }
        };
        match self {
            Self::Ours => "node-fleet".into(),
            Self::OursForecasting => "node-fleet, with its forecast".into(),
            Self::OursReactive => "node-fleet, reactive only".into(),
            Self::StaticPeak => "static peak".into(),
            Self::ThresholdStep => "threshold 70/30, one step".into(),
            Self::ThresholdProportional => "threshold 70/30, proportional".into(),
            Self::ClusterAutoscaler(headroom) => with("cluster-autoscaler-like", headroom),
            Self::Karpenter(headroom) => with("Karpenter-like", headroom),
            Self::AwsPredictive => "AWS-predictive-like".into(),
            Self::Persistence => "persistence + margin".into(),
        }
    }

    /// Makes the policy.
    #[must_use]
    pub fn policy(self, recording: &Recording, conditions: &Conditions) -> Box<dyn Policy> {
        let (boot, price) = (conditions.boot.minutes(), conditions.price_of_waiting);
        match self {
            Self::Ours => Box::new(daemon(recording, conditions, conditions.operator.settings().predictive.mode)),
            Self::OursForecasting => Box::new(daemon(recording, conditions, PredictiveMode::On)),
            Self::OursReactive => Box::new(daemon(recording, conditions, PredictiveMode::Off)),
            Self::StaticPeak => Box::new(StaticPeak(peak(recording))),
            Self::ThresholdStep => Box::new(Threshold::new(false)),
            Self::ThresholdProportional => Box::new(Threshold::new(true)),
            Self::ClusterAutoscaler(headroom) => Box::new(ClusterAutoscalerLike::new(headroom)),
            Self::Karpenter(headroom) => Box::new(KarpenterLike { headroom }),
            Self::AwsPredictive => Box::new(AwsPredictiveLike::default()),
            Self::Persistence => Box::new(Persistence::new(boot, price)),
        }
    }
}

/// Makes the daemon, at the price of waiting by which it is judged.
fn daemon(recording: &Recording, conditions: &Conditions, mode: PredictiveMode) -> Daemon {
    let mut operator = conditions.operator.clone();
    let predictive = &mut operator.settings_mut().predictive;
    (predictive.mode, predictive.price_of_waiting) = (mode, conditions.price_of_waiting);
    Daemon::new(&operator, conditions.rates.on_demand, recording.start, conditions.path)
}

fn peak(recording: &Recording) -> u32 {
    whole_nodes(f64::from(recording.values.iter().flatten().copied().fold(0.0_f32, f32::max)))
}
