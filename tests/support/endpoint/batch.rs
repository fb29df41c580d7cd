//! Parses requests, and checks every rule for which DynamoDB would reject them.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Value, json};

use super::TABLE;

// The limits are repeated here, because those of the crate are under test. "16 MB" can mean two
// numbers of bytes. This is the smaller one.
const MAX_ITEMS: usize = 25;
const MAX_ITEM_BYTES: usize = 409_600;
const MAX_REQUEST_BYTES: usize = 16_000_000;
const MAX_KEYS: usize = 100;

/// A key that the stores under test never make.
pub(super) const UNKNOWN_KEY: &str = "20130927T005240652508858176";

/// Whether this is the only invalid request that the crate makes on purpose: a single item with an empty key.
pub(super) fn has_empty_key(bytes: &[u8]) -> bool {
    let put = json!([{ "PutRequest": { "Item": { "key": { "S": "" } } } }]);
    let statement = format!("INSERT INTO \"{TABLE}\" VALUE {{'key':?}}");
    let insert = json!({ "Statements": [{ "Statement": statement, "Parameters": [{ "S": "" }] }] });
    only_table(bytes).is_ok_and(|requests| requests == put)
        || serde_json::from_slice::<Value>(bytes).is_ok_and(|request| request == insert)
}

/// The items of one valid `BatchWriteItem` or `BatchExecuteStatement` request.
pub(super) struct Batch {
    pub(super) items: Vec<Item>,
}

#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) key: String,
    pub(super) body: String,
}

impl Item {
    /// An item that no request carries.
    pub(super) fn unknown() -> Self {
        Self { key: UNKNOWN_KEY.to_owned(), body: "{}".to_owned() }
    }

    pub(super) fn write_request(&self) -> Value {
        let Self { key, body } = self;
        json!({ "PutRequest": { "Item": { "key": { "S": key }, "body": { "S": body } } } })
    }

    pub(super) fn statement(&self) -> Value {
        let Self { key, body } = self;
        let statement = format!("INSERT INTO \"{TABLE}\" VALUE {{'key':?,'body':?}}");
        json!({ "Statement": statement, "Parameters": [{ "S": key }, { "S": body }] })
    }

    fn checked(self) -> Result<Self, String> {
        if !is_key(&self.key) {
            return Err(format!("an item with the malformed key `{}`", self.key));
        }
        if self.bytes() > MAX_ITEM_BYTES {
            return Err(format!("an item of {} bytes", self.bytes()));
        }
        Ok(self)
    }

    /// Size as DynamoDB counts it: the bytes of attribute names and values.
    fn bytes(&self) -> usize {
        "key".len() + self.key.len() + "body".len() + self.body.len()
    }
}

impl Batch {
    /// Parses the body of a `BatchWriteItem` request. An error names the broken rule.
    pub(super) fn parse_puts(bytes: &[u8]) -> Result<Self, String> {
        let requests = only_table(bytes)?;
        let requests = requests.as_array().ok_or("RequestItems without a list")?;
        Self::parse(bytes, requests, Self::parse_put)
    }

    /// Parses the body of a `BatchExecuteStatement` request that only inserts. An error names the broken rule.
    pub(super) fn parse_inserts(bytes: &[u8]) -> Result<Self, String> {
        let request: Value =
            serde_json::from_slice(bytes).map_err(|error| format!("not JSON: {error}"))?;
        let statements = request["Statements"].as_array().ok_or("no Statements")?;
        Self::parse(bytes, statements, Self::parse_insert)
    }

    fn parse(
        bytes: &[u8],
        requests: &[Value],
        parse_item: fn(&Value) -> Result<Item, String>,
    ) -> Result<Self, String> {
        if bytes.len() > MAX_REQUEST_BYTES {
            return Err(format!("a request of {} bytes", bytes.len()));
        }
        if !(1..=MAX_ITEMS).contains(&requests.len()) {
            return Err(format!("{} items in a batch", requests.len()));
        }
        let items = requests.iter().map(parse_item).collect::<Result<Vec<_>, _>>()?;
        let batch = Self { items };
        let keys = batch.keys();
        if keys.iter().collect::<HashSet<_>>().len() < keys.len() {
            return Err("a batch with a duplicate key".to_owned());
        }
        Ok(batch)
    }

