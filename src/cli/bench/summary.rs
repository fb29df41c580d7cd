//! The result of a run as text, or as JSON.

use indicatif::HumanCount;

use super::result::BenchResult;
use crate::output::{count, count_retries, print as print_line};

/// Prints the result to standard output.
pub(super) fn print(result: &BenchResult, json: bool) -> serde_json::Result<()> {
    if json {
        print_line(serde_json::to_string(result)?);
        return Ok(());
    }
    if let Some(cause) = &result.ended_early {
        print_line(format_args!("incomplete: {cause}"));
    }
    print_line(format_args!(
        "stored:     {} of {} in {:.1} s, {}/s",
        HumanCount(result.stored),
        count(result.put, "event"),
        result.seconds,
        count(result.stored_per_second.round() as u64, "event"),
    ));
    if result.failed() > 0 {
        print_line(format_args!(
            "failed:     {} not stored, {} maybe stored; the first: {}",
            HumanCount(result.not_stored),
            HumanCount(result.maybe_stored),
            result.first_error.as_deref().unwrap_or_default(),
        ));
    }
    let latency = &result.latency_milliseconds;
    print_line(format_args!(
        "latency:    p50 {}, p90 {}, p99 {}, p99.9 {}, p99.99 {}, max {}",
        milliseconds(latency.p50),
        milliseconds(latency.p90),
        milliseconds(latency.p99),
        milliseconds(latency.p99_9),
        milliseconds(latency.p99_99),
        milliseconds(latency.max),
    ));
    print_line(format_args!(
        "table:      accepted {}, throttled {}, {}",
        count(result.write_units, "write unit"),
        HumanCount(result.throttled_write_units),
        count_retries(result.retries),
    ));
    print_line(format_args!(
        "calls:      {}, {:.1} events each",
        HumanCount(result.calls),
        result.events_per_call
    ));
    if let (Some(first), Some(last)) = (&result.first_key, &result.last_key) {
        print_line(format_args!("keys:       {first} to {last}"));
    }
    Ok(())
}

/// A duration in the unit that reads best: "850 µs", "4.2 ms", "1.35 s".
pub(super) fn milliseconds(milliseconds: f64) -> String {
    match milliseconds {
        short if short < 1.0 => format!("{:.0} µs", short * 1_000.0),
        short if short < 100.0 => format!("{short:.1} ms"),
        medium if medium < 1_000.0 => format!("{medium:.0} ms"),
        long => format!("{:.2} s", long / 1_000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_has_the_unit_that_reads_best() {
        for (value, text) in
            [(0.85, "850 µs"), (4.24, "4.2 ms"), (250.4, "250 ms"), (1_350.0, "1.35 s")]
        {
            assert_eq!(milliseconds(value), text);
        }
    }
}
