//! `dynamodb-eventstore`: stores newline-delimited JSON in a DynamoDB table, from a shell.

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod aws;
mod certificates;
mod closing;
mod collecting;
mod command_line;
mod create_table;
mod durations;
mod ending;
mod failed_file;
mod failures;
mod feed;
mod given_up;
mod given_up_lines;
mod input;
mod json_lines;
mod local;
mod new_lines;
mod next_steps;
mod opening;
mod options;
mod output;
mod pipeline;
mod progress;
mod put;
mod reading;
mod report;
mod resume;
mod resume_check;
mod signals;
mod stops;
mod storing;
mod target;
mod watchdog;

use std::error::Error;
use std::process::ExitCode;

use clap::{ArgAction, CommandFactory, Parser, Subcommand};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::command_line::CommandLine;

/// Store events in a DynamoDB table, and know what became of each.
///
/// An event is one line of JSON. It is stored as an item with two attributes: `key`, its time and
/// a number that keeps it apart (20130927T005240652508858176), and `body`, the line as it is.
#[derive(Debug, Parser)]
#[command(version, about, long_about, after_help = EXAMPLES)]
struct Arguments {
    /// Tell what happens to each event, on standard error, with its line and key; twice: with its
    /// body.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,

    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  Try it without an AWS account: store a file in a local table, then look at it
    dynamodb-eventstore put events.ndjson
    dynamodb-eventstore local

  Store a file in a DynamoDB table, with the credentials of the environment or profile
    dynamodb-eventstore create-table --table all-events
    dynamodb-eventstore put events.ndjson --table all-events --failed failed.ndjson

  Put again what could not be stored, under the same keys
    dynamodb-eventstore resume failed.ndjson --table all-events --failed failed-again.ndjson

  Store what another program prints
    journalctl -o json -f | dynamodb-eventstore put --table all-events";

#[derive(Debug, Subcommand)]
enum Command {
    Put(put::Arguments),
    Resume(resume::Arguments),
    CreateTable(create_table::Arguments),
    Local(local::Arguments),
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    log_to_stderr(arguments.verbose);
    let typed = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
    let typed = CommandLine::of(typed, &Arguments::command());
    let is_verbose = arguments.verbose > 0;
    let ended = match arguments.command {
        Command::Put(put) => Box::pin(put::run(put, &typed, is_verbose)).await,
        Command::Resume(resume) => Box::pin(resume::run(resume, &typed, is_verbose)).await,
        Command::CreateTable(create_table) => create_table::run(create_table).await,
        Command::Local(local) => local::run(local).await,
    };
    ended.unwrap_or_else(|error| {
        output::print_error(format_args!("error: {}", with_causes(&*error)));
        ExitCode::FAILURE
    })
}

/// Logs this crate's events alone: the AWS SDK's would show whole requests.
fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => return,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let ours = Targets::new().with_target("dynamodb_eventstore", level);
    tracing_subscriber::registry().with(lines).with(ours).init();
}

/// The error and what is underneath, as far as the message does not say it already.
fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut said = error.to_string();
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    for cause in causes.map(ToString::to_string) {
        if !said.contains(&cause) {
            said.push_str(": ");
            said.push_str(&cause);
        }
    }
    said
}
