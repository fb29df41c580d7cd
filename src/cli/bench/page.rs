//! The report: one HTML page that needs no other file.

use std::error::Error;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use plotters::style::RGBColor;

use super::chart::{self, MEDIAN, OFFERED, REFUSED, STORED, TAIL};
use super::recorder::Recording;
use super::result::{BenchResult, units_per_event};
use super::summary::milliseconds;
use crate::output::{count, rate};

const STYLE: &str = "\
body{font:16px/1.5 system-ui,sans-serif;color:#222b36;background:#fff;max-width:960px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 0}p{margin:.3rem 0}
.tiles{display:flex;flex-wrap:wrap;gap:1rem;margin:1.5rem 0}
.tile{flex:1 1 8rem;border:1px solid #e3e7ec;border-radius:8px;padding:.8rem 1rem}
.tile b{display:block;font-size:1.3rem}.tile span{color:#5a6572;font-size:.9rem}
.bad b{color:#c0392b}.key{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 .8em;border-radius:2px}
.note{color:#5a6572;font-size:.9rem}svg{width:100%;height:auto}";

/// Opens the file of the report, so that a path that cannot be written to fails before the run. The old content of the
/// file stays until the report is written.
pub(super) fn create(path: &Path) -> Result<File, String> {
    let opened = File::options().write(true).create(true).truncate(false).open(path);
    opened.map_err(|error| format!("cannot write the report to {}: {error}", path.display()))
}

/// Writes the report.
pub(super) fn write(
    mut file: File,
    result: &BenchResult,
    recording: &Recording,
) -> Result<(), Box<dyn Error>> {
    let page = render(result, recording)?;
    file.set_len(0)?;
    file.write_all(page.as_bytes())?;
    file.sync_all().or_else(|error| match error.kind() {
        // A pipe or a device.
        io::ErrorKind::InvalidInput => Ok(()),
        _ => Err(error),
    })?;
    Ok(())
}

fn render(result: &BenchResult, recording: &Recording) -> Result<String, Box<dyn Error>> {
    let samples = &recording.samples;
    let units = units_per_event(result.body_bytes);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>dynamodb-eventstore bench</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n\
         <h1>{}</h1>\n<p>{}</p>\n",
        escape(&heading(result)),
        escape(&plan(result)),
    );
    if let Some(cause) = &result.ended_early {
        page.push_str(&format!("<p><b>The run is incomplete: {}</b></p>\n", escape(cause)));
    }
    page.push_str("<div class=\"tiles\">\n");
    page.push_str(&tile(&rate(result.stored, result.seconds), "stored", false));
    let latency = &result.latency_milliseconds;
    page.push_str(&tile(&milliseconds(latency.p50), "median from put to stored", false));
    page.push_str(&tile(&milliseconds(latency.p99), "99 % were faster", false));
    let refused = result.throttled_write_units;
    let offered = refused + result.write_units;
    let share = 100.0 * refused as f64 / offered.max(1) as f64;
    page.push_str(&tile(&format!("{share:.1} %"), "of the write units throttled", share >= 5.0));
    let failed = result.failed();
    page.push_str(&tile(&count(failed, "event"), "failed", failed > 0));
    page.push_str("</div>\n");
    if let Some(error) = &result.first_error {
        page.push_str(&format!("<p>The first failure: {}</p>\n", escape(error)));
    }

    section(
        &mut page,
        "Events per second",
        &[(STORED, "stored"), (OFFERED, "put")],
        "Where the line is above the area, events wait in memory. Where the line meets the area, the store makes \
         puts wait, because the table accepts no more.",
        &chart::throughput(samples)?,
    );
    section(
        &mut page,
        "Write units per second",
        &[(STORED, "accepted by the table"), (REFUSED, "throttled by the table, and sent again")],
        "A table with enough capacity throttles nothing. Much red means that the load exceeds the table's capacity.",
        &chart::write_units(samples, units)?,
    );
    if recording.latencies.is_empty() {
        page.push_str("<p>No event was stored, so there is no latency to show.</p>\n");
    } else {
        section(
            &mut page,
            "From put to stored, over time",
            &[(MEDIAN, "median"), (TAIL, "99 % are faster"), (REFUSED, "slowest")],
            "The scale is logarithmic: each step up is ten times slower.",
            &chart::latency_over_time(samples)?,
        );
        section(
            &mut page,
            "Latency by percentile",
            &[(MEDIAN, "time from put to stored")],
            "Read it like this: the height at 99 % is the time within which 99 of 100 events were stored.",
            &chart::latency_curve(&recording.latencies)?,
        );
    }
    page.push_str(&format!("<p class=\"note\">{}</p>\n</body>\n</html>\n", escape(&note(result))));
    Ok(page)
}

fn heading(result: &BenchResult) -> String {
    let put = count(result.put, "event");
    format!("{put} into {}, in {:.1} s", result.target, result.seconds)
}

fn plan(result: &BenchResult) -> String {
    let bytes = count(result.body_bytes.into(), "byte");
    match result.rate {
        Some(per_second) => {
            format!(
                "The load was {} per second, of {bytes} each.",
                count(per_second.into(), "event")
            )
        }
        None => format!("The load was as many events of {bytes} as the store accepted."),
    }
}

fn note(result: &BenchResult) -> String {
    let from = match result.rate {
        Some(_) => {
            "the moment at which the event should have been put, so that pauses are included"
        }
        None => "the call of put",
    };
    let keys = match (&result.first_key, &result.last_key) {
        (Some(first), Some(last)) => format!(" The events have keys from {first} to {last}."),
        _ => String::new(),
    };
    format!(
        "Times count from {from}. {} BatchWriteItem calls carried {:.1} events each.{keys} \
         dynamodb-eventstore {}.",
        result.calls,
        result.events_per_call,
        env!("CARGO_PKG_VERSION"),
    )
}

fn tile(value: &str, label: &str, is_bad: bool) -> String {
    let class = if is_bad { "tile bad" } else { "tile" };
    format!("<div class=\"{class}\"><b>{}</b><span>{label}</span></div>\n", escape(value))
}

fn section(page: &mut String, title: &str, keys: &[(RGBColor, &str)], text: &str, svg: &str) {
    page.push_str(&format!("<h2>{title}"));
    for (RGBColor(red, green, blue), label) in keys {
        page.push_str(&format!(
            "<small class=\"note\"><i class=\"key\" style=\"background:rgb({red},{green},{blue})\"></i>{label}</small>"
        ));
    }
    page.push_str(&format!("</h2>\n<p class=\"note\">{text}</p>\n{svg}\n"));
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_and_error_texts_are_escaped() {
        assert_eq!(escape("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }
}
