//! A lost primary, from the first failure to the report, and the ways in which that goes wrong.

use std::time::Duration;

use lifeboat_core::condition::Gate;
use lifeboat_core::record::Ending;
use lifeboat_core::status::PhaseName;
use lifeboat_core::{Answer, Epoch, FaultKind, Order, Outcome, Reason, Record, Severity};

use crate::pretend::{Manner, Script, World};
use crate::setting::{east, policy, seconds, shop, west, workload};

/// The steps of the shipped page, in order.
const STEPS: [&str; 7] =
    ["measure-loss", "fence", "promote", "await-serving", "switch-dns", "verify", "report"];

/// A world in which the primary region has just begun to refuse, and the run has ended.
pub(crate) fn survived() -> World {
    let mut world = World::quiet();
    world.becomes(&east(), Manner::Refuses);
    world.pass_until(seconds(60), |w| endings(w) == [Ending::Done]);
    world
}

pub(crate) fn endings(world: &World) -> Vec<Ending> {
    world.recorded(|r| match r {
        Record::RunEnded { ending, .. } => Some(*ending),
        _ => None,
    })
}

/// What people were told that is critical, as they read it.
pub(crate) fn alarms(world: &World) -> Vec<String> {
    let critical = world.notices.iter().filter(|(_, n)| n.severity == Severity::Critical);
    critical.map(|(_, n)| n.reason.to_string()).collect()
}

#[test]
fn a_dead_primary_is_survived_in_order() {
    let mut world = World::quiet();
    world.becomes(&east(), Manner::Refuses);
    let took = world.pass_until(seconds(60), |w| w.runs() == 1);
    assert!(took > seconds(10) && took < seconds(16), "three failures at 5 s take {took:?}");
    world.pass_until(seconds(10), |w| !endings(w).is_empty());
    assert_eq!(world.steps(), STEPS);
    assert_eq!(endings(&world), [Ending::Done]);
    let status = world.status();
    assert_eq!((status.primary, status.epoch), (west(), Epoch::new(1)));
    let measured = world.recorded(|r| match r {
        Record::LossMeasured { loss, .. } => Some(loss.clone()),
        _ => None,
    });
    let lost = measured[0].at_most.unwrap();
    assert!(
        lost >= seconds(10) && lost <= seconds(20),
        "the newest heartbeat is as old as the outage: {lost:?}"
    );
    let told = &world.notices.last().unwrap().1;
    assert!(matches!(&told.reason, Reason::Recovered { to, .. } if *to == west()));
}

#[test]
fn a_run_opens_after_so_many_failures_and_no_fewer() {
    for failures in [1_u32, 2, 3, 5] {
        let mut wanted = workload();
        wanted.probes.get_mut(&"orders-east".into()).unwrap().failures = failures;
        let mut world = World::quiet_with(policy([wanted]));
        world.becomes(&east(), Manner::Refuses);
        world.pass_until(seconds(120), |w| w.runs() == 1);
        let because = world.recorded(|r| match r {
            Record::RunOpened { reason: Reason::PrimaryLost { because, .. }, .. } => Some(because.clone()),
            _ => None,
        });
        let Reason::ProbeDown { failures: counted, .. } = &*because[0] else { panic!("{because:?}") };
        // The witnesses must be asked after the first failure and before the last: that needs up to three looks.
        assert!((failures..=failures.max(3)).contains(counted), "{failures} wanted, {counted} counted");
    }
}

#[test]
fn each_effect_carries_the_run_s_epoch_once() {
    let world = survived();
    assert_eq!(world.commands.len(), STEPS.len(), "no step is started twice: {:?}", world.steps());
    for (_, command) in &world.commands {
        assert_eq!((command.run.as_str(), command.attempt), ("shop-e1", 1));
    }
}

#[test]
fn a_step_is_tried_as_often_as_the_page_says() {
    for (step, attempts) in [("measure-loss", 3), ("promote", 5), ("await-serving", 3), ("verify", 2)] {
        for kind in [FaultKind::Unreachable, FaultKind::Unclear] {
            let mut world = World::quiet();
            world.script(step, std::iter::repeat_n(Script::Fault(kind), attempts - 1));
            world.becomes(&east(), Manner::Refuses);
            world.pass_until(seconds(120), |w| !endings(w).is_empty());
            assert_eq!(endings(&world), [Ending::Done], "{step}: the last attempt succeeded");
            let tried: Vec<u32> = world
                .commands
                .iter()
                .filter(|(_, c)| c.step.as_str() == step)
                .map(|(_, c)| c.attempt)
                .collect();
            assert_eq!(tried, (1..=u32::try_from(attempts).unwrap()).collect::<Vec<_>>(), "{step}");
        }
    }
}

#[test]
fn a_refusal_is_not_tried_again() {
    let mut world = World::quiet();
    world.script("promote", [Script::Fault(FaultKind::Refused)]);
    world.becomes(&east(), Manner::Refuses);
    world.pass(seconds(60));
    assert_eq!(world.phase(), PhaseName::Stranded);
    assert_eq!(world.steps(), STEPS[..3]);
}

