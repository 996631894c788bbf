//! The authority, judged by dig, by unbound and by garbage.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lifeboat_core::{DnsName, Epoch, FaultKind};
use lifeboat_dns::{
    Authority, AuthorityError, FixedRecord, KeptName, KeptNames, RecordKind, Serving, ZoneOptions,
};
use lifeboat_engine::ports::Names;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::servers::{dig, unbound};
use crate::{call, change, set};

const ZONE: &str = "dr.lifeboat.test.";
const SHOP: &str = "shop.dr.lifeboat.test.";

fn fixed(name: &str, kind: RecordKind, values: &[&str]) -> FixedRecord {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    FixedRecord { name: name.into(), kind, values, ttl: Duration::from_secs(300) }
}

fn options() -> ZoneOptions {
    let many: Vec<String> = (1..=40).map(|n| format!("203.0.113.{n}")).collect();
    let huge: Vec<String> = (1..=80).map(|n| format!("2001:db8::{n:x}")).collect();
    let long = "lifeboat ".repeat(40);
    ZoneOptions {
        zone: ZONE.into(),
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        nameservers: vec!["ns1.dr.lifeboat.test.".into(), "ns2.example.net.".into()],
        hostmaster: None,
        negative_ttl: Duration::from_secs(5),
        fixed: vec![
            fixed("ns1.dr.lifeboat.test.", RecordKind::A, &["127.0.0.1"]),
            fixed("note.dr.lifeboat.test.", RecordKind::Txt, &["hello world", &long]),
            fixed("alias.dr.lifeboat.test.", RecordKind::Cname, &["shop.dr.lifeboat.test."]),
            fixed("away.dr.lifeboat.test.", RecordKind::Cname, &["www.example.net."]),
            fixed("nowhere.dr.lifeboat.test.", RecordKind::Cname, &["missing.dr.lifeboat.test."]),
            fixed("loop.dr.lifeboat.test.", RecordKind::Cname, &["pool.dr.lifeboat.test."]),
            fixed("pool.dr.lifeboat.test.", RecordKind::Cname, &["loop.dr.lifeboat.test."]),
            fixed("a.deep.dr.lifeboat.test.", RecordKind::A, &["192.0.2.7"]),
            fixed(
                "many.dr.lifeboat.test.",
                RecordKind::A,
                &many.iter().map(String::as_str).collect::<Vec<_>>(),
            ),
            fixed(
                "huge.dr.lifeboat.test.",
                RecordKind::Aaaa,
                &huge.iter().map(String::as_str).collect::<Vec<_>>(),
            ),
        ],
    }
}

fn kept(name: &str, values: &[&str], ttl: u64, epoch: u64) -> KeptName {
    KeptName {
        name: name.into(),
        values: set(values),
        ttl: Duration::from_secs(ttl),
        epoch: Epoch::new(epoch),
    }
}

async fn authority() -> (Serving, KeptNames, SocketAddr) {
    let shop = kept(SHOP, &["192.0.2.80", "2001:db8::80"], 10, 6);
    let bound = Authority::bind(options(), vec![shop]).await.unwrap();
    let (names, address) = (bound.names(Vec::new()), bound.addresses()[0]);
    (bound.start(), names, address)
}

/// What dig says, without blocking the runtime that answers it.
async fn digs(server: SocketAddr, arguments: &'static [&'static str]) -> String {
    tokio::task::spawn_blocking(move || dig(server, arguments)).await.unwrap()
}

fn holds(output: &str, parts: &[&str]) {
    let plain = output.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in parts {
        assert!(plain.contains(part), "{part:?} is missing from:\n{output}");
    }
}

