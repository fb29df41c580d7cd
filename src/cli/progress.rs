//! How far a put has come: a bar on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, stderr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dynamodb_eventstore::{EventStore, Stats};
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval_at};

use crate::options::Options;
use crate::output::{Output, count};

const BAR_INTERVAL: Duration = Duration::from_millis(100);
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Shows progress from its start until [`finish`](Self::finish).
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    output: Output,
    start: Instant,
    ticker: Option<JoinHandle<()>>,
}

impl Progress {
    /// Begins to show how far `store` has come with an input of `length` bytes, or of who knows how
    /// many, of which it is at `position`, unless the log or the result of each line is being
    /// shown.
    pub(crate) fn start(
        store: &EventStore,
        length: Option<u64>,
        position: &Arc<AtomicU64>,
        output: &Output,
        options: &Options,
        is_verbose: bool,
    ) -> Self {
        let start = now();
        let budget = options.write_units;
        if is_verbose || options.json || options.quiet {
            return Self { bar: None, output: output.clone(), start, ticker: None };
        }
        let bar = stderr().is_terminal().then(|| draw(length));
        let output = output.clone().with_bar(bar.clone());
        let period = if bar.is_some() { BAR_INTERVAL } else { LINE_INTERVAL };
        let (store, shown, position) = (store.clone(), output.clone(), Arc::clone(position));
        let drawn = bar.clone();
        let ticker = tokio::spawn(async move {
            let mut ticks = interval_at(start + period, period);
            loop {
                ticks.tick().await;
                let said = in_words(&store.stats(), now() - start, budget);
                match &drawn {
                    Some(bar) => {
                        bar.set_position(position.load(Ordering::Relaxed));
                        bar.set_message(said);
                    }
                    None => shown.note(said),
                }
            }
        });
        Self { bar, output, start, ticker: Some(ticker) }
    }

    /// What prints around the bar.
    pub(crate) fn output(&self) -> Output {
        self.output.clone()
    }

    /// Stops showing, and says how long it took.
    pub(crate) fn finish(self) -> Duration {
        if let Some(ticker) = &self.ticker {
            ticker.abort();
        }
        if let Some(bar) = &self.bar {
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

/// `budget` is what --write-units says.
fn in_words(stats: &Stats, elapsed: Duration, budget: Option<u32>) -> String {
    let mut said = format!(
        "{} stored, {}, {} waiting",
        count(stats.stored, "event"),
        rate(stats.stored, elapsed),
        HumanCount(stats.pending),
    );
    if stats.retried > 0 {
        said.push_str(&format!(", {} retries", HumanCount(stats.retried)));
    }
    if stats.failed > 0 {
        said.push_str(&format!(", {} not stored", HumanCount(stats.failed)));
    }
    if let Some(units) = stats.write_units_per_second
        && stats.pending > 0
    {
        let units = units.round();
        let limit = match budget {
            Some(budget) if units >= f64::from(budget) => "--write-units allows",
            _ => "the table takes",
        };
        said.push_str(&format!(", {limit} {}/s", count(units as u64, "write unit")));
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
