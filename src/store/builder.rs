//! Building a store: where it writes, and how.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{Credentials, ProvideCredentials, SharedCredentialsProvider};
use rand::rngs::{StdRng, SysRng};
use rand::{Rng, SeedableRng};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until};

use super::config::Config;
use crate::clock::now;
use crate::dynamodb::BatchWriter;
use crate::dynamodb::table::{Table, TableError};
use crate::dynamodb::target::{TargetSettings, Transport};
use crate::error::ConfigError;
use crate::policy::retry::Backoff;
use crate::store::EventStore;

/// Why a store did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting is out of range, missing, or contradicts another.
    #[error(transparent)]
    Config(#[from] ConfigError),

    /// There is no tokio runtime for the worker to run on.
    #[error(
        "start() needs a tokio runtime: call it from within one, for example in #[tokio::main]"
    )]
    NoRuntime,

    /// The table is missing, has another key schema, or could not be asked.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Where credentials that were given say that they come from.
const PROVIDER: &str = "EventStoreBuilder";

/// Sets up an [`EventStore`]; made by [`EventStore::builder`].
///
/// Where the store writes is said in one of four ways:
///
/// 1. [`table`](Self::table), with any of [`region`](Self::region),
///    [`credentials`](Self::credentials) and [`endpoint_url`](Self::endpoint_url); what is not given
///    comes from the standard AWS chain (environment, profile, container, instance);
/// 2. [`table`](Self::table) and a whole [`sdk_config`](Self::sdk_config);
/// 3. [`table`](Self::table) and a ready [`client`](Self::client);
/// 4. any [`batch_writer`](Self::batch_writer).
///
/// The other settings have defaults that fit a service writing to one table.
#[must_use = "a builder does nothing until start()"]
#[derive(Default)]
pub struct EventStoreBuilder {
    config: Config,
    target: TargetSettings,
    skip_table_check: bool,
}

impl EventStoreBuilder {
    /// Table to write to: its name or its ARN. Its only key is the hash key `key`, a String.
    pub fn table(mut self, table: impl Into<String>) -> Self {
        self.target.table = Some(table.into());
        self
    }

