//! A table in memory that fails as scripted, or at random.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::sleep_until;

use super::reply::Then;
use super::state::{Call, State};
use super::throughput::{Meter, Throughput};
use super::{FaultRates, ReadReply, Reply};
use crate::clock::now;
use crate::dynamodb::{BatchReading, BatchReceipt, BatchWriter};
use crate::error::{BatchError, Certainty, FailureClass};
use crate::event::Event;
use crate::event::key::EventKey;
use crate::store::EventStore;
use crate::store::builder::EventStoreBuilder;
use crate::write_capacity::WriteCapacity;
use crate::write_mode::WriteMode;

/// A key that no store under test makes.
const UNKNOWN_KEY: &str = "20130927T005240652508858176";

/// A table in memory that replaces DynamoDB; see [the module](crate::test_util).
///
/// Like the service, it refuses a whole batch with a `ValidationException` if the batch is empty, or
/// has more than 25 events, a duplicate key, an item of more than 400 KiB, or more than 16 MB in
/// total. The store never sends such a batch, so [`violations`](Self::violations) stays empty as
/// long as every [`BatchWriter`] between the store and the table is correct.
///
/// A clone is the same table, for a test to inspect. Delays need a runtime with a timer.
#[derive(Debug, Clone)]
pub struct FakeTable {
    state: Arc<Mutex<State>>,
}

impl Default for FakeTable {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeTable {
    /// A table that stores all events.
    #[must_use]
    pub fn new() -> Self {
        Self::scripted([])
    }

    /// A table that replies to the first calls as this script says, and then stores all events.
    #[must_use]
    pub fn scripted(script: impl IntoIterator<Item = Reply>) -> Self {
        Self::with(script, Then::Always(Reply::Store), Then::Always(ReadReply::Read))
    }

    /// A table that gives this reply to every call.
    #[must_use]
    pub fn always(reply: Reply) -> Self {
        Self::with([], Then::Always(reply), Then::Always(ReadReply::Read))
    }

    /// A table that fails at random. With the same `seed` the same calls get the same replies.
    #[must_use]
    pub fn seeded(seed: u64, rates: FaultRates) -> Self {
        let writes = Box::new(StdRng::seed_from_u64(seed));
        let reads = Box::new(StdRng::seed_from_u64(seed.wrapping_add(1)));
        Self::with(
            [],
            Then::Draw(writes, rates.clone(), FaultRates::draw),
            Then::Draw(reads, rates, FaultRates::draw_read),
        )
    }

    /// A table with this write capacity. Beyond it, like the service, it leaves events of a batch
    /// unprocessed, or throttles the whole batch with an exception if none of its events can be stored.
    #[must_use]
    pub fn with_capacity(capacity: WriteCapacity) -> Self {
        let table = Self::new();
        table.limit(capacity);
        table
    }

    /// Sets the write capacity from now on. Scripts and other settings stay in effect.
    pub fn limit(&self, capacity: WriteCapacity) {
        self.lock().meter = Some(Meter::new(capacity, now()));
    }

    /// The accepted and throttled units of each second. Empty without a capacity.
    #[must_use]
    pub fn throughput(&self) -> Vec<Throughput> {
        self.lock().meter.as_ref().map(Meter::seconds).unwrap_or_default()
    }

