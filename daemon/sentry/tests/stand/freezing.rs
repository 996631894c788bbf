//! What hangs or dies: the keeper, the switch, both, everything.

use std::time::Duration;

use lifeboat_sentry::boottime::Boottime;

use crate::sentry::{LENGTH, MARGIN, Sentry};
use crate::server::{Server, Writers, folder, lives, signal, until};

/// Nothing may be acknowledged after this: the deadline of the last lease.
fn nothing_after_the_lease(writers: &Writers, sentry: &Sentry) {
    let late = writers.after(sentry.lease_ends());
    assert!(late.is_empty(), "{} writes were acknowledged after the lease had ended", late.len());
}

async fn stopped(server: &Server, writers: &mut Writers) {
    writers.end().await;
    until("the server is gone", async || !server.runs()).await;
}

#[tokio::test]
async fn a_keeper_that_hangs_costs_the_database_by_the_deadline() {
    let folder = folder();
    let server = Server::primary(folder.path()).await;
    let sentry = Sentry::start(&server, folder.path(), "held 7", "", "");
    sentry.holds("lease").await;
    let mut writers = Writers::start(&server, 4).await;
    signal("-STOP", &[sentry.keeper()]);
    stopped(&server, &mut writers).await;
    nothing_after_the_lease(&writers, &sentry);
    // Until the margin before it, the database was left alone.
    let ends = sentry.lease_ends();
    let begun = Boottime::from_nanos(u64::try_from(ends.since(Boottime::default()).as_nanos()).unwrap());
    let served = begun.since(*writers.after(Boottime::default()).last().unwrap());
    assert!(served < MARGIN + Duration::from_millis(1_000), "stopped {served:?} before the end");
    until("it says why", async || sentry.deeds().contains("its write lease ran out")).await;
}

#[tokio::test]
async fn a_keeper_that_is_killed_costs_the_database_by_the_deadline() {
    let folder = folder();
    let server = Server::primary(folder.path()).await;
    let sentry = Sentry::start(&server, folder.path(), "held 7", "", "");
    sentry.holds("lease").await;
    let mut writers = Writers::start(&server, 4).await;
    signal("-KILL", &[sentry.keeper()]);
    stopped(&server, &mut writers).await;
    nothing_after_the_lease(&writers, &sentry);
}

#[tokio::test]
async fn a_new_keeper_finds_the_switch_and_the_database_goes_on() {
    let folder = folder();
    let mut server = Server::primary(folder.path()).await;
    let mut sentry = Sentry::start(&server, folder.path(), "held 7", "", "");
    sentry.holds("lease").await;
    let writers = Writers::start(&server, 2).await;
    let switch = sentry.switch().unwrap();
    for end in ["-TERM", "-KILL"] {
        let keeper = sentry.keeper();
        signal(end, &[keeper]);
        sentry.keeper_again();
        until("the new keeper holds the lease", async || {
            let status = sentry.status();
            status["keeper"] == sentry.keeper() && status["basis"]["by"] == "lease"
        })
        .await;
        assert_eq!(sentry.switch(), Some(switch), "the same switch");
    }
    let old = sentry.lease_ends();
    until("they write on past the old lease", async || !writers.after(old).is_empty()).await;
    assert!(server.runs() && sentry.deeds().is_empty(), "{}", sentry.deeds());
    server.stop();
}

/// As after an upgrade: the switch is of another build, or has other orders, and the coordinator is lost just then.
#[tokio::test]
async fn a_switch_that_is_another_one_is_replaced_and_what_it_knew_is_kept() {
    let folder = folder();
    let server = Server::primary(folder.path()).await;
    let mut sentry = Sentry::start(&server, folder.path(), "held 7", "", "");
    sentry.holds("lease").await;
    let switch = sentry.switch().unwrap();
    sentry.answer("unreachable");
    signal("-TERM", &[sentry.keeper()]);
    sentry.reconfigure("stop = ['/bin/false']");
    sentry.keeper_again();
    until("there is another switch", async || sentry.switch().is_some_and(|new| new != switch)).await;
    until("the old one is gone", async || !lives(switch)).await;
    let status = sentry.status();
    assert_eq!(status["basis"]["by"], "lease", "what was granted is used up: {status}");
    assert!(server.runs() && sentry.deeds().is_empty(), "{}", sentry.deeds());
    sentry.answer("held 7");
    let ends = sentry.lease_ends();
    let writers = Writers::start(&server, 1).await;
    until("they write on past the old lease", async || !writers.after(ends).is_empty()).await;
}

#[tokio::test]
async fn a_switch_that_hangs_or_dies_is_replaced_and_the_database_goes_on() {
    let folder = folder();
    let server = Server::primary(folder.path()).await;
    let sentry = Sentry::start(&server, folder.path(), "held 7", "", "");
    sentry.holds("lease").await;
    let writers = Writers::start(&server, 2).await;
    for end in ["-STOP", "-KILL"] {
        let switch = sentry.switch().unwrap();
        signal(end, &[switch]);
        until("there is another switch", async || sentry.switch().is_some_and(|new| new != switch)).await;
        until("the old one is gone", async || !lives(switch)).await;
        let ends = sentry.lease_ends();
        until("they write on past the old lease", async || !writers.after(ends).is_empty()).await;
    }
    assert!(server.runs());
    assert!(sentry.log().contains("the switch does not answer"), "{}", sentry.log());
}

#[tokio::test]
async fn without_a_switch_the_keeper_renews_nothing_and_stops_the_database_itself() {
    let folder = folder();
    let server = Server::primary(folder.path()).await;
    // A switch that is frozen, and a program for a new one that is taken away.
    let sentry = Sentry::start(&server, folder.path(), "held 7", "", "");
    sentry.holds("lease").await;
    let mut writers = Writers::start(&server, 4).await;
    std::fs::remove_file(folder.path().join("stand")).unwrap();
    let switch = sentry.switch().unwrap();
    signal("-STOP", &[switch]);
    let renewals = sentry.renewals().len();
    stopped(&server, &mut writers).await;
    nothing_after_the_lease(&writers, &sentry);
    // At most the one that was on its way.
    assert!(sentry.renewals().len() <= renewals + 1);
    until("the keeper says so", async || {
        let deeds = sentry.status()["deeds"].as_array().cloned().unwrap_or_default();
        deeds.iter().any(|deed| deed["by"] == "keeper" && deed["event"] == "stopped")
    })
    .await;
    assert!(sentry.log().contains("the switch does not answer, and nothing is renewed"), "{}", sentry.log());
}

/// Everything on the machine stands still for longer than the lease, and wakes at once: as a suspended host does.
#[tokio::test]
async fn what_wakes_after_the_lease_is_stopped_before_it_serves() {
    let folder = folder();
    let server = Server::primary(folder.path()).await;
    let sentry = Sentry::start(&server, folder.path(), "held 7", "", "");
    sentry.holds("lease").await;
    let mut writers = Writers::start(&server, 8).await;
    let mut all = server.processes();
    all.extend([sentry.keeper(), sentry.switch().unwrap()]);
    signal("-STOP", &all);
    let ends = sentry.lease_ends();
    until("the lease is over", async || Boottime::now() > ends.plus(LENGTH / 4)).await;
    let woken = Boottime::now();
    signal("-CONT", &all);
    stopped(&server, &mut writers).await;
    let late = writers.after(woken);
    let longest = late.last().map(|last| last.since(woken)).unwrap_or_default();
    println!("woken: {} writes acknowledged, the last after {longest:?}", late.len());
    assert!(longest < Duration::from_millis(500), "{} writes, the last after {longest:?}", late.len());
}
