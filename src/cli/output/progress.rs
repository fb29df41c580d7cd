//! The progress of a run: a bar on a terminal, elsewhere a line every few seconds.

use std::io::{IsTerminal, stderr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dynamodb_eventstore::{EventStore, Stats};
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval_at};

use super::{Output, count, count_retries, rate};
use crate::time::now;

const BAR_INTERVAL: Duration = Duration::from_millis(100);
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Shows progress until [`finish`](Self::finish).
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    output: Output,
    start: Instant,
    ticker: Option<JoinHandle<()>>,
}

/// What progress is measured with.
pub(crate) struct Measure {
    /// Bytes of the input, if known.
    pub(crate) input_bytes: Option<u64>,
    /// Bytes of the input that have been put.
    pub(crate) position: Arc<AtomicU64>,
    /// The value of `--write-units`.
    pub(crate) max_write_units: Option<u32>,
}

impl Progress {
    /// Measures the time only.
    pub(crate) fn hidden(output: &Output) -> Self {
        Self { bar: None, output: output.clone(), start: now(), ticker: None }
    }

    /// Shows the progress of `store`.
    pub(crate) fn shown(store: &EventStore, measure: Measure, output: &Output) -> Self {
        let start = now();
        let Measure { input_bytes, position, max_write_units } = measure;
        let bar = stderr().is_terminal().then(|| draw(input_bytes));
        let output = output.clone().with_bar(bar.clone());
        let period = if bar.is_some() { BAR_INTERVAL } else { LINE_INTERVAL };
        let (store, ticker_output, ticker_bar) = (store.clone(), output.clone(), bar.clone());
        let ticker = tokio::spawn(async move {
            let mut ticks = interval_at(start + period, period);
            loop {
                ticks.tick().await;
                let text = describe(&store.stats(), now() - start, max_write_units);
                match &ticker_bar {
                    Some(bar) => {
                        bar.set_position(position.load(Ordering::Relaxed));
                        bar.set_message(text);
                    }
                    None => ticker_output.note(text),
                }
            }
        });
        Self { bar, output, start, ticker: Some(ticker) }
    }

    /// The output that prints above the bar.
    pub(crate) fn output(&self) -> Output {
        self.output.clone()
    }

    /// Removes the bar, and returns the time since the start.
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

fn describe(stats: &Stats, elapsed: Duration, max_write_units: Option<u32>) -> String {
    let mut text = format!(
        "{} stored, {}, {} waiting",
        count(stats.stored, "event"),
        rate(stats.stored, elapsed.as_secs_f64()),
        HumanCount(stats.pending),
    );
    if stats.retried > 0 {
        text.push_str(&format!(", {}", count_retries(stats.retried)));
    }
    if stats.failed > 0 {
        text.push_str(&format!(", {} failed", HumanCount(stats.failed)));
    }
    if let Some(units) = stats.write_units_per_second
        && stats.pending > 0
    {
        let units = units.round();
        let limit = match max_write_units {
            Some(max) if units >= f64::from(max) => "--write-units allows",
            _ => "the table takes",
        };
        text.push_str(&format!(", {limit} {}/s", count(units as u64, "write unit")));
    }
    text
}

fn draw(input_bytes: Option<u64>) -> ProgressBar {
    let (bar, template) = match input_bytes {
        Some(bytes) => (ProgressBar::new(bytes), "{bar:30} {percent:>3} %  {msg}"),
        None => (ProgressBar::new_spinner(), "{spinner}  {msg}"),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
