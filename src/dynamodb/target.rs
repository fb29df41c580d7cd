//! Where a store writes, and by which way.

use std::fmt;
use std::sync::Arc;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::SharedCredentialsProvider;

use super::{BatchWriter, DirectBatchWriter, SdkBatchWriter};
use crate::error::ConfigError;

/// By which way batches go to the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Transport {
    /// [`Direct`](Self::Direct) for a store that is set up from configuration, [`Sdk`](Self::Sdk) for one that is
    /// given a client.
    #[default]
    Automatic,
    /// Without the SDK's orchestrator, from its parts, at about half of the cost: one request of the SDK's is recorded
    /// and repeated for each batch. Where that request is not one that this crate knows to repeat (an interceptor
    /// adds a header, a later SDK speaks another protocol), calls go through the SDK, with one warning.
    Direct,
    /// Through the SDK's client, with its interceptors, spans and metrics.
    Sdk,
}

/// Where a store writes, as it was set.
#[derive(Default)]
pub(crate) struct TargetSettings {
    pub(crate) table: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) credentials: Option<SharedCredentialsProvider>,
    pub(crate) endpoint_url: Option<String>,
    pub(crate) sdk_config: Option<SdkConfig>,
    pub(crate) client: Option<Client>,
    pub(crate) batch_writer: Option<Arc<dyn BatchWriter>>,
    pub(crate) transport: Transport,
    pub(crate) return_consumed_capacity: bool,
}

impl TargetSettings {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let ways = [
            ("sdk_config", self.sdk_config.is_some()),
            ("client", self.client.is_some()),
            ("batch_writer", self.batch_writer.is_some()),
        ];
        let settings = [
            ("region", self.region.clone()),
            ("credentials", self.credentials.as_ref().map(|_| "hidden".to_owned())),
            ("endpoint_url", self.endpoint_url.as_deref().map(without_user)),
        ];
        if self.batch_writer.is_some() && self.return_consumed_capacity {
            let limit = "be false together with `batch_writer`, which asks for it by itself";
            return Err(ConfigError::new("return_consumed_capacity", true, limit));
        }
        let mut chosen = ways.iter().filter(|(_, is_set)| *is_set).map(|(way, _)| *way);
        let first = chosen.next();
        if let (Some(first), Some(second)) = (first, chosen.next()) {
            let limit = format!("not be given together with `{first}`");
            return Err(ConfigError::new(second, "set", limit));
        }
        if let Some(way) = first {
            for (setting, value) in settings {
                if let Some(value) = value {
                    let limit = format!("not be given together with `{way}`, which brings its own");
                    return Err(ConfigError::new(setting, value, limit));
                }
            }
        }
        match (&self.table, first) {
            (Some(table), Some("batch_writer")) => {
                let limit = "not be given together with `batch_writer`, which knows its own";
                Err(ConfigError::new("table", table, limit))
            }
            (None, Some("batch_writer")) => Ok(()),
            (Some(table), _) if (1..=1_024).contains(&table.len()) => Ok(()),
            (Some(table), _) => {
                let limit = "be a table's name or ARN: 1 to 1024 characters";
                Err(ConfigError::new("table", format_args!("`{table}`"), limit))
            }
            (None, _) => Err(ConfigError::new("table", "missing", "name the table to write to")),
        }
    }

    pub(crate) async fn into_target(self) -> Result<Target, ConfigError> {
        let table = self.table.unwrap_or_default();
        match (self.batch_writer, self.client, self.sdk_config) {
            (Some(writer), ..) => Ok(Target::Writer(writer)),
            (_, Some(client), _) => Target::of_client(client, table),
            (_, _, Some(sdk_config)) => Target::of_configuration(&sdk_config, table),
            _ => {
                let Self { region, credentials, endpoint_url, .. } = self;
                // Boxed, as it is large beside the rest and done with before the rest begins.
                let sdk_config = Box::pin(load(region, credentials, endpoint_url)).await;
                Target::of_configuration(&sdk_config, table)
            }
        }
    }
}

impl fmt::Debug for TargetSettings {
    /// Shows nothing of the credentials.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TargetSettings")
            .field("table", &self.table)
            .field("region", &self.region)
            .field("endpoint_url", &self.endpoint_url.as_deref().map(without_user))
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}

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
async fn load(
    region: Option<String>,
    credentials: Option<SharedCredentialsProvider>,
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
    fn of_client(client: Client, table: String) -> Result<Self, ConfigError> {
        check_region(&client)?;
        Ok(Self::Client { client, table })
    }

    fn of_configuration(sdk_config: &SdkConfig, table: String) -> Result<Self, ConfigError> {
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

    pub(crate) fn into_writer(
        self,
        transport: Transport,
        return_consumed_capacity: bool,
    ) -> Arc<dyn BatchWriter> {
        let (client, table, transport) = match (self, transport) {
            (Self::Writer(writer), _) => return writer,
            (Self::Client { client, table }, Transport::Automatic) => {
                (client, table, Transport::Sdk)
            }
            (Self::Client { client, table } | Self::Configured { client, table }, transport) => {
                (client, table, transport)
            }
        };
        match transport {
            Transport::Sdk => {
                tracing::debug!(transport = "sdk", "calls go through the SDK");
                let writer = SdkBatchWriter::new(&client, table);
                Arc::new(writer.return_consumed_capacity(return_consumed_capacity))
            }
            Transport::Automatic | Transport::Direct => {
                let writer = DirectBatchWriter::new(&client, table);
                Arc::new(writer.return_consumed_capacity(return_consumed_capacity))
            }
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

/// An address as it may be shown: a name and a password before an `@` are hidden. Of several `@` the last one counts,
/// wherever it stands: a password that is not escaped can hold whatever ends a host.
fn without_user(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let Some((_, shown)) = rest.rsplit_once('@') else { return url.to_owned() };
    let separator = if scheme.is_empty() { "" } else { "://" };
    format!("{scheme}{separator}hidden@{shown}")
}

#[cfg(test)]
mod tests {
    use aws_config::retry::RetryConfig;
    use aws_sdk_dynamodb::config::Credentials;

    use super::*;

    #[test]
    fn what_stands_before_the_host_of_an_address_is_hidden() {
        for (url, shown) in [
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
            ("http://user:secret@host:8000/path", "http://hidden@host:8000/path"),
            ("https://a@b@host/?q=c", "https://hidden@host/?q=c"),
            ("http://user:a/b@host", "http://hidden@host"),
            ("http://user:a?b#c@host/path", "http://hidden@host/path"),
            ("http://user:a/b?c@d@host", "http://hidden@host"),
            ("user:secret@host", "hidden@host"),
        ] {
            assert_eq!(without_user(url), shown);
        }
    }

    #[tokio::test]
    async fn the_chain_of_credentials_keeps_its_retries() {
        let credentials = Credentials::new("id", "secret", None, None, "test");
        let credentials = SharedCredentialsProvider::new(credentials);
        let loaded = load(Some("us-east-1".to_owned()), Some(credentials), None).await;
        assert!(loaded.retry_config().is_some_and(RetryConfig::has_retry));
    }
}
