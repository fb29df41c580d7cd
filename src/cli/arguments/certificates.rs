//! Trusted certificates: the variable `AWS_CA_BUNDLE`, with the same meaning as for the AWS CLI.

use aws_sdk_dynamodb::config::SharedHttpClient;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, ConnectorBuilder};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// File of the certificates to trust instead of the system's.
const CA_BUNDLE: &str = "AWS_CA_BUNDLE";

/// The SDK's default HTTP client, except that it trusts only the certificates of `AWS_CA_BUNDLE`;
/// `None` if that variable is not set.
pub(super) fn client_with_ca_bundle() -> Result<Option<SharedHttpClient>, String> {
    let Some(file) = std::env::var_os(CA_BUNDLE).filter(|file| !file.is_empty()) else {
        return Ok(None);
    };
    let invalid = |reason: String| {
        format!("cannot use the certificates of {CA_BUNDLE}, {}: {reason}", file.display())
    };
    let pem = std::fs::read(&file).map_err(|error| invalid(error.to_string()))?;
    // The TLS library panics if it cannot read a certificate, so they are parsed here first.
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = certificates.map_err(|error| invalid(error.to_string()))?;
    if certificates.is_empty() {
        return Err(invalid("it holds no certificate in PEM format".to_owned()));
    }
    let trusted = TrustStore::empty().with_pem_certificate(pem);
    let context = TlsContext::builder().with_trust_store(trusted).build();
    let context = context.map_err(|error| invalid(error.to_string()))?;
    let client = Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = ConnectorBuilder::default()
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(context.clone());
        connector.set_connector_settings(settings.cloned());
        if let Some(components) = components {
            connector.set_sleep_impl(components.sleep_impl());
        }
        connector.set_proxy_config(Some(ProxyConfig::from_env()));
        connector.build()
    });
    Ok(Some(client))
}
