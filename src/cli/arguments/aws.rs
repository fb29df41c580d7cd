//! The options that say how to reach AWS: region, profile, endpoint.

use std::error::Error;

use aws_config::profile::{ProfileFileCredentialsProvider, ProfileSet, load};
use aws_config::provider_config::ProviderConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::{ProvideCredentials, SharedCredentialsProvider};
use aws_types::os_shim_internal::{Env, Fs};

use super::certificates::client_with_ca_bundle;
use crate::output::with_causes;

/// Environment variables for the endpoint: of DynamoDB alone, and of all services.
const ENDPOINT_VARIABLES: [&str; 2] = ["AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL"];

/// How to reach AWS. Settings that are not given come from the environment and the AWS profile.
#[derive(Debug, clap::Args)]
pub(crate) struct AwsOptions {
    /// AWS region of the table [default: AWS_REGION, or the profile's].
    #[arg(long, help_heading = "AWS")]
    region: Option<String>,

    /// AWS profile for credentials and region [default: AWS_PROFILE]. Its credentials take
    /// precedence over those of the environment.
    #[arg(long, help_heading = "AWS")]
    profile: Option<String>,

    /// Endpoint to send to instead of AWS, for example http://127.0.0.1:8000.
    #[arg(long, value_name = "URL", value_parser = endpoint_url, help_heading = "AWS")]
    endpoint_url: Option<String>,
}

impl AwsOptions {
    /// Why there are no credentials; `None` if there are some.
    pub(crate) async fn missing_credentials(&self, config: &SdkConfig) -> Option<String> {
        let error = match config.credentials_provider() {
            Some(provider) => with_causes(&provider.provide_credentials().await.err()?),
            None => "no provider is configured".to_owned(),
        };
        Some(match self.named_profile() {
            Some((name, _)) => format!("the AWS profile `{name}` gives no credentials: {error}"),
            None => format!(
                "no AWS credentials: name a profile (--profile, or AWS_PROFILE), or set \
                 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY\n  {error}"
            ),
        })
    }

    /// The profile that the user named, and the option or variable that names it.
    fn named_profile(&self) -> Option<(String, &'static str)> {
        let variable = || std::env::var("AWS_PROFILE").ok().filter(|name| !name.is_empty());
        match &self.profile {
            Some(name) => Some((name.clone(), "--profile")),
            None => Some((variable()?, "AWS_PROFILE")),
        }
    }

    pub(crate) fn is_any_set(&self) -> bool {
        self.region.is_some() || self.profile.is_some() || self.endpoint_url.is_some()
    }

    pub(crate) async fn sdk_config(&self) -> Result<SdkConfig, Box<dyn Error>> {
        let config = self.sdk_config_without_region().await?;
        if config.region().is_none() {
            return Err(
                "no AWS region: give --region, or set AWS_REGION or the profile's region".into()
            );
        }
        Ok(config)
    }

    /// Like [`sdk_config`](Self::sdk_config), but a region may be missing.
    pub(crate) async fn sdk_config_without_region(&self) -> Result<SdkConfig, Box<dyn Error>> {
        self.check_profile().await?;
        let mut loader = aws_config::defaults(BehaviorVersion::latest());
        if let Some(region) = &self.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(profile) = &self.profile {
            loader = loader.profile_name(profile);
        }
        if let Some(endpoint_url) = &self.endpoint_url {
            loader = loader.endpoint_url(endpoint_url);
        } else {
            for (name, url) in
                ENDPOINT_VARIABLES.iter().filter_map(|name| Some((name, std::env::var(name).ok()?)))
            {
                endpoint_url(&url).map_err(|error| format!("{name}: {error}"))?;
            }
        }
        if let Some(http_client) = client_with_ca_bundle()? {
            loader = loader.http_client(http_client);
        }
        let config = loader.load().await;
        Ok(match &self.profile {
            Some(profile) => with_credentials_of(profile, config),
            None => config,
        })
    }

    /// Fails if the profile does not exist. The SDK skips files that it cannot read and profiles
    /// that do not exist, and takes credentials from the next provider: those of another account.
    async fn check_profile(&self) -> Result<(), String> {
        let profiles: ProfileSet = load(&Fs::real(), &Env::real(), &Default::default(), None)
            .await
            .map_err(|error| format!("cannot read the AWS profiles: {}", with_causes(&error)))?;
        let Some((name, origin)) = self.named_profile() else { return Ok(()) };
        if profiles.get_profile(&name).is_some() {
            return Ok(());
        }
        let mut known: Vec<&str> = profiles.profiles().collect();
        known.sort_unstable();
        let known = match known.as_slice() {
            [] => "they define no profile".to_owned(),
            known => format!("known profiles: {}", known.join(", ")),
        };
        Err(format!(
            "{origin} names `{name}`, but the AWS config and credentials files have no such profile; \
             {known}"
        ))
    }
}

/// The configuration with the profile's credentials only. The SDK's chain would take those of the
/// environment first.
fn with_credentials_of(profile: &str, config: SdkConfig) -> SdkConfig {
    let mut provider_config =
        ProviderConfig::without_region().with_region(config.region().cloned());
    if let Some(http_client) = config.http_client() {
        provider_config = provider_config.with_http_client(http_client);
    }
    let credentials = ProfileFileCredentialsProvider::builder()
        .configure(&provider_config)
        .profile_name(profile)
        .build();
    config.into_builder().credentials_provider(SharedCredentialsProvider::new(credentials)).build()
}

/// Checks that the URL has a scheme and a host.
fn endpoint_url(text: &str) -> Result<String, String> {
    let has_host = |rest: &str| !rest.is_empty() && !rest.starts_with('/');
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    if rest.is_some_and(has_host) {
        return Ok(text.to_owned());
    }
    // The part before an @ may be a password.
    let shown = text.rsplit_once('@').map_or(text, |(_, shown)| shown);
    Err(format!("the endpoint `{shown}` must begin with http:// or https:// and name a host"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_needs_a_scheme_and_a_host() {
        for url in ["http://127.0.0.1:8000", "https://dynamodb.eu-west-1.amazonaws.com/"] {
            assert_eq!(endpoint_url(url).as_deref(), Ok(url));
        }
        for text in ["localhost:8000", "http://", "ftp://host", "", "http:///path"] {
            assert!(endpoint_url(text).unwrap_err().contains("begin with http://"), "{text}");
        }
        assert!(!endpoint_url("user:secret@host").unwrap_err().contains("secret"));
    }
}
