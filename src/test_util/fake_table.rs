//! A table in memory that fails as it is told.

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

/// A key that no store of today makes.
const STRANGER: &str = "20130927T005240652508858176";

/// A table in memory to write to instead of DynamoDB; see [the module](crate::test_util).
///
/// It refuses what the service refuses, as a whole and with a `ValidationException`: an empty batch,
/// more than 25 events, one key twice, an item of more than 400 KiB, more than 16 MB in one call. The
/// store never sends such a batch, so [`violations`](Self::violations) stays empty with every correct
/// [`BatchWriter`] in between.
///
/// A clone is the same table, kept to look at. Delays need a runtime with a timer.
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
    /// A table that stores all it is given.
    #[must_use]
    pub fn new() -> Self {
        Self::scripted([])
    }

    /// A table that replies to the first calls like this, and then stores all it is given.
    #[must_use]
    pub fn scripted(script: impl IntoIterator<Item = Reply>) -> Self {
        Self::with(script, Then::Always(Reply::Store), Then::Always(ReadReply::Read))
    }

    /// A table that replies like this to every call.
    #[must_use]
    pub fn always(reply: Reply) -> Self {
        Self::with([], Then::Always(reply), Then::Always(ReadReply::Read))
    }

    /// A table that fails at random, drawn from `seed`: the same calls get the same replies.
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

    /// A table that takes so much and no more. It refuses like the service: some of a batch by handing it back,
    /// all of it by an exception.
    #[must_use]
    pub fn with_capacity(capacity: WriteCapacity) -> Self {
        let table = Self::new();
        table.limit(capacity);
        table
    }

    /// Takes so much from now on and no more, beside whatever else it was told.
    pub fn limit(&self, capacity: WriteCapacity) {
        self.lock().meter = Some(Meter::new(capacity, now()));
    }

    /// What a table with a capacity has taken and refused, second by second.
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
                poisonous: HashSet::new(),
                calls: Vec::new(),
                reads: Vec::new(),
                writing: 0,
                reading: 0,
                rows: BTreeMap::new(),
                late: Vec::new(),
                violations: Vec::new(),
                meter: None,
            })),
        }
    }

    /// Replies to the next reads like this.
    pub fn script_reads(&self, script: impl IntoIterator<Item = ReadReply>) {
        self.lock().read_script.extend(script);
    }

    /// Replies like this from now on, when the script is at its end. Reads are not concerned.
    pub fn reply_from_now_on(&self, reply: Reply) {
        self.lock().then = Then::Always(reply);
    }

    /// Replies like this to reads from now on, when their script is at its end. Writes are not concerned.
    pub fn reply_to_reads_from_now_on(&self, reply: ReadReply) {
        self.lock().then_read = Then::Always(reply);
    }

    /// Refuses every batch that has an event of this body, as the service does with an invalid one. Such
    /// a call takes no reply's turn.
    pub fn poison(&self, body: impl Into<String>) {
        self.lock().poisonous.insert(body.into());
    }

    /// A builder of a store that writes here.
    pub fn store_builder(&self) -> EventStoreBuilder {
        EventStore::builder().batch_writer(self.clone())
    }

    /// What the table holds: key and body.
    #[must_use]
    pub fn rows(&self) -> BTreeMap<String, String> {
        self.lock().rows.clone()
    }

    /// The body of the event under this key, if there is one.
    #[must_use]
    pub fn body(&self, key: &EventKey) -> Option<String> {
        self.lock().rows.get(key.as_str()).cloned()
    }

    /// Puts an item into the table, or replaces the one that is there, without a call.
    pub fn insert(&self, key: &EventKey, body: impl Into<String>) {
        self.lock().rows.insert(key.to_string(), body.into());
    }

    /// Every call that wrote, refused ones included.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    /// How many events each call carried.
    #[must_use]
    pub fn sizes(&self) -> Vec<usize> {
        self.lock().calls.iter().map(|call| call.keys.len()).collect()
    }

    /// Every call that read.
    #[must_use]
    pub fn reads(&self) -> Vec<Call> {
        self.lock().reads.clone()
    }

    /// The rules of the service that calls have broken, and the keys that were overwritten with another
    /// body, in words.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// The state as it is by now.
    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let by_now = now();
        state.late.sort_by_key(|(at, _)| *at);
        let still_late = state.late.partition_point(|(at, _)| *at <= by_now);
        for (_, events) in state.late.drain(..still_late).collect::<Vec<_>>() {
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
                let refused = self.lock().refuse(events)?;
                if refused.is_empty() {
                    self.lock().apply(events);
                    return Ok(BatchReceipt::all_processed());
                }
                Ok(self.hand_back(events, &refused))
            }
            Reply::Unprocessed(places) => Ok(self.hand_back(events, &places)),
            Reply::UnprocessedUnknownKey => {
                self.lock().apply(events);
                Ok(BatchReceipt::with_unprocessed([STRANGER]))
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
            #[expect(clippy::panic, reason = "it was asked for")]
            Reply::Panic => panic!("the writer panics, as scripted"),
            Reply::After(..) => Err(lost("taken apart above")),
        }
    }

    /// Applies all but the events at these places.
    fn hand_back(&self, events: &[Event], places: &[usize]) -> BatchReceipt {
        let back: Vec<&Event> = places.iter().filter_map(|&place| events.get(place)).collect();
        self.lock().apply(events.iter().filter(|event| !back.contains(event)));
        BatchReceipt::with_unprocessed(back.iter().map(|event| event.key().as_str()))
            .with_request_id("FAKE")
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
            ReadReply::NameStranger => {
                return Ok(BatchReading::nothing_found().with_item(STRANGER, None));
            }
            ReadReply::Hang => std::future::pending().await,
            #[expect(clippy::panic, reason = "it was asked for")]
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
            let _under_way = UnderWay::new(self, |state| &mut state.writing);
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
            let _under_way = UnderWay::new(self, |state| &mut state.reading);
            let reply = self.lock().begin_read(keys);
            self.read(reply, keys).await
        }
        .boxed()
    }
}

/// One call, until it is answered or dropped.
struct UnderWay<'a> {
    table: &'a FakeTable,
    count: fn(&mut State) -> &mut usize,
}

impl<'a> UnderWay<'a> {
    fn new(table: &'a FakeTable, count: fn(&mut State) -> &mut usize) -> Self {
        *count(&mut table.lock()) += 1;
        Self { table, count }
    }
}

impl Drop for UnderWay<'_> {
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
