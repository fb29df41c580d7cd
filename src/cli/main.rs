//! `dynamodb-eventstore`: stores newline-delimited JSON in a DynamoDB table, from a shell.
//!
//! In `put` and `resume` each line takes the same way: `arguments` → `run` → `input` → `producer` →
//! the store → `collector` → `report`. `stop` ends a run early, and `output` prints. `bench` has its
//! own store and recorder. `export`, `get`, `count` and `tail` read. `prepare` writes files that DynamoDB imports.

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod arguments;
mod bench;
mod check;
mod collector;
mod completions;
mod count;
mod create_table;
mod dry_run;
mod export;
mod get;
mod input;
mod item_files;
mod journal;
mod local;
mod man;
mod output;
mod position_file;
mod prepare;
mod producer;
mod put;
mod read_keys;
mod report;
mod resume;
mod run;
mod stop;
mod tail;
mod target;
mod time;

use std::process::ExitCode;

use clap::{ArgAction, CommandFactory, Parser, Subcommand};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::arguments::CommandLine;

/// Store events in a DynamoDB table, and report the outcome of each
///
/// An event is one line of JSON. It is stored as an item with two attributes: `key`, a unique
/// timestamp such as 20130927T005240652508858176, and `body`, the line unchanged.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
struct Cli {
    /// Log each event to standard error, with its line number and key; -vv adds its body.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,

    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  Try it without an AWS account: store a file in a local table, then serve that table
    dynamodb-eventstore put events.ndjson
    dynamodb-eventstore local

  Store a file in a DynamoDB table, with the credentials of the environment or profile
    dynamodb-eventstore create-table --table all-events
    dynamodb-eventstore put events.ndjson --table all-events --failed failed.ndjson

  Put the failed events again, under the same keys
    dynamodb-eventstore resume failed.ndjson --table all-events --failed failed-again.ndjson

  Get the events of a day back, in the order of their keys
    dynamodb-eventstore export --table all-events --from 2026-01-01 --to 2026-01-02 --sorted -o day.ndjson

  Print the events of other programs as they are stored
    dynamodb-eventstore tail --table all-events --position position.json

  Store what another program prints
    journalctl -o json -f | dynamodb-eventstore put --table all-events";

#[derive(Debug, Subcommand)]
enum Command {
    Put(put::Arguments),
    Resume(resume::Arguments),
    Check(check::Arguments),
    CreateTable(create_table::Arguments),
    Export(export::Arguments),
    Get(get::Arguments),
    Count(count::Arguments),
    Tail(tail::Arguments),
    Prepare(prepare::Arguments),
    Bench(bench::Arguments),
    Journal(journal::Arguments),
    Local(local::Arguments),
    Completions(completions::Arguments),
    Man(man::Arguments),
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cli { verbose, command } = Cli::parse();
    log_to_stderr(verbose);
    let arguments = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
    let command_line = CommandLine::parse(arguments, &Cli::command());
    let is_verbose = verbose > 0;
    let result = match command {
        Command::Put(put) => Box::pin(put::run(put, &command_line, is_verbose)).await,
        Command::Resume(resume) => Box::pin(resume::run(resume, &command_line, is_verbose)).await,
        Command::Check(check) => Box::pin(check::run(check)).await,
        Command::CreateTable(create_table) => create_table::run(create_table).await,
        Command::Export(export) => Box::pin(export::run(export)).await,
        Command::Get(get) => Box::pin(get::run(get)).await,
        Command::Count(count) => Box::pin(count::run(count)).await,
        Command::Tail(tail) => Box::pin(tail::run(tail)).await,
        Command::Prepare(prepare) => Box::pin(prepare::run(prepare)).await,
        Command::Bench(bench) => Box::pin(bench::run(bench)).await,
        Command::Journal(journal) => journal::run(journal).await,
        Command::Local(local) => local::run(local).await,
        Command::Completions(completions) => completions::run(&completions, Cli::command()),
        Command::Man(man) => man::run(man, Cli::command()),
    };
    result.unwrap_or_else(|error| {
        output::print_error(format_args!("error: {}", output::with_causes(&*error)));
        ExitCode::FAILURE
    })
}

/// Logs the tracing events of this crate only. Those of the AWS SDK would show whole requests.
fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => return,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    // Another crate could switch on the feature that colours the log, on pipes and files as well.
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(false);
    let crate_events = Targets::new().with_target("dynamodb_eventstore", level);
    tracing_subscriber::registry().with(lines).with(crate_events).init();
}
