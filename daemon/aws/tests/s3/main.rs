//! An archive in a bucket: moto's, over lines that fail, and with signatures checked.

mod line;
mod server;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use aws_config::{BehaviorVersion, Region};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::Credentials;
use bytes::Bytes;
use lifeboat_aws::s3::{Bucket, Identity, S3};
use lifeboat_engine::ports::{Abilities, ObjectName, Store, StoreError};
use lifeboat_engine::pretend::conformance;

use self::line::{Line, Order};
use self::server::{BUCKET, server, signed};

/// Set for a child of these tests: the port it writes to.
const WRITE_TO: &str = "LIFEBOAT_TEST_WRITE_TO";

fn name(text: &str) -> ObjectName {
    text.parse().expect("a name")
}

fn files(home: &Path, id: &str, secret: &str) -> Identity {
    std::fs::write(home.join("id"), format!("{id}\n")).expect("written");
    std::fs::write(home.join("secret"), secret).expect("written");
    Identity::Files { id: home.join("id"), secret: home.join("secret"), token: None }
}

/// The bucket behind a port, under a prefix.
async fn bucket(port: u16, prefix: &str, identity: Identity) -> S3 {
    S3::open(&Bucket {
        name: BUCKET.to_owned(),
        prefix: prefix.to_owned(),
        region: Some("us-east-1".to_owned()),
        endpoint: Some(format!("http://127.0.0.1:{port}")),
        path_style: true,
        identity,
    })
    .await
}

/// The same, as anybody.
async fn open(port: u16, prefix: &str) -> S3 {
    let home = tempfile::tempdir().expect("a folder");
    let store = bucket(port, prefix, files(home.path(), "anybody", "anything")).await;
    // The keys are read before the folder is gone.
    store.size(&name("nothing")).await.expect("answered");
    store
}

/// What the other side has begun and not ended, under a prefix.
async fn uploads(prefix: &str) -> Vec<String> {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(Credentials::new("a", "b", None, None, "test"))
        .endpoint_url(format!("http://127.0.0.1:{}", server().port))
        .force_path_style(true)
        .build();
    let found = Client::from_conf(config).list_multipart_uploads().bucket(BUCKET).send().await;
    let found = found.expect("listed").uploads.unwrap_or_default();
    found.into_iter().filter_map(|one| one.key).filter(|key| key.starts_with(prefix)).collect()
}

