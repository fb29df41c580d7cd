//! The command-line tool: what it says of itself, and its colours.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Read;
use std::process::Command;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use support::tool::{assert_success, folder, stderr, stdout, tool, write};

/// The subcommands that the help lists.
fn subcommands() -> BTreeSet<String> {
    let output = tool(&folder()).arg("--help").output().unwrap();
    assert_success(&output);
    let (_, commands) = stdout(&output).split_once("Commands:\n").unwrap();
    let listed = commands.lines().take_while(|line| !line.is_empty());
    let names = listed.filter_map(|line| line.split_whitespace().next().map(str::to_owned));
    names.filter(|name| name != "help").collect()
}

#[test]
fn completions_of_each_shell_name_every_subcommand() {
    let subcommands = subcommands();
    assert!(subcommands.len() >= 9, "{subcommands:?}");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = tool(&folder()).args(["completions", shell]).output().unwrap();
        assert_success(&output);
        for word in subcommands.iter().map(String::as_str).chain(["dry-run", "lease-writer-id"]) {
            assert!(stdout(&output).contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn completions_of_bash_complete_an_option() {
    let folder = folder();
    let output = tool(&folder).args(["completions", "bash"]).output().unwrap();
    write(&folder, "completions.bash", &output.stdout);
    let complete = "source ./completions.bash; [[ $(complete -p dynamodb-eventstore) =~ -F\\ ([^ ]+) ]]; \
        COMP_WORDS=(dynamodb-eventstore put --dry); COMP_CWORD=2; \
        ${BASH_REMATCH[1]} dynamodb-eventstore --dry put; echo \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    let output = bash.args(["-c", complete]).current_dir(folder.path()).output().unwrap();
    assert_eq!((stdout(&output), stderr(&output)), ("--dry-run\n", ""));
}

#[test]
fn manual_pages_cover_every_subcommand() {
    let folder = folder();
    let output = tool(&folder).args(["man", "-o", "pages/of/man"]).output().unwrap();
    assert_success(&output);
    assert_eq!(stdout(&output), "the manual pages are in pages/of/man\n");
    let page = |name: &str| {
        let path = folder.path().join("pages/of/man").join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    for subcommand in subcommands() {
        let page = page(&format!("dynamodb-eventstore-{subcommand}.1"));
        assert!(page.contains(".SH SYNOPSIS"), "{page}");
    }
    assert!(page("dynamodb-eventstore-journal-list.1").contains("Directory of the journal"));
    assert!(page("dynamodb-eventstore-put.1").contains(r"\-\-dry\-run"));
    let output = tool(&folder).arg("man").output().unwrap();
    assert_success(&output);
    assert_eq!(stdout(&output), page("dynamodb-eventstore.1"));
    // A second time the pages are replaced.
    assert_success(&tool(&folder).args(["man", "-o", "pages/of/man"]).output().unwrap());
}

#[test]
fn manual_that_cannot_be_written_fails() {
    let folder = folder();
    write(&folder, "file", "");
    let output = tool(&folder).args(["man", "-o", "file"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("cannot write the manual pages to file: "), "{output:?}");
    for command in [&["man"][..], &["completions", "zsh"]] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = tool(&folder).args(command).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(stderr(&output).contains("standard output does not hold"), "{output:?}");

        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert_success(&tool(&folder).args(command).stdout(writer).output().unwrap());
    }
}

/// What a command prints on a terminal, to standard output and standard error.
fn on_a_terminal(mut command: Command) -> String {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
    let side = OpenOptions::new().read(true).write(true).open(name).unwrap();
    command.stdout(side.try_clone().unwrap()).stderr(side).env("TERM", "xterm-256color");
    let mut child = command.spawn().unwrap();
    // The command has the other side of the terminal. It ends when the last of them is closed.
    drop(command);
    let mut printed = Vec::new();
    // Linux answers EIO once the other side is closed.
    let _ = std::fs::File::from(terminal).read_to_end(&mut printed);
    child.wait().unwrap();
    String::from_utf8(printed).unwrap()
}

/// Whether the text sets a colour or a weight. The bar of the progress also moves the cursor.
fn has_colours(text: &str) -> bool {
    text.split("\x1b[").skip(1).any(|rest| {
        let code = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        code.starts_with('m') && !rest.starts_with("0m")
    })
}

#[test]
fn colours_are_for_terminals_and_not_with_no_color() {
    let folder = folder();
    write(&folder, "lines.ndjson", "{\"a\":1}\nnonsense\n");
    for (arguments, is_coloured) in [
        (&["--help"][..], true),
        (&["put", "--no-such-option"], true),
        (&["check", "--local", "events.sqlite"], true),
        (&["put", "lines.ndjson"], false),
        (&["put", "lines.ndjson", "-v"], false),
        (&["put", "lines.ndjson", "--dry-run"], false),
        (&["completions", "fish"], false),
        (&["man"], false),
    ] {
        assert_success(&tool(&folder).args(["put", "--local", "events.sqlite"]).output().unwrap());
        let command = || {
            let mut command = tool(&folder);
            command.args(arguments);
            command
        };
        let printed = on_a_terminal(command());
        assert_eq!(has_colours(&printed), is_coloured, "{arguments:?}: {printed:?}");
        let mut without = command();
        without.env("NO_COLOR", "1");
        let printed = on_a_terminal(without);
        assert!(printed.len() > 10 && !has_colours(&printed), "{arguments:?}: {printed:?}");
        let output = command().env("TERM", "xterm-256color").output().unwrap();
        let printed = format!("{}{}", stdout(&output), stderr(&output));
        assert!(printed.len() > 10 && !printed.contains('\x1b'), "{arguments:?}: {printed:?}");
    }
}
