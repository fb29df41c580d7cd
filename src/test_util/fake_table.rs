//! A table in memory that fails as it is told.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::sleep_until;

use super::reply::Then;
use super::rules::violation;
use super::{FaultRates, ReadReply, Reply};
use crate::builder::EventStoreBuilder;
use crate::clock::now;
use crate::error::{BatchError, Certainty, FailureClass};
use crate::event::Event;
use crate::key::EventKey;
use crate::store::EventStore;
use crate::writer::{BatchReading, BatchReceipt, BatchWriter};

/// A key that no store of today makes.
const STRANGER: &str = "20130927T005240652508858176";

/// One call that the table got.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Call {
    /// When it came, after the table was made, by the runtime's clock.
    pub at: Duration,
    /// Keys of the batch.
    pub keys: Vec<String>,
    /// Calls of its kind under way when it began, itself included.
    pub in_flight: usize,
}

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

#[derive(Debug)]
struct State {
    start: Instant,
    script: VecDeque<Reply>,
    read_script: VecDeque<ReadReply>,
    /// When the scripts are at their end.
    then: Then<Reply>,
    then_read: Then<ReadReply>,
    /// A batch with one of these bodies is refused as a whole.
    poisonous: HashSet<String>,
    calls: Vec<Call>,
    reads: Vec<Call>,
    writing: usize,
    reading: usize,
    rows: BTreeMap<String, String>,
    /// Batches that are to be applied when their time comes, whoever waits.
    late: Vec<(Instant, Vec<Event>)>,
    violations: Vec<String>,
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
                self.lock().apply(events);
                Ok(BatchReceipt::all_processed())
            }
            Reply::HandBack(places) => {
                let back: Vec<&Event> =
                    places.iter().filter_map(|&place| events.get(place)).collect();
                self.lock().apply(events.iter().filter(|event| !back.contains(event)));
                Ok(BatchReceipt::with_unprocessed(back.iter().map(|event| event.key().as_str()))
                    .with_request_id("FAKE"))
            }
            Reply::HandBackStranger => {
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

impl State {
    fn begin(&mut self, events: &[Event]) -> Result<Reply, BatchError> {
        let keys = events.iter().map(|event| event.key().to_string()).collect();
        self.calls.push(Call { at: self.age(), keys, in_flight: self.writing });
        let invalid = |message: String| {
            BatchError::new(FailureClass::Poison, Certainty::NotStored, message)
                .with_code("ValidationException")
        };
        if let Some(violation) = violation(events) {
            self.violations.push(violation.clone());
            return Err(invalid(violation));
        }
        if !self.poisonous.is_empty()
            && events.iter().any(|event| self.poisonous.contains(&*event.body()))
        {
            return Err(invalid("One or more parameter values were invalid".to_owned()));
        }
        Ok(self.script.pop_front().unwrap_or_else(|| self.then.next(events.len())))
    }

    fn begin_read(&mut self, keys: &[EventKey]) -> ReadReply {
        let asked = keys.iter().map(ToString::to_string).collect();
        self.reads.push(Call { at: self.age(), keys: asked, in_flight: self.reading });
        self.read_script.pop_front().unwrap_or_else(|| self.then_read.next(keys.len()))
    }

    fn age(&self) -> Duration {
        now().saturating_duration_since(self.start)
    }

    fn apply<'a>(&mut self, events: impl IntoIterator<Item = &'a Event>) {
        for event in events {
            let (key, body) = (event.key().to_string(), event.body().into_owned());
            let before = self.rows.insert(key.clone(), body);
            if before.is_some_and(|before| before != event.body()) {
                self.violations.push(format!("{key} was overwritten with another body"));
            }
        }
    }
}

impl BatchWriter for FakeTable {
    fn write_batch<'a>(
        &'a self,
        events: &'a [Event],
    ) -> BoxFuture<'a, Result<BatchReceipt, BatchError>> {
        async move {
            let _under_way = UnderWay::new(self, |state| &mut state.writing);
            let reply = self.lock().begin(events)?;
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