async fn no_upload_is_left(prefix: &str) {
    let ended = async {
        while !uploads(prefix).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ended).await.expect("an upload is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_does_what_every_store_must() {
    let store = open(server().port, "/deep/in/").await;
    assert_eq!(store.place(), "s3://archive/deep/in");
    conformance(&store).await;
    assert_eq!(store.examine().await, Ok(Abilities { exclusive: true }));
    assert_eq!(store.list("", None).await, Ok(Vec::new()), "examining leaves nothing");
    no_upload_is_left("deep/in/").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_prefix_does_not_see_another() {
    let (one, other) = (open(server().port, "one").await, open(server().port, "one-more").await);
    one.put(&name("a"), Bytes::from_static(b"one")).await.unwrap();
    other.put(&name("a"), Bytes::from_static(b"other")).await.unwrap();
    let listed = one.list("", None).await.unwrap();
    assert_eq!(listed.iter().map(|found| found.name.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(other.get(&name("a"), 0..10).await, Ok(Bytes::from_static(b"other")));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_ignores_conditions_is_found_out() {
    let line = Line::to(server().port).await;
    line.unconditional();
    let store = open(line.port, "unconditional").await;
    assert_eq!(store.examine().await, Ok(Abilities { exclusive: false }));
    assert_eq!(store.list("", None).await, Ok(Vec::new()), "examining leaves nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_is_tried_again() {
    let line = Line::to(server().port).await;
    let store = open(line.port, "busy").await;
    for status in [500, 502, 503, 429] {
        line.order("PUT", &[Order::Answer(status)]);
        store.put(&name(&format!("after-{status}")), Bytes::from_static(b"x")).await.unwrap();
    }
    line.order("GET", &[Order::Answer(503), Order::Answer(503)]);
    assert_eq!(store.get(&name("after-503"), 0..10).await, Ok(Bytes::from_static(b"x")));
    assert_eq!(line.left(), 0, "every order was met");

    line.order("PUT", &[Order::Answer(503); 40]);
    let before = line.seen("PUT");
    let refused = store.put(&name("never"), Bytes::new()).await.unwrap_err();
    assert!(refused.passing(), "{refused}");
    assert_eq!(line.seen("PUT") - before, 4, "and then it is the caller's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_answer_was_lost_is_known_again() {
    let line = Line::to(server().port).await;
    let store = open(line.port, "lost").await;
    line.order("PUT", &[Order::LoseAnswer]);
    store.put(&name("mine"), Bytes::from_static(b"mine")).await.unwrap();
    assert_eq!(line.left(), 0);
    assert_eq!(
        store.put(&name("mine"), Bytes::from_static(b"mine")).await,
        Err(StoreError::Exists(name("mine"))),
        "another write is another one, whatever it writes"
    );

    let mut upload = store.begin(&name("long")).await.unwrap();
    upload.write(Bytes::from(vec![1; 20 << 20])).await.unwrap();
    while line.seen("PUT /archive/lost/long") < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    line.order("POST", &[Order::LoseAnswer]);
    upload.finish().await.unwrap();
    assert_eq!(line.left(), 0);
    assert_eq!(store.size(&name("long")).await, Ok(Some(20 << 20)));
    no_upload_is_left("lost/").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_asked_for_again() {
    let line = Line::to(server().port).await;
    let store = open(line.port, "cut").await;
    let content = Bytes::from(vec![3; 100_000]);
    store.put(&name("a"), content.clone()).await.unwrap();
    line.order("GET", &[Order::CutAnswer(50_000)]);
    assert_eq!(store.get(&name("a"), 0..100_000).await, Ok(content));
    line.order("GET", &[Order::CutAnswer(50_000); 8]);
    let broken = store.get(&name("a"), 0..100_000).await.unwrap_err();
    assert!(broken.passing(), "{broken}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_fails_is_ended() {
    let line = Line::to(server().port).await;
    let store = open(line.port, "ended").await;
    let part = Bytes::from(vec![5; 9 << 20]);
    let mut dropped = store.begin(&name("dropped")).await.unwrap();
    dropped.write(part.clone()).await.unwrap();
    dropped.write(part.clone()).await.unwrap();
    assert_eq!(uploads("ended/").await, ["ended/dropped"]);
    drop(dropped);
    no_upload_is_left("ended/").await;

    line.order("PUT", &[Order::Answer(507); 4]);
    let mut full = store.begin(&name("full")).await.unwrap();
    let mut end = Ok(());
    for _ in 0..4 {
        end = end.and(full.write(part.clone()).await);
    }
    let end = end.and(full.finish().await);
    assert!(matches!(end, Err(StoreError::Full(_))), "{end:?}");
    no_upload_is_left("ended/").await;
    assert_eq!(store.list("", None).await, Ok(Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_is_told_so() {
    let server = signed();
    let home = tempfile::tempdir().unwrap();
    let [(id, secret), (reader, readers)] = &server.keys[..] else { panic!("two keys") };
    let store = bucket(server.port, "signed", files(home.path(), id, secret)).await;
    store.put(&name("a b".replace(' ', "_").as_str()), Bytes::from_static(b"x")).await.unwrap();
    let mut upload = store.begin(&name("long")).await.unwrap();
    upload.write(Bytes::from(vec![1; 17 << 20])).await.unwrap();
    upload.finish().await.unwrap();
    assert_eq!(store.get(&name("long"), 8_388_607..8_388_609).await, Ok(Bytes::from_static(&[1, 1])));
    assert_eq!(store.list("lo", None).await.unwrap().len(), 1);

    for (what, id, secret) in
        [("a wrong secret", id.as_str(), "wrong"), ("an unknown key", "AKIAUNKNOWN", secret.as_str())]
    {
        let home = tempfile::tempdir().unwrap();
        let store = bucket(server.port, "signed", files(home.path(), id, secret)).await;
        let denied = [
            store.put(&name("b"), Bytes::new()).await.unwrap_err(),
            store.get(&name("long"), 0..1).await.unwrap_err(),
            store.size(&name("long")).await.unwrap_err(),
            store.list("", None).await.unwrap_err(),
            store.examine().await.unwrap_err(),
        ];
        for error in denied {
            assert!(matches!(error, StoreError::Denied(_)), "{what}: {error:?}");
            assert!(!error.to_string().contains(secret), "{error}");
        }
    }
    let home = tempfile::tempdir().unwrap();
    let store = bucket(server.port, "signed", files(home.path(), reader, readers)).await;
    assert_eq!(store.get(&name("long"), 0..1).await, Ok(Bytes::from_static(&[1])));
    assert!(matches!(store.put(&name("c"), Bytes::new()).await, Err(StoreError::Denied(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_cannot_be_read_are_no_keys() {
    let home = tempfile::tempdir().unwrap();
    let identity = files(home.path(), "anybody", "anything");
    std::fs::remove_file(home.path().join("secret")).unwrap();
    let store = bucket(server().port, "keys", identity).await;
    let error = store.size(&name("a")).await.unwrap_err();
    assert!(matches!(&error, StoreError::Denied(text) if text.contains("secret")), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_not_there_is_unusable_and_nobody_there_passes() {
    let home = tempfile::tempdir().unwrap();
    let there = Bucket {
        name: "no-such-bucket".to_owned(),
        region: Some("us-east-1".to_owned()),
        endpoint: Some(format!("http://127.0.0.1:{}", server().port)),
        path_style: true,
        identity: files(home.path(), "anybody", "anything"),
        ..Bucket::default()
    };
    let store = S3::open(&there).await;
    let error = store.put(&name("a"), Bytes::new()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unusable(_)), "{error:?}");
    let error = store.list("", None).await.unwrap_err();
    assert!(matches!(error, StoreError::Unusable(_)), "{error:?}");

    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let store = S3::open(&Bucket { endpoint: Some(format!("http://127.0.0.1:{port}")), ..there }).await;
    let error = store.put(&name("a"), Bytes::new()).await.unwrap_err();
    assert!(error.passing(), "{error:?}");
}

/// Writes an upload to the server it is told, without an end; told none, it writes a little, and leaves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_not_finished() {
    let told = std::env::var(WRITE_TO).ok();
    let port = told.as_ref().map_or_else(|| server().port, |port| port.parse().unwrap());
    let store = open(port, if told.is_some() { "killed" } else { "unfinished" }).await;
    let mut upload = store.begin(&name("never")).await.unwrap();
    for _ in 0..4 {
        upload.write(Bytes::from(vec![7; 8 << 20])).await.unwrap();
    }
    if told.is_some() {
        std::io::stderr().write_all(b"under way\n").unwrap();
        std::future::pending::<()>().await;
    }
    drop(upload);
    assert_eq!(store.size(&name("never")).await, Ok(None));
    no_upload_is_left("unfinished/").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_is_killed_leaves_nothing_that_is_seen() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "an_upload_that_is_not_finished", "--nocapture"])
        .env(WRITE_TO, server().port.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let under_way = lines.map_while(Result::ok).any(|line| line == "under way");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(under_way, "the child wrote");
    let store = open(server().port, "killed").await;
    assert_eq!(store.list("", None).await, Ok(Vec::new()));
    store.put(&name("never"), Bytes::from_static(b"now")).await.unwrap();
}
