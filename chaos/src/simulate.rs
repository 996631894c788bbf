//! The simulator: real guardians in a pretend world, a seed at a time.
//!
//! Three agents, each a `lifeboat_core::Guardian` of its own with its own clock; a pretend coordinator, two databases with
//! clients that write all the time, sentries, names, persons; and faults, drawn from the seed or told by a scenario. Oracles
//! that were written apart from the core judge what happens.
//!
//! **Invariant:** a seed is one story: it is told twice, and the two tellings must agree to the byte.
//! **Invariant:** no clock is read and no chance is drawn but from the seed.

mod actuator;
mod agent;
mod chance;
mod coordinator;
mod digest;
mod fault;
mod judged;
mod liar;
mod network;
mod oracle;
mod person;
mod region;
mod sentry;
mod setting;
mod weather;
mod whole;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

pub use oracle::Tally;
pub use setting::Break;
pub use weather::Kind;

use self::world::World;
use crate::scenario::Scenario;

/// Which worlds are made.
#[derive(Clone, Debug)]
pub enum Worlds {
    /// Drawn from the seed.
    Drawn(Kind),
    /// As a scenario tells.
    Told(Box<Scenario>),
    /// Drawn from the seed, around whole agents: the real loop, under paused time.
    Whole,
}

/// What is to be simulated.
#[derive(Clone, Debug)]
pub struct Simulation {
    /// Which worlds.
    pub worlds: Worlds,
    /// What is broken on purpose.
    pub broken: Option<Break>,
}

/// What became of one seed.
#[derive(Clone, Debug)]
pub struct Life {
    /// The seed.
    pub seed: u64,
    /// What may not be, the first few.
    pub violations: Vec<String>,
    /// What was done.
    pub tally: Tally,
    /// Stands for the whole trace.
    pub digest: u64,
    /// How long the pretend world lived, in milliseconds.
    pub lived: u64,
    /// The trace, when it was asked for.
    pub trace: Vec<String>,
}

/// What became of many.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// How many seeds were lived through, twice each.
    pub seeds: u64,
    /// What was done in them.
    pub tally: Tally,
    /// The lives in which something may not be, the first few of them.
    pub failed: Vec<Life>,
    /// How many there were.
    pub failures: u64,
    /// How long the pretend worlds lived, in milliseconds.
    pub lived: u64,
}

/// How many failed lives are kept to be shown.
const SHOWN: usize = 10;

/// How many seeds a thread takes at a time.
const HANDFUL: u64 = 64;

/// How long a world is watched after its last fault, until everything is at rest; and at the most.
const REST: u64 = 6_000;
const LONGEST: u64 = 800_000;

/// How much longer, when something was begun shortly before: it has time to end.
const LAST: u64 = 120_000;

/// How long before that persons begin nothing new: what they began has time to end.
const PATIENCE: u64 = 500_000;

impl Simulation {
    /// Lives through one seed, twice.
    pub fn live(&self, seed: u64, trace: bool) -> Life {
        let lives = catch_unwind(AssertUnwindSafe(|| {
            let first = self.live_once(seed, false);
            let mut second = self.live_once(seed, trace);
            if (first.digest, first.lived, &first.tally) != (second.digest, second.lived, &second.tally) {
                second.violations.push("the same seed told another story the second time".to_owned());
            }
            second
        }));
        lives.unwrap_or_else(|panic| {
            let said = panic.downcast_ref::<String>().cloned();
            let said = said.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            let violations = vec![format!("a panic: {}", said.unwrap_or_default())];
            Life { seed, violations, tally: Tally::default(), digest: 0, lived: 0, trace: Vec::new() }
        })
    }

