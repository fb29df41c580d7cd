//! The calls that prove credentials and permissions without a change of the table.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_credential_types::credential_feature::AwsCredentialFeature;
use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_dynamodb::Client;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::clock::{KeyClock, now};
use crate::dynamodb::classify::ACCESS_DENIED;
use crate::dynamodb::{BatchReceipt, BatchWriter, DirectBatchWriter};
use crate::error::BatchError;
use crate::event::KEY_ATTRIBUTE;
use crate::event::key::EventKey;
use crate::write_mode::WriteMode;

type Result = std::result::Result<String, (String, String)>;

/// Time limit of one call, and of the provider of the credentials.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A key whose time is before DynamoDB existed, so that no event has it.
const ABSENT_KEY: &str = "20000101T000000000000000000";

const INVALID: &str = "ValidationException";
const INVALID_STATEMENT: &str = "ValidationError";
const STATEMENT_DENIED: &str = "AccessDenied";

pub(super) fn allow(action: &str) -> String {
    format!("allow {action} on this table to the role (page `permissions` of the guide)")
}

/// Where the credentials come from.
pub(super) async fn credentials(sdk_config: &SdkConfig) -> Result {
    let advice = "name a profile (--profile, or AWS_PROFILE), set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or \
                  give the machine a role";
    let failed = |found: String| Err((found, advice.to_owned()));
    let Some(provider) = sdk_config.credentials_provider() else {
        return failed("no provider is configured".to_owned());
    };
    let provided = match timeout(CALL_TIMEOUT, provider.provide_credentials()).await {
        Ok(Ok(provided)) => provided,
        Ok(Err(error)) => return failed(error.to_string()),
        Err(_) => return failed(format!("the provider gave none within {CALL_TIMEOUT:?}")),
    };
    let source = source(&provided);
    let Some(expiry) = provided.expiry() else {
        return Ok(format!("from {source}, without an expiry time"));
    };
    let until = expires_in(expiry);
    if until.is_zero() {
        return Err((
            format!("those from {source} have expired"),
            "renew them, for example with `aws sso login`".to_owned(),
        ));
    }
    Ok(format!("from {source}, valid for {} s", until.as_secs()))
}

fn expires_in(expiry: SystemTime) -> Duration {
    let now = Duration::from_millis(KeyClock::Wall.unix_milliseconds());
    expiry.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(now)
}

/// The kind of provider, as the SDK notes it in the credentials.
fn source(credentials: &Credentials) -> &'static str {
    use AwsCredentialFeature as Feature;
    let features = credentials.get_property::<Vec<Feature>>().map_or(&[][..], Vec::as_slice);
    let named = features.iter().rev().find_map(|feature| match feature {
        Feature::CredentialsEnvVars => Some("environment variables"),
        Feature::CredentialsProfileSso | Feature::CredentialsSso => Some("an SSO session"),
        Feature::CredentialsProfileProcess | Feature::CredentialsProcess => {
            Some("a credential process")
        }
        Feature::CredentialsStsAssumeRole => Some("an assumed role"),
        Feature::CredentialsEnvVarsStsWebIdToken
        | Feature::CredentialsStsAssumeRoleWebId
        | Feature::CredentialsProfileStsWebIdToken => Some("a role of a web identity token"),
        Feature::CredentialsProfile
        | Feature::CredentialsProfileSourceProfile
        | Feature::CredentialsProfileNamedProvider => Some("an AWS profile"),
        Feature::CredentialsHttp => Some("the container's role"),
        Feature::CredentialsImds => Some("the instance's role"),
        Feature::CredentialsCode => Some("the program"),
        _ => None,
    });
    named.unwrap_or("a provider of the program's own")
}

/// Whether reads and writes are allowed, and by which transport the store will send.
pub(super) async fn read_and_write(
    client: &Client,
    table: &str,
    mode: WriteMode,
) -> (Result, Result, Result) {
    let writer = DirectBatchWriter::new(client, table).write_mode(mode);
    let read = read(&writer).await;
    let (action, probe) = match mode {
        WriteMode::Put => ("dynamodb:BatchWriteItem", put_probe(table)),
        WriteMode::Insert => ("dynamodb:PartiQLInsert", insert_probe(table)),
    };
    let (answer, is_direct) = writer.probe(Bytes::from(probe.to_string()), CALL_TIMEOUT).await;
    let transport = if is_direct {
        "direct: requests without the SDK's orchestrator"
    } else {
        "through the SDK, whose request cannot be repeated"
    };
    (read, permission(action, &answer), Ok(transport.to_owned()))
}

/// A request to put one item with an empty key.
fn put_probe(table: &str) -> Value {
    let put = json!({ "PutRequest": { "Item": { KEY_ATTRIBUTE: { "S": "" } } } });
    json!({ "RequestItems": { table: [put] } })
}

/// A request to insert one item with an empty key. The name of the table was checked.
fn insert_probe(table: &str) -> Value {
    let statement = format!("INSERT INTO \"{table}\" VALUE {{'{KEY_ATTRIBUTE}':?}}");
    json!({ "Statements": [{ "Statement": statement, "Parameters": [{ "S": "" }] }] })
}

async fn read(writer: &DirectBatchWriter) -> Result {
    let action = "dynamodb:BatchGetItem";
    let Ok(key) = ABSENT_KEY.parse::<EventKey>() else {
        return Err((format!("{ABSENT_KEY} is not a key"), "report this fault".to_owned()));
    };
    let began = now();
    let result = timeout(CALL_TIMEOUT, writer.read_batch(std::slice::from_ref(&key))).await;
    let took = now().saturating_duration_since(began);
    match result.unwrap_or_else(|_| Err(BatchError::timed_out(CALL_TIMEOUT))) {
        Ok(_) => Ok(format!("BatchGetItem is allowed; it took {} ms", took.as_millis())),
        Err(error) => Err(refusal(action, &error)),
    }
}

/// What the answer to a write of an invalid item says about the permission.
fn permission(action: &str, answer: &std::result::Result<BatchReceipt, BatchError>) -> Result {
    let failure = match answer {
        Ok(receipt) => receipt.failed().first().map(|(_, failure)| &**failure),
        Err(failure) => Some(failure),
    };
    match failure {
        Some(failure) if matches!(failure.code(), Some(INVALID | INVALID_STATEMENT)) => {
            let operation = action.trim_start_matches("dynamodb:");
            Ok(format!(
                "{operation} is allowed as far as a check can tell: the service rejected only the invalid item of the \
                 probe"
            ))
        }
        Some(failure) => Err(refusal(action, failure)),
        None => Err((
            "the endpoint accepted an item with an empty key".to_owned(),
            "check the endpoint URL: what answers there is not DynamoDB".to_owned(),
        )),
    }
}

fn refusal(action: &str, error: &BatchError) -> (String, String) {
    let advice = if matches!(error.code(), Some(ACCESS_DENIED | STATEMENT_DENIED)) {
        allow(action)
    } else {
        "repeat the check; if it stays so, look up the error code".to_owned()
    };
    (error.to_string(), advice)
}
