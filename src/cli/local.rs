//! `local`: serves an embedded table to any AWS client.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use dynamodb_eventstore::{LocalTable, WriteCapacity};

use crate::output::print;
use crate::stop::signals::Signals;
use crate::target::DEFAULT_FILE;

/// Serve a local table to the AWS clients on this machine, until Ctrl-C
///
/// The table is a SQLite file, the same that `put --local` writes. It accepts any credentials and
/// any region. Only programs on this machine can connect. Web pages cannot: a request with an
/// Origin header, or with a Host other than 127.0.0.1, localhost or [::1], is refused.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// File of the table, created if it does not exist.
    #[arg(default_value = DEFAULT_FILE)]
    file: PathBuf,

    /// Port to listen on; 0 for any free port.
    #[arg(long, default_value_t = 8000)]
    port: u16,

    /// Accept at most this many write units per second, like a table with provisioned capacity
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
