//! How fast a base backup and the log come, and what that costs here: they are read and thrown away.
//!
//! `cargo run --release -p lifeboat-postgres --example drain_backup [SCALE [ROUNDS]]` makes a cluster with pgbench (20
//! by default, 320 MB) and reads it over TCP and over its unix socket, and the log that made it;
//! `… drain_backup HOST PORT USER [ROUNDS [CA_FILE]]` reads one that is there, with a CA_FILE over TLS.

#![expect(clippy::unwrap_used, reason = "a run that cannot be carried out is no figure")]

use std::io::{Write, stdout};
use std::time::Instant;

use lifeboat_core::Lsn;
use lifeboat_engine::clock::Clock;
use lifeboat_postgres::Tls;
use lifeboat_postgres::replication::{BaseBackupOptions, Endpoint, Item, Replication};

#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../tests/replication/cluster.rs"]
mod cluster;

use cluster::{Cluster, PATIENCE, as_servers_user, run};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| arguments.get(at).and_then(|text| text.parse::<usize>().ok());
    if let (Some(host), Some(port), Some(user)) = (arguments.first(), number(1), arguments.get(2)) {
        let mut endpoint = endpoint(host, u16::try_from(port).unwrap(), user);
        if let Some(ca_file) = arguments.get(4) {
            endpoint.tls = Tls::VerifyFull { ca_file: Some(ca_file.into()) };
        }
        drain("it", &endpoint, number(3).unwrap_or(5)).await;
        return;
    }
    let cluster = Cluster::start("shared_buffers = 256MB\nwal_keep_size = 16GB\nmax_wal_size = 4GB").await;
    let begun = cluster.lsn("pg_current_wal_flush_lsn()").await;
    let scale = number(0).unwrap_or(20).to_string();
    let port = cluster.port.to_string();
    run(as_servers_user("pgbench").args([
        "-i",
        "-q",
        "-s",
        &scale,
        "-h",
        "127.0.0.1",
        "-p",
        &port,
        "postgres",
    ]));
    let rounds = number(1).unwrap_or(5);
    drain("TCP", &cluster.endpoint(), rounds).await;
    let socket = cluster.folder().to_str().unwrap().to_owned();
    drain("unix socket", &Endpoint { host: socket, ..cluster.endpoint() }, rounds).await;
    for _ in 0..rounds {
        drain_log(&cluster.endpoint(), begun).await;
    }
}

/// Reads the log from `begun` to its end.
async fn drain_log(endpoint: &Endpoint, begun: Lsn) {
    let mut replication = Replication::connect(endpoint.clone()).await.unwrap();
    let now = replication.identify().await.unwrap();
    let mut stream = replication.wal(None, now.timeline, begun).await.unwrap();
    let (started, before) = (Instant::now(), processor_seconds());
    while stream.position() < now.flushed {
        stream.next().await.unwrap();
    }
    let (took, cost) = (started.elapsed().as_secs_f64(), processor_seconds() - before);
    let megabytes = stream.position().ahead_of(begun) as f64 / 1e6;
    let rate = megabytes / took;
    let mut out = stdout();
    writeln!(out, "log: {megabytes:.0} MB in {took:.2} s, {rate:.0} MB/s, {cost:.2} CPU s here").unwrap();
}

fn endpoint(host: &str, port: u16, user: &str) -> Endpoint {
    Endpoint {
        host: host.to_owned(),
        port,
        user: user.to_owned(),
        dbname: "postgres".to_owned(),
        password_file: None,
        tls: Tls::Off,
        application_name: "drain".to_owned(),
        system: None,
        limit: PATIENCE,
        silence: PATIENCE,
        clock: Clock::start(),
    }
}

async fn drain(what: &str, endpoint: &Endpoint, rounds: usize) {
    let mut out = stdout();
    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let replication = Replication::connect(endpoint.clone()).await.unwrap();
        let mut backup = replication.base_backup(&BaseBackupOptions::default()).await.unwrap();
        let (begun, before) = (Instant::now(), processor_seconds());
        let (mut bytes, mut pieces, mut files) = (0_u64, 0_u64, 0_u64);
        while let Some(item) = backup.next().await.unwrap() {
            match item {
                Item::Data(data) => {
                    bytes += data.len() as u64;
                    pieces += 1;
                }
                Item::File(_) => files += 1,
                _ => {}
            }
        }
        let (took, cost) = (begun.elapsed().as_secs_f64(), processor_seconds() - before);
        let megabytes = bytes as f64 / 1e6;
        writeln!(
            out,
            "{what}: {files} files, {megabytes:.0} MB in {took:.2} s, {:.0} MB/s, {cost:.2} CPU s here, {} KiB a piece",
            megabytes / took,
            bytes / pieces / 1024
        )
        .unwrap();
        rates.push(megabytes / took);
        costs.push(cost / megabytes * 1000.0);
    }
    rates.sort_by(f64::total_cmp);
    costs.sort_by(f64::total_cmp);
    let (rate, cost) = (rates[rates.len() / 2], costs[costs.len() / 2]);
    writeln!(out, "{what}: median {rate:.0} MB/s, {cost:.3} CPU s a GB here").unwrap();
}

/// What this process has used, in user and kernel mode: `/proc/self/stat`, in hundredths of a second.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}
