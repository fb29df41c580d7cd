//! [`EventStoreBuilder`]: the settings of a store, and its start.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{Credentials, ProvideCredentials, SharedCredentialsProvider};
use rand::Rng;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until};

use super::config::Config;
use crate::clock::{KeyClock, now};
use crate::dynamodb::BatchWriter;
use crate::dynamodb::table::Table;
use crate::dynamodb::target::{TargetSettings, Transport};
use crate::error::ConfigError;
#[cfg(feature = "journal")]
use crate::journal::Journal;
use crate::key_source::KeySource;
use crate::policy::retry::Backoff;
use crate::store::EventStore;
use crate::store::start_error::StartError;
use crate::store::store_lease::StoreLease;
use crate::store::writer_ids::Source;

/// The provider name of static credentials, which the SDK shows in its logs.
const PROVIDER_NAME: &str = "EventStoreBuilder";

/// Sets up an [`EventStore`]; made by [`EventStore::builder`].
///
/// There are four ways to set where the store writes:
///
/// 1. [`table`](Self::table), with any of [`region`](Self::region), [`credentials`](Self::credentials) and
///    [`endpoint_url`](Self::endpoint_url). What is not set comes from the standard AWS chain (environment, profile,
///    container, instance).
/// 2. [`table`](Self::table) and a whole [`sdk_config`](Self::sdk_config).
/// 3. [`table`](Self::table) and your own [`client`](Self::client).
/// 4. Your own [`batch_writer`](Self::batch_writer).
///
/// The other settings have defaults for a service that writes to one table. A value out of range is an error of
/// [`start`](Self::start); none is adjusted silently.
#[must_use = "a builder does nothing until start()"]
#[derive(Default)]
pub struct EventStoreBuilder {
    pub(super) config: Config,
    pub(super) target: TargetSettings,
    skip_table_check: bool,
    #[cfg(feature = "journal")]
    pub(super) journal: Option<Journal>,
}

/// # Target: where and how the store writes
impl EventStoreBuilder {
    /// Table to write to: its name or its ARN. Its only key must be the hash key `key`, a String.
    pub fn table(mut self, table: impl Into<String>) -> Self {
        self.target.table = Some(table.into());
        self
    }

    /// AWS region, for example `eu-central-1`.
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.target.region = Some(region.into());
        self
    }

    /// Static credentials. Prefer the standard chain if there is one, as it refreshes credentials.
    pub fn credentials(
        self,
        access_key_id: impl Into<String>,
        secret_access_key: impl Into<String>,
    ) -> Self {
        let (id, secret) = (access_key_id.into(), secret_access_key.into());
        self.credentials_provider(Credentials::new(id, secret, None, None, PROVIDER_NAME))
    }

    /// Static credentials with a session token, as AWS STS issues them. They expire, and are not renewed; a
    /// [`credentials_provider`](Self::credentials_provider) can renew them.
    pub fn session_credentials(
        self,
        access_key_id: impl Into<String>,
        secret_access_key: impl Into<String>,
        session_token: impl Into<String>,
    ) -> Self {
        let (id, secret) = (access_key_id.into(), secret_access_key.into());
        let token = Some(session_token.into());
        self.credentials_provider(Credentials::new(id, secret, token, None, PROVIDER_NAME))
    }

    /// A provider of credentials. The store asks it when it has none and when they are about to expire. It also asks
    /// when the service refuses them, at most every 3 s.
    pub fn credentials_provider(mut self, provider: impl ProvideCredentials + 'static) -> Self {
        self.target.credentials = Some(SharedCredentialsProvider::new(provider));
        self
    }

    /// Endpoint to use instead of the region's; `http://` means without TLS.
    pub fn endpoint_url(mut self, endpoint_url: impl Into<String>) -> Self {
        self.target.endpoint_url = Some(endpoint_url.into());
        self
    }

    /// A whole SDK configuration: region, credentials, endpoint, HTTP client.
    pub fn sdk_config(mut self, sdk_config: &SdkConfig) -> Self {
        self.target.sdk_config = Some(sdk_config.clone());
        self
    }

    /// Your own client, with its interceptors. The store switches off the client's retries for its own calls, as it
    /// retries by itself and has to see every attempt. Interceptors find the items in the request's body, not in the
    /// operation's input.
    ///
    /// Without your own client, the store uses parts of the SDK without its orchestrator, which takes less CPU time.
    /// Its writes are then not in the SDK's spans and metrics, and have no `amz-sdk-` headers. See
    /// [`transport`](Self::transport).
    pub fn client(mut self, client: &Client) -> Self {
        self.target.client = Some(client.clone());
        self
    }

    /// Your own way to write a batch instead of `BatchWriteItem`, or one wrapped around it. It replaces all other
    /// settings of the target.
    pub fn batch_writer(mut self, batch_writer: impl BatchWriter) -> Self {
        self.target.batch_writer = Some(Arc::new(batch_writer));
        self
    }

    /// How batches are sent to the service. Default: [`Transport::Automatic`].
    pub fn transport(mut self, transport: Transport) -> Self {
        self.target.transport = transport;
        self
    }

    /// Whether the service reports the write units that each call consumed. Their sum is
    /// [`Stats::consumed_write_units`](crate::Stats::consumed_write_units), and an event's share is
    /// [`Stored::write_units`](crate::Stored::write_units). Responses become longer by some hundred bytes. Default: no.
    /// Not to be set with a [`batch_writer`](Self::batch_writer), which decides that by itself.
    pub fn return_consumed_capacity(mut self, return_consumed_capacity: bool) -> Self {
        self.target.return_consumed_capacity = return_consumed_capacity;
        self
    }
}

