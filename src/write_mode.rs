//! [`WriteMode`] and [`OnDuplicate`]: whether a write may replace an item, and what happens to an event whose key is
//! taken.

/// How the store writes events.
///
/// | | `Put` | `Insert` |
/// |---|---|---|
/// | an item with the key of a new event | is overwritten without an error | stays; the new event gets another key, or fails ([`OnDuplicate`]) |
/// | call | `BatchWriteItem` | `BatchExecuteStatement` with an `INSERT` for each event |
/// | permission | `dynamodb:BatchWriteItem` | `dynamodb:PartiQLInsert` |
/// | write units | one per started KB | the same; an insert that finds its key taken consumes units as well |
/// | table | name or ARN | name only: AWS does not document an ARN in a statement |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum WriteMode {
    /// An event replaces an item with its key. That loses data only if two writers make the same key: they have the
    /// same [`WriterId`](crate::WriterId) and put in the same millisecond.
    #[default]
    Put,
    /// An event is stored only if its key is free, so it cannot overwrite another event.
    ///
    /// This assumes that nobody deletes items, and that nothing below the store sends a request twice. The guide has
    /// [more](crate::guide::inserting).
    Insert,
}

/// What happens in [`WriteMode::Insert`] to an event whose key another item has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum OnDuplicate {
    /// The event gets a new key. [`Stored::key`](crate::Stored::key) then differs from
    /// [`PutTicket::key`](crate::PutTicket::key), and [`Stats::replaced_keys`](crate::Stats::replaced_keys) counts it.
    /// The new key has the time at which it is made, so the event comes after the events that were put in the meantime.
    ///
    /// An event that is put again with [`put_event`](crate::EventStore::put_event) gets no new key, because an earlier
    /// put may have stored it under one. It fails as [`MaybeStored`](crate::Certainty::MaybeStored). Not together with
    /// a journal, which keeps events under their first keys.
    #[default]
    NewKey,
    /// The event fails as [`NotStored`](crate::Certainty::NotStored), with
    /// [`FailureReason::DuplicateKey`](crate::FailureReason::DuplicateKey). It fails as
    /// [`MaybeStored`](crate::Certainty::MaybeStored) if an earlier put may have stored it, or if an earlier attempt may
    /// have and the item cannot be read.
    Fail,
}
