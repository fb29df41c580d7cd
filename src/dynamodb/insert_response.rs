//! Parses responses to `BatchExecuteStatement`. A 200 has an answer for each statement, and each answer can be an
//! error.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use aws_sdk_dynamodb::operation::batch_execute_statement::BatchExecuteStatementOutput;
use serde::Deserialize;

use super::BatchReceipt;
use super::classify::redacted;
use super::response::{ConsumedCapacity, parse_output, total_units};
use crate::error::{BatchError, Certainty, FailureClass};
use crate::event::Event;

#[derive(Deserialize)]
struct Output<'a> {
    #[serde(rename = "Responses", borrow)]
    responses: Option<Vec<StatementResponse<'a>>>,
    #[serde(rename = "ConsumedCapacity")]
    consumed: Option<Vec<ConsumedCapacity>>,
}

#[derive(Deserialize)]
struct StatementResponse<'a> {
    #[serde(rename = "Error", borrow)]
    error: Option<StatementError<'a>>,
}

/// The error of one statement.
#[derive(Deserialize)]
struct StatementError<'a> {
    #[serde(rename = "Code", default, borrow)]
    code: Option<Cow<'a, str>>,
    #[serde(rename = "Message", default, borrow)]
    message: Option<Cow<'a, str>>,
}

/// Stands for the key of a statement that inserts an item with an empty one.
pub(super) const PROBE: &str = "";

pub(super) fn keys(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.key().as_str()).collect()
}

/// Parses the body of a 200 to the insert of an item with an empty key.
pub(super) fn parse_probe(body: &[u8]) -> Result<BatchReceipt, BatchError> {
    parse_receipt(&[PROBE], body)
}

/// Parses the body of a 200 to inserts with these keys.
pub(super) fn parse_receipt(keys: &[&str], body: &[u8]) -> Result<BatchReceipt, BatchError> {
    let Output { responses, consumed } = parse_output(body)?;
    let responses = responses.ok_or_else(no_answer)?;
    let receipt = match_errors(keys, responses.into_iter().map(|response| response.error))?;
    Ok(match consumed {
        Some(consumed) => receipt.with_consumed_write_units(total_units(&consumed)),
        None => receipt,
    })
}

/// The receipt for inserts with these keys, which were sent through the SDK.
pub(super) fn receipt(
    keys: &[&str],
    output: &BatchExecuteStatementOutput,
) -> Result<BatchReceipt, BatchError> {
    let responses = output.responses.as_deref().ok_or_else(no_answer)?;
    let errors = responses.iter().map(|response| {
        response.error.as_ref().map(|error| StatementError {
            code: error.code.as_ref().map(|code| Cow::Borrowed(code.as_str())),
            message: error.message.as_deref().map(Cow::Borrowed),
        })
    });
    let receipt = match_errors(keys, errors)?;
    Ok(match &output.consumed_capacity {
        Some(consumed) => receipt.with_consumed_write_units(
            consumed.iter().filter_map(|consumed| consumed.capacity_units).sum(),
        ),
        None => receipt,
    })
}

/// An empty 200 of a proxy must not look like an acknowledgement.
fn no_answer() -> BatchError {
    BatchError::invalid_response("a 200 that does not answer each statement")
}

/// Matches the answers with the events by their order. The answers have the order of the statements ([API
/// reference](https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchExecuteStatement.html)).
///
/// If the service throttles or refuses every statement, the call fails as a whole, like a `BatchWriteItem` call.
fn match_errors<'a>(
    keys: &[&str],
    errors: impl Iterator<Item = Option<StatementError<'a>>>,
) -> Result<BatchReceipt, BatchError> {
    let errors: Vec<_> = errors.collect();
    if errors.len() != keys.len() {
        return Err(no_answer());
    }
    if let Some(failure) = failure_of_all(&errors) {
        return Err(failure);
    }
    let mut receipt = BatchReceipt::all_processed();
    // The failures of one call have few different codes. Events with the same code share one error.
    let mut failures: HashMap<&str, Arc<BatchError>> = HashMap::new();
    for (key, error) in keys.iter().zip(&errors) {
        let Some(error) = error else { continue };
        let failure = failures.entry(error.code()).or_insert_with(|| Arc::new(error.failure()));
        receipt = receipt.with_failed(*key, Arc::clone(failure));
    }
    Ok(receipt)
}

/// The failure of the call, if the service throttles or refuses every statement.
fn failure_of_all(errors: &[Option<StatementError<'_>>]) -> Option<BatchError> {
    let class = |error: &StatementError<'_>| classify_statement(error.code()).0;
    let first = errors.first()?.as_ref()?;
    let is_of_all = matches!(class(first), FailureClass::Throttled | FailureClass::Refused)
        && errors
            .iter()
            .all(|error| error.as_ref().is_some_and(|error| class(error) == class(first)));
    is_of_all.then(|| first.failure())
}

impl StatementError<'_> {
    fn code(&self) -> &str {
        self.code.as_deref().unwrap_or_default()
    }

    /// The failure that this error means.
    fn failure(&self) -> BatchError {
        let code = self.code();
        let (class, certainty) = classify_statement(code);
        let message = match class {
            FailureClass::Duplicate => "an item with this key is in the table".to_owned(),
            _ => redacted(
                code,
                self.message.as_deref().unwrap_or("a statement failed without a message"),
            ),
        };
        let failure = BatchError::new(class, certainty, message);
        if code.is_empty() { failure } else { failure.with_code(code) }
    }
}

