//! The endpoint that replaces DynamoDB where costs are measured.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;

use aws_sdk_dynamodb::config::SharedHttpClient;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use super::cores::Cores;
use super::server::{Server, end_with_parent};

/// The running endpoint, with and without TLS.
#[derive(Debug)]
pub(crate) struct Endpoint {
    _server: Server,
    address: Address,
}

#[derive(Debug, Serialize, Deserialize)]
struct Address {
    http: u16,
    https: u16,
    /// The certificate of `https`, in PEM.
    certificate: String,
}

impl Endpoint {
    pub(crate) fn start() -> Self {
        let server = Server::start("endpoint");
        Self { address: serde_json::from_str(&server.greeting).unwrap(), _server: server }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}:{}", Ipv4Addr::LOCALHOST, self.address.http)
    }

    pub(crate) fn tls_url(&self) -> String {
        format!("https://{}:{}", Ipv4Addr::LOCALHOST, self.address.https)
    }

    /// The SDK's own HTTP client, which trusts only the endpoint's certificate.
    pub(crate) fn http_client(&self) -> SharedHttpClient {
        let certificate = self.address.certificate.as_bytes();
        let trusted = TrustStore::empty().with_pem_certificate(certificate);
        let context = TlsContext::builder().with_trust_store(trusted).build().unwrap();
        aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(context)
            .build_https()
    }
}

/// Serves on one thread, on the last core, until the benchmark is done.
pub(crate) fn serve() {
    end_with_parent();
    Cores::given().keep_to_last();
    tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap().block_on(async {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([Ipv4Addr::LOCALHOST.to_string()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key.into())
            .unwrap();
        let http = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let https = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = Address {
            http: http.local_addr().unwrap().port(),
            https: https.local_addr().unwrap().port(),
            certificate: certificate.pem(),
        };
        println!("{}", serde_json::to_string(&address).unwrap());
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::join!(accept(http, None), accept(https, Some(acceptor)));
    });
}

async fn accept(listener: TcpListener, acceptor: Option<TlsAcceptor>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            match acceptor {
                None => serve_connection(stream).await,
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve_connection(stream).await;
                    }
                }
            }
        });
    }
}

/// Answers requests until the client closes the connection.
async fn serve_connection(stream: impl AsyncRead + AsyncWrite + Unpin) {
    let service = service_fn(answer);
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// Acknowledges everything as cheaply as possible: of the request only the operation is read, and of inserts how many
/// they are.
async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let target = request.headers().get("x-amz-target").cloned();
    let is = |operation: &str| {
        let operation = format!("DynamoDB_20120810.{operation}");
        target.as_ref().is_some_and(|target| *target == operation)
    };
    let (is_batch, is_insert) = (is("BatchWriteItem"), is("BatchExecuteStatement"));
    let mut statements = Vec::new();
    let mut body = request.into_body();
    while let Some(Ok(frame)) = body.frame().await {
        if is_insert && let Some(bytes) = frame.data_ref() {
            statements.extend_from_slice(bytes);
        }
    }
    // The checksums are as DynamoDB would send them. Some clients verify them, and one fails if they
    // are missing.
    let (body, checksum) = if is_insert {
        let inserts = statements.windows(INSERT.len()).filter(|window| *window == INSERT).count();
        let answers = vec![r#"{"TableName":"events"}"#; inserts].join(",");
        let body = format!(r#"{{"Responses":[{answers}]}}"#);
        let checksum = crc32fast::hash(body.as_bytes()).to_string();
        (Bytes::from(body), checksum)
    } else if is_batch {
        (Bytes::from_static(br#"{"UnprocessedItems":{}}"#), "4185382651".to_owned())
    } else {
        (Bytes::from_static(b"{}"), "2745614147".to_owned())
    };
    let response = Response::builder()
        .header(CONTENT_TYPE, "application/x-amz-json-1.0")
        .header("x-amzn-requestid", "REQUEST")
        .header("x-amz-crc32", checksum)
        .body(Full::new(body))
        .unwrap();
    Ok(response)
}

/// The beginning of each statement.
const INSERT: &[u8] = b"INSERT INTO ";
