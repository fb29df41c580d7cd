//! The clients that write.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::Credentials;
use serde::Deserialize;

use super::endpoint::{Endpoint, Second};
use super::measure::Watch;
use super::table::Table;
use super::{sdk_loop, store};

/// The first seconds are not counted, because a client then uses the saved units and finds the
/// limit.
const SETTLING_SECONDS: usize = 3;

#[derive(Debug, Clone)]
pub(crate) enum Client {
    Store,
    SdkStandard,
    SdkAdaptive,
    /// boto3, run by this Python interpreter.
    Boto3(PathBuf),
}

/// One run of one client on one table.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) seconds: Vec<Second>,
    /// Processor time of the client's process.
    cpu: Duration,
}

impl Client {
    pub(crate) fn in_rust() -> Vec<Self> {
        vec![Self::Store, Self::SdkStandard, Self::SdkAdaptive]
    }

    pub(crate) fn all() -> Vec<Self> {
        let mut all = Self::in_rust();
        all.extend(python_with_boto3().map(Self::Boto3));
        all
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Store => "EventStore",
            Self::SdkStandard => "loop over the SDK, standard retries",
            Self::SdkAdaptive => "loop over the SDK, adaptive retries",
            Self::Boto3(_) => "boto3 batch_writer, a thread each",
        }
    }

    /// Writes as fast as the table accepts, for this time.
    pub(crate) fn run(&self, table: Table, duration: Duration) -> Run {
        let endpoint = Endpoint::start(table);
        let url = endpoint.url();
        let watch = Watch::start();
        let cpu = match self {
            Self::Store => {
                store::play(&url, duration);
                watch.stop(0).cpu
            }
            Self::SdkStandard | Self::SdkAdaptive => {
                let is_adaptive = matches!(self, Self::SdkAdaptive);
                sdk_loop::play(&url, duration, table.in_flight(), is_adaptive);
                watch.stop(0).cpu
            }
            Self::Boto3(python) => boto3(python, &url, duration, table.in_flight()),
        };
        let mut seconds = endpoint.seconds();
        // Drops the last, incomplete second.
        seconds.resize(duration.as_secs() as usize, Second::default());
        Run { seconds, cpu }
    }
}

impl Run {
    pub(crate) fn accepted(&self) -> u64 {
        self.seconds.iter().map(|second| second.accepted).sum()
    }

    pub(crate) fn settled(&self) -> impl Iterator<Item = (usize, &Second)> {
        self.seconds.iter().enumerate().skip(SETTLING_SECONDS)
    }

    pub(crate) fn cpu_microseconds_per_unit(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.accepted() as f64
    }
}

/// The default configuration, with any credentials.
pub(crate) async fn config(url: &str) -> SdkConfig {
    aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("any", "any", None, None, "bench"))
        .endpoint_url(url)
        .load()
        .await
}

fn python_with_boto3() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?;
    let installed = ["peers/venv/bin/python3", "venv/bin/python3"].map(|path| target.join(path));
    let has_boto3 = |python: &PathBuf| {
        let status =
            Command::new(python).args(["-c", "import boto3"]).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    installed.into_iter().chain([PathBuf::from("python3")]).find(has_boto3)
}

#[derive(Deserialize)]
struct Boto3Output {
    cpu_seconds: f64,
}

fn boto3(python: &Path, url: &str, duration: Duration, threads: usize) -> Duration {
    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/capacity/boto3_batch_writer.py");
    let output = Command::new(python)
        .arg(script)
        .args([url, &duration.as_secs().to_string(), &threads.to_string()])
        .env("AWS_ACCESS_KEY_ID", "any")
        .env("AWS_SECRET_ACCESS_KEY", "any")
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "boto3 failed");
    let output: Boto3Output = serde_json::from_slice(&output.stdout).unwrap();
    Duration::from_secs_f64(output.cpu_seconds)
}
