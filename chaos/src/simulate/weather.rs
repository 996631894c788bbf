//! What a seed makes of a world: how it is set up, and what is broken when.
//!
//! **Invariant:** every fault ends, or is the loss of a place for good; after the last one nothing is drawn but latencies.

use std::time::Duration;

use super::chance::Chance;
use super::setting::{Break, DRIFT, Setting};
use super::world::{Due, World};
use crate::scenario::{Fault, Happening, Part, Scenario, Setup, Site};

/// When the first fault may come: by then somebody decides, and everything was seen.
const FIRST: u64 = 5_000;

/// Which worlds are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Everything that can be broken, at once.
    Storm,
    /// Ten flaps and partitions with one bad vantage, and then a real loss.
    Flaps,
}

/// A world that is about to begin, with the time at which its last fault ends.
pub(crate) fn world(kind: Kind, seed: u64, broken: Option<Break>, verbose: bool) -> (World, u64) {
    let mut chance = Chance::new(seed);
    let mut setting = Setting::of(setup(&mut chance, kind));
    setting.broken = broken;
    if kind == Kind::Storm {
        setting.rejoin = chance.percent(80);
        setting.hosts = chance.percent(90);
        setting.sample_age = chance.percent(30).then_some(Duration::from_secs(40));
    }
    let mut world = World::new(setting, chance, verbose);
    clocks(&mut world);
    world.dead_refuse = world.chance.percent(60);
    let happenings = match kind {
        Kind::Storm => {
            world.stormy = world.chance.percent(50);
            world.persons = if world.chance.percent(40) { 30 } else { 0 };
            storm(&mut world.chance)
        }
        Kind::Flaps => flaps(&mut world.chance),
    };
    let horizon = announce(&mut world, &happenings);
    world.begin_all();
    world.schedule(FIRST, Due::Person);
    (world, horizon)
}

/// The world of a scenario; the seed draws only the latencies and who comes first.
pub(crate) fn staged(scenario: &Scenario, seed: u64, broken: Option<Break>, verbose: bool) -> (World, u64) {
    let mut setting = Setting::of(scenario.setup.clone());
    setting.broken = broken;
    let mut world = World::new(setting, Chance::new(seed), verbose);
    world.oracle.listens = true;
    world.dead_refuse = world.chance.percent(50);
    let horizon = announce(&mut world, &scenario.happenings);
    world.begin_all();
    (world, horizon)
}

fn setup(chance: &mut Chance, kind: Kind) -> Setup {
    if kind == Kind::Flaps {
        return Setup { rpo: Duration::from_secs(60), ..Setup::default() };
    }
    Setup {
        sync: chance.percent(30),
        sentries: chance.percent(75),
        rpo: Duration::from_secs(chance.pick(&[10, 30, 60])),
        lag: Duration::from_millis(chance.pick(&[0, 0, 200, 1_000, 5_000])),
        lease: Duration::from_secs(chance.pick(&[8, 8, 8, 25])),
        automatic: chance.percent(92),
        ..Setup::default()
    }
}

fn clocks(world: &mut World) {
    let far = world.chance.percent(15);
    let drifting = world.chance.percent(40);
    let drift = |chance: &mut Chance| {
        let all = u64::from(DRIFT.unsigned_abs()) * 2;
        if drifting { i32::try_from(chance.below(all)).unwrap_or(0) - DRIFT } else { 0 }
    };
    for a in 0..3 {
        let most = if far { 600_000 } else { 400 };
        let skew =
            i64::try_from(world.chance.below(2 * most)).unwrap_or(0) - i64::try_from(most).unwrap_or(0);
        world.agents[a].skew = if far || world.chance.percent(50) { skew } else { 0 };
        world.agents[a].drift = drift(&mut world.chance);
    }
    for r in 0..2 {
        world.sentries[r].drift = drift(&mut world.chance);
    }
}

/// Puts happenings into the queue; says when the last one ends.
fn announce(world: &mut World, happenings: &[Happening]) -> u64 {
    let millis = |length: Duration| u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    let mut last = FIRST;
    for happening in happenings {
        let index = world.faults.len();
        world.faults.push(happening.fault.clone());
        for (begins, ends) in happening.occasions() {
            world.schedule(millis(begins), Due::Fault(index, true));
            last = last.max(millis(begins));
            if let Some(ends) = ends {
                world.schedule(millis(ends), Due::Fault(index, false));
                last = last.max(millis(ends));
            }
        }
    }
    last
}

fn happening(at: u64, lasts: Option<u64>, fault: Fault) -> Happening {
    let (at, lasts) = (Duration::from_millis(at), lasts.map(Duration::from_millis));
    Happening { at, lasts, every: None, times: None, fault }
}

