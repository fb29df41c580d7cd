//! The command-line tool: the `--failed` file.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use support::endpoint::{Described, Endpoint, Script, TABLE};
use support::tool::{
    assert_success, failed_lines, folder, lines_of, run, shell, stderr, suggested, tool, tool_for,
    write,
};

#[cfg(unix)]
#[test]
fn failed_file_may_be_a_device() {
    let folder = folder();
    write(&folder, "one.ndjson", "{}\n");
    let run = |input: &str, failed: &str| {
        tool(&folder).args(["put", input, "--failed", failed]).output().unwrap()
    };
    assert_success(&run("one.ndjson", "/dev/null"));
    write(&folder, "bad.ndjson", "nonsense\n".repeat(12));
    let output = run("bad.ndjson", "/dev/full");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("/dev/full does not hold all lines"), "{output:?}");
}

#[cfg(unix)]
#[test]
fn failed_file_is_private_and_not_a_link() {
    use std::os::unix::fs::{PermissionsExt, symlink};

    let folder = folder();
    write(&folder, "bad.ndjson", "nonsense\n");
    write(&folder, "precious", "");
    symlink(folder.path().join("precious"), folder.path().join("link")).unwrap();
    let put = |failed: &str| {
        let arguments = ["put", "bad.ndjson", "--failed", failed];
        tool(&folder).args(arguments).output().unwrap()
    };
    let output = put("link");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("cannot write link: it is a symbolic link"), "{output:?}");
    assert_eq!(std::fs::read(folder.path().join("precious")).unwrap(), b"");

    assert_eq!(put("failed.ndjson").status.code(), Some(1));
    let mode = std::fs::metadata(folder.path().join("failed.ndjson")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn failed_file_of_a_running_put_is_refused() {
    let folder = folder();
    write(&folder, "bad.ndjson", "nonsense\n");
    let mut first = tool(&folder)
        .args(["put", "--failed", "failed.ndjson", "-v"])
        .stdout(Stdio::null())
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The first put opens the file before it logs anything about a line.
    first.stdin.as_mut().unwrap().write_all(b"{}\n").unwrap();
    let mut stderr_lines = BufReader::new(first.stderr.take().unwrap()).lines();
    assert!(stderr_lines.any(|line| line.unwrap().contains("line=1")));
    let output =
        tool(&folder).args(["put", "bad.ndjson", "--failed", "failed.ndjson"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("another run is writing to it"), "{output:?}");
    drop(first.stdin.take());
    assert!(first.wait().unwrap().success());
    assert_eq!(std::fs::read(folder.path().join("failed.ndjson")).unwrap(), b"");
}

/// The tool with a limit on the length of its files. Writes beyond the limit fail as on a
/// full disk.
#[cfg(unix)]
fn with_a_full_disk(like: &Command) -> Command {
    let mut shell = shell(like, r#"trap '' XFSZ; ulimit -f 2; exec "$0" "$@""#);
    shell.arg(like.get_program());
    shell
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disk_leaves_whole_lines() {
    let (folder, endpoint) = (folder(), Endpoint::start([]).await);
    write(&folder, "bad.ndjson", "nonsense\n".repeat(100));
    let mut put = with_a_full_disk(&tool_for(&folder, &endpoint.url()));
    put.args(["put", "bad.ndjson", "--table", TABLE, "--failed", "failed.ndjson"]);
    let output = run(put).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("failed.ndjson does not hold all lines"), "{output:?}");
    let kept = std::fs::read_to_string(folder.path().join("failed.ndjson")).unwrap();
    assert!(kept.ends_with("\n") && kept.lines().count() < 100, "{kept}");
    let lines = lines_of(&folder, "failed.ndjson").into_iter();
    assert!(lines.enumerate().all(|(before, line)| line["line"] == before + 1), "{kept}");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resume_with_a_full_disk_suggests_the_old_file() {
    let script = Script::of([])
        .describing(Described::Error { status: 400, code: "ResourceNotFoundException" });
    let (folder, endpoint) = (folder(), Endpoint::start(script).await);
    write(&folder, "f1", failed_lines(300).join("\n"));
    let mut resume = with_a_full_disk(&tool_for(&folder, &endpoint.url()));
    resume.args(["resume", "f1", "--table", TABLE, "--failed", "f2"]);
    let output = run(resume).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("f2 does not hold all lines"), "{output:?}");
    let next = suggested(&output, "to continue (no event is stored twice)");
    assert!(next.ends_with(" resume f1 --table events --failed f2-2"), "{next}");
    // The old file still has the events, so they are not printed.
    assert!(!stderr(&output).contains("number"), "{output:?}");
    assert!(lines_of(&folder, "f2").len() < 300, "{output:?}");
}
