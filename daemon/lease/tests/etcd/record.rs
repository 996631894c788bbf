//! The record: one order for everybody, nothing lost, nothing twice, nothing unnoticed.

use std::collections::BTreeSet;

use etcd_client::{CompactionOptions, GetOptions};
use lifeboat_engine::ports::{Change, Coordination, CoordinationError, Tenure};

use crate::agents::{agent, elected, head, listen, no_heads, record, records, shop};
use crate::servers::Servers;

fn told(changes: Vec<Change>) -> Vec<lifeboat_core::Stamped> {
    changes
        .into_iter()
        .filter_map(|change| if let Change::Record(record) = change { Some(record) } else { None })
        .collect()
}

#[tokio::test]
async fn what_one_appends_everybody_is_told_in_order() {
    let servers = Servers::start(1).await;
    let (a, b) = (agent(&servers, "a"), agent(&servers, "b"));
    let tenure = elected(&a).await;
    a.append(tenure, &records(1..=2), &shop(head(1, "east", false))).await.expect("appended");
    a.append(tenure, &records(3..=3), &no_heads()).await.expect("appended");

    let mut ear = listen(&b, None);
    let there = ear.all_there_is().await;
    assert_eq!(told(there.clone()), records(1..=3));
    assert!(there.contains(&Change::Guardian(Some("a".into()))));
    a.append(tenure, &records(4..=8), &no_heads()).await.expect("appended");
    for record in records(4..=8) {
        assert_eq!(ear.next().await, Change::Record(record));
    }
    assert_eq!(b.records(0).await.expect("read"), records(1..=8));
    assert_eq!(b.records(5).await.expect("read"), records(6..=8), "from the middle of an append");
    assert_eq!(b.records(8).await.expect("read"), []);
}

#[tokio::test]
async fn what_was_read_before_is_not_told_again_and_must_still_be_there() {
    let servers = Servers::start(1).await;
    let a = agent(&servers, "a");
    let tenure = elected(&a).await;
    a.append(tenure, &records(1..=5), &no_heads()).await.expect("appended");
    let mut ear = listen(&agent(&servers, "b"), Some(record(3, "1.0")));
    assert_eq!(told(ear.all_there_is().await), records(4..=5));

    let other = listen(&agent(&servers, "b"), Some(record(3, "something else"))).end().await;
    assert!(matches!(&other, CoordinationError::Damaged(_)), "{other}");
    let missing = listen(&agent(&servers, "b"), Some(record(9, "1.0"))).end().await;
    assert_eq!(missing, CoordinationError::Rewound { known: 9, found: 5 });
    assert_eq!(a.records(9).await, Err(CoordinationError::Rewound { known: 9, found: 5 }));
}

#[tokio::test]
async fn a_place_is_taken_once() {
    let servers = Servers::start(1).await;
    let a = agent(&servers, "a");
    let tenure = elected(&a).await;
    a.append(tenure, &records(1..=1), &no_heads()).await.expect("appended");
    let (first, second) = (record(2, "first"), record(2, "second"));
    a.append(tenure, std::slice::from_ref(&first), &no_heads()).await.expect("appended");
    let again = a.append(tenure, &[second], &shop(head(7, "west", false))).await;
    assert!(matches!(&again, Err(CoordinationError::Deposed(_))), "{again:?}");
    let same = a.append(tenure, std::slice::from_ref(&first), &no_heads()).await;
    assert!(matches!(&same, Err(CoordinationError::Deposed(_))), "not even the same again: {same:?}");
    assert_eq!(a.records(1).await.expect("read"), [first]);
    let head = servers.client(0).await.get("/lifeboat/test/head/shop", None).await.expect("read");
    assert_eq!(head.count(), 0, "what did not come on record changes no head either");
}

#[tokio::test]
async fn a_gap_is_refused() {
    let servers = Servers::start(1).await;
    let a = agent(&servers, "a");
    let tenure = elected(&a).await;
    let gap = a.append(tenure, &records(2..=2), &no_heads()).await;
    assert_eq!(gap, Err(CoordinationError::Rewound { known: 1, found: 0 }));
    assert_eq!(a.records(0).await.expect("read"), []);
}

