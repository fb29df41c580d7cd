//! Deletes the events of a run.

use aws_sdk_dynamodb::types::AttributeValue;
use dynamodb_eventstore::{EventKey, KEY_ATTRIBUTE};
use futures::StreamExt;

use crate::output::{Output, count, with_causes};
use crate::stop::signals::Signals;
use crate::target::Target;

/// Calls in flight.
const MAX_CALLS: usize = 64;

/// Deletes the items with these keys, and reports. Returns whether all are deleted.
pub(super) async fn delete(
    target: &Target,
    keys: Vec<EventKey>,
    signals: &mut Signals,
    output: &Output,
) -> bool {
    let all = keys.len() as u64;
    output.note(format_args!("deleting {} from {target}", count(all, "event")));
    let (client, table) = (target.client(), target.table_name());
    let (mut deleted, mut failed, mut first_error) = (0, 0, None);
    let mut calls = futures::stream::iter(keys)
        .map(|key| {
            let key = AttributeValue::S(key.to_string());
            client.delete_item().table_name(table).key(KEY_ATTRIBUTE, key).send()
        })
        .buffer_unordered(MAX_CALLS);
    loop {
        let answer = tokio::select! {
            biased;
            _signal = signals.next() => break,
            answer = calls.next() => answer,
        };
        match answer {
            Some(Ok(_)) => deleted += 1,
            Some(Err(error)) => {
                failed += 1;
                first_error.get_or_insert_with(|| with_causes(&error));
            }
            None => break,
        }
    }
    let left = all - deleted;
    if left == 0 {
        output.note(format_args!("deleted:    {}", count(deleted, "event")));
        return true;
    }
    let cause = first_error.map(|error| format!("; {failed} calls failed, the first: {error}"));
    output.error(format_args!(
        "deleted {}, and {} are left in {target}{}",
        count(deleted, "event"),
        count(left, "event"),
        cause.unwrap_or_default(),
    ));
    false
}
