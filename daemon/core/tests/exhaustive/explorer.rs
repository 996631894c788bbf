//! The search: from a scene, along the course, with at most so many deviations from it at any places.
//!
//! Depth first, so that few states are kept whole. A state is remembered by its digest, with the fewest deviations that led
//! there; met again with fewer it is gone through again. A batch of states is gone through on all cores and put together in
//! one order, so that two runs see the same.

use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};

use lifeboat_core::machine::Happening;

use crate::moves::{Move, Width};
use crate::page::Chart;
use crate::world::World;

/// No way is longer than this.
const LONGEST: usize = 400;

/// How many states are gone through at once.
const BATCH: usize = 64;

/// How far it is gone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// How many deviations from the course.
    pub(crate) deviations: u8,
    pub(crate) width: Width,
}

/// What was gone through.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) states: usize,
    pub(crate) moves: usize,
    pub(crate) deepest: usize,
}

/// A state that was met, and how.
struct Node {
    parent: usize,
    what: Option<Move>,
    deviations: u8,
    depth: usize,
    /// The state that follows when all goes well; none when all is over.
    course: Option<u64>,
    /// Whether a run is open that no person was told to look at.
    open: bool,
}

struct Step {
    parent: usize,
    what: Move,
    deviations: u8,
    course: bool,
    digest: u64,
    world: World,
}

/// Goes through everything; panics with the way to the first flaw.
pub(crate) fn explore(name: &str, scene: &World, bounds: Bounds, chart: &mut Chart) -> Tally {
    let mut search = Search { name, scene, nodes: Vec::new(), met: HashMap::new() };
    search.note(0, None, 0, scene.digest(), scene);
    let mut work = vec![(0, scene.clone())];
    let mut moves = 0;
    let mut probed = BTreeSet::new();
    while !work.is_empty() {
        let batch = work.split_off(work.len().saturating_sub(BATCH));
        for (_, world) in &batch {
            if probed.insert(world.posture()) {
                search.probe(world, chart);
            }
        }
        for step in search.expand(batch, bounds) {
            moves += 1;
            if let Some(flaw) = &step.world.flaw {
                search.fail(step.parent, &step.what, flaw, &step.world);
            }
            chart.take(&step.world.chart);
            if step.course {
                search.nodes[step.parent].course = Some(step.digest);
            }
            let known = search.met.get(&step.digest).copied();
            if known.is_some_and(|known| search.nodes[known].deviations <= step.deviations) {
                continue;
            }
            let Step { parent, what, deviations, digest, world, .. } = step;
            search.note(parent, Some(what), deviations, digest, &world);
            if search.nodes.last().is_some_and(|node| node.depth > LONGEST) {
                search.fail(parent, &Move::Turn(0, [1, 0]), "it goes on and on", &world);
            }
            work.push((search.nodes.len() - 1, world));
        }
    }
    search.everything_ends();
    let deepest = search.nodes.iter().map(|node| node.depth).max().unwrap_or_default();
    Tally { states: search.met.len(), moves, deepest }
}

fn open(world: &World) -> bool {
    world.shared.ledger.phase.run().is_some() && !world.stranded()
}

struct Search<'a> {
    name: &'a str,
    scene: &'a World,
    nodes: Vec<Node>,
    /// By digest, the node that reached it with the fewest deviations.
    met: HashMap<u64, usize>,
}

