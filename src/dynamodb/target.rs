//! Where a store writes, and by which transport: the builder's settings, and the batch writer made from them.

use std::fmt;
use std::sync::Arc;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::SharedCredentialsProvider;

use super::{BatchWriter, DirectBatchWriter, SdkBatchWriter};
use crate::error::ConfigError;
use crate::write_mode::WriteMode;

/// How batches are sent to the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Transport {
    /// [`Sdk`](Self::Sdk) for a store that is given a client, otherwise [`Direct`](Self::Direct).
    #[default]
    Automatic,
    /// Without the SDK's orchestrator, at about half of the cost of a call through the SDK. The SDK makes one request,
    /// which is captured and serves as the template of all others. Connections and credentials are the SDK's.
    ///
    /// If this crate cannot repeat that request (an interceptor adds a header, or a later SDK uses another protocol),
    /// all calls go through the SDK, and a warning is logged once.
    Direct,
    /// Through the SDK's client, with its interceptors, spans and metrics.
    Sdk,
}

/// The builder's settings that say where a store writes.
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
    pub(crate) fn validate(&self, mode: WriteMode) -> Result<(), ConfigError> {
        let sources = [
            ("sdk_config", self.sdk_config.is_some()),
            ("client", self.client.is_some()),
            ("batch_writer", self.batch_writer.is_some()),
        ];
        let settings = [
            ("region", self.region.clone()),
            ("credentials", self.credentials.as_ref().map(|_| "hidden".to_owned())),
            ("endpoint_url", self.endpoint_url.as_deref().map(hide_user_info)),
        ];
        if self.batch_writer.is_some() && self.return_consumed_capacity {
            let limit = "be false together with `batch_writer`, which decides it itself";
            return Err(ConfigError::new("return_consumed_capacity", true, limit));
        }
        let mut given = sources.iter().filter(|(_, is_set)| *is_set).map(|(source, _)| *source);
        let source = given.next();
        if let (Some(first), Some(second)) = (source, given.next()) {
            let limit = format!("not be given together with `{first}`");
            return Err(ConfigError::new(second, "set", limit));
        }
        if let Some(source) = source {
            for (setting, value) in settings {
                if let Some(value) = value {
                    let limit = format!("not be given together with `{source}`, which has its own");
                    return Err(ConfigError::new(setting, value, limit));
                }
            }
        }
        match (&self.table, source) {
            (Some(table), Some("batch_writer")) => {
                let limit = "not be given together with `batch_writer`, which has its own";
                Err(ConfigError::new("table", table, limit))
            }
            (None, Some("batch_writer")) => Ok(()),
            // The name becomes a part of the statements.
            (Some(table), _) if mode == WriteMode::Insert && !is_table_name(table) => {
                let limit = "be a table's name with `WriteMode::Insert`: 3 to 255 of a-z, A-Z, 0-9, `_`, `-`, `.`";
                Err(ConfigError::new("table", format_args!("`{table}`"), limit))
            }
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
            (_, Some(client), _) => Target::from_client(client, table),
            (_, _, Some(sdk_config)) => Target::from_sdk_config(&sdk_config, table),
            _ => {
                let Self { region, credentials, endpoint_url, .. } = self;
                // Boxed, because this future is much larger than the rest of the caller's.
                let sdk_config = Box::pin(load_sdk_config(region, credentials, endpoint_url)).await;
                Target::from_sdk_config(&sdk_config, table)
            }
        }
    }
}

impl fmt::Debug for TargetSettings {
    /// Omits the credentials, and whatever may contain them.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TargetSettings")
            .field("table", &self.table)
            .field("region", &self.region)
            .field("endpoint_url", &self.endpoint_url.as_deref().map(hide_user_info))
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}

/// Where a store writes.
pub(crate) enum Target {
    /// A client that the caller has given.
    Client {
        client: Client,
        table: String,
    },
    /// A client that was made from configuration.
    Configured {
        client: Client,
        table: String,
    },
    Writer(Arc<dyn BatchWriter>),
}

/// The configuration of the standard AWS chain, with the values that are given. It keeps its retries, which apply to
/// the services that provide credentials.
async fn load_sdk_config(
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
    fn from_client(client: Client, table: String) -> Result<Self, ConfigError> {
        check_region(&client)?;
        Ok(Self::Client { client, table })
    }

    fn from_sdk_config(sdk_config: &SdkConfig, table: String) -> Result<Self, ConfigError> {
        let client = Client::new(sdk_config);
        check_region(&client)?;
        Ok(Self::Configured { client, table })
    }

    /// The client and the name of the table. `None` for a batch writer of the caller's own.
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
        mode: WriteMode,
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
                let writer = SdkBatchWriter::new(&client, table).write_mode(mode);
                Arc::new(writer.return_consumed_capacity(return_consumed_capacity))
            }
            Transport::Automatic | Transport::Direct => {
                let writer = DirectBatchWriter::new(&client, table).write_mode(mode);
                Arc::new(writer.return_consumed_capacity(return_consumed_capacity))
            }
        }
    }
}

/// Whether DynamoDB allows a table to have this name. An ARN is not a name.
pub(super) fn is_table_name(table: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (3..=255).contains(&table.len()) && table.bytes().all(is_allowed)
}

fn check_region(client: &Client) -> Result<(), ConfigError> {
    if client.config().region().is_some() {
        return Ok(());
    }
    let limit = "be given, here or as AWS_REGION or in the AWS profile";
    Err(ConfigError::new("region", "missing", limit))
}

/// The URL with `hidden` in the place of a user name and password. Everything before the last `@` is hidden, because
/// a password that is not percent-encoded may contain any character.
pub(super) fn hide_user_info(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let Some((_, host_and_path)) = rest.rsplit_once('@') else { return url.to_owned() };
    let separator = if scheme.is_empty() { "" } else { "://" };
    format!("{scheme}{separator}hidden@{host_and_path}")
}

#[cfg(test)]
mod tests {
    use aws_config::retry::RetryConfig;
    use aws_sdk_dynamodb::config::Credentials;

    use super::*;

    #[test]
    fn user_info_of_a_url_is_hidden() {
        for (url, shown) in [
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
            ("http://user:secret@host:8000/path", "http://hidden@host:8000/path"),
            ("https://a@b@host/?q=c", "https://hidden@host/?q=c"),
            ("http://user:a/b@host", "http://hidden@host"),
            ("http://user:a?b#c@host/path", "http://hidden@host/path"),
            ("http://user:a/b?c@d@host", "http://hidden@host"),
            ("user:secret@host", "hidden@host"),
        ] {
            assert_eq!(hide_user_info(url), shown);
        }
    }

    #[tokio::test]
    async fn loaded_configuration_keeps_its_retries() {
        let credentials = Credentials::new("id", "secret", None, None, "test");
        let credentials = SharedCredentialsProvider::new(credentials);
        let loaded = load_sdk_config(Some("us-east-1".to_owned()), Some(credentials), None).await;
        assert!(loaded.retry_config().is_some_and(RetryConfig::has_retry));
    }
}
