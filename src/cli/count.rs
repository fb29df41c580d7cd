//! `count`: counts the items of a table.

use std::error::Error;
use std::process::ExitCode;

use serde::Serialize;

use crate::arguments::ReadOptions;
use crate::output::json_lines::JsonLines;
use crate::output::read_progress::ScanProgress;
use crate::output::{Output, print};
use crate::time::now;

/// Count the items of a table, by reading all of it
///
/// It takes as many read units as an export, and says first how many. Items that are not events
/// are counted, too. DescribeTable states the number for nothing, up to six hours late: see what
/// this command prints first.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    read: ReadOptions,

    /// Print one JSON object instead.
    #[arg(long)]
    json: bool,

    /// Print the number and errors only.
    #[arg(long, short, conflicts_with = "verbose")]
    quiet: bool,
}

#[derive(Serialize)]
struct Counted {
    items: u64,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let Arguments { read, json, quiet } = arguments;
    let output = Output::new(quiet);
    let target = read.open_target(&output).await?;
    let reader = read.open_reader(read.reader(&target), &target, &output).await?;
    let Some(reader) = reader else { return Ok(ExitCode::FAILURE) };
    let progress = ScanProgress::new(&reader.progress(), &output);
    let mut due = now() + progress.interval();
    let items = reader.count_with_progress(|read| {
        if now() >= due {
            progress.show(read, 0);
            due = now() + progress.interval();
        }
    });
    let items = items.await?;
    drop(progress);
    target.close().await?;
    if json {
        let mut lines = JsonLines::default();
        lines.print(&Counted { items });
        if let Some(error) = lines.error() {
            return Err(error.into());
        }
    } else {
        print(items);
    }
    Ok(ExitCode::SUCCESS)
}
