//! The producers, and the task that awaits their tickets.

use std::hash::{DefaultHasher, Hasher};
use std::pin::pin;
use std::sync::Arc;

use dynamodb_eventstore::{EventStore, PutTicket};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::answers::{AnswerLog, Tally};

/// Bodies have from about 100 bytes to nearly the maximum. Their lengths are distributed
/// logarithmically: as many have 100 to 1,000 bytes as 10,000 to 100,000. Some calls exceed the buffers
/// of two sockets.
const SMALLEST_TEXT: f64 = 60.0;
const LARGEST_TEXT: f64 = 400_000.0;

/// An accepted event: the hash of its body, and its ticket.
pub(crate) type Accepted = (u64, PutTicket);

/// The hash by which bodies are compared. It is the same in the endpoint's process.
pub(crate) fn hash(body: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(body.as_bytes());
    hasher.finish()
}

/// Text that needs no escaping in JSON.
pub(crate) fn random_text(seed: u64) -> String {
    let mut random = StdRng::seed_from_u64(seed);
    (0..2 * LARGEST_TEXT as usize).map(|_| char::from(random.random_range(b'a'..=b'z'))).collect()
}

/// Puts events until `end`, and returns how many were accepted.
pub(crate) async fn produce(
    store: EventStore,
    tickets: mpsc::UnboundedSender<Accepted>,
    text: Arc<str>,
    seed: u64,
    end: Instant,
) -> u64 {
    let mut random = StdRng::seed_from_u64(seed);
    let mut ended = pin!(sleep_until(end));
    let mut accepted = 0;
    loop {
        let length = SMALLEST_TEXT * (LARGEST_TEXT / SMALLEST_TEXT).powf(random.random::<f64>());
        let start = random.random_range(0..text.len() - length as usize);
        let part = text.get(start..start + length as usize).unwrap();
        let body = format!(r#"{{"producer":{seed},"number":{accepted},"text":"{part}"}}"#);
        tokio::select! {
            biased;
            () = &mut ended => return accepted,
            // A put that is dropped while it waits for permits puts nothing.
            ticket = store.put_json(&body) => {
                tickets.send((hash(&body), ticket.unwrap())).unwrap();
                accepted += 1;
            }
        }
    }
}

/// Awaits every ticket and records its answer.
pub(crate) async fn record_answers(
    mut tickets: mpsc::UnboundedReceiver<Accepted>,
    mut answers: AnswerLog,
    tally: Arc<Tally>,
) -> AnswerLog {
    let mut waiting = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some((hash, ticket)) = tickets.recv() => waiting.push(async move {
                let key = *ticket.key();
                (key, hash, ticket.await)
            }),
            Some((key, hash, answer)) = waiting.next() => {
                answers.note(&key, hash, tally.count(&answer));
            }
            else => return answers,
        }
    }
}
