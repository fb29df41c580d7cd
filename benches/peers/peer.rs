//! The peers, and how each is started.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::outcome::Outcome;
use super::{bodies, sdk, store};

/// The argument that runs this program as a peer. The name of the peer follows it.
pub(crate) const ROLE: &str = "--peer";

/// What all peers share.
#[derive(Debug)]
pub(crate) struct Stage {
    /// The folder in which `benches/peers/run` installs the tools. It is also the default folder of the
    /// results.
    pub(crate) folder: PathBuf,
    url: String,
    bodies: PathBuf,
}

impl Stage {
    pub(crate) fn new(url: String) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("peers");
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("bodies.ndjson");
        bodies::write(&file);
        Self { folder, url, bodies: file }
    }
}

/// A way of writing events.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// The events of a run of about a second.
    pub(crate) events: usize,
    program: PathBuf,
    arguments: Vec<OsString>,
    /// The path that `benches/peers/run` installs for it.
    needs: Option<PathBuf>,
}

impl Peer {
    /// All peers whose tools are installed. The last one is the reference for the others.
    pub(crate) fn all(stage: &Stage) -> Vec<Self> {
        let modules = stage.folder.join("node/node_modules");
        let python = stage.folder.join("venv/bin/python3");
        let go = stage.folder.join("sdk-go");
        let others = [
            Self {
                name: "npm module dynamodb-eventstore",
                events: 3_000,
                program: "node".into(),
                arguments: vec![node_script(stage, "npm-module.js").into()],
                needs: Some(modules.join("dynamodb-eventstore")),
            },
            Self {
                name: "boto3, batch_writer",
                events: 20_000,
                program: python.clone(),
                arguments: vec![source("python/boto3_batch_writer.py").into()],
                needs: Some(python),
            },
            Self {
                name: "AWS SDK for JavaScript v3",
                events: 100_000,
                program: "node".into(),
                arguments: vec![node_script(stage, "sdk-v3.mjs").into()],
                needs: Some(modules.join("@aws-sdk/client-dynamodb")),
            },
            Self {
                name: "AWS SDK for Go v2",
                events: 250_000,
                program: go.clone(),
                arguments: Vec::new(),
                needs: Some(go),
            },
        ];
        others.into_iter().filter(Self::is_installed).chain(Self::in_rust()).collect()
    }

    /// The peers that are part of this program.
    pub(crate) fn in_rust() -> [Self; 2] {
        let this = |name, role: &str, events| Self {
            name,
            events,
            program: std::env::current_exe().unwrap(),
            arguments: vec![ROLE.into(), role.into()],
            needs: None,
        };
        [
            this("AWS SDK for Rust", sdk::ROLE, 400_000),
            this("EventStore, this crate", store::ROLE, 800_000),
        ]
    }

    fn is_installed(&self) -> bool {
        let is_installed = self.needs.as_ref().is_none_or(|path| path.exists());
        if !is_installed {
            eprintln!(
                "{} is left out, because its tools are not installed: run benches/peers/run",
                self.name
            );
        }
        is_installed
    }

    /// Writes this many events in a new process.
    pub(crate) fn run(&self, stage: &Stage, events: usize) -> Outcome {
        let mut command = Command::new(&self.program);
        let output = command
            .args(&self.arguments)
            .arg(&stage.url)
            .arg(&stage.bodies)
            .arg(events.to_string())
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env_remove("AWS_PROFILE")
            // Without it some clients would use a proxy even for loopback.
            .env("NO_PROXY", "127.0.0.1")
            // Otherwise Node prints deprecation warnings at every start.
            .env("NODE_NO_WARNINGS", "1")
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "{} failed: {}", self.name, output.status);
        let outcome: Outcome = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(outcome.events(), events, "{} wrote another number of events", self.name);
        outcome
    }
}

/// A source file in another language.
fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers").join(path)
}

/// Copies a script to the folder of the installed modules, because Node looks for them beside the script.
fn node_script(stage: &Stage, name: &str) -> PathBuf {
    let folder = stage.folder.join("node");
    fs::create_dir_all(&folder).unwrap();
    for file in ["measured.js", name] {
        fs::copy(source("node").join(file), folder.join(file)).unwrap();
    }
    folder.join(name)
}
