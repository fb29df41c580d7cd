//! Checks the access key and the time in the headers of a request, and its signature, which is
//! computed again from the received request.

use std::fmt::Write;
use std::time::SystemTime;

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use hmac::{Hmac, KeyInit, Mac};
use hyper::HeaderMap;
use sha2::{Digest, Sha256};

use super::answer::Answer;
use super::script::{Clock, Script};

/// How far the time of a signature may be from the service's clock.
const TOLERATED: TimeDelta = TimeDelta::minutes(5);

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "a signature is made for the time of day")]
    pub(super) fn now(self) -> DateTime<Utc> {
        DateTime::<Utc>::from(SystemTime::now()) + TimeDelta::hours(self.hours_ahead)
    }
}

/// The refusal of a request that has the wrong access key or the wrong time.
pub(super) fn refusal(script: &Script, headers: &HeaderMap) -> Option<Answer> {
    let text = |header| headers.get(header).and_then(|value| value.to_str().ok());
    if let Some((access_key, code)) = script.only_access_key {
        let signed_with = format!("Credential={access_key}/");
        if !text("authorization").unwrap_or_default().contains(&signed_with) {
            let message = "The security token included in the request is expired";
            return Some(Answer::error(400, code, message));
        }
    }
    let clock = script.clock?;
    let signed = NaiveDateTime::parse_from_str(text("x-amz-date")?, "%Y%m%dT%H%M%SZ").ok()?;
    let off = clock.now() - signed.and_utc();
    if off.abs() <= TOLERATED {
        return None;
    }
    let message = if off > TimeDelta::zero() {
        "Signature expired: it is now earlier than this time less 5 min."
    } else {
        "Signature not yet current: it is still later than this time and 5 min."
    };
    Some(Answer::error(400, clock.code, message))
}

/// The secret keys that the tests sign with.
const SECRETS: [&str; 2] = ["test", "secret"];

/// Whether one of the tests' secrets has signed this request to `/`.
pub(super) fn is_signed(headers: &HeaderMap, body: &[u8]) -> bool {
    let authorization = headers.get("authorization").and_then(|value| value.to_str().ok());
    let Some(authorization) = authorization else { return false };
    let is_signed_with = |secret: &str| {
        let signature = signature("POST", headers, body, authorization, secret)?;
        Some(authorization.ends_with(&format!("Signature={signature}")))
    };
    SECRETS.iter().any(|secret| is_signed_with(secret) == Some(true))
}

/// The signature (AWS Signature Version 4) of a request to `/` without a query, over the headers that
/// `authorization` names.
pub(crate) fn signature(
    method: &str,
    headers: &HeaderMap,
    body: &[u8],
    authorization: &str,
    secret: &str,
) -> Option<String> {
    let part = |name: &str| {
        let part = authorization.split([' ', ',']).find_map(|part| part.strip_prefix(name));
        part.map(str::to_owned)
    };
    let (credential, signed) = (part("Credential=")?, part("SignedHeaders=")?);
    let (_, scope) = credential.split_once('/')?;
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());

    let mut canonical = format!("{method}\n/\n\n");
    for name in signed.split(';') {
        writeln!(canonical, "{name}:{}", text(name)?.trim()).ok()?;
    }
    write!(canonical, "\n{signed}\n{}", hex(&Sha256::digest(body))).ok()?;
    let hashed = hex(&Sha256::digest(canonical.as_bytes()));
    let to_sign = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{hashed}", text("x-amz-date")?);

    let mut key = format!("AWS4{secret}").into_bytes();
    for part in scope.split('/').chain([to_sign.as_str()]) {
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
        mac.update(part.as_bytes());
        key = mac.finalize().into_bytes().to_vec();
    }
    Some(hex(&key))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A time in the format of the `Date` header.
pub(super) fn date(time: DateTime<Utc>) -> String {
    time.format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
