//! Testimonies: told of with their vantage's seal, in their order, and until they are not said any more.

use std::time::Duration;

use lifeboat_core::testimony::Testimony;
use lifeboat_engine::ports::{Change, Coordination, CoordinationError};
use lifeboat_lease::etcd::EtcdOptions;

use crate::agents::{agent, agent_with, listen, options, testimony};
use crate::servers::Servers;

const KEY: &str = "/lifeboat/test/testimony/a";

async fn forged(ear: &mut crate::agents::Ear) -> (String, String) {
    match ear.next().await {
        Change::Forged { vantage, why } => (vantage.to_string(), why),
        other => panic!("{other:?} instead of a forgery"),
    }
}

#[tokio::test]
async fn what_a_vantage_says_the_others_hear_until_it_is_silent() {
    let servers = Servers::start(1).await;
    let short = EtcdOptions { testimony_ttl: Duration::from_secs(2), ..options("a", servers.endpoints()) };
    let a = agent_with(servers.folder.path(), short);
    let b = agent(&servers, "b");
    a.testify(&testimony("a", 1)).await.expect("said");
    let mut ear = listen(&b, None);
    assert!(ear.all_there_is().await.contains(&Change::Testimony(testimony("a", 1))));
    // For longer than one lasts.
    let end = a.clock.now() + Duration::from_secs(5);
    let mut sequence = 1;
    while a.clock.now() < end {
        sequence += 1;
        a.testify(&testimony("a", sequence)).await.expect("said");
        assert_eq!(
            ear.next().await,
            Change::Testimony(testimony("a", sequence)),
            "nothing else is told meanwhile"
        );
        a.clock.sleep_until(a.clock.now() + Duration::from_millis(400)).await;
    }
    assert_eq!(ear.next().await, Change::Silent("a".into()));
    a.testify(&testimony("a", sequence + 1)).await.expect("said, with a lease that is new");
    assert_eq!(ear.next().await, Change::Testimony(testimony("a", sequence + 1)));
}

#[tokio::test]
async fn a_vantage_that_fell_silent_while_nobody_watched_is_told_of() {
    let servers = Servers::start(1).await;
    let (a, b) = (agent(&servers, "a"), agent(&servers, "b"));
    a.testify(&testimony("a", 1)).await.expect("said");
    let mut ear = listen(&b, None);
    ear.until(&Change::Testimony(testimony("a", 1))).await;
    ear.watch.abort();
    servers.client(0).await.delete(KEY, None).await.expect("deleted");
    let mut again = listen(&b, None);
    assert!(again.all_there_is().await.contains(&Change::Silent("a".into())));
    let mut other = listen(&agent(&servers, "c"), None);
    let silent = |change: &Change| matches!(change, Change::Silent(_));
    assert!(!other.all_there_is().await.iter().any(silent), "who never heard it hears nothing of it");
}

