//! A procedure bound for a person, before anything was seen and after a failover.

use lifeboat_core::guardian::Guardian;
use lifeboat_core::names::SystemIdentifier;
use lifeboat_core::plan::{Action, Kind};
use lifeboat_core::{Epoch, Reason, RegionName};

use crate::failover::survived;
use crate::setting::{east, policy, runbook, shop, west, workload};

fn ends(guardian: &Guardian, kind: Kind, region: Option<&RegionName>) -> (RegionName, RegionName) {
    let plan = guardian.by_hand(kind, &shop(), region).expect("it is bound").plan;
    (plan.from, plan.to)
}

#[test]
fn before_anything_was_seen_every_procedure_is_bound() {
    let guardian = Guardian::restore(policy([workload()]), runbook(), "0", &[]);
    assert_eq!(ends(&guardian, Kind::Failover, None), (east(), west()));
    assert_eq!(ends(&guardian, Kind::Switchover, Some(&west())), (east(), west()));
    // As if it had moved: these pages are written before the day.
    assert_eq!(ends(&guardian, Kind::Failback, None), (west(), east()));
    assert_eq!(ends(&guardian, Kind::Rejoin, None), (east(), west()));
    assert_eq!(ends(&guardian, Kind::Rejoin, Some(&west())), (west(), east()));
    let bound = guardian.by_hand(Kind::Failover, &shop(), None).unwrap();
    assert_eq!(bound.plan.epoch, Epoch::new(1));
    assert!(bound.forecast.steps.iter().all(|step| step.median.is_none()));
    let promote = bound.plan.steps.iter().find_map(|step| match &step.action {
        Action::Promote { databases, .. } => Some(databases.clone()),
        _ => None,
    });
    for (database, system) in promote.unwrap() {
        let known = bound.clusters.get(&database).copied();
        assert_eq!(system, known.unwrap_or(SystemIdentifier::new(0)), "a cluster that is not known is none");
    }
}

#[test]
fn after_a_failover_the_record_says_from_where_and_how_long() {
    let world = survived();
    let guardian = Guardian::restore(policy([workload()]), runbook(), "0", &world.records);
    assert_eq!(ends(&guardian, Kind::Failover, None), (west(), east()));
    assert_eq!(ends(&guardian, Kind::Failback, None), (west(), east()));
    assert_eq!(ends(&guardian, Kind::Rejoin, None), (east(), west()));
    let bound = guardian.by_hand(Kind::Failover, &shop(), None).unwrap();
    assert_eq!(bound.plan.epoch, Epoch::new(2));
    assert!(bound.forecast.steps.iter().all(|step| step.runs == 1), "{:?}", bound.forecast);
    assert_eq!(bound.clusters.len(), 1, "the record knows the cluster");
}

#[test]
fn what_cannot_be_bound_is_said() {
    let guardian = Guardian::restore(policy([workload()]), runbook(), "0", &[]);
    let reason = |kind, name: &str, region: &RegionName| {
        guardian.by_hand(kind, &name.into(), Some(region)).unwrap_err()
    };
    assert!(matches!(reason(Kind::Failover, "shoe", &west()), Reason::UnknownWorkload { .. }));
    assert!(matches!(reason(Kind::Rejoin, "shop", &"north".into()), Reason::UnknownRegion { .. }));
    assert!(matches!(reason(Kind::Failover, "shop", &east()), Reason::AlreadyThere { .. }));
}
