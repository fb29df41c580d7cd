//! `resume`: puts the events of a `--failed` file again, under the keys that they have.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::arguments::CommandLine;
use crate::arguments::Mode;
use crate::arguments::StoreOptions;
use crate::input::Source;
use crate::run::Run;

/// Put failed events again, under the same keys
///
/// FILE is what `put --failed` or `resume --failed` wrote, or the failed events of a program's
/// close report. Each event keeps its key, so it is not stored twice, even if FILE is resumed
/// several times. Each key is read first: an event that is already stored is skipped, and an event
/// whose key holds another event is refused. The exit code is 0 only if every event of FILE is
/// stored.
///
/// With --failed, the new file receives every event that failed again. If the resume ends early,
/// the new file also receives the lines that were not put, unchanged. So no event is lost if each
/// resume reads the --failed file of the one before.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// File of failed events, one JSON object per line; `-` for standard input.
    file: PathBuf,

    /// Put without reading the keys first, for roles without dynamodb:BatchGetItem. Without
    /// --insert this overwrites whatever the table has under the keys.
    #[arg(long)]
    unchecked: bool,

    #[command(flatten)]
    options: StoreOptions,
}

pub(crate) async fn run(
    arguments: Arguments,
    command_line: &CommandLine,
    is_verbose: bool,
) -> Result<ExitCode, Box<dyn Error>> {
    let Arguments { file, unchecked, options } = arguments;
    // There is no default table: events that were meant for one table must not be stored in
    // another.
    if !options.has_target() {
        return Err("name the table that the events were meant for: --table or --local".into());
    }
    let (source, mode) = (Source::new(Some(file)), Mode::Resume { reads_keys: !unchecked });
    Run::new(&source, &options, mode, command_line).execute(is_verbose).await
}
