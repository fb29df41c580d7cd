//! The [`tracing`] span of a write call, with the field names of OpenTelemetry's conventions for DynamoDB.
//!
//! It follows from the spans in which its events were put. OpenTelemetry's layers make links of that.

use tracing::Span;
use tracing::field::Empty;

use crate::dynamodb::BatchReceipt;
use crate::error::{BatchError, FailureClass};
use crate::pending::PendingEvent;
use crate::write_mode::WriteMode;

/// What the spans of all calls have in common.
#[derive(Debug)]
pub(super) struct CallSpans {
    table: Option<String>,
    operation: &'static str,
}

impl CallSpans {
    pub(super) fn new(table: Option<String>, mode: WriteMode) -> Self {
        let operation = match mode {
            WriteMode::Put => "BatchWriteItem",
            WriteMode::Insert => "BatchExecuteStatement",
        };
        Self { table, operation }
    }

    /// The span of a call that carries this batch. The fields are evaluated only if a subscriber wants the span.
    pub(super) fn of(&self, batch: &[PendingEvent], bytes: usize) -> Span {
        // A root: the worker serves many callers, and none of their spans is the parent of a shared call.
        let span = tracing::debug_span!(
            target: "dynamodb_eventstore",
            parent: None,
            "write_batch",
            otel.name = self.operation,
            otel.kind = "client",
            db.system.name = "aws.dynamodb",
            db.operation.name = self.operation,
            db.operation.batch.size = batch.len(),
            aws.dynamodb.table_names = self.table.as_deref(),
            bytes,
            attempt = batch.iter().map(PendingEvent::attempts).max(),
            unprocessed = Empty,
            consumed_write_units = Empty,
            aws.request_id = Empty,
            "error.type" = Empty,
            otel.status_code = Empty,
        );
        if !span.is_disabled() {
            link_to_callers(&span, batch);
        }
        span
    }
}

/// Links a call to the spans in which its events were put, once to each.
fn link_to_callers(span: &Span, batch: &[PendingEvent]) {
    let mut linked = Vec::new();
    for caller in batch.iter().filter_map(PendingEvent::caller).filter_map(Span::id) {
        if !linked.contains(&caller) {
            span.follows_from(&caller);
            linked.push(caller);
        }
    }
}

/// Records the outcome of a call in its span, and closes it.
pub(super) fn record_outcome(span: Span, result: &Result<BatchReceipt, BatchError>) {
    if span.is_disabled() {
        return;
    }
    match result {
        Ok(receipt) => {
            span.record("aws.request_id", receipt.request_id());
            span.record("consumed_write_units", receipt.consumed_write_units());
            span.record("unprocessed", receipt.unprocessed().len());
        }
        Err(error) => {
            span.record("aws.request_id", error.request_id());
            record_error(&span, error.code().unwrap_or_else(|| class_name(error.class())));
        }
    }
}

/// Records why a call failed: the code of the service, or a word for a failure without a code.
pub(super) fn record_error(span: &Span, error_type: &str) {
    span.record("error.type", error_type);
    span.record("otel.status_code", "ERROR");
}

fn class_name(class: FailureClass) -> &'static str {
    match class {
        FailureClass::Unprocessed => "unprocessed",
        FailureClass::Throttled => "throttled",
        FailureClass::Transient => "transient",
        FailureClass::ExpiredCredentials => "expired_credentials",
        FailureClass::ClockSkew => "clock_skew",
        FailureClass::Invalid => "invalid",
        FailureClass::Duplicate => "duplicate",
        FailureClass::Refused => "refused",
        FailureClass::Fatal => "fatal",
        FailureClass::Panicked => "panicked",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_has_the_name_that_it_has_in_json() {
        for class in [
            FailureClass::Unprocessed,
            FailureClass::Throttled,
            FailureClass::Transient,
            FailureClass::ExpiredCredentials,
            FailureClass::ClockSkew,
            FailureClass::Invalid,
            FailureClass::Duplicate,
            FailureClass::Refused,
            FailureClass::Fatal,
            FailureClass::Panicked,
        ] {
            assert_eq!(serde_json::to_value(class).ok(), Some(class_name(class).into()));
        }
    }
}