    fn parse_insert(statement: &Value) -> Result<Item, String> {
        let text = |place: usize| statement["Parameters"][place]["S"].as_str().map(str::to_owned);
        let (Some(key), Some(body)) = (text(0), text(1)) else {
            return Err("a statement without a key or a body".to_owned());
        };
        let item = Item { key, body };
        if *statement != item.statement() {
            return Err(format!("the statement for {} is no plain insert", item.key));
        }
        item.checked()
    }

    fn parse_put(request: &Value) -> Result<Item, String> {
        let text = |attribute: &str| {
            let text = &request["PutRequest"]["Item"][attribute]["S"];
            text.as_str().map(str::to_owned)
        };
        let (Some(key), Some(body)) = (text("key"), text("body")) else {
            return Err("an item without a key or a body".to_owned());
        };
        let item = Item { key, body };
        // The request must have nothing but the key and the body.
        if *request != item.write_request() {
            return Err(format!("the item {} has more than a key and a body", item.key));
        }
        item.checked()
    }

    pub(super) fn keys(&self) -> Vec<String> {
        self.items.iter().map(|item| item.key.clone()).collect()
    }
}

/// One valid `BatchGetItem` request. It must ask for a consistent read, because other reads may
/// miss recent writes.
#[derive(Debug, Clone)]
pub(super) struct Read {
    pub(super) keys: Vec<String>,
    pub(super) projection: Option<String>,
    pub(super) names: HashMap<String, String>,
}

impl Read {
    /// Parses a request body. An error names the broken rule.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let asked = only_table(bytes)?;
        if asked["ConsistentRead"] != true {
            return Err("a read that is not consistent".to_owned());
        }
        let keys = asked["Keys"].as_array().ok_or("no list of keys")?;
        if !(1..=MAX_KEYS).contains(&keys.len()) {
            return Err(format!("{} keys in a read", keys.len()));
        }
        let keys: Vec<String> = keys.iter().map(Self::parse_key).collect::<Result<_, _>>()?;
        if keys.iter().collect::<HashSet<_>>().len() < keys.len() {
            return Err("a read with a duplicate key".to_owned());
        }
        let names: BTreeMap<String, Value> =
            serde_json::from_value(asked["ExpressionAttributeNames"].clone()).unwrap_or_default();
        let names = names
            .into_iter()
            .map(|(placeholder, name)| Some((placeholder, name.as_str()?.to_owned())))
            .collect::<Option<_>>()
            .ok_or("an attribute name that is not a string")?;
        let projection = asked["ProjectionExpression"].as_str().map(str::to_owned);
        Ok(Self { keys, projection, names })
    }

    fn parse_key(key: &Value) -> Result<String, String> {
        let text = key["key"]["S"].as_str().unwrap_or_default();
        if *key != json!({ "key": { "S": text } }) || !is_key(text) {
            return Err(format!("a read of the malformed key `{key}`"));
        }
        Ok(text.to_owned())
    }
}

/// The part of a request that concerns [`TABLE`]. No other table may be named.
fn only_table(bytes: &[u8]) -> Result<Value, String> {
    let mut request: Value =
        serde_json::from_slice(bytes).map_err(|error| format!("not JSON: {error}"))?;
    let tables = request["RequestItems"].as_object_mut().ok_or("no RequestItems")?;
    match tables.remove(TABLE) {
        Some(asked) if tables.is_empty() => Ok(asked),
        _ => Err(format!("a request for tables other than `{TABLE}`, or for none")),
    }
}

/// Whether this is a key of the store: 27 characters, all digits except for a `T` between date and
/// time.
fn is_key(text: &str) -> bool {
    let is_valid = |(index, byte): (usize, u8)| {
        if index == 8 { byte == b'T' } else { byte.is_ascii_digit() }
    };
    text.len() == 27 && text.bytes().enumerate().all(is_valid)
}
