//! `completions`: prints what a shell needs to complete the tool's commands and options.

use std::error::Error;
use std::process::ExitCode;

use clap::Command;
use clap_complete::Shell;

use crate::output::print_bytes;

/// Print a script with which a shell completes commands and options
///
/// For bash, into the folder of the user's completions:
///   dynamodb-eventstore completions bash > ~/.local/share/bash-completion/completions/dynamodb-eventstore
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Arguments {
    /// The shell.
    shell: Shell,
}

/// Prints the script for the command line that `command` defines.
pub(crate) fn run(arguments: &Arguments, mut command: Command) -> Result<ExitCode, Box<dyn Error>> {
    let name = command.get_name().to_owned();
    // The generator panics where a write fails, so it writes to memory.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, &name, &mut script);
    if arguments.shell == Shell::Bash {
        script = with_one_spelling(&String::from_utf8(script)?, &name).into_bytes();
    }
    print_bytes(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// The script for bash with one spelling of the program's name.
///
/// clap_complete 4.6 writes a hyphen in it in two ways, and completes nothing after a subcommand
/// (<https://github.com/clap-rs/clap/issues/6421>).
fn with_one_spelling(script: &str, name: &str) -> String {
    script.replace(&name.replace('-', "__subcmd__"), &name.replace('-', "__"))
}
