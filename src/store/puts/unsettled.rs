//! [`Unsettled`]: the tickets of events that were put together.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use crate::error::WriteError;
use crate::pending::PutTicket;
use crate::settled::Stored;

/// Tickets that are not answered, in any order, each with the index of its event.
///
/// A queue would keep answered tickets behind one that is not.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    tickets: FuturesUnordered<IndexedTicket>,
}

#[derive(Debug)]
struct IndexedTicket {
    index: u64,
    ticket: PutTicket,
}

impl Unsettled {
    pub(super) fn push(&self, index: u64, ticket: PutTicket) {
        self.tickets.push(IndexedTicket { index, ticket });
    }

    /// The next answer, which is taken out; `None` if there are no tickets.
    pub(super) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<(u64, Result<Stored, WriteError>)>> {
        self.tickets.poll_next_unpin(context)
    }

    pub(super) fn len(&self) -> usize {
        self.tickets.len()
    }
}

impl Future for IndexedTicket {
    type Output = (u64, Result<Stored, WriteError>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let index = self.index;
        Pin::new(&mut self.ticket).poll(context).map(|answer| (index, answer))
    }
}
