//! Whole loops in a pretend world: three real agents of `lifeboat-engine` in one process, under tokio's paused time.
//!
//! What the world of the core alone leaves out is real here: the loop, its tenure and its appends, the watch, the journal,
//! the tasks that look and act, and everything that may be dropped in the middle. The ports are pretended (`ports.rs`), all
//! of them on one scene (`scene.rs`); what is true is judged by the oracles of the other world, and by a ledger of which
//! order was on record before it began (`ledger.rs`).
//!
//! **Invariant:** one thread, one clock that stands still while anything can go on, one stream of chance: a seed is one
//! story, in every order.

mod cast;
mod deeds;
mod ledger;
mod line;
mod person;
mod ports;
mod scene;
mod sentry;
mod weather;

use std::time::Duration;

use lifeboat_core::Moment;
use lifeboat_engine::clock::Clock;
use lifeboat_engine::pretend::Coordinator;

use self::cast::Cast;
use self::person::Manner;
use self::scene::Scene;
use self::weather::Lines;
use super::chance::Chance;
use super::setting::{Break, EPOCH, Setting, TENURE};
use super::{LONGEST, Life, PATIENCE, REST, Tally};

/// How often the judge looks when nothing happens.
const WATCH: Duration = Duration::from_millis(500);

/// Lives through a seed once.
pub(super) fn live(seed: u64, broken: Option<Break>, trace: bool) -> Life {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    match runtime {
        Ok(runtime) => runtime.block_on(story(seed, broken, trace)),
        Err(error) => failed(seed, format!("no runtime: {error}")),
    }
}

fn failed(seed: u64, why: String) -> Life {
    Life { seed, violations: vec![why], tally: Tally::default(), digest: 0, lived: 0, trace: Vec::new() }
}

async fn story(seed: u64, broken: Option<Break>, trace: bool) -> Life {
    let mut chance = Chance::new(seed);
    let mut setting = Setting::of(weather::setup(&mut chance));
    setting.broken = broken;
    setting.rejoin = chance.percent(80);
    setting.hosts = chance.percent(90);
    let (stormy, dead_refuse, canary) = (chance.percent(50), chance.percent(60), chance.percent(50));
    let mut lines = Lines::new(&mut chance);
    let busy = if chance.percent(40) { 30 } else { 0 };
    let happenings = weather::storm(&mut chance);
    let begins = chance.below(10_000);

    let clock = Clock::starting_at(Moment::from_millis(EPOCH));
    let coordinator = Coordinator::new(clock, Duration::from_millis(TENURE));
    let scene = Scene::quiet(setting, chance, clock, coordinator, trace);
    // Agents draw their own jitter from the time at which they start.
    tokio::time::sleep(Duration::from_millis(begins)).await;
    let mut cast = match Cast::new(scene.clone(), canary) {
        Ok(cast) => cast,
        Err(error) => return failed(seed, format!("no journal: {error}")),
    };
    lines.settle(&cast);
    scene.change(|state, _| (state.stormy, state.dead_refuse) = (stormy, dead_refuse));
    for a in 0..3 {
        cast.start(a).await;
        tokio::time::sleep(Duration::from_millis(scene.change(|state, _| state.chance.below(400)))).await;
    }
    for r in 0..2 {
        drop(tokio::spawn(sentry::watch_for_ever(scene.clone(), r)));
    }

    let mut moments: Vec<(u64, usize, bool)> = Vec::new();
    for (index, happening) in happenings.iter().enumerate() {
        moments.push((begins + happening.begins, index, true));
        moments.extend(happening.ends.map(|ends| (begins + ends, index, false)));
    }
    moments.sort();
    let horizon = moments.last().map_or(begins + 20_000, |(at, _, _)| *at);
    let manner = Manner { busy, helpful_from: horizon, until: horizon + LONGEST - PATIENCE };
    drop(tokio::spawn(person::look_for_ever(scene.clone(), manner)));
    drop(tokio::spawn(judge_for_ever(scene.clone())));

    for (at, index, starts) in moments {
        clock.sleep_until(Moment::from_millis(EPOCH + at)).await;
        cast.heed_all().await;
        lines.strike(&mut cast, index, &happenings[index].what, starts).await;
    }
    settle(&scene, &mut cast, horizon).await;
    cast.compare().await;
    scene.change(|state, now| {
        if let Some(what) = state.oracle.book.hangs() {
            state.wrong(now, what);
        }
        Life {
            seed,
            violations: std::mem::take(&mut state.oracle.violations),
            tally: state.oracle.tally,
            digest: state.trace.value(),
            lived: now,
            trace: state.trace.clone().into_lines(),
        }
    })
}

/// The judge looks at what is true, whether anything happens or not.
async fn judge_for_ever(scene: std::sync::Arc<Scene>) {
    loop {
        scene.change(|state, now| {
            let facts = state.facts(now);
            state.oracle.watch(&facts);
        });
        tokio::time::sleep(WATCH).await;
    }
}

/// The faults are over: persons mend what they can, and everything comes to rest.
async fn settle(scene: &Scene, cast: &mut Cast, horizon: u64) {
    scene.change(|state, _| state.stormy = false);
    let mut rested = 0;
    while rested < REST {
        tokio::time::sleep(Duration::from_secs(1)).await;
        cast.heed_all().await;
        let (rests, broken) = scene.change(|state, now| {
            let book = &state.oracle.book;
            let rests = book.open.is_none() && state.acknowledges(book.primary);
            if now >= horizon + LONGEST && !rests {
                let what = match &state.oracle.book.open {
                    Some((run, _)) => format!("{run} does not come to an end"),
                    None => "the workload does not come back, though nothing is broken".to_owned(),
                };
                state.wrong(now, what);
            }
            (rests, state.oracle.violations.len() > 7 || now >= horizon + LONGEST)
        });
        if broken {
            return;
        }
        rested = if rests { rested + 1_000 } else { 0 };
    }
}
