//! Workloads: what they ask for over time, and the pods that it takes.

use crate::model::scheduling::{Constraints, Labels};
use crate::model::{PodKey, Resources};
use std::collections::{BTreeSet, VecDeque};
use std::f64::consts::TAU;
use std::sync::Arc;
use std::time::Duration;

const MINUTE: Duration = Duration::from_mins(1);
const DAY_SECONDS: f64 = 86_400.0;
/// Replicas follow a falling demand after so many minutes, as an autoscaler of pods does.
const STABILISATION: usize = 5;

/// Demand in cores as a function of time.
#[derive(Clone, Debug, PartialEq)]
pub enum Curve {
    /// Always the same.
    Constant(f64),
    /// From `low` at night to `high` in the afternoon; weekends at `weekend` of that.
    Daily {
        /// At its lowest.
        low: f64,
        /// At its highest.
        high: f64,
        /// The hour of the peak, in UTC.
        peak_hour: f64,
        /// What is left of it on Saturdays and Sundays.
        weekend: f64,
    },
    /// `height` for `length` at the beginning of each `every`, else nothing.
    Cron {
        /// From one beginning to the next.
        every: Duration,
        /// How long it takes.
        length: Duration,
        /// How much it takes.
        height: f64,
    },
    /// From `at` on `height`, which then halves with each `half_life`.
    FlashSale {
        /// When it begins.
        at: Duration,
        /// How much it takes at first.
        height: f64,
        /// How fast it ebbs away.
        half_life: Duration,
    },
    /// Up and down like a square wave.
    Oscillating {
        /// The lower value.
        low: f64,
        /// The higher value.
        high: f64,
        /// How long each of them lasts.
        half_period: Duration,
    },
    /// One value a minute; after its end it begins anew.
    Trace(Arc<[f64]>),
    /// All of them together.
    Sum(Vec<Curve>),
}

impl Curve {
    /// Gives the demand at `elapsed` since the world's beginning, a Monday at midnight plus `phase`.
    pub fn at(&self, elapsed: Duration, phase: Duration) -> f64 {
        match self {
            Self::Constant(value) => *value,
            Self::Daily { low, high, peak_hour, weekend } => {
                let seconds = (elapsed + phase).as_secs_f64();
                let day = (seconds / DAY_SECONDS) % 7.0;
                let angle = (seconds / 3600.0 - peak_hour) / 24.0 * TAU;
                let share = f64::midpoint(1.0, angle.cos());
                let value = low + (high - low) * share;
                if day >= 5.0 { value * weekend } else { value }
            }
            Self::Cron { every, length, height } => {
                let into = (elapsed + phase).as_secs() % every.as_secs().max(1);
                if into < length.as_secs() { *height } else { 0.0 }
            }
            Self::FlashSale { at, height, half_life } => match elapsed.checked_sub(*at) {
                Some(since) => height * 0.5_f64.powf(since.as_secs_f64() / half_life.as_secs_f64().max(1.0)),
                None => 0.0,
            },
            Self::Oscillating { low, high, half_period } => {
                let half = elapsed.as_secs() / half_period.as_secs().max(1);
                if half.is_multiple_of(2) { *low } else { *high }
            }
            Self::Trace(values) => {
                let minute = usize::try_from(elapsed.as_secs() / 60).unwrap_or(usize::MAX);
                values.get(minute % values.len().max(1)).copied().unwrap_or(0.0)
            }
            Self::Sum(curves) => curves.iter().map(|curve| curve.at(elapsed, phase)).sum(),
        }
    }
}

/// A deployment that follows its demand.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Its namespace.
    pub namespace: String,
    /// Its name; the label `app` of its pods.
    pub name: String,
    /// The labels of its pods.
    pub labels: Arc<Labels>,
    /// What each pod requests.
    pub requests: Resources,
    /// Where its pods may go.
    pub constraints: Arc<Constraints>,
    /// The priority of its pods.
    pub priority: i32,
    /// What is demanded of it.
    pub curve: Curve,
    /// How many cores a pod works for when it is loaded as it should be.
    pub cores_per_pod: f64,
    /// The fewest pods.
    pub least: u32,
    /// The most pods.
    pub most: u32,
    /// How long a pod takes to end.
    pub grace: Duration,
    /// How many of its pods may be missing; `None` is without a budget.
    pub max_unavailable: Option<u32>,
    /// What its pods' annotation `safe-to-evict` says.
    pub safe_to_evict: Option<bool>,
    /// Its pods are annotated `do-not-disrupt`.
    pub do_not_disrupt: bool,
    /// How much of its requested memory a pod uses.
    pub memory_share: f64,
    /// The pods that it has, those that end left out.
    pub pods: BTreeSet<PodKey>,
    /// How many it should have.
    pub wanted_pods: u32,
    numbered: u64,
    lately: VecDeque<u32>,
}

