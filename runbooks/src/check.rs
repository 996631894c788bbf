//! What is wrong with a page, found before it is ever needed.

use std::collections::BTreeSet;

use thiserror::Error;

use crate::page::{Deed, Fact, Kind, Runbook, Step};

/// One thing that is wrong with a page.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {kind}")]
pub struct Flaw {
    /// The line it is on, from 1.
    pub line: usize,
    /// What is wrong.
    pub kind: FlawKind,
}

/// The ways a page is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FlawKind {
    /// The text is no runbook.
    #[error("{problem}")]
    Unreadable {
        /// What the reader said.
        problem: String,
    },
    /// There is nothing to do.
    #[error("the page has no steps")]
    Empty,
    /// Two steps have one name.
    #[error("step \"{step}\" has the name of an earlier step")]
    Twice {
        /// The name.
        step: String,
    },
    /// A need that no earlier step gives.
    #[error("step \"{step}\" needs \"{fact}\", which no step before it gives")]
    UnmetNeed {
        /// The step.
        step: String,
        /// What it needs.
        fact: Fact,
    },
    /// A promotion that does not wait for a fence.
    #[error("step \"{step}\" promotes, and must need \"fenced\"")]
    PromotionWithoutFence {
        /// The step.
        step: String,
    },
    /// A fence before the loss is known.
    #[error("step \"{step}\" fences, and must need \"loss\"")]
    FenceBeforeLoss {
        /// The step.
        step: String,
    },
    /// A promotion from which the run would believe it can turn back.
    #[error("step \"{step}\" promotes, and must be the point of no return")]
    PromotionNotFinal {
        /// The step.
        step: String,
    },
    /// A switch of names to a place that may not serve.
    #[error("step \"{step}\" moves traffic, and must need \"serving\"")]
    SwitchBeforeServing {
        /// The step.
        step: String,
    },
    /// A fact given by a step that does not make it true.
    #[error("step \"{step}\" cannot give \"{fact}\"")]
    WrongGift {
        /// The step.
        step: String,
        /// What it claims to give.
        fact: Fact,
    },
    /// No attempt is ever made.
    #[error("step \"{step}\" has no attempts; 1 is the least")]
    NoAttempts {
        /// The step.
        step: String,
    },
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

/// All flaws of the page, in the order of its lines.
pub(crate) fn flaws(page: &Runbook, text: &str) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    if page.steps.is_empty() {
        flaws.push(Flaw { line: 1, kind: FlawKind::Empty });
    }
    let mut given = BTreeSet::new();
    let mut names = BTreeSet::new();
    for (step, line) in page.steps.iter().zip(step_lines(text)) {
        let name = || step.name.clone();
        let mut flaw = |kind| flaws.push(Flaw { line, kind });
        if !names.insert(&step.name) {
            flaw(FlawKind::Twice { step: name() });
        }
        for fact in step.needs.difference(&given) {
            flaw(FlawKind::UnmetNeed { step: name(), fact: *fact });
        }
        for fact in step.gives.iter().filter(|fact| Some(**fact) != gift(step.deed)) {
            flaw(FlawKind::WrongGift { step: name(), fact: *fact });
        }
        if step.attempts == 0 {
            flaw(FlawKind::NoAttempts { step: name() });
        }
        order_flaws(page.kind, step).into_iter().for_each(&mut flaw);
        given.extend(&step.gives);
    }
    flaws
}

/// What may not be left out of a step, whatever the page's author thinks.
fn order_flaws(kind: Kind, step: &Step) -> Vec<FlawKind> {
    let mut kinds = Vec::new();
    let name = || step.name.clone();
    if kind == Kind::Failover && step.deed == Deed::Fence && !step.needs.contains(&Fact::Loss) {
        kinds.push(FlawKind::FenceBeforeLoss { step: name() });
    }
    if step.deed == Deed::Promote && !step.needs.contains(&Fact::Fenced) {
        kinds.push(FlawKind::PromotionWithoutFence { step: name() });
    }
    if step.deed == Deed::Promote && !step.point_of_no_return {
        kinds.push(FlawKind::PromotionNotFinal { step: name() });
    }
    if step.deed == Deed::SwitchDns && !step.needs.contains(&Fact::Serving) {
        kinds.push(FlawKind::SwitchBeforeServing { step: name() });
    }
    kinds
}

/// The lines on which steps begin.
fn step_lines(text: &str) -> impl Iterator<Item = usize> {
    let lines = text.lines().enumerate();
    lines.filter(|(_, line)| line.trim_start().starts_with("[[step]]")).map(|(number, _)| number + 1)
}

#[cfg(test)]
mod tests {
    use crate::{FAILOVER, Fact, load};

    #[test]
    fn the_shipped_page_is_sound() {
        let page = load(FAILOVER).unwrap();
        assert_eq!(page.name, "failover");
        assert_eq!(page.steps.len(), 7);
        assert!(page.steps[2].needs.contains(&Fact::Fenced));
    }

    /// The shipped page with one piece of text replaced, and the flaws that gives.
    fn spoiled(from: &str, to: &str) -> Vec<String> {
        assert!(FAILOVER.contains(from), "the page no longer says {from}");
        let flaws = load(&FAILOVER.replacen(from, to, 1)).unwrap_err();
        flaws.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_promotion_without_a_fence_does_not_load() {
        assert_eq!(
            spoiled("needs = [\"fenced\"]", "needs = [\"loss\"]"),
            ["line 32: step \"promote\" promotes, and must need \"fenced\""]
        );
    }

    #[test]
    fn all_flaws_are_told_at_once() {
        assert_eq!(
            spoiled("gives = [\"fenced\"]", "gives = [\"serving\"]"),
            [
                "line 23: step \"fence\" cannot give \"serving\"",
                "line 32: step \"promote\" needs \"fenced\", which no step before it gives",
            ]
        );
    }

    #[test]
    fn traffic_waits_for_a_place_that_serves() {
        assert_eq!(
            spoiled("needs = [\"serving\"]", "needs = [\"primary\"]"),
            ["line 51: step \"switch-dns\" moves traffic, and must need \"serving\""]
        );
    }

    #[test]
    fn a_promotion_is_the_point_of_no_return() {
        assert_eq!(
            spoiled("point_of_no_return = true", "point_of_no_return = false"),
            ["line 32: step \"promote\" promotes, and must be the point of no return"]
        );
    }

    #[test]
    fn nothing_is_cut_off_before_the_loss_is_known() {
        assert_eq!(
            spoiled("needs = [\"loss\"]", "needs = []"),
            ["line 23: step \"fence\" fences, and must need \"loss\""]
        );
    }

    #[test]
    fn the_grammar_is_closed() {
        let flaws = spoiled("do = \"fence\"", "do = \"hope\"");
        assert!(flaws[0].starts_with("line 26: unknown variant `hope`"), "{flaws:?}");
        let flaws = spoiled("timeout = \"60s\"", "timeout = \"60\"");
        assert!(flaws[0].contains("needs a unit"), "{flaws:?}");
        assert_eq!(
            spoiled("attempts = 5", "attempts = 0"),
            ["line 32: step \"promote\" has no attempts; 1 is the least"]
        );
    }

    #[test]
    fn a_page_that_is_no_page_is_refused() {
        assert!(load("").is_err());
        assert!(load("name = 3").is_err());
    }
}
