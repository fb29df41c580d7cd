//! What comes in, held to every rule for which DynamoDB would reject it.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Value, json};

use super::TABLE;

// The limits are written down here once more: those of the crate are under test. What DynamoDB
// calls 16 MB is the smaller reading of it.
const MAX_ITEMS: usize = 25;
const MAX_ITEM_BYTES: usize = 409_600;
const MAX_REQUEST_BYTES: usize = 16_000_000;
const MAX_KEYS: usize = 100;

/// A key that no store of today makes.
pub(super) const STRANGER: &str = "20130927T005240652508858176";

/// The items of one `BatchWriteItem` request that keeps the rules.
pub(super) struct Batch {
    pub(super) items: Vec<Item>,
}

#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) key: String,
    pub(super) body: String,
}

impl Item {
    pub(super) fn stranger() -> Self {
        Self { key: STRANGER.to_owned(), body: "{}".to_owned() }
    }

    pub(super) fn write_request(&self) -> Value {
        let Self { key, body } = self;
        json!({ "PutRequest": { "Item": { "key": { "S": key }, "body": { "S": body } } } })
    }

    /// Size as DynamoDB counts it: the bytes of attribute names and values.
    fn bytes(&self) -> usize {
        "key".len() + self.key.len() + "body".len() + self.body.len()
    }
}

impl Batch {
    /// Reads a request body, or says which rule it breaks.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > MAX_REQUEST_BYTES {
            return Err(format!("a request of {} bytes", bytes.len()));
        }
        let requests = only_table(bytes)?;
        let requests = requests.as_array().ok_or("RequestItems without a list")?;
        if !(1..=MAX_ITEMS).contains(&requests.len()) {
            return Err(format!("{} items in a batch", requests.len()));
        }
        let items = requests.iter().map(Self::parse_item).collect::<Result<Vec<_>, _>>()?;
        let batch = Self { items };
        let keys = batch.keys();
        if keys.iter().collect::<HashSet<_>>().len() < keys.len() {
            return Err("a key twice in a batch".to_owned());
        }
        Ok(batch)
    }

    fn parse_item(request: &Value) -> Result<Item, String> {
        let text = |attribute: &str| {
            let text = &request["PutRequest"]["Item"][attribute]["S"];
            text.as_str().map(str::to_owned)
        };
        let (Some(key), Some(body)) = (text("key"), text("body")) else {
            return Err("an item without a key or a body".to_owned());
        };
        let item = Item { key, body };
        // Nothing may stand in the request but what was just read out of it.
        if *request != item.write_request() {
            return Err(format!("more than a key and a body at {}", item.key));
        }
        if !is_key(&item.key) {
            return Err(format!("`{}` for a key", item.key));
        }
        if item.bytes() > MAX_ITEM_BYTES {
            return Err(format!("an item of {} bytes", item.bytes()));
        }
        Ok(item)
    }

    pub(super) fn keys(&self) -> Vec<String> {
        self.items.iter().map(|item| item.key.clone()).collect()
    }
}

/// One `BatchGetItem` request that keeps the rules, and whose answer can be relied on: one that is
/// not consistent says nothing of what was written a moment ago.
#[derive(Debug, Clone)]
pub(super) struct Read {
    pub(super) keys: Vec<String>,
    pub(super) projection: Option<String>,
    pub(super) names: HashMap<String, String>,
}

impl Read {
    /// Reads a request body, or says which rule it breaks.
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
            return Err("a key twice in a read".to_owned());
        }
        let names: BTreeMap<String, Value> =
            serde_json::from_value(asked["ExpressionAttributeNames"].clone()).unwrap_or_default();
        let names = names
            .into_iter()
            .map(|(placeholder, name)| Some((placeholder, name.as_str()?.to_owned())))
            .collect::<Option<_>>()
            .ok_or("an attribute's name that is no text")?;
        let projection = asked["ProjectionExpression"].as_str().map(str::to_owned);
        Ok(Self { keys, projection, names })
    }

    fn parse_key(key: &Value) -> Result<String, String> {
        let text = key["key"]["S"].as_str().unwrap_or_default();
        if *key != json!({ "key": { "S": text } }) || !is_key(text) {
            return Err(format!("`{key}` for a key"));
        }
        Ok(text.to_owned())
    }
}

/// What a request asks of the one table that there is.
fn only_table(bytes: &[u8]) -> Result<Value, String> {
    let mut request: Value =
        serde_json::from_slice(bytes).map_err(|error| format!("not JSON: {error}"))?;
    let tables = request["RequestItems"].as_object_mut().ok_or("no RequestItems")?;
    match tables.remove(TABLE) {
        Some(asked) if tables.is_empty() => Ok(asked),
        _ => Err(format!("tables other than `{TABLE}`, or none")),
    }
}

/// Whether this is a key as the store makes them: 27 characters, all digits but for a `T` between
/// date and time.
fn is_key(text: &str) -> bool {
    let fits = |(place, byte): (usize, u8)| {
        if place == 8 { byte == b'T' } else { byte.is_ascii_digit() }
    };
    text.len() == 27 && text.bytes().enumerate().all(fits)
}
