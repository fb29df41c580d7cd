//! A table of leases for the [simulation](super::simulation), with the same conditions as the real
//! one.

use std::collections::HashMap;

use crate::event::key::WriterId;
use crate::lease::{LeaseAnswer, LeaseRequest, Token};

#[derive(Debug, Clone, Copy)]
struct Row {
    token: Option<Token>,
    until: u64,
}

/// The table of leases, and writes that will be applied later.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: HashMap<WriterId, Row>,
    late: Vec<(u64, LeaseRequest)>,
}

impl Table {
    /// Applies a request as the conditional `UpdateItem` call does.
    pub(super) fn apply(&mut self, request: &LeaseRequest) -> LeaseAnswer {
        match *request {
            LeaseRequest::Take { lease, free_before } => {
                let row = self.rows.get(&lease.id);
                let is_free = row.is_none_or(|row| {
                    row.until < free_before || (row.token.is_none() && row.until <= lease.from)
                });
                if !is_free {
                    return LeaseAnswer::Refused { token: row.and_then(|row| row.token) };
                }
                let row = Row { token: Some(lease.token), until: lease.until };
                self.rows.insert(lease.id, row);
            }
            LeaseRequest::Extend { id, held, token, until } => match self.rows.get_mut(&id) {
                Some(row) if row.token == Some(held) => *row = Row { token: Some(token), until },
                row => return LeaseAnswer::Refused { token: row.and_then(|row| row.token) },
            },
            LeaseRequest::GiveBack { id, held, until } => match self.rows.get_mut(&id) {
                Some(row) if row.token == Some(held) => *row = Row { token: None, until },
                row => return LeaseAnswer::Refused { token: row.and_then(|row| row.token) },
            },
        }
        LeaseAnswer::Applied
    }

    /// Applies a request at this time.
    pub(super) fn apply_at(&mut self, time: u64, request: LeaseRequest) {
        self.late.push((time, request));
    }

    /// Whether a row has a token.
    pub(super) fn is_held(&self, id: WriterId) -> bool {
        self.rows.get(&id).is_some_and(|row| row.token.is_some())
    }

    pub(super) fn apply_late(&mut self, now: u64) {
        self.late.sort_by_key(|(at, _)| *at);
        while self.late.first().is_some_and(|(at, _)| *at <= now) {
            let (_, request) = self.late.remove(0);
            self.apply(&request);
        }
    }
}
