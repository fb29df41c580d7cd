//! Options that several subcommands share, and the command as the user typed it.
//!
//! An option of one subcommand alone belongs in the file of that subcommand.

mod aws;
mod certificates;
mod command_line;
mod mode;
mod store_options;

pub(crate) use aws::AwsOptions;
pub(crate) use command_line::{CommandLine, quoted};
pub(crate) use mode::Mode;
pub(crate) use store_options::{StoreOptions, describe};
