//! Four clients that write to tables with limits, over HTTP and in real time.
//!
//! ```text
//! cargo bench --all-features --bench capacity -- FOLDER
//! ```
//!
//! Each client writes events of 200 bytes as fast as the table accepts them, for 30 seconds. The table
//! runs in its own process with DynamoDB's token buckets: a call takes 5 ms, and unused units are kept for
//! a second. It counts the accepted and throttled units of each second. The figures cover the time after
//! the third second. The results are written to `FOLDER`, or to `target/capacity`: a table, `capacity.md`,
//! and a chart, `capacity.svg`.
//!
//! If boto3 is not installed (`pip install boto3` for the first `python3` in the path), its rows are left
//! out.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run panics")]

mod chart;
mod client;
#[path = "../support/cores.rs"]
#[expect(dead_code, reason = "the clients may run on every core")]
mod cores;
mod endpoint;
#[path = "../support/measure.rs"]
#[expect(dead_code, reason = "a single run of each client has no spread")]
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
    if let Some(role) = server::role() {
        return endpoint::serve(&role);
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo bench` passes `--bench`. Without it, for example in `cargo test`, a short trial is enough.
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