fn storm(chance: &mut Chance) -> Vec<Happening> {
    let mut all = Vec::new();
    if chance.percent(85) {
        let mut at = FIRST + chance.below(6_000);
        if chance.percent(8) {
            // The log stops long before the primary is lost.
            all.push(happening(FIRST, Some(60_000), Fault::StopReplication {}));
            at += chance.between(10_000, 30_000);
        }
        let lasts = (!chance.percent(12)).then(|| chance.between(14_000, 40_000));
        let fault = loss_of(chance, Site::East);
        all.push(happening(at, lasts, fault));
        if chance.percent(25) {
            // The region that took over is lost, too.
            let later = at + chance.between(15_000, 50_000);
            let lasts = chance.between(10_000, 30_000);
            let fault = loss_of(chance, Site::West);
            all.push(happening(later, Some(lasts), fault));
        }
    }
    for _ in 0..chance.below(4) {
        let at = FIRST + chance.below(30_000);
        let lasts = chance.pick(&[800, 2_500, 5_000, 9_000, 15_000]);
        let fault = nuisance(chance);
        // Two of three that lie are a quorum, and no rule helps against that.
        let lies = |fault: &Fault| matches!(fault, Fault::Lie { .. });
        if !(lies(&fault) && all.iter().any(|known| lies(&known.fault))) {
            all.push(happening(at, Some(lasts), fault));
        }
    }
    all
}

fn loss_of(chance: &mut Chance, site: Site) -> Fault {
    match chance.below(7) {
        0..3 => Fault::Kill { what: Part::Site(site) },
        3 => Fault::Kill { what: Part::Database(site) },
        4 => Fault::Isolate { site },
        5 => Fault::Freeze { what: Part::Site(site) },
        _ => Fault::HangWrites { site },
    }
}

fn nuisance(chance: &mut Chance) -> Fault {
    let site = chance.pick(&Site::ALL);
    let region = chance.pick(&Site::REGIONS);
    let other = chance.pick(&Site::ALL);
    match chance.below(24) {
        0 => Fault::Kill { what: Part::Agent(site) },
        1 => Fault::Freeze { what: Part::Agent(site) },
        2 => Fault::Kill { what: Part::Database(region) },
        3 => Fault::Freeze { what: Part::Database(region) },
        4 => Fault::Kill { what: Part::Sentry(region) },
        5 => Fault::Freeze { what: Part::Sentry(region) },
        6 => Fault::Kill { what: Part::Member(site) },
        7 => Fault::Kill { what: Part::Coordinator },
        8 => Fault::Freeze { what: Part::Coordinator },
        9 => Fault::Freeze { what: Part::Site(site) },
        10 | 11 if site != other => Fault::Cut { from: site, to: other },
        12 | 13 if site != other => Fault::Part { between: site, and: other },
        10..14 => Fault::Isolate { site },
        14 => Fault::Lose { percent: chance.pick(&[5, 20, 50]) },
        15 => Fault::StopReplication {},
        16 => Fault::Lag { by: Duration::from_secs(chance.pick(&[2, 8, 25])) },
        17 => Fault::FailPromotion { site: region },
        18 => Fault::FailNames {},
        19 => Fault::StaleResolver {},
        20 => {
            let step = chance.pick(&[-600_000, -20_000, 20_000, 600_000]);
            Fault::Clock { agent: site, step }
        }
        21 => Fault::Lie { agent: site, about: region },
        22 => Fault::FailDisk { agent: site },
        _ => Fault::Twin { agent: site },
    }
}

/// When the real loss comes in a world of flaps.
pub(crate) const REAL: u64 = 75_000;

/// Ten short troubles, none long enough to be a loss, beside a vantage that is bad throughout: it lies, or is cut off, or
/// flaps all the time. Then the region is lost for good.
fn flaps(chance: &mut Chance) -> Vec<Happening> {
    let mut all = Vec::new();
    let bad = chance.pick(&[Site::West, Site::Witness]);
    let forever = REAL + 200_000;
    let way = chance.below(3);
    all.push(match way {
        0 => happening(3_000, Some(forever), Fault::Lie { agent: bad, about: Site::East }),
        1 => happening(3_000, Some(REAL - 9_000), Fault::Part { between: bad, and: Site::East }),
        _ => {
            let fault = Fault::Part { between: bad, and: Site::East };
            let (every, times) = (Some(Duration::from_millis(7_000)), Some(8));
            Happening { every, times, ..happening(4_000, Some(3_500), fault) }
        }
    });
    // The other two see the primary fail now and then, never for as long as a silence must last.
    for n in 0..10 {
        let at = 6_000 + n * 6_000 + chance.below(600);
        let lasts = chance.between(200, 3_000);
        let site = chance.pick(&Site::ALL);
        let fault = match chance.below(6) {
            0 => Fault::Isolate { site: Site::East },
            1 => Fault::Part { between: Site::East, and: site },
            2 => Fault::Isolate { site: Site::Witness },
            3 => Fault::Freeze { what: Part::Database(Site::East) },
            4 => Fault::Cut { from: Site::West, to: Site::East },
            _ => Fault::Part { between: Site::West, and: Site::Witness },
        };
        let fault = match fault {
            Fault::Part { between, and } if between == and => Fault::Isolate { site: Site::East },
            fault => fault,
        };
        all.push(happening(at, Some(lasts), fault));
    }
    all.push(happening(REAL, None, Fault::Kill { what: Part::Site(Site::East) }));
    all.sort_by_key(|happening| happening.at);
    all
}
