//! How long from the order to promote until the first committed write, when the order comes in the instant the
//! primary dies: twenty pairs of real servers with PostgreSQL's default `wal_retrieve_retry_interval` of 5 s.
//!
//! `cargo run -p lifeboat-postgres --example promote_trials [TRIALS] [once]`; `once` sends a single promotion signal,
//! which shows what asking again is for.

#![expect(clippy::unwrap_used, reason = "a trial that cannot be carried out is no figure")]

use std::io::{Write, stdout};
use std::time::{Duration, Instant};

use lifeboat_core::SystemIdentifier;
use lifeboat_engine::ports::{Database, Probe, Role};
use tokio::task::JoinHandle;

#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../tests/servers/pair.rs"]
mod pair;

use pair::{Pair, Server, ask, call};

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let trials = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(20_u32);
    let once = arguments.next().is_some_and(|word| word == "once");
    let mut out = stdout();
    let mut took = Vec::new();
    for trial in 0..trials {
        // The order comes ever otherwise: with the kill under way, 0.5 ms later, 1 ms later … 9.5 ms later.
        let after = Duration::from_micros(u64::from(trial % 20) * 500);
        let one = if once { with_one_signal(after).await } else { as_built(after).await };
        writeln!(
            out,
            "trial {:3}, {:4} us after the kill began: {:4} ms",
            trial + 1,
            after.as_micros(),
            one.as_millis()
        )
        .unwrap();
        took.push(one);
    }
    took.sort();
    let (median, worst) = (took[took.len() / 2].as_millis(), took[took.len() - 1].as_millis());
    writeln!(out, "{trials} trials: median {median} ms, worst {worst} ms").unwrap();
}

async fn start() -> (Pair, JoinHandle<()>) {
    let pair = Pair::start().await;
    let client = pair.east.connect("app").await.unwrap();
    // Writers, so that the primary dies in the middle of its log.
    let writing = tokio::spawn(async move {
        while client.execute("INSERT INTO orders SELECT FROM generate_series(1, 50)", &[]).await.is_ok() {}
    });
    (pair, writing)
}

async fn as_built(after: Duration) -> Duration {
    let (pair, writing) = start().await;
    let east = pair.east.member();
    let west = pair.west.member();
    east.look(&ask(Role::Primary, 1)).await.unwrap();
    west.look(&ask(Role::Standby, 1)).await.unwrap();
    let system: i64 =
        pair.west.value("SELECT system_identifier FROM pg_control_system()").await.parse().unwrap();
    let killing = kill_and_wait(pair.east, after).await;
    let begun = Instant::now();
    west.ensure_promoted(&call(8), SystemIdentifier::new(system as u64)).await.unwrap();
    west.ensure_writable(&call(8)).await.unwrap();
    let took = begun.elapsed();
    writing.await.unwrap();
    drop(killing.await.unwrap());
    took
}

async fn with_one_signal(after: Duration) -> Duration {
    let (pair, writing) = start().await;
    let client = pair.west.client().await;
    let killing = kill_and_wait(pair.east, after).await;
    let begun = Instant::now();
    client.execute("SELECT pg_promote(false)", &[]).await.unwrap();
    while client.execute("INSERT INTO orders DEFAULT VALUES", &[]).await.is_err() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let took = begun.elapsed();
    writing.await.unwrap();
    drop(killing.await.unwrap());
    took
}

/// Begins to kill `server` on another thread, and returns `after` that, to the microsecond.
async fn kill_and_wait(mut server: Server, after: Duration) -> JoinHandle<Server> {
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let killing = tokio::task::spawn_blocking(move || {
        tell.send(Instant::now()).unwrap();
        server.kill();
        server
    });
    let begun = told.recv().unwrap();
    while begun.elapsed() < after {
        std::hint::spin_loop();
    }
    killing
}
