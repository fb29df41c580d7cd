//! What there has to be before the first line is put.

use std::error::Error;
use std::io::Read;

use dynamodb_eventstore::EventStore;

use crate::failures::FailureLog;
use crate::input::{Source, in_a_thread};
use crate::options::Options;
use crate::output::Output;
use crate::storing::Lines;
use crate::target::Target;

/// What is read, and what is written.
pub(crate) struct Files {
    pub(crate) input: Box<dyn Read + Send>,
    pub(crate) length: Option<u64>,
    pub(crate) failures: FailureLog,
}

impl Files {
    pub(crate) async fn open(source: &Source, options: &Options) -> Result<Self, Box<dyn Error>> {
        let (source, failed) = (source.clone(), options.failed.clone());
        // In a thread, as to open a pipe can take until somebody opens its other end.
        let files = in_a_thread(move || {
            let (input, length) = source
                .open()
                .map_err(|error| format!("cannot read {}: {error}", source.in_words()))?;
            let failures = FailureLog::create(failed.as_deref())?;
            Ok::<_, String>(Self { input, length, failures })
        });
        Ok(files.await??)
    }
}

/// The table, and a store that writes to it.
pub(crate) async fn start(
    options: &Options,
    lines: &Lines,
    output: &Output,
) -> Result<(Target, EventStore), Box<dyn Error>> {
    let target = options.open_target(output).await?;
    let writer_id = match lines {
        Lines::New { writer_id, .. } => *writer_id,
        Lines::GivenUp { .. } => None,
    };
    let store = options.start(&target, writer_id).await?;
    Ok((target, store))
}
