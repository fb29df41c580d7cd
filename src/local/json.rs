//! The JSON of requests and responses, with DynamoDB's errors.

use dynoxide::DynoxideError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

pub(super) fn serialise(response: &impl Serialize) -> dynoxide::Result<String> {
    serde_json::to_string(response)
        .map_err(|error| DynoxideError::InternalServerError(error.to_string()))
}

pub(super) fn parse<Request: DeserializeOwned>(body: &str) -> dynoxide::Result<Request> {
    serde_json::from_str(body).map_err(|error| refusal(&error))
}

/// Makes an error from a message.
type Constructor = fn(String) -> DynoxideError;

/// DynamoDB's error for a request that cannot be parsed. The engine's types put the class of the error
/// before its message when they refuse a value.
fn refusal(error: &serde_json::Error) -> DynoxideError {
    if error.classify() != Category::Data {
        return DynoxideError::SerializationException(String::new());
    }
    let whole = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let message = whole.strip_suffix(&place).unwrap_or(&whole);
    let classes: [(&str, Constructor); 5] = [
        ("VALIDATION:", DynoxideError::ValidationException),
        ("VALIDATION_AS_READ:", DynoxideError::ValidationException),
        ("VALIDATION_REQUEST:", DynoxideError::EnvelopedValidation),
        ("SERIALIZATION:", DynoxideError::SerializationException),
        ("SERIALIZATION_AS_READ:", DynoxideError::SerializationException),
    ];
    for (class, error) in classes {
        if let Some(message) = message.strip_prefix(class) {
            return error(message.to_owned());
        }
    }
    if message.starts_with("empty AttributeValue") {
        return DynoxideError::ValidationException(
            "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"
                .to_owned(),
        );
    }
    if message.starts_with("missing field") || message.starts_with("Supplied AttributeValue") {
        return DynoxideError::ValidationException(message.to_owned());
    }
    DynoxideError::SerializationException(message.to_owned())
}
