//! Those who put, and the one who listens.

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

use super::ledger::{Ledger, Tally};

/// Bodies are from some 100 bytes to nearly the largest, as many from 100 to 1,000 as from 10,000 to
/// 100,000. Some calls of them do not fit into the buffers of two sockets.
const SMALLEST_TEXT: f64 = 60.0;
const LARGEST_TEXT: f64 = 400_000.0;

/// An accepted event: what is to be known of its body, and its ticket.
pub(crate) type Accepted = (u64, PutTicket);

/// What a body is compared by, also in another process of this program.
pub(crate) fn hash(body: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(body.as_bytes());
    hasher.finish()
}

/// Text of which every part can be part of a JSON string.
pub(crate) fn random_text(seed: u64) -> String {
    let mut random = StdRng::seed_from_u64(seed);
    (0..2 * LARGEST_TEXT as usize).map(|_| char::from(random.random_range(b'a'..=b'z'))).collect()
}

/// Puts events until the time is up, and says how many were accepted.
pub(crate) async fn produce(
    store: EventStore,
    tickets: mpsc::UnboundedSender<Accepted>,
    text: Arc<str>,
    seed: u64,
    end: Instant,
) -> u64 {
    let mut random = StdRng::seed_from_u64(seed);
    let mut over = pin!(sleep_until(end));
    let mut accepted = 0;
    loop {
        let length = SMALLEST_TEXT * (LARGEST_TEXT / SMALLEST_TEXT).powf(random.random::<f64>());
        let start = random.random_range(0..text.len() - length as usize);
        let part = text.get(start..start + length as usize).unwrap();
        let body = format!(r#"{{"producer":{seed},"number":{accepted},"text":"{part}"}}"#);
        tokio::select! {
            biased;
            () = &mut over => return accepted,
            // To be dropped while it waits for room is to put nothing.
            ticket = store.put_json(&body) => {
                tickets.send((hash(&body), ticket.unwrap())).unwrap();
                accepted += 1;
            }
        }
    }
}

/// Waits for every ticket and writes down what it says.
pub(crate) async fn listen(
    mut tickets: mpsc::UnboundedReceiver<Accepted>,
    mut ledger: Ledger,
    tally: Arc<Tally>,
) -> Ledger {
    let mut waiting = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some((hash, ticket)) = tickets.recv() => waiting.push(async move {
                let key = *ticket.key();
                (key, hash, ticket.await)
            }),
            Some((key, hash, answer)) = waiting.next() => {
                ledger.note(&key, hash, tally.count(&answer));
            }
            else => return ledger,
        }
    }
}
