//! Members that are gone, frozen, slow, full, or restored from a backup: what is said then, and what goes on.

use std::time::Duration;

use lifeboat_core::Epoch;
use lifeboat_core::head::Guarded;
use lifeboat_core::testimony::Beat;
use lifeboat_engine::ports::{Change, Coordination, CoordinationError, Renewal, Tenure, WriteLeases};
use lifeboat_lease::etcd::{EtcdLeases, EtcdOptions};

use crate::agents::{
    Agent, agent, agent_with, east, elected, eventually, head, listen, no_heads, options, record, records,
    shop, testimony,
};
use crate::proxy::Proxy;
use crate::servers::{Servers, Setting, copy};

/// An agent that does not wait long for one member.
fn quick(servers: &Servers, name: &str, endpoints: Vec<String>) -> Agent {
    let options = options(name, endpoints);
    agent_with(servers.folder.path(), EtcdOptions { deadline: Duration::from_secs(1), ..options })
}

/// All but that one, after it.
fn beginning_with(servers: &Servers, member: usize) -> Vec<String> {
    let mut endpoints = servers.endpoints();
    endpoints.rotate_left(member);
    endpoints
}

/// Renews until it succeeds; nothing but not being reached may come before.
async fn renewed(agent: &Agent, tenure: Tenure, count: u64) {
    eventually("a renewal", async || {
        match Coordination::renew(&*agent.etcd, tenure, Beat { term: tenure.term, count }).await {
            Ok(()) => Some(()),
            Err(CoordinationError::Unreachable(_) | CoordinationError::Unclear(_)) => None,
            Err(error) => panic!("{error}"),
        }
    })
    .await;
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let mut servers = Servers::start(1).await;
    servers.list[0].kill();
    let a = agent(&servers, "a");
    let said = [
        a.campaign().await.map(drop),
        a.records(0).await.map(drop),
        a.testify(&testimony("a", 1)).await,
        Err(listen(&a, None).end().await),
    ];
    for said in said {
        assert!(matches!(&said, Err(CoordinationError::Unreachable(_))), "{said:?}");
    }
}

#[tokio::test]
async fn a_frozen_member_costs_one_deadline_and_no_tenure() {
    let servers = Servers::start(3).await;
    let leader = servers.leader().await;
    let frozen = (leader + 1) % 3;
    let a = quick(&servers, "a", beginning_with(&servers, frozen));
    let tenure = elected(&a).await;
    let mut ear = listen(&a, None);
    ear.all_there_is().await;
    // What comes as news comes through the watch, which is open then.
    a.append(tenure, &records(1..=1), &no_heads()).await.expect("appended");
    ear.until(&Change::Record(record(1, "1.0"))).await;
    servers.list[frozen].freeze();
    // The first call waits for it; none fails, and those after it do not ask it first.
    for count in 2..=10 {
        Coordination::renew(&*a.etcd, tenure, Beat { term: tenure.term, count }).await.expect("renewed");
        a.append(tenure, &records(count..=count), &no_heads()).await.expect("appended");
    }
    let begun = a.clock.now();
    for count in 11..=30 {
        Coordination::renew(&*a.etcd, tenure, Beat { term: tenure.term, count }).await.expect("renewed");
    }
    let took = a.clock.now().since(begun);
    assert!(took < Duration::from_secs(20), "twenty renewals took {took:?}: each asked the frozen member");
    // The watch through it is silent, which is noticed; the next one goes through another member.
    let end = ear.end().await;
    assert!(matches!(&end, CoordinationError::Unreachable(_)), "{end}");
    let mut ear = listen(&a, Some(record(10, "1.0")));
    ear.all_there_is().await;
    a.append(tenure, &records(11..=11), &no_heads()).await.expect("appended");
    ear.until(&Change::Record(record(11, "1.0"))).await;
    servers.list[frozen].thaw();
    let mut late = listen(&quick(&servers, "b", vec![servers.list[frozen].client.clone()]), None);
    late.until(&Change::Record(record(11, "1.0"))).await;
}

