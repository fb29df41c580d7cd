//! The error of a writer id that could not be leased.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{BatchError, FailureClass};

/// No writer id could be leased in time.
///
/// From `start`: the store was not started. From a put: the event was not accepted, and nothing was sent. The store
/// keeps trying to lease an id, so a later put may succeed.
#[derive(Debug, Clone)]
pub struct LeaseError(Arc<Details>);

#[derive(Debug)]
pub(crate) struct Details {
    /// The table that holds the leases.
    pub(crate) table: String,
    /// The region of the client.
    pub(crate) region: String,
    /// How many ids there are to lease.
    pub(crate) ids: u32,
    /// Tries that found the id held by another store.
    pub(crate) tries: u32,
    pub(crate) waited: Duration,
    pub(crate) cause: Option<Arc<BatchError>>,
}

impl From<Details> for LeaseError {
    fn from(details: Details) -> Self {
        Self(Arc::new(details))
    }
}

impl LeaseError {
    /// Name or ARN of the table that holds the leases.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.0.table
    }

    /// How the last call to the table failed. `None` if it did not fail, and every id that was tried is held.
    #[must_use]
    pub fn cause(&self) -> Option<&BatchError> {
        self.0.cause.as_deref()
    }
}

impl fmt::Display for LeaseError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Details { table, region, ids, tries, waited, cause } = &*self.0;
        if waited.is_zero() {
            write!(formatter, "no writer id is leased from table `{table}` at present: ")?;
        } else {
            write!(
                formatter,
                "no writer id was leased from table `{table}` within {waited:.1?}: "
            )?;
        }
        let Some(cause) = cause else {
            if *tries == 0 {
                return formatter.write_str("the table has not answered yet; put again later");
            }
            return write!(
                formatter,
                "every id that was tried ({tries} tries, {ids} ids) is held by another store; lease from more \
                 ids, run fewer stores, or set this machine's clock if it is far behind"
            );
        };
        match (cause.class(), cause.code()) {
            (_, Some("ResourceNotFoundException")) => write!(
                formatter,
                "there is no such table in region {region}; check the name and the region, or create it \
                 (`dynamodb-eventstore create-table --table EVENTS --with-writers {table}`, or \
                 Table::for_writer_ids): {cause}"
            ),
            (_, Some("AccessDeniedException")) => {
                let arn = match table.strip_prefix("arn:") {
                    Some(_) => table.clone(),
                    None => format!("arn:aws:dynamodb:{region}:ACCOUNT:table/{table}"),
                };
                write!(formatter, "grant dynamodb:UpdateItem on {arn} to the role: {cause}")
            }
            (FailureClass::Invalid, _) => write!(
                formatter,
                "the table must have the hash key `id` of type S (String), and no range key: {cause}"
            ),
            _ => cause.fmt(formatter),
        }
    }
}

impl Error for LeaseError {
    /// What the message does not show: the source of the [cause](LeaseError::cause).
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause()?.source()
    }
}
