//! Amounts of what a pod asks for and a node offers.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Thousandths of a CPU core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MilliCpu(pub u64);

/// Bytes of memory or storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl MilliCpu {
    /// Gives the amount in cores.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "2^53 thousandths are more cores than there are")]
    pub fn cores(self) -> f64 {
        self.0 as f64 / 1000.0
    }
}

impl fmt::Display for MilliCpu {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}m", self.0)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}Mi", self.0 / (1 << 20))
    }
}

/// Begins the name of a resource that counts the volumes of one CSI driver on a node. What a node can attach
/// is limited only where it says so.
pub const ATTACHABLE_VOLUMES: &str = "attachable-volumes-csi-";

/// A bundle of resources: what a pod requests, or what a node can still hold.
///
/// Sums saturate: an amount beyond `u64` fits nowhere, which is the safe side.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// CPU.
    pub cpu: MilliCpu,
    /// Memory.
    pub memory: Bytes,
    /// Local ephemeral storage.
    pub ephemeral_storage: Bytes,
    /// Number of pods: 1 for a pod, the kubelet's `maxPods` for a node.
    pub pods: u64,
    /// Extended resources and huge pages by their full name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extended: BTreeMap<String, u64>,
}

impl Resources {
    /// Tells whether this request fits into `room` in every dimension.
    ///
    /// A dimension that is not asked for is not looked at, so a node that has run
    /// out of storage still takes a pod that wants none.
    #[must_use]
    pub fn fits_in(&self, room: &Self) -> bool {
        let within = |asked: u64, free: u64| asked == 0 || asked <= free;
        within(self.cpu.0, room.cpu.0)
            && within(self.memory.0, room.memory.0)
            && within(self.ephemeral_storage.0, room.ephemeral_storage.0)
            && within(self.pods, room.pods)
            && self.extended.iter().all(|(name, asked)| within(*asked, room.of(name)))
    }

    /// Tells how many such requests fit into `room`; `u64::MAX` when nothing is asked for.
    #[must_use]
    pub fn times_in(&self, room: &Self) -> u64 {
        let times = |asked: u64, free: u64| free.checked_div(asked).unwrap_or(u64::MAX);
        let plain = times(self.cpu.0, room.cpu.0)
            .min(times(self.memory.0, room.memory.0))
            .min(times(self.ephemeral_storage.0, room.ephemeral_storage.0))
            .min(times(self.pods, room.pods));
        let extended = self.extended.iter().map(|(name, asked)| times(*asked, room.of(name)));
        extended.fold(plain, u64::min)
    }

    /// Gives so many of it, dimension by dimension.
    #[must_use]
    pub fn times(&self, times: u64) -> Self {
        let many = |amount: u64| amount.saturating_mul(times);
        Self {
            cpu: MilliCpu(many(self.cpu.0)),
            memory: Bytes(many(self.memory.0)),
            ephemeral_storage: Bytes(many(self.ephemeral_storage.0)),
            pods: many(self.pods),
            extended: self.extended.iter().map(|(name, amount)| (name.clone(), many(*amount))).collect(),
        }
    }

    /// Names the dimensions in which this request exceeds `room`.
    #[must_use]
    pub fn shortages(&self, room: &Self) -> Vec<String> {
        let plain = [
            ("cpu", self.cpu.0, room.cpu.0),
            ("memory", self.memory.0, room.memory.0),
            ("ephemeral-storage", self.ephemeral_storage.0, room.ephemeral_storage.0),
            ("pods", self.pods, room.pods),
        ];
        let extended = self.extended.iter().map(|(name, asked)| (name.as_str(), *asked, room.of(name)));
        plain
            .into_iter()
            .chain(extended)
            .filter(|(_, asked, free)| *asked > 0 && asked > free)
            .map(|(name, _, _)| name.to_owned())
            .collect()
    }

