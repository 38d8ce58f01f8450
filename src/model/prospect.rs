//! What a forecast says of the nodes that a pool should have.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How many nodes there should be for the demand that comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// With fewer than these, ready and booting, nodes are bought up to them.
    pub buy: u32,
    /// With more than these, nodes are given back down to them; never to fewer than `buy`.
    pub hold: u32,
}

/// What a forecast sees, and what it wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prospect {
    /// What it wants; `None` while it has no say.
    pub wanted: Option<Wanted>,
    /// Since when it has no say because the demand is not known: what it would hold may not go at first.
    pub blind_since: Option<Timestamp>,
    /// Less than a week of the demand is known: a forecast that acts of itself only watches until then.
    pub on_trial: bool,
    /// What it sees, in words.
    pub evidence: String,
}
