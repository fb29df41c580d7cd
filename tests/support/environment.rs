//! Runs a test in its own environment. A process with threads cannot change its environment, so the
//! test runs once more in a process of its own.

use std::process::Stdio;

use tokio::process::Command;

/// Set in the process that runs one test alone.
const ALONE: &str = "EVENT_STORE_TEST_IN_AN_ENVIRONMENT";

/// Runs the test with this name once more in another process, and panics if it fails there. The
/// environment of that process has `variables` and no other AWS settings. Returns true in that
/// process.
pub(crate) async fn in_environment(
    test: &str,
    variables: impl IntoIterator<Item = (&'static str, String)>,
) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let home = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env_clear()
        .env("HOME", home.path())
        // Without a network the SDK would wait for the metadata of an instance.
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .envs(variables)
        .env(ALONE, "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stdout.contains("1 passed"), "{stdout}{stderr}");
    false
}
