//! [`Lines`]: the lines that a tail prints, and the count of what it does not print.

use std::io::{self, BufWriter, ErrorKind, Stdout, Write, stdout};

use dynamodb_eventstore::{ScannedItem, TailRecord};

use super::were;
use crate::output::event_line::{Form, render};
use crate::output::{Output, count};

/// How many of the items that are not printed are named on standard error. All are counted.
const MAX_NAMED: u64 = 10;

#[derive(Debug)]
pub(super) struct Lines {
    form: Form,
    output: Output,
    /// `None` after the reader of the pipe has closed it.
    writer: Option<BufWriter<Stdout>>,
    has_unflushed: bool,
    max: Option<u64>,
    events: u64,
    left_out: u64,
    deleted: u64,
    losses: u64,
}

impl Lines {
    pub(super) fn new(form: Form, max: Option<u64>, output: &Output) -> Self {
        Self {
            form,
            output: output.clone(),
            writer: Some(BufWriter::with_capacity(64 * 1024, stdout())),
            has_unflushed: false,
            max,
            events: 0,
            left_out: 0,
            deleted: 0,
            losses: 0,
        }
    }

    /// Prints the event of a record, or names on standard error what the record has instead.
    pub(super) fn print(&mut self, record: &TailRecord) -> Result<(), String> {
        let item = match record {
            TailRecord::Inserted(item) | TailRecord::Replaced(item) => item,
            TailRecord::Removed(_) => {
                self.deleted += 1;
                return Ok(());
            }
            TailRecord::Lost(loss) => {
                self.losses += 1;
                self.output.error(loss);
                return Ok(());
            }
            _ => return Err("a record of a kind that this tool does not know".to_owned()),
        };
        let reason = match item {
            ScannedItem::Event(event) => match render(event, self.form) {
                Ok(Ok(line)) => {
                    self.events += 1;
                    return self.write(|writer| {
                        writer.write_all(line.as_bytes()).and_then(|()| writer.write_all(b"\n"))
                    });
                }
                Ok(Err(reason)) => reason.to_owned(),
                Err(error) => error.to_string(),
            },
            ScannedItem::Unexpected(item) => item.defect.to_string(),
        };
        self.left_out += 1;
        match self.left_out {
            ..=MAX_NAMED => {
                self.output
                    .error(format_args!("key {}: not printed, because {reason}", item.key()));
            }
            number if number == MAX_NAMED + 1 => self.output.error("… and more"),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn has_unflushed(&self) -> bool {
        self.has_unflushed
    }

    /// Flushes the lines to standard output.
    pub(super) fn flush(&mut self) -> Result<(), String> {
        self.write(Write::flush)?;
        self.has_unflushed = false;
        Ok(())
    }

    /// Whether as many events as `--max` says are printed.
    pub(super) fn is_max_reached(&self) -> bool {
        self.max.is_some_and(|max| self.events >= max)
    }

    /// Whether the reader of the pipe has closed it.
    pub(super) fn is_pipe_closed(&self) -> bool {
        self.writer.is_none()
    }

    fn write(
        &mut self,
        write: impl FnOnce(&mut BufWriter<Stdout>) -> io::Result<()>,
    ) -> Result<(), String> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        self.has_unflushed = true;
        match write(writer) {
            Ok(()) => Ok(()),
            Err(error) => {
                // A `BufWriter` writes the rest when it is dropped.
                drop(self.writer.take().map(BufWriter::into_parts));
                self.has_unflushed = false;
                match error.kind() {
                    ErrorKind::BrokenPipe => Ok(()),
                    _ => Err(format!("cannot write to standard output: {error}")),
                }
            }
        }
    }

    /// Reports what was printed and what was not. Returns whether every event was printed.
    pub(super) fn report(&self) -> bool {
        if self.is_pipe_closed() {
            return true;
        }
        let mut printed = format!("printed {}", count(self.events, "event"));
        if self.deleted > 0 {
            printed.push_str(&format!("; {} deleted", were(self.deleted)));
        }
        self.output.note(printed);
        if self.left_out > 0 {
            self.output.error(format_args!("{} not printed", were(self.left_out)));
        }
        self.left_out == 0 && self.losses == 0
    }
}
