//! An archive in a bucket of Cloud Storage, against a strict double of its interface, and an emulator by others.

mod double;
mod emulator;

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use lifeboat_engine::ports::{Abilities, ObjectName, Store, StoreError};
use lifeboat_engine::pretend::conformance;
use lifeboat_gcp::gcs::{Bucket, Gcs, Identity};

use self::double::{BUCKET, Double, Order};
use self::emulator::Emulator;

const PUT: &str = "PUT /upload";
const POST: &str = "POST /upload";
const GET: &str = "GET /storage";

fn name(text: &str) -> ObjectName {
    text.parse().expect("a name")
}

fn open(double: &Double, prefix: &str, identity: Identity) -> Gcs {
    let bucket = Bucket {
        name: BUCKET.to_owned(),
        prefix: prefix.to_owned(),
        endpoint: Some(double.address()),
        identity,
    };
    Gcs::open(&bucket).expect("opened")
}

/// Lets an account into the double, and writes its file.
fn account(double: &Double, home: &Path) -> PathBuf {
    let key = KeyPair::generate(KeySize::Rsa2048).expect("a key");
    let email = "lifeboat@project.iam.example".to_owned();
    double.room().account = Some((email.clone(), key.public_key().as_ref().to_vec()));
    let der: Pkcs8V1Der<'_> = key.as_der().expect("encoded");
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        STANDARD.encode(der.as_ref())
    );
    let document = serde_json::json!({
        "type": "service_account", "client_email": email, "private_key_id": "k1", "private_key": pem,
        "token_uri": format!("{}/token", double.address()),
    });
    let path = home.join("account.json");
    std::fs::write(&path, document.to_string()).expect("written");
    path
}

async fn long(store: &Gcs, object: &ObjectName, content: &Bytes) -> Result<(), StoreError> {
    let mut upload = store.begin(object).await?;
    for part in content.chunks(3_000_000) {
        upload.write(Bytes::copy_from_slice(part)).await?;
    }
    upload.finish().await
}

fn content() -> Bytes {
    (0..21_000_000_u32).map(|at| u8::try_from((at / 7) % 251).expect("small")).collect()
}

