//! `resume`: puts events again that were given up, under the keys they had.

use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dynamodb_eventstore::{
    BatchError, BatchWriter, Certainty, Event, EventKey, FailureClass, ParseKeyError,
    SdkBatchWriter,
};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::time::{sleep_until, timeout};

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

/// How long one read may take.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// How long reads of the same keys may fail before resume stops: as long as a put would be retried.
const PATIENCE: Duration = Duration::from_secs(60);

const SHORTEST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Events on their way of which a read may not know yet: many times what a store may buffer.
const REMEMBERED: usize = 100_000;

/// What a given-up line says of its event.
#[derive(Deserialize)]
struct GivenUp {
    key: Option<String>,
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
    /// The last events put: a read does not see those on their way.
    put: Mutex<Remembered>,
}

/// Hashes of bodies, by their keys.
#[derive(Debug, Default)]
struct Remembered {
    hashes: HashMap<EventKey, u64>,
    order: VecDeque<EventKey>,
}

impl Remembered {
    /// Whether the key is new here, or has the same body as before.
    fn is_same(&mut self, key: EventKey, hash: u64) -> bool {
        if let Some(before) = self.hashes.insert(key, hash) {
            self.hashes.insert(key, before);
            return before == hash;
        }
        self.order.push_back(key);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.hashes.remove(&oldest);
        }
        true
    }
}

impl Again {
    pub(crate) fn new(reader: Option<SdkBatchWriter>) -> Self {
        Self { reader, put: Mutex::default() }
    }

    /// What is to become of these steps, no more than one read takes, now that their keys are read. An
    /// error means that they cannot be.
    pub(crate) async fn check(&self, mut steps: Vec<Step>) -> Result<Vec<Step>, String> {
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
        let stored = read(reader, &keys).await.map_err(|error| {
            let advice = match error.code() {
                Some("AccessDeniedException") => {
                    "; grant dynamodb:BatchGetItem, or put without looking: --unchecked"
                }
                _ => "; the lines after the last one named below were not put",
            };
            format!("cannot read which events are stored already: {error}{advice}")
        })?;
        let mut put = self.put.lock().unwrap_or_else(PoisonError::into_inner);
        for step in &mut steps {
            let Step::Put(line, event) = step else { continue };
            let body = event.body();
            let hash = hash(&body);
            let is_other = match stored.get(event.key()) {
                Some(stored) if stored.as_deref() == Some(&*body) => {
                    *step = Step::AlreadyThere(std::mem::take(line));
                    continue;
                }
                Some(_) => true,
                None => !put.is_same(*event.key(), hash),
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
        "another event is stored under the key {}, or on its way there; to store this one as well, \
         give it a new key: put its body",
        event.key()
    );
    let content = Content::Body(event.body().into_owned());
    let key = Some(event.key().to_string());
    let failure = Failure::refused(line.number, key, Certainty::MaybeStored, reason, content);
    Step::Refuse(line, failure)
}

/// What is stored under these keys. What a read leaves out is asked for again, for as long as there is
/// progress.
async fn read(
    reader: &SdkBatchWriter,
    keys: &[EventKey],
) -> Result<HashMap<EventKey, Option<String>>, BatchError> {
    let (mut found, mut left) = (HashMap::new(), keys.to_vec());
    let (mut progress, mut wait) = (now(), SHORTEST_WAIT);
    while !left.is_empty() {
        let failure = match timeout(READ_TIMEOUT, reader.read_batch(&left)).await {
            Ok(Ok(reading)) => {
                let before = left.len();
                left.retain(|key| {
                    if let Some(body) = reading.body(key) {
                        found.insert(*key, body.map(str::to_owned));
                    }
                    reading.is_unread(key)
                });
                if left.len() < before {
                    (progress, wait) = (now(), SHORTEST_WAIT);
                }
                failed(FailureClass::Unprocessed, "the table is short of read capacity")
            }
            Ok(Err(error)) => error,
            Err(_) => failed(FailureClass::Transient, "no answer came in time"),
        };
        if left.is_empty() {
            break;
        }
        let is_refused = failure.class() == FailureClass::Refused;
        if is_refused || !failure.class().is_retryable() || now() + wait >= progress + PATIENCE {
            return Err(failure);
        }
        sleep_until(now() + wait).await;
        wait = LONGEST_WAIT.min(wait * 2);
    }
    Ok(found)
}

fn failed(class: FailureClass, message: &str) -> BatchError {
    BatchError::new(class, Certainty::NotStored, message)
}

/// What a line says is to be put. Its text is let go.
pub(crate) fn step_of(mut line: Line) -> Step {
    let refused = |line: &Line, key: Option<String>, certainty, reason: String| {
        Failure::refused(line.number, key, certainty, reason, Content::of(line))
    };
    let unknown = Certainty::MaybeStored;
    let failure = match serde_json::from_slice(&line.text) {
        _ if !line.is_whole() => {
            refused(&line, None, unknown, "the line is far too long for an event".to_owned())
        }
        Ok(GivenUp { key: None, .. }) => {
            let reason = "it has no key, as it was never accepted: mend it, and `put` it";
            refused(&line, None, Certainty::NotStored, reason.to_owned())
        }
        Ok(GivenUp { key: Some(key), body: None }) => {
            refused(&line, Some(key), unknown, "it has no body".to_owned())
        }
        Ok(GivenUp { key: Some(key), body: Some(body) }) => match event(&key, body) {
            Ok(event) => {
                line.text = Vec::new();
                return Step::Put(line, event);
            }
            Err(reason) => refused(&line, Some(key), unknown, reason),
        },
        // Without serde's own words, which repeat what they found.
        Err(error) => {
            let place = error.column();
            let reason = format!("not a line of an event that was given up (column {place})");
            refused(&line, None, unknown, reason)
        }
    };
    line.text = Vec::new();
    Step::Refuse(line, failure)
}

fn event(key: &str, body: String) -> Result<Event, String> {
    let key: EventKey = key.parse().map_err(|error: ParseKeyError| error.to_string())?;
    serde_json::from_str::<IgnoredAny>(&body).map_err(|_| "its body is not JSON".to_owned())?;
    Event::new(key, body).map_err(|error| error.to_string())
}
