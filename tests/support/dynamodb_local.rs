//! Amazon's DynamoDB Local, which `.ci/dynamodb-local` starts.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use dynamodb_eventstore::{Capacity, Table};

/// Where DynamoDB Local listens, for example `http://127.0.0.1:8000`.
const URL: &str = "DYNAMODB_LOCAL_URL";

/// DynamoDB Local keeps separate tables for each access key and each region.
pub(crate) const REGION: &str = "us-east-1";
pub(crate) const ACCESS_KEY_ID: &str = "local";

/// Far longer than it takes to create a table in memory.
const TIME_TO_CREATE: Duration = Duration::from_secs(60);

pub(crate) fn url() -> String {
    std::env::var(URL).unwrap_or_else(|_| panic!("set {URL} to the address of DynamoDB Local"))
}

/// The host and the port of its address.
pub(crate) fn authority() -> String {
    url().strip_prefix("http://").unwrap().trim_end_matches('/').to_owned()
}

/// A client that calls it directly, without a proxy.
pub(crate) fn client() -> Client {
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static(REGION))
        .credentials_provider(Credentials::new(ACCESS_KEY_ID, "local", None, None, "tests"))
        .endpoint_url(url())
        .build();
    Client::from_conf(config)
}

/// Creates a table for events and returns its name. The name contains the case and the process
/// id, because all cases share the server, possibly with earlier runs.
pub(crate) async fn create_table(client: &Client, case: &str) -> String {
    let name = format!("{case}-{}", std::process::id());
    let table = Table::new(client, &name);
    table.create(Capacity::OnDemand).await.unwrap();
    table.wait_until_active(TIME_TO_CREATE).await.unwrap();
    name
}
