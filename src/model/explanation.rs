//! Questions that people ask of a decision, and what they are told.

use super::ids::NodeName;
use super::pod::PodKey;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// How many things one [`Reason`] names.
const NAMED: usize = 10;
/// How many reasons are told.
const TOLD: usize = 100;

/// What somebody wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Why does the pod wait, and what would take it?
    Pod(PodKey),
    /// Why is the node not given back?
    Node(NodeName),
    /// What can be bought now, and why is the rest not?
    Offers,
}

impl fmt::Display for Question {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(key) => write!(formatter, "pod {key}"),
            Self::Node(name) => write!(formatter, "node {name}"),
            Self::Offers => formatter.write_str("offers"),
        }
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// What it is about: `pod NS/NAME`, `node NAME`, `offers`.
    pub subject: String,
    /// When the cluster was seen as it is described.
    pub as_of: Timestamp,
    /// The answer in a sentence.
    pub verdict: String,
    /// What it rests on: at most a hundred reasons.
    pub reasons: Vec<Reason>,
    /// How many reasons are left out.
    pub left_out: usize,
}

/// One reason, with everything that it holds for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// The reason in words.
    pub why: String,
    /// How many things it holds for.
    pub number: usize,
    /// The first of them: nodes, offers or pods.
    pub names: Vec<String>,
}

impl Explanation {
    /// Makes an answer; things of one reason come together, the reasons in the order of their words.
    #[must_use]
    pub fn new(question: &Question, as_of: Timestamp, verdict: String, things: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut by_reason: BTreeMap<String, Reason> = BTreeMap::new();
        for (name, why) in things {
            let reason = by_reason.entry(why.clone()).or_insert_with(|| Reason { why, number: 0, names: Vec::new() });
            reason.number += 1;
            if reason.names.len() < NAMED {
                reason.names.push(name);
            }
        }
        let left_out = by_reason.len().saturating_sub(TOLD);
        Self { subject: question.to_string(), as_of, verdict, reasons: by_reason.into_values().take(TOLD).collect(), left_out }
    }
}
