//! `journal`: lists, exports or drops the events of a journal that may not be in the table.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use dynamodb_eventstore::{Event, Journal};
use serde::Serialize;

use crate::output::{count, print, print_error};

/// List, export or drop the events of a journal that are not known to be stored
///
/// `put --journal DIR` puts these events again. Use these commands for events that it cannot store,
/// and for journals of other programs. A journal that another process has open cannot be opened.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print how many events there are, and which bytes are damaged.
    List {
        /// Directory of the journal.
        directory: PathBuf,
    },
    /// Print each event as a line that `resume` puts again, and leave the journal unchanged.
    Export {
        /// Directory of the journal.
        directory: PathBuf,
    },
    /// Forget all events. Events that are not in the table are lost.
    Drop {
        /// Directory of the journal.
        directory: PathBuf,

        /// The number of events that `list` has counted. If the journal has another number, nothing
        /// is dropped.
        #[arg(long, value_name = "N")]
        events: u64,
    },
}

/// An event as `resume` reads it.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    event: &'a Event,
    certainty: &'a str,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let (Action::List { directory }
    | Action::Export { directory }
    | Action::Drop { directory, .. }) = &arguments.action;
    let journal = open(directory.clone()).await?;
    match arguments.action {
        Action::List { .. } => list(&journal)?,
        Action::Export { .. } => export(&journal)?,
        Action::Drop { events, .. } => discard(journal, events).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Opens a journal that exists.
async fn open(directory: PathBuf) -> Result<Journal, Box<dyn Error>> {
    if !directory.is_dir() {
        return Err(format!("there is no journal in {}", directory.display()).into());
    }
    Ok(Journal::open(directory).await?)
}

fn list(journal: &Journal) -> Result<(), Box<dyn Error>> {
    let report = journal.report();
    let torn =
        report.torn.iter().map(|damage| (damage, "were written only in part, and are cut off"));
    let damaged = (report.damaged.iter())
        .map(|damage| (damage, "are damaged, and are kept in a file that ends in .damaged"));
    for (damage, what) in torn.chain(damaged) {
        let (file, bytes) = (damage.file.display(), count(damage.bytes, "byte"));
        print_error(format_args!("{file}: {bytes} at byte {} {what}", damage.offset));
    }
    let keys = journal.unsettled().map(|event| event.map(|event| *event.key()));
    let (mut first, mut last) = (None, None);
    for key in keys {
        let key = key?;
        first = first.or(Some(key));
        last = Some(key);
    }
    match (first, last) {
        (Some(first), Some(last)) => print(format_args!(
            "{} not known to be stored, {first} to {last}",
            count(report.unsettled, "event"),
        )),
        _ => print("every event is stored"),
    }
    Ok(())
}

fn export(journal: &Journal) -> Result<(), Box<dyn Error>> {
    for event in journal.unsettled() {
        let line = Line { event: &event?, certainty: "maybe stored" };
        print(serde_json::to_string(&line)?);
    }
    Ok(())
}

async fn discard(journal: Journal, events: u64) -> Result<(), Box<dyn Error>> {
    let unsettled = journal.report().unsettled;
    if unsettled != events {
        let found = count(unsettled, "event");
        return Err(format!("the journal has {found}, not {events}: nothing is dropped").into());
    }
    journal.discard().await?;
    print(format_args!("dropped {}", count(events, "event")));
    Ok(())
}
