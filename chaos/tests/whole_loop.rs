//! Whole agents in the pretend world: the real loop under paused time breaks no promise in any seed, each seed is lived
//! twice and comes to the same, and what is broken on purpose is noticed.

use lifeboat_chaos::simulate::{Break, Life, Simulation, Summary, Worlds};

/// How many seeds are lived through, twice each.
const SEEDS: u64 = 500;

/// Within how many seeds what is broken on purpose must be noticed, a handful at a time.
const NOTICED: u64 = 600;
const HANDFUL: u64 = 25;

const fn whole(broken: Option<Break>) -> Simulation {
    Simulation { worlds: Worlds::Whole, broken }
}

fn run(simulation: &Simulation, from: u64, seeds: u64) -> Summary {
    let threads = std::thread::available_parallelism().map_or(1, Into::into);
    simulation.run(from, seeds, threads)
}

fn story(life: &Life) -> String {
    let (seed, what) = (life.seed, life.violations.join("\n  "));
    format!("seed {seed}: {what}\n  again: chaos simulate --whole-loop --from {seed} --seeds 1 --trace")
}

#[test]
fn no_seed_breaks_a_promise_and_each_is_one_story() {
    let summary = run(&whole(None), 1, SEEDS);
    let stories: Vec<String> = summary.failed.iter().map(story).collect();
    assert_eq!(summary.failures, 0, "{}", stories.join("\n"));
    assert_eq!(summary.seeds, SEEDS);
    // Worlds in which nothing ever happens prove nothing.
    let tally = summary.tally;
    for (what, count, least) in [
        ("failovers", tally.failovers, SEEDS / 2),
        ("takeovers", tally.takeovers, SEEDS),
        ("planned moves", tally.planned, SEEDS / 20),
        ("losses found in time", tally.detected, SEEDS / 10),
        ("runs that came to their end", tally.done, SEEDS / 2),
    ] {
        assert!(count >= least, "only {count} {what} in {SEEDS} seeds: {tally:?}");
    }
}

#[test]
fn another_seed_is_another_story() {
    let simulation = whole(None);
    let stories: Vec<u64> = (1..=20).map(|seed| simulation.live(seed, false).digest).collect();
    let told: Vec<u64> = (1..=20).map(|seed| simulation.live(seed, true).digest).collect();
    assert_eq!(stories, told, "a story is the same, read or not");
    let different: std::collections::BTreeSet<u64> = stories.iter().copied().collect();
    assert_eq!(different.len(), stories.len());
}

#[test]
fn what_is_broken_on_purpose_is_noticed_and_its_unbroken_twin_is_well() {
    for (broken, sign) in [
        (Break::FenceWait, "two writers"),
        (Break::Epoch, "obeys epoch"),
        (Break::Quorum, "a false failover"),
    ] {
        let name = broken.name();
        let noticed = (0..NOTICED / HANDFUL).find_map(|n| {
            let summary = run(&whole(Some(broken)), 1 + n * HANDFUL, HANDFUL);
            summary.failed.into_iter().find(|life| life.violations.iter().any(|what| what.contains(sign)))
        });
        let life = noticed.unwrap_or_else(|| panic!("{name}: no oracle says \"{sign}\" in {NOTICED} seeds"));
        let twin = whole(None).live(life.seed, false);
        assert_eq!(twin.violations, Vec::<String>::new(), "{name}: seed {} fails without it, too", life.seed);
    }
}
