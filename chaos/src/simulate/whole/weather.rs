//! What a seed makes of a whole world: how it is set up, what is broken when, and how that is struck.
//!
//! **Invariant:** every fault ends, or is the loss of a region for good; after the last one nothing is drawn but latencies.

use std::time::Duration;

use lifeboat_engine::pretend::Lost;

use super::cast::Cast;
use super::sentry;
use crate::scenario::{Fault, Part, Setup, Site};
use crate::simulate::chance::Chance;
use crate::simulate::setting::{NAMES, TENURE};

/// When the first fault may come: by then somebody decides, and everything was seen.
const FIRST: u64 = 9_000;

/// What is broken.
#[derive(Clone, Debug)]
pub(super) enum Trouble {
    /// As in the world of the core alone.
    Known(Fault),
    /// The line of an agent to the coordinator is cut.
    Cut(usize),
    /// It swallows everything.
    Hangs(usize),
    /// It is slow.
    Slow(usize, Duration),
    /// What becomes of the next appends of an agent.
    Appends(usize, Vec<Lost>),
    /// Whoever decides then is killed.
    Guardian,
}

/// A trouble that begins, and ends unless it is for good.
#[derive(Clone, Debug)]
pub(super) struct Happening {
    pub(super) begins: u64,
    pub(super) ends: Option<u64>,
    pub(super) what: Trouble,
}

/// How the world is set up.
pub(super) fn setup(chance: &mut Chance) -> Setup {
    Setup {
        sync: chance.percent(20),
        sentries: chance.percent(80),
        rpo: Duration::from_secs(chance.pick(&[10, 30, 60])),
        lag: Duration::from_millis(chance.pick(&[0, 0, 0, 200, 2_000])),
        lease: Duration::from_secs(chance.pick(&[8, 8, 8, 25])),
        automatic: chance.percent(95),
        ..Setup::default()
    }
}

/// Everything that will be broken, oldest first.
pub(super) fn storm(chance: &mut Chance) -> Vec<Happening> {
    let mut all = Vec::new();
    let mut happens = |begins: u64, lasts: Option<u64>, what: Trouble| {
        all.push(Happening { begins, ends: lasts.map(|lasts| begins + lasts), what });
    };
    if chance.percent(85) {
        let at = FIRST + chance.below(6_000);
        let lasts = (!chance.percent(12)).then(|| chance.between(14_000, 40_000));
        happens(at, lasts, Trouble::Known(loss_of(chance, Site::East)));
        if chance.percent(50) {
            // Whoever acts on it is killed in the middle of it.
            let later = at + chance.between(6_000, 20_000);
            happens(later, Some(chance.between(500, 15_000)), Trouble::Guardian);
        }
        if chance.percent(20) {
            let later = at + chance.between(15_000, 45_000);
            let lasts = chance.between(10_000, 30_000);
            happens(later, Some(lasts), Trouble::Known(loss_of(chance, Site::West)));
        }
    }
    for _ in 0..chance.below(5) {
        let at = FIRST + chance.below(30_000);
        let lasts = chance.pick(&[800, 2_500, 5_000, 9_000, 15_000]);
        happens(at, Some(lasts), nuisance(chance));
    }
    all.sort_by_key(|happening| happening.begins);
    all
}

fn loss_of(chance: &mut Chance, site: Site) -> Fault {
    match chance.below(7) {
        0..3 => Fault::Kill { what: Part::Site(site) },
        3 => Fault::Kill { what: Part::Database(site) },
        4 => Fault::Isolate { site },
        5 => Fault::Freeze { what: Part::Database(site) },
        _ => Fault::HangWrites { site },
    }
}

fn nuisance(chance: &mut Chance) -> Trouble {
    let (site, other) = (chance.pick(&Site::ALL), chance.pick(&Site::ALL));
    let region = chance.pick(&Site::REGIONS);
    let a = site.index();
    let lost = [
        Lost::Request,
        Lost::Answer,
        Lost::Answer,
        Lost::Late(Duration::from_millis(800)),
        Lost::Late(Duration::from_millis(TENURE / 2)),
    ];
    match chance.below(20) {
        0 | 1 => Trouble::Guardian,
        2 | 3 => Trouble::Cut(a),
        4 | 5 => Trouble::Hangs(a),
        6 | 7 => Trouble::Slow(a, Duration::from_millis(chance.pick(&[40, 300, 1_200, 2_500]))),
        8..11 => {
            let count = chance.between(1, 3);
            Trouble::Appends(a, (0..count).map(|_| chance.pick(&lost)).collect())
        }
        11 => Trouble::Known(Fault::Kill { what: Part::Agent(site) }),
        12 => Trouble::Known(Fault::Kill { what: Part::Database(region) }),
        13 => Trouble::Known(Fault::Freeze { what: Part::Database(region) }),
        14 => Trouble::Known(Fault::Kill { what: Part::Sentry(region) }),
        15 => Trouble::Known(Fault::Kill { what: Part::Coordinator }),
        16 if site != other => Trouble::Known(Fault::Part { between: site, and: other }),
        16 | 17 => Trouble::Known(Fault::Isolate { site }),
        18 => Trouble::Known(Fault::FailPromotion { site: region }),
        _ => Trouble::Known(match chance.below(3) {
            0 => Fault::StopReplication {},
            1 => Fault::FailNames {},
            _ => Fault::StaleResolver {},
        }),
    }
}

