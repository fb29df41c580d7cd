//! Reads events by their keys.

use std::collections::HashMap;
use std::time::Duration;

use dynamodb_eventstore::{
    BatchError, BatchWriter, Certainty, EventKey, FailureClass, SdkBatchWriter,
};
use tokio::time::{self, sleep_until};

use crate::time::now;

/// Time for one read.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

const MIN_RETRY_WAIT: Duration = Duration::from_millis(50);
const MAX_RETRY_WAIT: Duration = Duration::from_secs(5);

/// Reads what is stored under these keys, 1 to 25 distinct ones. The inner `None` stands for a body that is not a
/// String. Keys that a read leaves out are read again, for as
/// long as there is progress.
pub(crate) async fn read_keys(
    reader: &SdkBatchWriter,
    keys: &[EventKey],
    timeout: Duration,
) -> Result<HashMap<EventKey, Option<String>>, BatchError> {
    let (mut found, mut unread) = (HashMap::new(), keys.to_vec());
    let (mut last_progress, mut wait) = (now(), MIN_RETRY_WAIT);
    while !unread.is_empty() {
        let failure = match time::timeout(READ_TIMEOUT, reader.read_batch(&unread)).await {
            Ok(Ok(reading)) => {
                let before = unread.len();
                unread.retain(|key| {
                    if let Some(body) = reading.body(key) {
                        found.insert(*key, body.map(str::to_owned));
                    }
                    reading.is_unread(key)
                });
                if unread.len() < before {
                    (last_progress, wait) = (now(), MIN_RETRY_WAIT);
                }
                batch_error(FailureClass::Unprocessed, "the table has too little read capacity")
            }
            Ok(Err(error)) => error,
            Err(_) => batch_error(FailureClass::Transient, "the read timed out"),
        };
        if unread.is_empty() {
            break;
        }
        let is_refused = failure.class() == FailureClass::Refused;
        if is_refused || !failure.class().is_retryable() || now() + wait >= last_progress + timeout
        {
            return Err(failure);
        }
        sleep_until(now() + wait).await;
        wait = MAX_RETRY_WAIT.min(wait * 2);
    }
    Ok(found)
}

fn batch_error(class: FailureClass, message: &str) -> BatchError {
    BatchError::new(class, Certainty::NotStored, message)
}