/// # Batching: how events share a call
impl EventStoreBuilder {
    /// The maximum number of events in one call, 1 to 25. Default: 25, the service's limit. A call takes the same time
    /// for one event as for 25.
    pub fn max_batch_events(mut self, max_batch_events: usize) -> Self {
        self.config.worker.max_batch_events = max_batch_events;
        self
    }

    /// How long an event waits for others to share its call, 0 to 1 hour, and at most half of
    /// [`event_deadline`](Self::event_deadline). Default: 5 ms, which is short compared with a call, and enough to fill
    /// batches from 5,000 events/s on. A full batch does not wait.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.config.worker.linger = linger;
        self
    }
}

/// # Limits: memory, calls in flight, write units
impl EventStoreBuilder {
    /// The maximum number of accepted events that are not settled, 1 to 100,000,000. Default: 10,000, half a second's
    /// work at 20,000 events/s. At the limit [`EventStore::put`] waits.
    ///
    /// While the table or a budget limits the writes, the limit is lower: as many events as are stored in half of
    /// [`event_deadline`](Self::event_deadline), but at least four full batches. So no event passes its deadline only
    /// because it waits.
    pub fn max_buffered_events(mut self, max_buffered_events: usize) -> Self {
        self.config.worker.max_buffered_events = max_buffered_events;
        self
    }

    /// The maximum bytes of memory for accepted events that are not settled, 409,600 to 68,719,476,735 (64 GiB less
    /// one). Default: 64 MiB. At the limit [`EventStore::put`] waits. Waiting puts are accepted in the order of their
    /// calls, so a small event does not overtake a large one.
    ///
    /// An event counts with its JSON text as a request carries it: one more byte for each quote, backslash, tab and
    /// line break. In addition it counts 350 bytes for its key, its ticket and bookkeeping. An event that is larger
    /// than the whole limit is accepted when the buffer is empty.
    ///
    /// Two things are not counted. Requests in flight are copies: no call begins while requests of a quarter of this
    /// limit or more are in flight, so they take at most that plus one call of up to 16 MB. And an event whose attempts
    /// fail keeps their history for its answer: about 1,300 bytes when there are many.
    pub fn max_buffered_bytes(mut self, max_buffered_bytes: usize) -> Self {
        self.config.worker.max_buffered_bytes = max_buffered_bytes;
        self
    }

    /// The maximum number of calls in flight, 1 to 1,000. Default: 64, which is 80,000 events/s at 20 ms a call, twice
    /// the default quota of a table. The store begins with 8, and uses more as long as more calls store more events.
    /// While the table limits the writes, its capacity also limits the calls in flight.
    pub fn max_batches_in_flight(mut self, max_batches_in_flight: usize) -> Self {
        self.config.worker.max_batches_in_flight = max_batches_in_flight;
        self
    }

