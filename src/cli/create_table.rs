//! `create-table`: creates a table that events can be stored in.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use clap::builder::NonEmptyStringValueParser;
use dynamodb_eventstore::{Capacity, Table, TableError};

use crate::arguments::AwsOptions;
use crate::output::print;

/// How long the service may take to create a table. It usually takes seconds.
const ACTIVE_TIMEOUT: Duration = Duration::from_secs(120);

/// Create a table for events, and wait until it is active
///
/// The table has only a hash key, `key`, a String. It is billed per request unless --read-units and
/// --write-units are given. An existing table with this key is left unchanged.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Name of the table.
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    table: String,

    /// Read capacity units to provision per second, instead of billing per request.
    #[arg(long, value_name = "N", requires = "write_units", value_parser = clap::value_parser!(u32).range(1..))]
    read_units: Option<u32>,

    /// Write capacity units (of 1 KB) to provision per second, instead of billing per request.
    #[arg(long, value_name = "N", requires = "read_units", value_parser = clap::value_parser!(u32).range(1..))]
    write_units: Option<u32>,

    /// Also create the table from which `put --lease-writer-id` leases writer ids. It is billed per
    /// request [default name: the name of the table with `-writers` at its end].
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "")]
    with_writers: Option<String>,

    #[command(flatten)]
    aws: AwsOptions,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let Arguments { table: name, read_units, write_units, with_writers, aws } = arguments;
    let capacity = match (read_units, write_units) {
        (Some(read_units), Some(write_units)) => Capacity::Provisioned { read_units, write_units },
        _ => Capacity::OnDemand,
    };
    let sdk_config = aws.sdk_config().await?;
    let client = Client::new(&sdk_config);
    if let Err(error) = create(&Table::new(&client, &name), &name, capacity).await {
        let missing = aws.missing_credentials(&sdk_config).await;
        return Err(missing.map_or_else(|| error.into(), Into::into));
    }
    if let Some(writers) = with_writers {
        let writers = if writers.is_empty() { format!("{name}-writers") } else { writers };
        let table = Table::for_writer_ids(&client, &writers);
        create(&table, &writers, Capacity::OnDemand).await?;
        table.remove_expired_rows().await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Creates a table unless it exists, waits until it is active, and prints its name.
async fn create(table: &Table, name: &str, capacity: Capacity) -> Result<(), TableError> {
    let exists = match table.create(capacity).await {
        Ok(()) => false,
        Err(TableError::Exists { .. }) => true,
        Err(error) => return Err(error),
    };
    table.wait_until_active(ACTIVE_TIMEOUT).await?;
    if exists {
        print(format_args!("table `{name}` exists already and has the right key"));
    } else {
        print(format_args!("table `{name}` is ready"));
    }
    Ok(())
}
