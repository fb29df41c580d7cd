//! [`WriterIds`]: where a store's writer id comes from.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::error::ConfigError;
use crate::event::key::WriterId;
use crate::policy::lease::LeaseTerms;
use crate::store::limits::{HOUR, duration_in_range, in_range};

/// Where a store's [`WriterId`] comes from: drawn at random, assigned by the program, or leased from a table.
///
/// | | can two writers have the same id? | needs |
/// |---|---|---|
/// | [`drawn`](Self::drawn), the default | by chance: [`WriterId`] lists the odds | nothing |
/// | `WriterIds::from(7)`, or just `7` | if the program assigns it twice | something that numbers your processes |
/// | [`leased`](Self::leased) | no; [`LeasedWriterIds`] lists the exceptions | a table, `dynamodb:UpdateItem` on it, a call every 20 s |
///
/// A drawn or leased id is replaced after the process was suspended, and by
/// [`change_writer_id`](crate::EventStore::change_writer_id).
///
/// ```
/// use dynamodb_eventstore::{EventStore, WriterIds};
///
/// let assigned = EventStore::builder().table("all-events").writer_id(7);
/// let leased =
///     EventStore::builder().table("all-events").writer_id(WriterIds::leased("all-events-writers"));
/// ```
#[derive(Debug, Clone, Default)]
pub struct WriterIds(pub(crate) Source);

#[derive(Debug, Clone, Default)]
pub(crate) enum Source {
    #[default]
    Drawn,
    Assigned(u32),
    Leased(LeasedWriterIds),
}

impl WriterIds {
    /// An id that is drawn at random when the store starts. The default.
    #[must_use]
    pub fn drawn() -> Self {
        Self(Source::Drawn)
    }

    /// An id that no other store has while this one has it, leased from this table (its name or ARN), in the region and
    /// with the credentials of the store's own table. See [`LeasedWriterIds`].
    #[must_use]
    pub fn leased(table: impl Into<String>) -> LeasedWriterIds {
        LeasedWriterIds {
            table: table.into(),
            term: Duration::from_secs(60),
            ids: 0..=WriterId::MAX,
            max_wait: Duration::from_secs(30),
        }
    }
}

impl From<u32> for WriterIds {
    fn from(id: u32) -> Self {
        Self(Source::Assigned(id))
    }
}

impl From<WriterId> for WriterIds {
    fn from(id: WriterId) -> Self {
        Self::from(id.get())
    }
}

impl From<LeasedWriterIds> for WriterIds {
    fn from(ids: LeasedWriterIds) -> Self {
        Self(Source::Leased(ids))
    }
}

