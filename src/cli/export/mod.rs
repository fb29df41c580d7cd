//! `export`: writes the events of a table as newline-delimited JSON.

mod from_files;
mod from_table;
mod saved_position;
mod sink;

use std::error::Error;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use dynamodb_eventstore::{ItemSorter, ScannedItem};
use serde::{Deserialize, Serialize};

use crate::arguments::ReadOptions;
use crate::item_files::data_files;
use crate::output::event_line::{self, Form};
use crate::output::{Output, count};
use saved_position::SavedPosition;
use sink::Sink;

/// How many of the items that are not exported are named on standard error. All are counted.
const MAX_PRINTED: u64 = 10;

/// Bytes of one unit of --memory.
const MEBIBYTE: u64 = 1024 * 1024;

/// Options that do not apply to files.
const OPTIONS_OF_A_TABLE: [&str; 9] = [
    "position",
    "table",
    "local",
    "region",
    "profile",
    "endpoint_url",
    "consistent",
    "read_units",
    "segments",
];

/// Write the events of a table as newline-delimited JSON, one body a line
///
/// Bodies are byte for byte as they are stored, and `put` stores such a file again. The order is
/// arbitrary, unless --sorted is given. An item that is not an event is named on standard error,
/// and so is an event whose body has a line break between its tokens, unless --with-keys is given.
/// The exit code is 0 only if every item was exported.
///
/// The whole table is read, whatever --from and --to say, and the command says first what that
/// costs. For a whole large table the AWS operation ExportTableToPointInTime is cheaper: it takes
/// no read units, and --from-export reads its files.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// File to write to, which must not exist. It is readable by its user only, and has `.partial`
    /// at the end of its name until it is complete [default: standard output].
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Read a directory instead of a table: a full export in DynamoDB JSON that
    /// ExportTableToPointInTime has written to S3 (a copy of AWSDynamoDB/EXPORT-ID), or a directory
    /// of `prepare`. It makes no calls. Events come in the order of the files, unless they are
    /// --sorted. In a directory of `prepare` that is the order of the keys.
    #[arg(long, value_name = "DIR", conflicts_with_all = OPTIONS_OF_A_TABLE)]
    from_export: Option<PathBuf>,

    /// Sort the events by key, and so by time. Those that do not fit into --memory go into
    /// temporary files.
    #[arg(long)]
    sorted: bool,

    /// Save in this FILE how far the export has come, so that the same command goes on there after
    /// it was stopped or killed. With --output each event is in the file once. Standard output can
    /// have some events twice, those of the last second or so, and none is left out unless a reader
    /// of the pipe loses it. The file is removed when the export is complete. It cannot be --sorted,
    /// because nothing is written before everything is read then.
    #[arg(long, value_name = "FILE", conflicts_with = "sorted")]
    position: Option<PathBuf>,

    /// Write {"key":…,"time":…,"body":…} lines, with the body as a JSON string. `resume` puts such
    /// events again under the same keys.
    #[arg(long)]
    with_keys: bool,

    #[command(flatten)]
    read: ReadOptions,

    /// Memory for --sorted, in MiB, 4 to 1048576.
    #[arg(long, value_name = "MIB", default_value_t = 256, help_heading = "Limits")]
    #[arg(value_parser = clap::value_parser!(u64).range(4..=1_048_576))]
    memory: u64,

    /// Directory for the temporary files of --sorted [default: TMPDIR, or /tmp].
    #[arg(long, value_name = "DIR")]
    temp_dir: Option<PathBuf>,

    /// Print errors only.
    #[arg(long, short, conflicts_with = "verbose")]
    quiet: bool,
}

/// Why an export failed.
type Failure = Box<dyn Error + Send + Sync>;

