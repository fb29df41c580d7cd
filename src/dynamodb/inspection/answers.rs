//! What the answers of the endpoint show besides their content: that it answers, and its clock.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_dynamodb::config::interceptors::{
    BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
};
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_smithy_runtime_api::box_error::BoxError;

use crate::clock::KeyClock;
use crate::dynamodb::classify::service_time;
use crate::dynamodb::table::TableError;
use crate::dynamodb::target::hide_user_info;

/// How far the time of a signature may be from AWS's clock: "within 5 minutes" (Signature Version 4).
const MAX_SKEW_SECONDS: u64 = 300;

/// Remembers the first answer. Clones share what they remember.
#[derive(Debug, Clone, Default)]
pub(super) struct Answers(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    url: Option<String>,
    is_answered: bool,
    /// The service's clock minus this machine's.
    skew_seconds: Option<i64>,
}

impl Answers {
    /// Where the endpoint is, or why it does not answer.
    pub(super) fn endpoint(&self, error: Option<&TableError>) -> Result<String, (String, String)> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let url = seen.url.as_deref().unwrap_or("the endpoint");
        if seen.is_answered {
            let tls = if url.starts_with("https:") { "with TLS" } else { "without TLS" };
            return Ok(format!("{url} answers, {tls}"));
        }
        let reason = error.map_or_else(|| "no answer".to_owned(), ToString::to_string);
        let advice = if reason.contains("certificate") {
            "set AWS_CA_BUNDLE to the certificate authority of this endpoint, or correct its URL"
        } else {
            "check the region, the endpoint URL, the network, the proxy and the VPC endpoint"
        };
        Err((format!("{url} does not answer: {reason}"), advice.to_owned()))
    }

    pub(super) fn clock(&self) -> Result<String, (String, String)> {
        let advice = "set this machine's clock (NTP): signatures are valid for 5 minutes, and keys hold this clock's \
                      time";
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).skew_seconds {
            None => Err((
                "the answer has no Date header".to_owned(),
                "see whether a proxy removes it".to_owned(),
            )),
            Some(skew) if skew.unsigned_abs() > MAX_SKEW_SECONDS => {
                let direction = if skew > 0 { "behind" } else { "ahead of" };
                let found = format!("{} s {direction} the service's", skew.unsigned_abs());
                Err((found, advice.to_owned()))
            }
            Some(skew) => Ok(format!("{} s off the service's", skew.unsigned_abs())),
        }
    }
}

impl Intercept for Answers {
    fn name(&self) -> &'static str {
        "Answers"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let url = hide_user_info(context.request().uri());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).url = Some(url);
        Ok(())
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let local = i64::try_from(KeyClock::Wall.unix_milliseconds() / 1_000).unwrap_or(i64::MAX);
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.is_answered = true;
        seen.skew_seconds = service_time(context.response()).map(|time| time - local);
        Ok(())
    }
}