#[test]
fn a_target_that_dies_while_promoted_strands_the_run_and_dns_stays() {
    let mut world = World::quiet();
    world.script("promote", std::iter::repeat_n(Script::Fault(FaultKind::Unreachable), 5));
    world.becomes(&east(), Manner::Refuses);
    world.pass_until(seconds(60), |w| w.phase() == PhaseName::Stranded);
    world.becomes(&west(), Manner::Refuses);
    world.pass(seconds(600));
    assert!(!world.steps().contains(&"switch-dns".to_owned()), "names point at a dead region");
    assert_eq!(world.status().primary, east());
    assert!(alarms(&world).iter().any(|a| a.starts_with("promote failed 5 times")), "{:?}", alarms(&world));

    // The target comes back, and a person lets the run go on.
    world.becomes(&west(), Manner::Answers(Duration::from_millis(20)));
    world.pass(seconds(30));
    let answer = world.order(Order::Failover { workload: shop(), to: west(), by: "ada".into() });
    assert!(matches!(answer, Answer::Accepted { .. }), "{answer:?}");
    world.pass_until(seconds(30), |w| endings(w) == [Ending::Done]);
    assert_eq!(world.status().primary, west());
    assert_eq!(world.status().epoch, Epoch::new(1), "it is the same run");
}

#[test]
fn a_target_that_never_serves_gets_no_traffic() {
    let mut world = World::quiet();
    world.script("await-serving", std::iter::repeat_n(Script::Fault(FaultKind::Unclear), 3));
    world.becomes(&east(), Manner::Refuses);
    world.pass(seconds(60));
    assert_eq!(world.phase(), PhaseName::Stranded);
    assert_eq!(world.status().primary, west(), "it is promoted, and that is on record");
    assert!(!world.steps().contains(&"switch-dns".to_owned()));
}

#[test]
fn an_answer_that_does_not_cover_the_step_is_no_success() {
    let empty = [
        ("measure-loss", lifeboat_core::Output::Positions { positions: [].into() }),
        ("fence", lifeboat_core::Output::Fenced { proofs: [].into() }),
        ("promote", lifeboat_core::Output::Promoted { promotions: [].into() }),
        ("switch-dns", lifeboat_core::Output::Switched { names: [].into() }),
        ("verify", lifeboat_core::Output::Verified { censuses: [].into(), canary: None }),
        ("promote", lifeboat_core::Output::Reported),
    ];
    for (step, output) in empty {
        let mut world = World::quiet();
        let hollow = Script::After(seconds(1), Outcome::Succeeded(output.clone()));
        world.script(step, std::iter::repeat_n(hollow, 20));
        world.becomes(&east(), Manner::Refuses);
        world.pass(seconds(30));
        assert!(endings(&world).iter().all(|e| *e != Ending::Done), "{step} took {output:?} for a success");
        let outcomes = world.recorded(|r| match r {
            Record::StepEnded { step: s, outcome, .. } if s.as_str() == step => Some(outcome.clone()),
            _ => None,
        });
        let Outcome::Failed(fault) = &outcomes[0] else { panic!("{step}: {outcomes:?}") };
        assert_eq!(fault.kind, FaultKind::Unclear);
    }
}

#[test]
fn a_second_loss_within_the_cooldown_waits_for_a_person() {
    let mut world = survived();
    world.becomes(&east(), Manner::Answers(Duration::from_millis(20)));
    world.place(&east()).primary = false;
    world.pass(seconds(600));
    world.becomes(&west(), Manner::Refuses);
    world.pass(seconds(120));
    assert_eq!(world.runs(), 1);
    let gate = world.condition(Gate::Cooldown);
    let Reason::Cooling { left } = gate.reason else { panic!("{gate:?}") };
    assert!(!gate.holds && left < seconds(3_600 - 600), "{left:?}");
    assert!(alarms(&world).iter().any(|a| a.starts_with("cooling down")), "{:?}", alarms(&world));

    // When it is over and the primary is still lost, the run opens.
    world.pass_until(seconds(3_600), |w| w.runs() == 2);
    // By then the newest heartbeat is most of an hour old: that is a person's to accept.
    world.pass_until(seconds(10), |w| !w.oracle.asked().is_empty());
    let (run, question) = world.oracle.asked().remove(0);
    world.order(Order::Approve { run, accept: Some(question.acceptance()), by: "ada".into() });
    world.pass(seconds(10));
    assert_eq!((world.status().primary, world.status().epoch), (east(), Epoch::new(2)));
}

#[test]
fn the_budget_of_automatic_failovers_holds() {
    let mut wanted = workload();
    wanted.failover.cooldown = seconds(60);
    wanted.failover.budget = 2;
    let mut world = World::quiet_with(policy([wanted]));
    for (lost, other) in [(east(), west()), (west(), east()), (east(), west())] {
        world.becomes(&lost, Manner::Refuses);
        world.pass(seconds(300));
        world.place(&lost).primary = false;
        world.becomes(&lost, Manner::Answers(Duration::from_millis(20)));
        world.becomes(&other, Manner::Answers(Duration::from_millis(20)));
        world.pass(seconds(300));
    }
    assert_eq!(world.runs(), 2, "{}", world.story());
    let spent = alarms(&world).into_iter().find(|a| a.contains("the budget is 2"));
    assert_eq!(spent.unwrap(), "2 automatic failovers within 1 d 0 h; the budget is 2");
}

#[test]
fn after_a_fruitless_run_the_next_waits() {
    let mut world = World::quiet();
    world.script("measure-loss", [Script::Fault(FaultKind::Refused)]);
    world.becomes(&east(), Manner::Refuses);
    world.pass_until(seconds(30), |w| endings(w) == [Ending::Failed]);
    let gate = world.condition(Gate::HoldOff);
    assert!(!gate.holds && matches!(gate.reason, Reason::HeldOff { .. }), "{gate:?}");
    let waited = world.pass_until(seconds(60), |w| w.runs() == 2);
    assert!(waited >= seconds(29), "the next run opened after {waited:?}");
    world.pass(seconds(10));
    assert_eq!(endings(&world), [Ending::Failed, Ending::Done]);
    assert_eq!(world.status().epoch, Epoch::new(2), "each run has an epoch of its own");
}
