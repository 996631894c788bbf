//! What is wrong with a page, found before it is ever needed: all of it at once.
//!
//! **Invariant:** a page without flaws fences before it promotes, whatever order its steps allow and whatever its
//! conditions leave out; and reports when everything else is over.
//! **Invariant:** every rule that the core relies on is checked here; the core keeps a gate of its own for the two
//! that matter most (fence, catch-up).

mod deeds;
mod operands;
mod order;
mod shape;

use std::collections::BTreeSet;

use crate::flaw::{Flaw, FlawKind};
use crate::page::{Kind, Runbook, Step, When};
use crate::place::Places;

/// The flaws of what one step says by itself.
pub(crate) fn alone(kind: Kind, steps: &[(usize, Step)], places: &Places<'_>) -> Vec<Flaw> {
    let mut found = Found { places, flaws: Vec::new() };
    for (index, step) in steps {
        shape::judge(&mut found, *index, step);
        operands::judge(&mut found, *index, step);
        deeds::judge(&mut found, kind, *index, step);
    }
    found.flaws
}

/// The flaws of what the steps mean together.
pub(crate) fn together(page: &Runbook, places: &Places<'_>) -> Vec<Flaw> {
    let mut found = Found { places, flaws: Vec::new() };
    shape::judge_page(&mut found, page);
    if !page.steps.is_empty() {
        let order = Order::of(page);
        order::judge(&mut found, page, &order);
        deeds::judge_page(&mut found, page, &order);
    }
    found.flaws
}

/// Flaws while they are being found.
struct Found<'a> {
    places: &'a Places<'a>,
    flaws: Vec<Flaw>,
}

impl Found<'_> {
    /// A flaw at a value of a step (see [`Places::step`] for paths).
    fn step(&mut self, index: usize, path: &str, kind: FlawKind) {
        self.flaws.push(Flaw::at(self.places.text(), self.places.step(index, path), kind));
    }

    /// A flaw of what stands above the steps.
    fn header(&mut self, key: &str, kind: FlawKind) {
        self.flaws.push(Flaw::at(self.places.text(), self.places.header(key), kind));
    }
}

/// What comes before what, for certain.
struct Order {
    /// By step: all that is settled before it starts.
    before: Vec<BTreeSet<usize>>,
}

impl Order {
    fn of(page: &Runbook) -> Self {
        let direct = page.predecessors();
        let all = |start: &BTreeSet<usize>| {
            let (mut seen, mut open) = (BTreeSet::new(), start.iter().copied().collect::<Vec<_>>());
            while let Some(index) = open.pop() {
                if seen.insert(index) {
                    open.extend(&direct[index]);
                }
            }
            seen
        };
        Self { before: direct.iter().map(all).collect() }
    }

    fn precedes(&self, first: usize, second: usize) -> bool {
        self.before[second].contains(&first)
    }

    /// Whether two different steps may be under way at the same time.
    fn beside(&self, one: usize, other: usize) -> bool {
        one != other && !self.precedes(one, other) && !self.precedes(other, one)
    }
}

/// One way in which the conditions can turn out.
#[derive(Clone, Copy)]
struct World {
    automatic: bool,
    canary: bool,
    host: bool,
}

impl World {
    /// All that a page of this kind can meet: planned moves are always ordered.
    fn all(kind: Kind) -> impl Iterator<Item = Self> {
        let worlds =
            (0..8).map(|bits| Self { automatic: bits & 1 > 0, canary: bits & 2 > 0, host: bits & 4 > 0 });
        worlds.filter(move |world| !(kind.planned() && world.automatic))
    }

    /// Whether the step is in the plan.
    fn has(self, step: &Step) -> bool {
        step.when.iter().all(|condition| match condition {
            When::Automatic => self.automatic,
            When::Ordered => !self.automatic,
            When::Canary => self.canary,
            When::Host => self.host,
        })
    }
}
