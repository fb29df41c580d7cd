//! Amazon's DynamoDB Local, where `.ci/dynamodb-local` has started it.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use dynamodb_eventstore::{Capacity, Table};

/// Where DynamoDB Local listens, for example `http://127.0.0.1:8000`.
const URL: &str = "DYNAMODB_LOCAL_URL";

/// It keeps the tables of each access key and each region apart.
pub(crate) const REGION: &str = "us-east-1";
pub(crate) const ACCESS_KEY_ID: &str = "local";

/// Far more than a new table in memory needs.
const TIME_TO_CREATE: Duration = Duration::from_secs(60);

pub(crate) fn url() -> String {
    std::env::var(URL).unwrap_or_else(|_| panic!("{URL} is to say where DynamoDB Local is"))
}

/// The host and the port in its address.
pub(crate) fn authority() -> String {
    url().strip_prefix("http://").unwrap().trim_end_matches('/').to_owned()
}

/// A client that talks to it with nothing in between.
pub(crate) fn client() -> Client {
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static(REGION))
        .credentials_provider(Credentials::new(ACCESS_KEY_ID, "local", None, None, "tests"))
        .endpoint_url(url())
        .build();
    Client::from_conf(config)
}

/// Makes a table for events and says its name. All cases share the server, and maybe earlier runs
/// do, so the case and the process are in the name.
pub(crate) async fn create_table(client: &Client, case: &str) -> String {
    let name = format!("{case}-{}", std::process::id());
    let table = Table::new(client, &name);
    table.create(Capacity::OnDemand).await.unwrap();
    table.wait_until_active(TIME_TO_CREATE).await.unwrap();
    name
}
