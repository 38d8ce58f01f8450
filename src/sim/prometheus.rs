//! Prometheus: how busy nodes were over the last minutes, as scrapes show it.

use crate::model::reading::Utilisation;
use crate::model::snapshot::{Observed, UtilisationReport};
use crate::model::{Missing, NodeName, Reading};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The window of `rate()`, in minutes.
const WINDOW: usize = 5;
/// How the names of workers begin.
pub const WORKERS: &str = "worker-";
/// The query for the cores that all workloads want.
pub const CORES: &str = "cores";
/// Minutes of demand that are kept.
const DEMAND_KEPT: usize = 28 * 1440;
/// Scrapes come this often.
const SCRAPE_SECONDS: i64 = 15;

/// What is wrong with Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// It does not answer.
    Down,
    /// Its answer is empty.
    Empty,
    /// Its values are NaN.
    Nan,
    /// Its samples are old.
    Stale,
    /// Its samples are from the future.
    Future,
    /// Every second worker is missing.
    Partial,
    /// It has just started: counters begin anew and rates read zero.
    Restarted,
    /// Its answer is larger than allowed.
    Huge,
}

/// Samples of one node.
#[derive(Debug, Default)]
struct Samples {
    cpu: VecDeque<f64>,
    memory: f64,
}

/// Prometheus.
#[derive(Debug, Default)]
pub struct Prometheus {
    samples: BTreeMap<NodeName, Samples>,
    /// Cores that all workloads wanted, minute by minute.
    demand: VecDeque<(Timestamp, f64)>,
}

impl Prometheus {
    /// Takes a minute's sample of a node: shares of its CPU and memory.
    pub fn sample(&mut self, node: &NodeName, cpu: f64, memory: f64) {
        let samples = self.samples.entry(node.clone()).or_default();
        if samples.cpu.len() == WINDOW {
            samples.cpu.pop_front();
        }
        samples.cpu.push_back(cpu.clamp(0.0, 1.0));
        samples.memory = memory.clamp(0.0, 1.0);
    }

    /// Forgets nodes that are gone.
    pub fn keep(&mut self, still: impl Fn(&NodeName) -> bool) {
        self.samples.retain(|name, _| still(name));
    }

    /// Answers the query for utilisation, with what is wrong just now.
    pub fn utilisation(&self, trouble: Option<Trouble>, now: Timestamp) -> Observed<UtilisationReport> {
        let unreachable = |why: &str| Observed::Unknown(Missing::Unreachable { why: why.to_owned() });
        match trouble {
            Some(Trouble::Down) => return unreachable("connection refused"),
            Some(Trouble::Huge) => return unreachable("the answer is larger than 16777216 bytes"),
            Some(Trouble::Empty) => return Observed::Unknown(Missing::Empty),
            Some(Trouble::Nan | Trouble::Stale | Trouble::Future | Trouble::Partial | Trouble::Restarted) | None => {}
        }
        let sampled = now - SignedDuration::from_secs(now.as_second() % SCRAPE_SECONDS);
        let read = |value: f64| match trouble {
            Some(Trouble::Nan) => Reading::Missing(Missing::Nonsense { value: "NaN".into() }),
            Some(Trouble::Stale) => Reading::Missing(Missing::Stale { sampled: sampled - SignedDuration::from_mins(10) }),
            Some(Trouble::Future) => Reading::Missing(Missing::Future { sampled: sampled + SignedDuration::from_mins(10) }),
            Some(Trouble::Restarted) => Reading::Value { value: 0.0, sampled },
            Some(Trouble::Down | Trouble::Huge | Trouble::Empty | Trouble::Partial) | None => Reading::Value { value, sampled },
        };
        let workers = self.samples.keys().filter(|name| name.as_str().starts_with(WORKERS)).enumerate();
        let missing: BTreeSet<&NodeName> =
            workers.filter(|(place, _)| trouble == Some(Trouble::Partial) && place % 2 == 0).map(|(_, name)| name).collect();
        let nodes = self.samples.iter().filter(|(name, _)| !missing.contains(name));
        let nodes = nodes.map(|(name, samples)| {
            let cpu = samples.cpu.iter().sum::<f64>() / f64::from(u32::try_from(samples.cpu.len().max(1)).unwrap_or(1));
            (name.clone(), Utilisation { cpu: read(cpu), memory: read(samples.memory) })
        });
        Observed::Known { value: UtilisationReport { nodes: nodes.collect(), warming_up: trouble == Some(Trouble::Restarted) }, at: now }
    }

