//! The agent is killed with -9 after every record of a run, on real servers, and each run still comes to the same end
//! with each effect applied once.
//!
//! One lab serves a whole series: the workload moves to and fro, and each move is struck somewhere else.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot look has failed; what a series saw is said"
)]

use std::collections::BTreeSet;

use lifeboat_chaos::load::Load;
use lifeboat_chaos::postgres::Setup;
use lifeboat_chaos::{AgentOptions, Fault, Lab, LabOptions, Planned, Region};
use lifeboat_tests::scene::{lab_of, timeline, until, until_calm};
use lifeboat_tests::strike::{Before, NameWatch, Series, Struck, judge, struck};

/// What a restarted agent may need until its run is over.
const CONVERGED_MS: u64 = 10_000;

/// A small load that goes on through a whole series.
fn load(lab: &Lab, name: &str) -> Load {
    let mut options = lab.load_options(name);
    (options.rate, options.sessions) = (100, 8);
    Load::start(options)
}

/// Every write that was acknowledged so far is one row on `primary`.
async fn assert_nothing_lost(lab: &Lab, load: &Load, name: &str, primary: Region) {
    let ledger = load.look(Clone::clone);
    let tally = ledger.tally(&lab.entries(primary, name).await.unwrap());
    assert_eq!((tally.lost, tally.duplicated), (0, 0), "{tally:?}");
    let taken = load.look(|ledger| ledger.taken_by(primary));
    until("clients write there", async || load.look(|ledger| ledger.taken_by(primary)) > taken).await;
}

/// Gives an order until it is not refused. An agent that is killed meanwhile has taken it, or not.
async fn order(lab: &Lab, planned: Planned) {
    let argv = [planned.command(), &["--no-wait"]].concat();
    until("the order is taken", async || lab.lifeboat(&argv).await.code != Some(5)).await;
}

/// One planned move, struck or not, with all that must be true after it.
async fn planned(lab: &Lab, planned: Planned, nth: Option<u64>, series: Option<&mut Series>) -> Struck {
    let (to, kind) = (planned.to(), planned.command()[0]);
    let from = to.other();
    let (before, old) = (Before::of(lab).await, timeline(lab, from).await);
    let names = NameWatch::start(lab);
    let run = struck(lab, kind, nth, series, async || order(lab, planned).await).await;
    judge(lab, &run.run, &before, Some(to)).await;
    assert_eq!(timeline(lab, to).await, old + 1);
    until_calm(lab, to).await;
    assert_eq!(names.answers().await, [from, to], "the name moved once");
    run
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planned_moves_survive_a_kill_after_every_record() {
    let lab = lab_of(LabOptions::default()).await;
    until_calm(&lab, Region::East).await;
    let load = load(&lab, "planned");
    let (there, back) = (Planned::Switchover(Region::West), Planned::Failback);
    let mut away = Series::of("switchover", &planned(&lab, there, None, None).await.all);
    let mut home = Series::of("failback", &planned(&lab, back, None, None).await.all);
    loop {
        let (first, second) = (away.next_kill(), home.next_kill());
        if first.is_none() && second.is_none() {
            break;
        }
        planned(&lab, there, first, Some(&mut away)).await;
        assert_nothing_lost(&lab, &load, "planned", Region::West).await;
        planned(&lab, back, second, Some(&mut home)).await;
        assert_nothing_lost(&lab, &load, "planned", Region::East).await;
    }
    report(&[&away, &home]);
}

/// One loss of the primary region and its return, both struck or not, with all that must be true after each.
async fn lost_and_back(
    lab: &Lab,
    lost: Region,
    nth: [Option<u64>; 2],
    series: [Option<&mut Series>; 2],
) -> [Struck; 2] {
    let [series_of_loss, series_of_return] = series;
    let to = lost.other();
    let (before, old) = (Before::of(lab).await, timeline(lab, lost).await);
    let names = NameWatch::start(lab);
    let lose = async || {
        lab.lose(lost).unwrap();
    };
    let failover = struck(lab, "failover", nth[0], series_of_loss, lose).await;
    judge(lab, &failover.run, &before, Some(to)).await;
    assert_eq!(timeline(lab, to).await, old + 1);

    let before = Before::of(lab).await;
    lab.power_cycle(lost).await.unwrap();
    let isolated = lab.write_isolated(lost, 3).await.unwrap();
    let open = async || lab.to_region(lost, Fault::None);
    let rejoin = struck(lab, "rejoin", nth[1], series_of_return, open).await;
    judge(lab, &rejoin.run, &before, None).await;
    assert_eq!(timeline(lab, to).await, old + 1);
    until_calm(lab, to).await;
    assert_eq!(names.answers().await, [lost, to], "the name moved once");

    let salvage = lab.salvaged(lost);
    let times = |id: &String| salvage.matches(id.as_str()).count();
    assert!(isolated.iter().all(|id| times(id) == 1), "each isolated order is in one salvage, once");
    let orders = lab.orders(to).await.unwrap();
    assert!(isolated.iter().all(|id| !orders.contains(id)), "none of them is on the primary");
    assert_eq!(lab.orders(lost).await.unwrap(), orders, "the old primary has what the new one has");
    lab.synchronise(to).await.unwrap();
    [failover, rejoin]
}

/// How often a region's rejoins left a salvage: once each.
fn salvages(lab: &Lab, region: Region) -> BTreeSet<String> {
    let folder = std::fs::read_dir(region.folder(lab.folder()).join("salvage"));
    folder
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_region_and_its_return_survive_a_kill_after_every_record() {
    let failover = "cooldown = \"0s\"\nbudget = 1000\n".to_owned();
    let agent = AgentOptions { failover, ..AgentOptions::default() };
    let setup = Setup { sync: true, stall: false };
    let lab = lab_of(LabOptions { setup, agent: Some(agent), ..LabOptions::default() }).await;
    until_calm(&lab, Region::East).await;
    let load = load(&lab, "lost");
    let [failover, rejoin] = lost_and_back(&lab, Region::East, [None; 2], [None, None]).await;
    let (mut away, mut back) = (Series::of("failover", &failover.all), Series::of("rejoin", &rejoin.all));
    let (mut lost, mut rounds) = (Region::West, 1);
    loop {
        let nth = [away.next_kill(), back.next_kill()];
        if nth == [None; 2] {
            break;
        }
        lost_and_back(&lab, lost, nth, [Some(&mut away), Some(&mut back)]).await;
        assert_nothing_lost(&lab, &load, "lost", lost.other()).await;
        (lost, rounds) = (lost.other(), rounds + 1);
    }
    let kept = salvages(&lab, Region::East).len() + salvages(&lab, Region::West).len();
    assert_eq!(kept, rounds, "one salvage for each return");
    report(&[&away, &back]);
}

fn report(series: &[&Series]) {
    for series in series {
        println!("{series:?}: {} records covered, slowest {} ms", series.covered(), series.slowest_ms());
        assert!(series.slowest_ms() <= CONVERGED_MS, "{series:?}");
    }
}
