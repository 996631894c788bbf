//! How long from the order to promote until the first committed write, when the order comes in the instant the
//! primary dies: twenty pairs of real servers with PostgreSQL's default `wal_retrieve_retry_interval` of 5 s.
//!
//! `cargo run -p lifeboat-postgres --example promote_trials [TRIALS] [once]`; `once` sends a single promotion signal,
//! which shows what asking again is for.

use std::io::{Write, stdout};
use std::time::{Duration, Instant};

use lifeboat_core::SystemIdentifier;
use lifeboat_engine::ports::{Database, Probe, Role};

#[path = "../tests/servers/pair.rs"]
mod pair;

use pair::{Pair, ask, call};

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let trials = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(20);
    let once = arguments.next().is_some_and(|word| word == "once");
    let mut took = Vec::new();
    for trial in 0..trials {
        // The death and the order fall together in ever other ways: 0, 2, 4 … 18 ms apart.
        let apart = Duration::from_millis(trial % 10 * 2);
        took.push(if once { with_one_signal(apart).await } else { as_built(apart).await });
        writeln!(stdout(), "trial {:2}, {:2} ms after the death: {:4} ms", trial + 1, apart.as_millis(), took[trial as usize].as_millis()).unwrap();
    }
    took.sort();
    let (median, worst) = (took[took.len() / 2].as_millis(), took[took.len() - 1].as_millis());
    writeln!(stdout(), "{trials} trials: median {median} ms, worst {worst} ms").unwrap();
}

async fn start() -> (Pair, tokio::task::JoinHandle<()>) {
    let pair = Pair::start().await;
    let client = pair.east.connect("app").await.unwrap();
    // Writers, so that the primary dies in the middle of its log.
    let writing = tokio::spawn(async move {
        while client.execute("INSERT INTO orders SELECT FROM generate_series(1, 50)", &[]).await.is_ok() {}
    });
    (pair, writing)
}

async fn as_built(apart: Duration) -> Duration {
    let (mut pair, writing) = start().await;
    let east = pair.east.member();
    let west = pair.west.member();
    east.look(&ask(Role::Primary, 1)).await.unwrap();
    west.look(&ask(Role::Standby, 1)).await.unwrap();
    let system: i64 = pair.west.value("SELECT system_identifier FROM pg_control_system()").await.parse().unwrap();
    pair.east.kill();
    tokio::time::sleep(apart).await;
    let begun = Instant::now();
    west.ensure_promoted(&call(8), SystemIdentifier::new(system as u64)).await.unwrap();
    west.ensure_writable(&call(8)).await.unwrap();
    writing.await.unwrap();
    begun.elapsed()
}

async fn with_one_signal(apart: Duration) -> Duration {
    let (mut pair, writing) = start().await;
    let client = pair.west.client().await;
    pair.east.kill();
    tokio::time::sleep(apart).await;
    let begun = Instant::now();
    client.execute("SELECT pg_promote(false)", &[]).await.unwrap();
    while client.execute("INSERT INTO orders DEFAULT VALUES", &[]).await.is_err() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    writing.await.unwrap();
    begun.elapsed()
}
