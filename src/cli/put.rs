//! `put`: stores each line of a file or of standard input as a new event.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::command_line::CommandLine;
use crate::input::Source;
use crate::options::Options;
use crate::storing::{self, Lines};

/// Store each line of newline-delimited JSON as an event
///
/// Without --table it stores in a local table, a file in the current directory. The exit code is 0
/// only if every line was stored. SIGINT (Ctrl-C) or SIGTERM stops the reading and waits for what
/// was accepted; a second one does not wait. Where it ends early it says how to go on.
///
/// A line is stored byte for byte, without its line break: \n or \r\n. Blank lines are left out,
/// and so is a byte order mark at the beginning of the input.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// File of events, one JSON text a line; `-` or nothing for standard input.
    file: Option<PathBuf>,

    /// Five digits of each key that keep writers to one table apart, 0 to 99999
    /// [default: drawn at random].
    #[arg(long, value_name = "N")]
    writer_id: Option<u32>,

    /// Line to begin with, to go on after a run that ended early. Line numbers stay those of the
    /// file.
    #[arg(long, value_name = "N", default_value_t = 1, hide_default_value = true)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    from_line: u64,

    #[command(flatten)]
    options: Options,
}

pub(crate) async fn run(
    arguments: Arguments,
    typed: &CommandLine,
    is_verbose: bool,
) -> Result<ExitCode, Box<dyn Error>> {
    let Arguments { file, writer_id, from_line: first_line, options } = arguments;
    let lines = Lines::New { writer_id, first_line };
    storing::run(Source::new(file), options, lines, typed, is_verbose).await
}