    /// Adds `other`, dimension by dimension.
    pub fn add(&mut self, other: &Self) {
        self.cpu.0 = self.cpu.0.saturating_add(other.cpu.0);
        self.memory.0 = self.memory.0.saturating_add(other.memory.0);
        self.ephemeral_storage.0 = self.ephemeral_storage.0.saturating_add(other.ephemeral_storage.0);
        self.pods = self.pods.saturating_add(other.pods);
        for (name, amount) in &other.extended {
            let sum = self.extended.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*amount);
        }
    }

    /// Takes `other` away, dimension by dimension, stopping at zero.
    pub fn subtract(&mut self, other: &Self) {
        self.cpu.0 = self.cpu.0.saturating_sub(other.cpu.0);
        self.memory.0 = self.memory.0.saturating_sub(other.memory.0);
        self.ephemeral_storage.0 = self.ephemeral_storage.0.saturating_sub(other.ephemeral_storage.0);
        self.pods = self.pods.saturating_sub(other.pods);
        for (name, amount) in &other.extended {
            if let Some(rest) = self.extended.get_mut(name) {
                *rest = rest.saturating_sub(*amount);
            }
        }
    }

    /// Gives back what [`Self::subtract`] took. What was not counted is not counted afterwards, either.
    pub fn give_back(&mut self, other: &Self) {
        let known = |name: &String| self.extended.contains_key(name);
        let extended = other.extended.iter().filter(|(name, _)| known(name)).map(|(name, amount)| (name.clone(), *amount)).collect();
        self.add(&Self { extended, ..other.clone() });
    }

    /// Gives how many volumes of each CSI driver it speaks of.
    #[must_use]
    pub fn attachments(&self) -> BTreeMap<String, u64> {
        self.extended.iter().filter(|(name, _)| name.starts_with(ATTACHABLE_VOLUMES)).map(|(name, most)| (name.clone(), *most)).collect()
    }

    fn of(&self, name: &str) -> u64 {
        let without = if name.starts_with(ATTACHABLE_VOLUMES) { u64::MAX } else { 0 };
        self.extended.get(name).copied().unwrap_or(without)
    }

    /// Takes the larger of the two in each dimension, as init containers ask.
    pub fn raise_to(&mut self, other: &Self) {
        self.cpu = self.cpu.max(other.cpu);
        self.memory = self.memory.max(other.memory);
        self.ephemeral_storage = self.ephemeral_storage.max(other.ephemeral_storage);
        self.pods = self.pods.max(other.pods);
        for (name, amount) in &other.extended {
            let most = self.extended.entry(name.clone()).or_default();
            *most = (*most).max(*amount);
        }
    }

    /// Takes the smaller of the two in each dimension; what one of them does not name is nothing.
    pub fn lower_to(&mut self, other: &Self) {
        self.cpu = self.cpu.min(other.cpu);
        self.memory = self.memory.min(other.memory);
        self.ephemeral_storage = self.ephemeral_storage.min(other.ephemeral_storage);
        self.pods = self.pods.min(other.pods);
        self.extended.retain(|name, _| other.extended.contains_key(name));
        for (name, amount) in &mut self.extended {
            *amount = (*amount).min(other.extended[name]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(cpu: u64, memory: u64) -> Resources {
        Resources { cpu: MilliCpu(cpu), memory: Bytes(memory), pods: 1, ..Resources::default() }
    }

    #[test]
    fn names_every_dimension_that_is_short() {
        let mut asked = resources(500, 10);
        asked.extended.insert("nvidia.com/gpu".into(), 1);
        let room = Resources { pods: 0, ..resources(400, 10) };
        assert_eq!(asked.shortages(&room), ["cpu", "pods", "nvidia.com/gpu"]);
    }

    #[test]
    fn ignores_dimensions_that_are_not_asked_for() {
        let asked = resources(100, 0);
        assert!(asked.fits_in(&resources(100, 0)));
    }

    #[test]
    fn the_scarcest_dimension_decides_how_many_fit() {
        let room = Resources { pods: 110, ..resources(1000, 100) };
        assert_eq!(resources(300, 20).times_in(&room), 3);
        assert_eq!(resources(10, 60).times_in(&room), 1);
        assert!(resources(300, 20).times(3).fits_in(&room) && !resources(300, 20).times(4).fits_in(&room));
        assert_eq!(Resources::default().times_in(&room), u64::MAX);
        let gpu = Resources { extended: [("nvidia.com/gpu".to_owned(), 1)].into(), ..resources(1, 1) };
        assert_eq!(gpu.times_in(&room), 0);
    }

    #[test]
    fn volumes_are_limited_only_where_a_node_says_so() {
        let of = |amount: u64| [(format!("{ATTACHABLE_VOLUMES}ebs"), amount)].into();
        let asked = Resources { extended: of(2), ..resources(1, 1) };
        let mut unlimited = Resources { pods: 110, ..resources(1000, 100) };
        let mut limited = Resources { extended: of(3), ..unlimited.clone() };
        assert_eq!((asked.times_in(&unlimited), asked.times_in(&limited)), (100, 1));
        for room in [&mut unlimited, &mut limited] {
            let before = room.clone();
            room.subtract(&asked);
            room.give_back(&asked);
            assert_eq!(*room, before);
        }
        limited.subtract(&asked);
        assert!(!asked.fits_in(&limited) && asked.fits_in(&unlimited));
        assert_eq!(asked.shortages(&limited), [format!("{ATTACHABLE_VOLUMES}ebs")]);
    }

    #[test]
    fn the_smaller_of_two_has_nothing_of_what_one_of_them_does_not_name() {
        let of = |names: &[(&str, u64)]| names.iter().map(|(name, amount)| ((*name).to_owned(), *amount)).collect();
        let mut least = Resources { extended: of(&[("a", 3), ("b", 1)]), ..resources(100, 9) };
        least.lower_to(&Resources { extended: of(&[("a", 2), ("c", 1)]), ..resources(200, 5) });
        assert_eq!(least, Resources { extended: of(&[("a", 2)]), ..resources(100, 5) });
    }

    #[test]
    fn sums_saturate_so_that_an_absurd_request_fits_nowhere() {
        let mut sum = resources(u64::MAX, 1);
        sum.add(&resources(10, 1));
        assert_eq!(sum.cpu, MilliCpu(u64::MAX));
        assert!(!sum.fits_in(&resources(1_000_000, 1_000_000)));
    }
}
