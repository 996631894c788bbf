//! Records as they are written: every kind survives JSON, and the lines of version 1 are read for ever.

use std::collections::BTreeSet;

use lifeboat_core::ledger::Ledger;
use lifeboat_core::{FaultKind, Order, Record, Stamped};
use serde_json::Value;

use crate::failover::survived;
use crate::pretend::{Manner, Script, World};
use crate::setting::{east, seconds, shop, west, workload};

/// Records of every kind, from four lives.
fn every_kind() -> Vec<Stamped> {
    let mut world = survived();
    let until = world.now + seconds(60);
    world.order(Order::Pause { workload: shop(), reason: "upgrade".into(), until, by: "ada".into() });
    world.pass(seconds(90));
    world.becomes(&west(), Manner::Refuses);
    world.pass(seconds(30));
    let mut records = world.records;

    let mut world = World::quiet();
    world.replicating = false;
    world.pass(seconds(600));
    world.script("fence", std::iter::repeat_n(Script::Fault(FaultKind::Unclear), 2));
    world.script("promote", [Script::Fault(FaultKind::Unreachable), Script::Fault(FaultKind::Refused)]);
    world.becomes(&east(), Manner::Refuses);
    for _ in 0..2 {
        world.pass_until(seconds(60), |w| !w.oracle.asked().is_empty());
        let (run, question) = world.oracle.asked().remove(0);
        world.order(Order::Approve { run, accept: Some(question.acceptance()), by: "ada".into() });
    }
    world.pass(seconds(10));
    world.order(Order::Failover { workload: shop(), to: west(), by: "ada".into() });
    world.pass(seconds(10));
    records.extend(world.records);

    let mut world = World::quiet();
    world.place(&west()).heartbeat = None;
    world.replicating = false;
    world.becomes(&west(), Manner::Dark);
    world.pass(seconds(120));
    world.place(&west()).heartbeat = None;
    world.becomes(&west(), Manner::Answers(seconds(1)));
    world.pass(seconds(30));
    world.becomes(&east(), Manner::CannotCommit);
    world.pass(seconds(4_000));
    records.extend(world.records);
    records
}

/// The name under which a record is written.
fn kind(record: &Record) -> String {
    let value = serde_json::to_value(record).expect("a record is JSON");
    value["kind"].as_str().expect("a record has a kind").to_owned()
}

const KINDS: [&str; 17] = [
    "agent-started",
    "approved",
    "asked",
    "continued",
    "declined",
    "identity-learned",
    "loss-counted",
    "loss-measured",
    "paused",
    "primary-moved",
    "resumed",
    "run-ended",
    "run-opened",
    "step-ended",
    "step-started",
    "stranded",
    "verdict-changed",
];

#[test]
fn every_kind_of_record_survives_the_journal() {
    let records = every_kind();
    let seen: BTreeSet<String> = records.iter().map(|s| kind(&s.record)).collect();
    assert_eq!(seen, KINDS.map(str::to_owned).into());
    for stamped in records {
        let line = serde_json::to_string(&stamped).unwrap();
        let back: Stamped = serde_json::from_str(&line).unwrap();
        assert_eq!(back, stamped);
        assert_eq!(serde_json::to_string(&back).unwrap(), line, "written again it reads the same");
    }
}

/// The lines of version 1. Never changed: add lines when a kind or a field is added.
const GOLDEN: &str = include_str!("../golden/records-v1.jsonl");

#[test]
fn the_lines_of_version_1_are_read_for_ever() {
    let records: Vec<Stamped> = GOLDEN
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let seen: BTreeSet<String> = records.iter().map(|s| kind(&s.record)).collect();
    // The first version did not count what was lost.
    let kinds: BTreeSet<String> =
        KINDS.iter().filter(|k| **k != "loss-counted").map(|k| (*k).to_owned()).collect();
    assert_eq!(seen, kinds);

    // They are one life: read back, they make this state. A field may be added to it, none may change.
    let golden: Value = serde_json::from_str(include_str!("../golden/records-v1.ledger.json")).unwrap();
    let now = state(&records);
    for (field, value) in golden.as_object().unwrap() {
        assert_eq!(now.get(field), Some(value), "the same lines mean another {field} than they did");
    }
}

/// The state that records make.
fn state(records: &[Stamped]) -> Value {
    let mut ledger = Ledger::new(&workload());
    records.iter().for_each(|stamped| ledger.apply(stamped.at, &stamped.record));
    serde_json::to_value(ledger).expect("a ledger is JSON")
}

#[test]
fn a_line_with_a_field_of_tomorrow_is_still_read() {
    let line =
        r#"{"sequence":1,"at":5,"record":{"kind":"agent-started","agent":"a","version":"1","mood":"calm"}}"#;
    let read: Stamped = serde_json::from_str(line).unwrap();
    assert_eq!(read.record, Record::AgentStarted { agent: "a".into(), version: "1".into() });
}

/// Writes the golden files anew, into the folder named by `LIFEBOAT_GOLDEN`; does nothing without it.
#[test]
fn golden_lines_can_be_made() {
    let mut world = World::quiet();
    world.replicating = false;
    world.pass(seconds(600));
    world.script("fence", std::iter::repeat_n(Script::Fault(FaultKind::Unclear), 2));
    world.script("promote", [Script::Fault(FaultKind::Unreachable), Script::Fault(FaultKind::Refused)]);
    world.becomes(&east(), Manner::Refuses);
    for _ in 0..2 {
        world.pass_until(seconds(60), |w| !w.oracle.asked().is_empty());
        let (run, question) = world.oracle.asked().remove(0);
        world.order(Order::Approve { run, accept: Some(question.acceptance()), by: "ada".into() });
    }
    world.pass(seconds(10));
    world.order(Order::Failover { workload: shop(), to: west(), by: "ada".into() });
    world.pass(seconds(10));
    let until = world.now + seconds(60);
    world.order(Order::Pause { workload: shop(), reason: "upgrade".into(), until, by: "ada".into() });
    world.pass(seconds(90));
    world.becomes(&west(), Manner::Refuses);
    world.pass(seconds(60));
    let seen: BTreeSet<String> = world.records.iter().map(|s| kind(&s.record)).collect();
    assert_eq!(seen, KINDS.map(str::to_owned).into());
    if let Some(folder) = std::env::var_os("LIFEBOAT_GOLDEN") {
        let folder = std::path::PathBuf::from(folder);
        let lines: Vec<String> = world.records.iter().map(|s| serde_json::to_string(s).unwrap()).collect();
        std::fs::write(folder.join("records-v1.jsonl"), lines.join("\n") + "\n").unwrap();
        let ledger = serde_json::to_string_pretty(&state(&world.records)).unwrap();
        std::fs::write(folder.join("records-v1.ledger.json"), ledger + "\n").unwrap();
    }
}
