//! The table of results.

use std::fmt::{self, Write};

use dynamodb_eventstore::Stats;

use super::measure::{Sample, Spread};
use super::ways::Way;

/// One row for each way of writing, and remarks on the store.
#[derive(Debug)]
pub(crate) struct Table {
    rows: String,
    remarks: String,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self { rows: String::new(), remarks: String::new() }
    }

    /// Adds the results of one setting. A ratio is the median of the rounds' ratios, not a ratio of
    /// medians, because a disturbance affects both sides of a round.
    pub(crate) fn add(
        &mut self,
        setting: &str,
        rounds: &[[Sample; Way::ALL.len()]],
        stats: &Stats,
    ) {
        let rates = |way: Way| samples(rounds, way).map(|sample| sample.events_per_second());
        let costs =
            |way: Way| samples(rounds, way).map(|sample| sample.cpu_microseconds_per_event());
        let speed = |way, to| Spread::of(rates(way).zip(rates(to)).map(|(rate, to)| rate / to));
        let cost = |way, to| Spread::of(costs(way).zip(costs(to)).map(|(cost, to)| cost / to));
        for way in Way::ALL {
            writeln!(
                self.rows,
                "| {setting} | {} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} |",
                way.name(),
                Spread::of(rates(way)).median,
                Spread::of(costs(way)).median,
                speed(way, Way::PutItem).median,
                speed(way, Way::ReadyBatches).median,
                cost(way, Way::ReadyBatches).median,
            )
            .unwrap();
        }
        writeln!(
            self.remarks,
            "- {setting}: {} times as many events/s as the ready batches, at {} times their CPU; {} times \
             the CPU of the transport alone. Its {} batches were {:.2} % full.",
            speed(Way::Store, Way::ReadyBatches),
            cost(Way::Store, Way::ReadyBatches),
            cost(Way::Store, Way::Transport),
            stats.batches,
            stats.fill_ratio * 100.0,
        )
        .unwrap();
    }
}

fn samples(rounds: &[[Sample; Way::ALL.len()]], way: Way) -> impl Iterator<Item = Sample> {
    let of_way = move |round: &[Sample; Way::ALL.len()]| {
        let place = Way::ALL.iter().position(|other| *other == way)?;
        round.get(place).copied()
    };
    rounds.iter().filter_map(of_way)
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(
            "Medians of rounds in which all ways took turns, against one endpoint on loopback. CPU is the \
             user and system time of this process alone. PutItem's items, the ready batches and the transport's bodies were \
             made beforehand. EventStore begins with values to be serialised and ends with answered \
             tickets.\n\n\
             | | way | events/s | CPU µs/event | events/s, ÷ PutItem one by one | events/s, ÷ ready batches | CPU, ÷ ready batches |\n\
             |---|---|---:|---:|---:|---:|---:|\n",
        )?;
        formatter.write_str(&self.rows)?;
        formatter.write_str("\nEventStore, as the median and the quartiles of the rounds:\n\n")?;
        formatter.write_str(&self.remarks)
    }
}
