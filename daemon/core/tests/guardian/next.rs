//! What may follow in plans of an operator's own shape: steps beside the fence, and beside a question.

use std::collections::BTreeSet;
use std::time::Duration;

use lifeboat_core::outcome::{FenceProof, Outcome};
use lifeboat_core::plan::{Action, Kind, Plan, PlannedStep};
use lifeboat_core::record::Trigger;
use lifeboat_core::run::{Next, Run, Situation};
use lifeboat_core::status::Verdict;
use lifeboat_core::{Epoch, Fault, FaultKind, Moment, Output, Record, StepName};
use lifeboat_runbooks::Deed;

use crate::setting::{east, seconds, shop, west, workload};

fn step(name: &str, deed: Deed, action: Action, after: &[usize]) -> PlannedStep {
    PlannedStep {
        name: StepName::new(name),
        title: name.to_owned(),
        deed,
        action,
        limit: seconds(10),
        attempts: 1,
        pause: Duration::ZERO,
        point_of_no_return: deed == Deed::Promote,
        after: Some(after.iter().copied().collect()),
        undo: None,
        approve: None,
    }
}

/// A run of these steps, each of which is under way.
fn under_way(kind: Kind, deadline: Option<Duration>, steps: Vec<PlannedStep>, started: &[&str]) -> Run {
    let (run, workload) = ("shop-e1".into(), shop());
    let runbook = kind.to_string();
    let (from, to, epoch) = (east(), west(), Epoch::new(1));
    let plan = Plan { run, workload, runbook, kind, from, to, epoch, deadline, steps };
    let mut run = Run::open(plan, Trigger::Automatic, BEGAN);
    for name in started {
        let step = StepName::new(*name);
        run.apply(
            BEGAN,
            &Record::StepStarted { workload: shop(), run: "shop-e1".into(), step, attempt: 1, undo: false },
        );
    }
    run
}

const BEGAN: Moment = Moment::from_millis(1_795_252_486_000);

fn tell(name: &str) -> PlannedStep {
    step(name, Deed::Notify, Action::Notify { text: "ours".to_owned() }, &[])
}

fn fence() -> PlannedStep {
    step(
        "fence",
        Deed::Fence,
        Action::Fence {
            region: east(),
            databases: BTreeSet::new(),
            planned: false,
            returned: false,
            expiry: false,
            cut_off: None,
        },
        &[],
    )
}

fn next(run: &Run, now: Moment, old_primary: Verdict) -> Next {
    run.next(Situation { now, policy: &workload(), old_primary })
}

/// A failover whose fence gave this proof, with the promotion still to come.
fn fenced(proof: FenceProof) -> Run {
    let promote = Action::Promote { region: west(), databases: [].into() };
    let steps = vec![tell("tell"), fence(), step("promote", Deed::Promote, promote, &[0, 1])];
    let mut run = under_way(Kind::Failover, None, steps, &["tell", "fence"]);
    run.apply(
        BEGAN,
        &Record::StepEnded {
            workload: shop(),
            run: "shop-e1".into(),
            step: "fence".into(),
            attempt: 1,
            outcome: Outcome::Succeeded(Output::Fenced { proofs: [("orders".into(), proof)].into() }),
            retry_at: None,
            undo: false,
        },
    );
    run
}

#[test]
fn a_fence_is_proven_again_also_when_a_step_beside_it_was_under_way() {
    let run = fenced(FenceProof::WriteRefused { sqlstate: "25006".to_owned(), sessions_ended: 4 });
    assert_eq!(run.fence_to_renew(), Some(&StepName::new("fence")));
}

#[test]
fn an_expired_lease_does_not_come_back_while_the_run_is_open() {
    let mut run = fenced(FenceProof::Expired { lease: seconds(25), waited: seconds(30) });
    assert_eq!(run.fence_to_renew(), None);
    // Opened again all the same, it counts for nothing until it is proven anew.
    let (workload, step) = (shop(), StepName::new("fence"));
    run.apply(BEGAN, &Record::Reopened { workload, run: "shop-e1".into(), step });
    assert!(!run.lasting && run.fenced_at.is_none());
}

#[test]
fn past_the_deadline_nothing_more_begins_beside_what_is_under_way() {
    let run = under_way(Kind::Switchover, Some(seconds(60)), vec![tell("tell"), fence()], &["tell"]);
    assert!(matches!(next(&run, BEGAN, Verdict::Healthy), Next::Start { index: 1, .. }));
    assert_eq!(next(&run, BEGAN + seconds(61), Verdict::Healthy), Next::Busy);
}

#[test]
fn a_run_that_asks_does_not_end_while_a_step_is_under_way() {
    let asks = PlannedStep { approve: Some("go on?".to_owned()), ..tell("asks") };
    let mut run = under_way(Kind::Failover, None, vec![fence(), asks], &["fence"]);
    let Next::Ask(question) = next(&run, BEGAN, Verdict::Lost) else { panic!("nothing is asked") };
    let expires = BEGAN + seconds(60);
    run.apply(
        BEGAN,
        &Record::Asked { workload: shop(), run: "shop-e1".into(), question, expires, seen: [].into() },
    );
    assert_eq!(next(&run, expires, Verdict::Lost), Next::Busy, "its fence may be there in the next moment");
    assert_eq!(next(&run, BEGAN, Verdict::Healthy), Next::Busy);
}

#[test]
fn what_fails_past_the_promotion_does_not_hold_up_what_does_not_follow_it() {
    let promote = Action::Promote { region: west(), databases: [].into() };
    let names = Action::SwitchDns { changes: Vec::new() };
    let steps = vec![
        step("promote", Deed::Promote, promote, &[]),
        tell("rejoin"),
        step("names", Deed::SwitchDns, names, &[0]),
    ];
    let mut run = under_way(Kind::Switchover, None, steps, &["promote", "rejoin"]);
    let ended = |step: &str, outcome| Record::StepEnded {
        workload: shop(),
        run: "shop-e1".into(),
        step: step.into(),
        attempt: 1,
        outcome,
        retry_at: None,
        undo: false,
    };
    run.apply(BEGAN, &ended("promote", Outcome::Succeeded(Output::Promoted { promotions: [].into() })));
    let failed = |kind| ended("rejoin", Outcome::Failed(Fault::new(kind, "pretended")));
    let mut stale = run.clone();
    stale.apply(BEGAN, &failed(FaultKind::Stale));
    assert!(matches!(next(&stale, BEGAN, Verdict::Healthy), Next::Strand(..)));
    run.apply(BEGAN, &failed(FaultKind::Unreachable));
    assert_eq!(next(&run, BEGAN, Verdict::Healthy), Next::Start { index: 2, attempt: 1, undo: false });
    run.apply(BEGAN, &ended("names", Outcome::Succeeded(Output::Switched { names: [].into() })));
    assert!(
        matches!(next(&run, BEGAN, Verdict::Healthy), Next::Strand(step, _) if step.as_str() == "rejoin")
    );
}
