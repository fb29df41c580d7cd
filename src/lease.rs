//! The types of leased writer ids: the lease, and the requests to the table that holds the leases.
//!
//! A lease is a range of *key times*: the holder of writer id N with the range `from..until` may make keys that have N
//! and a time in this range. All times are those of keys, in milliseconds since the Unix epoch, and never those of a
//! timer.

use std::fmt;
use std::str::FromStr;

use crate::event::key::WriterId;

/// Proves to the table who holds a lease: 64 random bits. Each write of the row draws new ones.
///
/// So two copies of one process cannot both extend a lease. The first of them that does replaces the token that the
/// other knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token(pub(crate) u64);

impl fmt::Display for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

impl FromStr for Token {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

/// A writer id, and the range of times of the keys that its holder may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) id: WriterId,
    pub(crate) token: Token,
    /// The first millisecond.
    pub(crate) from: u64,
    /// The millisecond after the last one.
    pub(crate) until: u64,
}

/// One conditional write of a lease's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaseRequest {
    /// Takes an id. Either nobody has held it, or its last range ends before `free_before`, or its holder has given it
    /// back and its last range ends at or before the new lease's `from`. So ranges of one id never overlap.
    Take { lease: Lease, free_before: u64 },
    /// Moves the end of a lease to `until`, if `held` is still its token.
    Extend { id: WriterId, held: Token, token: Token, until: u64 },
    /// Ends a lease at `until`, if `held` is still its token. The row stays, with the end of the range.
    GiveBack { id: WriterId, held: Token, until: u64 },
}

/// How the table answered a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaseAnswer {
    Applied,
    /// The condition did not hold, so nothing was written. `token` is the one in the row, if there is one.
    Refused {
        token: Option<Token>,
    },
}
