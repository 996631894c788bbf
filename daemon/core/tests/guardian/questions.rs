//! What is never decided without a person: a loss above the objective or unknown, a fence without proof.

use std::time::Duration;

use lifeboat_core::order::{Acceptance, Question};
use lifeboat_core::policy::Mode;
use lifeboat_core::record::Ending;
use lifeboat_core::status::PhaseName;
use lifeboat_core::{Answer, FaultKind, Order, Reason, Record, RunId};

use crate::failover::{alarms, endings};
use crate::pretend::{Manner, Script, World};
use crate::setting::{east, policy, seconds, shop, west, workload};

fn run() -> RunId {
    "shop-e1".into()
}

fn approve(accept: Option<Acceptance>) -> Order {
    Order::Approve { run: run(), accept, by: "ada".into() }
}

fn accepts_loss(number: &str) -> Order {
    approve(Some(Acceptance::Loss(number.to_owned())))
}

fn question(world: &World) -> Question {
    world.status().run.and_then(|run| run.question).expect("something is asked")
}

fn asked(world: &World) -> bool {
    world.status().run.is_some_and(|run| run.question.is_some())
}

/// The standby stopped following an hour ago, and now the primary is lost.
fn stale_standby() -> World {
    let mut world = World::quiet();
    world.replicating = false;
    world.pass(seconds(3_600));
    world.becomes(&east(), Manner::Refuses);
    world.pass_until(seconds(30), asked);
    world
}

/// The old primary refuses, and whether it still takes writes is not known.
fn unfenced(kind: FaultKind) -> World {
    let mut world = World::quiet();
    world.script("fence", std::iter::repeat_n(Script::Fault(kind), 2));
    world.becomes(&east(), Manner::Refuses);
    world.pass_until(seconds(60), asked);
    world
}

fn refused(answer: Answer) -> Reason {
    match answer {
        Answer::Refused { reason } => reason,
        other @ Answer::Accepted { .. } => panic!("accepted: {other:?}"),
    }
}

#[test]
fn a_loss_above_the_objective_is_asked_with_its_number() {
    let mut world = stale_standby();
    assert_eq!(world.steps(), ["measure-loss"], "nothing moves before the answer");
    let Question::LossAbove { loss, allowed } = question(&world) else { panic!("{:?}", question(&world)) };
    assert_eq!(allowed, seconds(300));
    let lost = loss.at_most.unwrap();
    assert!(lost > seconds(3_600) && lost < seconds(3_640), "{lost:?}");
    assert!(loss.sample_age.unwrap() < seconds(30), "the sample's age is that of the newest look");
    let number = format!("{}s", lost.as_millis().div_ceil(1000));
    assert!(alarms(&world).last().unwrap().contains(&format!("--accept-loss \"{number}\"")));

    let bare = refused(world.order(approve(None)));
    assert!(matches!(bare, Reason::NotAccepted { .. }), "{bare}");
    for wrong in ["3601s", "0s", "unknown", "", "yes", "3600", "300s"] {
        let reason = refused(world.order(accepts_loss(wrong)));
        assert!(matches!(reason, Reason::WrongAcceptance { .. }), "{wrong}: {reason}");
    }
    let other = refused(world.order(approve(Some(Acceptance::Unfenced(number.clone())))));
    assert!(matches!(other, Reason::WrongAcceptance { .. }), "{other}");
    assert_eq!(world.steps(), ["measure-loss"], "a wrong number moves nothing");

    assert!(matches!(world.order(accepts_loss(&number)), Answer::Accepted { .. }));
    world.pass_until(seconds(30), |w| endings(w) == [Ending::Done]);
    assert_eq!(world.status().primary, west());
}

#[test]
fn an_unknown_loss_is_not_zero() {
    let mut world = World::new(policy([workload()]));
    world.replicating = false;
    world.start();
    world.pass(seconds(60));
    world.place(&west()).heartbeat = None;
    world.becomes(&east(), Manner::Refuses);
    world.pass_until(seconds(30), asked);
    let Question::LossUnknown { loss } = question(&world) else { panic!("{:?}", question(&world)) };
    assert_eq!(loss.at_most, None);
    for wrong in ["0s", "none"] {
        assert!(matches!(refused(world.order(accepts_loss(wrong))), Reason::WrongAcceptance { .. }));
    }
    assert!(matches!(world.order(accepts_loss("unknown")), Answer::Accepted { .. }));
    world.pass_until(seconds(30), |w| endings(w) == [Ending::Done]);
}

