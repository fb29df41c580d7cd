//! `resume`: puts events again that were given up, under the keys they had.

use std::collections::HashMap;
use std::error::Error;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dynamodb_eventstore::{
    BatchError, BatchReading, BatchWriter, Certainty, Event, EventKey, FailureClass, SdkBatchWriter,
};
use serde::Deserialize;
use tokio::time::sleep_until;

use crate::failures::{Content, Failure};
use crate::input::{Line, Source};
use crate::progress::now;
use crate::storing::{self, Options, Way};

/// Put events again that were not stored, under the same keys
///
/// Takes the file that `put --failed` has written, or the lines of a program's close report. An event
/// cannot be stored twice this way, however often its file is resumed: it keeps its key. Each key is
/// read first. An event that is there already is left alone, and one whose key has come to hold
/// another event is not put. The exit code is 0 only if every event of the file is stored.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// File of events that were given up, one JSON object a line; `-` for standard input.
    file: PathBuf,

    /// Put without reading the keys first; for roles without dynamodb:BatchGetItem. Whatever is
    /// under the keys is overwritten.
    #[arg(long)]
    unchecked: bool,

    #[command(flatten)]
    options: Options,
}

pub(crate) async fn run(arguments: Arguments, verbose: bool) -> Result<ExitCode, Box<dyn Error>> {
    let Arguments { file, unchecked, options } = arguments;
    // No default: what was meant for one table is not to end in another.
    if !options.has_target() {
        return Err("name the table that the events were meant for: --table or --local".into());
    }
    let way = Way::Again { check: !unchecked };
    storing::run(Source::new(Some(file)), options, way, verbose).await
}

/// Reads of the same keys before resume stops.
const READS: u32 = 8;

/// What a given-up line says beside the event.
#[derive(Deserialize)]
struct GivenUp {
    key: Option<EventKey>,
    body: Option<String>,
}

/// What is to become of one line.
pub(crate) enum Step {
    Put(Line, Event),
    AlreadyThere(Line),
    Refuse(Line, Failure),
}

/// Decides what to put again.
#[derive(Debug)]
pub(crate) struct Again {
    /// `None` to put without looking.
    reader: Option<SdkBatchWriter>,
    /// The events put so far, by a hash of their bodies: a read does not see those on their way.
    put: Mutex<HashMap<EventKey, u64>>,
}

impl Again {
    pub(crate) fn new(reader: Option<SdkBatchWriter>) -> Self {
        Self { reader, put: Mutex::default() }
    }

    /// What is to become of these lines, no more than one read takes. An error means that the keys
    /// cannot be read.
    pub(crate) async fn sort(&self, lines: Vec<Line>) -> Result<Vec<Step>, String> {
        let mut steps: Vec<Step> = lines.into_iter().map(event_of).collect();
        let Some(reader) = &self.reader else { return Ok(steps) };
        let mut keys: Vec<EventKey> = steps
            .iter()
            .filter_map(|step| match step {
                Step::Put(_, event) => Some(*event.key()),
                Step::AlreadyThere(_) | Step::Refuse(..) => None,
            })
            .collect();
        keys.sort_unstable();
        keys.dedup();
        if keys.is_empty() {
            return Ok(steps);
        }
        let reading = read(reader, &keys).await.map_err(|error| {
            format!(
                "cannot read which events are stored already: {error}; grant dynamodb:BatchGetItem, \
                 or put without looking: --unchecked"
            )
        })?;
        let mut put = self.put.lock().unwrap_or_else(PoisonError::into_inner);
        for step in &mut steps {
            let Step::Put(line, event) = step else { continue };
            let hash = hash(event.body());
            let is_other = match reading.body(event.key()) {
                Some(stored) if stored == Some(event.body()) => {
                    *step = Step::AlreadyThere(std::mem::take(line));
                    continue;
                }
                Some(_) => true,
                None => *put.entry(*event.key()).or_insert(hash) != hash,
            };
            if is_other {
                *step = refuse_other(std::mem::take(line), event);
            }
        }
        Ok(steps)
    }
}

fn hash(body: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    hasher.finish()
}

fn refuse_other(line: Line, event: &Event) -> Step {
    let reason = format!(
        "another event is stored under the key {}; to store this one as well, give it a new key: put \
         its body",
        event.key()
    );
    let content = Content::Body(event.body().to_owned());
    let failure = Failure::refused(line.number, Some(event.key().to_string()), reason, content);
    Step::Refuse(line, failure)
}

async fn read(reader: &SdkBatchWriter, keys: &[EventKey]) -> Result<BatchReading, BatchError> {
    let mut wait = Duration::from_millis(50);
    let mut reads = 1;
    loop {
        let last = reads == READS;
        match reader.read_batch(keys).await {
            Ok(reading) if !keys.iter().any(|key| reading.is_unread(key)) => return Ok(reading),
            Err(error) if last || !error.class().is_retryable() => return Err(error),
            Ok(_) if last => {
                let class = FailureClass::Unprocessed;
                let message = "the table is short of read capacity";
                return Err(BatchError::new(class, Certainty::NotStored, message));
            }
            Ok(_) | Err(_) => {}
        }
        sleep_until(now() + wait).await;
        wait *= 2;
        reads += 1;
    }
}

fn event_of(line: Line) -> Step {
    let reason = match serde_json::from_slice(&line.text) {
        _ if !line.is_whole() => "the line is far too long for an event".to_owned(),
        Ok(GivenUp { key: Some(key), body: Some(body) }) => match Event::new(key, body) {
            Ok(event) => return Step::Put(line, event),
            Err(error) => error.to_string(),
        },
        Ok(GivenUp { key: None, .. }) => {
            "it has no key, as it was never accepted: mend it, and `put` it".to_owned()
        }
        Ok(GivenUp { body: None, .. }) => "it has no body".to_owned(),
        // Without serde's own words, which repeat what they found.
        Err(error) => {
            format!("not a line of an event that was given up (column {})", error.column())
        }
    };
    let content = Content::of(&line);
    let failure = Failure::refused(line.number, None, reason, content);
    Step::Refuse(line, failure)
}
