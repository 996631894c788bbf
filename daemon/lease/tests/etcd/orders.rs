//! Orders: given to any agent, answered by the guardian, once.

use std::sync::Arc;
use std::time::Duration;

use lifeboat_core::testimony::Beat;
use lifeboat_core::{Answer, Order};
use lifeboat_engine::ports::{Change, Coordination, CoordinationError, Tenure};
use tokio::task::JoinHandle;

use crate::agents::{Agent, Ear, agent, elected, eventually, listen};
use crate::servers::{PATIENCE, Servers};

fn failback() -> Order {
    Order::Failback { workload: "shop".into(), by: "alice".to_owned() }
}

fn done(text: &str) -> Answer {
    Answer::Accepted { run: None, text: text.to_owned() }
}

fn give(agent: &Agent, limit: Duration) -> JoinHandle<Result<Answer, CoordinationError>> {
    let etcd = Arc::clone(&agent.etcd);
    tokio::spawn(async move { etcd.order(&failback(), limit).await })
}

/// Begins to decide.
async fn begin(agent: &Agent, tenure: Tenure) {
    agent.renew(tenure, Beat { term: tenure.term, count: 1 }).await.expect("renewed");
}

async fn ordered(ear: &mut Ear) -> (String, Order) {
    ear.first(
        |change| {
            if let Change::Order { id, order } = change { Some((id.clone(), order.clone())) } else { None }
        },
    )
    .await
}

async fn count(servers: &Servers, prefix: &str) -> i64 {
    let all = etcd_client::GetOptions::new().with_prefix().with_count_only();
    servers.client(0).await.get(prefix, Some(all)).await.expect("read").count()
}

#[tokio::test]
async fn an_order_is_told_to_the_guardian_and_its_answer_to_who_gave_it() {
    let servers = Servers::start(1).await;
    let (a, b) = (agent(&servers, "a"), agent(&servers, "b"));
    let tenure = elected(&a).await;
    begin(&a, tenure).await;
    let mut guardian = listen(&a, None);
    let mut other = listen(&b, None);
    guardian.all_there_is().await;
    other.all_there_is().await;
    let waiting = give(&b, PATIENCE);
    let (id, order) = ordered(&mut guardian).await;
    assert_eq!(order, failback());

    // Told once, whatever becomes of the watch.
    guardian.watch.abort();
    let mut guardian = listen(&a, None);
    let again = guardian.all_there_is().await;
    assert!(!again.iter().any(|change| matches!(change, Change::Order { .. })), "{again:?}");

    a.answer(tenure, &id, &done("home")).await.expect("answered");
    assert_eq!(waiting.await.expect("joined"), Ok(done("home")));
    a.resign(tenure).await;
    loop {
        match other.next().await {
            Change::Guardian(None) => break,
            Change::Order { .. } => panic!("an order is the guardian's alone"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn an_order_waits_for_the_next_guardian() {
    let servers = Servers::start(1).await;
    let (a, b) = (agent(&servers, "a"), agent(&servers, "b"));
    let mut ear = listen(&a, None);
    ear.all_there_is().await;
    let waiting = give(&b, PATIENCE);
    eventually("the order is there", async || {
        (count(&servers, "/lifeboat/test/order/").await == 1).then_some(())
    })
    .await;
    let tenure = elected(&a).await;
    assert_eq!(ear.next().await, Change::Guardian(Some("a".into())));
    begin(&a, tenure).await;
    assert!(matches!(ear.next().await, Change::Beat(_)), "and not the order before");
    let (id, _) = ordered(&mut ear).await;
    a.answer(tenure, &id, &done("later")).await.expect("answered");
    assert_eq!(waiting.await.expect("joined"), Ok(done("later")));
}

#[tokio::test]
async fn an_order_that_nobody_answers_is_taken_back() {
    let servers = Servers::start(1).await;
    let b = agent(&servers, "b");
    let unanswered = give(&b, Duration::from_millis(500)).await.expect("joined");
    assert!(matches!(&unanswered, Err(CoordinationError::Unclear(_))), "{unanswered:?}");
    assert_eq!(count(&servers, "/lifeboat/test/order/").await, 0);
    let a = agent(&servers, "a");
    let tenure = elected(&a).await;
    a.answer(tenure, "long-gone", &done("nobody waits")).await.expect("of no consequence");
    assert_eq!(count(&servers, "/lifeboat/test/answer/").await, 0);
}

#[tokio::test]
async fn who_does_not_hold_the_tenure_any_more_does_not_answer() {
    let servers = Servers::start(1).await;
    let (a, b) = (agent(&servers, "a"), agent(&servers, "b"));
    let tenure = elected(&a).await;
    begin(&a, tenure).await;
    let mut ear = listen(&a, None);
    ear.all_there_is().await;
    let waiting = give(&b, PATIENCE);
    let (id, _) = ordered(&mut ear).await;
    // Taken from it, without its knowing.
    servers.client(0).await.delete("/lifeboat/test/guardian", None).await.expect("deleted");
    let next = elected(&b).await;
    // It is not told of orders any more, although it does not know why.
    begin(&b, next).await;
    let unanswered = give(&b, Duration::from_millis(500)).await.expect("joined");
    assert!(matches!(&unanswered, Err(CoordinationError::Unclear(_))), "{unanswered:?}");
    for tenure in [tenure, next] {
        let late = a.answer(tenure, &id, &done("late")).await;
        assert!(matches!(&late, Err(CoordinationError::Deposed(_))), "{late:?}");
    }
    b.answer(next, &id, &done("in time")).await.expect("answered");
    assert_eq!(waiting.await.expect("joined"), Ok(done("in time")));
    b.resign(next).await;
    ear.until(&Change::Guardian(Some("b".into()))).await;
    loop {
        match ear.next().await {
            Change::Guardian(None) => break,
            Change::Order { .. } => panic!("an order is the guardian's alone"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn an_order_under_a_seal_that_is_not_its_givers_is_not_told() {
    let servers = Servers::start(1).await;
    let a = agent(&servers, "a");
    elected(&a).await;
    let mut ear = listen(&a, None);
    ear.all_there_is().await;
    let waiting = give(&agent(&servers, "d"), Duration::from_millis(500));
    let vantage =
        ear.first(
            |change| if let Change::Forged { vantage, .. } = change { Some(vantage.clone()) } else { None },
        );
    assert_eq!(vantage.await.as_str(), "d");
    assert!(matches!(waiting.await.expect("joined"), Err(CoordinationError::Unclear(_))));
}

#[tokio::test]
async fn a_key_from_before_a_restart_is_not_taken_for_a_tenure() {
    let servers = Servers::start(1).await;
    let before = agent(&servers, "a");
    let old = elected(&before).await;
    begin(&before, old).await;
    // The same agent again: it does not decide, and its key is still there.
    let a = agent(&servers, "a");
    let mut ear = listen(&a, None);
    ear.all_there_is().await;
    let waiting = give(&agent(&servers, "b"), PATIENCE);
    eventually("the order is there", async || {
        (count(&servers, "/lifeboat/test/order/").await == 1).then_some(())
    })
    .await;
    before.resign(old).await;
    assert_eq!(ear.next().await, Change::Guardian(None), "and not the order before");
    let tenure = elected(&a).await;
    begin(&a, tenure).await;
    let (id, _) = ordered(&mut ear).await;
    a.answer(tenure, &id, &done("now")).await.expect("answered");
    assert_eq!(waiting.await.expect("joined"), Ok(done("now")));
}
