//! The table that holds the leases of writer ids: a trait, and its implementation with conditional `UpdateItem` calls.
//!
//! Each row is one id. The row keeps `until` after the lease has ended, because the next lease begins there.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::timeout;

use super::client::RefreshableClient;
use crate::error::BatchError;
use crate::event::key::WriterId;
use crate::lease::{LeaseAnswer, LeaseRequest, Token};

/// Hash key of the table: the five digits of a writer id.
pub(super) const ID_ATTRIBUTE: &str = "id";

/// The attribute by which the service may remove a row, in seconds since the Unix epoch.
pub(super) const EXPIRES_AT_ATTRIBUTE: &str = "expires_at";

/// How long a row is kept after the end of its range, in seconds: 30 days. Without the row the next holder begins at
/// its own clock. So keys stay unique if no clock is more than 30 days behind another.
const KEPT_FOR: u64 = 30 * 24 * 60 * 60;

/// Makes one attempt at one conditional write: the interface between a lease's keeper and the table.
///
/// `Err` with [`MaybeStored`](crate::Certainty::MaybeStored) means that the write may be applied, now or later.
pub(crate) trait LeaseTable: Send + Sync + 'static {
    fn write<'a>(
        &'a self,
        request: &'a LeaseRequest,
        limit: Duration,
    ) -> BoxFuture<'a, Result<LeaseAnswer, BatchError>>;
}

/// The table in DynamoDB.
#[derive(Debug)]
pub(crate) struct DynamoDbLeaseTable {
    client: RefreshableClient,
    table: String,
    /// Who holds a lease, for people who read the table.
    holder: String,
}

impl DynamoDbLeaseTable {
    pub(crate) fn new(client: &Client, table: &str) -> Self {
        let (table, holder) = (table.to_owned(), holder());
        Self { client: RefreshableClient::new(client), table, holder }
    }

    fn expression(
        &self,
        call: UpdateItemFluentBuilder,
        request: &LeaseRequest,
    ) -> UpdateItemFluentBuilder {
        let text = |text: String| AttributeValue::S(text);
        let number = |number: u64| AttributeValue::N(number.to_string());
        let (id, until) = match *request {
            LeaseRequest::Take { lease, .. } => (lease.id, lease.until),
            LeaseRequest::Extend { id, until, .. } | LeaseRequest::GiveBack { id, until, .. } => {
                (id, until)
            }
        };
        let call = call
            .table_name(&self.table)
            .key(ID_ATTRIBUTE, text(id.to_string()))
            .expression_attribute_names("#until", "until")
            .expression_attribute_names("#token", "token")
            .expression_attribute_names("#expires", EXPIRES_AT_ATTRIBUTE)
            .expression_attribute_values(":until", number(until))
            .expression_attribute_values(":expires", number(until / 1_000 + KEPT_FOR))
            // The response must contain the row. The empty 200 of a proxy does not.
            .return_values(ReturnValue::AllNew)
            // The token in the row shows who holds it. It also shows that an earlier claim was applied although its
            // answer was lost.
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match *request {
            LeaseRequest::Take { lease, free_before } => call
                .update_expression(
                    "SET #token = :token, #until = :until, #expires = :expires, #since = :from, \
                     #holder = :holder",
                )
                .condition_expression(
                    "attribute_not_exists(#id) OR #until < :free_before \
                     OR (attribute_not_exists(#token) AND #until <= :from)",
                )
                .expression_attribute_names("#id", ID_ATTRIBUTE)
                .expression_attribute_names("#since", "since")
                .expression_attribute_names("#holder", "holder")
                .expression_attribute_values(":token", text(lease.token.to_string()))
                .expression_attribute_values(":from", number(lease.from))
                .expression_attribute_values(":free_before", number(free_before))
                .expression_attribute_values(":holder", text(self.holder.clone())),
            LeaseRequest::Extend { held, token, .. } => call
                .update_expression("SET #token = :token, #until = :until, #expires = :expires")
                .condition_expression("#token = :held")
                .expression_attribute_values(":held", text(held.to_string()))
                .expression_attribute_values(":token", text(token.to_string())),
            LeaseRequest::GiveBack { held, .. } => call
                .update_expression(
                    "SET #until = :until, #expires = :expires REMOVE #token, #holder",
                )
                .condition_expression("#token = :held")
                .expression_attribute_names("#holder", "holder")
                .expression_attribute_values(":held", text(held.to_string())),
        }
    }

    async fn update(
        &self,
        request: &LeaseRequest,
        limit: Duration,
    ) -> Result<LeaseAnswer, BatchError> {
        let call = self.client.begin_call();
        let update = self
            .expression(call.client.update_item(), request)
            .customize()
            .interceptor(call.signing.clone())
            .send();
        match timeout(limit, update).await {
            Err(_) => Err(self.client.write_timed_out(limit, &call)),
            Ok(Ok(output)) => match output.attributes() {
                Some(row) if is_row_of(request, row) => Ok(LeaseAnswer::Applied),
                _ => Err(BatchError::invalid_response("it does not show the row that was written")),
            },
            Ok(Err(error)) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(refused)) => {
                    Ok(LeaseAnswer::Refused { token: refused.item().and_then(token) })
                }
                _ => Err(self.client.write_failure(&error, &call)),
            },
        }
    }
}

impl LeaseTable for DynamoDbLeaseTable {
    fn write<'a>(
        &'a self,
        request: &'a LeaseRequest,
        limit: Duration,
    ) -> BoxFuture<'a, Result<LeaseAnswer, BatchError>> {
        self.update(request, limit).boxed()
    }
}

/// Whether a row is the one that the request has written.
fn is_row_of(request: &LeaseRequest, row: &HashMap<String, AttributeValue>) -> bool {
    let has_id = |id: WriterId| {
        row.get(ID_ATTRIBUTE).and_then(|value| value.as_s().ok()) == Some(&id.to_string())
    };
    let written = match *request {
        LeaseRequest::Take { lease, .. } => (lease.id, Some(lease.token)),
        LeaseRequest::Extend { id, token, .. } => (id, Some(token)),
        LeaseRequest::GiveBack { id, .. } => (id, None),
    };
    has_id(written.0) && token(row) == written.1
}

fn token(row: &HashMap<String, AttributeValue>) -> Option<Token> {
    row.get("token")?.as_s().ok()?.parse().ok()
}

/// Host and process, as far as they are known.
fn holder() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .or_else(|| std::env::var("COMPUTERNAME").ok());
    let host = host.as_deref().map_or("unknown host", str::trim);
    format!("{host}, process {}", std::process::id())
}
