//! Why an operation fails.

use dynoxide::DynoxideError;
use hyper::StatusCode;
use serde_json::json;

use crate::write_capacity::Throttle;

/// An error of the engine, or a write beyond the table's capacity.
#[derive(Debug)]
pub(super) enum Failure {
    Engine(DynoxideError),
    Throttled { throttle: Throttle, table: String },
}

impl From<DynoxideError> for Failure {
    fn from(error: DynoxideError) -> Self {
        Self::Engine(error)
    }
}

impl Failure {
    pub(super) fn status(&self) -> StatusCode {
        let status = match self {
            Self::Engine(error) => error.status_code(),
            Self::Throttled { .. } => 400,
        };
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    pub(super) fn to_json(&self) -> String {
        match self {
            Self::Engine(error) => error.to_json(),
            Self::Throttled { throttle, table } => throttled(*throttle, table),
        }
    }
}

/// The error in the format of the service. The name of the JSON member with the reasons depends
/// on the exception.
fn throttled(throttle: Throttle, table: &str) -> String {
    let (code, reason) = throttle.exception();
    let member = match code {
        "ThrottlingException" => "throttlingReasons",
        _ => "ThrottlingReasons",
    };
    let table = format!("arn:aws:dynamodb:us-east-1:000000000000:table/{table}");
    json!({
        "__type": format!("com.amazonaws.dynamodb.v20120810#{code}"),
        "message": "The local table has no capacity left for this request: it was started with a limit of write units.",
        member: [{ "reason": reason, "resource": table }],
    })
    .to_string()
}
