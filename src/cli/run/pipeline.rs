//! The files of a run, and its two ends: the producer that puts lines, and the collector of their
//! outcomes.

use std::error::Error;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::arguments::Mode;
use crate::arguments::StoreOptions;
use crate::collector::Outcomes;
use crate::collector::failure_log::FailureLog;
use crate::input::{LineReader, Source, run_in_thread};
use crate::output::Output;
use crate::producer::{FailedEvents, NewEvents, Producer, TrackedInput};

/// Outcomes that wait to be recorded. They are few, because a refused line is kept with its text.
const OUTCOME_CHANNEL_CAPACITY: usize = 16;

/// The open files of a run.
pub(super) struct Files {
    input: Box<dyn Read + Send>,
    /// Length of the input, if known.
    pub(super) input_bytes: Option<u64>,
    failures: FailureLog,
}

impl Files {
    pub(super) async fn open(
        source: &Source,
        options: &StoreOptions,
    ) -> Result<Self, Box<dyn Error>> {
        let (source, failed) = (source.clone(), options.failed.clone());
        // Opening a pipe blocks until its other end is opened.
        let files = run_in_thread(move || {
            let (input, input_bytes) =
                source.open().map_err(|error| format!("cannot read {source}: {error}"))?;
            let failures = FailureLog::create(failed.as_deref())?;
            Ok::<_, String>(Self { input, input_bytes, failures })
        });
        Ok(files.await??)
    }
}

/// The producer and the collector of one run.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) producer: Producer,
    /// Ends when the producer has been dropped and every ticket is settled.
    pub(super) collector: JoinHandle<Outcomes>,
    /// Why every later event would fail, once that is known.
    pub(super) fatal_error: watch::Receiver<Option<String>>,
}

impl Pipeline {
    /// Starts to read the input, and to collect outcomes.
    pub(super) fn start(
        files: Files,
        mode: Mode,
        as_json: bool,
        position: Arc<AtomicU64>,
        output: &Output,
    ) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel(OUTCOME_CHANNEL_CAPACITY);
        let (fatal_error_sender, fatal_error) = watch::channel(None);
        let outcomes = Outcomes::new(files.failures, as_json, output.clone());
        let collector = tokio::spawn(outcomes.collect(receiver, fatal_error_sender));
        let reader = LineReader::start(files.input, mode.first_line())?;
        let input = TrackedInput::new(reader, sender, position);
        let producer = match mode {
            Mode::Put { .. } => Producer::Put(NewEvents::new(input, output.clone())),
            Mode::Resume { .. } => Producer::Resume(FailedEvents::new(input)),
        };
        Ok(Self { producer, collector, fatal_error })
    }
}
