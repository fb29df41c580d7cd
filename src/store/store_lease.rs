//! The lease of one store's writer id: its keeper, and what its errors name.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use tokio::runtime::Handle;

use crate::clock::now;
use crate::dynamodb::DynamoDbLeaseTable;
use crate::error::{LeaseDetails, LeaseError};
use crate::fresh_random::FreshRandom;
use crate::key_source::KeySource;
use crate::lease_keeper::{LeaseHandle, LeaseKeeper, LeaseState};
use crate::policy::lease::LeaseTerms;
use crate::store::writer_ids::LeasedWriterIds;

#[derive(Debug)]
pub(crate) struct StoreLease {
    pub(crate) handle: LeaseHandle,
    pub(crate) ids: LeasedWriterIds,
    region: String,
}

impl StoreLease {
    /// Leases the first writer id, and starts the task that holds it.
    pub(crate) async fn start(
        ids: &LeasedWriterIds,
        client: &Client,
        keys: &Arc<KeySource>,
        terms: LeaseTerms,
        random: FreshRandom,
    ) -> Result<Self, LeaseError> {
        let table = Arc::new(DynamoDbLeaseTable::new(client, &ids.table));
        let region = client.config().region();
        let region = region.map_or("(none)", |region| region.as_ref()).to_owned();
        let mut keeper = LeaseKeeper::new(table, Arc::clone(keys), terms, random);
        let start = now();
        if let Err(state) = keeper.take(ids.max_wait).await {
            let waited = now().saturating_duration_since(start);
            return Err(error(ids, &region, state, waited));
        }
        Ok(Self { handle: keeper.spawn(&Handle::current()), ids: ids.clone(), region })
    }

    /// The error of a put that has waited for `waited`.
    pub(crate) fn error(&self, state: LeaseState, waited: Duration) -> LeaseError {
        error(&self.ids, &self.region, state, waited)
    }
}

fn error(ids: &LeasedWriterIds, region: &str, state: LeaseState, waited: Duration) -> LeaseError {
    LeaseError::from(LeaseDetails {
        table: ids.table.clone(),
        region: region.to_owned(),
        ids: ids.count(),
        tries: state.tries,
        waited,
        cause: state.failure,
    })
}