    fn live_once(&self, seed: u64, trace: bool) -> Life {
        let (mut world, horizon) = match &self.worlds {
            Worlds::Drawn(kind) => weather::world(*kind, seed, self.broken, trace),
            Worlds::Told(scenario) => weather::staged(scenario, seed, self.broken, trace),
            Worlds::Whole => return whole::live(seed, self.broken, trace),
        };
        match &self.worlds {
            Worlds::Drawn(kind) => settle(&mut world, *kind, horizon),
            Worlds::Told(scenario) => judged::watch(&mut world, scenario, horizon),
            Worlds::Whole => {}
        }
        let copies = world.agents.each_ref().map(|agent| agent.copy.as_slice());
        world.oracle.finish(world.now, &world.coordinator, copies);
        Life {
            seed,
            violations: world.oracle.violations,
            tally: world.oracle.tally,
            digest: world.trace.value(),
            lived: world.now,
            trace: world.trace.into_lines(),
        }
    }

    /// Lives through many seeds, on every core.
    pub fn run(&self, from: u64, seeds: u64, threads: usize) -> Summary {
        let next = AtomicU64::new(0);
        let sum = Mutex::new(Summary::default());
        std::thread::scope(|scope| {
            for _ in 0..threads.max(1) {
                scope.spawn(|| {
                    loop {
                        let first = next.fetch_add(HANDFUL, Ordering::Relaxed);
                        if first >= seeds {
                            return;
                        }
                        let mut some = Summary::default();
                        for n in first..seeds.min(first + HANDFUL) {
                            some.take(self.live(from.wrapping_add(n), false));
                        }
                        if let Ok(mut sum) = sum.lock() {
                            sum.join(some);
                        }
                    }
                });
            }
        });
        let mut sum = sum.into_inner().unwrap_or_default();
        sum.failed.sort_by_key(|life| life.seed);
        sum
    }
}

/// The faults pass, persons mend what they can, and everything comes to rest.
fn settle(world: &mut World, kind: Kind, horizon: u64) {
    if kind == Kind::Flaps {
        world.pass(weather::REAL);
        if let Some((run, _)) = &world.oracle.book.open {
            let what = format!("a false failover: {run} is open before anything is lost");
            world.oracle.violation(world.now, what);
        } else if world.oracle.book.primary != 0 {
            world.oracle.violation(world.now, "a false failover: nothing was lost before".to_owned());
        }
        world.helpful = true;
        let end = world.now + LONGEST;
        while world.now < end && (world.oracle.book.primary == 0 || world.oracle.book.open.is_some()) {
            world.pass(world.now + 1_000);
        }
        if world.oracle.book.primary == 0 {
            world.oracle.violation(world.now, "the region is lost, and nothing was done".to_owned());
        }
        return;
    }
    world.pass(horizon);
    world.stormy = false;
    world.helpful = true;
    let end = horizon + LONGEST;
    world.patience = end - PATIENCE;
    let mut rested = 0;
    while world.now < end && rested < REST {
        world.pass(world.now + 1_000);
        let book = &world.oracle.book;
        let rests = book.open.is_none() && world.acknowledges(book.primary);
        rested = if rests { rested + 1_000 } else { 0 };
    }
    while world.now < end + LAST && world.oracle.book.hangs().is_some() {
        world.pass(world.now + 1_000);
    }
}

impl Summary {
    fn take(&mut self, life: Life) {
        self.seeds += 1;
        self.lived += life.lived;
        self.tally.add(&life.tally);
        if !life.violations.is_empty() {
            self.failures += 1;
            if self.failed.len() < SHOWN {
                self.failed.push(life);
            }
        }
    }

    fn join(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.lived += other.lived;
        self.failures += other.failures;
        self.tally.add(&other.tally);
        self.failed.extend(other.failed);
        self.failed.sort_by_key(|life| life.seed);
        self.failed.truncate(SHOWN);
    }
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.failovers += other.failovers;
        self.planned += other.planned;
        self.runs += other.runs;
        self.decisions += other.decisions;
        self.takeovers += other.takeovers;
        self.done += other.done;
        self.stranded += other.stranded;
        self.asked += other.asked;
        self.detected += other.detected;
    }
}
