//! An HTTP client for the SDK that answers without a network.

use std::fmt;
use std::sync::Arc;

use aws_sdk_dynamodb::config::RuntimeComponents;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;

/// Answers every request with what a function returns for it.
#[derive(Clone)]
pub(crate) struct HttpClientFn(Arc<dyn Fn(&HttpRequest) -> HttpResponse + Send + Sync>);

impl HttpClientFn {
    pub(crate) fn new(
        respond: impl Fn(&HttpRequest) -> HttpResponse + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(respond))
    }
}

/// A response with this status and body.
pub(crate) fn response(status: u16, body: &'static str) -> HttpResponse {
    HttpResponse::new(status.try_into().unwrap(), SdkBody::from(body))
}

/// The response to a batch that is stored as a whole.
pub(crate) fn all_stored() -> HttpResponse {
    response(200, r#"{"UnprocessedItems":{}}"#)
}

impl fmt::Debug for HttpClientFn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("HttpClientFn")
    }
}

impl HttpConnector for HttpClientFn {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::ready(Ok((self.0)(&request)))
    }
}

impl HttpClient for HttpClientFn {
    fn http_connector(
        &self,
        _settings: &HttpConnectorSettings,
        _components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}
