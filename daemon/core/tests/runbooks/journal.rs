//! The journal: replay of the records equals the live state, and any prefix of them restores.

use lifeboat_core::{Decision, Event, Guardian, Moment, Record, Stamped};

use crate::case::CASES;
use crate::world::World;

/// The durable state of each workload, as the guardian prints it for debugging.
pub(crate) fn ledgers(guardian: &Guardian) -> Vec<String> {
    let text = format!("{guardian:?}");
    let parts = text.split("ledger: Ledger {").skip(1);
    let parts: Vec<String> =
        parts.map(|part| part.split(", survey: Survey {").next().unwrap_or_default().to_owned()).collect();
    assert_eq!(parts.len(), guardian.beliefs().len(), "the guardian prints itself differently now");
    parts
}

fn first_words(guardian: &mut Guardian, now: Moment) -> [Decision; 2] {
    [guardian.decide(now, Event::Started), guardian.decide(now, Event::Tick)]
}

/// Any prefix of the records restores, and decides the same however often it is asked.
fn judge_prefixes(world: &World) {
    for end in world.base()..=world.records.len() {
        let now = world.now;
        let (mut one, mut other) = (world.restored(end), world.restored(end));
        assert_eq!(ledgers(&one), ledgers(&other), "after {end}{}", world.story());
        assert_eq!(first_words(&mut one, now), first_words(&mut other, now), "after {end}{}", world.story());
    }
}

#[test]
fn any_prefix_of_the_records_restores_and_decides_the_same() {
    CASES.iter().for_each(|case| judge_prefixes(&case.quiet.world));
}

#[test]
fn without_trouble_every_step_is_begun_once() {
    for case in CASES.iter() {
        let approved = |s: &Stamped| matches!(s.record, Record::Approved { .. });
        let answers = case.quiet.world.records.iter().filter(|s| approved(s)).count();
        for ((step, undo), times) in &case.quiet.world.begun {
            // While a person thinks, nobody looks after the fence: it is proven anew.
            let most = if step == "fence" { 1 + answers } else { 1 };
            assert!(!undo && (1..=most).contains(&(*times as usize)), "{}: {step} {times}", case.name);
        }
    }
}
