//! What must not be touched: a standby, and a process that has somebody's id.

use std::fs;
use std::process::Command;

use crate::sentry::Sentry;
use crate::server::{Server, folder, give, lives, until};

#[tokio::test]
async fn a_standby_is_never_touched_and_a_promoted_one_is_given_time() {
    let folder = folder();
    let primary = Server::primary(folder.path()).await;
    let standby = primary.standby(folder.path()).await;
    let sentry = Sentry::start(&standby, folder.path(), "not-ours 7 elsewhere", "", "");
    let follows =
        |sentry: &Sentry| sentry.renewals().iter().filter(|(_, says, _)| says == "following").count() > 3;
    until("it says that it follows", async || follows(&sentry)).await;
    assert!(standby.runs() && sentry.deeds().is_empty(), "{}", sentry.deeds());
    // The coordinator is lost in the instant of its promotion: it has the time of one lease to be heard of.
    sentry.answer("unreachable");
    standby.connect().await.unwrap().execute("SELECT pg_promote()", &[]).await.unwrap();
    until("it says that it takes writes", async || {
        sentry.renewals().last().is_some_and(|(_, says, _)| says == "writing")
    })
    .await;
    sentry.answer("held 8");
    sentry.holds("lease").await;
    assert!(standby.runs() && sentry.deeds().is_empty(), "{}", sentry.deeds());
    // Now it is a primary like any other.
    sentry.answer("not-ours 9 elsewhere");
    until("it is stopped", async || !standby.runs()).await;
    assert!(primary.runs(), "the server beside it is not ours to stop");
}

#[tokio::test]
async fn a_signal_file_does_not_protect_a_primary() {
    let folder = folder();
    let server = Server::primary(folder.path()).await;
    fs::write(server.data.join("standby.signal"), "").unwrap();
    let _sentry = Sentry::start(&server, folder.path(), "not-ours 8 west", "", "");
    until("it is stopped", async || !server.runs()).await;
}

#[tokio::test]
async fn a_process_that_has_the_id_of_a_server_is_never_signalled() {
    let folder = folder();
    let mut server = Server::primary(folder.path()).await;
    server.stop();
    // The file of a server that was killed names a process of somebody else, who even works in the data folder.
    let mut other = Command::new("sleep").arg("600").current_dir(&server.data).spawn().unwrap();
    let lock = server.data.join("postmaster.pid");
    let text = format!("{}\n{}\n1\n5432\n\n127.0.0.1\n 1 2\nready   \n", other.id(), server.data.display());
    fs::write(&lock, text).unwrap();
    give(&lock);
    let sentry = Sentry::start(&server, folder.path(), "not-ours 8 west", "", "");
    until("it has looked a few times", async || sentry.renewals().len() > 4).await;
    assert!(sentry.renewals().iter().all(|(_, says, _)| says == "stopped"));
    assert!(lives(other.id()) && sentry.deeds().is_empty());
    other.kill().unwrap();
    other.wait().unwrap();
}

/// A postmaster that is killed leaves backends behind that go on with what they do.
#[tokio::test]
async fn what_outlives_its_postmaster_is_stopped_too() {
    let folder = folder();
    let server = Server::primary(folder.path()).await;
    let client = server.connect().await.unwrap();
    let long =
        tokio::spawn(
            async move { client.execute("SELECT sum(i) FROM generate_series(1, 1e12) i", &[]).await },
        );
    let busy = async || {
        server
            .connect()
            .await
            .unwrap()
            .query_one(
                "SELECT pid FROM pg_stat_activity WHERE query LIKE '%1e12%' AND pid <> pg_backend_pid()",
                &[],
            )
            .await
            .ok()
    };
    until("it is busy", async || busy().await.is_some()).await;
    let backend: i32 = busy().await.unwrap().get(0);
    let backend = u32::try_from(backend).unwrap();
    crate::server::signal("-KILL", &[server.postmaster()]);
    until("the postmaster is gone", async || !server.runs()).await;
    assert!(lives(backend), "the backend goes on without it");
    let _sentry = Sentry::start(&server, folder.path(), "not-ours 8 west", "", "");
    until("the backend is gone too", async || !lives(backend)).await;
    long.await.unwrap().unwrap_err();
}
