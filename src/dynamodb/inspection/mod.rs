//! Checks credentials, endpoint, clock, table and permissions before the first event.

mod answers;
mod calls;
mod description;
mod finding;

use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;

use super::classify::ACCESS_DENIED;
use super::table::{Table, TableError};
use super::target::is_table_name;
use crate::write_mode::WriteMode;
use answers::Answers;
pub use finding::{Finding, Inspected, Outcome};

/// Codes with which the service refuses the credentials themselves.
const REFUSED_CREDENTIALS: [&str; 6] = [
    "ExpiredTokenException",
    "IncompleteSignatureException",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "RequestTimeTooSkewedException",
    "UnrecognizedClientException",
];

/// The results of the checks of a table and of the way to it. Nothing is written to the table.
///
/// ```no_run
/// # async fn example() {
/// use aws_config::BehaviorVersion;
/// use dynamodb_eventstore::Inspection;
///
/// let config = aws_config::load_defaults(BehaviorVersion::latest()).await;
/// let inspection = Inspection::run(&config, "all-events").await;
/// for finding in inspection.findings() {
///     println!("{}: {:?}", finding.inspected, finding.outcome);
/// }
/// assert!(inspection.is_passed());
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    findings: Vec<Finding>,
}

impl Inspection {
    /// Inspects the table with this name or ARN, with the configuration that a store would be built from. It makes
    /// one `DescribeTable` call of up to 10 s, one `BatchGetItem` and one `BatchWriteItem` call of up to 10 s each.
    ///
    /// The read asks for one key that no event has. The write carries one item with an empty key, which DynamoDB
    /// never stores. An answer `ValidationException` counts as permission to write, as the service is taken to
    /// check permissions before items. AWS does not document that order, and DynamoDB Local has no permissions to
    /// verify it with. So `Passed` for [`Inspected::WritePermission`] says that the call was not refused for a lack of
    /// permission; only a stored event proves more.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn run(sdk_config: &SdkConfig, table: impl Into<String>) -> Self {
        Self::run_for(sdk_config, table, WriteMode::Put).await
    }

    /// [`run`](Self::run) for a store that writes in this mode. For [`WriteMode::Insert`] the write is an `INSERT` by
    /// `BatchExecuteStatement`, and the table must be given by its name.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn run_for(
        sdk_config: &SdkConfig,
        table: impl Into<String>,
        write_mode: WriteMode,
    ) -> Self {
        let mut inspection = Self { findings: Vec::new() };
        inspection.inspect(sdk_config, table.into(), write_mode).await;
        inspection.complete();
        inspection
    }

    /// One finding for each variant of [`Inspected`], in its order.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Whether every check was made, and passed.
    #[must_use]
    pub fn is_passed(&self) -> bool {
        self.findings.iter().all(|finding| matches!(finding.outcome, Outcome::Passed { .. }))
    }

    async fn inspect(&mut self, sdk_config: &SdkConfig, table: String, mode: WriteMode) {
        let region = sdk_config.region().map(ToString::to_string);
        let has_region = region.is_some();
        self.add(
            Inspected::Region,
            region.ok_or_else(|| {
                let advice = "set AWS_REGION or the region of the AWS profile";
                ("none is configured".to_owned(), advice.to_owned())
            }),
        );
        let credentials = calls::credentials(sdk_config).await;
        let has_credentials = credentials.is_ok();
        self.add(Inspected::Credentials, credentials);
        if !has_region || !has_credentials {
            return;
        }

        let answers = Answers::default();
        let client = Client::new(sdk_config);
        let watched = client.config().to_builder().interceptor(answers.clone()).build();
        let described_table = Table::new(&Client::from_conf(watched), &table);
        let described = described_table.describe().await;
        let endpoint = answers.endpoint(described.as_ref().err());
        let is_reached = endpoint.is_ok();
        self.add(Inspected::Endpoint, endpoint);
        if !is_reached {
            return;
        }
        let clock = answers.clock();
        let is_right = clock.is_ok();
        self.add(Inspected::Clock, clock);
        if !is_right {
            // A wrong clock may be the reason for any refusal, so nothing more is checked.
            return;
        }

        let code = described.as_ref().err().and_then(code);
        if let (Some(code), Err(error)) = (code, &described)
            && REFUSED_CREDENTIALS.contains(&code)
        {
            let advice = "renew the credentials (for example `aws sso login`), and see whether they are of this \
                          partition and endpoint";
            self.add(Inspected::Authentication, Err((error.to_string(), advice.to_owned())));
            return;
        }
        match described {
            Ok(description) => {
                self.add(Inspected::Authentication, Ok("the service accepts them".to_owned()));
                self.add(Inspected::DescribePermission, Ok("DescribeTable is allowed".to_owned()));
                self.add(Inspected::Table, Ok(format!("`{table}` exists")));
                let status = description::status(&described_table, &description);
                let key = description::key(&described_table, &description);
                let is_usable = status.is_ok() && key.is_ok();
                self.add(Inspected::Status, status);
                self.add(Inspected::Key, key);
                self.add(Inspected::Capacity, Ok(description::capacity(&description)));
                if !is_usable {
                    return;
                }
            }
            Err(error @ TableError::Missing { .. }) => {
                self.add(Inspected::Authentication, Ok("the service accepts them".to_owned()));
                self.add(Inspected::DescribePermission, Ok("DescribeTable is allowed".to_owned()));
                let advice = "create the table, or name its region";
                self.add(Inspected::Table, Err((error.to_string(), advice.to_owned())));
                return;
            }
            // Reads and writes may be allowed anyway.
            Err(error) if code_is_denied(&error) => {
                self.add(Inspected::Authentication, Ok("the service accepts them".to_owned()));
                self.add(
                    Inspected::DescribePermission,
                    Err((error.to_string(), calls::allow("dynamodb:DescribeTable"))),
                );
            }
            Err(error) => {
                let advice = "repeat the check; if it stays so, look up the error code";
                self.add(
                    Inspected::DescribePermission,
                    Err((error.to_string(), advice.to_owned())),
                );
                return;
            }
        }
        if mode == WriteMode::Insert && !is_table_name(&table) {
            let advice = "name the table, instead of its ARN";
            let found = format!("`{table}` is no name of a table, which inserts need");
            return self.add(Inspected::WritePermission, Err((found, advice.to_owned())));
        }
        let (read, write, transport) = calls::read_and_write(&client, &table, mode).await;
        self.add(Inspected::ReadPermission, read);
        self.add(Inspected::WritePermission, write);
        self.add(Inspected::Transport, transport);
    }

    fn add(&mut self, inspected: Inspected, result: Result<String, (String, String)>) {
        let outcome = match result {
            Ok(found) => Outcome::Passed { found },
            Err((found, advice)) => Outcome::Failed { found, advice },
        };
        self.findings.push(Finding { inspected, outcome });
    }

    /// Adds what was not inspected, and brings the findings into their order.
    fn complete(&mut self) {
        for inspected in Inspected::ALL {
            if !self.findings.iter().any(|finding| finding.inspected == inspected) {
                self.findings.push(Finding { inspected, outcome: Outcome::NotInspected });
            }
        }
        self.findings.sort_by_key(|finding| finding.inspected);
    }
}

fn code(error: &TableError) -> Option<&str> {
    match error {
        TableError::Service { cause, .. } => cause.code(),
        _ => None,
    }
}

fn code_is_denied(error: &TableError) -> bool {
    code(error) == Some(ACCESS_DENIED)
}
