//! Signs requests that differ in their body and their time, and in nothing else.
//!
//! `aws-sigv4` puts every request into its canonical form anew: sorts its headers, checks and copies them,
//! and derives the day's key from the secret. That was about a fifth of the transport's time. Here the form
//! is an [`CanonicalRequest`], made once, and the key is kept for as long as its time is shown; `aws-sigv4` still
//! makes the signature. An outline is only used where it has come, on trial, to the very signature that
//! `aws-sigv4` makes on its own.

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

/// A body to sign on trial.
const TRIAL: &[u8] = b"{}";

/// What a signature is made of beside the request itself.
#[derive(Debug)]
pub(super) struct Signer {
    uri: String,
    /// Those that all requests share.
    headers: Vec<(String, String)>,
    scope: Scope,
    /// `None` where `aws-sigv4` has to do all of it.
    canonical_request: Option<CanonicalRequest>,
    /// Calls come many in a second, and the time in a signature is in seconds.
    moment: Mutex<Option<Arc<Moment>>>,
}

/// What requests share that are signed in the same second with the same credentials.
struct Moment {
    seconds: i64,
    credentials: Credentials,
    date: String,
    /// `20150830/us-east-1/dynamodb/aws4_request`.
    scope: String,
    key: Vec<u8>,
}

/// The headers that make a request a signed one.
#[derive(PartialEq, Eq)]
pub(super) struct SignatureHeaders {
    pub(super) date: String,
    pub(super) token: Option<String>,
    pub(super) authorization: String,
}

impl Signer {
    /// For requests to `uri` with these headers, with credentials like these.
    pub(super) fn new(
        uri: &str,
        headers: &[(String, String)],
        scope: Scope,
        identity: &Identity,
        now: SystemTime,
    ) -> Result<Self, BatchError> {
        let mut signer = Self {
            uri: uri.to_owned(),
            headers: headers.to_vec(),
            scope,
            canonical_request: None,
            moment: Mutex::default(),
        };
        signer.sign_in_full(identity, TRIAL, now)?;
        signer.canonical_request = CanonicalRequest::of(uri, headers)
            .filter(|canonical_request| signer.holds(canonical_request, now));
        Ok(signer)
    }

    /// Whether the outline comes to what `aws-sigv4` does, without a session token and with one.
    fn holds(&self, canonical_request: &CanonicalRequest, now: SystemTime) -> bool {
        [None, Some("token".to_owned())].into_iter().all(|token| {
            let identity = Credentials::new("trial", "trial", token, None, "trial").into();
            let expected = self.sign_in_full(&identity, TRIAL, now);
            let signed = self.sign_by(canonical_request, &identity, TRIAL, now);
            expected.is_ok_and(|expected| signed == Some(expected))
        })
    }

    pub(super) fn sign(
        &self,
        identity: &Identity,
        body: &[u8],
        at: SystemTime,
    ) -> Result<SignatureHeaders, BatchError> {
        let by_outline = self
            .canonical_request
            .as_ref()
            .and_then(|canonical_request| self.sign_by(canonical_request, identity, body, at));
        by_outline.map_or_else(|| self.sign_in_full(identity, body, at), Ok)
    }

    /// `None` for credentials that are no such, or that do not belong into a header: `aws-sigv4` says
    /// what is wrong with them.
    fn sign_by(
        &self,
        canonical_request: &CanonicalRequest,
        identity: &Identity,
        body: &[u8],
        at: SystemTime,
    ) -> Option<SignatureHeaders> {
        let credentials = identity.data::<Credentials>()?;
        let token = credentials.session_token();
        let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_plain(credentials.access_key_id()) || !token.is_none_or(is_plain) {
            return None;
        }
        let moment = self.moment(credentials, at);
        let Moment { date, scope, key, .. } = &*moment;
        let request = canonical_request.fill(body.len(), date, token, &hex(&Sha256::digest(body)));
        let request = hex(&Sha256::digest(request));
        let to_sign = ["AWS4-HMAC-SHA256\n", date, "\n", scope, "\n", &request].concat();
        let signature = v4::calculate_signature(key, to_sign.as_bytes());
        let authorization = [
            "AWS4-HMAC-SHA256 Credential=",
            credentials.access_key_id(),
            "/",
            scope,
            ", SignedHeaders=",
            canonical_request.names(token.is_some()),
            ", Signature=",
            &signature,
        ];
        Some(SignatureHeaders {
            date: date.clone(),
            token: token.map(str::to_owned),
            authorization: authorization.concat(),
        })
    }