    /// Takes the cores that all workloads want in this minute.
    pub fn sample_demand(&mut self, now: Timestamp, cores: f64) {
        let minute = |at: Timestamp| at.as_second().div_euclid(60);
        if self.demand.back().is_some_and(|(at, _)| minute(*at) == minute(now)) {
            self.demand.pop_back();
        }
        if self.demand.len() == DEMAND_KEPT {
            self.demand.pop_front();
        }
        self.demand.push_back((now, cores));
    }

    /// Loses the past, as one whose volume is made anew.
    #[cfg(test)]
    pub fn lose_demand(&mut self) {
        self.demand.clear();
    }

    /// Gives the demand at the whole minutes from `first` to `last`: that of the latest sample before each.
    pub fn history(&self, first: Timestamp, last: Timestamp) -> Vec<(Timestamp, f64)> {
        let minute = |at: &Timestamp| Timestamp::from_second((at.as_second().div_euclid(60) + 1) * 60).unwrap_or(*at);
        let from = self.demand.partition_point(|(at, _)| minute(at) < first);
        self.demand.range(from..).map(|(at, cores)| (minute(at), *cores)).take_while(|(at, _)| *at <= last).collect()
    }

    /// Answers that nothing is used anywhere.
    pub fn zeros(&self, now: Timestamp) -> Observed<UtilisationReport> {
        let zero = || Reading::Value { value: 0.0, sampled: now };
        let nodes = self.samples.keys().map(|name| (name.clone(), Utilisation { cpu: zero(), memory: zero() })).collect();
        Observed::Known { value: UtilisationReport { nodes, warming_up: false }, at: now }
    }

    /// Gives a node's latest shares of CPU and memory.
    pub fn shares_of(&self, node: &NodeName) -> Option<(f64, f64)> {
        let samples = self.samples.get(node)?;
        Some((samples.cpu.back().copied()?, samples.memory))
    }

    /// Gives a node's latest CPU share.
    pub fn cpu_of(&self, node: &NodeName) -> Option<f64> {
        self.samples.get(node)?.cpu.back().copied()
    }

    /// Gives the latest sample of the cores that all workloads want.
    pub fn demand(&self) -> Option<f64> {
        self.demand.back().map(|(_, cores)| *cores)
    }

    /// Gives the mean of all nodes' latest CPU shares, which stands for any other metric of an application.
    pub fn mean_cpu(&self) -> f64 {
        let latest: Vec<f64> = self.samples.values().filter_map(|samples| samples.cpu.back().copied()).collect();
        latest.iter().sum::<f64>() / f64::from(u32::try_from(latest.len().max(1)).unwrap_or(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_000_007).expect("a time")
    }

    #[test]
    fn a_rate_is_the_mean_of_the_window() {
        let mut prometheus = Prometheus::default();
        for cpu in [1.0, 0.0, 0.0, 0.5, 0.5, 0.5] {
            prometheus.sample(&"n".into(), cpu, 0.25);
        }
        let Observed::Known { value, .. } = prometheus.utilisation(None, now()) else { panic!("an answer") };
        assert_eq!(value.nodes[&NodeName::from("n")].cpu.value(), Some(0.3));
    }

    #[test]
    fn trouble_is_typed_as_the_adapter_types_it() {
        let mut prometheus = Prometheus::default();
        prometheus.sample(&"server-0".into(), 0.5, 0.5);
        prometheus.sample(&"worker-1".into(), 0.5, 0.5);
        assert!(prometheus.utilisation(Some(Trouble::Down), now()).known().is_none());
        assert!(matches!(prometheus.utilisation(Some(Trouble::Empty), now()), Observed::Unknown(Missing::Empty)));
        assert_eq!(prometheus.utilisation(Some(Trouble::Partial), now()).known().map(|report| report.nodes.len()), Some(1));
        for trouble in [Trouble::Nan, Trouble::Stale, Trouble::Future] {
            let Observed::Known { value, .. } = prometheus.utilisation(Some(trouble), now()) else { panic!("an answer") };
            assert!(value.nodes.values().all(|node| node.cpu.value().is_none()), "{trouble:?}");
        }
        assert!(prometheus.utilisation(Some(Trouble::Restarted), now()).known().is_some_and(|report| report.warming_up));
    }
}
