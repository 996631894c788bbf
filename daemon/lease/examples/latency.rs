//! How long an append and a renewal take on an etcd of three members on this machine, where the disk is what takes the time.
//!
//! Run: `cargo run --release -p lifeboat-lease --example latency`
#![expect(clippy::print_stdout, reason = "it is run by a person, to read these figures")]
#![expect(dead_code, reason = "the tests use more of what is shared with them")]

use std::time::Duration;

use lifeboat_core::head::Guarded;
use lifeboat_core::testimony::Beat;
use lifeboat_engine::ports::{Coordination, WriteLeases};
use lifeboat_lease::etcd::EtcdLeases;
use tokio::time::Instant;

#[path = "../tests/etcd/agents.rs"]
mod agents;
#[path = "../tests/etcd/servers.rs"]
mod servers;

use agents::{agent, east, elected, head, no_heads, options, record, shop, testimony};

const ROUNDS: u64 = 500;

#[tokio::main]
async fn main() {
    let servers = servers::Servers::start(3).await;
    let a = agent(&servers, "a");
    let tenure = elected(&a).await;
    a.append(tenure, &[record(1, "1.0")], &shop(head(1, "east", false))).await.expect("appended");
    let sentry = EtcdLeases::new(options("sentry", servers.endpoints()));

    let mut appends = Vec::new();
    let mut renewals = Vec::new();
    let mut writes = Vec::new();
    let mut words = Vec::new();
    for round in 1..=ROUNDS {
        appends.push(timed(a.append(tenure, &[record(round + 1, "1.0")], &no_heads())).await);
        let beat = Beat { term: tenure.term, count: round };
        renewals.push(timed(Coordination::renew(&*a, tenure, beat)).await);
        let length = Duration::from_secs(30);
        writes.push(timed(sentry.renew(&"shop".into(), &east(), length, Guarded::Writing)).await);
        words.push(timed(a.testify(&testimony("a", round))).await);
    }
    println!("three members on this machine, {ROUNDS} each, milliseconds: median, 99th of 100, worst");
    print("append a record", appends);
    print("renew the tenure", renewals);
    print("renew a write lease", writes);
    print("say a testimony", words);
}

async fn timed<T, E: std::fmt::Debug>(call: impl Future<Output = Result<T, E>>) -> Duration {
    let start = Instant::now();
    call.await.expect("done");
    start.elapsed()
}

fn print(what: &str, mut took: Vec<Duration>) {
    took.sort();
    let at = |part: usize| took[(took.len() - 1) * part / 100].as_secs_f64() * 1000.0;
    println!("{what:20} {:7.2} {:7.2} {:7.2}", at(50), at(99), at(100));
}
