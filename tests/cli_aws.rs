//! The command-line tool: how it reaches AWS.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use dynamodb_eventstore::LocalTable;
use tempfile::TempDir;

use support::endpoint::{Endpoint, TABLE, Transport, tls};
use support::table::rows;
use support::tool::{assert_success, folder, run, stderr, stdout, tool, tool_for, write};

#[tokio::test]
async fn an_endpoint_for_dynamodb_alone_goes_before_one_for_all_services() {
    let (folder, server) = (folder(), LocalTable::in_memory().await.unwrap());
    write(&folder, "one.ndjson", "{\"foo\":\"bar\"}\n");
    let mut tool = tool_for(&folder, "http://nobody.invalid:1");
    tool.env("AWS_ENDPOINT_URL_DYNAMODB", server.endpoint_url());
    let output = tool.args(["put", "one.ndjson", "--table", server.name()]).output().unwrap();
    assert_success(&output);
    assert_eq!(rows(server.client(), server.name()).await.len(), 1);
}

/// Files of AWS profiles, as a user has them.
fn write_profiles(folder: &TempDir, config: &str, credentials: &str) {
    std::fs::create_dir_all(folder.path().join(".aws")).unwrap();
    write(folder, ".aws/config", config);
    write(folder, ".aws/credentials", credentials);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_of_a_named_profile_go_before_those_of_the_environment() {
    let (folder, endpoint) = (folder(), Endpoint::start([]).await);
    write(&folder, "one.ndjson", "{}\n");
    write_profiles(
        &folder,
        "[default]\nregion = us-west-1\n[profile second]\nregion = us-west-2\n",
        "[second]\naws_access_key_id = SECOND\naws_secret_access_key = secret\n",
    );
    let put = |more: &[&str]| {
        let mut put = tool_for(&folder, &endpoint.url());
        put.env_remove("AWS_REGION").args(["put", "one.ndjson", "--table", TABLE]).args(more);
        // Refusals are not what is tested.
        put.args(["--deadline", "1s", "--grace", "1s"]);
        run(put)
    };
    endpoint.accept_only("SECOND");
    assert_success(&put(&["--profile", "second"]).await);
    // Without the option the environment goes first, as for every AWS client.
    endpoint.accept_only("test");
    assert_success(&put(&[]).await);
}

#[test]
fn a_profile_that_gives_no_credentials_is_an_error_that_names_it() {
    let folder = folder();
    write(&folder, "one.ndjson", "{}\n");
    write_profiles(
        &folder,
        "[profile bare]\nregion = us-west-2\n[profile loop]\nregion = us-west-2\n\
         role_arn = arn:aws:iam::123456789012:role/a\nsource_profile = nobody\n",
        "",
    );
    let put = |arguments: &[&str], profile: Option<&str>| {
        let mut put = tool_for(&folder, "http://127.0.0.1:1");
        put.args(["put", "one.ndjson", "--table", "events"]).args(arguments);
        let output = put.envs(profile.map(|name| ("AWS_PROFILE", name))).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert_eq!(stdout(&output), "");
        stderr(&output).to_owned()
    };
    let said = put(&["--profile", "unknown"], None);
    assert!(said.contains("--profile names `unknown`"), "{said}");
    assert!(said.contains("there are bare, loop"), "{said}");
    let said = put(&[], Some("unknown"));
    assert!(said.contains("AWS_PROFILE names `unknown`"), "{said}");
    for profile in ["bare", "loop"] {
        let said = put(&["--profile", profile], None);
        let expected = format!("the AWS profile `{profile}` gives no credentials: ");
        assert!(said.contains(&expected), "{said}");
    }
    let mut put_by_variable = tool(&folder);
    put_by_variable.args(["put", "one.ndjson", "--table", "events"]).env("AWS_PROFILE", "bare");
    let output = put_by_variable.output().unwrap();
    let said = "the AWS profile `bare` gives no credentials: ";
    assert!(stderr(&output).contains(said), "{output:?}");
    write_profiles(&folder, "nonsense\n", "");
    let said = put(&["--region", "us-west-2"], None);
    assert!(said.contains("cannot read the AWS profiles"), "{said}");
    assert!(said.contains("config on line 1"), "{said}");
}

#[test]
fn an_endpoint_has_to_be_a_url() {
    let folder = folder();
    write(&folder, "one.ndjson", "{}\n");
    let put = |variables: &[(&str, &str)], arguments: &[&str]| {
        let mut put = tool_for(&folder, "http://127.0.0.1:1");
        put.args(["put", "one.ndjson", "--table", "events"]).args(arguments);
        let output = put.envs(variables.iter().copied()).output().unwrap();
        assert!(!output.status.success(), "{output:?}");
        stderr(&output).to_owned()
    };
    let said = put(&[], &["--endpoint-url", "localhost:8000"]);
    assert!(said.contains("the endpoint `localhost:8000` has to begin with http"), "{said}");
    for variable in ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_DYNAMODB"] {
        let said = put(&[(variable, "me:secret@localhost:8000")], &[]);
        let expected = format!("{variable}: the endpoint `localhost:8000` has to begin");
        assert!(said.contains(&expected) && !said.contains("secret"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_certificates_of_aws_ca_bundle_are_trusted() {
    let (folder, endpoint) = (folder(), Endpoint::start_over(Transport::Https, []).await);
    write(&folder, "one.ndjson", "{}\n");
    write(&folder, "bundle.pem", tls::certificate());
    write(&folder, "empty.pem", "# nothing\n");
    let put = |bundle: Option<&str>| {
        let mut put = tool_for(&folder, &endpoint.url());
        put.args(["put", "one.ndjson", "--table", TABLE]);
        put.envs(bundle.map(|file| ("AWS_CA_BUNDLE", file)));
        run(put)
    };
    assert_success(&put(Some("bundle.pem")).await);
    assert_eq!(endpoint.table().await.len(), 1);
    // Nobody else trusts them.
    assert_eq!(put(None).await.status.code(), Some(1));
    for (bundle, said) in
        [("missing.pem", "missing.pem: No such file"), ("empty.pem", "it holds no certificate")]
    {
        let output = put(Some(bundle)).await;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let expected = "cannot use the certificates of AWS_CA_BUNDLE";
        assert!(stderr(&output).contains(expected), "{output:?}");
        assert!(stderr(&output).contains(said), "{output:?}");
    }
    assert_eq!(endpoint.table().await.len(), 1);
}
