//! How fast a switch is seen, and how many questions the authority answers: `cargo bench -p lifeboat-dns`.
//!
//! **Invariant:** what is measured is what a client sees: an answer that holds the new address.

#![expect(clippy::print_stdout, reason = "a measurement is printed")]

#[path = "../tests/real/servers.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod servers;

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use lifeboat_core::{AgentName, Epoch, RunId};
use lifeboat_dns::{Authority, KeptName, KeyAlgorithm, Rfc2136, Rfc2136Options, ZoneOptions};
use lifeboat_engine::ports::{Call, NameChange, Names};
use servers::{KEY_NAME, Notify, SECRET, Server, ZONE, free_address};

const SHOP: &str = "shop.example.test.";
const PLACES: [&str; 2] = ["192.0.2.80", "198.51.100.80"];

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let mut failed = Vec::new();
    runtime.block_on(async {
        for (name, server) in [
            ("BIND 9", servers::bind(None)),
            ("Knot DNS", servers::knot()),
            ("PowerDNS", servers::powerdns("")),
            ("PowerDNS without caches", servers::powerdns("cache-ttl=0\nquery-cache-ttl=0")),
        ] {
            let times = switches(&server, server.address, 60, Duration::ZERO).await;
            row(&format!("{name}: update sent to visible there"), &times, Some(15.0), &mut failed);
        }
        for (delay, rounds, bar) in [("notify-delay 0;", 15, Some(100.0)), ("", 7, None)] {
            let secondary = free_address();
            let primary = servers::bind(Some(Notify { secondary, delay }));
            let secondary = servers::bind_secondary(secondary, primary.address);
            // BIND holds back what follows within half a second of the last: switches come one at a time.
            let times = switches(&primary, secondary.address, rounds, Duration::from_millis(1500)).await;
            let delay = if delay.is_empty() { "notify-delay 5 (default)" } else { "notify-delay 0" };
            row(&format!("BIND secondary, {delay}"), &times, bar, &mut failed);
        }
        throughput().await;
    });
    assert!(failed.is_empty(), "above the bar: {failed:?}");
}

/// Switches back and forth; each time from just before the call until `seen` answers the new address.
async fn switches(server: &Server, seen: SocketAddr, rounds: u64, pause: Duration) -> Vec<f64> {
    let key_file = server.folder.path().join("key");
    std::fs::write(&key_file, SECRET).expect("a key file");
    let names = Rfc2136::new(Rfc2136Options {
        zone: ZONE.into(),
        server: server.address,
        secondaries: Vec::new(),
        resolvers: Vec::new(),
        key_name: KEY_NAME.to_owned(),
        key_algorithm: KeyAlgorithm::HmacSha256,
        key_file,
    });
    let mut times = Vec::new();
    for round in 1..=rounds {
        tokio::time::sleep(pause).await;
        let (from, to) = if round % 2 == 1 { (PLACES[0], PLACES[1]) } else { (PLACES[1], PLACES[0]) };
        let set = |value: &str| BTreeSet::from([value.to_owned()]);
        let change =
            NameChange { name: SHOP.into(), from: set(from), to: set(to), ttl: Duration::from_secs(10) };
        let epoch = Epoch::new(round);
        let run = RunId::of(&"shop".into(), epoch);
        let call = Call { run, agent: AgentName::new("bench"), epoch, limit: Duration::from_secs(10) };
        let sent = Instant::now();
        let watch = tokio::task::spawn_blocking(move || {
            while !answer(seen, to) {
                assert!(sent.elapsed() < Duration::from_secs(30), "the switch is never seen");
                std::thread::sleep(Duration::from_micros(500));
            }
            sent.elapsed()
        });
        names.ensure_record(&call, &change).await.expect("a switch");
        times.push(watch.await.expect("a watch").as_secs_f64() * 1000.0);
    }
    times
}

/// Whether `server` answers `address` for the shop.
fn answer(server: SocketAddr, address: &str) -> bool {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a limit");
    let mut buffer = [0; 512];
    let asked = socket.send_to(&query(SHOP), server).is_ok();
    let Ok((length, _)) = socket.recv_from(&mut buffer) else { return false };
    let octets: Vec<u8> = address.split('.').map(|octet| octet.parse().expect("an octet")).collect();
    asked && buffer[..length].windows(4).any(|four| four == octets)
}

/// A plain query for an A record.
fn query(name: &str) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split_terminator('.') {
        bytes.push(u8::try_from(label.len()).expect("a label"));
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
    bytes
}

/// Questions per second of the authority: one thread asks, with 32 questions under way.
async fn throughput() {
    let options = ZoneOptions {
        zone: ZONE.into(),
        listen: vec![free_address()],
        nameservers: vec!["ns1.example.test.".into()],
        hostmaster: None,
        negative_ttl: Duration::from_secs(5),
        fixed: Vec::new(),
    };
    let values = BTreeSet::from([PLACES[0].to_owned()]);
    let shop = KeptName { name: SHOP.into(), values, ttl: Duration::from_secs(10), epoch: Epoch::new(1) };
    let serving = Authority::bind(options, vec![shop]).await.expect("an authority").start();
    let server = serving.addresses()[0];
    let asked = tokio::task::spawn_blocking(move || {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.connect(server).expect("an address");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a limit");
        let (query, mut buffer, mut answered) = (query(SHOP), [0; 512], 0_u32);
        for _ in 0..32 {
            socket.send(&query).expect("a question");
        }
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(3) {
            answered += u32::from(socket.recv(&mut buffer).is_ok());
            socket.send(&query).expect("a question");
        }
        f64::from(answered) / started.elapsed().as_secs_f64()
    });
    println!(
        "{:<50} {:>8.0} questions/s",
        "authority, one socket, 32 under way",
        asked.await.expect("a count")
    );
    serving.drain().await;
}

fn row(what: &str, times: &[f64], bar: Option<f64>, failed: &mut Vec<String>) {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (median, most) = (sorted[sorted.len() / 2], sorted[sorted.len() - 1]);
    let note = bar.map_or(String::new(), |bar| format!("  (bar {bar} ms)"));
    println!("{what:<50} median {median:>7.1} ms  most {most:>7.1} ms  n {}{note}", times.len());
    if bar.is_some_and(|bar| median > bar) {
        failed.push(format!("{what}: {median:.1} ms"));
    }
}
