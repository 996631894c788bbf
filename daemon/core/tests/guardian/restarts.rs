//! Killed at any instant: what is on record goes on from where it was, and nothing happens twice.

use std::time::Duration;

use lifeboat_core::record::Ending;
use lifeboat_core::status::PhaseName;
use lifeboat_core::{Event, FaultKind, Guardian, Moment, Order, Outcome, Record, Stamped};

use crate::failover::{endings, survived};
use crate::oracle::ledgers;
use crate::pretend::{Manner, Script, World, well};
use crate::setting::{CLUSTER, east, policy, runbook, seconds, shop, west, workload};

/// A failover on which everything happens: retries, a question, a stranding, a person who lets it go on.
fn eventful() -> World {
    let mut world = World::quiet();
    world.replicating = false;
    world.pass(seconds(600));
    world.script("measure-loss", [Script::Fault(FaultKind::Unreachable)]);
    world.script("fence", std::iter::repeat_n(Script::Fault(FaultKind::Unclear), 2));
    world.script("promote", std::iter::repeat_n(Script::Fault(FaultKind::Unreachable), 5));
    world.becomes(&east(), Manner::Refuses);
    for _ in 0..2 {
        world.pass_until(seconds(60), |w| !w.oracle.asked().is_empty());
        let (run, question) = world.oracle.asked().remove(0);
        world.order(Order::Approve { run, accept: Some(question.acceptance()), by: "ada".into() });
    }
    world.pass_until(seconds(60), |w| w.phase() == PhaseName::Stranded);
    world.order(Order::Failover { workload: shop(), to: west(), by: "ada".into() });
    world.pass_until(seconds(60), |w| endings(w) == [Ending::Done]);
    world
}

/// What a killed agent does when it starts again on these records, with steps that go well from then on.
/// Gives the kinds of promotions started, and where it stands in the end.
fn resumed(records: &[Stamped], now: Moment) -> (usize, PhaseName, bool) {
    let mut guardian = Guardian::restore(policy([workload()]), runbook(), "0.1.0", records);
    let mut records = records.to_vec();
    let (mut now, mut promotions) = (now, 0);
    let mut event = Event::Started;
    for _ in 0..200 {
        let decision = guardian.decide(now, event);
        for record in decision.records {
            records.push(Stamped { sequence: records.len() as u64 + 1, at: now, record });
        }
        // Long enough in all for a run that waits for evidence to be given up.
        now = now + Duration::from_secs(1);
        event = match decision.commands.into_iter().next() {
            None => Event::Tick,
            Some(command) => {
                promotions += usize::from(command.step.as_str() == "promote");
                let standing = |_: &_| lifeboat_core::outcome::TargetPosition {
                    system: CLUSTER,
                    timeline: lifeboat_core::Timeline::new(1),
                    position: lifeboat_core::sighting::StandbyPosition {
                        received: lifeboat_core::Lsn::new(1),
                        replayed: lifeboat_core::Lsn::new(1),
                        heartbeat: Some(now),
                        epoch: None,
                        streaming: false,
                        name: "west".to_owned(),
                    },
                };
                let outcome = Outcome::Succeeded(well(&command.action, standing));
                Event::StepEnded { ended: command.which(), outcome }
            }
        };
    }
    let status = guardian.status(now).workloads.remove(&shop()).expect("the workload is known");
    let asks = status.run.is_some_and(|run| run.question.is_some());
    (promotions, status.phase, asks)
}

#[test]
fn from_every_decision_on_a_restart_goes_on_to_the_end() {
    for world in [survived(), eventful()] {
        let mut seen = 0;
        for &end in &world.batches {
            if end == seen {
                continue;
            }
            seen = end;
            let records = &world.records[..end];
            let last = &records[end - 1];
            let open = records.iter().filter(|s| matches!(s.record, Record::RunOpened { .. })).count()
                > records.iter().filter(|s| matches!(s.record, Record::RunEnded { .. })).count();
            let promoted = records.iter().any(|s| matches!(s.record, Record::PrimaryMoved { .. }));
            let moving = records
                .iter()
                .any(|s| matches!(&s.record, Record::StepStarted { step, .. } if step.as_str() == "promote"));
            let (promotions, phase, asks) = resumed(records, last.at + seconds(1));
            let after = format!("after {}: {}", last.sequence, last.record);
            if !open {
                assert_eq!(promotions, 0, "{after}");
                continue;
            }
            // Nothing is seen after this restart: before the promotion a run may be given up, after it never.
            match phase {
                PhaseName::Guarding | PhaseName::Doubting => {
                    assert_eq!(promotions, usize::from(moving && !promoted), "{after}");
                }
                PhaseName::FailingOver => assert!(asks, "{after}"),
                PhaseName::Stranded => {
                    assert!(matches!(last.record, Record::Stranded { .. }), "{after}");
                }
                PhaseName::Paused
                | PhaseName::SwitchingOver
                | PhaseName::FailingBack
                | PhaseName::Rejoining => panic!("{after}"),
            }
        }
    }
}

