//! Credentials providers that several test files use.

use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, future};

use super::clock;

/// Provides the credentials `test` after this time.
#[derive(Debug)]
pub(crate) struct SlowProvider(pub(crate) Duration);

impl ProvideCredentials for SlowProvider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            clock::wait(self.0).await;
            Ok(Credentials::new("test", "test", None, None, "tests"))
        })
    }
}
