//! The shape of a page and of each step: names, titles, times.

use std::collections::BTreeSet;

use super::Found;
use crate::flaw::FlawKind;
use crate::page::{Runbook, Step};

/// How long a step's name may be.
const NAME: usize = 63;

pub(super) fn judge_page(found: &mut Found<'_>, page: &Runbook) {
    if page.name != page.kind.to_string() {
        found.header("name", FlawKind::Misnamed { name: page.name.clone(), kind: page.kind });
    }
    for (key, text) in [("title", &page.title), ("prose", &page.prose)] {
        if text.trim().is_empty() {
            found.header(key, FlawKind::Blank { key });
        }
    }
    if page.deadline.is_some_and(|deadline| deadline.is_zero()) {
        found.header("deadline", FlawKind::NoTime);
    }
    if page.steps.is_empty() {
        found.header("step", FlawKind::Empty);
    }
    let mut names = BTreeSet::new();
    for (index, step) in page.steps.iter().enumerate() {
        if !names.insert(&step.name) {
            found.step(index, "name", FlawKind::Twice { step: step.name.clone() });
        }
    }
}

pub(super) fn judge(found: &mut Found<'_>, index: usize, step: &Step) {
    let name = || step.name.clone();
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if step.name.is_empty() || step.name.len() > NAME || !step.name.chars().all(letter) {
        found.step(index, "name", FlawKind::BadName { step: name() });
    }
    for (key, text) in [("title", Some(&step.title)), ("approve", step.approve.as_ref())] {
        if text.is_some_and(|text| text.trim().is_empty()) {
            found.step(index, key, FlawKind::EmptyOperand { step: name(), key });
        }
    }
    if step.timeout.is_zero() {
        found.step(index, "timeout", FlawKind::Zero { step: name(), key: "timeout" });
    }
    if step.attempts == 0 {
        found.step(index, "retry.attempts", FlawKind::NoAttempts { step: name() });
    }
}
