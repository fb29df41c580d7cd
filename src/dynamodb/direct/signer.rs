//! Signs the requests of one template, which differ only in body, time and credentials.
//!
//! For each request `aws-sigv4` builds the canonical request (it sorts, checks and copies the headers) and derives the
//! day's signing key. That would take about a fifth of the time of a direct call. Here the canonical request is a
//! template ([`CanonicalRequest`]), and the signing key is kept for a second; `aws-sigv4` computes the signature
//! itself. The template is used only if trial signatures with it are equal to those that `aws-sigv4` makes alone.
//! Otherwise `aws-sigv4` does all of it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    SessionTokenMode, SignableBody, SignableRequest, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::identity::Identity;
use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use super::canonical_request::CanonicalRequest;
use crate::error::{BatchError, Certainty, FailureClass};

/// Body of the trial signatures.
const TRIAL_BODY: &[u8] = b"{}";

/// Signs requests to one URI with the same headers.
#[derive(Debug)]
pub(super) struct Signer {
    uri: String,
    /// The headers that all requests share.
    headers: Vec<(String, String)>,
    scope: CredentialScope,
    /// `None` if `aws-sigv4` has to build the canonical requests.
    canonical_request: Option<CanonicalRequest>,
    /// The context of the last signature. Many requests are signed in the same second.
    context: Mutex<Option<Arc<SigningContext>>>,
}

/// The values that requests share if they are signed in the same second with the same credentials.
struct SigningContext {
    seconds: i64,
    credentials: Credentials,
    date: String,
    /// `20150830/us-east-1/dynamodb/aws4_request`.
    scope: String,
    key: Vec<u8>,
}

/// The headers that are added to a request when it is signed.
#[derive(PartialEq, Eq)]
pub(super) struct SignatureHeaders {
    pub(super) date: String,
    pub(super) token: Option<String>,
    pub(super) authorization: String,
}

impl Signer {
    /// A signer of requests to `uri` with these headers.
    ///
    /// # Errors
    ///
    /// [`FailureClass::Fatal`] if `aws-sigv4` cannot sign such a request with `identity`.
    pub(super) fn new(
        uri: &str,
        headers: &[(String, String)],
        scope: CredentialScope,
        identity: &Identity,
        now: SystemTime,
    ) -> Result<Self, BatchError> {
        let mut signer = Self {
            uri: uri.to_owned(),
            headers: headers.to_vec(),
            scope,
            canonical_request: None,
            context: Mutex::default(),
        };
        signer.sign_with_aws_sigv4(identity, TRIAL_BODY, now)?;
        signer.canonical_request = CanonicalRequest::new(uri, headers)
            .filter(|canonical_request| signer.matches_aws_sigv4(canonical_request, now));
        Ok(signer)
    }

    /// Whether trial signatures with `canonical_request` are equal to those of `aws-sigv4`, without a session
    /// token and with one.
    fn matches_aws_sigv4(&self, canonical_request: &CanonicalRequest, now: SystemTime) -> bool {
        [None, Some("token".to_owned())].into_iter().all(|token| {
            let identity = Credentials::new("trial", "trial", token, None, "trial").into();
            let expected = self.sign_with_aws_sigv4(&identity, TRIAL_BODY, now);
            let signed = self.sign_canonical(canonical_request, &identity, TRIAL_BODY, now);
            expected.is_ok_and(|expected| signed == Some(expected))
        })
    }

    pub(super) fn sign(
        &self,
        identity: &Identity,
        body: &[u8],
        at: SystemTime,
    ) -> Result<SignatureHeaders, BatchError> {
        let signed = self.canonical_request.as_ref().and_then(|canonical_request| {
            self.sign_canonical(canonical_request, identity, body, at)
        });
        signed.map_or_else(|| self.sign_with_aws_sigv4(identity, body, at), Ok)
    }

    /// Signs with the template. `None` for an identity of another kind, or credentials with characters that a
    /// header cannot have: `aws-sigv4` reports what is wrong with them.
    fn sign_canonical(
        &self,
        canonical_request: &CanonicalRequest,
        identity: &Identity,
        body: &[u8],
        at: SystemTime,
    ) -> Option<SignatureHeaders> {
        let credentials = identity.data::<Credentials>()?;
        let token = credentials.session_token();
        let is_header_safe = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_header_safe(credentials.access_key_id()) || !token.is_none_or(is_header_safe) {
            return None;
        }
        let context = self.context(credentials, at);
        let SigningContext { date, scope, key, .. } = &*context;
        let body_hash = hex(&Sha256::digest(body));
        let request = canonical_request.render(body.len(), date, token, &body_hash);
        let request_hash = hex(&Sha256::digest(request));
        let string_to_sign =
            ["AWS4-HMAC-SHA256\n", date, "\n", scope, "\n", &request_hash].concat();
        let signature = v4::calculate_signature(key, string_to_sign.as_bytes());
        let authorization = [
            "AWS4-HMAC-SHA256 Credential=",
            credentials.access_key_id(),
            "/",
            scope,
            ", SignedHeaders=",
            canonical_request.signed_headers(token.is_some()),
            ", Signature=",
            &signature,
        ];
        Some(SignatureHeaders {
            date: date.clone(),
            token: token.map(str::to_owned),
            authorization: authorization.concat(),
        })
    }