#[tokio::test]
async fn names_are_answered_with_authority() {
    let (_serving, _, server) = authority().await;
    let shop = digs(server, &["+norec", SHOP, "A"]).await;
    holds(
        &shop,
        &["status: NOERROR", "flags: qr aa;", "shop.dr.lifeboat.test. 10 IN A 192.0.2.80", "udp: 1232"],
    );
    holds(&shop, &["ANSWER: 1, AUTHORITY: 0"]);
    holds(
        &digs(server, &[SHOP, "AAAA"]).await,
        &["flags: qr aa rd;", "AAAA 2001:db8::80", "recursion requested but"],
    );
    holds(
        &digs(server, &[ZONE, "SOA"]).await,
        &[
            "dr.lifeboat.test. 5 IN SOA ns1.dr.lifeboat.test. hostmaster.dr.lifeboat.test. 6 3600 600 604800 5",
        ],
    );
    holds(
        &digs(server, &[ZONE, "NS"]).await,
        &[
            "300 IN NS ns1.dr.lifeboat.test.",
            "IN NS ns2.example.net.",
            "ns1.dr.lifeboat.test. 300 IN A 127.0.0.1",
        ],
    );
    let note = digs(server, &["+short", "note.dr.lifeboat.test.", "TXT"]).await;
    holds(&note, &["\"hello world\"", "\"lifeboat lifeboat"]);
    assert_eq!(note.replace("\" \"", "").matches("lifeboat").count(), 40, "cut strings join: {note}");
    holds(&digs(server, &["+noedns", SHOP, "A"]).await, &["ADDITIONAL: 0", "192.0.2.80"]);
}

#[tokio::test]
async fn aliases_are_followed_inside_the_zone() {
    let (_serving, _, server) = authority().await;
    let alias = digs(server, &["alias.dr.lifeboat.test.", "A"]).await;
    holds(
        &alias,
        &["alias.dr.lifeboat.test. 300 IN CNAME shop.dr.lifeboat.test.", "10 IN A 192.0.2.80", "ANSWER: 2"],
    );
    holds(&digs(server, &["alias.dr.lifeboat.test.", "CNAME"]).await, &["ANSWER: 1", "CNAME shop.dr"]);
    holds(
        &digs(server, &["away.dr.lifeboat.test.", "A"]).await,
        &["NOERROR", "ANSWER: 1, AUTHORITY: 0", "qr aa"],
    );
    // RFC 6604: the code speaks of the end of the chain.
    holds(&digs(server, &["nowhere.dr.lifeboat.test.", "A"]).await, &["NXDOMAIN", "ANSWER: 1, AUTHORITY: 1"]);
    holds(&digs(server, &["loop.dr.lifeboat.test.", "A"]).await, &["NOERROR", "ANSWER: 8"]);
}

#[tokio::test]
async fn a_no_says_how_long_it_holds() {
    let (_serving, _, server) = authority().await;
    let soa = "dr.lifeboat.test. 5 IN SOA ns1.dr.lifeboat.test.";
    holds(
        &digs(server, &["missing.dr.lifeboat.test.", "A"]).await,
        &["NXDOMAIN", "qr aa", "AUTHORITY: 1", soa],
    );
    let no_data = digs(server, &[SHOP, "MX"]).await;
    holds(&no_data, &["NOERROR", "ANSWER: 0, AUTHORITY: 1", "qr aa", soa]);
    // A name that exists only because another is below it exists (RFC 8020).
    holds(&digs(server, &["deep.dr.lifeboat.test.", "A"]).await, &["NOERROR", "ANSWER: 0, AUTHORITY: 1"]);
}

