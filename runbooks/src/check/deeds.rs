//! What each deed asks of a page, by kind of page: what it needs, where it has a place, what takes it back.

use super::{Found, Order};
use crate::flaw::FlawKind;
use crate::page::{Deed, Fact, Kind, Runbook, Step};
use crate::with::{Side, With};

pub(super) fn judge(found: &mut Found<'_>, kind: Kind, index: usize, step: &Step) {
    let (name, deed) = (|| step.name.clone(), step.deed);
    for fact in step.gives.iter().filter(|fact| Some(**fact) != gift(deed)) {
        found.step(index, &format!("gives.{fact}"), FlawKind::WrongGift { step: name(), fact: *fact });
    }
    match standing(kind, deed) {
        Standing::Fits => {}
        Standing::Lost(what) => found.step(index, "do", FlawKind::NeedsLost { step: name(), what }),
        Standing::Foreign if deed == Deed::Lift => {
            found.step(index, "do", FlawKind::StrayLift { step: name() })
        }
        Standing::Foreign => found.step(index, "do", FlawKind::Misplaced { step: name(), deed, kind }),
    }
    for (does, fact) in must_need(kind, deed) {
        if !step.needs.contains(fact) {
            found.step(index, "needs", FlawKind::NeedLeftOut { step: name(), does, fact: *fact });
        }
    }
    if deed == Deed::Promote && !step.point_of_no_return {
        found.step(index, "point_of_no_return", FlawKind::PromotionNotFinal { step: name() });
    }
    if deed != Deed::Promote && step.point_of_no_return {
        found.step(index, "point_of_no_return", FlawKind::ReturnClosed { step: name() });
    }
    if indispensable(kind).contains(&deed) && !step.when.is_empty() {
        found.step(index, "when", FlawKind::MayBeLeftOut { step: name(), deed });
    }
    judge_undo(found, kind, index, step);
    judge_side(found, kind, index, step);
}

fn judge_undo(found: &mut Found<'_>, kind: Kind, index: usize, step: &Step) {
    let name = || step.name.clone();
    let lifted = kind.planned() && step.deed == Deed::Fence;
    match step.undo.as_ref().map(|undo| undo.deed) {
        None if lifted => found.step(index, "do", FlawKind::NoLift { step: name() }),
        None => {}
        Some(Deed::Lift) if lifted => {}
        Some(Deed::Lift) => found.step(index, "undo.do", FlawKind::StrayLift { step: name() }),
        Some(_) if lifted => found.step(index, "undo.do", FlawKind::NoLift { step: name() }),
        Some(Deed::Run | Deed::Http | Deed::Sql) => {}
        Some(deed) => found.step(index, "undo.do", FlawKind::BadUndo { step: name(), deed }),
    }
}

/// A failover asks nothing of the region it leaves, not even in a statement.
fn judge_side(found: &mut Found<'_>, kind: Kind, index: usize, step: &Step) {
    let undo = step.undo.as_ref().map(|undo| ("undo.with.on", &undo.with));
    for (path, with) in [("with.on", &step.with)].into_iter().chain(undo) {
        if kind == Kind::Failover && matches!(with, With::Sql(sql) if sql.on == Side::From) {
            let what = "its database cannot be asked";
            found.step(index, path, FlawKind::NeedsLost { step: step.name.clone(), what });
        }
    }
}

pub(super) fn judge_page(found: &mut Found<'_>, page: &Runbook, order: &Order) {
    let steps = || page.steps.iter().enumerate();
    let all: Vec<_> = steps().map(|(index, step)| (index, step.deed)).collect();
    for (index, deed) in &all {
        if once(*deed) && all[..*index].iter().any(|(_, before)| before == deed) {
            found.step(*index, "do", FlawKind::Again { step: page.steps[*index].name.clone(), deed: *deed });
        }
    }
    for deed in indispensable(page.kind) {
        if all.iter().all(|(_, other)| other != deed) {
            found.header("kind", FlawKind::Missing { kind: page.kind, deed: *deed });
        }
    }
    let first = |deed| all.iter().find(|(_, other)| *other == deed).map(|(index, _)| *index);
    if let Some(promotion) = first(Deed::Promote) {
        judge_around(found, page, order, promotion);
    }
    if let Some(report) = first(Deed::Report) {
        let open = (0..all.len()).find(|other| *other != report && !order.precedes(*other, report));
        if let Some(other) = open {
            let (step, other) = (page.steps[report].name.clone(), page.steps[other].name.clone());
            found.step(report, "do", FlawKind::NotLast { step, other });
        }
    }
}

/// What must not be under way beside the promotion, and what can be taken back only before it.
fn judge_around(found: &mut Found<'_>, page: &Runbook, order: &Order, promotion: usize) {
    for (index, step) in page.steps.iter().enumerate().filter(|(index, _)| *index != promotion) {
        if order.beside(index, promotion) {
            let path = if step.parallel.is_some() { "parallel" } else { "after" };
            found.step(index, path, FlawKind::BesidePromotion { step: step.name.clone() });
        }
    }
    for (index, step) in page.steps.iter().enumerate() {
        if step.undo.is_some() && !order.precedes(index, promotion) {
            found.step(index, "undo", FlawKind::UndoTooLate { step: step.name.clone() });
        }
    }
}

