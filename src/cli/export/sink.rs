//! [`Sink`]: where an export writes, which is standard output or a new file.

use std::error::Error;
use std::io::{self, BufWriter, Stdout, Write, stdout};
use std::path::Path;

use crate::output::checkpoint::Checkpoint;
use crate::output::new_file::NewFile;
use crate::output::with_causes;

/// The output of an export.
#[derive(Debug)]
pub(super) enum Sink {
    Stdout(BufWriter<Stdout>),
    File(NewFile),
}

impl Sink {
    pub(super) fn create(path: Option<&Path>) -> Result<Self, String> {
        match path {
            Some(path) => NewFile::create(path).map(Self::File),
            None => Ok(Self::stdout()),
        }
    }

    /// Opens the output to append to what another process has written.
    pub(super) fn open_after(
        path: Option<&Path>,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<Self, String> {
        match path {
            Some(path) => NewFile::open_after(path, checkpoint).map(Self::File),
            None => Ok(Self::stdout()),
        }
    }

    fn stdout() -> Self {
        Self::Stdout(BufWriter::with_capacity(64 * 1024, stdout()))
    }

    /// Waits until the `bytes` that were written are on disk, or flushed to standard output.
    pub(super) fn checkpoint(&mut self, bytes: u64) -> io::Result<Option<Checkpoint>> {
        match self {
            Self::Stdout(writer) => writer.flush().map(|()| None),
            Self::File(file) => file.checkpoint(bytes).map(Some),
        }
    }

    /// Completes the output after everything was written, or after the reader has closed the pipe.
    pub(super) fn finish(self, is_pipe_closed: bool) -> Result<(), String> {
        match self {
            Self::File(file) => file.finish(),
            Self::Stdout(writer) if is_pipe_closed => {
                // A `BufWriter` writes the rest when it is dropped.
                drop(writer.into_parts());
                Ok(())
            }
            Self::Stdout(mut writer) => match writer.flush() {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    drop(writer.into_parts());
                    Ok(())
                }
                flushed => {
                    flushed.map_err(|error| format!("cannot write to standard output: {error}"))
                }
            },
        }
    }

    /// The message of an export that failed with this error: it says what was written before.
    pub(super) fn incomplete(mut self, error: &(dyn Error + 'static), events: u64) -> String {
        let error = with_causes(error);
        let flushed = self.flush();
        match self {
            Self::File(file) if flushed.is_ok() => {
                let partial = file.partial().display();
                format!("{error}\n  {partial} has the {events} events that were read before")
            }
            _ => error,
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(writer) => writer.write(bytes),
            Self::File(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(writer) => writer.flush(),
            Self::File(file) => file.flush(),
        }
    }
}