    fn with(
        script: impl IntoIterator<Item = Reply>,
        then: Then<Reply>,
        then_read: Then<ReadReply>,
    ) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                start: now(),
                script: script.into_iter().collect(),
                read_script: VecDeque::new(),
                then,
                then_read,
                invalid_bodies: HashSet::new(),
                calls: Vec::new(),
                reads: Vec::new(),
                writing: 0,
                reading: 0,
                mode: WriteMode::Put,
                rows: BTreeMap::new(),
                late: Vec::new(),
                violations: Vec::new(),
                meter: None,
            })),
        }
    }

    /// Adds replies to the script of reads.
    pub fn script_reads(&self, script: impl IntoIterator<Item = ReadReply>) {
        self.lock().read_script.extend(script);
    }

    /// Gives this reply to every write after those of the script. Reads are not affected.
    pub fn reply_from_now_on(&self, reply: Reply) {
        self.lock().then = Then::Always(reply);
    }

    /// Gives this reply to every read after those of the script of reads. Writes are not affected.
    pub fn reply_to_reads_from_now_on(&self, reply: ReadReply) {
        self.lock().then_read = Then::Always(reply);
    }

    /// Refuses every batch that has an event with this body, as the service refuses a batch with an
    /// invalid item. Such a call does not use a reply of the script.
    pub fn reject(&self, body: impl Into<String>) {
        self.lock().invalid_bodies.insert(body.into());
    }

    /// How the table writes from now on, and the stores that are built from it. Default: [`WriteMode::Put`].
    pub fn set_write_mode(&self, mode: WriteMode) {
        self.lock().mode = mode;
    }

    /// A builder of a store that writes to this table.
    pub fn store_builder(&self) -> EventStoreBuilder {
        let mode = self.lock().mode;
        EventStore::builder().batch_writer(self.clone()).write_mode(mode)
    }

    /// Every body in the table by key.
    #[must_use]
    pub fn rows(&self) -> BTreeMap<String, String> {
        self.lock().rows.clone()
    }

    /// The body of the event under this key, if there is one.
    #[must_use]
    pub fn body(&self, key: &EventKey) -> Option<String> {
        self.lock().rows.get(key.as_str()).cloned()
    }

    /// Adds an item to the table, or replaces it, without a call.
    pub fn insert(&self, key: &EventKey, body: impl Into<String>) {
        self.lock().rows.insert(key.to_string(), body.into());
    }

    /// Deletes an item of the table, without a call.
    pub fn remove(&self, key: &EventKey) {
        self.lock().rows.remove(key.as_str());
    }

    /// Every write call, including refused ones.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    /// How many events each call carried.
    #[must_use]
    pub fn sizes(&self) -> Vec<usize> {
        self.lock().calls.iter().map(|call| call.keys.len()).collect()
    }

    /// Every read call.
    #[must_use]
    pub fn reads(&self) -> Vec<Call> {
        self.lock().reads.clone()
    }

    /// Descriptions of the rules of the service that calls have broken, and of the keys that were
    /// overwritten with another body.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// Locks the current state, after applying the late batches that are due.
    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = now();
        state.late.sort_by_key(|(at, _)| *at);
        let due = state.late.partition_point(|(at, _)| *at <= now);
        for (_, events) in state.late.drain(..due).collect::<Vec<_>>() {
            state.apply(&events);
        }
        state
    }

    async fn reply(&self, reply: Reply, events: &[Event]) -> Result<BatchReceipt, BatchError> {
        let mut reply = reply;
        while let Reply::After(delay, then) = reply {
            wait(delay).await;
            reply = *then;
        }
        match reply {
            Reply::Store => {
                let throttled = self.lock().throttle(events)?;
                if throttled.is_empty() {
                    return Ok(self.apply(events, BatchReceipt::all_processed()));
                }
                Ok(self.leave_unprocessed(events, &throttled))
            }
            Reply::Unprocessed(places) => Ok(self.leave_unprocessed(events, &places)),
            Reply::UnprocessedUnknownKey => {
                self.lock().apply(events);
                Ok(BatchReceipt::with_unprocessed([UNKNOWN_KEY]))
            }
            Reply::Fail(class, certainty) => {
                Err(BatchError::new(class, certainty, "as scripted").with_code("FakeException"))
            }
            Reply::StoreThenFail => {
                self.lock().apply(events);
                Err(lost("the answer was lost, as scripted"))
            }
            Reply::LoseAnswer => Err(lost("the answer broke off, as scripted").with_call_over()),
            Reply::StoreThenLoseAnswer => {
                self.lock().apply(events);
                Err(lost("the answer broke off, as scripted").with_call_over())
            }
            Reply::Hang => std::future::pending().await,
            Reply::StoreThenHang => {
                self.lock().apply(events);
                std::future::pending().await
            }
            Reply::HangThenStore(delay) => {
                self.lock().late.push((now() + delay, events.to_vec()));
                std::future::pending().await
            }
            #[expect(clippy::panic, reason = "the test asked for it")]
            Reply::Panic => panic!("the writer panics, as scripted"),
            Reply::After(..) => Err(lost("the delay was taken above")),
        }
    }

    /// Applies all events except those at these indexes.
    fn leave_unprocessed(&self, events: &[Event], places: &[usize]) -> BatchReceipt {
        let unprocessed: Vec<&Event> =
            places.iter().filter_map(|&place| events.get(place)).collect();
        let keys = unprocessed.iter().map(|event| event.key().as_str());
        let receipt = BatchReceipt::with_unprocessed(keys).with_request_id("FAKE");
        self.apply(events.iter().filter(|event| !unprocessed.contains(event)), receipt)
    }

    /// Applies events, and adds those whose keys are taken to the receipt.
    fn apply<'a>(
        &self,
        events: impl IntoIterator<Item = &'a Event>,
        receipt: BatchReceipt,
    ) -> BatchReceipt {
        let duplicates = self.lock().apply(events);
        let taken = "an item with this key is in the table";
        let failure = BatchError::new(FailureClass::Duplicate, Certainty::NotStored, taken);
        let failure = Arc::new(failure.with_code("DuplicateItem"));
        duplicates
            .into_iter()
            .fold(receipt, |receipt, key| receipt.with_failed(key, Arc::clone(&failure)))
    }

    async fn read(&self, reply: ReadReply, keys: &[EventKey]) -> Result<BatchReading, BatchError> {
        let mut reply = reply;
        while let ReadReply::After(delay, then) = reply {
            wait(delay).await;
            reply = *then;
        }
        let fail = |class| BatchError::new(class, Certainty::NotStored, "as scripted");
        let left_out = match reply {
            ReadReply::Read => Vec::new(),
            ReadReply::LeaveOut(places) => places,
            ReadReply::Fail(class) => return Err(fail(class).with_code("FakeException")),
            ReadReply::Deny => {
                return Err(fail(FailureClass::Fatal).with_code("AccessDeniedException"));
            }
            ReadReply::NameUnknownKey => {
                return Ok(BatchReading::nothing_found().with_item(UNKNOWN_KEY, None));
            }
            ReadReply::Hang => std::future::pending().await,
            #[expect(clippy::panic, reason = "the test asked for it")]
            ReadReply::Panic => panic!("the writer panics, as scripted"),
            ReadReply::After(..) => return Err(fail(FailureClass::Transient)),
        };
        let state = self.lock();
        let mut reading = BatchReading::nothing_found();
        for (place, key) in keys.iter().enumerate() {
            if left_out.contains(&place) {
                reading = reading.with_unread(key.as_str());
            } else if let Some(body) = state.rows.get(key.as_str()) {
                reading = reading.with_item(key.as_str(), Some(body.clone()));
            }
        }
        Ok(reading)
    }
}

