//! Options that several subcommands share, and the command as the user typed it.
//!
//! An option of one subcommand alone belongs in the file of that subcommand.

mod aws;
mod certificates;
mod command_line;
mod insert_options;
mod limit_options;
mod mode;
mod read_options;
mod store_options;
mod table_options;

pub(crate) use aws::AwsOptions;
pub(crate) use command_line::{CommandLine, quoted};
pub(crate) use insert_options::InsertOptions;
pub(crate) use limit_options::LimitOptions;
pub(crate) use mode::Mode;
pub(crate) use read_options::ReadOptions;
pub(crate) use store_options::StoreOptions;
pub(crate) use table_options::TableOptions;