#[tokio::test]
async fn a_decision_of_more_records_than_a_transaction_has_operations_is_one() {
    let servers = Servers::start(1).await;
    let a = agent(&servers, "a");
    let tenure = elected(&a).await;
    let before = revision(&servers).await;
    a.append(tenure, &records(1..=500), &shop(head(1, "east", false))).await.expect("appended");
    assert_eq!(revision(&servers).await, before + 1, "one transaction");
    assert_eq!(a.records(0).await.expect("read"), records(1..=500));

    let large = record(501, &"x".repeat(2_000_000));
    let refused = a.append(tenure, &[large], &no_heads()).await;
    assert!(matches!(&refused, Err(CoordinationError::Full(_))), "{refused:?}");
    a.append(tenure, &records(501..=501), &no_heads()).await.expect("the tenure goes on");
}

async fn revision(servers: &Servers) -> i64 {
    let got = servers.client(0).await.get("any", None).await.expect("read");
    got.header().expect("a header").revision()
}

#[tokio::test]
async fn a_long_record_is_read_in_pages_and_a_large_one_in_smaller_ones() {
    let servers = Servers::start(1).await;
    let a = agent(&servers, "a");
    let tenure = elected(&a).await;
    for sequence in 1..=600 {
        a.append(tenure, &[record(sequence, "1.0")], &no_heads()).await.expect("appended");
    }
    // More than 16 MiB on one page.
    let large: Vec<_> = (601..=624).map(|sequence| record(sequence, &"x".repeat(900_000))).collect();
    for record in &large {
        a.append(tenure, std::slice::from_ref(record), &no_heads()).await.expect("appended");
    }
    let mut ear = listen(&agent(&servers, "b"), None);
    let all = told(ear.all_there_is().await);
    assert_eq!(all.len(), 624);
    assert!(all[600..] == large[..], "the large ones are whole");
    assert_eq!(all[..600], records(1..=600));
}

#[tokio::test]
async fn a_history_that_is_compacted_is_no_loss() {
    let servers = Servers::start(1).await;
    let a = agent(&servers, "a");
    let tenure = elected(&a).await;
    for sequence in 1..=20 {
        a.append(tenure, &[record(sequence, "1.0")], &no_heads()).await.expect("appended");
    }
    let mut client = servers.client(0).await;
    client
        .compact(revision(&servers).await, Some(CompactionOptions::new().with_physical()))
        .await
        .expect("compacted");
    let mut ear = listen(&agent(&servers, "b"), Some(record(1, "1.0")));
    assert_eq!(told(ear.all_there_is().await), records(2..=20));
}

#[tokio::test]
async fn a_record_that_was_changed_or_removed_by_somebody_else_is_not_passed_over() {
    let servers = Servers::start(1).await;
    let a = agent(&servers, "a");
    let tenure = elected(&a).await;
    for sequence in 1..=3 {
        a.append(tenure, &[record(sequence, "1.0")], &no_heads()).await.expect("appended");
    }
    let mut client = servers.client(0).await;
    let key = "/lifeboat/test/record/00000000000000000002";
    let value = client.get(key, None).await.expect("read").kvs()[0].value().to_vec();

    let mut ear = listen(&agent(&servers, "b"), None);
    ear.all_there_is().await;
    let changed = String::from_utf8(value.clone()).expect("text").replace("1.0", "1.1");
    client.put(key, changed, None).await.expect("put");
    let live = ear.end().await;
    assert!(matches!(&live, CoordinationError::Damaged(_)), "{live}");
    let read = a.records(0).await;
    assert!(matches!(&read, Err(CoordinationError::Damaged(why)) if why.contains("record 2")), "{read:?}");

    client.put(key, value.clone(), None).await.expect("put");
    assert_eq!(a.records(0).await.expect("read"), records(1..=3));
    let mut ear = listen(&agent(&servers, "b"), None);
    ear.all_there_is().await;
    client.put(key, value, None).await.expect("put");
    let live = ear.end().await;
    assert!(matches!(&live, CoordinationError::Damaged(_)), "even when it is the same: {live}");
    let mut ear = listen(&agent(&servers, "b"), None);
    ear.all_there_is().await;
    client.delete(key, None).await.expect("deleted");
    let live = ear.end().await;
    assert!(matches!(&live, CoordinationError::Damaged(_)), "{live}");
    let again = listen(&agent(&servers, "b"), None).end().await;
    assert!(matches!(&again, CoordinationError::Damaged(_)), "{again}");
}

