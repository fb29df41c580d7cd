//! `put`: stores each line of a file or of standard input as a new event.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::input::Source;
use crate::storing::{self, Options, Way};

/// Store each line of newline-delimited JSON as an event
///
/// Without --table it stores in a local table, a file in the current directory. The exit code is 0
/// only if every line was stored. SIGINT (Ctrl-C) or SIGTERM stops the reading and waits for what
/// was accepted; a second one does not wait.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// File of events, one JSON text a line; `-` or nothing for standard input.
    file: Option<PathBuf>,

    /// Five digits of each key that keep writers to one table apart, 0 to 99999
    /// [default: drawn at random].
    #[arg(long, value_name = "N")]
    writer_id: Option<u32>,

    #[command(flatten)]
    options: Options,
}

pub(crate) async fn run(arguments: Arguments, verbose: bool) -> Result<ExitCode, Box<dyn Error>> {
    let Arguments { file, writer_id, options } = arguments;
    storing::run(Source::new(file), options, Way::New { writer_id }, verbose).await
}
