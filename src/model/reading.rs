//! Measured values. A value that is not there is a reason, never a zero.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Why a value cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "missing")]
pub enum Missing {
    /// The source did not answer.
    Unreachable {
        /// What went wrong.
        why: String,
    },
    /// The turn was urgent and did not ask.
    NotAsked,
    /// The source answered, without this value.
    Empty,
    /// The value is NaN, infinite or outside its range.
    Nonsense {
        /// The value as the source wrote it.
        value: String,
    },
    /// The sample is older than the age gate.
    Stale {
        /// When it was taken.
        sampled: Timestamp,
    },
    /// The sample is from the future: one of the clocks is wrong.
    Future {
        /// When it says it was taken.
        sampled: Timestamp,
    },
}

impl fmt::Display for Missing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { why } => write!(formatter, "the source does not answer: {why}"),
            Self::NotAsked => formatter.write_str("the source was not asked in this turn"),
            Self::Empty => formatter.write_str("the source has no such value"),
            Self::Nonsense { value } => write!(formatter, "the value `{value}` makes no sense"),
            Self::Stale { sampled } => write!(formatter, "the sample of {sampled} is too old"),
            Self::Future { sampled } => write!(formatter, "the sample of {sampled} is from the future"),
        }
    }
}

/// A finite value and when it was sampled, or why there is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Reading {
    /// A value that passed every gate.
    Value {
        /// The value; its unit is the source's.
        value: f64,
        /// When it was sampled.
        sampled: Timestamp,
    },
    /// No usable value.
    Missing(Missing),
}

impl Reading {
    /// Gives the value, where there is one.
    #[must_use]
    pub fn value(&self) -> Option<f64> {
        match self {
            Self::Value { value, .. } => Some(*value),
            Self::Missing(_) => None,
        }
    }
}

/// How busy one node is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Utilisation {
    /// Share of its CPU in use, 0 to 1.
    pub cpu: Reading,
    /// Share of its memory in use, 0 to 1.
    pub memory: Reading,
}