#[tokio::test]
async fn what_is_not_ours_to_do_is_refused() {
    let (_serving, _, server) = authority().await;
    let outside = digs(server, &["www.example.net.", "A"]).await;
    holds(&outside, &["status: REFUSED", "flags: qr rd;", "ANSWER: 0, AUTHORITY: 0"]);
    holds(&digs(server, &["lifeboat.test.", "SOA"]).await, &["status: REFUSED"]);
    holds(&digs(server, &["notdr.lifeboat.test.", "A"]).await, &["status: REFUSED"]);
    holds(&digs(server, &["version.bind.", "CH", "TXT"]).await, &["status: REFUSED"]);
    holds(&digs(server, &["+tcp", ZONE, "AXFR"]).await, &["Transfer failed."]);
    holds(&digs(server, &["+tcp", ZONE, "IXFR=1"]).await, &["Transfer failed."]);
    holds(&digs(server, &["+opcode=UPDATE", ZONE, "SOA"]).await, &["status: NOTIMP"]);
    holds(&digs(server, &["+opcode=NOTIFY", ZONE, "SOA"]).await, &["status: NOTIMP"]);
    holds(&digs(server, &["+edns=1", "+noednsneg", SHOP]).await, &["status: BADVERS", "version: 0"]);
    holds(&digs(server, &["+header-only"]).await, &["status: FORMERR"]);
    holds(&digs(server, &["-y", "hmac-sha256:k:c2VjcmV0", SHOP]).await, &["status: NOTAUTH"]);
    let any = digs(server, &["+notcp", SHOP, "ANY"]).await;
    holds(&any, &["status: NOERROR", "ANSWER: 1,"]);
}

#[tokio::test]
async fn what_does_not_fit_is_cut_and_comes_whole_over_tcp() {
    let (_serving, _, server) = authority().await;
    // 40 addresses are 690 bytes: too much without EDNS, enough with it.
    let cut = digs(server, &["+noedns", "+ignore", "+notcp", "many.dr.lifeboat.test.", "A"]).await;
    holds(&cut, &["flags: qr aa tc rd;", "ANSWER: 0", "QUERY: 1"]);
    holds(
        &digs(server, &["+ignore", "+notcp", "many.dr.lifeboat.test.", "A"]).await,
        &["qr aa rd;", "ANSWER: 40"],
    );
    // 80 addresses are 2290 bytes: the client would take them, the path may not.
    let cut = digs(server, &["+bufsize=4096", "+ignore", "+notcp", "huge.dr.lifeboat.test.", "AAAA"]).await;
    holds(&cut, &["flags: qr aa tc rd;", "ANSWER: 0", "udp: 1232"]);
    holds(&digs(server, &["huge.dr.lifeboat.test.", "AAAA"]).await, &["retrying in TCP mode", "ANSWER: 80"]);
    holds(
        &digs(server, &["+tcp", "+keepopen", SHOP, "A", SHOP, "AAAA"]).await,
        &["192.0.2.80", "2001:db8::80"],
    );
}

#[tokio::test]
async fn letters_come_back_as_they_were_asked() {
    let (_serving, _, server) = authority().await;
    let mixed = digs(server, &["sHoP.dR.LifeBoat.TEST.", "A"]).await;
    holds(&mixed, &[";sHoP.dR.LifeBoat.TEST. IN A", "sHoP.dR.LifeBoat.TEST. 10 IN A 192.0.2.80"]);
}

