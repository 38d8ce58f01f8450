//! Bugs that are planted, one for each invariant, to show that the oracle sees them.

use super::oracle::Invariant;
use crate::policy::Settings;
use std::fmt;

/// What stands for every secret of the world.
pub const CANARY: &str = "canary-7f3a";

/// A bug as a controller might have it. It sits where the controller meets the world, or in what it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// A launch is sent a second time, with another token.
    SecondToken,
    /// The maximum is not known.
    NoMaximum,
    /// The minimum is not known.
    NoMinimum,
    /// Everybody's instances are taken for its own.
    TakesStrangers,
    /// A lease that cannot be renewed is trusted for ever.
    TrustsForEver,
    /// What is missing is zero.
    MissingIsZero,
    /// Nobody is seen on a node.
    SeesNoPods,
    /// A node's object is never removed.
    LeavesNodes,
    /// Urgent pods are seen all the time.
    HotLoop,
    /// Nothing can be bought.
    NeverBuys,
    /// Nothing is given back.
    NeverGivesBack,
    /// The pause is not read.
    DeafToPause,
    /// Errors carry secrets.
    TellsSecrets,
}

impl Plant {
    /// All of them, each with the invariant that it breaks.
    pub const ALL: [(Self, Invariant); 13] = [
        (Self::SecondToken, Invariant(1)),
        (Self::NoMaximum, Invariant(2)),
        (Self::NoMinimum, Invariant(3)),
        (Self::TakesStrangers, Invariant(4)),
        (Self::TrustsForEver, Invariant(5)),
        (Self::MissingIsZero, Invariant(6)),
        (Self::SeesNoPods, Invariant(7)),
        (Self::LeavesNodes, Invariant(8)),
        (Self::HotLoop, Invariant(9)),
        (Self::NeverBuys, Invariant(10)),
        (Self::NeverGivesBack, Invariant(10)),
        (Self::DeafToPause, Invariant(11)),
        (Self::TellsSecrets, Invariant(12)),
    ];

    /// Tells the controller something else than what is promised.
    pub fn lie(self, settings: &mut Settings) {
        if self == Self::NeverGivesBack {
            settings.scale_down.enabled = false;
        }
        for pool in &mut settings.pools {
            if self == Self::NoMaximum {
                pool.max = 200;
            }
            if self == Self::NoMinimum {
                pool.min = 0;
            }
        }
    }
}

impl fmt::Display for Plant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut name = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.extend(letter.to_lowercase());
        }
        formatter.write_str(&name)
    }
}

impl std::str::FromStr for Plant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(|(plant, _)| plant.to_string()).join(", ");
        Self::ALL
            .into_iter()
            .map(|(plant, _)| plant)
            .find(|plant| plant.to_string() == text)
            .ok_or_else(|| format!("`{text}` is none of {}", names()))
    }
}