    fn context(&self, credentials: &Credentials, at: SystemTime) -> Arc<SigningContext> {
        let seconds = DateTime::<Utc>::from(at).timestamp();
        // The value is replaced as a whole, so it is consistent even if the lock is poisoned.
        let mut context = self.context.lock().unwrap_or_else(PoisonError::into_inner);
        match &*context {
            Some(last) if last.seconds == seconds && last.credentials == *credentials => {
                Arc::clone(last)
            }
            _ => {
                let new = Arc::new(SigningContext::new(&self.scope, credentials, at));
                *context = Some(Arc::clone(&new));
                new
            }
        }
    }

    /// Signs with `aws-sigv4` alone.
    fn sign_with_aws_sigv4(
        &self,
        identity: &Identity,
        body: &[u8],
        at: SystemTime,
    ) -> Result<SignatureHeaders, BatchError> {
        let mut settings = SigningSettings::default();
        settings.session_token_mode = SessionTokenMode::Include;
        let params = v4::SigningParams::builder()
            .identity(identity)
            .region(&self.scope.region)
            .name(&self.scope.service)
            .time(at)
            .settings(settings)
            .build()
            .map_err(|error| cannot_sign(&error))?
            .into();
        let length = body.len().to_string();
        let headers = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let signable = SignableRequest::new(
            "POST",
            self.uri.as_str(),
            headers.chain([("content-length", length.as_str())]),
            SignableBody::Bytes(body),
        );
        let signed = signable
            .and_then(|signable| sign(signable, &params))
            .map_err(|error| cannot_sign(&error))?;
        let (instructions, _) = signed.into_parts();
        let header = |expected: &str| {
            let mut headers = instructions.headers();
            headers.find(|(name, _)| *name == expected).map(|(_, value)| value.to_owned())
        };
        Ok(SignatureHeaders {
            date: header("x-amz-date").unwrap_or_default(),
            token: header("x-amz-security-token"),
            authorization: header("authorization").unwrap_or_default(),
        })
    }
}

impl fmt::Debug for SigningContext {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SigningContext").field("date", &self.date).finish_non_exhaustive()
    }
}

impl fmt::Debug for SignatureHeaders {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SignatureHeaders").field("date", &self.date).finish_non_exhaustive()
    }
}

impl SigningContext {
    fn new(scope: &CredentialScope, credentials: &Credentials, at: SystemTime) -> Self {
        let date = DateTime::<Utc>::from(at).format("%Y%m%dT%H%M%SZ").to_string();
        let CredentialScope { region, service } = scope;
        let (day, _) = date.split_once('T').unwrap_or_default();
        let key = v4::generate_signing_key(credentials.secret_access_key(), at, region, service);
        Self {
            seconds: DateTime::<Utc>::from(at).timestamp(),
            credentials: credentials.clone(),
            scope: format!("{day}/{region}/{service}/aws4_request"),
            key: key.as_ref().to_vec(),
            date,
        }
    }
}

/// The region and the service that a signature is valid for.
#[derive(Debug)]
pub(super) struct CredentialScope {
    region: String,
    service: String,
}