#[tokio::test]
async fn a_switch_is_seen_at_once_and_only_forward() {
    let (_serving, names, server) = authority().await;
    let old = ["192.0.2.80", "2001:db8::80"];
    let there = change(SHOP, &old, &["198.51.100.80"]);
    assert!(!names.ensure_record(&call(7), &there).await.unwrap().already);
    assert_eq!(digs(server, &["+short", SHOP, "A"]).await, "198.51.100.80\n");
    assert_eq!(digs(server, &["+short", SHOP, "AAAA"]).await, "");
    holds(&digs(server, &["+short", ZONE, "SOA"]).await, &["hostmaster.dr.lifeboat.test. 7 3600"]);
    assert!(names.ensure_record(&call(7), &there).await.unwrap().already);

    let back = change(SHOP, &["198.51.100.80"], &old);
    assert_eq!(names.ensure_record(&call(6), &back).await.unwrap_err().kind, FaultKind::Stale);
    let foreign = change(SHOP, &["203.0.113.1"], &["203.0.113.2"]);
    assert_eq!(names.ensure_record(&call(8), &foreign).await.unwrap_err().kind, FaultKind::Refused);
    let unknown = change("note.dr.lifeboat.test.", &["192.0.2.80"], &["198.51.100.80"]);
    assert_eq!(names.ensure_record(&call(8), &unknown).await.unwrap_err().kind, FaultKind::Refused);

    // An epoch counts also where nothing changes, so that the older one stays shut out.
    assert!(names.ensure_record(&call(9), &there).await.unwrap().already);
    assert_eq!(names.ensure_record(&call(8), &back).await.unwrap_err().kind, FaultKind::Stale);
    let alias = change(SHOP, &["198.51.100.80"], &["shop.west.example.net"]);
    names.ensure_record(&call(10), &alias).await.unwrap();
    assert_eq!(digs(server, &["+short", SHOP, "A"]).await, "shop.west.example.net.\n");

    // What the record of past runs knows may be placed at any time, but not over something newer.
    assert_eq!(names.place(&kept(SHOP, &["192.0.2.80"], 10, 9)).unwrap_err().kind, FaultKind::Stale);
    names.place(&kept(SHOP, &["192.0.2.80"], 10, 11)).unwrap();
    names.place(&kept("new.dr.lifeboat.test.", &["192.0.2.81"], 10, 3)).unwrap();
    assert_eq!(digs(server, &["+short", "new.dr.lifeboat.test.", "A"]).await, "192.0.2.81\n");
    holds(&digs(server, &["+short", ZONE, "SOA"]).await, &["hostmaster.dr.lifeboat.test. 14 3600"]);
}

/// unbound asks with random letters (0x20) and keeps the answer for the TTL: then it sees the switch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_resolver_sees_the_switch_after_the_ttl() {
    let shop = kept(SHOP, &["192.0.2.80"], 1, 6);
    let bound = Authority::bind(options(), vec![shop]).await.unwrap();
    let address = bound.addresses()[0];
    let serving = bound.start();
    let resolver = tokio::task::spawn_blocking(move || unbound(ZONE, address)).await.unwrap();
    let names = serving.names(vec![resolver.address]);
    assert_eq!(digs(resolver.address, &["+short", SHOP, "A"]).await, "192.0.2.80\n");

    let there = change(SHOP, &["192.0.2.80"], &["198.51.100.80"]);
    names.ensure_record(&call(7), &there).await.unwrap();
    let switched = Instant::now();
    let first = names.census(&call(7), &there).await.unwrap();
    assert_eq!(first.agree, BTreeSet::from([address.to_string()]));
    assert_eq!(first.disagree[&resolver.address.to_string()], "192.0.2.80");
    while !names.census(&call(7), &there).await.unwrap().disagree.is_empty() {
        assert!(switched.elapsed() < Duration::from_secs(4), "the resolver still says the old address");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(digs(resolver.address, &["+short", SHOP, "A"]).await, "198.51.100.80\n");
    let log = resolver.log();
    assert!(!log.contains("error"), "{log}");
}

/// Two servers that answered answers would talk to each other for ever.
#[tokio::test]
async fn a_response_is_not_answered() {
    let (_serving, _, server) = authority().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server).await.unwrap();
    let (query, mut response) = (query_bytes(), query_bytes());
    response[0] = 0x99;
    response[2] |= 0x80;
    socket.send(&response).await.unwrap();
    socket.send(&query).await.unwrap();
    let mut answer = [0; 512];
    socket.recv(&mut answer).await.unwrap();
    assert_eq!(answer[0], query[0], "the first thing answered is the query");
}

