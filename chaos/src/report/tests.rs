//! The report against a made-up run whose numbers are known.

use std::collections::HashSet;

use super::*;
use crate::canary::{Acknowledged, Failed, Failure, Way};
use crate::timeline::Milestone;

const LOST: u64 = 10_000;

fn ledger() -> Ledger {
    let order = |number: u64, at: u64, region| Acknowledged {
        id: format!("o-{number}"),
        sent_ms: at - 5,
        acknowledged_ms: at,
        region,
        way: Way::Pooled,
    };
    let east = (0..100).map(|n| order(n, 9_000 + n * 10, Region::East));
    let west = (400..410).map(|n| order(n, 13_100 + (n - 400) * 10, Region::West));
    let failed = |n: u64| Failed {
        id: format!("o-{n}"),
        sent_ms: LOST + n,
        ended_ms: LOST + n + 1,
        failure: Failure::Connection,
        way: Way::Fresh,
    };
    Ledger {
        acknowledged: east.chain(west).collect(),
        failed: (100..130).map(failed).collect(),
        missed_beats: 0,
    }
}

fn run(missing: u64) -> Run {
    let ledger = ledger();
    let survived: HashSet<String> =
        (0..100 - missing).chain(400..410).map(|number| format!("o-{number}")).collect();
    let reached = [(Milestone::Detected, 12_500), (Milestone::Fenced, 12_600), (Milestone::Serving, 12_800)];
    let timeline = Timeline {
        reached: reached.map(|(milestone, at_ms)| Reached { milestone, at_ms }).to_vec(),
        ..Timeline::default()
    };
    Run::judge(&Evidence {
        lost_ms: LOST,
        lost: Region::East,
        ledger: &ledger,
        survived: &survived,
        timeline: &timeline,
        sight: None,
        reference_intact: true,
        objectives: (60_000, 30_000),
    })
}

#[test]
fn what_was_held_is_read_off_the_clients_ledger() {
    let run = run(0);
    assert_eq!((run.rto_held_ms, run.rpo_held_ms, run.lost_writes), (Some(3_100), 0, 0));
    assert_eq!((run.acknowledged_writes, run.failed_writes), (110, 30));
    assert_eq!(run.phases.iter().map(|phase| phase.ms).collect::<Vec<_>>(), [2_500, 100, 200]);
    assert!(run.ok(true));
}

#[test]
fn lost_writes_break_a_synchronous_promise_only() {
    let run = run(4);
    assert_eq!((run.lost_writes, run.rpo_held_ms), (4, 40));
    assert!(run.ok(false) && !run.ok(true));
}

#[test]
fn an_objective_that_was_missed_or_a_run_that_never_recovered_is_not_ok() {
    let slow = Run { rto_held_ms: Some(60_001), ..run(0) };
    let never = Run { rto_held_ms: None, ..run(0) };
    let old = Run { rpo_held_ms: 30_001, lost_writes: 1, ..run(0) };
    let changed = Run { reference_intact: false, ..run(0) };
    for run in [slow, never, old, changed] {
        assert!(!run.ok(false));
    }
}

#[test]
fn the_file_has_the_agreed_fields_and_several_runs_have_a_median() {
    let one = serde_json::to_value(Report::of(vec![run(4)], false).unwrap()).unwrap();
    let failover = &one["failover"];
    assert_eq!(failover["rto_held_ms"], 3_100);
    assert_eq!(failover["rto_objective_ms"], 60_000);
    assert_eq!(failover["rpo_held_ms"], 40);
    assert_eq!(failover["acknowledged_writes"], 110);
    assert_eq!(failover["lost_writes"], 4);
    assert_eq!(failover["phases"][0], serde_json::json!({ "name": "detect", "ms": 2_500 }));
    assert!(failover.get("runs").is_none() && failover.get("median").is_none());

    let with = |held| Run { rto_held_ms: held, ..run(1) };
    let runs = vec![with(Some(5_000)), with(None), with(Some(3_000))];
    let three = serde_json::to_value(Report::of(runs, false).unwrap()).unwrap();
    assert_eq!(three["failover"]["rto_held_ms"], 5_000);
    assert_eq!(three["failover"]["median"]["rto_held_ms"], 5_000);
    assert_eq!(three["failover"]["median"]["lost_writes"], 3);
    assert_eq!(three["failover"]["runs"].as_array().unwrap().len(), 3);
    assert_eq!(three["failover"]["ok"], false);
    assert!(Report::of(Vec::new(), false).is_none());
}

#[test]
fn traffic_is_counted_where_it_belongs() {
    let traffic = Traffic::of(&ledger(), LOST);
    let sum = |row: &[u32]| row.iter().sum::<u32>();
    assert_eq!((sum(&traffic.east), sum(&traffic.west), sum(&traffic.failed)), (100, 10, 30));
    // 9,000 to 9,090 ms is one second before the loss: bucket 20 of those that begin 3 s before it.
    assert_eq!(traffic.east[20], 10);
    assert_eq!(traffic.failed[31], 30);
    assert_eq!(traffic.west[61], 10);
}
