//! Decides which failed events are put again: those that the table does not have.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use dynamodb_eventstore::{BatchError, EventKey, SdkBatchWriter};

use super::failed_line::Decision;
use crate::read_keys::read_keys;

/// Reads the keys of failed events, and decides what to do with each.
#[derive(Debug)]
pub(crate) struct ResumeCheck {
    /// `None` with `--unchecked`.
    reader: Option<SdkBatchWriter>,
    /// Whether the store inserts. It gives an event that is certainly not stored a new key if its own is taken.
    inserts: bool,
    /// How long reads of the same keys are retried when they fail.
    timeout: Duration,
    /// The events that were put last. A read does not see those that are in flight.
    recent: RecentPuts,
}

/// The hashes of the bodies put last, by their keys.
#[derive(Debug)]
struct RecentPuts {
    hashes: HashMap<EventKey, u64>,
    order: VecDeque<EventKey>,
    capacity: usize,
}

/// The earlier put under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EarlierPut {
    None,
    SameEvent,
    OtherEvent,
}

impl RecentPuts {
    /// Records a put, unless there was an earlier put under the same key. Returns the earlier put.
    fn record(&mut self, key: EventKey, hash: u64) -> EarlierPut {
        match self.hashes.entry(key) {
            Entry::Occupied(earlier) if *earlier.get() == hash => return EarlierPut::SameEvent,
            Entry::Occupied(_) => return EarlierPut::OtherEvent,
            Entry::Vacant(entry) => entry.insert(hash),
        };
        self.order.push_back(key);
        if self.order.len() > self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.hashes.remove(&oldest);
        }
        EarlierPut::None
    }
}

impl ResumeCheck {
    /// `max_buffered_events` is the maximum number of events in flight.
    pub(crate) fn new(
        reader: Option<SdkBatchWriter>,
        inserts: bool,
        timeout: Duration,
        max_buffered_events: usize,
    ) -> Self {
        let capacity = max_buffered_events.saturating_mul(2);
        let recent = RecentPuts { hashes: HashMap::new(), order: VecDeque::new(), capacity };
        Self { reader, inserts, timeout, recent }
    }

    /// Decides for each of these lines, whose keys are read together. An error means that they
    /// cannot be read. Cancel safe.
    pub(super) async fn decide(&mut self, decisions: &mut [Decision]) -> Result<(), String> {
        let stored = self.read_keys(decisions).await.map_err(|error| {
            let advice = match error.code() {
                Some("AccessDeniedException") => {
                    "; grant dynamodb:BatchGetItem, or skip this check with --unchecked"
                }
                _ => "",
            };
            format!("cannot check which events are stored already: {error}{advice}")
        })?;
        for decision in decisions {
            let Decision::Put(_, event) = &*decision else { continue };
            let (key, body) = (*event.key(), event.body());
            match stored.get(&key) {
                Some(stored) if stored.as_deref() == Some(&*body) => decision.skip(),
                Some(_) => decision.refuse_taken_key(),
                None => match self.recent.record(key, hash(&body)) {
                    // An earlier `resume` of the same file may have stored the event.
                    EarlierPut::None if self.inserts && self.reader.is_none() => {
                        decision.mark_maybe_stored();
                    }
                    EarlierPut::None => {}
                    EarlierPut::OtherEvent if self.reader.is_some() => decision.refuse_taken_key(),
                    EarlierPut::SameEvent | EarlierPut::OtherEvent => decision.mark_maybe_stored(),
                },
            }
        }
        Ok(())
    }

    async fn read_keys(
        &self,
        decisions: &[Decision],
    ) -> Result<HashMap<EventKey, Option<String>>, BatchError> {
        let Some(reader) = &self.reader else { return Ok(HashMap::new()) };
        let put = decisions.iter().filter_map(|decision| match decision {
            Decision::Put(_, event) => Some(*event.key()),
            Decision::Skip(..) | Decision::Refuse(..) => None,
        });
        let mut keys: Vec<EventKey> = put.collect();
        keys.sort_unstable();
        keys.dedup();
        read_keys(reader, &keys, self.timeout).await
    }
}

fn hash(body: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use dynamodb_eventstore::Certainty;

    use super::*;
    use crate::input::Line;
    use crate::producer::failed_line::FailedLine;

    fn decision(body: &str) -> Decision {
        let text = format!(
            r#"{{"key":"20130927T005240652508858176","certainty":"not stored","body":"{body}"}}"#
        );
        let length = text.len() as u64;
        let line = Line { text: text.into_bytes(), length, ..Line::default() };
        Decision::new(FailedLine::parse(line))
    }

    #[tokio::test]
    async fn event_with_a_key_in_flight_is_maybe_stored() {
        let mut check = ResumeCheck::new(None, false, Duration::ZERO, 10);
        let mut decisions = [decision("1"), decision("1"), decision("2")];
        check.decide(&mut decisions).await.unwrap();
        let certainties = decisions.map(|decision| decision.line().certainty);
        let (not_stored, maybe) = (Certainty::NotStored, Certainty::MaybeStored);
        assert_eq!(certainties, [not_stored, maybe, maybe]);
    }
}
