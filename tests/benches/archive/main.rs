//! Backups and restores, ours beside pgBackRest's and pg_basebackup's: same data, same run, medians, ratios.
//!
//! `make bench`, or `cargo build --release -p lifeboat && cargo bench -p lifeboat-tests --bench archive [-- ROUNDS]`. The
//! reference data is pgbench at scale 130 and 400 MB that cannot be compressed, in a cluster with page checksums. CPU is
//! that of the client's processes and of the server's together, read from `/proc`.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints its numbers, and ends when it cannot"
)]

mod cluster;
mod peers;

use std::time::Duration;

use cluster::Cluster;
use peers::{Basebackup, Lifeboat, PgBackRest};

/// Rounds, unless it is said how many.
const ROUNDS: usize = 5;

/// Row updates between two backups, scattered over the cluster.
const UPDATES: u32 = 2_400;

/// What one run of one program took.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    wall: Duration,
    /// Of all processes, user and system.
    cpu: Duration,
    /// Bytes in its repository, more than before.
    stored: u64,
}

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        // `cargo test --all-targets` runs benchmarks too; this one has nothing to test.
        return println!("run it with: cargo bench -p lifeboat-tests --bench archive");
    }
    let rounds = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(ROUNDS);
    let cluster = Cluster::start();
    println!("reference data: {} MB in {} files", cluster.bytes() / 1_000_000, cluster.files());
    let (mut first, mut unchanged, mut updated, mut restore) =
        (Rows::new(), Rows::new(), Rows::new(), Rows::new());
    for _ in 0..rounds {
        let basebackup = Basebackup::new(&cluster);
        let pgbackrest = PgBackRest::new(&cluster);
        let lifeboat = Lifeboat::new(&cluster);
        first.push("pg_basebackup, server lz4, not encrypted", basebackup.backup());
        first.push("pgBackRest, 2 processes, zstd 3, AES", pgbackrest.backup());
        first.push("lifeboat, zstd 1, AES", lifeboat.backup());
        unchanged.push("reading the cluster (pg_basebackup to nowhere)", basebackup.read());
        unchanged.push("pgBackRest, incremental", pgbackrest.next());
        unchanged.push("lifeboat", lifeboat.backup());
        restore.push("pgBackRest", pgbackrest.restore());
        restore.push("lifeboat", lifeboat.restore());
        cluster.update(UPDATES);
        updated.push("pgBackRest, incremental", pgbackrest.next());
        updated.push("lifeboat", lifeboat.backup());
    }
    first.print("first full backup");
    unchanged.print("next backup, nothing changed");
    updated.print(&format!("next backup, {UPDATES} rows updated"));
    restore.print("restore, not started");
}

/// Runs by who they are of, in the order in which they were first made.
struct Rows(Vec<(&'static str, Vec<Cost>)>);

impl Rows {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn push(&mut self, who: &'static str, cost: Cost) {
        match self.0.iter_mut().find(|(name, _)| *name == who) {
            Some((_, costs)) => costs.push(cost),
            None => self.0.push((who, vec![cost])),
        }
    }

    /// The medians, and ours to each peer's.
    fn print(&self, what: &str) {
        println!("\n{what}");
        let ours = self.0.last().map(|(_, costs)| median(costs)).unwrap_or_default();
        for (who, costs) in &self.0 {
            let cost = median(costs);
            let ratio =
                |ours: Duration, theirs: Duration| ours.as_secs_f64() / theirs.as_secs_f64().max(0.001);
            println!(
                "  {who:<48} {:>6.2} s wall  {:>6.2} s CPU  {:>8.1} MB stored   lifeboat takes {:.2} x, {:.2} x",
                cost.wall.as_secs_f64(),
                cost.cpu.as_secs_f64(),
                cost.stored as f64 / 1e6,
                ratio(ours.wall, cost.wall),
                ratio(ours.cpu, cost.cpu),
            );
        }
    }
}

fn median(costs: &[Cost]) -> Cost {
    fn middle<T: Ord + Copy>(costs: &[Cost], part: impl Fn(&Cost) -> T) -> T {
        let mut parts: Vec<T> = costs.iter().map(part).collect();
        parts.sort_unstable();
        parts[parts.len() / 2]
    }
    Cost {
        wall: middle(costs, |cost| cost.wall),
        cpu: middle(costs, |cost| cost.cpu),
        stored: middle(costs, |cost| cost.stored),
    }
}
