//! Calls the engine's operation that a request names.

use dynoxide::{Database, DynoxideError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::batch_write::batch_write_item;
use super::failure::Failure;
use super::json::{parse, serialise};
use super::limits::Limits;
use super::statements::batch_execute_statement;

/// The prefixes of an operation's name in a request.
const SERVICES: [&str; 2] = ["DynamoDB_20120810.", "DynamoDBStreams_20120810."];

/// Runs the operation that `target` names. Returns `None` if the engine has no such operation.
pub(super) fn run(
    database: &Database,
    limits: Option<&Limits>,
    target: &str,
    body: &str,
) -> Option<Result<String, Failure>> {
    let operation = SERVICES.iter().find_map(|service| target.strip_prefix(service))?;
    if let Some(limits) = limits
        && matches!(operation, "PutItem" | "UpdateItem" | "DeleteItem")
        && let Err(throttled) = limits.admit_request(body)
    {
        return Some(Err(throttled));
    }
    if let (Some(limits), "BatchExecuteStatement") = (limits, operation) {
        return Some(batch_execute_statement(database, limits, body));
    }
    let answer = match operation {
        "BatchExecuteStatement" => call(body, |request| database.batch_execute_statement(request)),
        "BatchGetItem" => call(body, |request| database.batch_get_item(request)),
        "BatchWriteItem" => return Some(batch_write_item(database, limits, body)),
        "CreateTable" => call(body, |request| database.create_table(request)),
        "DeleteItem" => call(body, |request| database.delete_item(request)),
        "DeleteTable" => call(body, |request| database.delete_table(request)),
        "DescribeStream" => call(body, |request| database.describe_stream(request)),
        "DescribeTable" => call(body, |request| database.describe_table(request)),
        "DescribeTimeToLive" => call(body, |request| database.describe_time_to_live(request)),
        "ExecuteStatement" => call(body, |request| database.execute_statement(request)),
        "ExecuteTransaction" => call(body, |request| database.execute_transaction(request)),
        "GetItem" => call(body, |request| database.get_item(request)),
        "GetRecords" => call(body, |request| database.get_records(request)),
        "GetShardIterator" => call(body, |request| database.get_shard_iterator(request)),
        "ListStreams" => call(body, |request| database.list_streams(request)),
        "ListTables" => call(body, |request| database.list_tables(request)),
        "ListTagsOfResource" => call(body, |request| database.list_tags_of_resource(request)),
        "PutItem" => call(body, |request| database.put_item(request)),
        "Query" => call(body, |request| database.query(request)),
        "Scan" => call(body, |request| database.scan(request)),
        "SearchVectors" => call(body, |request| database.search_vectors(request)),
        "TagResource" => call(body, |request| database.tag_resource(request)),
        "TransactGetItems" => call(body, |request| database.transact_get_items(request)),
        "TransactWriteItems" => call(body, |request| database.transact_write_items(request)),
        "UntagResource" => call(body, |request| database.untag_resource(request)),
        "UpdateItem" => call(body, |request| database.update_item(request)),
        "UpdateTable" => call(body, |request| database.update_table(request)),
        "UpdateTimeToLive" => call(body, |request| database.update_time_to_live(request)),
        _ => return None,
    };
    Some(answer.map_err(|error| error_for(operation, error).into()))
}

fn call<Request: DeserializeOwned, Response: Serialize>(
    body: &str,
    run: impl FnOnce(Request) -> dynoxide::Result<Response>,
) -> dynoxide::Result<String> {
    serialise(&run(parse(body)?)?)
}

/// The error in the form that DynamoDB uses for this operation.
fn error_for(operation: &str, error: DynoxideError) -> DynoxideError {
    match (operation, error) {
        ("PutItem" | "UpdateItem" | "DeleteItem", DynoxideError::EnvelopedValidation(message)) => {
            DynoxideError::ValidationException(format!("1 validation error detected: {message}"))
        }
        (
            "ExecuteStatement",
            DynoxideError::ConditionalCheckFailedException(message, Some(item)),
        ) => DynoxideError::StatementConditionalCheckFailed(message, item),
        (_, error) => error,
    }
}