impl CredentialScope {
    /// Parses an `authorization` header: `AWS4-HMAC-SHA256 Credential=KEY/DATE/REGION/SERVICE/aws4_request, …`.
    /// `None` for another kind of signature.
    pub(super) fn from_authorization(authorization: &str) -> Option<Self> {
        let (_, credential) = authorization.strip_prefix("AWS4-HMAC-SHA256 ")?.split_once('=')?;
        let (credential, _) = credential.split_once(',')?;
        let mut parts = credential.rsplit('/');
        let ("aws4_request", service, region) = (parts.next()?, parts.next()?, parts.next()?)
        else {
            return None;
        };
        Some(Self { region: region.to_owned(), service: service.to_owned() })
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from(if value < 10 { b'0' + value } else { b'a' - 10 + value });
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
    text
}

fn cannot_sign(error: &dyn std::error::Error) -> BatchError {
    let message = format!("the request cannot be signed: {error}");
    BatchError::new(FailureClass::Fatal, Certainty::NotStored, message)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    fn scope() -> CredentialScope {
        CredentialScope { region: "us-east-1".to_owned(), service: "dynamodb".to_owned() }
    }

    fn identity(secret: &str, token: Option<&str>) -> Identity {
        Credentials::new("AKID", secret, token.map(str::to_owned), None, "test").into()
    }

    fn signer(uri: &str, headers: &[(&str, &str)]) -> Signer {
        let headers: Vec<(String, String)> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Signer::new(uri, &headers, scope(), &identity("trial", None), UNIX_EPOCH).unwrap()
    }

    const HEADERS: [(&str, &str); 3] = [
        ("content-type", "application/x-amz-json-1.0"),
        ("x-amz-target", "DynamoDB_20120810.BatchWriteItem"),
        ("user-agent", "aws-sdk-rust/1.0  os/linux"),
    ];

    proptest! {
        #[test]
        fn signature_is_equal_to_that_of_aws_sigv4(
            uri in prop::sample::select(vec![
                "https://dynamodb.us-east-1.amazonaws.com/",
                "https://dynamodb.us-east-1.amazonaws.com:443",
                "http://127.0.0.1:8000/",
                "http://localhost:80/",
                "http://[::1]:8000/",
            ]),
            body in any::<Vec<u8>>(),
            calls in prop::collection::vec(
                (
                    prop_oneof![Just("secret".to_owned()), "[a-zA-Z0-9/+]{1,50}"],
                    prop_oneof![Just(None), Just(Some("token".to_owned()))],
                    prop_oneof![-2..2_i64, -9_999_999_999..9_999_999_999_i64],
                ),
                1..9,
            ),
        ) {
            let signer = signer(uri, &HEADERS);
            prop_assert!(signer.canonical_request.is_some());
            for (secret, token, seconds) in calls {
                let identity = identity(&secret, token.as_deref());
                let distance = Duration::from_millis(seconds.unsigned_abs() * 500);
                let at = if seconds < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance };
                let signed = signer.sign(&identity, &body, at).unwrap();
                prop_assert_eq!(signed, signer.sign_with_aws_sigv4(&identity, &body, at).unwrap());
            }
        }
    }

    #[test]
    fn credentials_that_a_header_cannot_have_are_refused() {
        let signer = signer("http://localhost:8000/", &HEADERS);
        for token in ["token\n", "to\u{0}ken", "token\u{7f}"] {
            assert!(signer.sign(&identity("secret", Some(token)), b"{}", UNIX_EPOCH).is_err());
        }
        let spaced = identity("secret", Some("to ken"));
        let signed = signer.sign(&spaced, b"{}", UNIX_EPOCH).unwrap();
        assert_eq!(signed, signer.sign_with_aws_sigv4(&spaced, b"{}", UNIX_EPOCH).unwrap());
    }

    #[test]
    fn debug_shows_neither_secret_nor_signature() {
        let signer = signer("http://localhost:8000/", &HEADERS);
        let signed = signer.sign(&identity("hush", Some("quiet")), b"{}", UNIX_EPOCH).unwrap();
        let key = format!("{:?}", signer.context.lock().unwrap().as_ref().unwrap().key);
        let shown = format!("{signer:?} {signed:?}");
        assert!(shown.contains("19700101T000000Z"), "{shown}");
        for secret in ["hush", "quiet", "Signature=", &key] {
            assert!(!shown.contains(secret), "{secret}: {shown}");
        }
    }

    #[test]
    fn request_without_a_template_is_signed_by_aws_sigv4() {
        let spaced = [("x-amz-meta", "two  spaces")];
        for (uri, headers) in [
            ("http://127.0.0.1:8000/dynamodb/", &HEADERS[..]),
            ("http://user@127.0.0.1:8000/", &HEADERS),
            ("http://127.0.0.1:8000/", &spaced),
        ] {
            let signer = signer(uri, headers);
            assert!(signer.canonical_request.is_none(), "{uri}");
            let signed =
                signer.sign(&identity("secret", Some("token")), b"{}", UNIX_EPOCH).unwrap();
            assert_eq!(
                (signed.date.as_str(), signed.token.as_deref()),
                ("19700101T000000Z", Some("token"))
            );
            let (_, signature) = signed.authorization.split_once("Signature=").unwrap();
            assert_eq!(signature.len(), 64);
        }
    }

    #[test]
    fn credential_scope_is_parsed() {
        let scope = CredentialScope::from_authorization(
            "AWS4-HMAC-SHA256 Credential=AKID/20150830/us-east-1/dynamodb/aws4_request, \
             SignedHeaders=host, Signature=5d",
        );
        let scope = scope.unwrap();
        assert_eq!((scope.region.as_str(), scope.service.as_str()), ("us-east-1", "dynamodb"));
    }

    #[test]
    fn other_kind_of_signature_is_not_parsed() {
        for authorization in [
            "",
            "Basic QWxhZGRpbg==",
            "AWS4-ECDSA-P256-SHA256 Credential=AKID/20150830/dynamodb/aws4_request, Signature=3",
            "AWS4-HMAC-SHA256 Credential=AKID, SignedHeaders=host, Signature=5d",
        ] {
            assert!(
                CredentialScope::from_authorization(authorization).is_none(),
                "{authorization}"
            );
        }
    }
}
