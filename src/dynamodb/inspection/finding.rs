//! What is inspected, and what was found.

use std::fmt;

/// One thing that an [`Inspection`](crate::Inspection) looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Inspected {
    /// A region is configured.
    Region,
    /// A provider gives credentials that have not expired. Says which kind of provider, never what they are.
    Credentials,
    /// The endpoint answers, with TLS unless its URL begins with `http://`.
    Endpoint,
    /// The machine's clock is at most 5 minutes off the service's, which is the limit of a signature's age. Keys
    /// hold the machine's time.
    Clock,
    /// The service accepts the credentials.
    Authentication,
    /// `DescribeTable` is allowed.
    DescribePermission,
    /// The table exists.
    Table,
    /// The table can be written to.
    Status,
    /// The table's only key is the hash key `key`, a String.
    Key,
    /// The billing mode and the limits of the table. Never fails.
    Capacity,
    /// `BatchGetItem` is allowed. Says how long the call took.
    ReadPermission,
    /// `BatchWriteItem`, or the `INSERT` of [`run_for`](super::Inspection::run_for), is not refused for a lack of
    /// permission.
    WritePermission,
    /// Which way the store will send. Never fails.
    Transport,
}

impl Inspected {
    /// All, in the order in which they are inspected.
    pub const ALL: [Self; 13] = [
        Self::Region,
        Self::Credentials,
        Self::Endpoint,
        Self::Clock,
        Self::Authentication,
        Self::DescribePermission,
        Self::Table,
        Self::Status,
        Self::Key,
        Self::Capacity,
        Self::ReadPermission,
        Self::WritePermission,
        Self::Transport,
    ];
}

impl fmt::Display for Inspected {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Region => "region",
            Self::Credentials => "credentials",
            Self::Endpoint => "endpoint",
            Self::Clock => "clock",
            Self::Authentication => "authentication",
            Self::DescribePermission => "describe permission",
            Self::Table => "table",
            Self::Status => "status",
            Self::Key => "key",
            Self::Capacity => "capacity",
            Self::ReadPermission => "read permission",
            Self::WritePermission => "write permission",
            Self::Transport => "transport",
        })
    }
}

/// What an [`Inspection`](crate::Inspection) found out about one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What was inspected.
    pub inspected: Inspected,
    /// What was found.
    pub outcome: Outcome,
}

/// The outcome of one [`Finding`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The check passed.
    Passed {
        /// What was found.
        found: String,
    },
    /// The check failed.
    Failed {
        /// What was found.
        found: String,
        /// What to do about it.
        advice: String,
    },
    /// It could not be inspected, because something before it failed.
    NotInspected,
}
