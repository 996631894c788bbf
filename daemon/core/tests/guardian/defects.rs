//! Scenarios that once failed: each names the promise that it broke, and keeps it from breaking again.

use std::time::Duration;

use lifeboat_core::plan::{Action, Kind};
use lifeboat_core::policy::NamePolicy;
use lifeboat_core::record::Ending;
use lifeboat_core::status::PhaseName;
use lifeboat_core::{Answer, FaultKind, Order, ProbeName, Reason, Record, RegionName, Severity};

use crate::failover::{alarms, endings, survived};
use crate::pretend::{Manner, Script, World};
use crate::setting::{east, policy, probe, seconds, shop, west, workload};

const WELL: Manner = Manner::Answers(Duration::from_millis(20));

#[test]
fn d01_own_network_back_is_no_failover() {
    let mut bad = Vec::new();
    for outage in 60..110 {
        let mut world = World::quiet();
        world.network = false;
        world.pass(seconds(outage));
        world.network = true;
        world.pass(seconds(60));
        if world.runs() > 0 {
            bad.push((outage, endings(&world), world.status().primary.to_string()));
        }
    }
    assert!(bad.is_empty(), "{} of 50: {bad:?}", bad.len());
}

#[test]
fn d02_restart_hours_later_does_not_fence_a_healthy_primary() {
    let mut world = World::quiet();
    world.script("measure-loss", [Script::Never]);
    world.becomes(&east(), Manner::Refuses);
    world.pass_until(seconds(30), |w| w.runs() == 1);
    world.becomes(&east(), WELL);
    // Replication went on while the agent was down.
    let now = world.now;
    world.place(&west()).heartbeat = Some(now + seconds(36_000));
    world.crash(seconds(36_000));
    world.pass(seconds(60));
    assert!(!world.steps().contains(&"fence".to_owned()), "{}", world.story());
}

#[test]
fn d03_a_fence_of_yesterday_is_proven_again_before_the_promotion() {
    let mut world = World::quiet();
    world.script("promote", [Script::Never]);
    world.becomes(&east(), Manner::Refuses);
    world.pass_until(seconds(30), |w| w.steps().contains(&"promote".to_owned()));
    world.becomes(&east(), WELL);
    world.crash(seconds(36_000));
    world.pass(seconds(60));
    let steps = world.steps();
    let tail = &steps[3..];
    assert_eq!(tail.first().map(String::as_str), Some("fence"), "{steps:?}");
}

#[test]
fn d04_a_heartbeat_of_the_future_is_unknown_not_zero() {
    let mut world = World::quiet();
    world.replicating = false;
    let now = world.now;
    world.place(&west()).heartbeat = Some(now + seconds(3_600));
    world.pass(seconds(1_800));
    world.becomes(&east(), Manner::Refuses);
    world.pass(seconds(60));
    assert!(endings(&world).is_empty() && !world.oracle.asked().is_empty(), "{}", world.story());
}

#[test]
fn d05_a_stale_actor_does_not_try_again_with_the_next_epoch() {
    let mut world = World::quiet();
    world.script("fence", [Script::Fault(FaultKind::Stale)]);
    world.becomes(&east(), Manner::Refuses);
    world.pass(seconds(120));
    assert_eq!(world.runs(), 1, "{}", world.story());
}

#[test]
fn d06_loss_grows_while_a_person_is_asked_about_the_fence() {
    let mut world = World::quiet();
    world.script("fence", std::iter::repeat_n(Script::Fault(FaultKind::Unclear), 2));
    world.becomes(&east(), Manner::Refuses);
    world.pass_until(seconds(60), |w| !w.oracle.asked().is_empty());
    world.pass(seconds(3_000));
    let (run, question) = world.oracle.asked().remove(0);
    world.order(Order::Approve { run, accept: Some(question.acceptance()), by: "ada".into() });
    world.pass(seconds(30));
    assert!(
        !world.steps().contains(&"promote".to_owned()),
        "promoted 50 min later on a loss measured as {:?}",
        world.recorded(|r| match r {
            Record::LossMeasured { loss, .. } => loss.at_most,
            _ => None,
        })
    );
}

