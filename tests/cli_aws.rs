//! The command-line tool: profiles, credentials, endpoints and certificates.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use dynamodb_eventstore::{LocalTable, StartError, WriterIds};
use tempfile::TempDir;

use support::endpoint::{Endpoint, TABLE, Transport, tls};
use support::table::rows;
use support::tool::{assert_success, folder, run, stderr, stdout, tool, tool_for, write};

#[tokio::test]
async fn dynamodb_endpoint_variable_overrides_the_general_one() {
    let (folder, server) = (folder(), LocalTable::in_memory().await.unwrap());
    write(&folder, "one.ndjson", "{\"foo\":\"bar\"}\n");
    let mut tool = tool_for(&folder, "http://nobody.invalid:1");
    tool.env("AWS_ENDPOINT_URL_DYNAMODB", server.endpoint_url());
    let output = tool.args(["put", "one.ndjson", "--table", server.name()]).output().unwrap();
    assert_success(&output);
    assert_eq!(rows(server.client(), server.name()).await.len(), 1);
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_put_keeps_its_leased_writer_id() {
    let (folder, server) = (folder(), LocalTable::in_memory().await.unwrap());
    let mut create = tool_for(&folder, &server.endpoint_url());
    let created = run({
        create.args(["create-table", "--table", server.name(), "--with-writers"]);
        create
    })
    .await;
    assert_success(&created);
    let writers = format!("{}-writers", server.name());
    let expected = format!("table `{writers}` is ready\n");
    assert!(stdout(&created).ends_with(&expected), "{created:?}");

    // The input of this put does not end.
    let mut put = tool_for(&folder, &server.endpoint_url());
    put.args(["put", "--table", server.name(), "--lease-writer-id", &writers, "--linger", "0s"]);
    let mut child = put.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(b"{}\n").unwrap();
    let (client, table) = (server.client(), server.name());
    while rows(client, table).await.is_empty() {
        tokio::task::yield_now().await;
    }
    child.kill().unwrap();
    child.wait().unwrap();

    let (key, _) = rows(client, table).await.pop_first().unwrap();
    let id: u32 = key[18..23].parse().unwrap();
    let ids = WriterIds::leased(&writers).ids(id..=id).max_wait(Duration::from_millis(300));
    let error = server.store_builder().writer_id(ids).start().await.unwrap_err();
    assert!(matches!(error, StartError::WriterId(_)), "{error}");

    // A put that ends gives its id back.
    let mut put = tool_for(&folder, &server.endpoint_url());
    write(&folder, "one.ndjson", "{}\n");
    put.args(["put", "one.ndjson", "--table", server.name(), "--lease-writer-id", &writers]);
    assert_success(&run(put).await);
    let rows = client.scan().table_name(&writers).send().await.unwrap().items.unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows.iter().filter(|row| row.contains_key("token")).count(), 1);
}

#[test]
fn leased_and_assigned_writer_id_exclude_each_other() {
    let folder = folder();
    let put = |arguments: &[&str]| {
        let output = tool(&folder).arg("put").args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        stderr(&output).to_owned()
    };
    let message = put(&["--table", "t", "--lease-writer-id", "w", "--writer-id", "1"]);
    assert!(message.contains("cannot be used with"), "{message}");
    // A local table has one writer.
    assert!(put(&["--lease-writer-id", "w"]).contains("--table <TABLE>"));
}

/// Writes the AWS config and credentials files of the tool's user.
fn write_profiles(folder: &TempDir, config: &str, credentials: &str) {
    std::fs::create_dir_all(folder.path().join(".aws")).unwrap();
    write(folder, ".aws/config", config);
    write(folder, ".aws/credentials", credentials);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn named_profile_overrides_environment_credentials() {
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
        // With short limits the put ends soon if its credentials are refused.
        put.args(["--deadline", "1s", "--grace", "1s"]);
        run(put)
    };
    endpoint.accept_only("SECOND");
    assert_success(&put(&["--profile", "second"]).await);
    // Without the option the environment takes precedence, as for every AWS client.
    endpoint.accept_only("test");
    assert_success(&put(&[]).await);
}

#[test]
fn profile_without_credentials_is_named_in_the_error() {
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
    let message = put(&["--profile", "unknown"], None);
    assert!(message.contains("--profile names `unknown`"), "{message}");
    assert!(message.contains("known profiles: bare, loop"), "{message}");
    let message = put(&[], Some("unknown"));
    assert!(message.contains("AWS_PROFILE names `unknown`"), "{message}");
    for profile in ["bare", "loop"] {
        let message = put(&["--profile", profile], None);
        let expected = format!("the AWS profile `{profile}` gives no credentials: ");
        assert!(message.contains(&expected), "{message}");
    }
    let mut put_by_variable = tool(&folder);
    put_by_variable.args(["put", "one.ndjson", "--table", "events"]).env("AWS_PROFILE", "bare");
    let output = put_by_variable.output().unwrap();
    let message = "the AWS profile `bare` gives no credentials: ";
    assert!(stderr(&output).contains(message), "{output:?}");
    write_profiles(&folder, "nonsense\n", "");
    let message = put(&["--region", "us-west-2"], None);
    assert!(message.contains("cannot read the AWS profiles"), "{message}");
    assert!(message.contains("config on line 1"), "{message}");
}

#[test]
fn endpoint_without_a_scheme_is_refused() {
    let folder = folder();
    write(&folder, "one.ndjson", "{}\n");
    let put = |variables: &[(&str, &str)], arguments: &[&str]| {
        let mut put = tool_for(&folder, "http://127.0.0.1:1");
        put.args(["put", "one.ndjson", "--table", "events"]).args(arguments);
        let output = put.envs(variables.iter().copied()).output().unwrap();
        assert!(!output.status.success(), "{output:?}");
        stderr(&output).to_owned()
    };
    let message = put(&[], &["--endpoint-url", "localhost:8000"]);
    assert!(message.contains("the endpoint `localhost:8000` must begin with http"), "{message}");
    for variable in ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_DYNAMODB"] {
        let message = put(&[(variable, "me:secret@localhost:8000")], &[]);
        let expected = format!("{variable}: the endpoint `localhost:8000` must begin");
        assert!(message.contains(&expected) && !message.contains("secret"), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ca_bundle_certificates_are_trusted() {
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
    // Without the variable the certificates are not trusted.
    assert_eq!(put(None).await.status.code(), Some(1));
    for (bundle, message) in
        [("missing.pem", "missing.pem: No such file"), ("empty.pem", "it holds no certificate")]
    {
        let output = put(Some(bundle)).await;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let expected = "cannot use the certificates of AWS_CA_BUNDLE";
        assert!(stderr(&output).contains(expected), "{output:?}");
        assert!(stderr(&output).contains(message), "{output:?}");
    }
    assert_eq!(endpoint.table().await.len(), 1);
}
