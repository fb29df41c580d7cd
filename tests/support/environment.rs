//! A test in an environment of its own: a process cannot change its own while it has threads.

use std::process::Stdio;

use tokio::process::Command;

/// Set where a test runs by itself.
const ALONE: &str = "EVENT_STORE_TEST_IN_AN_ENVIRONMENT";

/// Runs the test of this name once more, in a process whose environment says of AWS only this, and fails
/// if it fails there. True in that process.
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
        // Where there is no network the SDK would wait for an instance's metadata.
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .envs(variables)
        .env(ALONE, "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{complained}");
    false
}
