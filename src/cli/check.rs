//! `check`: inspects credentials, endpoint, table and permissions before the first event.

use std::error::Error;
use std::io::stdout;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::NonEmptyStringValueParser;
use dynamodb_eventstore::{Finding, Inspection, LocalTable, Outcome, WriteMode};
use serde::Serialize;

use crate::arguments::AwsOptions;
use crate::output::json_lines::JsonLines;
use crate::output::{has_colours, print};

/// Check the credentials, the endpoint, the table and the permissions, and store nothing
///
/// Each line begins with ✓ if the check passed, with ✗ if it failed, or with – if it was skipped
/// because of an ✗ before it. After each ✗ a line says what to do. The exit code is 0 only if
/// every line has a ✓.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// DynamoDB table, by name or ARN.
    #[arg(long, required_unless_present = "local", value_parser = NonEmptyStringValueParser::new())]
    table: Option<String>,

    /// Check this local table instead: a SQLite file, which must exist.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["table", "region", "profile", "endpoint_url"])]
    local: Option<PathBuf>,

    /// Check the permission to insert, for `put --insert`, instead of the one to put.
    #[arg(long)]
    insert: bool,

    /// Print one JSON object instead of lines.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    aws: AwsOptions,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let Arguments { table, local, insert, json, aws } = arguments;
    let mode = if insert { WriteMode::Insert } else { WriteMode::Put };
    let inspection = match local {
        Some(file) => {
            if !file.is_file() {
                return Err(format!("there is no local table in {}", file.display()).into());
            }
            let table = LocalTable::open(&file).await?;
            let inspection = Inspection::run_for(table.sdk_config(), table.name(), mode).await;
            table.stop().await?;
            inspection
        }
        None => {
            let sdk_config = aws.sdk_config_without_region().await?;
            Inspection::run_for(&sdk_config, table.unwrap_or_default(), mode).await
        }
    };
    if json {
        let mut lines = JsonLines::default();
        lines.print(&Report::of(&inspection));
        if let Some(error) = lines.error() {
            return Err(error.into());
        }
    } else {
        let is_coloured = has_colours(&stdout());
        for finding in inspection.findings() {
            print_finding(finding, is_coloured);
        }
    }
    Ok(if inspection.is_passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_finding(finding: &Finding, is_coloured: bool) {
    let (mark, colour, text, advice) = match &finding.outcome {
        Outcome::Passed { found } => ('✓', 32, found.as_str(), None),
        Outcome::Failed { found, advice } => ('✗', 31, found.as_str(), Some(advice)),
        _ => ('–', 2, "not checked", None),
    };
    let mark = if is_coloured { format!("\x1b[{colour}m{mark}\x1b[0m") } else { mark.to_string() };
    print(format_args!("{mark} {:<20} {text}", finding.inspected));
    if let Some(advice) = advice {
        print(format_args!("  {:<20} {advice}", "→ to do:"));
    }
}

#[derive(Serialize)]
struct Report {
    passed: bool,
    checks: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    check: String,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Report {
    fn of(inspection: &Inspection) -> Self {
        let line = |finding: &Finding| {
            let (outcome, found, advice) = match finding.outcome.clone() {
                Outcome::Passed { found } => ("passed", Some(found), None),
                Outcome::Failed { found, advice } => ("failed", Some(found), Some(advice)),
                _ => ("not checked", None, None),
            };
            Line { check: finding.inspected.to_string(), outcome, found, advice }
        };
        let checks = inspection.findings().iter().map(line).collect();
        Self { passed: inspection.is_passed(), checks }
    }
}
