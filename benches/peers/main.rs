//! Compares clients that write events to DynamoDB, in several languages.
//!
//! ```text
//! benches/peers/run benches/peers    # installs what the other languages need, then runs this
//! cargo bench --all-features --bench peers -- FOLDER
//! ```
//!
//! Every peer runs in its own process, is set up as its documentation advises, and writes the same JSON
//! texts to the same endpoint on loopback. The peers take turns in rounds. After a warm-up with half as
//! many events, each peer measures its own time, and prints one line of JSON. The results are written to
//! `FOLDER`, or to `target/peers`: a table, `peers.md`, and a chart, `peers.svg`.
//!
//! The endpoint answers as cheaply as possible. So the figures show the cost of a client. They say nothing
//! about DynamoDB, where a call takes milliseconds. The endpoint runs on the last core. The kernel chooses
//! the cores of the peers, which use their default number of threads.
//!
//! A peer whose tools are not installed is left out.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run panics")]

mod bodies;
mod chart;
#[path = "../support/cores.rs"]
#[expect(dead_code, reason = "peers may run on every core")]
mod cores;
#[path = "../support/endpoint.rs"]
#[expect(dead_code, reason = "not every peer can trust the endpoint's certificate")]
mod endpoint;
mod machine;
#[path = "../support/measure.rs"]
#[expect(dead_code, reason = "peers in other languages print a line and have no sample")]
mod measure;
mod outcome;
mod peer;
mod report;
mod sdk;
#[path = "../support/server.rs"]
mod server;
mod store;
#[path = "../support/value.rs"]
mod value;

use std::path::{Path, PathBuf};

use self::endpoint::Endpoint;
use self::outcome::Outcome;
use self::peer::{Peer, Stage};
use self::report::Report;

const ROUNDS: usize = 9;

fn main() {
    if server::role().is_some() {
        return endpoint::serve();
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, role, url, file, events] = arguments.as_slice()
        && flag == peer::ROLE
    {
        return play(role, url, Path::new(file), events.parse().unwrap());
    }
    let endpoint = Endpoint::start();
    let stage = Stage::new(endpoint.url());
    // `cargo bench` passes `--bench`. Without it, for example in `cargo test`, a short trial is enough.
    if !arguments.iter().any(|argument| argument == "--bench") {
        for peer in Peer::in_rust() {
            peer.run(&stage, 500);
        }
        return;
    }
    let peers = Peer::all(&stage);
    let rounds: Vec<Vec<Outcome>> = (1..=ROUNDS).map(|round| run(&peers, &stage, round)).collect();
    let report = Report::new(&peers, &rounds);
    let given = arguments.iter().find(|argument| !argument.starts_with("--"));
    let folder = given.map_or_else(|| stage.folder.clone(), PathBuf::from);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("peers.md"), report.to_string()).unwrap();
    chart::draw(&report.rows, &folder.join("peers.svg"));
    println!("\n{report}");
}

/// Lets every peer write its events once.
fn run(peers: &[Peer], stage: &Stage, round: usize) -> Vec<Outcome> {
    let run = |peer: &Peer| {
        let outcome = peer.run(stage, peer.events);
        eprintln!("round {round}: {}: {outcome}", peer.name);
        outcome
    };
    peers.iter().map(run).collect()
}

/// Runs this program as one of the peers.
fn play(role: &str, url: &str, file: &Path, events: usize) {
    let bodies = bodies::read(file);
    let outcome = match role {
        sdk::ROLE => sdk::play(url, bodies, events),
        store::ROLE => store::play(url, bodies, events),
        _ => panic!("there is no peer {role}"),
    };
    println!("{}", serde_json::to_string(&outcome).unwrap());
}
