//! Four clients before tables with limits, over HTTP, in real time.
//!
//! ```text
//! cargo bench --all-features --bench capacity -- FOLDER
//! ```
//!
//! Each client writes events of 200 bytes as fast as the table lets it, for 30 seconds. The table is a process of
//! its own with DynamoDB's token buckets: 5 ms a call, one second of unused capacity kept. It counts what it takes
//! and refuses in each second. The figures are of what comes after the third second. What comes of it is written to
//! `FOLDER`, or to `target/capacity`: a table, `capacity.md`, and a plot, `capacity.svg`.
//!
//! Without boto3 (`pip install boto3`, for the `python3` that is found first) its rows are left out.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run may panic")]

mod chart;
mod client;
#[path = "../support/cores.rs"]
#[expect(dead_code, reason = "the clients may run on every core")]
mod cores;
mod endpoint;
#[path = "../support/measure.rs"]
#[expect(dead_code, reason = "one run each, which has no spread")]
mod measure;
mod report;
mod sdk_loop;
#[path = "../support/server.rs"]
mod server;
mod store;
mod table;

use std::path::{Path, PathBuf};
use std::time::Duration;

use self::client::Client;
use self::report::{Report, Row};
use self::table::Table;

const RUN: Duration = Duration::from_secs(30);

fn main() {
    if let Some(order) = server::order() {
        return endpoint::serve(&order);
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // Cargo says `--bench` when it benches; anything else wants to know no more than that it works.
    if !arguments.iter().any(|argument| argument == "--bench") {
        for client in Client::in_rust() {
            let run = client.run(Table::Thousand, Duration::from_secs(1));
            assert!(run.accepted() > 0, "{} wrote nothing", client.name());
        }
        return;
    }
    let clients = Client::all();
    let mut rows = Vec::new();
    for table in Table::ALL {
        for client in &clients {
            let row = Row { table, client: client.name(), run: client.run(table, RUN) };
            eprintln!("{row}");
            rows.push(row);
        }
    }
    let given = arguments.iter().find(|argument| !argument.starts_with("--"));
    let folder = given.map_or_else(
        || Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("capacity"),
        PathBuf::from,
    );
    std::fs::create_dir_all(&folder).unwrap();
    let report = Report(&rows).to_string();
    std::fs::write(folder.join("capacity.md"), &report).unwrap();
    chart::draw(&rows, &folder.join("capacity.svg"));
    println!("\n{report}");
}
