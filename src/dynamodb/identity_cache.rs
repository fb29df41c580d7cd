//! An identity cache whose loads of credentials outlive the call that began them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::config::{
    ConfigBag, IdentityCache, ResolveCachedIdentity, RuntimeComponents, SharedIdentityCache,
};
use aws_sdk_dynamodb::error::BoxError;
use aws_smithy_runtime_api::client::identity::{
    Identity, IdentityCacheLocation, IdentityCachePartition, IdentityFuture, ResolveIdentity,
    SharedIdentityResolver,
};
use aws_smithy_types::config_bag::Layer;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::Instrument;

use crate::clock::now;

/// Longest duration of a load, and longest time for which the next call may use its result. The SDK's own cache
/// allows 21.6 s for a load. A load that takes longer is cancelled, even after the store has ended, and the next call
/// begins a new one.
const MAX_LOAD_TIME: Duration = Duration::from_secs(30);

/// An identity cache in which a load continues when the call that waits for it is dropped.
///
/// The SDK loads credentials within the call that needs them, so an attempt that times out cancels the load.
/// Credentials that take longer to load than one attempt would never arrive. Here a task of its own loads them, and
/// the next attempt waits for the same task.
#[derive(Debug)]
pub(super) struct DetachedIdentityCache {
    cache: SharedIdentityCache,
    loads: Arc<PendingLoads>,
}

impl DetachedIdentityCache {
    /// Wraps `cache`, or a new cache of the SDK's default kind.
    pub(super) fn wrapping(cache: Option<SharedIdentityCache>) -> Self {
        let cache = cache.unwrap_or_else(|| IdentityCache::lazy().build());
        Self { cache, loads: Arc::default() }
    }
}

impl ResolveCachedIdentity for DetachedIdentityCache {
    fn resolve_cached_identity<'a>(
        &'a self,
        resolver: SharedIdentityResolver,
        components: &'a RuntimeComponents,
        config: &'a ConfigBag,
    ) -> IdentityFuture<'a> {
        // The SDK checks this for its own caches, and not for a cache that wraps one.
        if components.time_source().is_none() || components.sleep_impl().is_none() {
            let missing = "the client's configuration has no time source or no way to sleep";
            return IdentityFuture::ready(Err(missing.into()));
        }
        let resolver = DetachedResolver { resolver, loads: Arc::clone(&self.loads) };
        let resolver = SharedIdentityResolver::new(resolver);
        self.cache.resolve_cached_identity(resolver, components, config)
    }
}

/// A task that loads the identity of one resolver.
struct Load {
    began: Instant,
    task: JoinHandle<Result<Identity, BoxError>>,
}

/// Loads that no call waits for at the moment.
#[derive(Default)]
struct PendingLoads(Mutex<HashMap<IdentityCachePartition, Load>>);

impl fmt::Debug for PendingLoads {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PendingLoads").finish_non_exhaustive()
    }
}

impl PendingLoads {
    fn lock(&self) -> MutexGuard<'_, HashMap<IdentityCachePartition, Load>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resolves an identity in a task of its own, or waits for the task of an earlier call.
#[derive(Debug)]
struct DetachedResolver {
    resolver: SharedIdentityResolver,
    loads: Arc<PendingLoads>,
}

impl DetachedResolver {
    /// The load of an earlier call. `None` if it is so old that its result may have expired.
    fn take_pending(&self) -> Option<Load> {
        let load = self.loads.lock().remove(&self.resolver.cache_partition())?;
        let is_fresh = now().saturating_duration_since(load.began) < MAX_LOAD_TIME;
        is_fresh.then_some(load)
    }

    fn begin(&self, runtime: &Handle, components: &RuntimeComponents, config: &ConfigBag) -> Load {
        // A task cannot borrow the call's configuration. The SDK's parts read these two settings; credentials
        // providers read none.
        let mut layer = Layer::new("DetachedIdentityCache");
        layer.store_or_unset(config.load::<TimeoutConfig>().cloned());
        layer.store_or_unset(config.load::<RetryConfig>().cloned());
        let config = ConfigBag::of_layers([layer]);
        let (resolver, components) = (self.resolver.clone(), components.clone());
        let load = async move {
            let loaded = timeout(MAX_LOAD_TIME, resolver.resolve_identity(&components, &config));
            loaded
                .await
                .unwrap_or_else(|_| Err(format!("no result within {MAX_LOAD_TIME:?}").into()))
        };
        let task = runtime.spawn(load.in_current_span());
        Load { began: now(), task }
    }
}

impl ResolveIdentity for DetachedResolver {
    fn resolve_identity<'a>(
        &'a self,
        components: &'a RuntimeComponents,
        config: &'a ConfigBag,
    ) -> IdentityFuture<'a> {
        let Ok(runtime) = Handle::try_current() else {
            return self.resolver.resolve_identity(components, config);
        };
        IdentityFuture::new(async move {
            let load =
                self.take_pending().unwrap_or_else(|| self.begin(&runtime, components, config));
            LoadWaiter { resolver: self, load: Some(load) }.wait().await
        })
    }

    fn fallback_on_interrupt(&self) -> Option<Identity> {
        self.resolver.fallback_on_interrupt()
    }

    fn cache_location(&self) -> IdentityCacheLocation {
        self.resolver.cache_location()
    }

    fn cache_partition(&self) -> Option<IdentityCachePartition> {
        Some(self.resolver.cache_partition())
    }
}

/// Waits for a load. If it is dropped before the load ends, the load goes back to the pending ones.
struct LoadWaiter<'a> {
    resolver: &'a DetachedResolver,
    load: Option<Load>,
}

impl LoadWaiter<'_> {
    async fn wait(mut self) -> Result<Identity, BoxError> {
        let Some(load) = &mut self.load else { return Err("there is no load to wait for".into()) };
        let joined = (&mut load.task).await;
        self.load = None;
        match joined {
            Ok(identity) => identity,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for LoadWaiter<'_> {
    fn drop(&mut self) {
        if let Some(load) = self.load.take() {
            let partition = self.resolver.resolver.cache_partition();
            self.resolver.loads.lock().insert(partition, load);
        }
    }
}
