//! The census, the probe and the identity of servers, asked of real ones.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use lifeboat_core::sighting::{Evidence, FailureKind};
use lifeboat_core::{AgentName, Epoch, Moment};
use lifeboat_dns::{DnsProbe, RecordKind, Rfc2136, identify};
use lifeboat_engine::ports::{Ask, Names, Probe, Role};

use crate::servers::{self, Notify, SECRET, Server, ZONE, free_address};
use crate::updates::options;
use crate::{call, change, set};

const SHOP: &str = "shop.example.test.";

/// A primary and a secondary of BIND; the change reaches both, within what BIND allows.
fn pair(delay: &'static str) -> (Server, Server) {
    let secondary = free_address();
    let primary = servers::bind(Some(Notify { secondary, delay }));
    let secondary = servers::bind_secondary(secondary, primary.address);
    (primary, secondary)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secondary_sees_the_change_when_bind_tells_it_at_once() {
    let (primary, secondary) = pair("notify-delay 0;");
    let mut with = options(&primary, ZONE, SECRET);
    with.secondaries = vec![secondary.address];
    let names = Rfc2136::new(with);
    let there = change(SHOP, &["192.0.2.80"], &["198.51.100.80"]);
    names.ensure_record(&call(7), &there).await.unwrap();
    let sent = Instant::now();
    loop {
        let census = names.census(&call(7), &there).await.unwrap();
        if census.disagree.is_empty() {
            let both = BTreeSet::from([primary.address.to_string(), secondary.address.to_string()]);
            assert_eq!(census.agree, both);
            break;
        }
        // Far below BIND's own delay of 5 s, far above what a busy machine needs.
        assert!(sent.elapsed() < Duration::from_secs(3), "{census:?}\n{}", secondary.log());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_census_names_who_says_something_else() {
    let (primary, other, pdns) = (servers::bind(None), servers::knot(), servers::powerdns(""));
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = (silent.local_addr().unwrap(), silent);
    let dead = free_address();
    let mut with = options(&primary, ZONE, SECRET);
    with.secondaries = vec![other.address, silent.0, dead];
    // Not a resolver: asked to resolve, it still answers for its zone.
    with.resolvers = vec![pdns.address];
    let names = Rfc2136::new(with);
    let there = change(SHOP, &["192.0.2.80"], &["198.51.100.80"]);
    names.ensure_record(&call(7), &there).await.unwrap();

    let asked = Instant::now();
    let census = names.census(&call(7), &there).await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(4), "one silent server must not hold up the rest for long");
    assert_eq!(census.agree, BTreeSet::from([primary.address.to_string()]));
    let says = |server: SocketAddr| census.disagree[&server.to_string()].as_str();
    assert_eq!(says(other.address), "192.0.2.80");
    assert_eq!(says(pdns.address), "192.0.2.80");
    // Silence is no other answer: these may have died with their region.
    let silence = |server: SocketAddr| census.silent[&server.to_string()].as_str();
    assert_eq!(silence(silent.0), "no answer within 1.5s");
    assert_eq!(silence(dead), "connection refused");
    assert_eq!((census.disagree.len(), census.silent.len()), (2, 2));

    let missing = change("missing.example.test.", &["192.0.2.80"], &["198.51.100.80"]);
    let census = names.census(&call(7), &missing).await.unwrap();
    assert_eq!(census.disagree[&primary.address.to_string()], "NXDOMAIN");
    let elsewhere = change("shop.nowhere.test.", &["192.0.2.80"], &["198.51.100.80"]);
    let census = names.census(&call(7), &elsewhere).await.unwrap();
    assert_eq!(census.disagree[&primary.address.to_string()], "REFUSED");
    // The old kind that stayed behind is a disagreement too.
    let half = change(SHOP, &["2001:db8::1"], &["198.51.100.80", "2001:db8::2"]);
    let census = names.census(&call(7), &half).await.unwrap();
    assert_eq!(census.disagree[&primary.address.to_string()], "198.51.100.80");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_looks_at_what_a_server_says() {
    let server = servers::knot();
    let ask = Ask {
        agent: AgentName::new("test"),
        at: Moment::from_millis(0),
        epoch: Epoch::new(1),
        expect: Role::Primary,
        limit: Duration::from_secs(2),
    };
    let look = async |server: SocketAddr, name: &str, kind: RecordKind, expect: Option<&[&str]>| {
        let expect = expect.map(set);
        let probe = DnsProbe::new(server, &name.into(), kind, expect.as_ref()).unwrap();
        probe.look(&ask).await.map_err(|failure| (failure.kind, failure.detail))
    };
    let at = server.address;
    assert_eq!(look(at, SHOP, RecordKind::A, None).await, Ok(Evidence::Answered));
    assert_eq!(look(at, SHOP, RecordKind::A, Some(&["192.0.2.80"])).await, Ok(Evidence::Answered));
    assert_eq!(
        look(at, "text.example.test", RecordKind::Txt, Some(&["hello"])).await,
        Ok(Evidence::Answered)
    );
    assert_eq!(look(at, ZONE, RecordKind::Ns, Some(&["NS1.example.test"])).await, Ok(Evidence::Answered));
    assert_eq!(
        look(at, SHOP, RecordKind::A, Some(&["192.0.2.1"])).await,
        Err((FailureKind::WrongAnswer, "shop.example.test. A says 192.0.2.80, expected 192.0.2.1".into()))
    );
    assert_eq!(
        look(at, "none.example.test.", RecordKind::A, None).await,
        Err((FailureKind::WrongAnswer, "none.example.test. A: NXDOMAIN".into()))
    );
    assert_eq!(look(free_address(), SHOP, RecordKind::A, None).await.unwrap_err().0, FailureKind::Refused);
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let silence = look(silent.local_addr().unwrap(), SHOP, RecordKind::A, None).await;
    assert_eq!(silence.unwrap_err().0, FailureKind::Silent);
}

/// Answers that do not belong to the question are not taken: another id, another question, garbage.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_answer_is_not_taken() {
    let liar = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = liar.local_addr().unwrap();
    let lies = std::thread::spawn(move || {
        let mut buffer = [0; 512];
        let (length, client) = liar.recv_from(&mut buffer).unwrap();
        let mut answer = buffer[..length].to_vec();
        answer[2] |= 0x80;
        let mut other_id = answer.clone();
        other_id[0] ^= 0xFF;
        other_id[3] |= 3;
        let mut other_question = answer.clone();
        other_question[13] ^= 0x01;
        other_question[3] |= 3;
        for lie in [&other_id, &other_question, &answer] {
            liar.send_to(lie, client).unwrap();
        }
    });
    let probe = DnsProbe::new(address, &SHOP.into(), RecordKind::A, Some(&set(&["192.0.2.80"]))).unwrap();
    let ask = Ask {
        agent: AgentName::new("test"),
        at: Moment::from_millis(0),
        epoch: Epoch::new(1),
        expect: Role::Primary,
        limit: Duration::from_secs(2),
    };
    // The third one belongs, and says nothing.
    let failure = probe.look(&ask).await.unwrap_err();
    assert_eq!(failure.detail, "shop.example.test. A says nothing, expected 192.0.2.80");
    lies.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_say_what_they_are() {
    let limit = Duration::from_secs(2);
    let bind = servers::bind(None);
    let said = identify(bind.address, limit).await.unwrap();
    assert!(said.bind && said.to_string().starts_with("BIND 9."), "{said}");
    let knot = servers::knot();
    let said = identify(knot.address, limit).await.unwrap();
    assert!(!said.bind && said.version.starts_with("Knot DNS 3."), "{said}");
    let pdns = servers::powerdns("");
    let said = identify(pdns.address, limit).await.unwrap();
    assert!(!said.bind && said.version.contains("PowerDNS"), "{said}");
    assert_eq!(identify(free_address(), limit).await, None);
}