    /// AWS region, for example `eu-central-1`.
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.target.region = Some(region.into());
        self
    }

    /// Static credentials. Prefer the standard chain where there is one: it refreshes by itself.
    pub fn credentials(
        self,
        access_key_id: impl Into<String>,
        secret_access_key: impl Into<String>,
    ) -> Self {
        let (id, secret) = (access_key_id.into(), secret_access_key.into());
        self.credentials_provider(Credentials::new(id, secret, None, None, PROVIDER))
    }

    /// Static credentials with a session token, as AWS STS gives them. They expire; a
    /// [`credentials_provider`](Self::credentials_provider) can renew them.
    pub fn session_credentials(
        self,
        access_key_id: impl Into<String>,
        secret_access_key: impl Into<String>,
        session_token: impl Into<String>,
    ) -> Self {
        let (id, secret) = (access_key_id.into(), secret_access_key.into());
        let token = Some(session_token.into());
        self.credentials_provider(Credentials::new(id, secret, token, None, PROVIDER))
    }

    /// Whatever provides credentials: it is asked when there are none, when they are about to expire, and when the
    /// service refuses them, then at most every 3 s.
    pub fn credentials_provider(mut self, provider: impl ProvideCredentials + 'static) -> Self {
        self.target.credentials = Some(SharedCredentialsProvider::new(provider));
        self
    }

    /// Endpoint to send to instead of the region's own; `http://` means without TLS.
    pub fn endpoint_url(mut self, endpoint_url: impl Into<String>) -> Self {
        self.target.endpoint_url = Some(endpoint_url.into());
        self
    }

    /// Everything about AWS in one: region, credentials, endpoint, HTTP client.
    pub fn sdk_config(mut self, sdk_config: &SdkConfig) -> Self {
        self.target.sdk_config = Some(sdk_config.clone());
        self
    }

    /// A ready client, with its interceptors and all. Only its retries are switched off, for this
    /// store alone: the store has its own, and sees every attempt. Interceptors find the items in the
    /// request's body, not in the operation's input. Without a client of yours the store calls the service
    /// at a lower cost, from the same parts; those writes are then not in the SDK's own spans and metrics, and
    /// have no `amz-sdk-` headers.
    pub fn client(mut self, client: &Client) -> Self {
        self.target.client = Some(client.clone());
        self
    }

    /// Another way to write a batch than `BatchWriteItem`, or one wrapped around it.
    pub fn batch_writer(mut self, batch_writer: impl BatchWriter) -> Self {
        self.target.batch_writer = Some(Arc::new(batch_writer));
        self
    }

    /// By which way batches go to the service. Default: [`Transport::Automatic`].
    pub fn transport(mut self, transport: Transport) -> Self {
        self.target.transport = transport;
        self
    }

    /// Has the service say how many write units each call took. [`Stats::consumed_write_units`] is their sum, and a
    /// [`BatchReceipt`](crate::BatchReceipt) has those of its call. Answers become longer by some hundred bytes.
    /// Default: no. A [`batch_writer`](Self::batch_writer) has a setting of its own.
    ///
    /// [`Stats::consumed_write_units`]: crate::Stats::consumed_write_units
    pub fn return_consumed_capacity(mut self, return_consumed_capacity: bool) -> Self {
        self.target.return_consumed_capacity = return_consumed_capacity;
        self
    }

    /// Whether [`start`](Self::start) asks `DescribeTable` for the table's key schema. Default: yes,
    /// as a table of another schema refuses every batch. Where the role may not describe the table,
    /// the check is skipped with a warning in the log.
    pub fn check_table(mut self, check_table: bool) -> Self {
        self.skip_table_check = !check_table;
        self
    }

    /// Most events in one call, 1 to 25. Default: 25, the service's limit; a call costs the same
    /// time for one event as for 25.
    pub fn max_batch_events(mut self, max_batch_events: usize) -> Self {
        self.config.max_batch_events = max_batch_events;
        self
    }

    /// How long an event waits for others to share its call, 0 to 1 hour, and at most half of the
    /// event's deadline. Default: 5 ms. That is
    /// little beside a call's own time, and enough to fill batches from 5,000 events/s on; under
    /// load batches fill up before it ends.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.config.linger = linger;
        self
    }

    /// Most calls at the same time, 1 to 1,000. Default: 64, which at 20 ms a call is 80,000 events/s,
    /// twice the default quota of a table. The store begins with 8 and uses more while more bring
    /// more events; where the table limits it, calls in flight are what its capacity makes them.
    pub fn max_batches_in_flight(mut self, max_batches_in_flight: usize) -> Self {
        self.config.max_batches_in_flight = max_batches_in_flight;
        self
    }

    /// Most write units that leave in a second, 1 to 100,000,000: a budget that leaves capacity to others.
    /// Default: none. An event costs one unit for each 1,024 bytes that its item begins
    /// ([`Event::write_units`](crate::Event::write_units)), each time it is sent. No more than a tenth of a
    /// second's units leave at once, except for an event that has more by itself.
    ///
    /// Without a budget calls leave as fast as the table takes them: unlimited until it refuses some for its
    /// capacity, and then at the rate of that capacity, which the store measures.
    pub fn max_write_units_per_second(mut self, max_write_units_per_second: u32) -> Self {
        self.config.max_write_units_per_second = Some(max_write_units_per_second);
        self
    }

    /// Most accepted events that are not settled, 1 to 100,000,000. Default: 10,000, half a
    /// second's work at 20,000 events/s. When it is reached, [`EventStore::put`] waits.
    /// Where the table or a budget limits the store, fewer come in: as many as are stored in half of
    /// [`event_deadline`](Self::event_deadline), so that none passes its deadline while it waits.
    pub fn max_buffered_events(mut self, max_buffered_events: usize) -> Self {
        self.config.max_buffered_events = max_buffered_events;
        self
    }

    /// Most bytes of memory that accepted events take which are not settled: 409,600 to 68,719,476,735,
    /// which is 64 GiB less one. Default: 64 MiB. When it is reached, [`EventStore::put`] waits; puts come
    /// in in the order of their calls, a small one not before a large one.
    ///
    /// Each event counts as its text, as it is kept: the way a request carries it, with a byte more for each
    /// quote, backslash, tab and line break. And 350 bytes for its key, its ticket and the bookkeeping. An event that
    /// is larger than all of this comes in when it is alone.
    ///
    /// Two things come on top. Requests under way are copies: no call begins while those before it take a
    /// quarter of this, so they take no more than that and one call, which is 16 MB at most. And of an event
    /// whose attempts fail is kept what they were, for its answer: some 1,300 bytes when there are many.
    pub fn max_buffered_bytes(mut self, max_buffered_bytes: usize) -> Self {
        self.config.max_buffered_bytes = max_buffered_bytes;
        self
    }

    /// How long one call may take, 1 ms to 1 hour. Default: 10 s, far above the milliseconds that
    /// the service needs, and short enough for several attempts within an event's deadline. The
    /// SDK by itself would wait for ever.
    pub fn attempt_timeout(mut self, attempt_timeout: Duration) -> Self {
        self.config.attempt_timeout = attempt_timeout;
        self
    }

    /// How long after its acceptance an event may still be sent, 1 ms to 24 hours. Default: 60 s,
    /// where AWS advises to stop retrying. A ticket is answered at the latest one
    /// [`attempt_timeout`](Self::attempt_timeout) after it.
    pub fn event_deadline(mut self, event_deadline: Duration) -> Self {
        self.config.event_deadline = event_deadline;
        self
    }

    /// Most calls that carry the same event, 1 to 1,000,000. Default: 100. With the default backoff
    /// the deadline comes first; this is a bound for a backoff without much of a wait. The calls that
    /// find the invalid one among an event's neighbours, five at most, come on top. Calls that are
    /// [refused](crate::FailureClass::Refused) as every event's would be do not count.
    pub fn max_attempts(mut self, max_attempts: u32) -> Self {
        self.config.max_attempts = max_attempts;
        self
    }

    /// How long to wait between attempts; its floor at most its base, its base at most its ceiling,
    /// its ceiling at most 1 hour.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.config.backoff = backoff;
        self
    }

    /// How long the service may refuse every call (access denied, unknown credentials) before that is final and
    /// every event that waits is given up, 0 to 24 hours. Default: 5 s: fresh roles, keys and permissions refuse for
    /// some seconds ([changes are not always visible at
    /// once](https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot.html#troubleshoot_general_eventual-consistency)).
    ///
    /// Until then one call at a time is tried, 50 ms to 1 s after the one before, with fresh credentials; at least two
    /// of them have to be refused as well. The time begins anew when a call succeeds or is throttled, and when no call
    /// was refused for 5 s. With 0 the first refusal is final.
    ///
    /// Once a refusal is final, later events fail at their first attempt, until a call succeeds or is throttled or
    /// none was refused for 5 s.
    pub fn refusal_timeout(mut self, refusal_timeout: Duration) -> Self {
        self.config.refusal_timeout = refusal_timeout;
        self
    }

    /// Whether an event that may be stored without an acknowledgement is read back, with a consistent
    /// `BatchGetItem`, before it is given up. Default: yes. It costs a read only where the answer would
    /// be *maybe*:
    ///
    /// - found with its body, the event is [`Stored`](crate::Stored) after all;
    /// - not found, it is [`NotStored`](crate::Certainty::NotStored) if every call that may have stored
    ///   it is known to be over: the service had begun to answer with 200 and its request id, and the
    ///   rest of the answer was lost. This takes it that nobody deletes events so soon;
    /// - not found after a call without an answer (a time-out, a broken connection) or with a 5xx, it
    ///   stays [`MaybeStored`](crate::Certainty::MaybeStored), as the call may be applied after the
    ///   read. [`read_back`](crate::WriteError::read_back) says that it was not there, and when.
    ///
    /// A read that fails is repeated while there is time: until one attempt time-out after the event's
    /// deadline. Where the role lacks `dynamodb:BatchGetItem` the event stays maybe stored, and its error
    /// says so. To leave time for it, a call that begins just before the deadline of one of its events may
    /// take half of the attempt time-out beyond that deadline, not the whole.
    pub fn read_back(mut self, read_back: bool) -> Self {
        self.config.read_back = read_back;
        self
    }

    /// The five digits that keep this store's keys apart from those of other writers to the table,
    /// 0 to 99,999. Default: drawn at random; [`WriterId`](crate::WriterId) has the odds.
    pub fn writer_id(mut self, writer_id: u32) -> Self {
        self.config.writer_id = Some(writer_id);
        self
    }

    /// Feature `test-util`: a store that does the same every time. The writer id and the jitter of its
    /// retries are drawn from `seed`, and the time in its keys is that of tokio's clock, which tests can
    /// pause, from 2026-01-01 on. Not for production: two such stores make the same keys.
    #[cfg(feature = "test-util")]
    pub fn deterministic(mut self, seed: u64) -> Self {
        self.config.seed = Some(seed);
        self
    }

    /// Checks the settings and the table, and starts the store's worker on the current runtime.
    ///
    /// `Ok` means that the settings are valid and that the table, where it could be asked, exists
    /// and has the right key. It does not mean that the role may write to it: that shows with the
    /// first event.
    ///
    /// # Errors
    ///
    /// [`StartError::Config`] names the setting and its limit, [`StartError::NoRuntime`] says that
    /// this is no tokio runtime, and [`StartError::Table`] what is wrong with the table.
    ///
    /// # Panics
    ///
    /// If the runtime has no timer ([`enable_time`](tokio::runtime::Builder::enable_time)).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future starts nothing.
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
        self.target.validate()?;
        let runtime = Handle::try_current().map_err(|_| StartError::NoRuntime)?;
        let check_table = !self.skip_table_check;
        let (config, transport) = (self.config.clone(), self.target.transport);
        let return_consumed_capacity = self.target.return_consumed_capacity;
        let target = self.target.into_target().await?;
        if check_table && let Some((client, table)) = target.table() {
            // Boxed, as it is large beside the rest and done with before the rest begins.
            Box::pin(Table::new(client, table).check_before_writing()).await?;
        }
        let writer = target.into_writer(transport, return_consumed_capacity);
        let mut random = match config.seed {
            Some(seed) => StdRng::seed_from_u64(seed),
            None => random(config.writer_id)?,
        };
        let writer_id = config.writer_id(random.next_u64());
        // Panics here, where the reason can be seen, if the runtime has no timer.
        drop(sleep_until(Instant::from_std(now())));
        Ok(EventStore::spawn(&runtime, writer, config, writer_id, random))
    }
}

impl fmt::Debug for EventStoreBuilder {
    /// Shows the settings, and of the credentials nothing.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("EventStoreBuilder")
            .field("config", &self.config)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

/// Where the worker's jitter comes from, and the writer id if none is set. Without randomness from the
/// system a given writer id will do for the jitter; to draw an id that others draw as well will not.
fn random(writer_id: Option<u32>) -> Result<StdRng, ConfigError> {
    match (StdRng::try_from_rng(&mut SysRng), writer_id) {
        (Ok(random), _) => Ok(random),
        (Err(_), Some(writer_id)) => Ok(StdRng::seed_from_u64(writer_id.into())),
        (Err(error), None) => {
            let limit =
                format!("be given, as the system has no randomness to draw it from ({error})");
            Err(ConfigError::new("writer_id", "missing", limit))
        }
    }
}
