//! What comes before what: needs and what gives them, `after`, parallel groups.

use std::collections::BTreeSet;

use super::{Found, Order, World};
use crate::flaw::FlawKind;
use crate::page::{Fact, Runbook, When};

pub(super) fn judge(found: &mut Found<'_>, page: &Runbook, order: &Order) {
    for index in 0..page.steps.len() {
        judge_needs(found, page, order, index);
        judge_after(found, page, order, index);
        judge_conditions(found, page, index);
        judge_group(found, page, index);
    }
    judge_cycles(found, page, order);
}

/// A need is met when, however the conditions turn out, a step that gives it is settled before.
fn judge_needs(found: &mut Found<'_>, page: &Runbook, order: &Order, index: usize) {
    let step = &page.steps[index];
    for fact in &step.needs {
        let givers =
            || order.before[index].iter().filter(|g| **g != index && page.steps[**g].gives.contains(fact));
        let sure = |world: World| !world.has(step) || givers().any(|giver| world.has(&page.steps[*giver]));
        if World::all(page.kind).all(sure) {
            continue;
        }
        let (step, fact) = (step.name.clone(), *fact);
        let kind = match givers().next() {
            None => FlawKind::UnmetNeed { step, fact },
            Some(giver) => FlawKind::UnsureNeed { step, fact, giver: page.steps[*giver].name.clone() },
        };
        found.step(index, &path_of(fact), kind);
    }
}

fn path_of(fact: Fact) -> String {
    format!("needs.{fact}")
}

fn judge_after(found: &mut Found<'_>, page: &Runbook, order: &Order, index: usize) {
    let step = &page.steps[index];
    for other in step.after.iter().flatten() {
        let path = format!("after.{other}");
        let (name, other) = (step.name.clone(), other.clone());
        match page.steps.iter().position(|s| s.name == other) {
            None => found.step(index, &path, FlawKind::AfterUnknown { step: name, other }),
            // Steps that wait for each other are told together.
            Some(place) if place > index && !order.precedes(index, place) => {
                found.step(index, &path, FlawKind::AfterLater { step: name, other });
            }
            Some(_) => {}
        }
    }
}

/// A step whose conditions never hold together.
fn judge_conditions(found: &mut Found<'_>, page: &Runbook, index: usize) {
    let step = &page.steps[index];
    if World::all(page.kind).any(|world| world.has(step)) {
        return;
    }
    let why = if step.when.contains(&When::Automatic) && step.when.contains(&When::Ordered) {
        "no run is both automatic and ordered".to_owned()
    } else {
        format!("a {} is never automatic", page.kind)
    };
    found.step(index, "when", FlawKind::Unreachable { step: step.name.clone(), why });
}

fn judge_group(found: &mut Found<'_>, page: &Runbook, index: usize) {
    let Some(group) = &page.steps[index].parallel else { return };
    let member = |place: usize| page.steps.get(place).is_some_and(|s| s.parallel.as_ref() == Some(group));
    let (name, group) = (page.steps[index].name.clone(), group.clone());
    let company = (0..page.steps.len()).filter(|place| *place != index).any(member);
    if !company {
        return found.step(index, "parallel", FlawKind::LoneGroup { step: name, group });
    }
    let begins = index == 0 || !member(index - 1);
    if begins && (0..index).any(member) {
        found.step(index, "parallel", FlawKind::SplitGroup { step: name, group });
    }
}

/// Each round of steps that wait for each other, once, at its first step.
fn judge_cycles(found: &mut Found<'_>, page: &Runbook, order: &Order) {
    let mut told: BTreeSet<usize> = BTreeSet::new();
    for index in 0..page.steps.len() {
        if !order.precedes(index, index) || told.contains(&index) {
            continue;
        }
        let round: Vec<usize> = (index..page.steps.len())
            .filter(|other| order.precedes(index, *other) && order.precedes(*other, index))
            .collect();
        told.extend(&round);
        let names: Vec<String> =
            round.iter().map(|place| format!("\"{}\"", page.steps[*place].name)).collect();
        let at = round.iter().find(|place| page.steps[**place].after.is_some()).unwrap_or(&index);
        found.step(*at, "after", FlawKind::Cycle { steps: names.join(", ") });
    }
}
