//! How long each part of a planned move takes, and how long clients cannot write, on pairs of real servers under
//! 1,000 writes a second.
//!
//! `cargo run -p lifeboat-postgres --example switchover_trials [TRIALS] [WRITES_PER_SECOND]`

#![expect(clippy::unwrap_used, reason = "a trial that cannot be carried out is no figure")]

use std::collections::BTreeSet;
use std::io::{Stdout, Write, stdout};
use std::time::{Duration, Instant};

use lifeboat_engine::ports::{Database, Probe, Role};
use tokio::task::JoinHandle;

#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../tests/servers/pair.rs"]
mod pair;

use pair::{Pair, Server, ask, call};

const WRITERS: u32 = 10;

/// What a writer was told last, and when.
type Told = (BTreeSet<i64>, Instant);

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let trials = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(5_u32);
    let rate = arguments.next().and_then(|rate| rate.parse().ok()).unwrap_or(1000_u32);
    let (mut out, mut gaps) = (stdout(), Vec::new());
    for _ in 0..trials {
        gaps.push(trial(rate, &mut out).await);
    }
    gaps.sort();
    let (median, worst) = (gaps[gaps.len() / 2].as_millis(), gaps[gaps.len() - 1].as_millis());
    writeln!(out, "{trials} trials: no client could write for {median} ms (median), {worst} ms (worst)")
        .unwrap();
}

async fn trial(rate: u32, out: &mut Stdout) -> Duration {
    let pair = Pair::start().await;
    let (east, west) = (pair.east.member(), pair.west.member());
    east.look(&ask(Role::Primary, 1)).await.unwrap();
    west.look(&ask(Role::Standby, 1)).await.unwrap();
    let mut writers = Vec::new();
    for _ in 0..WRITERS {
        writers.push(writer(&pair.east, Duration::from_secs(1) * WRITERS / rate).await);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mark = east.mark(&call(8)).await.unwrap();
    west.fit(&call(8), mark.system).await.unwrap();
    west.catch_up(&call(8), &mark).await.unwrap();
    east.drain(&call(8)).await.unwrap();
    let begun = Instant::now();
    let proof = east.ensure_closed(&call(8)).await.unwrap();
    let closed = Instant::now();
    let end = proof.end().unwrap().clone();
    west.catch_up(&call(8), &end).await.unwrap();
    let caught_up = Instant::now();
    west.ensure_promoted(&call(8), mark.system).await.unwrap();
    let promoted = Instant::now();
    west.ensure_writable(&call(8)).await.unwrap();
    let writable = Instant::now();
    let (mut told, mut last) = (BTreeSet::new(), begun);
    for writer in writers {
        let (its, at): Told = writer.await.unwrap();
        told.extend(its);
        last = last.max(at);
    }
    let there = pair.west.client().await.query("SELECT id FROM orders", &[]).await.unwrap();
    let there: BTreeSet<i64> = there.iter().map(|row| row.get(0)).collect();
    let millis = |from: Instant, to: Instant| to.duration_since(from).as_secs_f64() * 1000.0;
    writeln!(
        out,
        "close {:5.1} ms, catch up {:4.1}, promote {:5.1}, first write {:4.1}; clients could not write for {:5.1} ms; \
         {} rows acknowledged, {} lost",
        millis(begun, closed),
        millis(closed, caught_up),
        millis(caught_up, promoted),
        millis(promoted, writable),
        millis(last, writable),
        told.len(),
        told.difference(&there).count(),
    )
    .unwrap();
    writable.duration_since(last)
}

/// Writes every `pause` until its session ends.
async fn writer(server: &Server, pause: Duration) -> JoinHandle<Told> {
    let client = server.connect("app").await.unwrap();
    tokio::spawn(async move {
        let (mut told, mut last) = (BTreeSet::new(), Instant::now());
        let mut turn = tokio::time::interval(pause);
        loop {
            turn.tick().await;
            match client.query_one("INSERT INTO orders DEFAULT VALUES RETURNING id", &[]).await {
                Ok(row) => {
                    told.insert(row.get(0));
                    last = Instant::now();
                }
                Err(_) => return (told, last),
            }
        }
    })
}
