//! How far a put has come: a bar on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, stderr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dynamodb_eventstore::EventStore;
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval_at};

use crate::say;

const BAR_INTERVAL: Duration = Duration::from_millis(100);
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Shows progress from its start until [`finish`](Self::finish).
#[derive(Debug)]
pub(crate) struct Progress {
    voice: Voice,
    position: Arc<AtomicU64>,
    start: Instant,
    ticker: JoinHandle<()>,
}

/// Says something without tearing a bar that is being drawn. A clone speaks for the same bar.
#[derive(Debug, Clone)]
pub(crate) struct Voice(Option<ProgressBar>);

impl Voice {
    pub(crate) fn say(&self, text: &str) {
        match &self.0 {
            Some(bar) => bar.suspend(|| say::note(text)),
            None => say::note(text),
        }
    }
}

impl Progress {
    /// Begins to show how far `store` has come with an input of `length` bytes, or of who knows how
    /// many. `quiet` shows nothing: the log is talking.
    pub(crate) fn start(store: &EventStore, length: Option<u64>, quiet: bool) -> Self {
        let bar = (stderr().is_terminal() && !quiet).then(|| draw(length));
        let period = if bar.is_some() { BAR_INTERVAL } else { LINE_INTERVAL };
        let start = now();
        let position = Arc::new(AtomicU64::new(0));
        let voice = Voice(bar.clone());
        let ticker = {
            let (store, voice, position) = (store.clone(), voice.clone(), Arc::clone(&position));
            tokio::spawn(async move {
                let mut ticks = interval_at(start + period, period);
                loop {
                    ticks.tick().await;
                    let said = in_words(&store, now() - start);
                    match &voice.0 {
                        Some(bar) => {
                            bar.set_position(position.load(Ordering::Relaxed));
                            bar.set_message(said);
                        }
                        None if quiet => {}
                        None => say::note(&said),
                    }
                }
            })
        };
        Self { voice, position, start, ticker }
    }

    pub(crate) fn voice(&self) -> Voice {
        self.voice.clone()
    }

    /// Notes that the input was read up to here, in bytes.
    pub(crate) fn advance(&self, position: u64) {
        self.position.store(position, Ordering::Relaxed);
    }

    /// Stops showing, and says how long it took.
    pub(crate) fn finish(self) -> Duration {
        self.ticker.abort();
        if let Some(bar) = &self.voice.0 {
            bar.finish_and_clear();
        }
        now() - self.start
    }
}

/// Events per second, in words.
pub(crate) fn rate(events: u64, elapsed: Duration) -> String {
    let per_second = events as f64 / elapsed.as_secs_f64().max(0.001);
    format!("{} events/s", HumanCount(per_second.round() as u64))
}

fn in_words(store: &EventStore, elapsed: Duration) -> String {
    let stats = store.stats();
    let mut said = format!(
        "{} events stored, {}, {} waiting",
        HumanCount(stats.stored),
        rate(stats.stored, elapsed),
        HumanCount(stats.pending),
    );
    if stats.retried > 0 {
        said.push_str(&format!(", {} retries", HumanCount(stats.retried)));
    }
    if stats.failed > 0 {
        said.push_str(&format!(", {} not stored", HumanCount(stats.failed)));
    }
    said
}

fn draw(length: Option<u64>) -> ProgressBar {
    let (bar, template) = match length {
        Some(length) => (ProgressBar::new(length), "{bar:30} {percent:>3} %  {msg}"),
        None => (ProgressBar::new_spinner(), "{spinner}  {msg}"),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

#[expect(clippy::disallowed_methods, reason = "progress is told by the clock on the wall")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
