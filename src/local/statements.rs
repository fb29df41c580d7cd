//! `BatchExecuteStatement` on a table with a limited capacity.

use dynoxide::Database;
use dynoxide::types::Item;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::failure::Failure;
use super::json::parse;
use super::limits::Limits;

/// The member of an answer with the answers to its statements.
const RESPONSES: &str = "Responses";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request {
    statements: Vec<Value>,
    #[serde(default)]
    return_consumed_capacity: Option<String>,
}

/// The parts of an insert that determine its table and its write units.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Statement {
    statement: String,
    #[serde(default)]
    parameters: Vec<Value>,
}

/// Answers one call. Inserts beyond the capacity of their table fail, each by itself, as in DynamoDB.
pub(super) fn batch_execute_statement(
    database: &Database,
    limits: &Limits,
    body: &str,
) -> Result<String, Failure> {
    // The engine refuses a request that cannot be parsed.
    let Ok(request) = serde_json::from_str::<Request>(body) else {
        return execute(database, body);
    };
    let is_throttled: Vec<bool> =
        request.statements.iter().map(|statement| is_throttled(limits, statement)).collect();
    if is_throttled.iter().all(|is_throttled| !is_throttled) {
        return execute(database, body);
    }
    let admitted: Vec<&Value> = (request.statements.iter().zip(&is_throttled))
        .filter(|(_, is_throttled)| !**is_throttled)
        .map(|(statement, _)| statement)
        .collect();
    let mut answer = Map::new();
    if !admitted.is_empty() {
        let mut rest = Map::new();
        rest.insert("Statements".to_owned(), json!(admitted));
        if let Some(mode) = request.return_consumed_capacity {
            rest.insert("ReturnConsumedCapacity".to_owned(), mode.into());
        }
        answer = parse(&execute(database, &Value::from(rest).to_string())?)?;
    }
    let mut answers = match answer.remove(RESPONSES) {
        Some(Value::Array(answers)) => answers.into_iter(),
        _ => Vec::new().into_iter(),
    };
    let responses: Vec<Value> = is_throttled
        .into_iter()
        .filter_map(|is_throttled| if is_throttled { Some(throttled()) } else { answers.next() })
        .collect();
    answer.insert(RESPONSES.to_owned(), responses.into());
    Ok(Value::from(answer).to_string())
}

fn execute(database: &Database, body: &str) -> Result<String, Failure> {
    let request = parse(body)?;
    Ok(super::json::serialise(&database.batch_execute_statement(request)?)?)
}

/// Whether the table has no capacity for the statement. Statements that do not insert parameters are not limited.
fn is_throttled(limits: &Limits, statement: &Value) -> bool {
    let Ok(Statement { statement, parameters }) = Statement::deserialize(statement) else {
        return false;
    };
    let Some((table, names)) = inserted(&statement) else { return false };
    let item: Value = names.into_iter().zip(parameters).collect::<Map<_, _>>().into();
    let Ok(item) = serde_json::from_value::<Item>(item) else { return false };
    limits.admit(table, &item).is_err()
}

/// The table and the attributes of `INSERT INTO "table" VALUE {'name':?,…}`.
fn inserted(statement: &str) -> Option<(&str, Vec<String>)> {
    let (table, item) = statement.strip_prefix("INSERT INTO \"")?.split_once("\" VALUE {")?;
    let names = item.strip_suffix('}')?.split(',').map(|pair| {
        let name = pair.trim().strip_suffix('?')?.trim_end().strip_suffix(':')?.trim();
        Some(name.strip_prefix('\'')?.strip_suffix('\'')?.to_owned())
    });
    Some((table, names.collect::<Option<_>>()?))
}

fn throttled() -> Value {
    let message = "The local table has no capacity left for this statement: it was started with a limit of write units.";
    json!({ "Error": { "Code": "ProvisionedThroughputExceeded", "Message": message } })
}
