//! The results in Markdown.

use std::fmt;

use super::client::Run;
use super::endpoint::Second;
use super::table::Table;

/// The result of one client on one table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) table: Table,
    pub(crate) client: &'static str,
    pub(crate) run: Run,
}

impl Row {
    fn sum(&self, figure: impl Fn(&Second) -> u64) -> f64 {
        self.run.settled().map(|(_, second)| figure(second)).sum::<u64>() as f64
    }

    fn used(&self) -> f64 {
        let capacity: u32 = self.run.settled().map(|(second, _)| self.table.units_in(second)).sum();
        self.sum(|second| second.accepted) / f64::from(capacity)
    }

    fn refused(&self) -> f64 {
        let refused = self.sum(|second| second.refused);
        refused / (refused + self.sum(|second| second.accepted))
    }
}

impl fmt::Display for Row {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.run.settled().count() as f64;
        write!(
            formatter,
            "| {} | {} | {:.0} | {:.1} % | {:.1} % | {:.0} | {:.1} |",
            self.table.name(),
            self.client,
            self.sum(|second| second.accepted) / seconds,
            100.0 * self.used(),
            100.0 * self.refused(),
            self.sum(|second| second.refused_calls),
            self.run.cpu_microseconds_per_unit()
        )
    }
}

pub(crate) struct Report<'a>(pub(crate) &'a [Row]);

impl fmt::Display for Report<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "| table | client | accepted/s | of capacity | throttled, of the items sent | calls throttled whole | \
             CPU µs/event |"
        )?;
        writeln!(formatter, "|---|---|---:|---:|---:|---:|---:|")?;
        self.0.iter().try_for_each(|row| writeln!(formatter, "{row}"))
    }
}
