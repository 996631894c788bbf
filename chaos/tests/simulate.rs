//! The pretend world: no seed breaks a promise, what is broken on purpose is noticed, each scenario comes out as it must.
//!
//! The figures of the README come from the command (`chaos simulate --seeds 1000000`); here are as many seeds as a test may
//! take.

use lifeboat_chaos::scenario::shipped;
use lifeboat_chaos::simulate::{Break, Kind, Simulation, Summary, Worlds};

/// How many seeds of each kind of world are lived through.
const STORMS: u64 = 300;
const FLAPS: u64 = 60;

/// Within how many seeds what is broken on purpose must be noticed.
const NOTICED: u64 = 800;
const HANDFUL: u64 = 50;

const fn drawn(kind: Kind, broken: Option<Break>) -> Simulation {
    Simulation { worlds: Worlds::Drawn(kind), broken }
}

fn run(simulation: &Simulation, from: u64, seeds: u64) -> Summary {
    let threads = std::thread::available_parallelism().map_or(1, Into::into);
    simulation.run(from, seeds, threads)
}

fn story(summary: &Summary) -> String {
    let each =
        summary.failed.iter().map(|life| format!("seed {}: {}", life.seed, life.violations.join("\n  ")));
    each.collect::<Vec<_>>().join("\n")
}

#[test]
fn no_storm_breaks_a_promise() {
    let summary = run(&drawn(Kind::Storm, None), 1, STORMS);
    assert_eq!(summary.failures, 0, "{}", story(&summary));
    assert_eq!(summary.seeds, STORMS);
    // A storm in which nothing ever happens proves nothing.
    let tally = summary.tally;
    for (what, count, least) in [
        ("failovers", tally.failovers, STORMS / 2),
        ("takeovers", tally.takeovers, STORMS / 3),
        ("planned moves", tally.planned, STORMS / 20),
        ("losses found in time", tally.detected, STORMS / 3),
        ("questions", tally.asked, STORMS / 20),
    ] {
        assert!(count >= least, "only {count} {what} in {STORMS} seeds: {tally:?}");
    }
}

#[test]
fn flaps_and_a_bad_vantage_move_nothing_and_a_real_loss_is_found_every_time() {
    let summary = run(&drawn(Kind::Flaps, None), 1, FLAPS);
    assert_eq!(summary.failures, 0, "{}", story(&summary));
    assert_eq!(summary.tally.failovers, FLAPS, "{:?}", summary.tally);
}

#[test]
fn what_is_broken_on_purpose_is_noticed_and_its_unbroken_twin_is_well() {
    for (broken, sign) in [
        (Break::FenceWait, "two writers"),
        (Break::LagAge, "a silent loss"),
        (Break::Epoch, "obeys epoch"),
        (Break::Quorum, "a false failover"),
    ] {
        let name = broken.name();
        let noticed = (0..NOTICED / HANDFUL).find_map(|n| {
            let summary = run(&drawn(Kind::Storm, Some(broken)), 1 + n * HANDFUL, HANDFUL);
            summary.failed.into_iter().find(|life| life.violations.iter().any(|what| what.contains(sign)))
        });
        let life = noticed.unwrap_or_else(|| panic!("{name}: no oracle says \"{sign}\" in {NOTICED} seeds"));
        let twin = drawn(Kind::Storm, None).live(life.seed, false);
        assert_eq!(twin.violations, Vec::<String>::new(), "{name}: seed {} fails without it, too", life.seed);
    }
}

#[test]
fn each_scenario_comes_out_as_it_must() {
    for scenario in shipped().expect("each is right") {
        let name = scenario.name.clone();
        let simulation = Simulation { worlds: Worlds::Told(Box::new(scenario)), broken: None };
        let summary = run(&simulation, 1, 6);
        assert_eq!(summary.failures, 0, "{name}: {}", story(&summary));
    }
}

#[test]
fn a_scenario_that_expects_something_else_fails() {
    let mut lost =
        shipped().expect("each is right").into_iter().find(|s| s.name == "primary-lost").expect("shipped");
    lost.expect.moved = None;
    lost.expect.told.insert("fence-unproven".to_owned());
    let simulation = Simulation { worlds: Worlds::Told(Box::new(lost)), broken: None };
    let violations = simulation.live(1, false).violations.join("\n");
    assert!(violations.contains("it must not move, and lives in west"), "{violations}");
    assert!(violations.contains("nobody was told of fence-unproven"), "{violations}");
}

#[test]
fn a_seed_is_one_story_and_another_seed_another() {
    let simulation = drawn(Kind::Storm, None);
    let stories: Vec<u64> = (1..=20).map(|seed| simulation.live(seed, false).digest).collect();
    let again: Vec<u64> = (1..=20).map(|seed| simulation.live(seed, true).digest).collect();
    assert_eq!(stories, again, "a story is the same, read or not");
    let different: std::collections::BTreeSet<u64> = stories.iter().copied().collect();
    assert_eq!(different.len(), stories.len());
}

/// Seeds that taught something are lived through for ever: a seed a line, and what it taught.
#[test]
fn seeds_that_failed_once_hold() {
    let lessons = [
        (Kind::Storm, include_str!("../seeds/storm.txt")),
        (Kind::Flaps, include_str!("../seeds/flaps.txt")),
    ];
    for (kind, text) in lessons {
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (seed, taught) = line.split_once(char::is_whitespace).expect("a seed, and what it taught");
            let seed: u64 = seed.parse().expect("a seed is a number");
            let life = drawn(kind, None).live(seed, false);
            assert_eq!(life.violations, Vec::<String>::new(), "seed {seed} ({taught})");
        }
    }
}