/// The one fact that each deed makes true; a page may not claim another.
const fn gift(deed: Deed) -> Option<Fact> {
    match deed {
        Deed::MeasureLoss => Some(Fact::Loss),
        Deed::CheckStandby => Some(Fact::Ready),
        Deed::Fence => Some(Fact::Fenced),
        Deed::CatchUp => Some(Fact::CaughtUp),
        Deed::Promote => Some(Fact::Primary),
        Deed::AwaitServing => Some(Fact::Serving),
        Deed::SwitchDns => Some(Fact::Names),
        Deed::Verify => Some(Fact::Verified),
        Deed::Salvage => Some(Fact::Salvaged),
        Deed::Rejoin => Some(Fact::Rejoined),
        Deed::AwaitReplication => Some(Fact::Replicating),
        Deed::Drain
        | Deed::Lift
        | Deed::Report
        | Deed::Run
        | Deed::Http
        | Deed::Sql
        | Deed::Wait
        | Deed::Notify
        | Deed::Approve => None,
    }
}

/// What a deed always needs on a page of that kind, with what it is called in the flaw.
const fn must_need(kind: Kind, deed: Deed) -> &'static [(&'static str, Fact)] {
    match (kind, deed) {
        (Kind::Failover, Deed::Fence) => &[("fences", Fact::Loss)],
        (Kind::Failover, Deed::Promote) => &[("promotes", Fact::Fenced)],
        (_, Deed::Promote) => &[("promotes", Fact::Fenced), ("promotes", Fact::CaughtUp)],
        // Before the fence there is no end of the log to catch up with: any standby would do.
        (_, Deed::CatchUp) => &[("catches up", Fact::Fenced)],
        (_, Deed::AwaitServing) => &[("waits for the new primary", Fact::Primary)],
        (_, Deed::SwitchDns) => &[("moves traffic", Fact::Serving)],
        (_, Deed::Salvage) => &[("salvages", Fact::Fenced)],
        (Kind::Rejoin, Deed::Rejoin) => &[
            ("makes a standby of a primary", Fact::Fenced),
            ("makes a standby of a primary", Fact::Salvaged),
        ],
        // Earlier it would make a standby of the only primary there is.
        (_, Deed::Rejoin) => &[("makes a standby of a primary", Fact::Primary)],
        (Kind::Rejoin, Deed::AwaitReplication) => &[("waits for the new standby", Fact::Rejoined)],
        (_, Deed::AwaitReplication) => &[("waits for the new standby", Fact::Primary)],
        _ => &[],
    }
}

/// What a page of that kind must do, whatever the conditions.
const fn indispensable(kind: Kind) -> &'static [Deed] {
    match kind {
        Kind::Failover => &[Deed::Fence, Deed::Promote, Deed::Report],
        Kind::Switchover | Kind::Failback => &[Deed::Fence, Deed::CatchUp, Deed::Promote, Deed::Report],
        Kind::Rejoin => &[Deed::Fence, Deed::Report],
    }
}

/// Whether a deed is done once: what lifeboat counts on by its kind, not by the step's name.
const fn once(deed: Deed) -> bool {
    match deed {
        Deed::MeasureLoss
        | Deed::Fence
        | Deed::CatchUp
        | Deed::Promote
        | Deed::SwitchDns
        | Deed::Salvage
        | Deed::Rejoin
        | Deed::Report => true,
        // Looking twice does no harm, and the operator's own steps are the operator's.
        Deed::CheckStandby
        | Deed::Drain
        | Deed::Lift
        | Deed::AwaitServing
        | Deed::Verify
        | Deed::AwaitReplication
        | Deed::Run
        | Deed::Http
        | Deed::Sql
        | Deed::Wait
        | Deed::Notify
        | Deed::Approve => false,
    }
}

/// Whether a deed has a place on a page.
enum Standing {
    Fits,
    /// It needs something of the region that is lost.
    Lost(&'static str),
    Foreign,
}

const fn standing(kind: Kind, deed: Deed) -> Standing {
    let (failover, rejoin) = (matches!(kind, Kind::Failover), matches!(kind, Kind::Rejoin));
    match deed {
        // Only ever what takes a step back.
        Deed::Lift => Standing::Foreign,
        Deed::Fence | Deed::Report => Standing::Fits,
        Deed::Run | Deed::Http | Deed::Sql | Deed::Wait | Deed::Notify | Deed::Approve => Standing::Fits,
        Deed::MeasureLoss if failover => Standing::Fits,
        Deed::CheckStandby if failover => Standing::Lost("the standby no longer follows it"),
        Deed::Drain if failover => Standing::Lost("its databases cannot be drained"),
        Deed::CatchUp if failover => Standing::Lost("where its log ends is not known"),
        Deed::Salvage if failover => Standing::Lost("its log cannot be read"),
        Deed::Rejoin if failover => Standing::Lost("it comes back by a rejoin"),
        Deed::AwaitReplication if failover => Standing::Lost("nothing replicates to it"),
        Deed::MeasureLoss => Standing::Foreign,
        Deed::Salvage | Deed::Rejoin | Deed::AwaitReplication if rejoin => Standing::Fits,
        Deed::Salvage => Standing::Foreign,
        _ if rejoin => Standing::Foreign,
        Deed::CheckStandby | Deed::Drain | Deed::CatchUp | Deed::Promote => Standing::Fits,
        Deed::AwaitServing | Deed::SwitchDns | Deed::Verify => Standing::Fits,
        Deed::Rejoin | Deed::AwaitReplication => Standing::Fits,
    }
}
