//! Names and identifiers, each a type of its own so that none stands in for another.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Wraps the text as it is.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// Borrows the text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name_type!(
    /// Names a Kubernetes node.
    NodeName
);
name_type!(
    /// Identifies an EC2 instance (`i-…`).
    InstanceId
);

impl InstanceId {
    /// Reads an id as EC2 writes it: `i-` and 8 to 17 hexadecimal digits.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("i-")?;
        let hexadecimal = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        ((8..=17).contains(&digits.len()) && hexadecimal).then(|| Self::from(text))
    }
}

name_type!(
    /// Names an EC2 instance type (`m5.large`).
    InstanceType
);
name_type!(
    /// Names an availability zone (`eu-central-1a`).
    Zone
);
name_type!(
    /// Identifies a VPC subnet (`subnet-…`).
    SubnetId
);
name_type!(
    /// Names a pool of workers, as the configuration does.
    PoolName
);
name_type!(
    /// Names a rule of the policy: `cpu`, `memory`, or that of a `[[metric]]`.
    RuleName
);
name_type!(
    /// Identifies an operation; it is the client token of the request to EC2 as well.
    OperationId
);

/// Counts the takings of the lease. It only grows, and every journal entry and
/// instance carries the one it was made in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}
