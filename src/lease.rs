//! The words of a leased writer id: what a lease is, and what is asked of the table that holds the leases.
//!
//! A lease is a range of the *key space*: whoever holds writer id N with the range `from..until` may make the keys with N
//! whose time is in it. All times are milliseconds since the Unix epoch as keys have them, never those of a timer.

use std::fmt;
use std::str::FromStr;

use crate::event::key::WriterId;

/// What proves to the table who holds a lease: 64 random bits, drawn anew by each write of its row.
///
/// So two copies of one process cannot both extend a lease. The first of them replaces the token that the other knows.
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

/// A writer id, and the time in the keys that its holder may make.
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
    /// Takes an id. It must never have been held, or its last range must end before `free_before`, or at or before the
    /// lease's `from` if its holder has given it back. So ranges of one id never overlap.
    Take { lease: Lease, free_before: u64 },
    /// Moves the end of a lease, if `held` is still its token.
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