/// What was exported, earlier runs of the same command included.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Exported {
    events: u64,
    bytes: u64,
    left_out: u64,
    /// Whether the reader of the pipe has closed it.
    #[serde(skip)]
    is_pipe_closed: bool,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let Arguments {
        output: file,
        from_export,
        sorted,
        position: saved_in,
        with_keys,
        read,
        memory,
        temp_dir,
        quiet,
    } = arguments;
    let output = Output::new(quiet);
    let form = if with_keys { Form::WithKeys } else { Form::Bodies };
    let memory = usize::try_from(memory.saturating_mul(MEBIBYTE)).unwrap_or(usize::MAX);
    let mut exported = Exported::default();
    if let Some(directory) = from_export {
        read.check_time_range()?;
        let files = data_files(&directory)?;
        let items = count(files.iter().map(|file| file.items).sum(), "item");
        let number = count(files.len() as u64, "file");
        output.note(format_args!("reading {}: {items} in {number}", directory.display()));
        let directory = temp_dir.unwrap_or_else(std::env::temp_dir);
        let sorter = sorted.then(|| ItemSorter::new(memory, directory)).transpose()?;
        let mut sink = Sink::create(file.as_deref())?;
        let range = read.time_range();
        match exported.write_files(&files, range, sorter, form, &mut sink, &output).await {
            Ok(()) => sink.finish(exported.is_pipe_closed)?,
            Err(error) => return Err(sink.incomplete(&*error, exported.events).into()),
        }
        return Ok(exported.report(&output));
    }
    let target = read.open_target(&output).await?;
    let mut position = None;
    if let Some(path) = saved_in {
        let saved = SavedPosition::open(path, &target, &read, form, file.as_deref())?;
        exported = saved.exported();
        if saved.is_complete() {
            saved.remove()?;
            return Ok(exported.report(&output));
        }
        position = Some(saved);
    }
    let mut builder = read.reader(&target).sorted(sorted);
    builder = builder.max_memory_bytes(memory);
    if let Some(directory) = temp_dir {
        builder = builder.temporary_directory(directory);
    }
    if let Some(read) = position.as_ref().and_then(SavedPosition::read_position) {
        builder = builder.resume_from(read.clone());
    }
    let Some(reader) = read.open_reader(builder, &target, &output).await? else {
        return Ok(ExitCode::FAILURE);
    };
    let ended = match position {
        Some(position) => exported.resume(reader, form, position, &output).await,
        None => {
            let mut sink = Sink::create(file.as_deref())?;
            match exported.write_table(reader, form, &mut sink, &output).await {
                Ok(()) => sink.finish(exported.is_pipe_closed).map(|()| None),
                Err(error) => Err(sink.incomplete(&*error, exported.events)),
            }
        }
    };
    target.close().await?;
    Ok(match ended? {
        Some(signal) => ExitCode::from(signal.exit_code()),
        None => exported.report(&output),
    })
}

fn were(items: u64) -> String {
    format!("{} {}", count(items, "item"), if items == 1 { "was" } else { "were" })
}

impl Exported {
    /// Prints what was exported, and returns the exit code.
    fn report(&self, output: &Output) -> ExitCode {
        if self.is_pipe_closed {
            return ExitCode::SUCCESS;
        }
        output.note(format_args!(
            "exported {}, {}",
            count(self.events, "event"),
            count(self.bytes, "byte")
        ));
        if self.left_out > 0 {
            output.error(format_args!("{} not exported", were(self.left_out)));
            return ExitCode::FAILURE;
        }
        ExitCode::SUCCESS
    }

    fn write(
        &mut self,
        item: &ScannedItem,
        form: Form,
        sink: &mut Sink,
        output: &Output,
    ) -> Result<(), Failure> {
        let reason = match item {
            ScannedItem::Event(event) => match event_line::render(event, form)? {
                Ok(line) => {
                    match sink.write_all(line.as_bytes()).and_then(|()| sink.write_all(b"\n")) {
                        Ok(()) => {}
                        Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                            self.is_pipe_closed = true;
                            return Ok(());
                        }
                        Err(error) => return Err(error.into()),
                    }
                    self.events += 1;
                    self.bytes += line.len() as u64 + 1;
                    return Ok(());
                }
                Err(reason) => reason.to_owned(),
            },
            ScannedItem::Unexpected(item) => item.defect.to_string(),
        };
        self.left_out += 1;
        match self.left_out {
            ..=MAX_PRINTED => {
                output.error(format_args!("key {}: not exported, because {reason}", item.key()));
            }
            number if number == MAX_PRINTED + 1 => output.error("… and more"),
            _ => {}
        }
        Ok(())
    }
}
