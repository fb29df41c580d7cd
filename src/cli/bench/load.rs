//! [`Load`]: the events that are put, and when.

use std::fmt;
use std::time::Duration;

use dynamodb_eventstore::{EventStore, PutError, PutTicket};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::output::count;
use crate::time::{self, now};

/// The smallest body: it has room for the number of its event.
pub(super) const MIN_BODY_BYTES: usize = 40;

/// An event that was put.
#[derive(Debug)]
pub(super) struct Put {
    /// When the event should have been put. Its latency counts from here.
    pub(super) due: Instant,
    pub(super) ticket: PutTicket,
}

/// What is put.
#[derive(Debug, Clone)]
pub(super) struct Load {
    /// Events per second; `None` for as many as the store accepts.
    pub(super) rate: Option<u32>,
    pub(super) body_bytes: u32,
    pub(super) duration: Duration,
}

impl Load {
    /// Puts the events, and sends their tickets to `tickets`.
    ///
    /// With a rate the load is open-loop: an event is due at its time, whether or not the store has accepted the event
    /// before it. If a put waits, the later puts are late, and their latencies include that.
    pub(super) async fn run(
        &self,
        store: &EventStore,
        tickets: &mpsc::UnboundedSender<Put>,
    ) -> Result<(), PutError> {
        let start = now();
        let end = start + self.duration;
        for number in 0.. {
            let due = match self.rate {
                Some(rate) => start + due_after(number, rate),
                None => now(),
            };
            if due >= end {
                break;
            }
            if self.rate.is_some() && due > now() {
                sleep_until(due).await;
            }
            let ticket = store.put_json(&body(number, self.body_bytes)).await?;
            // The recorder receives until the last sender is dropped.
            let _ = tickets.send(Put { due, ticket });
        }
        Ok(())
    }
}

impl fmt::Display for Load {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rate {
            Some(rate) => write!(formatter, "{}/s", count(rate.into(), "event"))?,
            None => formatter.write_str("events as fast as the store accepts them")?,
        }
        let bytes = count(self.body_bytes.into(), "byte");
        write!(formatter, " of {bytes} for {}", time::format(self.duration))
    }
}

/// When event `number` is due, after the start.
fn due_after(number: u64, rate: u32) -> Duration {
    let rate = u64::from(rate);
    Duration::from_secs(number / rate) + Duration::from_secs(number % rate) / rate as u32
}

/// The JSON text of event `number`, of `body_bytes` bytes.
fn body(number: u64, body_bytes: u32) -> String {
    let mut body = format!(r#"{{"bench":{number},"fill":""#);
    let fill = (body_bytes as usize).saturating_sub(body.len() + 2);
    body.extend(std::iter::repeat_n('x', fill));
    body.push_str("\"}");
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_has_the_size_and_is_json() {
        for body_bytes in [MIN_BODY_BYTES as u32, 200, 1_024] {
            for number in [0, 7, u64::MAX] {
                let body = body(number, body_bytes);
                assert_eq!(body.len(), body_bytes as usize, "{number}");
                let json: serde_json::Value = serde_json::from_str(&body).unwrap();
                assert_eq!(json["bench"], number);
            }
        }
    }

    #[test]
    fn events_are_due_at_even_intervals_and_do_not_drift() {
        assert_eq!(due_after(0, 3), Duration::ZERO);
        assert_eq!(due_after(1, 1_000), Duration::from_millis(1));
        assert_eq!(due_after(3, 3), Duration::from_secs(1));
        assert_eq!(due_after(3_000_000_001, 1_000_000), Duration::new(3_000, 1_000));
    }
}