async fn no_session_is_left(double: &Double) {
    let ended = async {
        while double.room().sessions() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ended).await.expect("an upload is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_does_what_every_store_must() {
    let double = Double::start().await;
    let store = open(&double, "/deep/in a/", Identity::Nobody);
    assert_eq!(store.place(), "gs://archive/deep/in a");
    conformance(&store).await;
    assert_eq!(store.examine().await, Ok(Abilities { exclusive: true }));
    assert_eq!(store.list("", None).await, Ok(Vec::new()), "examining leaves nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_ignores_conditions_is_found_out() {
    let double = Double::start().await;
    double.room().unconditional = true;
    let store = open(&double, "", Identity::Nobody);
    assert_eq!(store.examine().await, Ok(Abilities { exclusive: false }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_did_not_arrive_whole_is_sent_on() {
    let double = Double::start().await;
    let store = open(&double, "parts", Identity::Nobody);
    let content = content();
    for (count, orders) in [
        &[Order::TakeLittle][..],
        &[Order::TakeLittle, Order::TakeLittle, Order::TakeLittle],
        &[Order::LoseAnswer],
        &[Order::Answer(503, "backendError")],
        &[Order::Answer(429, "rateLimitExceeded"), Order::Answer(500, "")],
    ]
    .into_iter()
    .enumerate()
    {
        double.order(PUT, orders);
        let object = name(&format!("long-{count}"));
        long(&store, &object, &content).await.unwrap();
        assert_eq!(double.room().left(), 0, "{orders:?}");
        assert!(store.get(&object, 0..1 << 30).await.unwrap() == content, "{orders:?}");
    }
    // The answer to the very last part.
    let mut upload = store.begin(&name("last")).await.unwrap();
    upload.write(content.clone()).await.unwrap();
    while double.room().sessions() > 1 || double.room().seen(PUT) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    double.order(PUT, &[Order::Answer(503, ""), Order::Answer(503, ""), Order::LoseAnswer]);
    upload.finish().await.unwrap();
    assert!(store.get(&name("last"), 0..1 << 30).await.unwrap() == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_is_tried_again() {
    let double = Double::start().await;
    let store = open(&double, "busy", Identity::Nobody);
    for (status, reason) in
        [(500, ""), (502, ""), (503, "backendError"), (429, "rateLimitExceeded"), (403, "rateLimitExceeded")]
    {
        double.order(POST, &[Order::Answer(status, reason)]);
        store.put(&name(&format!("{status}{reason}")), Bytes::from_static(b"x")).await.unwrap();
    }
    double.order(POST, &[Order::LoseAnswer]);
    store.put(&name("mine"), Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(
        store.put(&name("mine"), Bytes::from_static(b"x")).await,
        Err(StoreError::Exists(name("mine"))),
        "another write is another one, whatever it writes"
    );
    double.order(GET, &[Order::CutAnswer]);
    assert_eq!(store.get(&name("mine"), 0..10).await, Ok(Bytes::from_static(b"x")));
    assert_eq!(double.room().left(), 0);

    double.order(POST, &[Order::Answer(503, ""); 40]);
    let before = double.room().seen(POST);
    let refused = store.put(&name("never"), Bytes::new()).await.unwrap_err();
    assert!(refused.passing(), "{refused}");
    assert_eq!(double.room().seen(POST) - before, 4, "and then it is the caller's");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_says_what_to_do_next() {
    let double = Double::start().await;
    let store = open(&double, "", Identity::Nobody);
    let mut met = Vec::new();
    for (status, reason) in
        [(401, "authError"), (403, "forbidden"), (403, "quotaExceeded"), (400, "invalid"), (404, "notFound")]
    {
        double.order(POST, &[Order::Answer(status, reason)]);
        met.push(store.put(&name("a"), Bytes::new()).await.unwrap_err());
    }
    assert!(matches!(
        &met[..],
        [
            StoreError::Denied(_),
            StoreError::Denied(_),
            StoreError::Full(_),
            StoreError::Unusable(_),
            StoreError::Unusable(_)
        ]
    ));
    let elsewhere =
        Bucket { name: "no-such-bucket".to_owned(), endpoint: Some(double.address()), ..Bucket::default() };
    let error = Gcs::open(&elsewhere).unwrap().list("", None).await.unwrap_err();
    assert!(matches!(error, StoreError::Unusable(_)), "{error:?}");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nobody = Bucket { endpoint: Some(format!("http://127.0.0.1:{port}")), ..elsewhere };
    assert!(Gcs::open(&nobody).unwrap().size(&name("a")).await.unwrap_err().passing());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_dropped_or_fails_is_ended() {
    let double = Double::start().await;
    let store = open(&double, "ended", Identity::Nobody);
    let content = content();
    let mut dropped = store.begin(&name("dropped")).await.unwrap();
    dropped.write(content.clone()).await.unwrap();
    assert_eq!(double.room().sessions(), 1);
    drop(dropped);
    no_session_is_left(&double).await;

    // More than one: a part of what was dropped may still be on its way.
    double.order(PUT, &[Order::Answer(403, "quotaExceeded"); 3]);
    let full = long(&store, &name("full"), &content).await;
    assert!(matches!(full, Err(StoreError::Full(_))), "{full:?}");
    no_session_is_left(&double).await;
    assert_eq!(store.list("", None).await, Ok(Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_signs_for_its_tokens() {
    let double = Double::start().await;
    let home = tempfile::tempdir().unwrap();
    let path = account(&double, home.path());
    let store = open(&double, "", Identity::File(path.clone()));
    store.put(&name("a"), Bytes::from_static(b"x")).await.unwrap();
    long(&store, &name("long"), &content()).await.unwrap();
    assert_eq!(store.list("", None).await.unwrap().len(), 2);
    assert_eq!(double.room().given_out, 1, "a token is used until it is old");

    // Refused, it is fetched anew; at once, and once.
    double.room().revoke();
    assert_eq!(store.get(&name("a"), 0..10).await, Ok(Bytes::from_static(b"x")));
    assert_eq!(double.room().given_out, 2);

    let nobody = open(&double, "", Identity::Nobody);
    assert!(matches!(nobody.get(&name("a"), 0..10).await, Err(StoreError::Denied(_))));

    // Another key is not this account's.
    let other = Double::start().await;
    account(&other, home.path());
    let text = std::fs::read_to_string(&path).unwrap().replace(&other.address(), &double.address());
    std::fs::write(&path, text).unwrap();
    let stranger = open(&double, "", Identity::File(path));
    let error = stranger.get(&name("a"), 0..10).await.unwrap_err();
    assert!(matches!(error, StoreError::Denied(_)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_fetched_anew_before_it_is_old() {
    let double = Double::start().await;
    double.room().instance = true;
    double.room().life = 4;
    let store = open(&double, "", Identity::Instance(Some(double.address())));
    store.put(&name("a"), Bytes::from_static(b"x")).await.unwrap();
    let renewed = async {
        while double.room().given_out < 2 {
            assert_eq!(store.size(&name("a")).await, Ok(Some(1)));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), renewed).await.expect("it is fetched anew");
    {
        let mut room = double.room();
        assert_eq!(room.seen("GET /computeMetadata"), room.given_out);
        // At half of a short life; a slow machine may take some of it.
        assert!(room.left_to_live[0] > Duration::from_millis(500), "{:?}", room.left_to_live);
        room.instance = false;
        room.revoke();
    }
    let home = tempfile::tempdir().unwrap();
    account(&double, home.path());
    let error =
        open(&double, "", Identity::Instance(Some(double.address()))).size(&name("a")).await.unwrap_err();
    assert!(matches!(error, StoreError::Denied(_)), "an instance without an account: {error:?}");
}

/// Others have read the same description; theirs knows no conditions.
#[tokio::test(flavor = "multi_thread")]
async fn an_emulator_by_others_understands_it() {
    let emulator = Emulator::start();
    let endpoint = Some(format!("http://127.0.0.1:{}", emulator.port));
    let bucket =
        Bucket { name: BUCKET.to_owned(), prefix: "deep/in".to_owned(), endpoint, ..Bucket::default() };
    let store = Gcs::open(&bucket).unwrap();
    let content = content();
    store.put(&name("a/short"), content.slice(..100_000)).await.unwrap();
    long(&store, &name("a/long"), &content).await.unwrap();
    assert!(store.get(&name("a/long"), 0..1 << 30).await.unwrap() == content);
    assert_eq!(store.get(&name("a/short"), 99_998..200_000).await, Ok(content.slice(99_998..100_000)));
    assert_eq!(store.get(&name("a/none"), 0..10).await, Err(StoreError::Missing(name("a/none"))));
    assert_eq!(store.size(&name("a/long")).await, Ok(Some(21_000_000)));
    assert_eq!(store.size(&name("a/none")).await, Ok(None));
    let listed = store.list("a/", None).await.unwrap();
    let shown: Vec<_> = listed.iter().map(|one| (one.name.as_str(), one.size)).collect();
    assert_eq!(shown, [("a/long", 21_000_000), ("a/short", 100_000)]);
    assert!(listed.iter().all(|one| one.written.millis() > 1_600_000_000_000), "{listed:?}");
    let after = store.list("a/", Some(&name("a/long"))).await.unwrap();
    assert_eq!(after.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["a/short"]);
    assert_eq!(store.examine().await, Ok(Abilities { exclusive: false }));
    for gone in ["a/long", "a/short", "a/none"] {
        store.remove(&name(gone)).await.unwrap();
    }
    assert_eq!(store.list("", None).await, Ok(Vec::new()));
}

#[test]
fn a_file_that_is_no_account_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("account.json");
    let open = || Gcs::open(&Bucket { identity: Identity::File(path.clone()), ..Bucket::default() });
    assert!(matches!(open(), Err(StoreError::Denied(_))));
    for wrong in [
        "",
        "{}",
        r#"{"client_email":"a","private_key":"s3cret","token_uri":"b"}"#,
        r#"{"client_email":"a","private_key":"-----BEGIN PRIVATE KEY-----\nczNjcmV0\n-----END PRIVATE KEY-----","token_uri":"b"}"#,
    ] {
        std::fs::write(&path, wrong).unwrap();
        let Err(StoreError::Denied(text)) = open() else { panic!("{wrong} is taken") };
        assert!(!text.contains("s3cret") && !text.contains("czNjcmV0"), "{text}");
    }
}