#[tokio::test]
async fn a_frozen_leader_delays_and_forks_nothing() {
    let servers = Servers::start(3).await;
    let leader = servers.leader().await;
    let a = quick(&servers, "a", beginning_with(&servers, leader));
    let tenure = elected(&a).await;
    a.append(tenure, &records(1..=1), &no_heads()).await.expect("appended");
    servers.list[leader].freeze();
    let mut next = 2;
    for round in 0..20 {
        match a.append(tenure, &[record(next, &format!("round {round}"))], &no_heads()).await {
            Ok(()) => next += 1,
            // Read before anything else is written.
            Err(CoordinationError::Unclear(_) | CoordinationError::Unreachable(_)) => {
                let there = eventually("a read", async || a.records(0).await.ok()).await;
                next = there.len() as u64 + 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    renewed(&a, tenure, 1).await;
    servers.list[leader].thaw();
    a.append(tenure, &[record(next, "after")], &no_heads()).await.expect("appended");
    // Every member tells one story, the one that was frozen as well.
    let told = a.records(0).await.expect("read");
    assert_eq!(told.len() as u64, next);
    for server in &servers.list {
        let alone = quick(&servers, "c", vec![server.client.clone()]);
        let same = eventually("a read", async || alone.records(0).await.ok()).await;
        assert_eq!(same, told);
    }
}

#[tokio::test]
async fn without_a_majority_nothing_is_known_and_nothing_is_said_to_be_written() {
    let mut servers = Servers::start(3).await;
    let a = quick(&servers, "a", servers.endpoints());
    let tenure = elected(&a).await;
    a.append(tenure, &records(1..=1), &no_heads()).await.expect("appended");
    let ear = listen(&a, None);
    servers.list[0].kill();
    servers.list[1].kill();
    let end = ear.end().await;
    assert!(matches!(&end, CoordinationError::Unreachable(_)), "{end}");
    let read = a.records(0).await;
    assert!(matches!(&read, Err(CoordinationError::Unreachable(_))), "{read:?}");
    let written = a.append(tenure, &[record(2, "lost?")], &no_heads()).await;
    assert!(
        matches!(&written, Err(CoordinationError::Unclear(_) | CoordinationError::Unreachable(_))),
        "{written:?}"
    );
    servers.start_again(0).await;
    assert!(servers.ready().await);
    let there = eventually("a read", async || a.records(0).await.ok()).await;
    let next = there.len() as u64 + 1;
    a.append(tenure, &[record(next, "again")], &no_heads()).await.expect("appended");
}

#[tokio::test]
async fn a_slow_member_is_not_asked_first_for_long() {
    let servers = Servers::start(3).await;
    let slow = Proxy::start(&servers.list[0].client, Duration::from_secs(2)).await;
    let endpoints =
        vec![slow.endpoint.clone(), servers.list[1].client.clone(), servers.list[2].client.clone()];
    let a = quick(&servers, "a", endpoints);
    let tenure = elected(&a).await;
    let begun = a.clock.now();
    for count in 1..=20 {
        Coordination::renew(&*a.etcd, tenure, Beat { term: tenure.term, count }).await.expect("renewed");
    }
    let took = a.clock.now().since(begun);
    assert!(took < Duration::from_secs(20), "twenty renewals took {took:?}: each asked the slow member");
}

#[tokio::test]
async fn an_append_whose_answer_was_lost_is_on_record_once() {
    let servers = Servers::start(1).await;
    let proxy = Proxy::start(&servers.list[0].client, Duration::ZERO).await;
    let a = quick(&servers, "a", vec![proxy.endpoint.clone(), servers.list[0].client.clone()]);
    let tenure = elected(&a).await;
    a.append(tenure, &records(1..=1), &no_heads()).await.expect("appended");
    proxy.mute();
    a.append(tenure, &records(2..=2), &no_heads()).await.expect("the second member says that it is there");
    a.append(tenure, &records(3..=3), &no_heads()).await.expect("appended");
    assert_eq!(a.records(0).await.expect("read"), records(1..=3));

    // With nobody else to ask, it is not known.
    let mute = Proxy::start(&servers.list[0].client, Duration::ZERO).await;
    let b = quick(&servers, "b", vec![mute.endpoint.clone()]);
    a.resign(tenure).await;
    let tenure = elected(&b).await;
    mute.mute();
    let unknown = b.append(tenure, &records(4..=4), &no_heads()).await;
    assert!(matches!(&unknown, Err(CoordinationError::Unclear(_))), "{unknown:?}");
    assert_eq!(a.records(3).await.expect("read"), records(4..=4), "it was taken in");
}

#[tokio::test]
async fn a_campaign_whose_answer_was_lost_is_won_once() {
    let servers = Servers::start(1).await;
    let proxy = Proxy::start(&servers.list[0].client, Duration::ZERO).await;
    let a = quick(&servers, "a", vec![proxy.endpoint.clone(), servers.list[0].client.clone()]);
    // The key is looked at and a lease is granted; what is lost is the answer to the transaction.
    proxy.mute_at("{\"agent\":\"a\"");
    let tenure = elected(&a).await;
    a.append(tenure, &records(1..=1), &no_heads()).await.expect("appended");
    assert_eq!(agent(&servers, "b").campaign().await, Ok(None));
}

#[tokio::test]
async fn an_etcd_without_space_says_so() {
    let setting = Setting {
        options: ["--quota-backend-bytes", "1000000"].map(str::to_owned).to_vec(),
        ..Setting::default()
    };
    let servers = Servers::start_with(1, setting).await;
    let a = agent(&servers, "a");
    let tenure = elected(&a).await;
    let mut sequence = 0;
    let full = loop {
        sequence += 1;
        assert!(sequence < 100, "it never fills up");
        let append = a.append(tenure, &[record(sequence, &"x".repeat(100_000))], &no_heads()).await;
        if let Err(error) = append {
            break error;
        }
    };
    assert!(matches!(&full, CoordinationError::Full(_)), "{full}");
    let said = a.testify(&testimony("a", 1)).await;
    assert!(matches!(&said, Err(CoordinationError::Full(_))), "{said:?}");
    assert_eq!(a.records(0).await.expect("it can still be read").len() as u64, sequence - 1);
}

#[tokio::test]
async fn an_etcd_that_was_restored_from_a_backup_is_found_out_and_nothing_is_appended() {
    let mut servers = Servers::start(1).await;
    let a = agent(&servers, "a");
    let tenure = elected(&a).await;
    a.append(tenure, &records(1..=3), &no_heads()).await.expect("appended");
    // A copy of the data as it is now, with the server stopped.
    servers.list[0].kill();
    let backup = servers.folder.path().join("backup");
    copy(&servers.list[0].data, &backup);
    servers.start_again(0).await;
    assert!(servers.ready().await);
    a.append(tenure, &records(4..=6), &no_heads()).await.expect("appended");
    servers.list[0].kill();
    std::fs::remove_dir_all(&servers.list[0].data).expect("removed");
    copy(&backup, &servers.list[0].data);
    servers.start_again(0).await;
    assert!(servers.ready().await);

    let watched = listen(&a, Some(record(6, "1.0"))).end().await;
    assert_eq!(watched, CoordinationError::Rewound { known: 6, found: 3 });
    // The tenure is in the backup too; what comes next is not what it has.
    let appended = a.append(tenure, &records(7..=7), &no_heads()).await;
    assert_eq!(appended, Err(CoordinationError::Rewound { known: 6, found: 3 }));
    assert_eq!(a.records(0).await.expect("read"), records(1..=3));
}

#[tokio::test]
async fn a_tenure_of_an_etcd_that_was_emptied_is_not_mistaken_for_a_new_one() {
    let mut servers = Servers::start(1).await;
    let (a, b) = (agent(&servers, "a"), agent(&servers, "b"));
    let old = elected(&a).await;
    servers.list[0].kill();
    std::fs::remove_dir_all(&servers.list[0].data).expect("removed");
    servers.start_again(0).await;
    assert!(servers.ready().await);
    let new = elected(&b).await;
    assert_eq!(new, old, "the same revision, by chance");
    let late = a.append(old, &records(1..=1), &no_heads()).await;
    assert!(matches!(&late, Err(CoordinationError::Deposed(_))), "{late:?}");
    b.append(new, &records(1..=1), &no_heads()).await.expect("appended");
}

#[tokio::test]
async fn a_watch_whose_changes_were_compacted_away_ends_and_the_next_one_misses_nothing() {
    let servers = Servers::start(1).await;
    let proxy = Proxy::start(&servers.list[0].client, Duration::ZERO).await;
    let a = agent(&servers, "a");
    let tenure = elected(&a).await;
    let b = quick(&servers, "b", vec![proxy.endpoint.clone()]);
    let mut ear = listen(&b, None);
    ear.all_there_is().await;
    proxy.mute();
    a.append(tenure, &records(1..=5), &no_heads()).await.expect("appended");
    let mut client = servers.client(0).await;
    let revision = client.get("any", None).await.expect("read").header().expect("a header").revision();
    client.compact(revision, None).await.expect("compacted");
    let end = ear.end().await;
    assert!(matches!(&end, CoordinationError::Unreachable(_)), "{end}");
    let again = quick(&servers, "b", servers.endpoints());
    let mut ear = listen(&again, None);
    for record in records(1..=5) {
        ear.until(&Change::Record(record)).await;
    }
}

#[tokio::test]
async fn a_renewal_whose_answer_was_lost_is_held_once() {
    let servers = Servers::start(1).await;
    let a = agent(&servers, "a");
    let tenure = elected(&a).await;
    a.append(tenure, &records(1..=1), &shop(head(1, "east", false))).await.expect("appended");
    let proxy = Proxy::start(&servers.list[0].client, Duration::ZERO).await;
    let endpoints = vec![proxy.endpoint.clone(), servers.list[0].client.clone()];
    let quick = EtcdOptions { deadline: Duration::from_secs(1), ..options("sentry", endpoints) };
    let sentry = EtcdLeases::new(quick);
    proxy.mute_at("\"renewals\":2");
    for _ in 0..3 {
        let renewal = sentry.renew(&"shop".into(), &east(), Duration::from_secs(30), Guarded::Writing).await;
        assert_eq!(renewal, Ok(Renewal::Held { epoch: Epoch::new(1) }));
    }
    let written = servers.client(0).await.get("/lifeboat/test/write/shop/east", None).await.expect("read");
    let written: serde_json::Value = serde_json::from_slice(written.kvs()[0].value()).expect("JSON");
    assert_eq!(written["renewals"], 3);
}
