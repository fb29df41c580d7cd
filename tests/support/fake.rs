//! A `BatchWriter` that answers as it is told and remembers what it was asked.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dynamodb_eventstore::{
    BatchError, BatchReceipt, BatchWriter, Certainty, Event, EventStore, EventStoreBuilder,
    FailureClass, MAX_BATCH_EVENTS, MAX_BATCH_WIRE_BYTES,
};
use futures::future::BoxFuture;

use super::{clock, watchdog};

/// What becomes of one batch.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// Every event is applied and acknowledged.
    Store,
    /// The events at these places are handed back, in this order; the others are applied.
    HandBack(Vec<usize>),
    /// All is applied, but the answer hands back a key that was never sent.
    HandBackStranger,
    /// Nothing is applied, and the call fails.
    Fail(FailureClass, Certainty),
    /// All is applied, and the call fails as *maybe*.
    StoreThenFail,
    /// Nothing is applied and no answer ever comes.
    Hang,
    /// All is applied and no answer ever comes.
    StoreThenHang,
    /// The writer panics.
    Panic,
    /// As the other, so much later. Applied at the end of the wait.
    After(Duration, Box<Self>),
}

impl Answer {
    pub(crate) fn throttle() -> Self {
        Self::Fail(FailureClass::Throttled, Certainty::NotStored)
    }

    pub(crate) fn server_error() -> Self {
        Self::Fail(FailureClass::Transient, Certainty::MaybeStored)
    }

    pub(crate) fn after(self, milliseconds: u64) -> Self {
        Self::After(Duration::from_millis(milliseconds), Box::new(self))
    }
}

/// One call that the writer got.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// Since the writer was made, in the runtime's time.
    pub(crate) at: Duration,
    pub(crate) keys: Vec<String>,
    /// Calls under way when it began, itself included.
    pub(crate) in_flight: usize,
}

/// A clone is the same writer, kept to look at.
#[derive(Debug, Clone)]
pub(crate) struct FakeWriter {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    start: tokio::time::Instant,
    script: VecDeque<Answer>,
    /// When the script is at its end.
    otherwise: Answer,
    /// A batch with one of these bodies is refused as a whole.
    poisonous: HashSet<String>,
    calls: Vec<Call>,
    in_flight: usize,
    table: BTreeMap<String, String>,
    violations: Vec<String>,
}

impl FakeWriter {
    /// A writer that stores all it is given.
    pub(crate) fn new() -> Self {
        Self::scripted([])
    }

    /// A writer that gives these answers in turn, and then stores all it is given.
    pub(crate) fn scripted(script: impl IntoIterator<Item = Answer>) -> Self {
        watchdog::start();
        Self {
            state: Arc::new(Mutex::new(State {
                start: clock::now(),
                script: script.into_iter().collect(),
                otherwise: Answer::Store,
                poisonous: HashSet::new(),
                calls: Vec::new(),
                in_flight: 0,
                table: BTreeMap::new(),
                violations: Vec::new(),
            })),
        }
    }

    /// A writer that gives this answer always.
    pub(crate) fn always(answer: Answer) -> Self {
        let writer = Self::new();
        writer.lock().otherwise = answer;
        writer
    }

    /// What to answer from now on when the script is at its end.
    pub(crate) fn answer_from_now_on(&self, answer: Answer) {
        self.lock().otherwise = answer;
    }

    /// Refuses every batch that has an event of this body, as the service does with an invalid one.
    pub(crate) fn poison(&self, body: impl Into<String>) {
        self.lock().poisonous.insert(body.into());
    }

