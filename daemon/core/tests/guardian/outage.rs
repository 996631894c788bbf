//! What is no reason to act: a slow primary, an agent without a network, a standby that cannot take over.

use std::time::Duration;

use lifeboat_core::condition::Gate;
use lifeboat_core::sighting::FailureKind;
use lifeboat_core::status::{PhaseName, Verdict};
use lifeboat_core::{Reason, Record, Severity, SystemIdentifier};

use crate::failover::{alarms, endings};
use crate::pretend::{Manner, World};
use crate::setting::{CLUSTER, east, policy, seconds, west, workload};

const WELL: Manner = Manner::Answers(Duration::from_millis(20));

#[test]
fn a_slow_primary_is_not_dead() {
    let mut world = World::quiet();
    world.becomes(&east(), Manner::Answers(seconds(10)));
    let begun = world.now;
    world.pass(seconds(40));
    world.becomes(&east(), WELL);
    world.pass(seconds(120));
    assert_eq!(world.runs(), 0, "{}", world.story());
    let told = world.notices.iter().find(|(_, n)| n.severity >= Severity::Warning);
    let (at, notice) = told.expect("someone is told");
    assert!(at.since(begun) <= seconds(30), "told after {:?}", at.since(begun));
    assert!(notice.reason.to_string().contains("no answer in time"), "{}", notice.reason);
    assert_eq!(world.phase(), PhaseName::Guarding);
    assert_eq!(world.notices.last().unwrap().1.severity, Severity::Info, "and told that it is over");
}

#[test]
fn a_silent_primary_is_lost_after_its_silence_only() {
    let mut world = World::quiet();
    world.becomes(&east(), Manner::Dark);
    let took = world.pass_until(seconds(120), |w| w.runs() == 1);
    assert!(took >= seconds(60) && took <= seconds(85), "{took:?}");
}

#[test]
fn an_agent_without_a_network_abstains() {
    let mut world = World::quiet();
    world.network = false;
    world.pass(seconds(1_800));
    assert_eq!(world.runs(), 0, "{}", world.story());
    assert_eq!(world.status().regions[&east()].verdict, Verdict::Lost);
    let gate = world.condition(Gate::Connectivity);
    assert!(!gate.holds);
    assert!(
        gate.reason.to_string().starts_with("0 of 3 witnesses answered bastion-west; 2 needed"),
        "{}",
        gate.reason
    );
    assert!(alarms(&world).iter().any(|a| a.starts_with("0 of 3 witnesses")), "{:?}", alarms(&world));
}

#[test]
fn a_proof_from_before_the_trouble_is_none() {
    // Refusals come from the agent's own broken network, faster than the witnesses are asked again.
    let mut wanted = workload();
    wanted.probes.get_mut(&"orders-east".into()).unwrap().failures = 1;
    let mut world = World::quiet_with(policy([wanted]));
    world.pass_until(seconds(10), |w| {
        let age = w.guardian.status(w.now).connectivity.reason;
        matches!(age, Reason::Connectivity { age: Some(age), .. } if age < Duration::from_millis(100))
    });
    world.network = false;
    world.becomes(&east(), Manner::Refuses);
    world.pass(seconds(300));
    assert_eq!(world.runs(), 0, "{}", world.story());
}

