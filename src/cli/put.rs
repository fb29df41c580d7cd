//! `put`: stores each line of a file or of standard input as a new event.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use dynamodb_eventstore::WriterIds;

use crate::arguments::CommandLine;
use crate::arguments::Mode;
use crate::arguments::StoreOptions;
use crate::dry_run;
use crate::input::Source;
use crate::output::Output;
use crate::run::Run;

/// Store each line of newline-delimited JSON as an event
///
/// Without --table, events go to a local table, a file in the current directory. The exit code is 0
/// only if every line was stored. After SIGINT (Ctrl-C) or SIGTERM, put reads no more lines and
/// waits for the accepted events. A second signal ends the wait. A put that ends early prints the
/// command that continues it.
///
/// A line is stored byte for byte, without its line break: \n or \r\n. Blank lines are skipped, and
/// so is a byte order mark at the beginning of the input.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// File of events, one JSON text per line; `-` or no FILE for standard input.
    file: Option<PathBuf>,

    /// Number in each key that keeps the keys of different writers apart, 0 to 99999 [default:
    /// random].
    #[arg(long, value_name = "N")]
    writer_id: Option<u32>,

    /// Table from which to lease the writer id, so that no other writer has the same one.
    /// `create-table --with-writers` creates this table.
    #[arg(long, value_name = "WRITERS_TABLE", requires = "table", conflicts_with = "writer_id")]
    lease_writer_id: Option<String>,

    /// Line to start at, to continue a put that ended early. Lines keep the numbers they have in
    /// the file.
    #[arg(long, value_name = "N", default_value_t = 1, hide_default_value = true)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    from_line: u64,

    /// Store nothing and make no calls: say how many events, bytes and write units it would be, and
    /// which lines would be refused. The options of the table and of the store have no effect.
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    options: StoreOptions,
}

pub(crate) async fn run(
    arguments: Arguments,
    command_line: &CommandLine,
    is_verbose: bool,
) -> Result<ExitCode, Box<dyn Error>> {
    let Arguments { file, writer_id, lease_writer_id, from_line: first_line, dry_run, options } =
        arguments;
    let source = Source::new(file);
    if dry_run {
        let output = Output::new(options.quiet);
        return dry_run::run(&source, first_line, options.json, output).await;
    }
    let writer_ids = match (lease_writer_id, writer_id) {
        (Some(table), _) => WriterIds::leased(table).into(),
        (None, Some(writer_id)) => WriterIds::from(writer_id),
        (None, None) => WriterIds::drawn(),
    };
    Run::new(&source, &options, Mode::Put { first_line }, command_line)
        .with_writer_ids(writer_ids)
        .execute(is_verbose)
        .await
}
