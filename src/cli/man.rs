//! `man`: the manual pages of the tool.

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Command;
use clap_mangen::Man;

use crate::output::{print, print_bytes};

/// Print the manual page, or write the pages of all commands
///
/// Without --output-dir the page of the tool itself is printed. Read it with
///   dynamodb-eventstore man | man -l -
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Arguments {
    /// Directory to write one page for the tool and one for each command to. It is created if it
    /// does not exist. Pages that are there are replaced.
    #[arg(long, short, value_name = "DIR")]
    output_dir: Option<PathBuf>,
}

/// Renders the pages of the command line that `command` defines.
pub(crate) fn run(arguments: Arguments, command: Command) -> Result<ExitCode, Box<dyn Error>> {
    // It has no page of its own.
    let command = command.disable_help_subcommand(true);
    match arguments.output_dir {
        Some(directory) => {
            fs::create_dir_all(&directory)
                .and_then(|()| clap_mangen::generate_to(command, &directory))
                .map_err(|error| {
                    format!("cannot write the manual pages to {}: {error}", directory.display())
                })?;
            print(format_args!("the manual pages are in {}", directory.display()));
        }
        None => {
            let mut page = Vec::new();
            Man::new(command).render(&mut page)?;
            print_bytes(&page)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