    /// Limits the write units sent per second, 1 to 100,000,000, to leave capacity to others. Default: no limit. Each
    /// time an event is sent, it costs one unit per 1,024 bytes of its item, rounded up
    /// ([`Event::write_units`](crate::Event::write_units)). At most a tenth of a second's units are sent at once, or a
    /// single event that has more.
    ///
    /// Without a budget, calls are not delayed until the table throttles. From then on they are sent at the rate of its
    /// capacity, which the store measures.
    pub fn max_write_units_per_second(mut self, max_write_units_per_second: u32) -> Self {
        self.config.worker.max_write_units_per_second = Some(max_write_units_per_second);
        self
    }
}

/// # Retries and deadlines
impl EventStoreBuilder {
    /// How long one call may take, 1 ms to 1 hour. Default: 10 s, far more than the milliseconds that the service
    /// needs, and short enough for several attempts before an event's deadline. The SDK has no such timeout by default.
    pub fn attempt_timeout(mut self, attempt_timeout: Duration) -> Self {
        self.config.worker.attempt_timeout = attempt_timeout;
        self
    }

    /// How long after its acceptance an event may still be sent, 1 ms to 24 hours. Default: 60 s, the time after which
    /// AWS advises to stop retrying. A ticket is answered at the latest one [`attempt_timeout`](Self::attempt_timeout)
    /// after the deadline.
    pub fn event_deadline(mut self, event_deadline: Duration) -> Self {
        self.config.worker.retry.event_deadline = event_deadline;
        self
    }

    /// The maximum number of calls that carry the same event, 1 to 1,000,000. Default: 100. With the default backoff
    /// the deadline comes first; this limit is for a backoff with very short waits.
    ///
    /// Two kinds of calls do not count: the calls that find an invalid event in a batch, at most five, and calls that
    /// the service [refuses](crate::FailureClass::Refused) for every event.
    pub fn max_attempts(mut self, max_attempts: u32) -> Self {
        self.config.worker.retry.max_attempts = max_attempts;
        self
    }

    /// How long to wait between attempts. 0 ≤ floor ≤ base ≤ ceiling ≤ 1 hour, and 1 ms ≤ base. The defaults are those
    /// of [`Backoff`].
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.config.worker.retry.backoff = backoff;
        self
    }

    /// How long the service may refuse every call (access denied, unknown credentials) until that is final and every
    /// queued event fails, 0 to 24 hours. Default: 5 s, because new roles, keys and permissions are refused for some
    /// seconds ([changes are not always visible
    /// immediately](https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot.html#troubleshoot_general_eventual-consistency)).
    ///
    /// Until then the store tries one call at a time, 50 ms to 1 s after the last, with fresh credentials. The refusal
    /// is final only if at least two of these calls are refused, too. With 0 the first refusal is final.
    ///
    /// A refusal ends with a call that succeeds, is throttled or is rejected as invalid, and after 5 s without a
    /// refused call. Then the time starts again. While a final refusal lasts, later events fail at their first attempt.
    pub fn refusal_timeout(mut self, refusal_timeout: Duration) -> Self {
        self.config.worker.refusal_timeout = refusal_timeout;
        self
    }
}

/// # Certainty of answers
impl EventStoreBuilder {
    /// Whether [`start`](Self::start) checks the table's key schema with `DescribeTable`. Default: yes, as a table with
    /// another schema refuses every batch. If the role may not describe the table, the check is skipped with a warning
    /// in the log.
    pub fn check_table(mut self, check_table: bool) -> Self {
        self.skip_table_check = !check_table;
        self
    }

    /// Whether a failed event that may be stored is read back, with a consistent `BatchGetItem`, before its ticket is
    /// answered. Default: yes. It costs a read only if the answer would be *maybe stored*:
    ///
    /// - If it is found with its body, the event is [`Stored`](crate::Stored).
    /// - If it is not found, and every call that may have stored it has ended, it is
    ///   [`NotStored`](crate::Certainty::NotStored). A call is known to have ended when the service began to answer
    ///   with 200 and its request id, and the rest of the answer was lost. This assumes that nobody has deleted the
    ///   event meanwhile.
    /// - If it is not found after a call without an answer (a timeout, a broken connection) or with a 5xx, it stays
    ///   [`MaybeStored`](crate::Certainty::MaybeStored), as that call may be applied after the read.
    ///   [`read_back`](crate::WriteError::read_back) has the time of the read.
    ///
    /// A read that fails is repeated for one attempt timeout, but not beyond one attempt timeout after the event's
    /// deadline. If the role lacks `dynamodb:BatchGetItem`, the event stays maybe stored, and its error says so. To
    /// leave time for a read, a call may last only half of the attempt timeout beyond the event's deadline.
    pub fn read_back(mut self, read_back: bool) -> Self {
        self.config.worker.read_back = read_back;
        self
    }
}

