//! The machine of the measurement.

use std::fmt;
use std::fs;
use std::process::Command;
use std::thread::available_parallelism;
use std::time::SystemTime;

use chrono::{DateTime, Utc};

#[derive(Debug)]
pub(crate) struct Machine {
    processor: String,
    cores: usize,
    kernel: String,
    compiler: String,
    day: String,
}

impl Machine {
    pub(crate) fn this() -> Self {
        Self {
            processor: processor().unwrap_or_else(unknown),
            cores: available_parallelism().unwrap().get(),
            kernel: output_of("uname", "-sr").unwrap_or_else(unknown),
            compiler: output_of("rustc", "--version").unwrap_or_else(unknown),
            day: today(),
        }
    }
}

fn unknown() -> String {
    "unknown".to_owned()
}

#[expect(clippy::disallowed_methods, reason = "a report has a date")]
fn today() -> String {
    DateTime::<Utc>::from(SystemTime::now()).format("%Y-%m-%d").to_string()
}

/// The processor's name, as Linux reports it.
fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn output_of(program: &str, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

impl fmt::Display for Machine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processor, cores, kernel, compiler, day } = self;
        write!(formatter, "{processor}, {cores} cores, {kernel}, {compiler}, on {day}")
    }
}