/// A property: whoever appends at the same time, with the tenure, with an old one or with none, what was taken in is one
/// record without gaps, and it is exactly what those were told who were told that it was.
#[tokio::test]
async fn appenders_at_the_same_time_never_fork_the_record() {
    let servers = Servers::start(3).await;
    let a = agent(&servers, "a");
    let old = elected(&a).await;
    a.resign(old).await;
    let b = agent(&servers, "b");
    let tenure = elected(&b).await;
    let mut writers = Vec::new();
    for writer in 0..6_u64 {
        // Two of them believe in a tenure that is over.
        let (agent, tenure) = if writer < 4 { (b.clone(), tenure) } else { (a.clone(), old) };
        writers.push(tokio::spawn(async move {
            let mut taken = Vec::new();
            for round in 0..25 {
                let newest = agent.records(0).await.expect("read").len() as u64;
                let size = 1 + (writer + round) % 3;
                let mine: Vec<_> = (newest + 1..=newest + size)
                    .map(|place| record(place, &format!("{writer}/{round}")))
                    .collect();
                match agent.append(tenure, &mine, &no_heads()).await {
                    Ok(()) => taken.extend(mine),
                    // A race that was lost.
                    Err(CoordinationError::Deposed(_) | CoordinationError::Rewound { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            (writer, taken)
        }));
    }
    let mut taken = Vec::new();
    for writer in writers {
        let (writer, mine) = writer.await.expect("joined");
        assert!(writer < 4 || mine.is_empty(), "an old tenure appended {mine:?}");
        taken.extend(mine);
    }
    taken.sort_by_key(|record| record.sequence);
    assert!(!taken.is_empty());
    let places: BTreeSet<u64> = taken.iter().map(|record| record.sequence).collect();
    assert_eq!(places.len(), taken.len(), "no place was given twice");
    assert_eq!(agent(&servers, "c").records(0).await.expect("read"), taken);
}

#[tokio::test]
async fn a_tenure_that_was_never_given_appends_nothing() {
    let servers = Servers::start(1).await;
    let a = agent(&servers, "a");
    let refused = a.append(Tenure { term: 1 }, &records(1..=1), &no_heads()).await;
    assert!(matches!(&refused, Err(CoordinationError::Deposed(_))), "{refused:?}");
    let all = GetOptions::new().with_prefix();
    assert_eq!(servers.client(0).await.get("/", Some(all)).await.expect("read").count(), 0);
}

#[tokio::test]
async fn a_place_that_nobody_could_have_written_is_damage_and_nothing_worse() {
    let servers = Servers::start(1).await;
    let a = agent(&servers, "a");
    let tenure = elected(&a).await;
    a.append(tenure, &records(1..=2), &no_heads()).await.expect("appended");
    let mut client = servers.client(0).await;
    let value = client.get("/lifeboat/test/record/00000000000000000001", None).await.expect("read");
    let value = value.kvs()[0].value().to_vec();
    for (key, value) in [
        ("newest".to_owned(), u64::MAX.to_string().into_bytes()),
        ("newest".to_owned(), b"three".to_vec()),
        ("newest".to_owned(), vec![b'9'; 1_000_000]),
        (format!("record/{}", u64::MAX), value.clone()),
        ("record/x".to_owned(), value),
    ] {
        let key = format!("/lifeboat/test/{key}");
        let before = client.get(key.as_str(), None).await.expect("read");
        client.put(key.as_str(), value, None).await.expect("put");
        let read = a.records(0).await;
        assert!(matches!(&read, Err(CoordinationError::Damaged(_))), "{key}: {read:?}");
        let end = listen(&agent(&servers, "b"), None).end().await;
        assert!(matches!(&end, CoordinationError::Damaged(_)), "{key}: {end}");
        match before.kvs().first() {
            Some(kv) => drop(client.put(key.as_str(), kv.value(), None).await.expect("put")),
            None => drop(client.delete(key.as_str(), None).await.expect("deleted")),
        }
    }
    assert_eq!(a.records(0).await.expect("read"), records(1..=2));
}