#[tokio::test]
async fn what_is_not_sealed_by_its_vantage_is_dropped_and_named() {
    let servers = Servers::start(1).await;
    let mut client = servers.client(0).await;
    let b = agent(&servers, "b");
    let mut ear = listen(&b, None);
    ear.until(&Change::CaughtUp).await;

    // Another agent's seal, under this one's name: the other agent says it is `a`.
    let folder = tempfile::tempdir().expect("a folder");
    let liar = agent_with(folder.path(), options("a", servers.endpoints()));
    liar.testify(&testimony("a", 1)).await.expect("said");
    assert_eq!(forged(&mut ear).await, ("a".to_owned(), "the seal is not that of a".to_owned()));

    // One that nobody knows.
    agent(&servers, "d").testify(&testimony("d", 1)).await.expect("said");
    assert_eq!(forged(&mut ear).await, ("d".to_owned(), "the seal is not that of d".to_owned()));

    // A true one, taken from its place and put in another's.
    let a = agent(&servers, "a");
    a.testify(&testimony("a", 5)).await.expect("said");
    assert_eq!(ear.next().await, Change::Testimony(testimony("a", 5)));
    let five = client.get(KEY, None).await.expect("read").kvs()[0].value().to_vec();
    client.put("/lifeboat/test/testimony/c", five.clone(), None).await.expect("put");
    assert_eq!(forged(&mut ear).await.0, "c");

    // A true one that was changed.
    let changed = String::from_utf8(five.clone()).expect("text").replace(":5,", ":6,");
    assert_ne!(changed.as_bytes(), five);
    client.put(KEY, changed, None).await.expect("put");
    assert_eq!(forged(&mut ear).await, ("a".to_owned(), "the seal is not that of a".to_owned()));

    // Sealed by `b` itself, who speaks for `a`.
    let c = agent(&servers, "c");
    let lie = Testimony { vantage: "a".into(), ..testimony("c", 1) };
    c.testify(&lie).await.expect("said");
    assert_eq!(forged(&mut ear).await, ("c".to_owned(), "it says that it is of a".to_owned()));

    for (value, why) in [(Vec::new(), "it is no sealed value"), (vec![0xff; 300], "it is no sealed value")] {
        client.put(KEY, value, None).await.expect("put");
        assert!(forged(&mut ear).await.1.starts_with(why));
    }
    client.put(KEY, vec![b' '; 1_000_000], None).await.expect("put");
    assert_eq!(forged(&mut ear).await.1, "it has 1000000 bytes; at most 262144 are read");
    a.testify(&testimony("a", 7)).await.expect("said");
    assert_eq!(ear.next().await, Change::Testimony(testimony("a", 7)), "and the vantage is heard again");
}

#[tokio::test]
async fn one_that_was_said_before_is_not_heard_again() {
    let servers = Servers::start(1).await;
    let mut client = servers.client(0).await;
    let (a, b) = (agent(&servers, "a"), agent(&servers, "b"));
    a.testify(&testimony("a", 1)).await.expect("said");
    let old = client.get(KEY, None).await.expect("read").kvs()[0].value().to_vec();
    a.testify(&testimony("a", 2)).await.expect("said");
    let mut ear = listen(&b, None);
    ear.until(&Change::CaughtUp).await;
    client.put(KEY, old.clone(), None).await.expect("put");
    assert_eq!(forged(&mut ear).await.1, "it is number 1, and number 2 came before");
    ear.watch.abort();
    let mut again = listen(&b, None);
    assert!(
        again.all_there_is().await.iter().any(|change| matches!(change, Change::Forged { .. })),
        "a new watch of the same agent remembers"
    );
}

#[tokio::test]
async fn a_vantage_of_another_lifeboat_is_not_believed() {
    let servers = Servers::start(1).await;
    let other = EtcdOptions { name: "other".to_owned(), ..options("a", servers.endpoints()) };
    agent_with(servers.folder.path(), other).testify(&testimony("a", 9)).await.expect("said");
    let mut client = servers.client(0).await;
    let value =
        client.get("/lifeboat/other/testimony/a", None).await.expect("read").kvs()[0].value().to_vec();
    client.put(KEY, value, None).await.expect("put");
    let mut ear = listen(&agent(&servers, "b"), None);
    let there = ear.all_there_is().await;
    assert!(there.iter().any(|change| matches!(change, Change::Forged { .. })), "{there:?}");
}

#[tokio::test]
async fn more_keys_than_anybody_has_vantages_are_not_taken_in() {
    let servers = Servers::start(1).await;
    let mut client = servers.client(0).await;
    for number in 0..1025 {
        client.put(format!("/lifeboat/test/testimony/v{number}"), "", None).await.expect("put");
    }
    let mut ear = listen(&agent(&servers, "b"), None);
    let mut forged = 0;
    while let Ok(Change::Guardian(_) | Change::Forged { .. }) =
        tokio::time::timeout(crate::servers::PATIENCE, ear.next_or_end()).await.expect("in time")
    {
        forged += 1;
    }
    assert!(forged <= 1025, "{forged}");
    let end = ear.end().await;
    assert!(matches!(&end, CoordinationError::Damaged(why) if why.contains("more than 1024 keys")), "{end}");
}
