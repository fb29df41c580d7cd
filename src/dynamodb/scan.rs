//! One page of a parallel scan, and the size of the table before it.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::RequestId;
use aws_sdk_dynamodb::operation::scan::ScanOutput;
use aws_sdk_dynamodb::operation::scan::builders::ScanFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity, Select};
use tokio::time::timeout;

use super::classify::ACCESS_DENIED;
use super::client::RefreshableClient;
use super::table::{Table, TableError};
use crate::error::BatchError;
use crate::event::key_bounds::KeyBounds;
use crate::event::scanned_item::ScannedItem;
use crate::event::{BODY_ATTRIBUTE, KEY_ATTRIBUTE};

/// The name of the key attribute in an expression: KEY is a reserved word
/// ([list](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ReservedWords.html)).
const KEY_ALIAS: &str = "#key";

/// What `DescribeTable` says of a table's size. The service updates it about every six hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TableSize {
    pub(crate) items: u64,
    pub(crate) bytes: u64,
}

impl TableSize {
    /// The size of a table with the right key. `None` if the role is not allowed to describe it.
    pub(crate) async fn of(client: &Client, table: &str) -> Result<Option<Self>, TableError> {
        let table = Table::new(client, table);
        let description = match table.describe().await {
            Ok(description) => description,
            Err(TableError::Service { cause, .. }) if cause.code() == Some(ACCESS_DENIED) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        table.check_key(&description)?;
        table.check_status(&description)?;
        let number = |stated: Option<i64>| stated.and_then(|number| u64::try_from(number).ok());
        let items = number(description.item_count());
        let bytes = number(description.table_size_bytes());
        Ok(items.zip(bytes).map(|(items, bytes)| Self { items, bytes }))
    }
}

/// What is scanned, and how.
#[derive(Debug)]
pub(crate) struct Scanner {
    client: RefreshableClient,
    pub(crate) table: String,
    pub(crate) bounds: KeyBounds,
    pub(crate) is_consistent: bool,
    pub(crate) total_segments: u32,
    /// Whether pages have the number of their items only.
    pub(crate) counts_only: bool,
}

/// Where a page begins, and the most items that it evaluates.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageRequest<'a> {
    pub(crate) segment: u32,
    /// The last key of the page before it.
    pub(crate) after: Option<&'a str>,
    pub(crate) max_items: u32,
}

/// One page.
#[derive(Debug)]
pub(crate) struct ScanPage {
    /// Empty if pages are only counted.
    pub(crate) items: Vec<ScannedItem>,
    /// Items within the bounds.
    pub(crate) matching: u64,
    /// Items that the service evaluated, and that cost read units.
    pub(crate) scanned: u64,
    pub(crate) read_units: f64,
    /// Where the next page begins. `None` at the end of the segment.
    pub(crate) last_key: Option<String>,
}

impl Scanner {
    pub(crate) fn new(client: &Client, table: String, bounds: KeyBounds) -> Self {
        let client = RefreshableClient::new(client);
        let (is_consistent, total_segments, counts_only) = (false, 1, false);
        Self { client, table, bounds, is_consistent, total_segments, counts_only }
    }

    /// Makes one attempt to read a page.
    pub(crate) async fn page(
        &self,
        request: PageRequest<'_>,
        limit: Duration,
    ) -> Result<ScanPage, BatchError> {
        let call = self.client.begin_call();
        let scan = self.expression(call.client.scan(), request);
        let scan = scan.customize().interceptor(call.signing.clone()).send();
        match timeout(limit, scan).await {
            Err(_) => Err(BatchError::timed_out(limit)),
            Ok(Ok(output)) => {
                let request_id = output.request_id().map(str::to_owned);
                self.parse(request, output).map_err(|what| {
                    let error = BatchError::invalid_response(what);
                    match request_id {
                        Some(request_id) => error.with_request_id(request_id),
                        None => error,
                    }
                })
            }
            Ok(Err(error)) => Err(self.client.read_failure(&error, &call)),
        }
    }

    fn expression(&self, scan: ScanFluentBuilder, request: PageRequest<'_>) -> ScanFluentBuilder {
        let number = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        let start = request.after.map(|key| HashMap::from([(KEY_ATTRIBUTE.to_owned(), text(key))]));
        let scan = scan
            .table_name(&self.table)
            .segment(number(request.segment))
            .total_segments(number(self.total_segments))
            .consistent_read(self.is_consistent)
            .limit(number(request.max_items))
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .set_exclusive_start_key(start)
            .set_select(self.counts_only.then_some(Select::Count));
        let KeyBounds { from, to } = &self.bounds;
        let filter = match (from, to) {
            (None, None) => return scan,
            (Some(_), None) => "#key >= :from",
            (None, Some(_)) => "#key < :to",
            (Some(_), Some(_)) => "#key >= :from AND #key < :to",
        };
        let mut scan =
            scan.filter_expression(filter).expression_attribute_names(KEY_ALIAS, KEY_ATTRIBUTE);
        for (name, bound) in [(":from", from), (":to", to)] {
            if let Some(bound) = bound {
                scan = scan.expression_attribute_values(name, text(bound));
            }
        }
        scan
    }

    /// The page in an answer. An answer that is not whole must not count as the end of a segment: the SDK takes an
    /// empty 200 of a proxy for a page without items.
    fn parse(
        &self,
        request: PageRequest<'_>,
        output: ScanOutput,
    ) -> Result<ScanPage, &'static str> {
        let consumed = output.consumed_capacity().and_then(|consumed| consumed.capacity_units());
        let read_units = consumed.ok_or("a 200 without ConsumedCapacity")?;
        let last_key = match output.last_evaluated_key() {
            Some(key) if !key.is_empty() => {
                let key = key.get(KEY_ATTRIBUTE).and_then(|key| key.as_s().ok());
                Some(key.ok_or("a LastEvaluatedKey without a key")?.clone())
            }
            _ => None,
        };
        if last_key.is_some() && last_key.as_deref() == request.after {
            return Err("a LastEvaluatedKey that is the start of the page");
        }
        let number = |number: i32| u64::try_from(number).map_err(|_| "a negative count");
        let (matching, scanned) = (number(output.count())?, number(output.scanned_count())?);
        let items = match output.items {
            _ if self.counts_only => Vec::new(),
            Some(items) if items.len() as u64 == matching => {
                items.into_iter().map(scanned_item).collect::<Result<_, _>>()?
            }
            Some(_) => return Err("a Count that is not the number of items"),
            None => return Err("a 200 without Items"),
        };
        Ok(ScanPage { items, matching, scanned, read_units, last_key })
    }
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

fn scanned_item(mut item: HashMap<String, AttributeValue>) -> Result<ScannedItem, &'static str> {
    let string = |value: AttributeValue| match value {
        AttributeValue::S(text) => Some(text),
        _ => None,
    };
    let key = item.remove(KEY_ATTRIBUTE).and_then(string).ok_or("an item without a key")?;
    let body = item.remove(BODY_ATTRIBUTE).map(string);
    Ok(ScannedItem::of(key, body, item.into_keys().collect()))
}
