//! The options that `export` and `count` share: what to read, and how fast.

use std::error::Error;
use std::io::{IsTerminal, stderr, stdin};
use std::ops::Bound;

use chrono::{DateTime, Utc};
use dynamodb_eventstore::{ConfigError, EventReader, EventReaderBuilder, ReadError, ReadProgress};
use indicatif::HumanBytes;

use super::table_options::TableOptions;
use crate::output::{Output, ask, count, with_causes};
use crate::target::Target;
use crate::time::parse_time;

/// Read units from which the user is asked: a table of 8 GB, which takes minutes.
const MANY_READ_UNITS: f64 = 1_000_000.0;

const EMPTY_TIME_RANGE: &str = "--from must be before --to";

/// What to read, and how fast.
#[derive(Debug, clap::Args)]
pub(crate) struct ReadOptions {
    #[command(flatten)]
    table: TableOptions,

    /// Read only events from this TIME on: 2026-01-31, or 2026-01-31T12:00:00Z. Without an offset it
    /// is UTC. The whole table is read, and paid for, all the same.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    from: Option<DateTime<Utc>>,

    /// Read only events before this TIME.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    to: Option<DateTime<Utc>>,

    /// See every event whose write was acknowledged before, at twice the read units.
    #[arg(long)]
    consistent: bool,

    /// Maximum number of read units to use per second, to leave capacity to others
    /// [default: no limit].
    #[arg(long, value_name = "N", help_heading = "Limits")]
    read_units: Option<u32>,

    /// Segments of the table to read at the same time, 1 to 256 [default: 8].
    #[arg(long, value_name = "N", help_heading = "Limits")]
    segments: Option<u32>,

    /// Do not ask before a scan of many read units.
    #[arg(long, short)]
    yes: bool,
}

impl ReadOptions {
    /// Opens the table, which must exist.
    pub(crate) async fn open_target(&self, output: &Output) -> Result<Target, Box<dyn Error>> {
        self.table.open_existing(output).await
    }

    /// `--from` and `--to`.
    pub(crate) fn times(&self) -> (Option<DateTime<Utc>>, Option<DateTime<Utc>>) {
        (self.from, self.to)
    }

    /// From `--from` on, and before `--to`.
    pub(crate) fn time_range(&self) -> (Bound<DateTime<Utc>>, Bound<DateTime<Utc>>) {
        let from = self.from.map_or(Bound::Unbounded, Bound::Included);
        (from, self.to.map_or(Bound::Unbounded, Bound::Excluded))
    }

    /// Fails if no event can be within the range of times.
    pub(crate) fn check_time_range(&self) -> Result<(), &'static str> {
        match (self.from, self.to) {
            (Some(from), Some(to)) if from >= to => Err(EMPTY_TIME_RANGE),
            _ => Ok(()),
        }
    }

    /// A reader of this table.
    pub(crate) fn reader(&self, target: &Target) -> EventReaderBuilder {
        let mut reader = EventReader::builder(&target.client(), target.table_name())
            .time_range(self.time_range())
            .consistent_read(self.consistent);
        if let Some(read_units) = self.read_units {
            reader = reader.max_read_units_per_second(read_units);
        }
        if let Some(segments) = self.segments {
            reader = reader.segments(segments);
        }
        reader
    }

    /// Opens the reader, says what the scan will cost, and asks if that is much. `None` if the user says no.
    pub(crate) async fn open_reader(
        &self,
        reader: EventReaderBuilder,
        target: &Target,
        output: &Output,
    ) -> Result<Option<EventReader>, Box<dyn Error>> {
        let reader = match reader.open().await {
            Ok(reader) => reader,
            Err(ReadError::Config(error)) => return Err(describe(&error).into()),
            Err(error) => {
                return Err(self.table.describe_failure("read", target, &error).await.into());
            }
        };
        let progress = reader.progress();
        let cost = match target {
            Target::Aws { .. } => cost(&progress),
            Target::Local { .. } => count(progress.estimated_items.unwrap_or_default(), "item"),
        };
        output.note(format_args!("reading {target}: {cost}"));
        let many = progress.estimated_read_units.filter(|units| *units >= MANY_READ_UNITS);
        let Some(read_units) = many else { return Ok(Some(reader)) };
        output.note(
            "for a whole large table ExportTableToPointInTime is cheaper: it writes the table to S3 and takes no read \
             units, and needs point-in-time recovery (aws dynamodb export-table-to-point-in-time)",
        );
        let asks = !self.yes && stdin().is_terminal() && stderr().is_terminal();
        let question = format!("this takes {}: read it?", count(read_units as u64, "read unit"));
        Ok((!asks || ask(&question)).then_some(reader))
    }
}

/// The size of the table and the cost of its scan, in words.
fn cost(progress: &ReadProgress) -> String {
    let (Some(items), Some(bytes), Some(units)) =
        (progress.estimated_items, progress.estimated_bytes, progress.estimated_read_units)
    else {
        return "its size is not known, because dynamodb:DescribeTable is not allowed".to_owned();
    };
    format!(
        "about {}, {}, {} (as DescribeTable states it, up to 6 hours late)",
        count(items, "item"),
        HumanBytes(bytes),
        count(units as u64, "read unit"),
    )
}

/// A setting that is out of range, by the name of its option.
fn describe(error: &ConfigError) -> String {
    let option = match error.field {
        "max_memory_bytes" => "--memory",
        "max_read_units_per_second" => "--read-units",
        "resume_from" => "--position",
        "segments" => "--segments",
        "table" => "--table",
        "time_range" => return EMPTY_TIME_RANGE.to_owned(),
        _ => return with_causes(error),
    };
    format!("{option} is {}; it must {}", error.value, error.limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_names_items_bytes_and_read_units() {
        let mut progress = ReadProgress::default();
        assert!(cost(&progress).contains("dynamodb:DescribeTable"));
        progress.estimated_items = Some(1_234_567);
        progress.estimated_bytes = Some(8 << 30);
        progress.estimated_read_units = Some(1_048_576.0);
        let shown = cost(&progress);
        let expected = "about 1,234,567 items, 8.00 GiB, 1,048,576 read units";
        assert!(shown.starts_with(expected), "{shown}");
    }
}