impl Search<'_> {
    fn note(&mut self, parent: usize, what: Option<Move>, deviations: u8, digest: u64, world: &World) {
        let depth = if what.is_some() { self.nodes[parent].depth + 1 } else { 0 };
        let course = self.met.get(&digest).and_then(|known| self.nodes[*known].course);
        self.nodes.push(Node { parent, what, deviations, depth, course, open: open(world) });
        self.met.insert(digest, self.nodes.len() - 1);
    }

    fn expand(&self, layer: Vec<(usize, World)>, bounds: Bounds) -> Vec<Step> {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(layer.len());
        let share = layer.len().div_ceil(threads);
        let parts: Vec<&[(usize, World)]> = layer.chunks(share).collect();
        std::thread::scope(|scope| {
            let work = |part: &[(usize, World)]| -> Vec<Step> {
                part.iter().flat_map(|(node, world)| self.steps(*node, world, bounds)).collect()
            };
            let hands: Vec<_> = parts.into_iter().map(|part| scope.spawn(move || work(part))).collect();
            hands.into_iter().flat_map(|hand| hand.join().expect("a search ends")).collect()
        })
    }

    fn steps(&self, node: usize, world: &World, bounds: Bounds) -> Vec<Step> {
        let used = self.nodes[node].deviations;
        let course = world.course();
        let mut moves: Vec<(Move, bool)> = course.into_iter().map(|what| (what, true)).collect();
        if used < bounds.deviations && world.eventful() {
            moves.extend(world.deviations(bounds.width).into_iter().map(|what| (what, false)));
        }
        let step = |(what, course): (Move, bool)| {
            let mut next = world.clone();
            if catch_unwind(AssertUnwindSafe(|| next.happen(&what))).is_err() {
                self.fail(node, &what, "the core panicked", world);
            }
            let (deviations, digest) = (used + u8::from(!course), next.digest());
            Step { parent: node, what, deviations, course, digest, world: next }
        };
        moves.into_iter().map(step).collect()
    }

    /// Gives every order there is, in a copy: taken, or refused by a reason and nothing touched.
    fn probe(&self, world: &World, chart: &mut Chart) {
        for (what, place, event) in world.probes() {
            let mut copy = world.clone();
            let (name, before) = (copy.shared.ledger.phase.name(), copy.shared.records.len());
            let (answer, after) = (copy.decide(place, 2, event), copy.shared.records.len());
            chart.take(&copy.chart);
            if what == Happening::StepEnded {
                assert_eq!(after, before, "the outcome of no attempt was taken: {}", copy.story());
                continue;
            }
            let (refusals, taken) = chart.answers.entry((name, what)).or_default();
            match answer {
                Some(lifeboat_core::Answer::Refused { reason }) => {
                    let text = format!("{reason:?}");
                    let end = text.find([' ', '{', '(']).unwrap_or(text.len());
                    refusals.insert(text[..end].to_owned());
                    assert_eq!(after, before, "refused, and on record: {reason}");
                    assert_eq!(copy.flights.len(), world.flights.len(), "refused, and started: {reason}");
                }
                _ => *taken = true,
            }
        }
    }

    /// From every state the course leads to where no run is open that nobody was told of.
    fn everything_ends(&self) {
        let mut ends: HashMap<u64, bool> = HashMap::new();
        for (digest, node) in &self.met {
            let mut way = Vec::new();
            let (mut at, mut here) = (*digest, *node);
            let good = loop {
                if let Some(known) = ends.get(&at) {
                    break *known;
                }
                if !self.nodes[here].open {
                    break true;
                }
                if way.contains(&at) {
                    break false;
                }
                way.push(at);
                let Some(next) = self.nodes[here].course else { break false };
                (at, here) = (next, self.met[&next]);
            };
            ends.extend(way.into_iter().map(|at| (at, good)));
            if !good {
                self.fail(*node, &Move::Turn(0, [1, 0]), "a run never ends, and nobody is told", self.scene);
            }
        }
    }

    fn fail(&self, node: usize, last: &Move, flaw: &str, world: &World) -> ! {
        let mut way = vec![format!("{last:?}")];
        let mut at = node;
        while let Some(what) = &self.nodes[at].what {
            way.push(format!("{what:?}"));
            at = self.nodes[at].parent;
        }
        way.reverse();
        panic!("{}: {flaw}\nafter:\n  {}\non record:{}", self.name, way.join("\n  "), world.story());
    }
}
