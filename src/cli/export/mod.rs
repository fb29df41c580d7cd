//! `export`: writes the events of a table as newline-delimited JSON.

mod from_files;
mod sink;

use std::error::Error;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use dynamodb_eventstore::{EventReader, ScannedItem};
use futures::StreamExt;

use crate::arguments::ReadOptions;
use crate::item_files::data_files;
use crate::output::event_line::{self, Form};
use crate::output::read_progress::ScanProgress;
use crate::output::{Output, count};
use sink::Sink;

/// Items that are not exported and that are printed to standard error. All are counted.
const MAX_PRINTED: u64 = 10;

/// Bytes of one unit of --memory.
const MEBIBYTE: usize = 1024 * 1024;

/// Options that have no meaning for files.
const OPTIONS_OF_A_TABLE: [&str; 11] = [
    "sorted",
    "memory",
    "temp_dir",
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
    /// of `prepare`. It calls no one. It cannot be --sorted: events come in the order of the files,
    /// which in a directory of `prepare` is that of the keys.
    #[arg(long, value_name = "DIR", conflicts_with_all = OPTIONS_OF_A_TABLE)]
    from_export: Option<PathBuf>,

    /// Sort the events by key, and so by time. Those that do not fit into --memory go into
    /// temporary files.
    #[arg(long)]
    sorted: bool,

    /// Write {"key":…,"time":…,"body":…} lines, with the body as a JSON string. `resume` puts such
    /// events again under the same keys.
    #[arg(long)]
    with_keys: bool,

    #[command(flatten)]
    read: ReadOptions,

    /// Memory for --sorted, in MiB; 4 or more.
    #[arg(long, value_name = "MIB", default_value_t = 256, help_heading = "Limits")]
    memory: usize,

    /// Directory for the temporary files of --sorted [default: TMPDIR, or /tmp].
    #[arg(long, value_name = "DIR")]
    temp_dir: Option<PathBuf>,

    /// Print errors only.
    #[arg(long, short, conflicts_with = "verbose")]
    quiet: bool,
}

/// Why an export ended early.
type Failure = Box<dyn Error + Send + Sync>;

/// What was exported.
#[derive(Debug, Default)]
struct Exported {
    events: u64,
    bytes: u64,
    left_out: u64,
    /// Whether the reader of a pipe has left.
    is_cut_off: bool,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let Arguments { output: file, from_export, sorted, with_keys, read, memory, temp_dir, quiet } =
        arguments;
    let output = Output::new(quiet);
    let form = if with_keys { Form::WithKeys } else { Form::Bodies };
    let mut exported = Exported::default();
    if let Some(directory) = from_export {
        read.check_time_range()?;
        let files = data_files(&directory)?;
        let items = count(files.iter().map(|file| file.items).sum(), "item");
        let number = count(files.len() as u64, "file");
        output.note(format_args!("reading {}: {items} in {number}", directory.display()));
        let mut sink = Sink::create(file.as_deref())?;
        let range = read.time_range();
        let result = exported.write_files(&files, range, form, &mut sink, &output).await;
        exported.finish(result, sink)?;
        return Ok(exported.report(&output));
    }
    let target = read.open_target(&output).await?;
    let mut builder = read.reader(&target).sorted(sorted);
    builder = builder.max_memory_bytes(memory.saturating_mul(MEBIBYTE));
    if let Some(directory) = temp_dir {
        builder = builder.temporary_directory(directory);
    }
    let Some(reader) = read.open_reader(builder, &target, &output).await? else {
        return Ok(ExitCode::FAILURE);
    };
    let mut sink = Sink::create(file.as_deref())?;
    let result = exported.write_all(reader, form, &mut sink, &output).await;
    let result = exported.finish(result, sink);
    target.close().await?;
    result?;
    Ok(exported.report(&output))
}

fn were(items: u64) -> String {
    format!("{} {}", count(items, "item"), if items == 1 { "was" } else { "were" })
}

impl Exported {
    /// Completes the file, or says what there is of it.
    fn finish(&self, result: Result<(), Failure>, sink: Sink) -> Result<(), String> {
        match result {
            Ok(()) => sink.finish(self.is_cut_off),
            Err(error) => Err(sink.incomplete(&*error, self.events)),
        }
    }

    /// Prints what was exported, and returns the exit code.
    fn report(&self, output: &Output) -> ExitCode {
        if self.is_cut_off {
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

    async fn write_all(
        &mut self,
        mut reader: EventReader,
        form: Form,
        sink: &mut Sink,
        output: &Output,
    ) -> Result<(), Failure> {
        let progress = ScanProgress::new(&reader.progress(), output);
        let mut ticks = progress.ticks();
        while !self.is_cut_off {
            let item = tokio::select! {
                // The reader may always be ready.
                biased;
                _ = ticks.tick() => {
                    progress.show(&reader.progress(), self.events);
                    continue;
                }
                item = reader.next() => item,
            };
            let Some(item) = item else { break };
            self.write(&item?, form, sink, progress.output())?;
        }
        Ok(())
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
                            self.is_cut_off = true;
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