#[test]
fn d07_a_restart_tells_again_what_waits_for_a_person() {
    // Killed after the record, before the notice went out.
    let mut world = World::quiet();
    world.script("fence", std::iter::repeat_n(Script::Fault(FaultKind::Unclear), 2));
    world.becomes(&east(), Manner::Refuses);
    world.pass_until(seconds(60), |w| !w.oracle.asked().is_empty());
    world.notices.clear();
    world.crash(seconds(1));
    world.pass(seconds(600));
    let asked = alarms(&world).iter().any(|a| a.starts_with("a person must decide"));
    let mut world = World::quiet();
    world.script("promote", [Script::Fault(FaultKind::Refused)]);
    world.becomes(&east(), Manner::Refuses);
    world.pass_until(seconds(60), |w| w.phase() == PhaseName::Stranded);
    world.notices.clear();
    world.crash(seconds(1));
    world.pass(seconds(36_000));
    let stranded = alarms(&world).iter().any(|a| a.contains("promote"));
    assert!(asked && stranded, "asked told again: {asked}, stranded told again: {stranded}");
}

#[test]
fn d08_no_false_alarm_of_two_primaries_after_a_failover() {
    let mut world = survived();
    world.pass(seconds(120));
    assert!(!alarms(&world).iter().any(|a| a.contains("is a primary too")), "{:?}", alarms(&world));
}

#[test]
fn d09_a_clock_that_stepped_back_does_not_stop_a_run() {
    let mut world = World::quiet();
    world.script("promote", [Script::Fault(FaultKind::Unreachable)]);
    world.becomes(&east(), Manner::Refuses);
    world.pass_until(seconds(30), |w| {
        w.recorded(|r| matches!(r, Record::StepEnded { retry_at: Some(_), .. }).then_some(())).len() == 1
    });
    let then = world.now;
    world.now = lifeboat_core::Moment::from_millis(then.millis() - 86_400_000);
    world.crash(seconds(1));
    world.pass(seconds(600));
    assert!(!endings(&world).is_empty(), "{:?}", world.status().run);
}

#[test]
fn d10_notices_do_not_storm_when_the_standby_cannot_be_measured() {
    let mut world = World::quiet();
    world.script("measure-loss", std::iter::repeat_n(Script::Fault(FaultKind::Refused), 10_000));
    world.becomes(&east(), Manner::Refuses);
    world.pass(seconds(3_600));
    let loud = world.notices.iter().filter(|(_, n)| n.severity >= Severity::Warning).count();
    assert!(loud < 30, "{loud} notices and {} runs in an hour, epoch {}", world.runs(), world.status().epoch);
}

#[test]
fn d11_notices_do_not_storm_when_gates_alternate() {
    let mut world = World::quiet();
    world.becomes(&east(), Manner::Refuses);
    world.becomes(&west(), Manner::Refuses);
    for n in 0..60 {
        world.becomes(&west(), if n % 2 == 0 { WELL } else { Manner::Refuses });
        world.place(&west()).system = lifeboat_core::SystemIdentifier::new(42);
        world.pass(seconds(60));
    }
    let loud = alarms(&world).len();
    assert!(loud < 20, "{loud} critical notices in an hour");
}

#[test]
fn d12_a_primary_region_without_probes_is_not_healthy() {
    // The operator took the region the workload lives in out of the file.
    let mut world = survived();
    let mut wanted = workload();
    wanted.standbys = vec!["north".into()];
    wanted.probes.retain(|_, p| p.region != west());
    world.policy = policy([wanted]);
    world.guardian = lifeboat_core::Guardian::restore(
        world.policy.clone(),
        crate::setting::runbook(),
        "1",
        &world.records,
    );
    let gate = world.condition(lifeboat_core::condition::Gate::PrimaryLost);
    assert!(!gate.reason.to_string().contains("is healthy"), "{}", gate.reason);
}

#[test]
fn d13_a_stranger_s_sighting_does_not_teach_an_identity() {
    let mut world = World::new(policy([workload()]));
    world.happen(lifeboat_core::Event::Started);
    let sample = lifeboat_core::sighting::DatabaseSample {
        database: "nobody".into(),
        system: lifeboat_core::SystemIdentifier::new(3),
        timeline: lifeboat_core::Timeline::new(1),
        state: lifeboat_core::sighting::DatabaseState::Primary {
            written: lifeboat_core::Lsn::new(1),
            heartbeat: None,
            synchronous: [].into(),
        },
    };
    world.happen(lifeboat_core::Event::Sighted(lifeboat_core::Sighting {
        workload: shop(),
        region: east(),
        probe: "no such probe".into(),
        vantage: "x".into(),
        at: world.now,
        took: seconds(0),
        look: Ok(lifeboat_core::Evidence::Database(sample)),
    }));
    assert_eq!(world.recorded(|r| matches!(r, Record::IdentityLearned { .. }).then_some(())).len(), 0);
}

