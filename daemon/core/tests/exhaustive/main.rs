//! Every state of a bounded model, with the real `Guardian` in it: three agents, one coordinator, two servers, the names.
//!
//! Two agents may decide; the third is a witness, of which nothing is left but what it says. The coordinator compares and
//! sets; each server has a sentry; clocks run at two rates; commands come to an effect in time, unheard, not at all, or after
//! their guardian was deposed; a person gives orders. `scenes` is where it begins, `moves` what can happen, `oracle` what
//! must hold in every state (the promises of the design, written apart from the code), `explorer` the search, `page` the map.
//!
//! **The shape.** From any state one thing happens when all goes well: its *course*. Everything else that can happen (a crash,
//! a freeze, a partition, a drift, a lost answer, an order) is a *deviation*. The search goes through every state that can be
//! reached with at most so many deviations, at any places. The other shape, every order of every event up to a depth, is
//! simpler to say, and ends in the middle of the second step: a failover is fifteen events deep, with thirty alternatives at
//! each. The search itself is some 200 lines of our own. The `stateright` crate would do that part, for 45 more packages;
//! states, moves and promises would have to be written all the same, and it wants states that can be hashed, which a
//! `Guardian` is by its text alone.
//!
//! **Bounds.** `cargo test -p lifeboat-core --test exhaustive -- --nocapture` prints them as counts; one deviation of all
//! kinds in each scene, two of the most telling kinds on a quiet day. With `LIFEBOAT_EXHAUSTIVE=1` it is two of all kinds
//! everywhere, which takes about 20 minutes of one core; `SCENE="a switchover"` goes through one scene. A run takes 3 s a turn, moments older
//! than every threshold are alike (`digest`), and what a state goes on with is always whole.
//!
//! **What it proves of the table.** Each pair of phase and event is met, or refused by a reason with a name (`Chart::lacks`);
//! and from every state the course leads to where no run is open that a person was not told of.
//!
//! **It finds what is broken.** Each of these was tried, found, and put back:
//!
//! - a takeover does not raise the epoch: two terms command under one epoch;
//! - a takeover does not prove the fence again: promoted without a proof;
//! - a fence that ended `Unclear` counts as proven: promoted without a proof;
//! - nobody is asked about the loss: more is lost than is allowed;
//! - a person is asked, and nobody is told;
//! - a run that fails behind its promotion is given up instead of stranded: it may have promoted, and ended by itself;
//! - the head never says that a region is closing: the course of a failover does not move the workload;
//! - one vantage is enough; a testimony without proven connectivity counts; a late one counts: no region was truly lost;
//! - a guardian that stands by goes on deciding: it writes records that are not its own to write;
//! - a sentry is to leave a returned primary alone before it is closed (which is how it was): two servers acknowledge writes.
mod agent;
mod digest;
mod effects;
mod explorer;
mod moves;
mod oracle;
mod page;
mod scenes;
mod server;
mod setting;
mod world;

use explorer::{Bounds, Tally, explore};
use moves::Width;
use page::Chart;
use scenes::{BARE, HOSTS, SENTRIES};
use world::World;

type Scene = (&'static str, fn() -> World, Bounds);

const ONE: Bounds = Bounds { deviations: 1, width: Width::Wide };
const TWO: Bounds = Bounds { deviations: 2, width: Width::Narrow };

const SCENES: [Scene; 12] = [
    ("a quiet day", || scenes::quiet(SENTRIES), TWO),
    ("the primary dies", || scenes::dead(SENTRIES), ONE),
    ("the primary stands still", || scenes::halted(SENTRIES), ONE),
    ("the primary dies, and its log did not reach the standby", || scenes::lossy(SENTRIES), ONE),
    ("the primary dies, without sentries", || scenes::dead(BARE), ONE),
    ("the primary stands still, without sentries", || scenes::halted(BARE), ONE),
    ("the witness speaks late", || scenes::late_word(SENTRIES), ONE),
    ("a switchover", || scenes::planned(SENTRIES), ONE),
    ("a switchover, with a rejoin", || scenes::planned(HOSTS), ONE),
    ("a switchover is stranded", scenes::stranded, ONE),
    ("the old primary returns", || scenes::returned(HOSTS), ONE),
    ("a failback", scenes::homeward, ONE),
];

/// Whether all the time there is may be taken.
fn at_length() -> bool {
    std::env::var_os("LIFEBOAT_EXHAUSTIVE").is_some()
}

#[test]
fn every_state_within_the_bounds_keeps_the_promises() {
    let mut chart = Chart::default();
    let mut all = Tally::default();
    let only = std::env::var("SCENE").ok();
    for (name, scene, bounds) in SCENES {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let bounds = if at_length() { Bounds { deviations: 2, width: Width::Wide } } else { bounds };
        let tally = explore(name, &scene(), bounds, &mut chart);
        println!("{name}: {} states, {} moves, {} deep", tally.states, tally.moves, tally.deepest);
        all.states += tally.states;
        all.moves += tally.moves;
    }
    println!("together: {} states, {} moves", all.states, all.moves);
    if only.is_some() {
        return;
    }
    assert_eq!(chart.lacks(), Vec::<String>::new());
    if !at_length() {
        page::compare(&chart.drawing());
    }
}
