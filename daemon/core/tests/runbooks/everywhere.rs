//! Trouble at every place of every procedure.

use std::collections::BTreeMap;

use lifeboat_core::record::Ending;
use lifeboat_core::{FaultKind, Record};
use lifeboat_runbooks::Kind;

use crate::case::{CASES, Case};
use crate::oracle;
use crate::trouble::{Death, Trouble};

const FAULTS: [FaultKind; 4] =
    [FaultKind::Unreachable, FaultKind::Refused, FaultKind::Unclear, FaultKind::Stale];

/// More attempts than any step has.
const FOR_GOOD: u32 = 1_000;

/// How each case ended, over many troubles: a test that never sees an end proves little about it.
#[derive(Default)]
struct Ends(BTreeMap<String, u32>);

impl Ends {
    fn count(&mut self, case: &Case, troubles: Vec<Trouble>) {
        let world = case.tried(troubles);
        let end = oracle::ending(&world.records[world.base()..]);
        *self.0.entry(end.map_or("stranded".to_owned(), |end| format!("{end:?}"))).or_default() += 1;
    }

    fn saw(&self, ending: Ending) -> bool {
        self.0.contains_key(&format!("{ending:?}"))
    }
}

fn fails(step: &str, undo: bool, kind: FaultKind, times: u32, acted: bool) -> Trouble {
    Trouble::Fails { step: step.to_owned(), undo, kind, times, acted }
}

#[test]
fn each_step_fails() {
    let mut ends = Ends::default();
    for case in CASES.iter() {
        for step in case.steps() {
            for (kind, times) in FAULTS.into_iter().flat_map(|kind| [(kind, 1), (kind, FOR_GOOD)]) {
                ends.count(case, vec![fails(&step, false, kind, times, false)]);
            }
            for times in [1, FOR_GOOD] {
                ends.count(case, vec![fails(&step, false, FaultKind::Unclear, times, true)]);
            }
        }
    }
    assert!(ends.saw(Ending::Done) && ends.saw(Ending::Undone) && ends.saw(Ending::Failed), "{:?}", ends.0);
}

#[test]
fn each_step_fails_and_so_does_each_way_back() {
    let mut ends = Ends::default();
    for case in CASES.iter() {
        let undone: Vec<String> = case.ways_back();
        for (step, back) in case.steps().iter().flat_map(|step| undone.iter().map(move |back| (step, back))) {
            for (kind, times) in FAULTS.into_iter().flat_map(|kind| [(kind, 1), (kind, FOR_GOOD)]) {
                let refuses = fails(step, false, FaultKind::Refused, FOR_GOOD, false);
                ends.count(case, vec![refuses, fails(back, true, kind, times, kind == FaultKind::Unclear)]);
            }
        }
    }
    assert!(ends.saw(Ending::Undone), "{:?}", ends.0);
}

#[test]
fn each_step_is_told_twice_and_done_twice() {
    for case in CASES.iter() {
        for step in case.steps() {
            let told = case.tried(vec![Trouble::ToldTwice { step: step.clone() }]);
            assert_eq!(told.begun, case.quiet.world.begun, "{}: {step}", case.name);
            assert_eq!(told.written(), case.length(), "an outcome was taken twice{}", told.story());
            let done = case.tried(vec![Trouble::ActsTwice { step: step.clone() }]);
            assert_eq!(done.estate.changes, case.quiet.world.estate.changes, "{}: {step}", case.name);
        }
    }
}

#[test]
fn each_outcome_is_lost() {
    for case in CASES.iter() {
        for (step, acted) in case.steps().into_iter().flat_map(|step| [(step.clone(), false), (step, true)]) {
            let world = case.tried(vec![Trouble::Lost { step, acted }]);
            assert_eq!(world.deaths, 1, "{}", world.story());
        }
    }
}

#[test]
fn the_agent_is_killed_after_each_record() {
    for case in CASES.iter() {
        for after in 1..=case.length() {
            for how in Death::ALL {
                let world = case.tried(vec![Trouble::Killed { after, how }]);
                assert_eq!(world.deaths, 1, "{}", world.story());
            }
        }
    }
}

#[test]
fn the_agent_is_killed_again_while_it_recovers() {
    for case in CASES.iter() {
        for (after, how) in (1..=case.length()).flat_map(|after| Death::ALL.map(|how| (after, how))) {
            // In the first words of the recovery, and in what it does anew.
            for again in [1, 2, 5] {
                let second = Death::ALL[(after + again) % Death::ALL.len()];
                let killed = |after, how| Trouble::Killed { after, how };
                case.tried(vec![killed(after, how), killed(after + again, second)]);
            }
        }
    }
}

#[test]
fn the_agent_is_killed_while_it_takes_back() {
    let mut ends = Ends::default();
    for case in CASES.iter().filter(|case| !case.ways_back().is_empty()) {
        for step in case.before_the_promotion() {
            let refuses = fails(&step, false, FaultKind::Refused, FOR_GOOD, false);
            let length = case.tried(vec![refuses.clone()]).written();
            for (after, how) in (1..=length).flat_map(|after| Death::ALL.map(|how| (after, how))) {
                ends.count(case, vec![refuses.clone(), Trouble::Killed { after, how }]);
            }
        }
    }
    assert!(ends.saw(Ending::Undone), "{:?}", ends.0);
}

#[test]
fn a_person_cancels_after_each_record_and_the_agent_dies_of_it() {
    let mut ends = Ends::default();
    for case in CASES.iter() {
        for after in 1..=case.length() {
            ends.count(case, vec![Trouble::Cancelled { after }]);
            for (again, how) in [1, 2, 3, 5].into_iter().flat_map(|again| Death::ALL.map(|how| (again, how)))
            {
                ends.count(
                    case,
                    vec![Trouble::Cancelled { after }, Trouble::Killed { after: after + again, how }],
                );
            }
        }
    }
    assert!(
        ends.saw(Ending::Done) && ends.saw(Ending::Undone) && ends.saw(Ending::Abandoned),
        "{:?}",
        ends.0
    );
}

#[test]
fn the_region_that_is_left_dies_after_each_record() {
    let mut alone = 0;
    for case in CASES.iter().filter(|case| case.kind.planned()) {
        for after in 1..=case.length() {
            let world = case.tried_dying(vec![Trouble::RegionDies { after }]);
            let records = &world.records[world.base()..];
            let stranded = records.iter().any(|s| matches!(s.record, Record::Stranded { .. }));
            if oracle::newest_run(records).is_some_and(|run| run.0 == Kind::Failover) {
                // Nothing was promoted when it died, so it is a failover like any other.
                assert!(!stranded, "a person was needed{}", world.story());
                alone += 1;
            }
            for how in Death::ALL {
                case.tried_dying(vec![
                    Trouble::RegionDies { after },
                    Trouble::Killed { after: after + 2, how },
                ]);
            }
        }
    }
    assert!(alone > 0, "no move whose region died ended without a person");
}