#[test]
fn d14_alert_within_30_s_in_the_worst_case() {
    // Trouble begins just after a look began that still answers; then 5.25 s (jitter), 10.25 s time-out.
    let mut wanted = workload();
    for p in wanted.probes.values_mut() {
        p.interval = Duration::from_millis(5_250);
    }
    let mut world = World::quiet_with(policy([wanted]));
    world.pass(Duration::from_millis(1_800));
    world.becomes(&east(), Manner::Dark);
    let begun = world.now;
    world.pass(seconds(40));
    let (at, _) = world.notices.iter().find(|(_, n)| n.severity >= Severity::Warning).unwrap();
    assert!(at.since(begun) <= seconds(30), "{:?}", at.since(begun));
}

#[test]
fn d15_a_vital_probe_that_is_back_is_not_fenced_because_another_fails() {
    let mut world = World::quiet();
    world.script("measure-loss", [Script::Well(seconds(30))]);
    world.becomes(&east(), Manner::Refuses);
    world.pass_until(seconds(30), |w| w.runs() == 1);
    // The database is back; only the shop (not vital) still fails.
    world.shop_fails = true;
    world.becomes(&east(), WELL);
    world.pass(seconds(60));
    assert!(!world.steps().contains(&"fence".to_owned()), "{}", world.story());
}

#[test]
fn d16_a_fence_under_way_ten_hours_ago_is_not_begun_again_on_a_healthy_primary() {
    let mut world = World::quiet();
    world.script("fence", [Script::Never]);
    world.becomes(&east(), Manner::Refuses);
    world.pass_until(seconds(30), |w| w.steps().contains(&"fence".to_owned()));
    world.becomes(&east(), WELL);
    let now = world.now;
    world.place(&west()).heartbeat = Some(now + seconds(36_000));
    world.crash(seconds(36_000));
    let again = world.steps();
    world.pass(seconds(60));
    assert!(again.len() == 2, "{again:?} {}", world.story());
}

#[test]
fn d17_a_run_given_up_for_want_of_evidence_does_not_say_that_the_primary_is_back() {
    let mut world = World::quiet();
    world.script("measure-loss", [Script::Never]);
    world.becomes(&east(), Manner::Refuses);
    world.pass_until(seconds(30), |w| w.runs() == 1);
    world.crash(seconds(1));
    world.pass(seconds(60));
    assert!(!world.story().contains("is back"), "{}", world.story());
}

#[test]
fn d18_an_old_outcome_is_not_taken_after_a_person_let_the_run_go_on() {
    let mut world = World::quiet();
    world.script("promote", [Script::Fault(FaultKind::Refused), Script::Never]);
    world.becomes(&east(), Manner::Refuses);
    world.pass_until(seconds(30), |w| w.phase() == PhaseName::Stranded);
    world.order(Order::Failover { workload: shop(), to: west(), by: "ada".into() });
    world.pass(seconds(5));
    let attempts: Vec<u32> =
        world.commands.iter().filter(|(_, c)| c.step.as_str() == "promote").map(|(_, c)| c.attempt).collect();
    assert_eq!(attempts, [1, 2], "two attempts of one run have one number");
}

#[test]
fn d19_an_open_run_of_a_workload_that_left_the_file_is_told() {
    let mut world = World::quiet();
    world.script("promote", [Script::Fault(FaultKind::Refused)]);
    world.becomes(&east(), Manner::Refuses);
    world.pass_until(seconds(30), |w| w.phase() == PhaseName::Stranded);
    let mut renamed = workload();
    renamed.name = "shop2".into();
    let mut guardian =
        lifeboat_core::Guardian::restore(policy([renamed]), crate::setting::runbook(), "1", &world.records);
    let decision = guardian.decide(world.now, lifeboat_core::Event::Started);
    assert!(!decision.notices.is_empty(), "nobody is told of shop-e1");
}

#[test]
fn a_person_can_give_up_what_waits_and_nothing_else() {
    use lifeboat_core::{Answer, Reason};

    let give_up = || Order::Abandon {
        run: "shop-e1".into(),
        reason: "the region is back".into(),
        accept: None,
        by: "ada".into(),
    };
    let mut world = World::quiet();
    world.script("promote", [Script::Well(seconds(20)), Script::Fault(FaultKind::Refused)]);
    world.script("await-serving", [Script::Fault(FaultKind::Refused)]);
    world.becomes(&east(), Manner::Refuses);
    world.pass_until(seconds(60), |w| w.steps().contains(&"promote".to_owned()));
    assert!(matches!(world.order(give_up()), Answer::Refused { reason: Reason::StepUnderWay { .. } }));
    world.pass_until(seconds(60), |w| w.phase() == PhaseName::Stranded);
    assert!(matches!(world.order(give_up()), Answer::Accepted { .. }));
    assert!(matches!(world.phase(), PhaseName::Guarding | PhaseName::Doubting));
    assert_eq!(world.status().primary, west(), "what was done stays done");
    assert!(matches!(world.order(give_up()), Answer::Refused { reason: Reason::RunEnded { .. } }));
}

