//! The options that `put` and `resume` share: where to store, and how.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use dynamodb_eventstore::{EventStore, EventStoreBuilder, Journal, WriterIds};

use super::insert_options::InsertOptions;
use super::limit_options::LimitOptions;
use super::table_options::TableOptions;
use crate::output::{Output, count};
use crate::target::{DEFAULT_FILE, Target};
use crate::time;

/// The store's deadline for one event. It is longer than any run waits, because `--deadline` ends a run without
/// progress.
const EVENT_DEADLINE: Duration = Duration::from_secs(24 * 60 * 60);

/// The store's limit of attempts per event. It is never reached, for the same reason.
const MAX_ATTEMPTS: u32 = 1_000_000;

/// Write units of the largest event.
const MAX_EVENT_WRITE_UNITS: u32 = 400;

/// Where the events go, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct StoreOptions {
    #[command(flatten)]
    table: TableOptions,

    /// File for the lines that were not stored, each as JSON with its number, key and reason.
    /// `resume` puts the events of this file again. It must not exist yet, or must be empty.
    #[arg(long, value_name = "FILE")]
    pub(crate) failed: Option<PathBuf>,

    /// Directory that keeps accepted events until they are stored, so that they survive the end of
    /// this process. A later put with the same directory stores what is left in it. Lines for which
    /// memory has no room wait there, so the input is read although the table takes nothing.
    #[arg(long, value_name = "DIR")]
    journal: Option<PathBuf>,

    #[command(flatten)]
    insert: InsertOptions,

    /// Print the outcome of each line to standard output, one JSON object per line with its number,
    /// key and certainty. The last object has the totals under `summary`.
    #[arg(long)]
    pub(crate) json: bool,

    /// Print errors only.
    #[arg(long, short, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// End when the table has acknowledged no event for this TIME. As long as it acknowledges events, no event fails
    /// because it waits too long. A TIME is 500ms, 20s, 2m; a bare number is seconds.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time::parse)]
    #[arg(help_heading = "Limits")]
    pub(crate) deadline: Duration,

    /// How long to wait for accepted events when the run ends early: after SIGINT, SIGTERM or --deadline.
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = time::parse)]
    #[arg(help_heading = "Limits")]
    pub(crate) grace: Duration,

    #[command(flatten)]
    limits: LimitOptions,

    /// Maximum number of write units to use per second, to leave capacity to others
    /// [default: no limit].
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub(crate) write_units: Option<u32>,

    /// Do not read back events whose write was not acknowledged; for roles without
    /// dynamodb:BatchGetItem. With --insert, an event whose key is taken after an unanswered
    /// attempt is read all the same.
    #[arg(long)]
    no_read_back: bool,
}

impl StoreOptions {
    /// Whether the user named a table.
    pub(crate) fn has_target(&self) -> bool {
        self.table.is_named()
    }

    /// Opens the table, and starts a store that writes to it.
    pub(crate) async fn start(
        &self,
        writer_ids: WriterIds,
        output: &Output,
    ) -> Result<(Target, EventStore), Box<dyn Error>> {
        let target = self.open_target(output).await?;
        let mut builder = self.store_builder(&target, writer_ids);
        if let Some(directory) = &self.journal {
            let journal = Journal::open(directory).await?;
            let left = journal.report().unsettled;
            if left > 0 {
                output.note(format_args!(
                    "{} has {} of an earlier run, which are put again",
                    directory.display(),
                    count(left, "event"),
                ));
            }
            builder = builder.journal(journal);
        }
        let store = self.table.start(builder, &target).await?;
        Ok((target, store))
    }

    async fn open_target(&self, output: &Output) -> Result<Target, Box<dyn Error>> {
        if let Some(target) = self.table.open().await? {
            return Ok(target);
        }
        output.note(format_args!(
            "no --table given: storing in the local table {DEFAULT_FILE} in the current directory"
        ));
        Target::open_local(DEFAULT_FILE.as_ref()).await
    }

    fn store_builder(&self, target: &Target, writer_ids: WriterIds) -> EventStoreBuilder {
        let mut builder = target
            .store_builder()
            .event_deadline(EVENT_DEADLINE)
            .max_attempts(MAX_ATTEMPTS)
            .read_back(!self.no_read_back);
        builder = self.insert.apply(self.limits.apply(builder));
        if let Some(write_units) = self.write_units {
            builder = builder.max_write_units_per_second(write_units);
        }
        builder.writer_id(writer_ids)
    }

    /// After how much time without an acknowledged event a run ends: `--deadline`, plus the waits
    /// that these options cause themselves.
    pub(crate) fn stall_timeout(&self) -> Duration {
        let largest_event = self.write_units.map_or(Duration::ZERO, |write_units| {
            Duration::from_secs(1) * MAX_EVENT_WRITE_UNITS / write_units.max(1)
        });
        self.deadline + self.limits.linger() + largest_event
    }

    /// Whether events are only stored under free keys.
    pub(crate) fn inserts(&self) -> bool {
        self.insert.insert
    }

    pub(crate) fn max_buffered_events(&self) -> usize {
        self.limits.max_buffered_events()
    }
}
