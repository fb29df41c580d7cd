//! The memory of a full buffer while the service does not answer.

use std::fmt::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use dynamodb_eventstore::EventStore;
use serde::{Deserialize, Serialize};
use tokio::runtime::Builder;
use tokio::time::timeout;

use super::Effort;
use super::server::{Server, end_with_parent};
use super::value::Value;

/// The first word of the role of a process that fills a buffer.
pub(crate) const ROLE: &str = "memory";

const BODY_BYTES: [usize; 3] = [200, 1_000, 6_700];

#[derive(Debug, Serialize, Deserialize)]
struct Filled {
    events: usize,
    before: u64,
    resident: u64,
}

pub(crate) fn report(effort: Effort) -> String {
    let buffered = effort.buffered_bytes;
    let mut table = format!(
        "Resident memory of a process whose buffer of {} MiB is full, and which holds all tickets, while the \
         service accepts connections but does not answer:\n\n\
         | body | events | before the first put | buffer full | ÷ buffer |\n\
         |---:|---:|---:|---:|---:|\n",
        buffered >> 20,
    );
    for body_bytes in BODY_BYTES {
        let filled = Server::start(&format!("{ROLE} {body_bytes} {buffered}"));
        let Filled { events, before, resident } = serde_json::from_str(&filled.greeting).unwrap();
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        writeln!(
            table,
            "| {body_bytes} B | {events} | {:.1} MiB | {:.1} MiB | {:.2} |",
            mebibytes(before),
            mebibytes(resident),
            resident as f64 / buffered as f64,
        )
        .unwrap();
    }
    table
}

/// Fills a buffer as the role says, in a process that has done nothing else.
pub(crate) fn fill(role: &str) {
    end_with_parent();
    let mut numbers = role.split(' ').skip(1).map(|number| number.parse::<usize>().unwrap());
    let (body_bytes, buffered) = (numbers.next().unwrap(), numbers.next().unwrap());
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let filled = runtime.block_on(Box::pin(fill_up(body_bytes, buffered)));
    println!("{}", serde_json::to_string(&filled).unwrap());
}

async fn fill_up(body_bytes: usize, buffered: usize) -> Filled {
    // Connections are established, but never accepted.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let store = EventStore::builder()
        .region("us-east-1")
        .credentials("test", "test")
        .endpoint_url(format!("http://{}", listener.local_addr().unwrap()))
        .table("events")
        .check_table(false)
        .max_buffered_events(100_000_000)
        .max_buffered_bytes(buffered)
        .attempt_timeout(Duration::from_secs(60))
        .start();
    let store = store.await.unwrap();
    let value = Value::new(0, body_bytes);
    let before = resident();
    let mut tickets = Vec::new();
    // A put that takes this long waits for permits, so the buffer is full.
    while let Ok(ticket) = timeout(Duration::from_millis(500), store.put(&value)).await {
        tickets.push(ticket.unwrap());
    }
    Filled { events: tickets.len(), before, resident: resident() }
}

/// Resident bytes of this process, as Linux reports them; 0 on other systems.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = value.and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok());
    number.unwrap_or(0) * 1024
}
