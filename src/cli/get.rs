//! `get`: prints the bodies of events by their keys.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use dynamodb_eventstore::{EventKey, MAX_BATCH_EVENTS};
use serde::Serialize;

use crate::arguments::TableOptions;
use crate::output::json_lines::JsonLines;
use crate::output::{Output, count, print, print_error};
use crate::read_keys::read_keys;
use crate::time::format_time;

/// How long reads may fail without progress.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Print the bodies of the events with these keys, each on a line
///
/// The read is consistent, and bodies are printed as they are stored. The exit code is 0 only if
/// there is an event under every key.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Keys such as 20130927T005240652508858176.
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<EventKey>,

    #[command(flatten)]
    table: TableOptions,

    /// Print one JSON object for each key: {"key":…,"time":…,"body":…}, with the body as a string,
    /// and null where there is none.
    #[arg(long)]
    json: bool,
}

/// The object that `--json` prints for one key.
#[derive(Serialize)]
struct Line<'a> {
    key: &'a EventKey,
    time: String,
    body: Option<&'a str>,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let Arguments { keys, table, json } = arguments;
    let target = table.open_existing(&Output::new(false)).await?;
    let reader = target.batch_writer();
    let mut lines = json.then(JsonLines::default);
    let mut missing = 0;
    for keys in keys.chunks(MAX_BATCH_EVENTS) {
        let mut distinct = keys.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        let found = match read_keys(&reader, &distinct, READ_TIMEOUT).await {
            Ok(found) => found,
            Err(error) => {
                return Err(table.describe_failure("read", &target, &error).await.into());
            }
        };
        for key in keys {
            let body = found.get(key);
            let text = body.and_then(|body| body.as_deref());
            match (&mut lines, text) {
                (Some(lines), body) => {
                    lines.print(&Line { key, time: format_time(&key.timestamp()), body });
                }
                (None, Some(body)) => print(body),
                (None, None) => {}
            }
            if text.is_none() {
                missing += 1;
                let what = if body.is_some() { "an item without a body" } else { "no event" };
                print_error(format_args!("key {key}: there is {what} in {target}"));
            }
        }
    }
    target.close().await?;
    if let Some(error) = lines.as_ref().and_then(JsonLines::error) {
        return Err(error.into());
    }
    if missing > 0 && keys.len() > 1 {
        print_error(format_args!("{} of {} not there", missing, count(keys.len() as u64, "key")));
    }
    Ok(if missing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
