//! One decides, whoever dies, hangs or is cut off, and whenever.

use std::time::Duration;

use lifeboat_core::record::Ending;
use lifeboat_core::{Epoch, Record};
use lifeboat_engine::pretend::Lost;

use crate::cast::{Cast, TTL, bytes};
use crate::failover::endings;
use crate::setting::{shop, story};

/// Somebody else decides this much after the guardian is gone, at the latest.
const SUCCESSION: Duration = Duration::from_secs(12);

/// A failover is over this much after the primary died, with a succession in it.
const OVER: Duration = Duration::from_secs(120);

#[tokio::test(start_paused = true)]
async fn the_guardian_sits_outside_the_primary_region() {
    let mut cast = Cast::at_work().await;
    assert_eq!(cast.decider().as_deref(), Some("b-west"));
    cast.scene.dies("east");
    cast.kill("a-east").await;
    cast.moved("b-west", "west", OVER).await;
    // The workload lives where the guardian is now: it makes way for the witness.
    cast.until(Duration::from_secs(30), "b-west stays", || cast.decider().as_deref() == Some("c-witness"))
        .await;
    cast.one_failover("then");
    cast.all_have_the_record().await;
}

#[tokio::test(start_paused = true)]
async fn the_places_of_the_candidates_are_their_order() {
    for (dead, next) in [(&["b-west"][..], "c-witness"), (&["b-west", "c-witness"][..], "a-east")] {
        let mut cast = Cast::at_work().await;
        for name in dead {
            cast.kill(name).await;
        }
        cast.until(SUCCESSION, "nobody follows", || cast.decider().as_deref() == Some(next)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_order_of_the_candidates_is_no_matter_of_luck() {
    let mut cast = Cast::at_work().await;
    for _ in 0..8 {
        for (dies, follows) in [("b-west", "c-witness"), ("c-witness", "b-west")] {
            cast.kill(dies).await;
            cast.until(SUCCESSION, follows, || cast.decider().as_deref() == Some(follows)).await;
            cast.start(dies).await;
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
    }
    assert!(!cast.coordinator.guardians().contains(&"a-east".into()), "one in the primary region was faster");
}

#[tokio::test(start_paused = true)]
async fn a_guardian_that_dies_is_followed_by_another_which_goes_on() {
    let mut cast = Cast::at_work().await;
    cast.kill("b-west").await;
    cast.scene.dies("east");
    cast.moved("c-witness", "west", OVER).await;
    cast.one_failover("after a death");
    cast.start("b-west").await;
    cast.all_have_the_record().await;
}

#[tokio::test(start_paused = true)]
async fn a_guardian_that_is_cut_off_or_hangs_stands_by_before_another_decides() {
    for hangs in [false, true] {
        let cast = Cast::at_work().await;
        let before = cast.coordinator.records().len();
        cast.fault("b-west", |fault| if hangs { fault.hangs = true } else { fault.cut = true });
        cast.scene.dies("east");
        cast.moved("c-witness", "west", OVER).await;
        cast.one_failover("under another guardian");
        assert!(
            cast.told()
                .iter()
                .any(|text| text.contains("cannot be reached") || text.contains("did not answer")),
            "{:?}",
            cast.told()
        );

        // It has decided nothing on its own, and follows when it is back.
        cast.fault("b-west", |fault| *fault = lifeboat_engine::pretend::Fault::default());
        cast.all_have_the_record().await;
        assert!(cast.coordinator.records().len() > before);
        assert_eq!(endings(&cast.coordinator.records()), [Ending::Done]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_guardian_has_under_way_is_let_go_when_it_stands_by() {
    let cast = Cast::at_work().await;
    cast.scene.state().hangs.insert("promote");
    cast.scene.dies("east");
    cast.until(SUCCESSION, "no promotion begins", || cast.scene.calls("promote") == 1).await;
    cast.fault("b-west", |fault| fault.cut = true);
    cast.until(TTL, "it goes on", || cast.scene.state().let_go.get("promote") == Some(&1)).await;
    assert_ne!(
        cast.decider().as_deref(),
        Some("c-witness"),
        "another decides while it has something under way"
    );
    cast.scene.state().hangs.clear();
    cast.moved("c-witness", "west", OVER).await;
    cast.one_failover("under another guardian");
}

#[tokio::test(start_paused = true)]
async fn a_guardian_that_stops_is_followed_at_once() {
    let mut cast = Cast::at_work().await;
    let agent = cast.agents.remove(&"b-west".into()).expect("it is at work");
    let stopped = cast.clock.now();
    agent.stopped().await.unwrap();
    cast.until(SUCCESSION, "nobody follows", || cast.decider().as_deref() == Some("c-witness")).await;
    let took = cast.clock.now().since(stopped);
    assert!(took < TTL, "its tenure was waited for: {took:?}");
}

#[tokio::test(start_paused = true)]
async fn whoever_takes_a_run_over_acts_under_a_newer_epoch() {
    let mut cast = Cast::at_work().await;
    cast.scene.state().hangs.insert("promote");
    cast.scene.dies("east");
    cast.until(SUCCESSION, "no promotion begins", || cast.scene.calls("promote") == 1).await;
    assert_eq!(cast.scene.state().newest_epoch, Epoch::new(1));
    cast.kill("b-west").await;
    cast.scene.state().hangs.clear();
    cast.moved("c-witness", "west", OVER).await;
    assert_eq!(cast.scene.state().newest_epoch, Epoch::new(2));
    assert_eq!(cast.coordinator.heads()[&shop()].epoch, Epoch::new(2));
    cast.one_failover("with two guardians");
}

#[tokio::test(start_paused = true)]
async fn a_life_of_three_lived_twice_writes_the_same_bytes() {
    let mut lives = Vec::new();
    for _ in 0..3 {
        let mut cast = Cast::at_work().await;
        cast.scene.dies("east");
        cast.until(SUCCESSION, "no run begins", || cast.scene.calls("fence") == 1).await;
        cast.kill("b-west").await;
        cast.moved("c-witness", "west", OVER).await;
        lives.push(bytes(&cast.coordinator.records()));
    }
    assert_eq!(lives[0], lives[1]);
    assert_eq!(lives[1], lives[2]);
}

/// Lives through a failover whose guardian is gone in some way once so many records are there; how many appends were
/// refused, or none when there never were so many records.
async fn gone_after(count: usize, how: How) -> Option<u32> {
    let mut cast = Cast::at_work().await;
    let decider = cast.decider()?;
    let quiet = cast.coordinator.records().len();
    cast.scene.dies("east");
    let reached = tokio::time::timeout(Duration::from_secs(20), async {
        while cast.coordinator.records().len() < quiet + count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    if reached.await.is_err() {
        return None;
    }
    match how {
        How::Killed => cast.kill(&decider).await,
        How::CutOff => cast.fault(&decider, |fault| fault.cut = true),
        How::Lost(lost) => cast.fault(&decider, |fault| fault.appends.push(lost)),
    }
    let other = cast.agents.keys().map(|name| name.as_str().to_owned()).find(|name| *name != decider)?;
    cast.moved(&other, "west", OVER).await;
    let when = format!("{how:?} after {count}");
    cast.one_failover(&when);
    if let How::Lost(Lost::Answer) = how {
        // It was on record: the guardian goes on as if it had heard so, and nobody takes its run over.
        let records = cast.coordinator.records();
        let taken = records.iter().any(|s| matches!(s.record, Record::TookOver { .. }));
        assert!(!taken, "{when}: {}", story(&records));
    }
    cast.fault(&decider, |fault| *fault = lifeboat_engine::pretend::Fault::default());
    cast.all_have_the_record().await;
    let records = cast.coordinator.records();
    assert_eq!(endings(&records).last(), Some(&Ending::Done), "{when}: {}", story(&records));
    Some(cast.coordinator.refused().values().sum())
}

#[derive(Clone, Copy, Debug)]
enum How {
    Killed,
    CutOff,
    Lost(Lost),
}

/// After each record of a failover; how many appends were refused in all.
async fn each_record(how: How) -> u32 {
    let (mut count, mut refused) = (0, 0);
    while let Some(more) = gone_after(count, how).await {
        count += 1;
        refused += more;
    }
    assert!(count > 15, "{how:?}: a failover has more records than {count}");
    refused
}

#[tokio::test(start_paused = true)]
async fn killed_after_any_record_another_goes_on_and_no_effect_happens_twice() {
    each_record(How::Killed).await;
}

#[tokio::test(start_paused = true)]
async fn cut_off_after_any_record_another_goes_on_and_no_effect_happens_twice() {
    each_record(How::CutOff).await;
}

#[tokio::test(start_paused = true)]
async fn an_append_whose_answer_is_lost_is_looked_for() {
    each_record(How::Lost(Lost::Answer)).await;
}

#[tokio::test(start_paused = true)]
async fn an_append_that_never_arrived_never_was() {
    each_record(How::Lost(Lost::Request)).await;
}

#[tokio::test(start_paused = true)]
async fn an_append_that_arrives_late_is_refused() {
    // It was given up, and the tenure given back, before it got there.
    let refused = each_record(How::Lost(Lost::Late(TTL / 2))).await;
    assert!(refused > 15, "{refused} late appends were refused");
}
