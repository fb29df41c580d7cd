//! What is printed in the end.

use std::fmt::{self, Write};

use dynamodb_eventstore::Stats;

use super::measure::{Sample, Spread};
use super::ways::Way;

/// One row per way of writing, and a few words on the store.
#[derive(Debug)]
pub(crate) struct Table {
    rows: String,
    remarks: String,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self { rows: String::new(), remarks: String::new() }
    }

    /// Adds what the rounds of one runtime and one size of event came to. A ratio is the median of
    /// the rounds' ratios, not a ratio of medians: what disturbs a round disturbs both of its sides.
    pub(crate) fn add(
        &mut self,
        runtime: &str,
        body_bytes: usize,
        rounds: &[[Sample; Way::ALL.len()]],
        stats: &Stats,
    ) {
        let rates = |way: Way| samples(rounds, way).map(|sample| sample.events_per_second());
        let ratio = |way, to| Spread::of(rates(way).zip(rates(to)).map(|(rate, to)| rate / to));
        for way in Way::ALL {
            let rate = Spread::of(rates(way)).median;
            let cpu = samples(rounds, way).map(|sample| sample.cpu_microseconds_per_event());
            writeln!(
                self.rows,
                "| {runtime} | {body_bytes} B | {} | {rate:.0} | {:.2} | {:.2} | {:.2} |",
                way.name(),
                Spread::of(cpu).median,
                ratio(way, Way::PutItem).median,
                ratio(way, Way::FullBatches).median,
            )
            .unwrap();
        }
        let to_batches = ratio(Way::Store, Way::FullBatches);
        let to_one_by_one = ratio(Way::Store, Way::PutItem);
        writeln!(
            self.remarks,
            "- {runtime}, {body_bytes} B: EventStore is at {to_batches} of full batches and at \
             {to_one_by_one} of PutItem one by one; with 10,000 events put at a time its {} \
             batches were {:.2} % full.",
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
            "Medians of rounds in which all took turns, against one endpoint on loopback. CPU is the \
             user and system time of this process alone. What the SDK sends by itself lay ready; \
             EventStore begins with values to be serialised and ends with answered tickets.\n\n\
             | runtime | body | way | events/s | CPU µs/event | × one by one | × full batches |\n\
             |---|---|---|---:|---:|---:|---:|\n",
        )?;
        formatter.write_str(&self.rows)?;
        formatter.write_str("\nMedian, and the middle half of the rounds:\n\n")?;
        formatter.write_str(&self.remarks)
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lower, median, upper } = self;
        write!(formatter, "{median:.2} ({lower:.2} to {upper:.2})")
    }
}
