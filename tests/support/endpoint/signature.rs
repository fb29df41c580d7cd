//! Whom the endpoint lets in: as far as the headers of a signed request say who asks, and when.

use std::time::SystemTime;

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use hyper::HeaderMap;

use super::answer::Answer;
use super::script::{Clock, Script};

/// How far the time of a signature may be from the service's.
const TOLERATED: TimeDelta = TimeDelta::minutes(5);

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "a signature is good for the time of day")]
    pub(super) fn now(self) -> DateTime<Utc> {
        DateTime::<Utc>::from(SystemTime::now()) + TimeDelta::hours(self.hours_ahead)
    }
}

/// The refusal of a request by whoever may not ask, or not now.
pub(super) fn refusal(script: &Script, headers: &HeaderMap) -> Option<Answer> {
    let text = |header| headers.get(header).and_then(|value| value.to_str().ok());
    if let Some(access_key) = script.only_access_key {
        let signed_with = format!("Credential={access_key}/");
        if !text("authorization").unwrap_or_default().contains(&signed_with) {
            let message = "The security token included in the request is expired";
            return Some(Answer::error(400, "ExpiredTokenException", message));
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

/// A time as the header `Date` has it.
pub(super) fn date(time: DateTime<Utc>) -> String {
    time.format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