/// Writer ids that are leased from a table; made by [`WriterIds::leased`].
///
/// A lease allows its holder to make keys that have the id and a *time* within a range. The store takes a free id when
/// it starts, with a range of one [`term`](Self::term). It extends the range every third of a term, and gives the id
/// back when it is [closed](crate::EventStore::close). The next holder's range begins where the last one ends. The
/// table ensures that with conditional writes, and the store never makes a key outside of its range. So two stores
/// never make the same key, even if clocks are wrong or a process was suspended. "Limits of the promise" below lists
/// the exceptions.
///
/// A store that is killed, or whose runtime is shut down, does not give its id back. Other stores can lease it two
/// terms after its last extension, by their clocks.
///
/// If the range cannot be extended (the table does not answer, or the process was suspended), the store makes keys
/// until the end of its range. Then [`put`](crate::EventStore::put) waits, up to [`max_wait`](Self::max_wait).
///
/// # The table
///
/// `dynamodb-eventstore create-table --table all-events --with-writers` creates it, and
/// [`Table::for_writer_ids`](crate::Table::for_writer_ids) does. The role needs `dynamodb:UpdateItem` on it. It has a
/// row for each id that was held within 30 days: at most 100,000, of about 150 bytes.
///
/// | attribute | type | |
/// |---|---|---|
/// | `id` | S | the hash key: the five digits of the writer id |
/// | `until` | N | end of the range, in milliseconds since the Unix epoch |
/// | `token` | S | newly drawn by each write; absent once the id was given back |
/// | `holder` | S | host and process; absent once the id was given back |
/// | `since` | N | when the id was taken, in milliseconds since the Unix epoch, by the holder's clock |
/// | `expires_at` | N | when the row may be removed (TTL), in seconds: 30 days after `until` |
///
/// # Limits of the promise
///
/// - It holds between stores that lease from the same table. A store with a drawn or an assigned id knows nothing of
///   leases: [`ids`](Self::ids) keeps ids for such stores.
/// - If a row is removed, the end of its range is lost. The next holder begins at its own clock, so a clock that is 30
///   days behind may repeat keys.
/// - Copies of one process that both continue (a virtual machine that is cloned while it runs) share a lease until each
///   has tried to extend it. Only one of them succeeds. That takes a third of a term, or the rest of the range if the
///   table does not answer. If you know that the process was copied, call
///   [`change_writer_id`](crate::EventStore::change_writer_id).
/// - A clock that is a year ahead takes its id away from the others for a year. They find other ids.
#[derive(Debug, Clone)]
pub struct LeasedWriterIds {
    pub(crate) table: String,
    term: Duration,
    ids: RangeInclusive<u32>,
    pub(crate) max_wait: Duration,
}

impl LeasedWriterIds {
    /// How far a lease reaches beyond the time of the keys, 1 s to 1 hour. Default: 60 s, so one write unit every 20 s,
    /// 4,320 a day. If the table fails for up to two thirds of the term, 40 s, no put waits.
    #[must_use]
    pub fn term(mut self, term: Duration) -> Self {
        self.term = term;
        self
    }

    /// The ids to lease, within 0 to 99,999. Default: all of them. Leave some out for stores whose ids you assign. With
    /// at least ten times as many ids as stores, the first id that is tried is nearly always free.
    #[must_use]
    pub fn ids(mut self, ids: RangeInclusive<u32>) -> Self {
        self.ids = ids;
        self
    }

    /// How long [`start`](crate::EventStoreBuilder::start) looks for an id, and how long a put waits for one, 1 ms to 1
    /// hour. Default: 30 s. It is in addition to the wait for the buffer.
    #[must_use]
    pub fn max_wait(mut self, max_wait: Duration) -> Self {
        self.max_wait = max_wait;
        self
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        if !(1..=1_024).contains(&self.table.len()) {
            let limit = "be a table's name or ARN: 1 to 1024 characters";
            return Err(ConfigError::new(
                "writer_id.leased",
                format_args!("`{}`", self.table),
                limit,
            ));
        }
        duration_in_range("writer_id.term", self.term, Duration::from_secs(1), HOUR)?;
        duration_in_range("writer_id.max_wait", self.max_wait, Duration::from_millis(1), HOUR)?;
        in_range("writer_id.ids", *self.ids.end(), 0, WriterId::MAX)?;
        if self.ids.is_empty() {
            let shown = format!("{:?}", self.ids);
            return Err(ConfigError::new("writer_id.ids", shown, "have an id or more"));
        }
        Ok(())
    }

    /// Number of ids to lease.
    pub(crate) fn count(&self) -> u32 {
        self.ids.end().saturating_sub(*self.ids.start()).saturating_add(1)
    }

    /// The policy's part of these settings, which must be valid.
    pub(crate) fn terms(&self, refusal_timeout: Duration) -> LeaseTerms {
        let lowest = WriterId::from_random(0);
        LeaseTerms {
            term: u64::try_from(self.term.as_millis()).unwrap_or(u64::MAX),
            first_id: lowest.plus((*self.ids.start()).into()),
            last_id: lowest.plus((*self.ids.end()).into()),
            refusal_timeout,
        }
    }
}