#[test]
fn a_primary_that_answers_but_cannot_commit_is_lost_and_the_reason_says_so() {
    let mut world = World::quiet();
    world.becomes(&east(), Manner::CannotCommit);
    world.pass_until(seconds(30), |w| w.runs() == 1);
    let opened = world.recorded(|r| match r {
        Record::RunOpened { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    let Reason::PrimaryLost { because, .. } = &opened[0] else { panic!("{opened:?}") };
    let Reason::ProbeDown { last, .. } = &**because else { panic!("{because:?}") };
    assert_eq!(last.kind, FailureKind::CannotCommit);
}

#[test]
fn a_probe_that_is_not_vital_never_moves_the_workload() {
    let mut wanted = workload();
    wanted.probes.get_mut(&"orders-east".into()).unwrap().vital = false;
    wanted.probes.get_mut(&"shop-east".into()).unwrap().vital = false;
    let mut world = World::quiet_with(policy([wanted]));
    world.becomes(&east(), Manner::Refuses);
    world.pass(seconds(600));
    assert_eq!(world.runs(), 0);
    assert_eq!(world.phase(), PhaseName::Doubting);
}

#[test]
fn with_both_regions_down_nothing_is_done_blindly() {
    let mut world = World::quiet();
    world.becomes(&east(), Manner::Refuses);
    world.becomes(&west(), Manner::Refuses);
    world.pass(seconds(300));
    assert_eq!((world.runs(), world.commands.len()), (0, 0));
    let declined = world.recorded(|r| match r {
        Record::Declined { gate, reason, .. } => Some((*gate, reason.to_string())),
        _ => None,
    });
    let (gate, reason) = declined.last().expect("it is on record that nothing is done");
    assert_eq!(*gate, Gate::TargetAnswers);
    assert!(reason.starts_with("the standby region west cannot take over: orders-west"), "{reason}");
    assert!(alarms(&world).contains(reason), "and people were told");
    let same = alarms(&world).iter().filter(|a| a.contains("cannot take over")).count();
    assert_eq!(same, 1, "once: {:?}", alarms(&world));
}

#[test]
fn a_standby_of_another_cluster_is_never_promoted() {
    let mut world = World::quiet();
    world.place(&west()).system = SystemIdentifier::new(42);
    world.pass(seconds(10));
    world.becomes(&east(), Manner::Refuses);
    world.pass(seconds(120));
    assert_eq!(world.runs(), 0);
    let gate = world.condition(Gate::Identity);
    let wrong = Reason::WrongCluster {
        database: "orders".into(),
        region: west(),
        found: SystemIdentifier::new(42),
        wanted: CLUSTER,
    };
    assert_eq!((gate.holds, gate.reason), (false, wrong.clone()));
    assert!(alarms(&world).contains(&wrong.to_string()));
}

#[test]
fn a_standby_that_turns_out_to_be_a_stranger_when_measured_ends_the_run() {
    // Between the last look and the measurement the address leads somewhere else.
    let mut world = World::quiet();
    let stranger = SystemIdentifier::new(42);
    world.becomes(&east(), Manner::Refuses);
    world.pass(seconds(9));
    let mut position = world.carry_out(&lifeboat_core::plan::Action::MeasureLoss {
        region: west(),
        databases: ["orders".into()].into(),
    });
    if let lifeboat_core::Output::Positions { positions } = &mut position {
        positions.values_mut().for_each(|target| target.system = stranger);
    }
    let outcome = lifeboat_core::Outcome::Succeeded(position);
    world.script("measure-loss", [crate::pretend::Script::After(seconds(1), outcome)]);
    world.pass_until(seconds(30), |w| !endings(w).is_empty());
    assert_eq!(world.steps(), ["measure-loss"]);
    assert!(alarms(&world).iter().any(|a| a.contains("belongs to cluster 42")), "{:?}", alarms(&world));
}

#[test]
fn a_second_primary_is_told_once_and_stops_automatic_action() {
    let mut world = World::quiet();
    world.place(&west()).primary = true;
    world.pass(seconds(60));
    let two = "orders in west is a primary too, though the workload does not live there";
    assert_eq!(alarms(&world), [two]);
    world.becomes(&east(), Manner::Refuses);
    world.pass(seconds(120));
    assert_eq!(world.runs(), 0);
    assert!(!world.condition(Gate::Identity).holds);
}

#[test]
fn a_primary_never_seen_has_no_cluster_and_so_no_failover() {
    let mut world = World::new(policy([workload()]));
    world.becomes(&east(), Manner::Refuses);
    world.start();
    world.pass(seconds(300));
    assert_eq!(world.runs(), 0);
    let gate = world.condition(Gate::Identity);
    assert_eq!(gate.reason, Reason::IdentityUnknown { database: "orders".into() });
}

#[test]
fn a_condition_that_is_shut_says_its_number() {
    let mut world = World::quiet();
    let why = |world: &World, gate| world.condition(gate).reason.to_string();
    assert_eq!(
        why(&world, Gate::PrimaryLost),
        "the primary region east is healthy: all 2 probes of east are answered"
    );
    assert_eq!(
        why(&world, Gate::Quorum),
        "0 vantages see east as lost and prove their own connectivity; 1 needed"
    );
    assert_eq!(why(&world, Gate::TargetAnswers), "the standby region west answers");
    assert_eq!(why(&world, Gate::Identity), "orders belongs to cluster 7301234567890123456");
    assert_eq!(why(&world, Gate::Budget), "0 of 2 automatic failovers used");
    assert!(
        why(&world, Gate::Connectivity).starts_with("3 of 3 witnesses answered bastion-west; 2 needed (")
    );
    world.becomes(&east(), Manner::Refuses);
    world.pass(seconds(6));
    let failing = why(&world, Gate::PrimaryLost);
    assert!(failing.contains("of 3 needed") || failing.contains("3"), "{failing}");
    assert_eq!(endings(&world), []);
}