#[test]
fn the_step_under_way_is_the_one_that_is_started_again() {
    for step in ["measure-loss", "fence", "promote", "await-serving", "switch-dns", "verify", "report"] {
        let mut world = World::quiet();
        world.script(step, [Script::Never]);
        world.becomes(&east(), Manner::Refuses);
        world.pass_until(seconds(60), |w| w.steps().last().is_some_and(|s| s == step));
        let before = world.commands.len();
        world.crash(seconds(1));
        let again: Vec<_> =
            world.commands[before..].iter().map(|(_, c)| (c.step.as_str().to_owned(), c.attempt)).collect();
        // A fence is begun again only on fresh evidence, and always before a promotion.
        let expected = match step {
            "fence" => vec![],
            "promote" => vec![("fence".to_owned(), 2)],
            _ => vec![(step.to_owned(), 2)],
        };
        assert_eq!(again, expected, "{step}");
        // Before the fence it may be given up for want of evidence; then another opens.
        world.pass_until(seconds(120), |w| endings(w).last() == Some(&Ending::Done));
        assert_eq!(world.status().primary, west());
        assert!(world.runs() == 1 || step == "measure-loss", "{}", world.story());
    }
}

#[test]
fn an_outcome_from_before_the_restart_is_not_taken() {
    let mut world = World::quiet();
    world.script("promote", [Script::Never, Script::Never]);
    world.becomes(&east(), Manner::Refuses);
    world.pass_until(seconds(60), |w| w.steps().last().is_some_and(|s| s == "promote"));
    let command = world.commands.last().unwrap().1.clone();
    world.crash(seconds(1));
    let outcome = Outcome::Succeeded(world.carry_out(&command.action));
    let records = world.records.len();
    let ended = lifeboat_core::event::Attempt { attempt: 1, ..command.which() };
    world.happen(Event::StepEnded { ended, outcome });
    assert_eq!(world.records.len(), records, "an outcome of a dead attempt was taken");
}

#[test]
fn a_question_outlives_the_restart_with_its_time() {
    let mut world = World::quiet();
    world.script("fence", std::iter::repeat_n(Script::Fault(FaultKind::Unclear), 2));
    world.becomes(&east(), Manner::Refuses);
    world.pass_until(seconds(60), |w| !w.oracle.asked().is_empty());
    let asked = world.oracle.asked();
    world.crash(seconds(60));
    assert_eq!(world.oracle.asked(), asked);
    let steps = world.steps();
    let waited = world.pass_until(seconds(3_600), |w| endings(w) == [Ending::Lapsed]);
    assert!(waited <= seconds(3_540), "{waited:?}");
    assert_eq!(world.steps(), steps);
}

#[test]
fn pause_cooldown_and_budget_outlive_a_restart() {
    let mut world = survived();
    let until = world.now + seconds(7_200);
    world.order(Order::Pause { workload: shop(), reason: "upgrade".into(), until, by: "ada".into() });
    let before = ledgers(&world.guardian);
    world.crash(seconds(600));
    assert_eq!(ledgers(&world.guardian), before);
    assert_eq!(world.phase(), PhaseName::Paused);
    assert!(!world.condition(lifeboat_core::condition::Gate::Cooldown).holds);
}

#[test]
fn a_restart_alone_is_no_reason_to_doubt_or_to_act() {
    let mut world = World::quiet();
    for _ in 0..20 {
        world.crash(Duration::from_millis(300));
        world.pass(seconds(7));
    }
    assert_eq!((world.runs(), world.notices.len()), (0, 0), "{}", world.story());
    assert_eq!(world.phase(), PhaseName::Guarding);
}

#[test]
fn a_primary_lost_while_the_agent_was_down_is_found() {
    let mut world = World::quiet();
    world.becomes(&east(), Manner::Refuses);
    world.crash(seconds(120));
    let took = world.pass_until(seconds(60), |w| w.runs() == 1);
    assert!(took >= seconds(10), "what was seen before the restart does not count: {took:?}");
}