#[test]
fn an_agent_that_is_blind_on_a_quiet_day_says_so_once() {
    let mut world = World::quiet();
    world.notices.clear();
    world.network = false;
    world.pass(seconds(60));
    let told = |w: &World| {
        let about = |n: &lifeboat_core::Notice| {
            n.severity == Severity::Warning && matches!(n.reason, lifeboat_core::Reason::Connectivity { .. })
        };
        w.notices.iter().filter(|(_, n)| about(n)).count()
    };
    assert_eq!(told(&world), 1, "{:?}", world.notices);
    world.network = true;
    world.pass(seconds(120));
    assert_eq!(told(&world), 1);
}

#[test]
fn a_question_that_lapses_past_the_promotion_strands_and_is_asked_again() {
    let mut world = World::quiet();
    world.script("promote", [Script::Never]);
    world.becomes(&east(), Manner::Refuses);
    world.pass_until(seconds(30), |w| w.steps().contains(&"promote".to_owned()));
    world.script("fence", std::iter::repeat_n(Script::Fault(FaultKind::Unreachable), 2));
    world.crash(seconds(60));
    let asked = |w: &World| w.status().run.is_some_and(|run| run.question.is_some());
    world.pass_until(seconds(60), asked);
    world.pass(seconds(4_000));
    // The target may be a primary: a run that is simply over would leave it beside the old one.
    assert_eq!((endings(&world), world.phase()), (Vec::new(), PhaseName::Stranded));
    let answer = world.order(Order::Failover { workload: shop(), to: west(), by: "ada".into() });
    assert!(matches!(answer, Answer::Accepted { .. }), "{answer:?}");
    world.pass_until(seconds(60), |w| endings(w) == [Ending::Done]);
}

#[test]
fn a_rejoin_of_what_was_promoted_later_is_refused() {
    let mut wanted = workload();
    wanted.hosts = [west()].into();
    let mut world = World::quiet_with(policy([wanted]));
    let place = world.place(&west());
    (place.primary, place.timeline) = (true, 2);
    world.pass(seconds(10));
    let answer = world.order(Order::Rejoin { workload: shop(), region: west(), by: "ada".into() });
    let refused = matches!(&answer, Answer::Refused { reason: Reason::TwoPrimaries { region, .. } } if *region == west());
    assert!(refused && world.steps().is_empty(), "the right primary would have been closed: {answer:?}");
}

#[test]
fn a_rejoin_does_not_keep_a_lost_primary_from_being_replaced() {
    let north = RegionName::new("north");
    let mut wanted = workload();
    wanted.failover.rejoin = true;
    wanted.hosts = [west()].into();
    wanted.standbys.push(north.clone());
    wanted.probes.insert(ProbeName::new("orders-north"), probe("north", Some("orders")));
    for NamePolicy { targets, .. } in wanted.names.values_mut() {
        targets.insert(north.clone(), ["203.0.113.80".to_owned()].into());
    }
    let mut world = World::new(policy([wanted]));
    let standby = world.places[&west()].clone();
    world.places.insert(north.clone(), standby);
    world.place(&west()).primary = true;
    world.place(&east()).timeline = 2;
    world.script("rejoin", [Script::Never]);
    world.start();
    world.pass_until(seconds(60), |w| w.steps().contains(&"rejoin".to_owned()));
    let fence = &world.commands[0].1.action;
    assert!(matches!(fence, Action::Fence { returned: true, .. }), "what returns is shut out: {fence:?}");
    world.becomes(&west(), Manner::Refuses);
    world.becomes(&east(), Manner::Refuses);
    world.pass_until(seconds(300), |w| endings(w) == [Ending::Failed, Ending::Done]);
    let kinds = world.recorded(|r| match r {
        Record::RunOpened { plan, .. } => Some(plan.kind),
        _ => None,
    });
    assert_eq!((kinds, world.status().primary), (vec![Kind::Rejoin, Kind::Failover], north));
}