impl BatchWriter for FakeTable {
    fn write_batch<'a>(
        &'a self,
        events: &'a [Event],
    ) -> BoxFuture<'a, Result<BatchReceipt, BatchError>> {
        async move {
            let _in_flight = InFlightGuard::new(self, |state| &mut state.writing);
            let (reply, latency) = self.lock().begin(events)?;
            if !latency.is_zero() {
                wait(latency).await;
            }
            self.reply(reply, events).await
        }
        .boxed()
    }

    fn read_batch<'a>(
        &'a self,
        keys: &'a [EventKey],
    ) -> BoxFuture<'a, Result<BatchReading, BatchError>> {
        async move {
            let _in_flight = InFlightGuard::new(self, |state| &mut state.reading);
            let reply = self.lock().begin_read(keys);
            self.read(reply, keys).await
        }
        .boxed()
    }
}

/// Counts a call as in flight until it is answered or dropped.
struct InFlightGuard<'a> {
    table: &'a FakeTable,
    count: fn(&mut State) -> &mut usize,
}

impl<'a> InFlightGuard<'a> {
    fn new(table: &'a FakeTable, count: fn(&mut State) -> &mut usize) -> Self {
        *count(&mut table.lock()) += 1;
        Self { table, count }
    }
}

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        *(self.count)(&mut self.table.lock()) -= 1;
    }
}

fn lost(message: &str) -> BatchError {
    BatchError::new(FailureClass::Transient, Certainty::MaybeStored, message)
}

async fn wait(delay: Duration) {
    sleep_until(tokio::time::Instant::from_std(now() + delay)).await;
}
