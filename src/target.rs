//! Where a store writes, and by which way.

use std::sync::Arc;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::Credentials;

use crate::config::ConfigError;
use crate::writer::{BatchWriter, DirectBatchWriter, SdkBatchWriter};

/// Where the batches go.
pub(crate) enum Target {
    /// Through a client that was handed in, with its interceptors and all.
    Client {
        client: Client,
        table: String,
    },
    /// To where the configuration leads.
    Configured {
        client: Client,
        table: String,
    },
    Writer(Arc<dyn BatchWriter>),
}

/// The standard AWS chain, but for what is given. Its retries are its own: they are those of the services that
/// credentials come from.
pub(crate) async fn load(
    region: Option<String>,
    credentials: Option<Credentials>,
    endpoint_url: Option<String>,
) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::latest());
    if let Some(region) = region {
        loader = loader.region(Region::new(region));
    }
    if let Some(credentials) = credentials {
        loader = loader.credentials_provider(credentials);
    }
    if let Some(endpoint_url) = endpoint_url {
        loader = loader.endpoint_url(endpoint_url);
    }
    loader.load().await
}

impl Target {
    pub(crate) fn of_client(client: Client, table: String) -> Result<Self, ConfigError> {
        check_region(&client)?;
        Ok(Self::Client { client, table })
    }

    pub(crate) fn of_configuration(
        sdk_config: &SdkConfig,
        table: String,
    ) -> Result<Self, ConfigError> {
        let client = Client::new(sdk_config);
        check_region(&client)?;
        Ok(Self::Configured { client, table })
    }

    /// The table, where it can be asked about itself.
    pub(crate) fn table(&self) -> Option<(&Client, &str)> {
        match self {
            Self::Client { client, table } | Self::Configured { client, table } => {
                Some((client, table))
            }
            Self::Writer(_) => None,
        }
    }

    pub(crate) fn into_writer(self) -> Arc<dyn BatchWriter> {
        match self {
            Self::Client { client, table } => Arc::new(SdkBatchWriter::new(&client, table)),
            Self::Configured { client, table } => Arc::new(DirectBatchWriter::new(&client, table)),
            Self::Writer(writer) => writer,
        }
    }
}

fn check_region(client: &Client) -> Result<(), ConfigError> {
    if client.config().region().is_some() {
        return Ok(());
    }
    let limit = "be given, here or as AWS_REGION or in the AWS profile";
    Err(ConfigError::new("region", "missing", limit))
}
