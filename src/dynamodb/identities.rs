//! Credentials whose loading outlives the call that began it.

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

/// How long a load may take, and how long its result is good for whoever waits next. The SDK's own cache gives a
/// load 21.6 s. One that hangs is given up after this time, also where the store is gone, and begun anew.
const LONGEST_LOAD: Duration = Duration::from_secs(30);

/// An identity cache in which a load goes on when the call that waits for it is given up.
///
/// The SDK loads credentials in the call that needs them, so that an attempt that times out takes the load with it:
/// credentials that take longer than an attempt would never come. Here they are loaded in a task of their own, and
/// the next attempt takes up the wait.
#[derive(Debug)]
pub(super) struct PatientCache {
    cache: SharedIdentityCache,
    loads: Arc<Loads>,
}

impl PatientCache {
    /// A cache like this one; like the SDK's own where there is none.
    pub(super) fn around(cache: Option<SharedIdentityCache>) -> Self {
        let cache = cache.unwrap_or_else(|| IdentityCache::lazy().build());
        Self { cache, loads: Arc::default() }
    }
}

impl ResolveCachedIdentity for PatientCache {
    fn resolve_cached_identity<'a>(
        &'a self,
        resolver: SharedIdentityResolver,
        components: &'a RuntimeComponents,
        config: &'a ConfigBag,
    ) -> IdentityFuture<'a> {
        // The SDK checks this of its own caches, and not of what is wrapped around them.
        if components.time_source().is_none() || components.sleep_impl().is_none() {
            let missing = "the client's configuration has no time source or no way to sleep";
            return IdentityFuture::ready(Err(missing.into()));
        }
        let resolver = Patient { resolver, loads: Arc::clone(&self.loads) };
        let resolver = SharedIdentityResolver::new(resolver);
        self.cache.resolve_cached_identity(resolver, components, config)
    }
}

/// The load of one resolver's identity.
struct Load {
    began: Instant,
    task: JoinHandle<Result<Identity, BoxError>>,
}

/// Loads that nobody waits for.
#[derive(Default)]
struct Loads(Mutex<HashMap<IdentityCachePartition, Load>>);

impl fmt::Debug for Loads {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Loads").finish_non_exhaustive()
    }
}

impl Loads {
    fn lock(&self) -> MutexGuard<'_, HashMap<IdentityCachePartition, Load>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resolves an identity in a task, or waits for one that does.
#[derive(Debug)]
struct Patient {
    resolver: SharedIdentityResolver,
    loads: Arc<Loads>,
}

impl Patient {
    /// The load that somebody has waited for, unless it is too old: what came of it may have expired.
    fn under_way(&self) -> Option<Load> {
        let load = self.loads.lock().remove(&self.resolver.cache_partition())?;
        let is_fresh = now().saturating_duration_since(load.began) < LONGEST_LOAD;
        is_fresh.then_some(load)
    }

    fn begin(&self, runtime: &Handle, components: &RuntimeComponents, config: &ConfigBag) -> Load {
        // A task cannot borrow the call's configuration. Providers of credentials do not look at it; these are what
        // the SDK's own parts go by.
        let mut layer = Layer::new("PatientCache");
        layer.store_or_unset(config.load::<TimeoutConfig>().cloned());
        layer.store_or_unset(config.load::<RetryConfig>().cloned());
        let config = ConfigBag::of_layers([layer]);
        let (resolver, components) = (self.resolver.clone(), components.clone());
        let load = async move {
            let loaded = timeout(LONGEST_LOAD, resolver.resolve_identity(&components, &config));
            loaded.await.unwrap_or_else(|_| Err(format!("none within {LONGEST_LOAD:?}").into()))
        };
        let task = runtime.spawn(load.in_current_span());
        Load { began: now(), task }
    }
}

impl ResolveIdentity for Patient {
    fn resolve_identity<'a>(
        &'a self,
        components: &'a RuntimeComponents,
        config: &'a ConfigBag,
    ) -> IdentityFuture<'a> {
        let Ok(runtime) = Handle::try_current() else {
            return self.resolver.resolve_identity(components, config);
        };
        IdentityFuture::new(async move {
            let load = self.under_way().unwrap_or_else(|| self.begin(&runtime, components, config));
            let mut wait = Wait { patient: self, load: Some(load) };
            wait.end().await
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

/// Somebody waits for a load. Dropped before its end, the load is left to the next.
struct Wait<'a> {
    patient: &'a Patient,
    load: Option<Load>,
}

impl Wait<'_> {
    async fn end(&mut self) -> Result<Identity, BoxError> {
        let Some(load) = &mut self.load else { return Err("there is no load to wait for".into()) };
        let ended = (&mut load.task).await;
        self.load = None;
        match ended {
            Ok(identity) => identity,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if let Some(load) = self.load.take() {
            let partition = self.patient.resolver.cache_partition();
            self.patient.loads.lock().insert(partition, load);
        }
    }
}