/// The class of a code, and whether the event may be stored. The codes are those of
/// [`BatchStatementError`](https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchStatementError.html).
fn classify_statement(code: &str) -> (FailureClass, Certainty) {
    use Certainty::{MaybeStored, NotStored};
    match code {
        "DuplicateItem" | "ConditionalCheckFailed" => (FailureClass::Duplicate, NotStored),
        "ThrottlingError" | "ProvisionedThroughputExceeded" | "RequestLimitExceeded" => {
            (FailureClass::Throttled, NotStored)
        }
        "AccessDenied" | "ResourceNotFound" => (FailureClass::Refused, NotStored),
        "ValidationError" | "ItemCollectionSizeLimitExceeded" => (FailureClass::Invalid, NotStored),
        "TransactionConflict" => (FailureClass::Transient, NotStored),
        // InternalServerError, and codes that this crate does not know.
        _ => (FailureClass::Transient, MaybeStored),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::key::{KeyGenerator, WriterId};

    fn events(count: usize) -> Vec<Event> {
        let mut keys = KeyGenerator::new(WriterId::new(0).unwrap());
        (0..count).map(|_| Event::new(keys.next(0).unwrap(), "{}").unwrap()).collect()
    }

    fn classes(receipt: &BatchReceipt) -> Vec<(String, FailureClass, Certainty)> {
        let failed = receipt.failed().iter();
        failed.map(|(key, failure)| (key.clone(), failure.class(), failure.certainty())).collect()
    }

    #[test]
    fn each_statement_has_its_own_answer() {
        let events = events(4);
        let body = r#"{"Responses":[{"TableName":"events"},
            {"Error":{"Code":"DuplicateItem","Message":"Duplicate primary key exists in table"},"TableName":"events"},
            {"Error":{"Code":"ProvisionedThroughputExceeded"}},
            {"Error":{"Code":"InternalServerError","Message":"m"}}],
            "ConsumedCapacity":[{"CapacityUnits":2.0},{"CapacityUnits":1.0}]}"#;
        let receipt = parse_receipt(&keys(&events), body.as_bytes()).unwrap();
        let key = |index: usize| events[index].key().to_string();
        let expected = [
            (key(1), FailureClass::Duplicate, Certainty::NotStored),
            (key(2), FailureClass::Throttled, Certainty::NotStored),
            (key(3), FailureClass::Transient, Certainty::MaybeStored),
        ];
        assert_eq!(classes(&receipt), expected);
        assert_eq!(receipt.consumed_write_units(), Some(3.0));
    }

    #[test]
    fn every_code_of_the_service_has_a_class() {
        use FailureClass::{Duplicate, Invalid, Refused, Throttled, Transient};
        for (code, class, certainty) in [
            ("DuplicateItem", Duplicate, Certainty::NotStored),
            ("ConditionalCheckFailed", Duplicate, Certainty::NotStored),
            ("ThrottlingError", Throttled, Certainty::NotStored),
            ("ProvisionedThroughputExceeded", Throttled, Certainty::NotStored),
            ("RequestLimitExceeded", Throttled, Certainty::NotStored),
            ("AccessDenied", Refused, Certainty::NotStored),
            ("ResourceNotFound", Refused, Certainty::NotStored),
            ("ValidationError", Invalid, Certainty::NotStored),
            ("ItemCollectionSizeLimitExceeded", Invalid, Certainty::NotStored),
            ("TransactionConflict", Transient, Certainty::NotStored),
            ("InternalServerError", Transient, Certainty::MaybeStored),
            ("SomethingNew", Transient, Certainty::MaybeStored),
            ("", Transient, Certainty::MaybeStored),
        ] {
            assert_eq!(classify_statement(code), (class, certainty), "{code}");
        }
    }

    #[test]
    fn statements_that_are_all_throttled_fail_the_call() {
        let error = r#"{"Error":{"Code":"ThrottlingError"}}"#;
        let body = format!(r#"{{"Responses":[{error},{error}]}}"#);
        let failure = parse_receipt(&keys(&events(2)), body.as_bytes()).unwrap_err();
        assert_eq!(failure.class(), FailureClass::Throttled);
        let body = format!(r#"{{"Responses":[{error},{{}}]}}"#);
        assert_eq!(parse_receipt(&keys(&events(2)), body.as_bytes()).unwrap().failed().len(), 1);
    }

    #[test]
    fn response_that_does_not_answer_each_statement_is_invalid() {
        for body in [
            "",
            "{}",
            "null",
            r#"{"Responses":null}"#,
            r#"{"Responses":[]}"#,
            r#"{"Responses":[{}]}"#,
            r#"{"Responses":[{},{},{}]}"#,
            r#"{"Responses":[{},{"Error":"DuplicateItem"}]}"#,
            r#"{"UnprocessedItems":{}}"#,
        ] {
            let failure = parse_receipt(&keys(&events(2)), body.as_bytes()).unwrap_err();
            assert_eq!(failure.certainty(), Certainty::MaybeStored, "{body}");
            assert!(!failure.is_call_over(), "{body}");
        }
        let torn = parse_receipt(&keys(&events(2)), br#"{"Responses":[{},{"#).unwrap_err();
        assert!(torn.is_call_over());
    }

    #[test]
    fn message_of_a_statement_shows_no_data() {
        let body = r#"{"Responses":[{"Error":{"Code":"ValidationError","Message":"bad: {\"S\":\"secret\"}"}}]}"#;
        let receipt = parse_receipt(&keys(&events(1)), body.as_bytes()).unwrap();
        let message = receipt.failed()[0].1.to_string();
        assert!(message.contains("bad") && !message.contains("secret"), "{message}");
    }
}
