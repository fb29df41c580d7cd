//! The steps of a put: acquire a permit, reserve room in the journal, make a key, send the event to the worker.

#[cfg(not(feature = "journal"))]
use std::marker::PhantomData;
#[cfg(feature = "journal")]
use std::num::NonZeroU64;

use tokio::sync::mpsc;

use super::EventStore;
#[cfg(feature = "journal")]
use crate::error::JournalError;
use crate::error::{PutError, Uncertainty};
use crate::event::Event;
use crate::event::encoded_body::EncodedBody;
use crate::event::key::EventKey;
use crate::flow_control::{AcquireError, Permit};
#[cfg(feature = "journal")]
use crate::journal::{ActiveJournal, Reservation};
#[cfg(feature = "journal")]
use crate::pending::WaitingEvent;
use crate::pending::{PendingEvent, PutTicket};
use crate::worker::Command;

/// Room for an event in the journal, if there is one.
#[cfg(feature = "journal")]
pub(super) type Room<'a> = Option<Reservation<'a>>;

/// Without the feature `journal` there is none.
#[cfg(not(feature = "journal"))]
pub(super) type Room<'a> = PhantomData<&'a ()>;

impl EventStore {
    pub(super) async fn put_body(&self, body: EncodedBody) -> Result<PutTicket, PutError> {
        #[cfg(feature = "journal")]
        if self.shared.overflow.is_some() {
            let room = self.reserve(&body).await?;
            let event = Event::with_body(self.next_key().await?, body)?;
            return self.send_or_wait(event, Uncertainty::None, room);
        }
        let permit = self.acquire(body.buffered_bytes()).await?;
        let room = self.reserve(&body).await?;
        self.accept(self.next_key().await?, body, permit, room)
    }

    /// Accepts an event at once or not at all.
    pub(super) fn try_put_body(&self, body: EncodedBody) -> Result<PutTicket, PutError> {
        #[cfg(feature = "journal")]
        if self.shared.overflow.is_some() {
            self.check_open()?;
            let room = self.try_reserve(&body)?;
            let event = Event::with_body(self.try_next_key()?, body)?;
            return self.send_or_wait(event, Uncertainty::None, room);
        }
        let accounting = &self.shared.accounting;
        let bytes = accounting.permit_bytes(body.buffered_bytes());
        let permit =
            accounting.flow_control.try_acquire(bytes).map_err(|error| self.put_error(error))?;
        let room = self.try_reserve(&body)?;
        self.accept(self.try_next_key()?, body, permit, room)
    }

