//! What the coordinator says, and what becomes of the database.

use crate::sentry::Sentry;
use crate::server::{Server, Writers, folder, until};

#[tokio::test]
async fn a_primary_that_starts_without_a_lease_is_stopped_and_stays_so() {
    let folder = folder();
    let mut server = Server::primary(folder.path()).await;
    let sentry = Sentry::start(&server, folder.path(), "not-ours 8 west", "", "");
    until("it is stopped", async || !server.runs()).await;
    until("it says why", async || sentry.deeds().contains("west may take writes")).await;
    until("it says so to the coordinator", async || {
        sentry.renewals().last().is_some_and(|(_, says, _)| says == "stopped")
    })
    .await;
    // Whoever starts it again without a lease: it does not serve.
    server.start_again();
    until("it is stopped again", async || !server.runs()).await;
    // Once the lease is its own, it is started again in peace.
    sentry.answer("held 9");
    sentry.holds("lease").await;
    server.start_again();
    server.ready().await;
    let writers = Writers::start(&server, 1).await;
    let ends = sentry.lease_ends();
    until("they write on past that lease", async || !writers.after(ends).is_empty()).await;
    assert!(server.runs());
}

#[tokio::test]
async fn a_primary_without_a_coordinator_is_stopped_after_the_grace() {
    let folder = folder();
    let server = Server::primary(folder.path()).await;
    let sentry = Sentry::start(&server, folder.path(), "unreachable", "grace = '1s'", "");
    until("it is stopped", async || !server.runs()).await;
    let renewals = sentry.renewals();
    assert!(renewals.len() > 1, "it was tried during the grace: {renewals:?}");
    until("it says why", async || sentry.deeds().contains("a primary without a write lease")).await;
}

#[tokio::test]
async fn a_lease_that_is_refused_is_used_up_and_not_longer() {
    for answer in ["closing 7 east", "denied", "held 6", "unknown"] {
        let folder = folder();
        let server = Server::primary(folder.path()).await;
        let sentry = Sentry::start(&server, folder.path(), "held 7", "", "");
        sentry.holds("lease").await;
        let mut writers = Writers::start(&server, 2).await;
        sentry.answer(answer);
        let refused = |met: &str| met == answer;
        until("it is refused", async || sentry.renewals().last().is_some_and(|(_, _, met)| refused(met)))
            .await;
        assert!(server.runs(), "it is not stopped before its time");
        let ends = {
            let held = sentry.renewals().into_iter().rfind(|(_, _, met)| met == "held 7").unwrap();
            held.0.plus(crate::sentry::LENGTH)
        };
        writers.end().await;
        until("it is stopped", async || !server.runs()).await;
        assert!(writers.after(ends).is_empty(), "{answer}");
    }
}

#[tokio::test]
async fn a_region_that_a_run_sees_to_is_left_alone() {
    let folder = folder();
    let server = Server::primary(folder.path()).await;
    let sentry = Sentry::start(&server, folder.path(), "coming 8 east", "", "");
    sentry.holds("coming").await;
    sentry.answer("tended 8 east");
    sentry.holds("tended").await;
    let writers = Writers::start(&server, 1).await;
    sentry.answer("held 8");
    sentry.holds("lease").await;
    assert!(server.runs() && sentry.deeds().is_empty());
    drop(writers);
}

#[tokio::test]
async fn where_no_record_was_ever_seen_nothing_is_guarded() {
    let folder = folder();
    let server = Server::primary(folder.path()).await;
    let sentry = Sentry::start(&server, folder.path(), "unknown", "", "");
    sentry.holds("no-record").await;
    sentry.answer("not-ours 8 west");
    until("it is stopped", async || !server.runs()).await;
}

#[tokio::test]
async fn the_operators_command_stops_it_and_signals_follow_when_it_does_not() {
    for (command, by_command) in
        [("exec kill -QUIT $(head -1 DATA/postmaster.pid)", true), ("exec sleep 600", false)]
    {
        let folder = folder();
        let server = Server::primary(folder.path()).await;
        let command = command.replace("DATA", server.data.to_str().unwrap());
        let top = format!("stop = ['/bin/sh', '-c', '{command}']\nstop_limit = '250ms'");
        let sentry = Sentry::start(&server, folder.path(), "not-ours 8 west", &top, "");
        until("it is stopped", async || !server.runs()).await;
        until("it is written down", async || sentry.deeds().contains("\"stopped\"")).await;
        let complained = sentry.deeds().contains("did not end within 250 ms");
        assert_eq!(complained, !by_command, "{}", sentry.deeds());
    }
}

/// A host that starts again, cut off: its lease may have run out long ago, and another region may take writes.
#[tokio::test]
async fn where_a_lease_was_held_before_there_is_no_grace() {
    for (answer, before) in [("unreachable", true), ("not-ours 8 west", false)] {
        let folder = folder();
        let server = Server::primary(folder.path()).await;
        if before {
            std::fs::create_dir(folder.path().join("state")).unwrap();
            std::fs::write(folder.path().join("state/epoch"), "7").unwrap();
            crate::server::give(&folder.path().join("state"));
        }
        let sentry = Sentry::start(&server, folder.path(), answer, "grace = '60m'", "");
        until("it is stopped", async || !server.runs()).await;
        until("it says why", async || sentry.deeds().contains("a primary without a write lease")).await;
    }
}