/// The lines as they are: counts, because troubles overlap.
#[derive(Debug, Default)]
pub(super) struct Lines {
    cut: [u8; 3],
    hangs: [u8; 3],
    slow: [Vec<Duration>; 3],
    /// How long a call takes on a good day: while nothing takes any time, nothing can come too early.
    usual: [Duration; 3],
    /// Whether a path that is cut swallows what is sent, or says so.
    silent: bool,
    /// Who was killed by which happening.
    victims: std::collections::BTreeMap<usize, usize>,
}

fn count(counter: &mut u8, begins: bool) {
    *counter = if begins { counter.saturating_add(1) } else { counter.saturating_sub(1) };
}

impl Lines {
    /// Lines on which nothing is wrong.
    pub(super) fn new(chance: &mut Chance) -> Self {
        let usual = [(); 3].map(|()| Duration::from_millis(chance.between(4, 24)));
        Self { silent: chance.percent(50), usual, ..Self::default() }
    }

    /// A trouble begins, or ends.
    pub(super) async fn strike(&mut self, cast: &mut Cast, index: usize, what: &Trouble, begins: bool) {
        let scene = cast.scene.clone();
        scene.change(|state, now| {
            let word = if begins { "begins" } else { "ends" };
            state.trace.line(now, format_args!("** {what:?} {word}"));
            if !matches!(what, Trouble::Known(_)) {
                let troubled = state.troubled;
                state.troubled = if begins { troubled + 1 } else { troubled.saturating_sub(1) };
            }
        });
        match what {
            Trouble::Known(fault) => known(cast, fault, begins).await,
            Trouble::Cut(a) => count(&mut self.cut[*a], begins),
            Trouble::Hangs(a) => count(&mut self.hangs[*a], begins),
            Trouble::Slow(a, delay) if begins => self.slow[*a].push(*delay),
            Trouble::Slow(a, delay) => {
                let place = self.slow[*a].iter().position(|known| known == delay);
                place.map(|place| self.slow[*a].remove(place));
            }
            Trouble::Appends(a, lost) => scene.coordinator.fault(&NAMES.agents[*a], |fault| {
                if begins {
                    fault.appends.extend(lost.iter().copied());
                } else {
                    fault.appends.clear();
                }
            }),
            Trouble::Guardian if begins => {
                let seat = scene.coordinator.seat();
                let victim = NAMES.agents.iter().position(|a| seat.as_ref().is_some_and(|s| s.agent == *a));
                let victim = victim.unwrap_or(index % 3);
                self.victims.insert(index, victim);
                cast.kill(victim).await;
            }
            Trouble::Guardian => {
                if let Some(victim) = self.victims.remove(&index) {
                    cast.revive(victim).await;
                }
            }
        }
        self.settle(cast);
    }

    /// What the paths and the troubles make of each line.
    pub(super) fn settle(&self, cast: &Cast) {
        for site in 0..3 {
            let apart = cast.scene.change(|state, _| !state.network.coordinated(site));
            let delay = self.slow[site].iter().copied().fold(self.usual[site], Duration::max);
            cast.scene.coordinator.fault(&NAMES.agents[site], |fault| {
                fault.cut = self.cut[site] > 0 || (apart && !self.silent);
                fault.hangs = self.hangs[site] > 0 || (apart && self.silent);
                fault.delay = delay;
            });
            if site < 2 {
                cast.scene.coordinator.fault(&sentry::name(site), |fault| {
                    fault.cut = apart && !self.silent;
                    fault.hangs = apart && self.silent;
                    fault.delay = self.usual[site];
                });
            }
        }
    }
}

/// A fault that the world of the core alone knows, too.
async fn known(cast: &mut Cast, fault: &Fault, begins: bool) {
    let scene = cast.scene.clone();
    if let Fault::Kill { what: Part::Site(site) | Part::Agent(site) } = fault {
        if begins {
            cast.kill(site.index()).await;
        } else {
            cast.revive(site.index()).await;
        }
    }
    scene.change(|state, now| match fault {
        Fault::Kill { what } => {
            state.network.kill(*what, begins);
            let (Part::Site(site) | Part::Database(site) | Part::Sentry(site)) = what else { return };
            let r = site.index();
            if r > 1 {
                return;
            }
            if !matches!(what, Part::Sentry(_)) {
                if begins {
                    state.databases[r].running = false;
                    state.databases[r].wants_start = false;
                } else {
                    state.boot(now, r);
                }
            }
            if !matches!(what, Part::Database(_)) {
                state.sentries[r] = !begins;
            }
        }
        Fault::Freeze { what: Part::Database(site) } => {
            let database = &mut state.databases[site.index()];
            database.frozen = begins && database.running;
        }
        Fault::Part { between, and } => {
            state.network.cut(*between, *and, begins);
            state.network.cut(*and, *between, begins);
        }
        Fault::Isolate { site } => state.network.isolate(*site, begins),
        Fault::StopReplication {} => state.held_back = u8::from(begins),
        Fault::HangWrites { site } => state.databases[site.index()].hangs = begins,
        Fault::FailPromotion { site } => state.databases[site.index()].fails_promotion = begins,
        Fault::FailNames {} => state.names.fails = begins,
        Fault::StaleResolver {} => state.names.stale = begins,
        other => state.wrong(now, format!("{other:?} is no fault of this world")),
    });
}
