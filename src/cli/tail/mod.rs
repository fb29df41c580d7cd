//! `tail`: prints the events that are stored in a table, as they come.

mod lines;
mod saved_position;

use std::error::Error;
use std::future::{pending, ready};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;
use dynamodb_eventstore::{ConfigError, EventTail, EventTailBuilder, TailError, TailStart};
use futures::StreamExt;
use tokio::time::{Instant, sleep_until};

use crate::arguments::TableOptions;
use crate::output::event_line::Form;
use crate::output::{Output, count};
use crate::stop::signals::{Signal, Signals};
use crate::target::Target;
use crate::time::{self, now};
use lines::Lines;
use saved_position::SavedPosition;

/// Print the events that are stored in a table, as they come, until Ctrl-C
///
/// It reads the table's stream (DynamoDB Streams), which must be switched on; if it is not, the
/// command says how. Each event is one line, its body byte for byte. The events of one writer can come in
/// another order than that of their keys. An item that is not an event is named on standard error. With
/// --position no event is left out from one run to the next, and some may be printed twice.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    table: TableOptions,

    /// Where to begin: with what is stored from now on, or with the oldest record of the stream, up
    /// to 24 hours ago. A --position file that exists takes precedence.
    #[arg(long, value_enum, default_value_t = From::Now)]
    from: From,

    /// File for the position, from which the next run goes on. It is written each second, after the
    /// events are printed. It is created if it does not exist, and is good for 24 hours.
    #[arg(long, value_name = "FILE")]
    position: Option<PathBuf>,

    /// Write {"key":…,"time":…,"body":…} lines, with the body as a JSON string. `resume` puts such
    /// events again under the same keys.
    #[arg(long)]
    with_keys: bool,

    /// End after this time: 500ms, 20s, 2m.
    #[arg(long = "for", value_name = "DURATION", value_parser = time::parse)]
    duration: Option<Duration>,

    /// End after this many events.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max: Option<u64>,

    /// Print errors only.
    #[arg(long, short, conflicts_with = "verbose")]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum From {
    Now,
    Beginning,
}

/// Why a tail ended early.
type Failure = Box<dyn Error + Send + Sync>;

/// Why a tail ended that did not fail.
#[derive(Debug, Clone, Copy)]
enum End {
    Signal(Signal),
    /// `--for` or `--max`.
    Limit,
    /// The reader of a pipe has left.
    CutOff,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let mut signals = Signals::listen()?;
    let deadline = arguments.duration.map(|duration| now() + duration);
    let output = Output::new(arguments.quiet);
    let (mut file, position) = match &arguments.position {
        Some(path) => {
            let (file, position) = SavedPosition::open(path)?;
            (Some(file), position)
        }
        None => (None, None),
    };
    let target = arguments.table.open_existing(&output).await?;
    let mut builder = EventTail::builder(target.sdk_config(), target.table_name());
    let from = match (position, &arguments.position, arguments.from) {
        (Some(position), Some(path), _) => {
            builder = builder.resume_from(position);
            format!("the position in {}", path.display())
        }
        (.., From::Now) => "now".to_owned(),
        (.., From::Beginning) => {
            builder = builder.start_at(TailStart::Beginning);
            "the beginning of its stream".to_owned()
        }
    };
    let opened = tokio::select! {
        biased;
        signal = signals.next() => return Ok(ExitCode::from(signal.exit_code())),
        opened = open(builder, &arguments, &target) => opened,
    };
    let mut tail = opened?;
    if let Some(file) = &mut file {
        file.save(&tail.position())?;
    }
    output.note(format_args!("following {target} from {from}"));
    let form = if arguments.with_keys { Form::WithKeys } else { Form::Bodies };
    let mut lines = Lines::new(form, arguments.max, &output);
    let followed = follow(&mut tail, &mut lines, &mut file, &mut signals, deadline).await;
    // What a closed pipe did not take is printed by the next run.
    let saved = match (lines.flush(), &mut file) {
        (Ok(()), Some(file)) if !lines.are_cut_off() => file.save(&tail.position()),
        (flushed, _) => flushed,
    };
    drop(tail);
    target.close().await?;
    let end = followed.map_err(|error| error as Box<dyn Error>)?;
    saved?;
    let is_complete = lines.report();
    Ok(match end {
        End::CutOff => ExitCode::SUCCESS,
        End::Signal(signal) => ExitCode::from(signal.exit_code()),
        End::Limit if is_complete => ExitCode::SUCCESS,
        End::Limit => ExitCode::FAILURE,
    })
}

/// Prints what comes until the end. The position of a record is saved after its line is flushed.
async fn follow(
    tail: &mut EventTail,
    lines: &mut Lines,
    file: &mut Option<SavedPosition>,
    signals: &mut Signals,
    deadline: Option<Instant>,
) -> Result<End, Failure> {
    loop {
        if lines.are_cut_off() {
            return Ok(End::CutOff);
        }
        if lines.are_enough() {
            return Ok(End::Limit);
        }
        let save_due = file.as_ref().map(SavedPosition::due);
        let record = tokio::select! {
            // The tail may always be ready. It is asked before the lines are flushed, and after everything else.
            biased;
            signal = signals.next() => return Ok(End::Signal(signal)),
            () = sleep_until_some(deadline) => return Ok(End::Limit),
            () = sleep_until_some(save_due) => {
                lines.flush()?;
                if let (Some(file), false) = (&mut *file, lines.are_cut_off()) {
                    file.save_if_new(&tail.position())?;
                }
                continue;
            }
            record = tail.next() => record,
            () = ready(()), if lines.are_unflushed() => {
                lines.flush()?;
                continue;
            }
        };
        lines.print(&record.ok_or("the tail ended")??)?;
        if let Some(file) = file {
            file.note_record();
        }
    }
}

async fn sleep_until_some(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

async fn open(
    builder: EventTailBuilder,
    arguments: &Arguments,
    target: &Target,
) -> Result<EventTail, Box<dyn Error>> {
    let error = match builder.open().await {
        Ok(tail) => return Ok(tail),
        Err(TailError::Config(error)) => return Err(describe(&error).into()),
        Err(error) => error,
    };
    let mut shown = arguments.table.describe_failure("follow", target, &error).await;
    let needs_stream =
        matches!(error, TailError::NoStream { .. } | TailError::WrongViewType { .. });
    if needs_stream {
        match target {
            Target::Local { .. } => shown.push_str(
                "\n  Serve the table for that (dynamodb-eventstore local), and add the --endpoint-url that it prints",
            ),
            Target::Aws { sdk_config, .. } if sdk_config.endpoint_url().is_some() => {
                shown.push_str("\n  Add --endpoint-url, as this command has another endpoint than AWS");
            }
            Target::Aws { .. } => {}
        }
    }
    Err(shown.into())
}

/// A setting that is out of range, by the name of its option.
fn describe(error: &ConfigError) -> String {
    let option = match error.field {
        "resume_from" => "--position",
        "table" => "--table",
        _ => return error.to_string(),
    };
    format!("{option} is {}; it must {}", error.value, error.limit)
}

/// "3 items were", "1 item was".
fn were(items: u64) -> String {
    format!("{} {}", count(items, "item"), if items == 1 { "was" } else { "were" })
}
