//! The fence of a failover: which of the ways it allows is taken, and when.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lifeboat_core::head::Guarded;
use lifeboat_core::outcome::FenceProof;
use lifeboat_core::{DatabaseName, FaultKind, Moment, Outcome, Output, Policy, Record};
use lifeboat_engine::ports::WriteLeases;

use crate::cast::Cast;
use crate::setting::{shop, story};

const LEASE: Duration = Duration::from_secs(10);

const OVER: Duration = Duration::from_secs(120);

fn every_way(policy: &mut Policy) {
    for workload in policy.workloads.values_mut() {
        workload.sentries = ["east".into()].into();
        (workload.failover.fence_expiry, workload.failover.fence_cut_off) = (true, true);
    }
}

fn expiry(policy: &mut Policy) {
    every_way(policy);
    policy.workloads.values_mut().for_each(|workload| workload.failover.fence_cut_off = false);
}

/// A sentry in the east: while `alive` it renews; when the lease is over by its own clock, nothing writes there.
fn sentry(cast: &Cast) -> Arc<AtomicBool> {
    let (line, scene, clock) = (cast.coordinator.line(&"sentry".into()), cast.scene.clone(), cast.clock);
    let alive = Arc::new(AtomicBool::new(true));
    let renews = alive.clone();
    tokio::spawn(async move {
        let mut renewed: Option<Moment> = None;
        loop {
            let now = clock.now();
            if renews.load(Ordering::SeqCst) {
                let (workload, region) = (shop(), "east".into());
                let held = line.renew(&workload, &region, LEASE, Guarded::Writing).await;
                if matches!(held, Ok(lifeboat_engine::ports::Renewal::Held { .. })) {
                    renewed = Some(now);
                }
            }
            if renewed.is_some_and(|renewed| now.since(renewed) >= LEASE) {
                scene.state().fenced = true;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    alive
}

/// When the first attempt at the fence began and ended, and with what.
fn fence(cast: &Cast) -> (Duration, Outcome) {
    let records = cast.coordinator.records();
    let is_fence = |step: &lifeboat_core::StepName| step.as_str() == "fence";
    let begun =
        records.iter().find(|s| matches!(&s.record, Record::StepStarted { step, .. } if is_fence(step)));
    let ended = records.iter().find_map(|s| match &s.record {
        Record::StepEnded { step, outcome, .. } if is_fence(step) => Some((s.at, outcome.clone())),
        _ => None,
    });
    let begun = begun.unwrap_or_else(|| panic!("no fence: {}", story(&records))).at;
    let (at, outcome) = ended.unwrap_or_else(|| panic!("the fence has not ended: {}", story(&records)));
    (at.since(begun), outcome)
}

fn proof(outcome: Outcome) -> FenceProof {
    let Outcome::Succeeded(Output::Fenced { mut proofs }) = outcome else { panic!("{outcome:?}") };
    proofs.remove(&DatabaseName::new("orders")).expect("each database has a proof")
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_answers_is_fenced_by_its_own_word_and_nothing_is_cut_off() {
    let cast = Cast::with(every_way).await;
    cast.scene.state().synchronous.insert("west".to_owned());
    let alive = sentry(&cast);
    tokio::time::sleep(Duration::from_secs(3)).await;
    alive.store(false, Ordering::SeqCst);
    cast.scene.dies("east");
    cast.moved("b-west", "west", OVER).await;
    assert!(matches!(proof(fence(&cast).1), FenceProof::WriteRefused { .. }));
    assert_eq!(cast.scene.calls("cut-off"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_says_nothing_is_cut_off_after_a_second() {
    let cast = Cast::with(every_way).await;
    cast.scene.state().synchronous.insert("west".to_owned());
    cast.scene.state().hangs.insert("fence");
    tokio::time::sleep(Duration::from_secs(3)).await;
    cast.scene.dies("east");
    cast.moved("b-west", "west", OVER).await;
    let (took, outcome) = fence(&cast);
    assert!(matches!(proof(outcome), FenceProof::CutOff { .. }));
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(3), "{took:?}");
    assert_eq!(cast.scene.effects("promote"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_says_nothing_is_fenced_by_the_end_of_its_lease() {
    let cast = Cast::with(expiry).await;
    let alive = sentry(&cast);
    cast.scene.state().hangs.insert("fence");
    tokio::time::sleep(Duration::from_secs(3)).await;
    alive.store(false, Ordering::SeqCst);
    cast.scene.dies("east");
    let died = cast.clock.now();
    cast.moved("b-west", "west", OVER).await;
    let (_, outcome) = fence(&cast);
    let FenceProof::Expired { lease, waited } = proof(outcome) else { panic!("another proof") };
    assert_eq!(lease, LEASE);
    assert!(waited > LEASE, "{waited:?}");
    assert!(cast.clock.now().since(died) >= LEASE);
    assert_eq!(cast.scene.calls("cut-off"), 0);
}

#[tokio::test(start_paused = true)]
async fn while_the_lease_is_renewed_nothing_is_promoted() {
    let cast = Cast::with(expiry).await;
    let _alive = sentry(&cast);
    cast.scene.state().hangs.insert("fence");
    tokio::time::sleep(Duration::from_secs(3)).await;
    cast.scene.dies("east");
    // The region is alive, and only not seen: its sentry stops renewing because the head says so, and only then.
    cast.until(OVER, "no fence begins", || cast.coordinator.heads()[&shop()].closing).await;
    assert_eq!(cast.scene.calls("promote"), 0);
    assert!(!cast.scene.state().fenced);
    cast.moved("b-west", "west", OVER).await;
    assert!(matches!(proof(fence(&cast).1), FenceProof::Expired { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_fence_fails_only_when_every_way_has_and_says_why_of_each() {
    let cast = Cast::with(every_way).await;
    cast.scene.state().synchronous.insert("west".to_owned());
    cast.scene.state().unreachable.extend(["fence", "cut-off"]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    cast.scene.dies("east");
    let ended = || cast.coordinator.records().iter().any(|s| s.record.to_string().contains("fence failed"));
    cast.until(OVER, "the fence does not fail", ended).await;
    let (took, outcome) = fence(&cast);
    let Outcome::Failed(fault) = outcome else { panic!("{outcome:?}") };
    // Nobody has ever held a lease there: that does not change by asking again.
    assert_eq!(fault.kind, FaultKind::Refused);
    for words in ["confirmed: ", "cut off: ", "expired: ", "fence reaches nobody", "no sentry has ever held"]
    {
        assert!(fault.detail.contains(words), "{words}: {fault}");
    }
    assert!(took >= Duration::from_secs(1), "{took:?}");
    assert_eq!(cast.scene.calls("promote"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_way_that_is_not_allowed_is_not_tried() {
    let cast = Cast::at_work().await;
    let alive = sentry(&cast);
    cast.scene.state().synchronous.insert("west".to_owned());
    cast.scene.state().unreachable.insert("fence");
    tokio::time::sleep(Duration::from_secs(3)).await;
    alive.store(false, Ordering::SeqCst);
    cast.scene.dies("east");
    let ended = || cast.coordinator.records().iter().any(|s| s.record.to_string().contains("fence failed"));
    cast.until(OVER, "the fence does not fail", ended).await;
    let (_, outcome) = fence(&cast);
    let Outcome::Failed(fault) = outcome else { panic!("{outcome:?}") };
    assert_eq!(
        (fault.kind, fault.detail.as_str()),
        (FaultKind::Unreachable, "fence reaches nobody, as pretended")
    );
    assert_eq!(cast.scene.calls("cut-off"), 0);
}
