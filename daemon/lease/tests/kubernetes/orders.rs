//! Orders: told to whoever decides while somebody waits for the answer, once, and not when nobody does any more.

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt as _;
use kube::api::ListParams;
use lifeboat_core::{Answer, Order};
use lifeboat_engine::ports::{Change, Coordination as _, CoordinationError};

use crate::cluster::{Cluster, PATIENCE, RIGHTS, until};
use crate::record::{made, started};
use crate::watching::Watch;

fn resume() -> Order {
    Order::Resume { workload: "shop".into(), by: "ada".to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_reaches_the_guardian_and_its_answer_comes_back() {
    let namespace = Cluster::shared().await.namespace(RIGHTS).await;
    let (east, west) = (Arc::new(namespace.agent("east", 60).await), namespace.agent("west", 60).await);
    let (tenure, _) = started(&*east, 1).await;
    let mut watch = Watch::shared(east.clone(), Some(made(1..=1).remove(0)));
    while watch.next().await != Change::CaughtUp {}
    let given = tokio::spawn(async move { west.order(&resume(), PATIENCE).await });
    let Change::Order { id, order } = watch.next().await else { panic!("no order came") };
    assert_eq!(order, resume());
    let answer = Answer::Accepted { run: None, text: "it goes on".to_owned() };
    east.answer(tenure, &id, &answer).await.expect("it is answered");
    assert_eq!(given.await.expect("it ends"), Ok(answer.clone()));
    // Nothing stays, and an answer that comes late is of no consequence.
    let maps = namespace.maps().await;
    until("the order is taken away", || async {
        let objects = maps.list(&ListParams::default()).await.expect("a list");
        (!objects.iter().any(|object| object.name_any().contains("order"))).then_some(())
    })
    .await;
    east.answer(tenure, &id, &answer).await.expect("nobody waits");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_nobody_waits_for_is_not_told_and_a_deposed_guardian_answers_none() {
    let namespace = Cluster::shared().await.namespace(RIGHTS).await;
    let (east, west) = (Arc::new(namespace.agent("east", 60).await), namespace.agent("west", 60).await);
    let (tenure, _) = started(&*east, 1).await;
    // Its agent dies while it waits.
    let given = tokio::spawn(async move { west.order(&resume(), PATIENCE).await });
    let maps = namespace.maps().await;
    let object = until("the order is there", || async {
        let objects = maps.list(&ListParams::default()).await.expect("a list");
        objects.into_iter().find(|object| object.name_any().starts_with("lifeboat-order-"))
    })
    .await;
    given.abort();
    let _ = given.await;
    // Whoever begins to watch now is told of what lives only: the next order, and not this one.
    let mut watch = Watch::shared(east.clone(), Some(made(1..=1).remove(0)));
    loop {
        match watch.next().await {
            Change::CaughtUp => break,
            Change::Order { id, .. } => panic!("{id} was told"),
            _ => {}
        }
    }
    let pause = Order::Abandon {
        run: "shop-e2".into(),
        reason: "tired".to_owned(),
        accept: None,
        by: "ada".to_owned(),
    };
    let north = namespace.agent("north", 60).await;
    let wanted = pause.clone();
    let given = tokio::spawn(async move { north.order(&wanted, Duration::from_secs(5)).await });
    let Change::Order { id, order } = watch.next().await else { panic!("no order came") };
    assert_eq!(order, pause);
    assert!(!object.name_any().ends_with(&id));
    // East decides no more: what it says to an order is not the answer.
    east.resign(tenure).await;
    let south = namespace.agent("south", 60).await;
    south.campaign().await.expect("nothing is wrong").expect("nobody is there");
    let answer = Answer::Accepted { run: None, text: "it goes on".to_owned() };
    let late = east.answer(tenure, &id, &answer).await;
    assert!(matches!(late, Err(CoordinationError::Deposed(_))), "{late:?}");
    let unanswered = given.await.expect("it ends");
    assert!(matches!(unanswered, Err(CoordinationError::Unclear(_))), "{unanswered:?}");
}