/// Random bytes, real queries cut at every length, and real queries with flipped bits, over UDP and TCP.
#[tokio::test]
async fn garbage_changes_nothing() {
    let (_serving, _, server) = authority().await;
    let mut random = ChaCha8Rng::seed_from_u64(2);
    let query = query_bytes();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server).await.unwrap();
    let (before, mut tcp) = (resident(), TcpStream::connect(server).await.unwrap());
    for round in 0..30_000_u32 {
        let garbage = match round % 3 {
            0 => {
                let mut bytes = vec![0; (random.next_u32() % 600) as usize];
                random.fill_bytes(&mut bytes);
                bytes
            }
            1 => query[..(round as usize / 3) % query.len()].to_vec(),
            _ => {
                let mut bytes = query.clone();
                for _ in 0..1 + random.next_u32() % 4 {
                    let at = random.next_u32() as usize % bytes.len();
                    bytes[at] ^= 1 << (random.next_u32() % 8);
                }
                bytes
            }
        };
        socket.send(&garbage).await.unwrap();
        if round % 64 == 0 {
            // What the authority makes of it over TCP: an answer, or the end of the connection.
            let length = u16::try_from(garbage.len()).unwrap();
            let written = tcp.write_u16(length).await.is_ok() && tcp.write_all(&garbage).await.is_ok();
            if !written || round % 640 == 0 {
                tcp = TcpStream::connect(server).await.unwrap();
            }
        }
        if round % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(digs(server, &["+short", SHOP, "A"]).await, "192.0.2.80\n");
    let grown = resident().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more than before");
}

/// One client cannot keep the others out: idle and half-written connections are closed in time.
#[tokio::test]
async fn connections_are_bounded_and_idle_ones_closed() {
    let (serving, _, server) = authority().await;
    let mut idle = Vec::new();
    for _ in 0..300 {
        let mut stream = TcpStream::connect(server).await.unwrap();
        stream.write_all(&[0]).await.unwrap();
        idle.push(stream);
    }
    // The one asked for now waits for its turn, and gets it.
    holds(&digs(server, &["+tcp", "+time=20", "+tries=1", SHOP, "A"]).await, &["192.0.2.80"]);
    let mut byte = [0];
    assert_eq!(idle[0].read(&mut byte).await.unwrap_or(0), 0, "an idle connection is closed");
    let drained = Instant::now();
    serving.drain().await;
    assert!(drained.elapsed() < Duration::from_secs(4));
    assert!(TcpStream::connect(server).await.is_err(), "after draining nobody listens");
}

#[tokio::test]
async fn a_zone_that_makes_no_sense_is_refused_before_it_serves() {
    let refused = async |change: &dyn Fn(&mut ZoneOptions), kept: Vec<KeptName>| {
        let mut wrong = options();
        change(&mut wrong);
        Authority::bind(wrong, kept).await.unwrap_err().to_string()
    };
    let none = refused(&|zone| zone.nameservers.clear(), Vec::new()).await;
    assert_eq!(none, "the zone has no name server");
    let outside = refused(&|_| {}, vec![kept("shop.example.net.", &["192.0.2.1"], 10, 1)]).await;
    assert_eq!(outside, "shop.example.net. is not in the zone dr.lifeboat.test.");
    let twice = refused(&|_| {}, vec![kept("note.dr.lifeboat.test.", &["192.0.2.1"], 10, 1)]).await;
    assert_eq!(twice, "note.dr.lifeboat.test. is given twice, or a CNAME is given beside other records");
    let apex = refused(&|_| {}, vec![kept(ZONE, &["www.example.net."], 10, 1)]).await;
    assert!(apex.starts_with("dr.lifeboat.test. is given twice"), "{apex}");
    let alias = fixed(ZONE, RecordKind::Cname, &["www.example.net."]);
    let apex = refused(&|zone| zone.fixed.push(alias.clone()), Vec::new()).await;
    assert_eq!(apex, "dr.lifeboat.test. is the zone's own name and cannot be a CNAME");
    let taken = Authority::bind(options(), Vec::new()).await.unwrap();
    let address = taken.addresses()[0];
    let mut wrong = options();
    wrong.listen = vec![address];
    let error = Authority::bind(wrong, Vec::new()).await.unwrap_err();
    assert!(matches!(error, AuthorityError::Listen { address: a, .. } if a == address), "{error}");
}

/// A query for the shop with EDNS, as bytes.
fn query_bytes() -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    for label in DnsName::new(SHOP).as_str().split_terminator('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, 1, 0, 1, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    bytes
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
}