    fn moment(&self, credentials: &Credentials, at: SystemTime) -> Arc<Moment> {
        let seconds = DateTime::<Utc>::from(at).timestamp();
        // A moment is whole before it gets here, so a poisoned lock does not matter.
        let mut moment = self.moment.lock().unwrap_or_else(PoisonError::into_inner);
        match &*moment {
            Some(kept) if kept.seconds == seconds && kept.credentials == *credentials => {
                Arc::clone(kept)
            }
            _ => {
                let new = Arc::new(Moment::new(&self.scope, credentials, at));
                *moment = Some(Arc::clone(&new));
                new
            }
        }
    }

    fn sign_in_full(
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
            .map_err(|error| unsigned(&error))?
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
            .map_err(|error| unsigned(&error))?;
        let (instructions, _) = signed.into_parts();
        let header = |wanted: &str| {
            let mut headers = instructions.headers();
            headers.find(|(name, _)| *name == wanted).map(|(_, value)| value.to_owned())
        };
        Ok(SignatureHeaders {
            date: header("x-amz-date").unwrap_or_default(),
            token: header("x-amz-security-token"),
            authorization: header("authorization").unwrap_or_default(),
        })
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Moment").field("date", &self.date).finish_non_exhaustive()
    }
}

impl fmt::Debug for SignatureHeaders {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SignatureHeaders").field("date", &self.date).finish_non_exhaustive()
    }
}

impl Moment {
    fn new(scope: &Scope, credentials: &Credentials, at: SystemTime) -> Self {
        let date = DateTime::<Utc>::from(at).format("%Y%m%dT%H%M%SZ").to_string();
        let Scope { region, service } = scope;
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

/// For what a signature is good, as the endpoint's rules have it.
#[derive(Debug)]
pub(super) struct Scope {
    region: String,
    service: String,
}

impl Scope {
    /// Out of `AWS4-HMAC-SHA256 Credential=KEY/DATE/REGION/SERVICE/aws4_request, …`.
    pub(super) fn of(authorization: &str) -> Option<Self> {
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

fn unsigned(error: &dyn std::error::Error) -> BatchError {
    let message = format!("the request cannot be signed: {error}");
    BatchError::new(FailureClass::Fatal, Certainty::NotStored, message)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    fn scope() -> Scope {
        Scope { region: "us-east-1".to_owned(), service: "dynamodb".to_owned() }
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
        fn an_outline_comes_to_the_signature_that_aws_sigv4_makes(
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
                prop_assert_eq!(signed, signer.sign_in_full(&identity, &body, at).unwrap());
            }
        }
    }

    #[test]
    fn credentials_that_do_not_belong_into_a_header_are_refused_as_aws_sigv4_does() {
        let signer = signer("http://localhost:8000/", &HEADERS);
        for token in ["token\n", "to\u{0}ken", "token\u{7f}"] {
            assert!(signer.sign(&identity("secret", Some(token)), b"{}", UNIX_EPOCH).is_err());
        }
        let spaced = identity("secret", Some("to ken"));
        let signed = signer.sign(&spaced, b"{}", UNIX_EPOCH).unwrap();
        assert_eq!(signed, signer.sign_in_full(&spaced, b"{}", UNIX_EPOCH).unwrap());
    }

    #[test]
    fn debug_shows_no_secret_and_no_signature() {
        let signer = signer("http://localhost:8000/", &HEADERS);
        let signed = signer.sign(&identity("hush", Some("quiet")), b"{}", UNIX_EPOCH).unwrap();
        let key = format!("{:?}", signer.moment.lock().unwrap().as_ref().unwrap().key);
        let shown = format!("{signer:?} {signed:?}");
        assert!(shown.contains("19700101T000000Z"), "{shown}");
        for secret in ["hush", "quiet", "Signature=", &key] {
            assert!(!shown.contains(secret), "{secret}: {shown}");
        }
    }

    #[test]
    fn a_request_that_has_no_outline_is_signed_all_the_same() {
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
    fn a_signature_is_good_for_the_region_and_the_service_that_it_names() {
        let scope = Scope::of(
            "AWS4-HMAC-SHA256 Credential=AKID/20150830/us-east-1/dynamodb/aws4_request, \
             SignedHeaders=host, Signature=5d",
        );
        let scope = scope.unwrap();
        assert_eq!((scope.region.as_str(), scope.service.as_str()), ("us-east-1", "dynamodb"));
    }

    #[test]
    fn other_ways_to_sign_are_not_taken_for_this_one() {
        for authorization in [
            "",
            "Basic QWxhZGRpbg==",
            "AWS4-ECDSA-P256-SHA256 Credential=AKID/20150830/dynamodb/aws4_request, Signature=3",
            "AWS4-HMAC-SHA256 Credential=AKID, SignedHeaders=host, Signature=5d",
        ] {
            assert!(Scope::of(authorization).is_none(), "{authorization}");
        }
    }
}
