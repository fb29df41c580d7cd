//! The decisions of the [worker](crate::worker), as pure functions and state machines: what is sent, when, and what an
//! answer means.
//!
//! Nothing here uses a runtime, a network, a file, a clock or a source of randomness. Time and random numbers are
//! arguments, deadlines are return values. `tests/house.rs` reads these sources and checks it.

pub(crate) mod barrier;
pub(crate) mod batch;
pub(crate) mod buffer;
pub(crate) mod concurrency;
pub(crate) mod lease;
pub(crate) mod pace;
#[cfg(feature = "reader")]
pub(crate) mod read_pace;
pub(crate) mod reconcile;
pub(crate) mod refusal;
pub(crate) mod resolve;
pub(crate) mod retry;
pub(crate) mod retry_queue;
#[cfg(feature = "tail")]
pub(crate) mod shards;

use std::time::Instant;

use crate::event::Event;

/// An accepted event that is not settled, as the policies see it.
pub(crate) trait BufferedEvent {
    fn event(&self) -> &Event;

    /// When the event was accepted.
    fn accepted_at(&self) -> Instant;

    /// When the event fails, unless it is stored before.
    fn expires_at(&self) -> Instant;
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::event::key::{KeyGenerator, WriterId};

    /// An event with its times and no ticket.
    #[derive(Debug, Clone, PartialEq)]
    pub(crate) struct Item {
        pub(crate) event: Event,
        pub(crate) accepted_at: Instant,
        pub(crate) expires_at: Instant,
    }

    impl BufferedEvent for Item {
        fn event(&self) -> &Event {
            &self.event
        }

        fn accepted_at(&self) -> Instant {
            self.accepted_at
        }

        fn expires_at(&self) -> Instant {
            self.expires_at
        }
    }

    /// Makes items with distinct keys, in key order.
    pub(crate) struct Items {
        keys: KeyGenerator,
        pub(crate) start: Instant,
    }

    impl Items {
        #[expect(clippy::disallowed_methods, reason = "an origin for the tests' own time line")]
        pub(crate) fn new() -> Self {
            Self { keys: KeyGenerator::new(WriterId::new(0).unwrap()), start: Instant::now() }
        }

        pub(crate) fn with_body(&mut self, body: &str) -> Item {
            let event = Event::new(self.keys.next(0).unwrap(), body).unwrap();
            let accepted_at = self.start;
            Item { event, accepted_at, expires_at: accepted_at + Duration::from_secs(60) }
        }

        pub(crate) fn item(&mut self) -> Item {
            self.with_body("{}")
        }

        pub(crate) fn accepted_at(&mut self, milliseconds: u64) -> Item {
            Item { accepted_at: self.at(milliseconds), ..self.item() }
        }

        pub(crate) fn at(&self, milliseconds: u64) -> Instant {
            self.start + Duration::from_millis(milliseconds)
        }
    }
}
