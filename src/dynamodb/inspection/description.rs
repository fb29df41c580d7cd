//! What the description of a table says.

use aws_sdk_dynamodb::types::{BillingMode, TableDescription};

use crate::dynamodb::table::Table;

type Result = std::result::Result<String, (String, String)>;

pub(super) fn status(table: &Table, description: &TableDescription) -> Result {
    match table.check_status(description) {
        Ok(()) => {
            Ok(description.table_status().map_or("not stated", |status| status.as_str()).to_owned())
        }
        Err(error) => {
            let advice = "wait until it is ACTIVE; a table in DELETING has to be created anew";
            Err((error.to_string(), advice.to_owned()))
        }
    }
}

pub(super) fn key(table: &Table, description: &TableDescription) -> Result {
    match table.check_key(description) {
        Ok(()) => Ok("hash key `key` of type S".to_owned()),
        Err(error) => {
            let advice = "a key cannot be changed: name another table, or create one";
            Err((error.to_string(), advice.to_owned()))
        }
    }
}

/// The billing mode and the limits, as far as the service states them.
pub(super) fn capacity(description: &TableDescription) -> String {
    let mode = description.billing_mode_summary().and_then(|summary| summary.billing_mode());
    let mut words = Vec::new();
    if mode == Some(&BillingMode::PayPerRequest) {
        words.push("on demand".to_owned());
        let limits = description.on_demand_throughput();
        // -1 stands for no limit.
        let limit =
            limits.and_then(|limits| limits.max_write_request_units()).filter(|units| *units >= 0);
        words.extend(limit.map(|units| format!("at most {units} write units/s")));
    } else if let Some(provisioned) = description.provisioned_throughput() {
        let units = |units: Option<i64>| units.unwrap_or_default();
        words.push(format!(
            "provisioned: {} write units/s and {} read units/s",
            units(provisioned.write_capacity_units()),
            units(provisioned.read_capacity_units()),
        ));
    } else {
        words.push("not stated".to_owned());
    }
    let warm = description.warm_throughput().and_then(|warm| warm.write_units_per_second());
    words.extend(warm.map(|units| format!("warm for {units} write units/s")));
    words.join(", ")
}
