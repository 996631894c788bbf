//! The client that a fence is judged by, on a real pair: it sees a fence that is none, and it sees one that is.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use std::path::PathBuf;
use std::time::Duration;

use lifeboat_chaos::holdout::{Holdout, Newcomer};
use lifeboat_chaos::process::{self, Signal};
use lifeboat_chaos::{Lab, LabOptions, Region, Site};

async fn lab() -> Lab {
    let chaos = Some(PathBuf::from(env!("CARGO_BIN_EXE_chaos")));
    Lab::start(LabOptions { chaos, ..LabOptions::default() }).await.unwrap()
}

async fn until(what: &str, met: impl Fn() -> bool) {
    let wait = async {
        while !met() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_primary_that_was_not_fenced_is_caught() {
    let lab = lab().await;
    let holdout = Holdout::start(&lab.login_at(Region::East), "old", Region::East).await.unwrap();
    let newcomer = Newcomer::start(&lab.login_at(Region::West), "new", Region::West);
    until("east takes writes", || holdout.look(|told| told.acknowledged.len() >= 50)).await;
    assert_eq!(newcomer.first(), None, "a standby takes none");

    // A host that hangs, and is promoted over: nothing is acknowledged until it wakes.
    lab.freeze_site(Site::East).unwrap();
    lab.promote(Region::West).await.unwrap();
    until("west takes a write", || newcomer.first().is_some()).await;
    let first = newcomer.first().unwrap();
    assert_eq!(holdout.look(|told| told.after(first)), 0);
    lab.thaw_site(Site::East).unwrap();
    until("the woken one goes on as if nothing had been", || holdout.look(|told| told.after(first) >= 10))
        .await;
    assert!(holdout.look(|told| told.ended.is_none()));

    process::kill_within(&lab.server(Region::East).data()).unwrap();
    until("its session ends with the server", || holdout.look(|told| told.ended.is_some())).await;
    let rows = lab.entries(Region::West, "new").await.unwrap();
    assert_eq!(rows.len(), 1, "what counts as the first write is one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_was_killed_before_acknowledges_nothing_more() {
    let lab = lab().await;
    let holdout = Holdout::start(&lab.login_at(Region::East), "old", Region::East).await.unwrap();
    let newcomer = Newcomer::start(&lab.login_at(Region::West), "new", Region::West);
    until("east takes writes", || holdout.look(|told| told.acknowledged.len() >= 50)).await;
    let frozen = process::freeze_within(&Site::East.folder(lab.folder())).unwrap();
    assert!(frozen.len() >= 5, "{frozen:?}");
    let count = holdout.look(|told| told.acknowledged.len());
    process::signal(&frozen, Signal::CONT).unwrap();
    until("a woken one writes", || holdout.look(|told| told.acknowledged.len() > count + 10)).await;
    lab.power_off(Site::East).unwrap();
    lab.promote(Region::West).await.unwrap();
    until("west takes a write", || newcomer.first().is_some()).await;
    assert_eq!(holdout.look(|told| told.after(newcomer.first().unwrap())), 0);
    assert!(holdout.look(|told| told.ended.is_some()));
}
