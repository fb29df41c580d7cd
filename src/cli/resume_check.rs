//! What is to be put again, and what is not.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use dynamodb_eventstore::{
    BatchError, BatchWriter, Certainty, EventKey, FailureClass, SdkBatchWriter,
};
use tokio::time::{sleep_until, timeout};

use crate::given_up::Step;
use crate::progress::now;

/// How long one read may take.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

const SHORTEST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Decides what to put again.
#[derive(Debug)]
pub(crate) struct ResumeCheck {
    /// `None` to put without looking.
    reader: Option<SdkBatchWriter>,
    /// How long reads of the same keys may fail.
    patience: Duration,
    /// The last events put: a read does not see those on their way.
    put: Remembered,
}

/// Hashes of bodies, by their keys.
#[derive(Debug)]
struct Remembered {
    hashes: HashMap<EventKey, u64>,
    order: VecDeque<EventKey>,
    most: usize,
}

/// What is remembered of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Earlier {
    Nothing,
    SameEvent,
    OtherEvent,
}

impl Remembered {
    /// What there was under the key. From now on it is this body, if there was nothing.
    fn put(&mut self, key: EventKey, hash: u64) -> Earlier {
        match self.hashes.entry(key) {
            Entry::Occupied(before) if *before.get() == hash => return Earlier::SameEvent,
            Entry::Occupied(_) => return Earlier::OtherEvent,
            Entry::Vacant(place) => place.insert(hash),
        };
        self.order.push_back(key);
        if self.order.len() > self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.hashes.remove(&oldest);
        }
        Earlier::Nothing
    }
}

impl ResumeCheck {
    /// `max_buffered_events` is how many events may be on their way into the table.
    pub(crate) fn new(
        reader: Option<SdkBatchWriter>,
        patience: Duration,
        max_buffered_events: usize,
    ) -> Self {
        let most = max_buffered_events.saturating_mul(2);
        let put = Remembered { hashes: HashMap::new(), order: VecDeque::new(), most };
        Self { reader, patience, put }
    }

    /// Decides what is to become of these steps, no more than one read takes. An error means that
    /// their keys cannot be read. Cancel safe.
    pub(crate) async fn decide(&mut self, steps: &mut [Step]) -> Result<(), String> {
        let stored = self.read_keys(steps).await.map_err(|error| {
            let advice = match error.code() {
                Some("AccessDeniedException") => {
                    "; grant dynamodb:BatchGetItem, or put without looking: --unchecked"
                }
                _ => "",
            };
            format!("cannot read which events are stored already: {error}{advice}")
        })?;
        for step in steps {
            let Step::Put(_, event) = &*step else { continue };
            let (key, body) = (*event.key(), event.body());
            match stored.get(&key) {
                Some(stored) if stored.as_deref() == Some(&*body) => step.leave(),
                Some(_) => step.refuse_other(),
                None => match self.put.put(key, hash(&body)) {
                    Earlier::Nothing => {}
                    Earlier::OtherEvent if self.reader.is_some() => step.refuse_other(),
                    Earlier::SameEvent | Earlier::OtherEvent => step.doubt(),
                },
            }
        }
        Ok(())
    }

    async fn read_keys(
        &self,
        steps: &[Step],
    ) -> Result<HashMap<EventKey, Option<String>>, BatchError> {
        let Some(reader) = &self.reader else { return Ok(HashMap::new()) };
        let put = steps.iter().filter_map(|step| match step {
            Step::Put(_, event) => Some(*event.key()),
            Step::AlreadyThere(..) | Step::Refuse(..) => None,
        });
        let mut keys: Vec<EventKey> = put.collect();
        keys.sort_unstable();
        keys.dedup();
        read(reader, &keys, self.patience).await
    }
}

fn hash(body: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    hasher.finish()
}

/// What is stored under these keys. What a read leaves out is asked for again, for as long as there
/// is progress.
async fn read(
    reader: &SdkBatchWriter,
    keys: &[EventKey],
    patience: Duration,
) -> Result<HashMap<EventKey, Option<String>>, BatchError> {
    let (mut found, mut left) = (HashMap::new(), keys.to_vec());
    let (mut progress, mut wait) = (now(), SHORTEST_WAIT);
    while !left.is_empty() {
        let failure = match timeout(READ_TIMEOUT, reader.read_batch(&left)).await {
            Ok(Ok(reading)) => {
                let before = left.len();
                left.retain(|key| {
                    if let Some(body) = reading.body(key) {
                        found.insert(*key, body.map(str::to_owned));
                    }
                    reading.is_unread(key)
                });
                if left.len() < before {
                    (progress, wait) = (now(), SHORTEST_WAIT);
                }
                failed(FailureClass::Unprocessed, "the table is short of read capacity")
            }
            Ok(Err(error)) => error,
            Err(_) => failed(FailureClass::Transient, "no answer came in time"),
        };
        if left.is_empty() {
            break;
        }
        let is_refused = failure.class() == FailureClass::Refused;
        if is_refused || !failure.class().is_retryable() || now() + wait >= progress + patience {
            return Err(failure);
        }
        sleep_until(now() + wait).await;
        wait = LONGEST_WAIT.min(wait * 2);
    }
    Ok(found)
}

fn failed(class: FailureClass, message: &str) -> BatchError {
    BatchError::new(class, Certainty::NotStored, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::given_up::Record;
    use crate::input::Line;

    fn step(body: &str) -> Step {
        let text = format!(
            r#"{{"key":"20130927T005240652508858176","certainty":"not stored","body":"{body}"}}"#
        );
        let length = text.len() as u64;
        Step::of(Record::of(Line { text: text.into_bytes(), length, ..Line::default() }))
    }

    #[tokio::test]
    async fn an_event_that_is_on_its_way_already_is_in_doubt() {
        let mut check = ResumeCheck::new(None, Duration::ZERO, 10);
        let mut steps = [step("1"), step("1"), step("2")];
        check.decide(&mut steps).await.unwrap();
        let certainties = steps.map(|step| step.record().certainty);
        let (not_stored, maybe) = (Certainty::NotStored, Certainty::MaybeStored);
        assert_eq!(certainties, [not_stored, maybe, maybe]);
    }
}
