//! `create-table`: makes a table that events can be stored in.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use clap::builder::NonEmptyStringValueParser;
use dynamodb_eventstore::{Capacity, Table, TableError};

use crate::aws::Aws;
use crate::output::print;

/// How long the service may take to make a table. It takes seconds.
const WAIT: Duration = Duration::from_secs(120);

/// Create a table for events, and wait until it can be used
///
/// Its only key is the hash key `key`, a String. It is paid per request unless --read-units and
/// --write-units are given. A table that exists already and has this key is left as it is.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Name of the table.
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    table: String,

    /// Provision this many reads a second instead of paying per request.
    #[arg(long, value_name = "N", requires = "write_units", value_parser = clap::value_parser!(u32).range(1..))]
    read_units: Option<u32>,

    /// Provision this many writes of 1 KB a second instead of paying per request.
    #[arg(long, value_name = "N", requires = "read_units", value_parser = clap::value_parser!(u32).range(1..))]
    write_units: Option<u32>,

    #[command(flatten)]
    aws: Aws,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let Arguments { table: name, read_units, write_units, aws } = arguments;
    let capacity = match (read_units, write_units) {
        (Some(read_units), Some(write_units)) => Capacity::Provisioned { read_units, write_units },
        _ => Capacity::OnDemand,
    };
    let sdk_config = aws.sdk_config().await?;
    let table = Table::new(&Client::new(&sdk_config), &name);
    let existed = match table.create(capacity).await {
        Ok(()) => false,
        Err(TableError::Exists { .. }) => true,
        Err(error) => {
            let missing = aws.missing_credentials(&sdk_config).await;
            return Err(missing.map_or_else(|| error.into(), Into::into));
        }
    };
    table.wait_until_active(WAIT).await?;
    if existed {
        print(format_args!("table `{name}` exists already and has the right key"));
    } else {
        print(format_args!("table `{name}` is ready"));
    }
    Ok(ExitCode::SUCCESS)
}
