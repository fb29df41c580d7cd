//! Options that several subcommands share, and the command as the user typed it.
//!
//! An option of one subcommand alone belongs into that subcommand's file.

mod aws;
mod certificates;
pub(crate) mod command_line;
pub(crate) mod mode;
pub(crate) mod store;

pub(crate) use aws::AwsOptions;
