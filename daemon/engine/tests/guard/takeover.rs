//! One decides, whoever dies, hangs or is cut off, and whenever.

use std::time::Duration;

use lifeboat_core::record::Ending;
use lifeboat_engine::pretend::Lost;

use crate::cast::{Cast, TTL};
use crate::failover::endings;
use crate::setting::story;

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

/// Lives through a failover whose guardian is gone in some way once so many records are there; the records, or none
/// when there never were so many.
async fn gone_after(count: usize, how: How) -> Option<usize> {
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
    cast.fault(&decider, |fault| *fault = lifeboat_engine::pretend::Fault::default());
    cast.all_have_the_record().await;
    let records = cast.coordinator.records();
    assert_eq!(endings(&records).last(), Some(&Ending::Done), "{when}: {}", story(&records));
    Some(records.len())
}

#[derive(Clone, Copy, Debug)]
enum How {
    Killed,
    CutOff,
    Lost(Lost),
}

async fn each_record(how: How) {
    let mut count = 0;
    while gone_after(count, how).await.is_some() {
        count += 1;
    }
    assert!(count > 15, "{how:?}: a failover has more records than {count}");
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
    each_record(How::Lost(Lost::Late(TTL / 2))).await;
}
