//! `export` of a table, from its beginning or from a saved position.

use std::io::{self, ErrorKind};

use dynamodb_eventstore::EventReader;
use futures::StreamExt;

use super::saved_position::SavedPosition;
use super::sink::Sink;
use super::{Exported, Failure};
use crate::output::event_line::Form;
use crate::output::read_progress::ScanProgress;
use crate::output::{Output, count, with_causes};
use crate::stop::request::StopRequest;
use crate::stop::signals::Signal;

impl Exported {
    /// Writes the events of the reader.
    pub(super) async fn write_table(
        &mut self,
        mut reader: EventReader,
        form: Form,
        sink: &mut Sink,
        output: &Output,
    ) -> Result<(), Failure> {
        let progress = ScanProgress::new(&reader.progress(), output);
        self.write_items(&mut reader, form, sink, None, &progress).await
    }

    /// Writes the events after the saved position, and completes the output. Returns the signal if one has stopped it
    /// before the output was complete.
    pub(super) async fn resume(
        &mut self,
        mut reader: EventReader,
        form: Form,
        mut position: SavedPosition,
        output: &Output,
    ) -> Result<Option<Signal>, String> {
        let mut stop = StopRequest::listen().map_err(|error| error.to_string())?;
        if position.read_position().is_some() {
            let (events, path) = (count(self.events, "event"), position.path().display());
            output.note(format_args!("going on after {events} ({path})"));
        }
        let mut sink = position.open_sink()?;
        let progress = ScanProgress::new(&reader.progress(), output);
        let written = async {
            // So that a process that is killed before the first page also leaves a position.
            position.save(&reader, self, &mut sink)?;
            let signal = tokio::select! {
                biased;
                signal = stop.received() => Some(signal),
                written = self.write_items(&mut reader, form, &mut sink, Some(&mut position), &progress) => {
                    written.map(|()| None)?
                }
            };
            // After a signal the rest of the page is still written. Otherwise it would be read, and paid for, again.
            while !self.is_pipe_closed && reader.exact_position().is_none() {
                let Some(item) = reader.next().await else { break };
                self.write(&item?, form, &mut sink, progress.output())?;
            }
            Ok(signal)
        };
        let written: Result<Option<Signal>, Failure> = written.await;
        if self.is_pipe_closed {
            return sink.finish(true).map(|()| None);
        }
        // Also after an error. If a write has failed, this fails as well, and the position that was saved before stays
        // valid.
        let saved = position.save(&reader, self, &mut sink);
        let saved = written.and_then(|signal| saved.map(|()| signal));
        drop(progress);
        match saved {
            Ok(None) => {
                sink.finish(false)?;
                position.remove()?;
                Ok(None)
            }
            Ok(Some(signal)) => {
                let (name, events) = (signal.name, count(self.events, "event"));
                output.error(format_args!(
                    "stopped by {name} after {events}; the same command goes on there"
                ));
                Ok(Some(signal))
            }
            // Nothing was saved, so the export cannot resume.
            Err(error) if position.read_position().is_none() => Err(with_causes(&*error)),
            Err(error) => Err(format!(
                "{}\n  {} were exported before; the same command goes on there",
                with_causes(&*error),
                count(position.exported().events, "event"),
            )),
        }
    }

    async fn write_items(
        &mut self,
        reader: &mut EventReader,
        form: Form,
        sink: &mut Sink,
        mut position: Option<&mut SavedPosition>,
        progress: &ScanProgress,
    ) -> Result<(), Failure> {
        let mut ticks = progress.ticks();
        while !self.is_pipe_closed {
            let item = tokio::select! {
                // The reader may always be ready.
                biased;
                _ = ticks.tick() => {
                    progress.show(&reader.progress(), self.events);
                    None
                }
                item = reader.next() => match item {
                    Some(item) => Some(item?),
                    None => return Ok(()),
                },
            };
            if let Some(item) = item {
                self.write(&item, form, sink, progress.output())?;
            }
            // Also at a tick: a page without an event in the range of times returns no item.
            if let Some(position) = &mut position
                && !self.is_pipe_closed
            {
                match position.save_if_due(reader, self, sink) {
                    Err(error) if is_broken_pipe(&*error) => self.is_pipe_closed = true,
                    saved => saved?,
                }
            }
        }
        Ok(())
    }
}

fn is_broken_pipe(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    let cause = error.downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.kind() == ErrorKind::BrokenPipe)
}
