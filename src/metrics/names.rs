//! The names of the metrics, their units and their descriptions. `src/guide/metrics.md` has the table of them, and a test
//! compares both.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

pub(super) const EVENTS_ACCEPTED: &str = "dynamodb_eventstore_events_accepted_total";
pub(super) const EVENTS_STORED: &str = "dynamodb_eventstore_events_stored_total";
pub(super) const EVENTS_FAILED: &str = "dynamodb_eventstore_events_failed_total";
pub(super) const EVENTS_RETRIED: &str = "dynamodb_eventstore_events_retried_total";
pub(super) const PENDING_EVENTS: &str = "dynamodb_eventstore_pending_events";
pub(super) const PENDING_BYTES: &str = "dynamodb_eventstore_pending_bytes";
pub(super) const OLDEST_WAITING: &str = "dynamodb_eventstore_oldest_waiting_seconds";
pub(super) const PUT_TO_STORED: &str = "dynamodb_eventstore_put_to_stored_seconds";
pub(super) const BATCHES: &str = "dynamodb_eventstore_batches_total";
pub(super) const BATCH_EVENTS: &str = "dynamodb_eventstore_batch_events";
pub(super) const BATCH_DURATION: &str = "dynamodb_eventstore_batch_duration_seconds";
pub(super) const BATCHES_IN_FLIGHT: &str = "dynamodb_eventstore_batches_in_flight";
pub(super) const THROTTLED_UNITS: &str = "dynamodb_eventstore_throttled_write_units_total";
pub(super) const THROTTLED_BATCHES: &str = "dynamodb_eventstore_throttled_batches_total";
pub(super) const CONSUMED_UNITS: &str = "dynamodb_eventstore_consumed_write_units_total";
pub(super) const PACE: &str = "dynamodb_eventstore_pace_write_units_per_second";
pub(super) const WAITING_ON_DISK: &str = "dynamodb_eventstore_waiting_on_disk_events";
pub(super) const JOURNAL_BYTES: &str = "dynamodb_eventstore_journal_bytes";
pub(super) const REPLACED_KEYS: &str = "dynamodb_eventstore_replaced_keys_total";

/// Describes every metric to the recorder.
pub(super) fn describe() {
    for (name, unit, description) in [
        (EVENTS_ACCEPTED, Unit::Count, "Events that the store has accepted"),
        (EVENTS_STORED, Unit::Count, "Events stored: acknowledged, or found by a read"),
        (EVENTS_FAILED, Unit::Count, "Events that failed, by the reason"),
        (EVENTS_RETRIED, Unit::Count, "Events sent again, by the class of the failure before"),
        (BATCHES, Unit::Count, "Write calls to the service"),
        (THROTTLED_UNITS, Unit::Count, "Write units of events that the table has throttled"),
        (THROTTLED_BATCHES, Unit::Count, "Calls throttled as a whole, by the limit"),
        (CONSUMED_UNITS, Unit::Count, "Write units that the service reports as consumed"),
        (REPLACED_KEYS, Unit::Count, "Events that got a new key, as another item had theirs"),
    ] {
        describe_counter!(name, unit, description);
    }
    for (name, unit, description) in [
        (PENDING_EVENTS, Unit::Count, "Events accepted and not yet settled"),
        (PENDING_BYTES, Unit::Bytes, "Memory of the pending events"),
        (OLDEST_WAITING, Unit::Seconds, "Age of the oldest event that waits to be sent"),
        (WAITING_ON_DISK, Unit::Count, "Events that wait on disk for a place in the buffer"),
        (JOURNAL_BYTES, Unit::Bytes, "Bytes of the journal"),
        (BATCHES_IN_FLIGHT, Unit::Count, "Write calls in flight"),
        (PACE, Unit::CountPerSecond, "Write units that may be sent per second; 0 is no limit"),
    ] {
        describe_gauge!(name, unit, description);
    }
    for (name, unit, description) in [
        (PUT_TO_STORED, Unit::Seconds, "Time from acceptance until stored, of each stored event"),
        (BATCH_EVENTS, Unit::Count, "Events per write call"),
        (BATCH_DURATION, Unit::Seconds, "Duration of each write call, failed ones included"),
    ] {
        describe_histogram!(name, unit, description);
    }
}