#[test]
fn an_unproven_fence_is_asked_and_nothing_is_promoted_before() {
    for kind in [FaultKind::Unreachable, FaultKind::Unclear, FaultKind::Refused] {
        let mut world = unfenced(kind);
        let Question::FenceUnproven { region, fault, loss } = question(&world) else { panic!("{kind}") };
        assert_eq!((region, fault.kind), (east(), kind));
        assert!(loss.is_some(), "the number is shown here too");
        // Not so long that the loss would have to be accepted anew (`defects::d06`).
        world.pass(seconds(120));
        assert!(!world.steps().contains(&"promote".to_owned()), "{kind}: promoted without a fence");
        let wrong = refused(world.order(approve(Some(Acceptance::Unfenced("west".to_owned())))));
        assert!(matches!(wrong, Reason::WrongAcceptance { .. }));
        let answer = world.order(approve(Some(Acceptance::Unfenced("east".to_owned()))));
        assert!(matches!(answer, Answer::Accepted { .. }));
        assert!(alarms(&world).iter().any(|a| a == "ada accepted that east may still be taking writes"));
        world.pass_until(seconds(30), |w| endings(w) == [Ending::Done]);
    }
}

#[test]
fn someone_newer_in_charge_needs_a_person() {
    let mut world = World::quiet();
    world.script("fence", [Script::Fault(FaultKind::Stale)]);
    world.becomes(&east(), Manner::Refuses);
    world.pass_until(seconds(60), |w| w.phase() == PhaseName::Stranded);
    world.pass(seconds(600));
    assert_eq!((world.runs(), world.phase()), (1, PhaseName::Stranded), "a newer epoch would overtake them");
    assert_eq!(world.steps(), ["measure-loss", "fence"]);
}

#[test]
fn a_supervised_workload_measures_and_asks() {
    let mut wanted = workload();
    wanted.failover.mode = Mode::Supervised;
    let mut world = World::quiet_with(policy([wanted]));
    world.becomes(&east(), Manner::Refuses);
    world.pass_until(seconds(30), asked);
    assert_eq!(world.steps(), ["measure-loss"]);
    let Question::Supervised { loss } = question(&world) else { panic!() };
    assert!(matches!(world.order(accepts_loss(&loss.token())), Answer::Accepted { .. }));
    world.pass_until(seconds(30), |w| endings(w) == [Ending::Done]);
}

#[test]
fn an_ordered_failover_of_a_supervised_workload_is_not_asked_again() {
    let mut wanted = workload();
    wanted.failover.mode = Mode::Supervised;
    let mut world = World::quiet_with(policy([wanted]));
    world.becomes(&east(), Manner::Refuses);
    world.pass(seconds(6));
    let answer = world.order(Order::Failover { workload: shop(), to: west(), by: "ada".into() });
    assert!(matches!(answer, Answer::Accepted { .. }), "{answer:?}");
    world.pass_until(seconds(30), |w| endings(w) == [Ending::Done]);
}

#[test]
fn a_question_lapses_and_people_are_told() {
    let mut world = stale_standby();
    let waited = world.pass_until(seconds(4_000), |w| !endings(w).is_empty());
    assert_eq!(waited, seconds(3_600));
    assert_eq!(endings(&world), [Ending::Lapsed]);
    assert!(alarms(&world).iter().any(|a| a.starts_with("nobody answered in time")));
    let late = refused(world.order(accepts_loss("3612s")));
    assert!(matches!(late, Reason::RunEnded { .. }), "{late}");
    // The primary is still lost: after the hold-off the next run asks again.
    world.pass_until(seconds(60), asked);
    assert_eq!(world.runs(), 2);
}

#[test]
fn an_approval_of_an_older_run_is_not_taken_for_a_new_one() {
    let mut world = stale_standby();
    world.pass_until(seconds(4_000), |w| w.runs() == 2 && asked(w));
    let number = question(&world).acceptance();
    let reason = refused(world.order(approve(Some(number))));
    assert!(matches!(reason, Reason::RunEnded { .. }), "{reason}");
    assert_eq!(world.recorded(|r| matches!(r, Record::Approved { .. }).then_some(())), []);
}

#[test]
fn a_primary_that_returns_while_a_person_is_asked_keeps_the_workload() {
    for mut world in [stale_standby(), unfenced(FaultKind::Unreachable)] {
        let steps = world.steps();
        world.becomes(&east(), Manner::Answers(Duration::from_millis(20)));
        world.pass(seconds(60));
        assert_eq!(endings(&world), [Ending::Abandoned]);
        assert_eq!((world.steps(), world.status().primary), (steps, east()));
        assert!(matches!(refused(world.order(accepts_loss("1s"))), Reason::RunEnded { .. }));
    }
}

#[test]
fn a_primary_that_returns_before_the_fence_is_not_fenced() {
    let mut world = World::quiet();
    world.script("measure-loss", [Script::Well(seconds(30))]);
    world.becomes(&east(), Manner::Refuses);
    world.pass_until(seconds(30), |w| w.runs() == 1);
    world.becomes(&east(), Manner::Answers(Duration::from_millis(20)));
    world.pass(seconds(60));
    assert_eq!(endings(&world), [Ending::Abandoned]);
    assert_eq!(world.steps(), ["measure-loss"]);
}
