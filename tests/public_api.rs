//! Compares the public interface with `tests/public-api.txt`, so that it does not change by accident.
//!
//! ```text
//! cargo test --all-features --test public_api -- --ignored
//! RENEW=1 cargo test --all-features --test public_api -- --ignored
//! ```
//!
//! The second command updates the file. Feature `bench-internals` is not part of the interface.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

/// The features that users can enable.
const FEATURES: &str = "journal,local,metrics,test-util,sso,credentials-process,cli";

/// A script that runs rustdoc with unstable features enabled. They are enabled for rustdoc only: build scripts
/// detect them, so that every dependency would be built again.
const RUSTDOC: &str = "#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec rustdoc \"$@\"\n";

/// The lines of `lines` that are not in `other`, each after this sign.
fn missing(sign: char, lines: &str, other: &str) -> String {
    let other: Vec<&str> = other.lines().collect();
    let missing = lines.lines().filter(|line| !other.contains(line));
    missing.map(|line| format!("{sign} {line}\n")).collect()
}

fn public_api() -> String {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let rustdoc = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rustdoc");
    fs::write(&rustdoc, RUSTDOC).unwrap();
    fs::set_permissions(&rustdoc, fs::Permissions::from_mode(0o755)).unwrap();
    let documented = Command::new(env!("CARGO"))
        .args(["rustdoc", "--quiet", "--locked", "--lib", "--features", FEATURES, "--target-dir"])
        .arg(target)
        .args(["--", "-Z", "unstable-options", "--output-format", "json"])
        .env("RUSTDOC", &rustdoc)
        .status()
        .unwrap();
    assert!(documented.success(), "rustdoc failed");
    public_api::Builder::from_rustdoc_json(target.join("doc/dynamodb_eventstore.json"))
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .build()
        .unwrap()
        .to_string()
}

#[test]
#[ignore = "it needs rustdoc of Rust 1.95, and checks all dependencies: .ci/run runs it"]
fn the_public_interface_is_the_one_in_the_file() {
    // Cargo runs tests in the folder of the package. The folder at build time may be that of another clone.
    let file = Path::new("tests/public-api.txt");
    let is = public_api();
    if env::var_os("RENEW").is_some() {
        fs::write(file, &is).unwrap();
    }
    let was = fs::read_to_string(file).unwrap();
    let (gone, new) = (missing('-', &was, &is), missing('+', &is, &was));
    assert!(
        gone.is_empty() && new.is_empty(),
        "the public interface has changed:\n{gone}{new}if this is intended, run\n\
         RENEW=1 cargo test --all-features --test public_api -- --ignored"
    );
}
