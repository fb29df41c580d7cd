//! `local`: serves an embedded table to any AWS client.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use dynamodb_eventstore::{LocalTable, WriteCapacity};

use crate::output::print;
use crate::signals::Signals;
use crate::target::DEFAULT_FILE;

/// Serve a local table on this machine, to any AWS client, until Ctrl-C
///
/// The table is an SQLite file, the same that `put --local` writes. Any credentials and any region
/// will do. Only programs on this machine can connect, and no web page: a request with an Origin,
/// or with a Host other than 127.0.0.1, localhost or [::1], is refused.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// File of the table; made if it is not there.
    #[arg(default_value = DEFAULT_FILE)]
    file: PathBuf,

    /// Port to listen on; 0 for any that is free.
    #[arg(long, default_value_t = 8000)]
    port: u16,

    /// Take so many write units a second and no more, as a table with provisioned capacity does
    /// [default: no limit].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    write_units: Option<u32>,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let Arguments { file, port, write_units } = arguments;
    let mut signals = Signals::listen()?;
    let mut builder = LocalTable::builder().file(&file).port(port);
    if let Some(write_units) = write_units {
        builder = builder.write_capacity(WriteCapacity::provisioned(write_units));
    }
    let mut table = builder.start().await?;
    let (url, name) = (table.endpoint_url(), table.name().to_owned());
    print(format_args!("serving table `{name}` of {} at {url}", file.display()));
    print(format_args!(
        "look at it:  aws dynamodb scan --table-name {name} --endpoint-url {url} --region us-east-1"
    ));
    print("stop it:     Ctrl-C");
    tokio::select! {
        _signal = signals.next() => {}
        ended = table.wait() => ended?,
    }
    table.stop().await?;
    Ok(ExitCode::SUCCESS)
}
