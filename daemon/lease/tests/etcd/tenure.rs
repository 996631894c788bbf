//! The tenure: one at a time, and over when it is over.

use std::time::Duration;

use lifeboat_core::Answer;
use lifeboat_core::testimony::Beat;
use lifeboat_engine::ports::{Change, Coordination, CoordinationError, Tenure};

use crate::agents::{Agent, agent, agent_with, elected, listen, no_heads, options, record, records};
use crate::servers::Servers;

fn short(servers: &Servers, name: &str) -> Agent {
    let options = options(name, servers.endpoints());
    agent_with(
        servers.folder.path(),
        lifeboat_lease::etcd::EtcdOptions { tenure_ttl: Duration::from_secs(2), ..options },
    )
}

fn beat(tenure: Tenure, count: u64) -> Beat {
    Beat { term: tenure.term, count }
}

async fn assert_deposed(agent: &Agent, tenure: Tenure, next: u64) {
    let answer = Answer::Accepted { run: None, text: "done".to_owned() };
    let refusals = [
        agent.append(tenure, &[record(next, "late")], &no_heads()).await,
        agent.renew(tenure, beat(tenure, 99)).await,
        agent.answer(tenure, "any", &answer).await,
    ];
    for refused in refusals {
        assert!(matches!(&refused, Err(CoordinationError::Deposed(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn of_many_candidates_one_is_elected() {
    let servers = Servers::start(3).await;
    let mut candidates = Vec::new();
    for name in ["a", "b", "c"].into_iter().cycle().take(12) {
        let agent = agent(&servers, name);
        candidates.push(tokio::spawn(async move { agent.campaign().await.expect("etcd answers") }));
    }
    let mut elected = 0;
    for candidate in candidates {
        elected += usize::from(candidate.await.expect("joined").is_some());
    }
    assert_eq!(elected, 1);
}

#[tokio::test]
async fn a_tenure_that_is_given_back_is_the_next_ones_at_once() {
    let servers = Servers::start(1).await;
    let (a, b) = (agent(&servers, "a"), agent(&servers, "b"));
    let first = elected(&a).await;
    assert_eq!(b.campaign().await, Ok(None));
    assert_eq!(a.campaign().await, Ok(None), "not even a second one for the same agent");
    let mut ear = listen(&b, None);
    ear.all_there_is().await;
    a.resign(first).await;
    assert_eq!(ear.next().await, Change::Guardian(None));
    let second = elected(&b).await;
    assert_eq!(ear.next().await, Change::Guardian(Some("b".into())));
    assert!(second > first, "{second:?} after {first:?}");
    assert_deposed(&a, first, 1).await;
    b.append(second, &records(1..=1), &no_heads()).await.expect("appended");
}

#[tokio::test]
async fn a_tenure_lasts_while_it_is_renewed_and_its_beats_are_told() {
    let servers = Servers::start(1).await;
    let (a, b) = (short(&servers, "a"), short(&servers, "b"));
    let tenure = elected(&a).await;
    let mut ear = listen(&b, None);
    ear.all_there_is().await;
    let end = a.clock.now() + 3 * a.tenure_ttl();
    let mut count = 0;
    while a.clock.now() < end {
        count += 1;
        a.renew(tenure, beat(tenure, count)).await.expect("renewed");
        ear.until(&Change::Beat(beat(tenure, count))).await;
        a.clock.sleep_until(a.clock.now() + a.tenure_ttl() / 4).await;
    }
    assert_eq!(b.campaign().await, Ok(None), "three times its length later, it is still held");
    a.renew(tenure, beat(tenure, 1)).await.expect("a beat that comes late renews as well");
    a.renew(tenure, beat(tenure, count + 1)).await.expect("renewed");
    assert_eq!(ear.next().await, Change::Beat(beat(tenure, count + 1)), "and is not told of");
}

#[tokio::test]
async fn a_holder_that_stood_still_is_deposed_whatever_it_does_then() {
    let servers = Servers::start(1).await;
    let (a, b) = (short(&servers, "a"), short(&servers, "b"));
    let first = elected(&a).await;
    a.append(first, &records(1..=1), &no_heads()).await.expect("appended");
    let mut ear = listen(&b, None);
    ear.until(&Change::CaughtUp).await;
    // It is not renewed, as if its holder were frozen.
    ear.until(&Change::Guardian(None)).await;
    let second = elected(&b).await;
    b.append(second, &records(2..=2), &no_heads()).await.expect("appended");
    // A holder that wakes up does not know yet.
    let late = a.append(first, &[record(3, "late")], &no_heads()).await;
    assert!(matches!(&late, Err(CoordinationError::Deposed(_))), "{late:?}");
    assert_deposed(&a, first, 3).await;
    b.renew(second, beat(second, 1)).await.expect("renewed");
    assert_eq!(b.records(0).await.expect("read"), records(1..=2));
}

#[tokio::test]
async fn a_holder_that_stood_still_and_renews_first_is_deposed_as_well() {
    let servers = Servers::start(1).await;
    let (a, b) = (short(&servers, "a"), short(&servers, "b"));
    let first = elected(&a).await;
    let mut ear = listen(&b, None);
    ear.until(&Change::CaughtUp).await;
    ear.until(&Change::Guardian(None)).await;
    let renewed = a.renew(first, beat(first, 1)).await;
    assert!(matches!(&renewed, Err(CoordinationError::Deposed(_))), "{renewed:?}");
    let second = elected(&b).await;
    assert_deposed(&a, first, 1).await;
    b.append(second, &records(1..=1), &no_heads()).await.expect("appended");
}