/// # Testing
#[cfg(feature = "test-util")]
impl EventStoreBuilder {
    /// Feature `test-util`: makes the store deterministic. The writer id and the jitter of retries are drawn from
    /// `seed`. The time in keys is that of tokio's clock, which tests can pause, and begins at 2026-01-01. Not for
    /// production: two such stores make the same keys.
    pub fn deterministic(mut self, seed: u64) -> Self {
        self.config.seed = Some(seed);
        self
    }
}

/// # Start
impl EventStoreBuilder {
    /// Checks the settings and the table, and starts the store's worker on the current tokio runtime.
    ///
    /// `Ok` means that the settings are valid, and that the table exists with the right key schema if it was checked
    /// ([`check_table`](Self::check_table)). It does not mean that the role may write to it, which the first event
    /// shows.
    ///
    /// # Errors
    ///
    /// - [`StartError::Config`] names the setting, its value and its limit.
    /// - [`StartError::NoRuntime`]: the call is not within a tokio runtime.
    /// - [`StartError::Table`] says what is wrong with the table.
    /// - [`StartError::WriterId`]: no writer id could be leased. It says what to grant or to create.
    ///
    /// # Panics
    ///
    /// If the runtime has no timer ([`enable_time`](tokio::runtime::Builder::enable_time)).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future starts nothing. If an id was already leased, it is free again after two terms.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), dynamodb_eventstore::StartError> {
    /// use dynamodb_eventstore::EventStore;
    ///
    /// let store = EventStore::builder().table("all-events").region("us-east-1").start().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn start(self) -> Result<EventStore, StartError> {
        self.config.validate()?;
        self.target.validate(self.config.worker.write_mode)?;
        #[cfg(feature = "journal")]
        self.config.validate_with(self.journal.as_ref())?;
        let runtime = Handle::try_current().map_err(|_| StartError::NoRuntime)?;
        let check_table = !self.skip_table_check;
        let (config, transport) = (self.labelled_config(), self.target.transport);
        let return_consumed_capacity = self.target.return_consumed_capacity;
        let target = self.target.into_target().await?;
        if check_table && let Some((client, table)) = target.table() {
            // Boxed, so that the future of `start` does not keep its memory after the check.
            Box::pin(Table::new(client, table).check_before_writing()).await?;
        }
        let client = target.table().map(|(client, _)| client.clone());
        let writer =
            target.into_writer(transport, config.worker.write_mode, return_consumed_capacity);
        let mut random = config.random()?;
        let bits = random.next_u64();
        let key_clock = config.seed.map_or(KeyClock::Wall, |_| KeyClock::Runtime(now()));
        let keys = Arc::new(KeySource::new(config.id_source(bits), key_clock));
        // Panics here and not in the worker, if the runtime has no timer.
        drop(sleep_until(Instant::from_std(now())));
        let lease = match (&config.writer_ids.0, client) {
            (Source::Leased(ids), Some(client)) => {
                let random = config.fresh_random(bits);
                let terms = ids.terms(config.worker.refusal_timeout);
                Some(Box::pin(StoreLease::start(ids, &client, &keys, terms, random)).await?)
            }
            (Source::Leased(_), None) => {
                let limit = "not be leased together with `batch_writer`, which has no client";
                return Err(ConfigError::new("writer_id", "leased", limit).into());
            }
            _ => None,
        };
        #[cfg(feature = "journal")]
        let journal = self.journal.map(Journal::start).transpose()?;
        Ok(EventStore::spawn(
            &runtime,
            writer,
            config,
            keys,
            lease,
            random,
            #[cfg(feature = "journal")]
            journal,
        ))
    }
}

impl fmt::Debug for EventStoreBuilder {
    /// Shows the settings, without credentials.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("EventStoreBuilder")
            .field("config", &self.config)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}
