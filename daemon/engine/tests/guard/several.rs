//! Several agents and one coordinator: what they know, what they are told, and what becomes of orders.

use std::time::Duration;

use lifeboat_core::{Answer, Order, Reason, Record};
use lifeboat_engine::EngineError;
use lifeboat_engine::pretend::{Fault, Lost};

use crate::cast::{AGENTS, Cast, bytes};
use crate::failover::endings;
use crate::setting::{START, shop, story};

fn pause() -> Order {
    let until = START + Duration::from_secs(3_600);
    Order::Pause { workload: shop(), reason: "upgrade".into(), until, by: "ada".into() }
}

#[tokio::test(start_paused = true)]
async fn the_record_follows_to_every_journal_byte_for_byte() {
    let cast = Cast::at_work().await;
    cast.scene.dies("east");
    cast.moved("b-west", "west", Duration::from_secs(60)).await;
    cast.all_have_the_record().await;
    let heads = cast.coordinator.heads();
    assert_eq!(heads[&shop()].holder, "west".into());
    assert!(!heads[&shop()].closing);
    // Probes of every agent expect the primary where the record says it is.
    for (name, _) in AGENTS {
        assert_eq!(cast.agent(name).status().await.primary, "west".into(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_order_given_to_any_agent_is_answered_by_the_one_who_decides() {
    let cast = Cast::at_work().await;
    for (name, _) in AGENTS {
        let before = cast.coordinator.records().len();
        let answer = cast.agent(name).inbox.order(pause()).await.unwrap();
        assert!(matches!(answer, Answer::Accepted { .. }), "{name}: {answer:?}");
        let since = &cast.coordinator.records()[before..];
        let paused = since.iter().filter(|s| matches!(s.record, Record::Paused { .. })).count();
        assert_eq!(paused, 1, "{name}: answered before it was on record, or not once: {}", story(since));
        let resume = Order::Resume { workload: shop(), by: "ada".into() };
        assert!(matches!(cast.agent(name).inbox.order(resume).await, Ok(Answer::Accepted { .. })));
    }
}

#[tokio::test(start_paused = true)]
async fn an_order_that_nobody_can_decide_is_refused_and_says_so() {
    let cast = Cast::at_work().await;
    for (name, _) in AGENTS {
        cast.fault(name, |fault| fault.cut = true);
    }
    tokio::time::sleep(Duration::from_secs(20)).await;
    for (name, _) in AGENTS {
        let answer = cast.agent(name).inbox.order(pause()).await.unwrap();
        let Answer::Refused { reason } = answer else { panic!("{name}: {answer:?}") };
        assert!(matches!(reason, Reason::NobodyDecides { .. }), "{name}: {reason}");
        assert!(reason.to_string().contains("lifeboat status"), "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_order_whose_guardian_dies_is_unclear_and_not_refused() {
    let mut cast = Cast::at_work().await;
    // It takes the order, and never gets to answer it.
    cast.fault("b-west", |fault| fault.hangs = true);
    let inbox = cast.agent("c-witness").inbox.clone();
    let asked = tokio::spawn(async move { inbox.order(pause()).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    cast.kill("b-west").await;
    cast.kill("a-east").await;
    cast.fault("c-witness", |fault| fault.delay = Duration::from_secs(30));
    let answer = asked.await.unwrap().unwrap();
    let Answer::Refused { reason } = answer else { panic!("{answer:?}") };
    assert!(matches!(reason, Reason::OrderUnclear { .. }), "{reason}");
    assert!(reason.to_string().contains("lifeboat history"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn without_the_coordinator_nothing_is_decided_and_everything_is_seen() {
    let cast = Cast::at_work().await;
    for (name, _) in AGENTS {
        cast.fault(name, |fault| fault.cut = true);
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (before, looks) = (cast.coordinator.records().len(), cast.scene.state().looks.clone());
    cast.scene.dies("east");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(cast.coordinator.records().len(), before);
    for kind in ["measure", "fence", "promote", "names"] {
        assert_eq!(cast.scene.calls(kind), 0, "{kind}");
    }
    let looked = cast.scene.state().looks.iter().map(|(probe, n)| n - looks[probe]).min();
    assert!(looked >= Some(150), "three agents look each second for a minute: {looked:?}");
    for (name, _) in AGENTS {
        let status = cast.agent(name).status().await;
        let region = &status.regions[&"east".into()];
        assert_eq!(region.verdict, lifeboat_core::status::Verdict::Lost, "{name}");
    }
    let told = cast.told().iter().filter(|text| text.starts_with("the coordinator is lost")).count();
    assert_eq!(told, AGENTS.len(), "each agent says it once: {:?}", cast.told());

    // When it is back, one decides, and what is to be done is done.
    for (name, _) in AGENTS {
        cast.fault(name, |fault| *fault = Fault::default());
    }
    cast.moved("c-witness", "west", Duration::from_secs(120)).await;
    cast.one_failover("after the coordinator came back");
    cast.all_have_the_record().await;
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_takes_no_writes_stops_decisions_and_nothing_else() {
    let cast = Cast::at_work().await;
    cast.coordinator.fill(true);
    cast.scene.dies("east");
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(cast.scene.calls("fence"), 0);
    assert!(cast.told().iter().any(|text| text.contains("full")), "{:?}", cast.told());
    cast.coordinator.fill(false);
    cast.moved("c-witness", "west", Duration::from_secs(120)).await;
    cast.one_failover("after there was room again");
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_restored_from_an_old_copy_is_named_and_nothing_is_done() {
    let cast = Cast::at_work().await;
    let old = cast.coordinator.copy();
    assert!(matches!(cast.agent("c-witness").inbox.order(pause()).await, Ok(Answer::Accepted { .. })));
    cast.all_have_the_record().await;
    let known = bytes(&cast.agent("b-west").records().await);
    cast.coordinator.restore(&old);
    cast.scene.dies("east");
    tokio::time::sleep(Duration::from_secs(60)).await;
    for kind in ["measure", "fence", "promote", "names"] {
        assert_eq!(cast.scene.calls(kind), 0, "{kind}");
    }
    let told = cast.told();
    assert!(told.iter().any(|text| text.contains("restored from an old backup")), "{told:?}");
    for (name, _) in AGENTS {
        assert_eq!(bytes(&cast.agent(name).records().await), known, "{name} lost what it knew");
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_with_another_record_is_named_and_does_nothing() {
    let mut cast = Cast::empty();
    // It was alone before, and decided.
    let policy = cast.policy("c-witness");
    let folder = cast.folder("c-witness");
    let world = crate::setting::world(&policy, &cast.scene, &folder);
    let alone = crate::setting::Agent::start(&policy, world, cast.clock, crate::crash::opened(&folder).await);
    tokio::time::sleep(Duration::from_secs(5)).await;
    alone.killed().await;

    cast.start("a-east").await;
    cast.start("b-west").await;
    cast.decided(Duration::from_secs(10)).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    cast.start("c-witness").await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(
        cast.told().iter().any(|text| text.contains("damaged") || text.contains("old backup")),
        "{:?}",
        cast.told()
    );
    assert_ne!(cast.decider().as_deref(), Some("c-witness"));
    assert_eq!(endings(&cast.coordinator.records()), []);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_makes_an_agent_a_vantage_that_cannot_decide() {
    let mut cast = Cast::at_work().await;
    let journal = cast.folder("b-west").join("journal.db");
    cast.kill("b-west").await;
    drop(crate::crash::opened(&cast.folder("b-west")).await);
    let trigger = "CREATE TRIGGER full BEFORE INSERT ON record
         BEGIN SELECT RAISE(FAIL, 'disk full, as pretended'); END";
    rusqlite::Connection::open(&journal).unwrap().execute_batch(trigger).unwrap();
    let follows = || cast.decider().as_deref() == Some("c-witness");
    cast.until(Duration::from_secs(20), "nobody follows", follows).await;
    cast.start("b-west").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(matches!(cast.agent("c-witness").inbox.order(pause()).await, Ok(Answer::Accepted { .. })));
    tokio::time::sleep(Duration::from_secs(20)).await;
    let told = cast.told();
    let full: Vec<_> = told.iter().filter(|text| text.contains("disk full, as pretended")).collect();
    assert_eq!(full.len(), 1, "{told:?}");
    // It follows the record all the same, and never decides.
    assert!(cast.agent("b-west").status().await.paused.is_some());
    assert!(cast.coordinator.vantages().contains(&"b-west".into()));
    cast.kill("c-witness").await;
    cast.until(Duration::from_secs(20), "nobody follows", || cast.decider().as_deref() == Some("a-east"))
        .await;
    assert!(!cast.agent("b-west").task.is_finished());
    let guardians: Vec<_> = cast.coordinator.guardians().iter().map(ToString::to_string).collect();
    assert_eq!(guardians, ["b-west", "c-witness", "a-east"], "it has wanted to decide");
}

/// How the loop of an agent ended.
async fn ended(cast: &mut Cast, name: &str) -> EngineError {
    let agent = cast.agents.remove(&name.into()).expect("it was at work");
    let ended = tokio::time::timeout(Duration::from_secs(30), agent.task).await;
    ended.expect("its loop ends").expect("without a panic").expect_err("with an error")
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_another_one_in_the_journal_ends_the_loop() {
    let mut cast = Cast::at_work().await;
    let next = cast.coordinator.records().len() as u64 + 1;
    cast.fault("b-west", |fault| fault.garbled = Some(next));
    assert!(matches!(cast.agent("b-west").inbox.order(pause()).await, Ok(Answer::Accepted { .. })));
    let error = ended(&mut cast, "b-west").await;
    assert!(matches!(error, EngineError::Differs { sequence } if sequence == next), "{error}");
    assert!(error.to_string().contains("move this agent's journal.db away"), "{error}");
    cast.until(Duration::from_secs(20), "nobody follows", || cast.decider().as_deref() == Some("c-witness"))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_missing_ends_the_loop() {
    let mut cast = Cast::at_work().await;
    let next = cast.coordinator.records().len() as u64 + 1;
    cast.fault("c-witness", |fault| fault.skipped = Some(next));
    assert!(matches!(cast.agent("b-west").inbox.order(pause()).await, Ok(Answer::Accepted { .. })));
    let resume = Order::Resume { workload: shop(), by: "ada".into() };
    assert!(matches!(cast.agent("b-west").inbox.order(resume).await, Ok(Answer::Accepted { .. })));
    let error = ended(&mut cast, "c-witness").await;
    let gap = matches!(error, EngineError::Gap { expected, found } if (expected, found) == (next, next + 1));
    assert!(gap, "{error}");
    assert!(error.to_string().contains("move this agent's journal.db away"), "{error}");
    assert_eq!(cast.decider().as_deref(), Some("b-west"));
}

#[tokio::test(start_paused = true)]
async fn a_decision_that_is_not_on_record_for_sure_never_was() {
    let cast = Cast::at_work().await;
    let before = cast.coordinator.records().len();
    cast.fault("b-west", |fault| fault.appends.push(Lost::Request));
    let answer = cast.agent("b-west").inbox.order(pause()).await.unwrap();
    let Answer::Refused { reason } = answer else { panic!("{answer:?}") };
    assert!(matches!(reason, Reason::OrderUnclear { .. }), "{reason}");
    assert_eq!(cast.coordinator.records().len(), before);
    assert!(cast.agent("b-west").status().await.paused.is_none(), "it believes what is not on record");
    cast.until(Duration::from_secs(20), "nobody follows", || cast.decider().as_deref() == Some("c-witness"))
        .await;
    cast.all_have_the_record().await;
}

#[tokio::test(start_paused = true)]
async fn whoever_is_elected_reads_what_it_has_not_read_before_it_decides() {
    let mut cast = Cast::at_work().await;
    let next = cast.coordinator.records().len() as u64 + 1;
    // The newest record never comes to it by the watch.
    cast.fault("c-witness", |fault| fault.skipped = Some(next));
    assert!(matches!(cast.agent("b-west").inbox.order(pause()).await, Ok(Answer::Accepted { .. })));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(cast.agent("c-witness").status().await.paused.is_none());
    cast.kill("b-west").await;
    cast.until(Duration::from_secs(20), "nobody follows", || cast.decider().as_deref() == Some("c-witness"))
        .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(cast.agent("c-witness").status().await.paused.is_some());
    let resume = Order::Resume { workload: shop(), by: "ada".into() };
    assert!(matches!(cast.agent("c-witness").inbox.order(resume).await, Ok(Answer::Accepted { .. })));
    cast.all_have_the_record().await;
}
