//! `resume`: puts events again that were given up, under the keys they had.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::command_line::CommandLine;
use crate::input::Source;
use crate::options::Options;
use crate::storing::{self, Lines};

/// Put events again that were not stored, under the same keys
///
/// Takes the file that `put --failed` has written, or the lines of a program's close report. An
/// event cannot be stored twice this way, however often its file is resumed: it keeps its key. Each
/// key is read first. An event that is there already is left alone, and one whose key has come to
/// hold another event is not put. The exit code is 0 only if every event of the file is stored.
///
/// Its own --failed file receives what is left: the events that failed once more, and where it ends
/// early the lines that it did not come to, as they are. So nothing is lost in a chain of resumes,
/// each of which takes the --failed file of the one before.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// File of events that were given up, one JSON object a line; `-` for standard input.
    file: PathBuf,

    /// Put without reading the keys first; for roles without dynamodb:BatchGetItem. Whatever is
    /// under the keys is overwritten.
    #[arg(long)]
    unchecked: bool,

    #[command(flatten)]
    options: Options,
}

pub(crate) async fn run(
    arguments: Arguments,
    typed: &CommandLine,
    is_verbose: bool,
) -> Result<ExitCode, Box<dyn Error>> {
    let Arguments { file, unchecked, options } = arguments;
    // No default: what was meant for one table is not to end in another.
    if !options.has_target() {
        return Err("name the table that the events were meant for: --table or --local".into());
    }
    let lines = Lines::GivenUp { check: !unchecked };
    storing::run(Source::new(Some(file)), options, lines, typed, is_verbose).await
}
