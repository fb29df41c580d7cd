//! The progress of a scan: a bar on a terminal, elsewhere a line every few seconds.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use dynamodb_eventstore::ReadProgress;
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{Interval, MissedTickBehavior, interval_at};

use super::{Output, count};
use crate::time::now;

const BAR_INTERVAL: Duration = Duration::from_millis(100);
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Shows the progress of a scan until it is dropped.
#[derive(Debug)]
pub(crate) struct ScanProgress {
    bar: Option<ProgressBar>,
    output: Output,
}

impl ScanProgress {
    pub(crate) fn new(progress: &ReadProgress, output: &Output) -> Self {
        let is_shown = !output.is_quiet && stderr().is_terminal();
        let bar = is_shown.then(|| {
            let bar = ProgressBar::new(progress.estimated_items.unwrap_or_default());
            bar.set_draw_target(ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self { output: output.clone().with_bar(bar.clone()), bar }
    }

    /// The output that prints above the bar.
    pub(crate) fn output(&self) -> &Output {
        &self.output
    }

    /// How often to show the progress.
    pub(crate) fn interval(&self) -> Duration {
        if self.bar.is_some() { BAR_INTERVAL } else { LINE_INTERVAL }
    }

    /// When to show it.
    pub(crate) fn ticks(&self) -> Interval {
        let mut ticks = interval_at(now() + self.interval(), self.interval());
        // After a slow write it need not be shown more often.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    }

    /// Shows what was read, and how many events were written of it.
    pub(crate) fn show(&self, progress: &ReadProgress, written: u64) {
        let text = describe(progress, written);
        match &self.bar {
            Some(bar) => {
                bar.set_position(progress.scanned_items);
                bar.set_message(text);
            }
            None => self.output.note(text),
        }
    }
}

impl Drop for ScanProgress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn describe(progress: &ReadProgress, written: u64) -> String {
    let mut text = format!(
        "{} read, {}",
        count(progress.scanned_items, "item"),
        count(progress.read_units as u64, "read unit"),
    );
    if progress.throttled_attempts > 0 {
        text.push_str(&format!(", {} throttled", count(progress.throttled_attempts, "page")));
    }
    if written > 0 {
        text.push_str(&format!(", {} exported", HumanCount(written)));
    }
    text
}
