//! What is wrong with a configuration: every problem, each with its key and what would be right.

use std::fmt;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The configuration file.
    File {
        /// Its name, as it was given.
        name: String,
        /// The line, counted from 1, where it is known.
        line: Option<usize>,
    },
    /// An environment variable.
    Environment {
        /// Its name.
        variable: String,
    },
    /// Nobody set it.
    Default,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, `pool.workers.max`; empty when the file as a whole is meant.
    pub key: String,
    /// The value as it was written; `None` when there is none, or when it may be a secret.
    pub value: Option<String>,
    /// What is wrong, or what would be right.
    pub expected: String,
    /// Where it stands.
    pub origin: Origin,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::File { name, line: Some(line) } => write!(formatter, "{name}:{line}: ")?,
            Origin::File { name, line: None } => write!(formatter, "{name}: ")?,
            Origin::Environment { variable } => write!(formatter, "{variable}: ")?,
            Origin::Default => formatter.write_str("default: ")?,
        }
        match (&self.value, self.key.is_empty()) {
            (_, true) => formatter.write_str(&self.expected),
            (Some(value), false) => write!(formatter, "{} = {value}: {}", self.key, self.expected),
            (None, false) => write!(formatter, "{}: {}", self.key, self.expected),
        }
    }
}

/// Everything that is wrong, in the order in which it was found. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                formatter.write_str("\n")?;
            }
            problem.fmt(formatter)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
