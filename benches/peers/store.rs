//! The store of this crate with its default settings, on tokio's default runtime.
//!
//! One task puts events, and awaits the oldest ticket whenever it holds `WINDOW` tickets, so that every
//! ticket is awaited. It puts JSON texts, which the store validates. The SDKs accept any text.

use std::collections::VecDeque;
use std::sync::Arc;

use dynamodb_eventstore::{EventStore, PutTicket};
use tokio::runtime::Runtime;

use super::measure::Watch;
use super::outcome::Outcome;
use super::sdk::{TABLE, config};

pub(crate) const ROLE: &str = "store";

/// Many more events than are in flight at a time, and far fewer than the buffer holds.
const WINDOW: usize = 2_000;

pub(crate) fn play(url: &str, bodies: Arc<[String]>, events: usize) -> Outcome {
    let runtime = Runtime::new().unwrap();
    let url = url.to_owned();
    // Runs in a task, as in a program: the thread in `block_on` is not a worker thread.
    let run = async move {
        let store = EventStore::builder().sdk_config(&config(&url).await).table(TABLE);
        let store = store.check_table(false).start().await.unwrap();
        // Opens the connections.
        write(&store, &bodies, events / 2).await;
        let watch = Watch::start();
        write(&store, &bodies, events).await;
        watch.stop(events)
    };
    let sample = runtime.block_on(runtime.spawn(run)).unwrap();
    Outcome::new(sample, events, [("dynamodb-eventstore", env!("CARGO_PKG_VERSION"))])
}

async fn write(store: &EventStore, bodies: &[String], events: usize) {
    let mut window = VecDeque::with_capacity(WINDOW);
    for body in bodies.iter().cycle().take(events) {
        if window.len() == WINDOW
            && let Some(oldest) = window.pop_front()
        {
            stored(oldest).await;
        }
        window.push_back(store.put_json(body).await.unwrap());
    }
    for ticket in window {
        stored(ticket).await;
    }
}

async fn stored(ticket: PutTicket) {
    ticket.await.unwrap();
}