    /// A builder of a store that writes here.
    pub(crate) fn store(&self) -> EventStoreBuilder {
        EventStore::builder().batch_writer(self.clone())
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    /// How many events each call carried.
    pub(crate) fn sizes(&self) -> Vec<usize> {
        self.lock().calls.iter().map(|call| call.keys.len()).collect()
    }

    /// What the table holds: key and body.
    pub(crate) fn table(&self) -> BTreeMap<String, String> {
        self.lock().table.clone()
    }

    /// Fails the test if any batch broke a rule of the service.
    pub(crate) fn assert_all_legal(&self) {
        assert_eq!(self.lock().violations, Vec::<String>::new());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, events: &[Event]) -> Answer {
        let mut state = self.lock();
        state.in_flight += 1;
        let call = Call {
            at: clock::now() - state.start,
            keys: events.iter().map(|event| event.key().to_string()).collect(),
            in_flight: state.in_flight,
        };
        // Noted rather than asserted here: a panic would look like a failure of the writer.
        if let Some(violation) = violation(events) {
            state.violations.push(violation);
        }
        state.calls.push(call);
        if events.iter().any(|event| state.poisonous.contains(event.body())) {
            return Answer::Fail(FailureClass::Poison, Certainty::NotStored);
        }
        state.script.pop_front().unwrap_or_else(|| state.otherwise.clone())
    }

    fn apply<'a>(&self, events: impl IntoIterator<Item = &'a Event>) {
        let mut state = self.lock();
        for event in events {
            let (key, body) = (event.key().to_string(), event.body().to_owned());
            if let Some(before) = state.table.insert(key.clone(), body.clone())
                && before != body
            {
                state.violations.push(format!("{key} was overwritten with another body"));
            }
        }
    }

    async fn answer(&self, answer: Answer, events: &[Event]) -> Result<BatchReceipt, BatchError> {
        let mut answer = answer;
        while let Answer::After(delay, then) = answer {
            clock::wait(delay).await;
            answer = *then;
        }
        match answer {
            Answer::Store => {
                self.apply(events);
                Ok(BatchReceipt::all_processed())
            }
            Answer::HandBack(places) => {
                let back: Vec<&Event> =
                    places.iter().filter_map(|&place| events.get(place)).collect();
                self.apply(events.iter().filter(|event| !back.contains(event)));
                Ok(BatchReceipt::with_unprocessed(back.iter().map(|event| event.key().as_str()))
                    .with_request_id("FAKE"))
            }
            Answer::HandBackStranger => {
                self.apply(events);
                Ok(BatchReceipt::with_unprocessed(["20130927T005240652508858176"]))
            }
            Answer::Fail(class, certainty) => {
                Err(BatchError::new(class, certainty, "as scripted").with_code("FakeException"))
            }
            Answer::StoreThenFail => {
                self.apply(events);
                let (class, certainty) = (FailureClass::Transient, Certainty::MaybeStored);
                Err(BatchError::new(class, certainty, "the answer was lost, as scripted"))
            }
            Answer::Hang => std::future::pending().await,
            Answer::StoreThenHang => {
                self.apply(events);
                std::future::pending().await
            }
            Answer::Panic => panic!("the writer panics, as scripted"),
            Answer::After(..) => unreachable!("taken apart above"),
        }
    }
}

impl BatchWriter for FakeWriter {
    fn write_batch<'a>(
        &'a self,
        events: &'a [Event],
    ) -> BoxFuture<'a, Result<BatchReceipt, BatchError>> {
        Box::pin(async move {
            let answer = self.begin(events);
            let _under_way = UnderWay(self);
            self.answer(answer, events).await
        })
    }
}

/// One call, until it is answered or dropped.
struct UnderWay<'a>(&'a FakeWriter);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.lock().in_flight -= 1;
    }
}

/// The rule of `BatchWriteItem` that this batch breaks, if it breaks one.
fn violation(events: &[Event]) -> Option<String> {
    let keys: HashSet<_> = events.iter().map(Event::key).collect();
    let wire_bytes: usize = events.iter().map(Event::wire_bytes).sum();
    if events.is_empty() {
        Some("an empty batch".to_owned())
    } else if events.len() > MAX_BATCH_EVENTS {
        Some(format!("{} events in a batch", events.len()))
    } else if keys.len() < events.len() {
        Some("a key twice in a batch".to_owned())
    } else if wire_bytes > MAX_BATCH_WIRE_BYTES {
        Some(format!("{wire_bytes} bytes in a batch"))
    } else {
        None
    }
}