impl Workload {
    /// Makes a deployment of equal pods.
    pub fn new(name: &str, requests: Resources, curve: Curve, cores_per_pod: f64) -> Self {
        Self {
            namespace: "default".into(),
            name: name.into(),
            labels: Arc::new(Labels::from([("app".into(), name.into())])),
            requests,
            constraints: Arc::default(),
            priority: 0,
            curve,
            cores_per_pod,
            least: 1,
            most: 1000,
            grace: Duration::from_secs(10),
            max_unavailable: Some(1),
            safe_to_evict: None,
            do_not_disrupt: false,
            memory_share: 0.6,
            pods: BTreeSet::new(),
            wanted_pods: 0,
            numbered: 0,
            lately: VecDeque::new(),
        }
    }

    /// Tells how many pods the demand takes: at once when it rises, after some minutes when it falls.
    pub fn wanted(&mut self, demand: f64) -> u32 {
        let now = whole(demand / self.cores_per_pod.max(1e-6)).clamp(self.least, self.most);
        if self.lately.len() == STABILISATION {
            self.lately.pop_front();
        }
        self.lately.push_back(now);
        self.lately.iter().copied().max().unwrap_or(now)
    }

    /// Makes a name that no pod of it ever had.
    pub fn next_key(&mut self) -> PodKey {
        self.numbered += 1;
        PodKey { namespace: self.namespace.clone(), name: format!("{}-{:05}", self.name, self.numbered) }
    }
}

/// How often workloads are looked at.
pub const TICK: Duration = MINUTE;

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the value is clamped to the range of u32 first")]
fn whole(value: f64) -> u32 {
    value.ceil().clamp(0.0, f64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(number: u64) -> Duration {
        Duration::from_secs(3600 * number)
    }

    #[test]
    fn a_daily_curve_peaks_at_its_hour_and_rests_at_weekends() {
        let curve = Curve::Daily { low: 1.0, high: 5.0, peak_hour: 14.0, weekend: 0.5 };
        let at = |elapsed| curve.at(elapsed, Duration::ZERO);
        assert!((at(hours(14)) - 5.0).abs() < 1e-9 && (at(hours(2)) - 1.0).abs() < 1e-9);
        assert!((at(hours(5 * 24 + 14)) - 2.5).abs() < 1e-9);
    }

    #[test]
    fn cron_jobs_and_flash_sales_come_when_they_should() {
        let cron = Curve::Cron { every: hours(1), length: Duration::from_mins(5), height: 3.0 };
        let sale = Curve::FlashSale { at: hours(2), height: 8.0, half_life: hours(1) };
        let both = Curve::Sum(vec![cron, sale]);
        let at = |elapsed| both.at(elapsed, Duration::ZERO);
        assert!((at(hours(1)) - 3.0).abs() < 1e-9);
        assert!((at(hours(1) + Duration::from_mins(5))).abs() < 1e-9);
        assert!((at(hours(3) + Duration::from_secs(400)) - 8.0 * 0.5_f64.powf(1.0 + 400.0 / 3600.0)).abs() < 1e-9);
    }

    #[test]
    fn pods_follow_a_rise_at_once_and_a_fall_after_a_while() {
        let mut workload = Workload::new("web", Resources::default(), Curve::Constant(0.0), 0.5);
        assert_eq!(workload.wanted(2.0), 4);
        let falls: Vec<u32> = (0..6).map(|_| workload.wanted(1.0)).collect();
        assert_eq!(falls, [4, 4, 4, 4, 2, 2]);
        assert_eq!(workload.wanted(0.0), 2, "one pod at least, but not yet");
    }
}
