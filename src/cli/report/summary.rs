//! The totals of a run: the line "stored N events, …", or the last object of `--json`.

use std::time::Duration;

use dynamodb_eventstore::Stats;
use serde::Serialize;

use crate::collector::Outcomes;
use crate::output::{count, count_retries, rate};

/// The totals, as `--json` prints them.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    stored: u64,
    /// Events that the table had before the run.
    stored_already: u64,
    refused: u64,
    not_stored: u64,
    maybe_stored: u64,
    /// Lines that were read and not put before the run ended.
    not_put: u64,
    stored_bytes: u64,
    retries: u64,
    /// Events that got a new key, as another writer's item had theirs.
    replaced_keys: u64,
    seconds: f64,
    /// The last line that was accepted or refused.
    last_line: u64,
    is_complete: bool,
}

/// The last object of `--json`.
#[derive(Serialize)]
pub(super) struct SummaryObject<'a> {
    summary: &'a Summary,
}

impl Summary {
    pub(super) fn new(
        outcomes: &Outcomes,
        stats: Option<&Stats>,
        elapsed: Duration,
        last_line: u64,
        is_complete: bool,
    ) -> Self {
        Self {
            stored: outcomes.stored,
            stored_already: outcomes.already_stored,
            refused: outcomes.failures.refused,
            not_stored: outcomes.failures.not_stored,
            maybe_stored: outcomes.failures.maybe_stored,
            not_put: outcomes.failures.not_put,
            stored_bytes: outcomes.stored_bytes,
            retries: stats.map_or(0, |stats| stats.retried),
            replaced_keys: stats.map_or(0, |stats| stats.replaced_keys),
            seconds: elapsed.as_secs_f64(),
            last_line,
            is_complete,
        }
    }

    pub(super) fn to_object(&self) -> SummaryObject<'_> {
        SummaryObject { summary: self }
    }

    /// The summary for a person.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "stored {}, {}, in {:.2} s ({}), {}",
            count(self.stored, "event"),
            count(self.stored_bytes, "byte"),
            self.seconds,
            rate(self.stored, self.seconds),
            count_retries(self.retries),
        )];
        if self.stored_already > 0 {
            let verb = if self.stored_already == 1 { "was" } else { "were" };
            lines.push(format!("{} {verb} stored already", count(self.stored_already, "event")));
        }
        if self.replaced_keys > 0 {
            lines.push(format!(
                "{} got a new key, because another writer's item has the first one; give each \
                 writer an id of its own (--lease-writer-id)",
                count(self.replaced_keys, "event")
            ));
        }
        lines
    }
}