    /// Waits for room for an event in the journal, if there is one.
    #[cfg(feature = "journal")]
    pub(super) async fn reserve(&self, body: &EncodedBody) -> Result<Room<'_>, PutError> {
        match self.try_reserve(body) {
            Err(PutError::Journal(JournalError::Full { .. })) => {}
            decided => return decided,
        }
        match &self.shared.accounting.journal {
            // Boxed, so that the future of a put that does not wait stays small.
            Some(journal) => Ok(Some(Box::pin(self.reserve_in(journal, body)).await?)),
            None => Ok(None),
        }
    }

    /// Waits for room in the journal. Fails when the store is closed, although events that wait on disk may still be
    /// sent and release room, or has ended, after which no room is released.
    #[cfg(feature = "journal")]
    async fn reserve_in<'a>(
        &self,
        journal: &'a ActiveJournal,
        body: &EncodedBody,
    ) -> Result<Reservation<'a>, PutError> {
        let mut exit = self.shared.exit.clone();
        let closed = async {
            match &self.shared.overflow {
                Some(overflow) => overflow.closed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = closed => Err(self.put_error(AcquireError::Closed)),
            room = journal.reserve(body.encoded_bytes()) => room.map_err(|error| self.journal_error(error)),
            _ = exit.wait_for(Option::is_some) => Err(self.put_error(AcquireError::Closed)),
        }
    }

    /// Fails if the store accepts no more events. Flow control is open while a closing store sends events from disk.
    #[cfg(feature = "journal")]
    fn check_open(&self) -> Result<(), PutError> {
        match &self.shared.overflow {
            Some(overflow) if overflow.is_closed() => Err(self.put_error(AcquireError::Closed)),
            Some(_) | None => Ok(()),
        }
    }

    #[cfg(feature = "journal")]
    fn journal_error(&self, error: JournalError) -> PutError {
        match error {
            JournalError::Closed => self.put_error(AcquireError::Closed),
            error => PutError::Journal(error),
        }
    }

    #[cfg(feature = "journal")]
    pub(super) fn try_reserve(&self, body: &EncodedBody) -> Result<Room<'_>, PutError> {
        let journal = self.shared.accounting.journal.as_ref();
        let room = journal.map(|journal| journal.try_reserve(body.encoded_bytes()));
        room.transpose().map_err(|error| self.journal_error(error))
    }

    #[cfg(not(feature = "journal"))]
    pub(super) async fn reserve(&self, _: &EncodedBody) -> Result<Room<'_>, PutError> {
        Ok(PhantomData)
    }

    #[cfg(not(feature = "journal"))]
    pub(super) fn try_reserve(&self, _: &EncodedBody) -> Result<Room<'_>, PutError> {
        Ok(PhantomData)
    }

    /// Waits for a permit for an event that takes `buffered_bytes` of memory.
    pub(super) async fn acquire(&self, buffered_bytes: u32) -> Result<Permit<'_>, PutError> {
        let accounting = &self.shared.accounting;
        let bytes = accounting.permit_bytes(buffered_bytes);
        accounting.flow_control.acquire(bytes).await.map_err(|error| self.put_error(error))
    }

    /// Makes an event with this key, and sends it to the worker.
    pub(super) fn accept(
        &self,
        key: EventKey,
        body: EncodedBody,
        permit: Permit<'_>,
        room: Room<'_>,
    ) -> Result<PutTicket, PutError> {
        self.send(Event::with_body(key, body)?, Uncertainty::None, permit, room)
    }

    /// Accepts an event, and sends it to the worker.
    pub(super) fn send(
        &self,
        event: Event,
        uncertainty_before: Uncertainty,
        permit: Permit<'_>,
        room: Room<'_>,
    ) -> Result<PutTicket, PutError> {
        tracing::trace!(key = %event.key(), body = &*event.body(), "put");
        let accounting = &self.shared.accounting;
        #[cfg(feature = "journal")]
        let position = accounting
            .journal
            .as_ref()
            .zip(room)
            .map(|(journal, room)| journal.append(&event, room));
        #[cfg(not(feature = "journal"))]
        let PhantomData = room;
        #[cfg_attr(
            not(feature = "journal"),
            expect(unused_mut, reason = "the journal changes them")
        )]
        let (mut pending, mut ticket) =
            PendingEvent::new(event, uncertainty_before, permit, accounting);
        #[cfg(feature = "journal")]
        let sequence = position.map(|position| {
            let sequence = position.sequence();
            pending.set_journal_sequence(sequence);
            ticket.set_position(position);
            sequence
        });
        let sent = self.send_to_worker(pending).map(|()| ticket);
        #[cfg(feature = "journal")]
        if let (Err(_), Some(sequence), Some(journal)) = (&sent, sequence, &accounting.journal) {
            // The put fails and the caller keeps the event, so the journal must not put it again.
            journal.settle(sequence, None);
        }
        sent
    }

    /// Accepts an event: sends it to the worker if the buffer has room for it and no event waits on disk, else lets it
    /// wait there.
    #[cfg(feature = "journal")]
    pub(super) fn send_or_wait(
        &self,
        event: Event,
        uncertainty_before: Uncertainty,
        room: Room<'_>,
    ) -> Result<PutTicket, PutError> {
        let accounting = &self.shared.accounting;
        let (Some(overflow), Some(journal)) = (&self.shared.overflow, &accounting.journal) else {
            return Err(self.put_error(AcquireError::Closed));
        };
        if !overflow.is_active() {
            let bytes = accounting.permit_bytes(event.buffered_bytes());
            match accounting.flow_control.try_acquire(bytes) {
                Ok(permit) => return self.send(event, uncertainty_before, permit, room),
                Err(AcquireError::Full) => {}
                Err(error) => return Err(self.put_error(error)),
            }
        }
        let Some(room) = room else { return Err(self.put_error(AcquireError::Closed)) };
        // Not under the lock of the overflow, because the log may end in this store.
        tracing::trace!(key = %event.key(), body = &*event.body(), "put");
        let accept = || {
            let position = journal.append(&event, room);
            WaitingEvent::new(event, uncertainty_before, position, accounting)
        };
        overflow.push(&self.shared, journal, accept).map_err(|error| self.put_error(error))
    }

    /// Sends an event that has waited on disk to the worker. Returns it if the worker has ended.
    #[cfg(feature = "journal")]
    pub(super) fn send_loaded(&self, pending: PendingEvent) -> Option<PendingEvent> {
        match self.shared.commands.send(Command::Put(pending)) {
            Err(mpsc::error::SendError(Command::Put(pending))) => Some(pending),
            Ok(()) | Err(_) => None,
        }
    }

    /// Accepts an event that is already in the journal.
    #[cfg(feature = "journal")]
    pub(super) fn send_from_journal(
        &self,
        event: Event,
        sequence: NonZeroU64,
        permit: Permit<'_>,
    ) -> Result<PutTicket, PutError> {
        let accounting = &self.shared.accounting;
        let (mut pending, ticket) =
            PendingEvent::new(event, Uncertainty::CallsMayStillApply, permit, accounting);
        pending.set_journal_sequence(sequence);
        self.send_to_worker(pending).map(|()| ticket)
    }

    fn send_to_worker(&self, pending: PendingEvent) -> Result<(), PutError> {
        let accounting = &self.shared.accounting;
        match self.shared.commands.send(Command::Put(pending)) {
            Ok(()) => Ok(()),
            Err(mpsc::error::SendError(command)) => {
                if let Command::Put(pending) = command {
                    pending.undo_accept(accounting);
                }
                Err(self.put_error(AcquireError::Closed))
            }
        }
    }

    pub(super) fn put_error(&self, error: AcquireError) -> PutError {
        match (error, self.lost()) {
            (AcquireError::Full, _) => self
                .shared
                .config
                .full(&self.stats(), self.shared.accounting.flow_control.is_limit_reduced()),
            (AcquireError::Closed, Some(lost)) => PutError::WorkerLost(lost),
            (AcquireError::Closed, None) => PutError::Closed,
        }
    }
}
