//! The results of all rounds as a table.

use std::fmt;

use super::machine::Machine;
use super::measure::Spread;
use super::outcome::Outcome;
use super::peer::Peer;

#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
    rounds: usize,
    machine: Machine,
}

/// The results of one peer.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    versions: String,
    pub(crate) events_per_second: f64,
    pub(crate) cpu_microseconds: f64,
    /// The store's events per second as a multiple of the peer's.
    store_speed_ratio: f64,
    /// The peer's CPU time per event as a multiple of the store's.
    peer_cost_ratio: f64,
}

impl Report {
    /// A ratio is the median of the rounds' ratios, because a disturbance affects all peers of a round.
    pub(crate) fn new(peers: &[Peer], rounds: &[Vec<Outcome>]) -> Self {
        let row = |(place, peer): (usize, &Peer)| {
            let median = |of: &dyn Fn(&Outcome, &Outcome) -> f64| {
                let numbers = rounds.iter().map(|round| of(round.get(place).unwrap(), ours(round)));
                Spread::of(numbers).median
            };
            let first = rounds.first().and_then(|round| round.get(place)).unwrap();
            Row {
                name: peer.name,
                versions: versions(first),
                events_per_second: median(&|peer, _| peer.events_per_second()),
                cpu_microseconds: median(&|peer, _| peer.cpu_microseconds_per_event()),
                store_speed_ratio: median(&|peer, ours| {
                    ours.events_per_second() / peer.events_per_second()
                }),
                peer_cost_ratio: median(&|peer, ours| {
                    peer.cpu_microseconds_per_event() / ours.cpu_microseconds_per_event()
                }),
            }
        };
        Self {
            rows: peers.iter().enumerate().map(row).collect(),
            rounds: rounds.len(),
            machine: Machine::this(),
        }
    }
}

fn ours(round: &[Outcome]) -> &Outcome {
    round.last().unwrap()
}

fn versions(outcome: &Outcome) -> String {
    let versions = outcome.versions.iter().map(|(what, version)| format!("{what} {version}"));
    versions.collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rows, rounds, machine } = self;
        writeln!(
            formatter,
            "Medians of {rounds} rounds in which all peers took turns, each in a process of its own, against one \
             endpoint on loopback that answers as cheaply as possible. The figures show what a client costs, \
             not what DynamoDB accepts. Events have a body of 200 bytes. CPU is the user and system time of \
             the peer's process.\n\n\
             | peer | versions | events/s | CPU µs/event | `EventStore` ÷ peer, events/s | peer ÷ \
             `EventStore`, CPU |\n\
             |---|---|---:|---:|---:|---:|"
        )?;
        for row in rows {
            writeln!(
                formatter,
                "| {} | {} | {:.0} | {:.2} | {:.2} | {:.2} |",
                row.name,
                row.versions,
                row.events_per_second,
                row.cpu_microseconds,
                row.store_speed_ratio,
                row.peer_cost_ratio
            )?;
        }
        writeln!(
            formatter,
            "\nAll but the first two have 8 calls with 25 events each in flight. The npm module sends one \
             event per call, 8 calls at a time. `batch_writer` has one call with 25 events in flight. The \
             endpoint has the last core. Peers run on all cores, with as many threads as they start by \
             themselves. Peers with several threads share the endpoint's core, so the number of cores limits \
             their events/s as well. The measured time includes the making of items: boto3 and the SDKs make \
             them from strings, and the npm module serialises objects. `EventStore` checks that the strings \
             are JSON.\n\n\
             {machine}, with `benches/peers/run benches/peers`."
        )
    }
}
